"""Tracebacks end at the user's line; DG_TRACEBACK=full shows the frames of dualgrad."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dualgrad as dg
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.runtime.srcinfo import is_package_file
from dualgrad.runtime.tracebacks import hide_own_frames

PROGRAM = """
import dualgrad as dg
import threading
import traceback

DECORATOR
def forward(x, w):
    return dg.relu(x @ w)

def train():
    return forward(dg.ones(2, 3), dg.ones(2, 3))

CALL
"""
DECORATORS = {"eager": "", "compiled": "@dg.function"}
CALLS = {
    "uncaught": "train()",
    "in a thread": "t = threading.Thread(target=train); t.start(); t.join()",
}


def run(tmp_path: Path, mode: str, call: str, **environ: str) -> str:
    """What a program prints on standard error."""
    path = tmp_path / "train.py"
    source = PROGRAM.replace("DECORATOR", DECORATORS[mode]).replace("CALL", call)
    path.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, **environ},
    )
    return done.stderr


def files(text: str) -> list[str]:
    return [line.split('"')[1] for line in text.split("\n") if line.startswith('  File "')]


@pytest.mark.parametrize("mode", DECORATORS)
@pytest.mark.parametrize("call", CALLS)
def test_need11_the_last_frame_of_an_uncaught_error_is_the_users(
    tmp_path: Path, mode: str, call: str
) -> None:
    text = run(tmp_path, mode, CALLS[call])
    assert {Path(f).name for f in files(text)} <= {"train.py", "threading.py"}
    assert files(text)[-1].endswith("train.py")
    assert text.count("Traceback") == 1
    assert text.endswith(
        textwrap.dedent("""\
        dualgrad.runtime.errors.ShapeError: [matmul] inner dimensions differ
          expect: a.shape[-1] == b.shape[-2]
          actual: 3 != 2        (a: f32[2,3], b: f32[2,3])
          hint: transpose the second operand: a @ b.transpose(-2, -1)
          at train.py:8 in forward
              return dg.relu(x @ w)
                             ^^^^^
        """)
    )


@pytest.mark.parametrize("mode", DECORATORS)
@pytest.mark.parametrize("call", CALLS)
def test_need11_all_frames_on_demand(tmp_path: Path, mode: str, call: str) -> None:
    text = run(tmp_path, mode, CALLS[call], DG_TRACEBACK="full")
    assert files(text)[-1].endswith("contract.py")
    assert text.count("Traceback") == 1


def test_need11_both_modes_print_the_same(tmp_path: Path) -> None:
    eager = run(tmp_path, "eager", CALLS["uncaught"])
    assert eager.count("File") == 3
    assert run(tmp_path, "compiled", CALLS["uncaught"]) == eager


def test_need11_an_excepthook_of_the_user_gets_the_users_frames(tmp_path: Path) -> None:
    hook = "sys.excepthook = lambda k, e, tb: print(*traceback.extract_tb(tb), sep='|')"
    source = f"import sys, traceback\n{hook}\n{PROGRAM}".replace("DECORATOR", "")
    path = tmp_path / "train.py"
    path.write_text(source.replace("CALL", "train()"), encoding="utf-8")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.stdout.count("FrameSummary") == 3
    assert str(Path(dg.__file__).parent) not in done.stdout


# -- inside of a program --------------------------------------------------------------------------


@dg.function
def product(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
    return x @ w


@dg.function
def chosen(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
    return (x * 2.0)[at]


@dg.function
def refused(x: dg.Tensor) -> dg.Tensor:
    raise KeyError("mine")


def index(k: int) -> dg.Tensor:
    return dg.tensor([k], dtype=dg.int64)


ERRORS: dict[str, Callable[[], Any]] = {
    "while tracing": lambda: product(dg.ones(2, 3), dg.ones(2, 3)),
    "while running": lambda: (chosen(dg.ones(3), index(0)), chosen(dg.ones(3), index(3))),
    "of Python": lambda: refused(dg.ones(3)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_need11_frames_of_a_caught_error_of_a_compiled_function(name: str) -> None:
    """No frame between the caller and the function's own."""
    with pytest.raises((ShapeError, IndexError, KeyError)) as caught:
        ERRORS[name]()
    frames = [f.filename for f in traceback.extract_tb(caught.tb)]
    assert set(frames) == {__file__}
    assert len(frames) == 3
    assert caught.value.__context__ is None


@pytest.mark.parametrize("name", ERRORS)
def test_need11_all_frames_of_a_caught_error(name: str) -> None:
    with config.scope(traceback="full"), pytest.raises(Exception) as caught:  # noqa: PT011
        ERRORS[name]()
    assert any(is_package_file(f.filename) for f in traceback.extract_tb(caught.tb))


def test_need11_pytest_leaves_our_frames_out() -> None:
    with pytest.raises(ShapeError) as caught:
        dg.ones(2, 3) @ dg.ones(2, 3)
    assert is_package_file(str(caught.traceback[-1].path))
    assert [str(e.path) for e in caught.traceback.filter(caught)] == [__file__]
    with config.scope(traceback="full"):
        assert len(caught.traceback.filter(caught)) == len(caught.traceback)


def test_need11_a_fault_of_dualgrad_shows_where_it_is() -> None:
    f = dg.function(lambda x: x)
    f._lock = None  # type: ignore[assignment]
    with pytest.raises(TypeError) as caught:
        f(dg.ones(2))
    assert is_package_file(traceback.extract_tb(caught.tb)[-1].filename)


def test_need11_the_frames_of_a_cause_are_the_users_too() -> None:
    @dg.function
    def f(x: dg.Tensor) -> dg.Tensor:
        try:
            return x @ dg.ones(5, 5)
        except ShapeError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        f(dg.ones(2, 3))
    text = "".join(traceback.format_exception(caught.value))
    assert not any(map(is_package_file, files(text)))
    assert text.count("Traceback") == 2


def test_need11_a_chain_that_ends_in_itself() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    hide_own_frames(first)
    assert first.__context__ is second


def test_need11_one_error_raised_in_many_threads() -> None:
    """Each thread sees its own frames."""
    found: list[list[str]] = []

    def attempt() -> None:
        try:
            product(dg.ones(2, 3), dg.ones(2, 3))
        except ShapeError as error:
            found.append([f.name for f in traceback.extract_tb(error.__traceback__)])

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [["attempt", "product"]] * 8


@pytest.mark.parametrize("value", ["none", "2"])
def test_need11_other_settings_are_refused(value: str, tmp_path: Path) -> None:
    text = run(tmp_path, "eager", "", DG_TRACEBACK=value)
    assert "DG_TRACEBACK has a value it cannot have" in text
    with pytest.raises(ArgumentError, match="traceback"), config.scope(traceback=value):
        pass
