"""Mistakes of users: what they are told, eager and compiled.

The texts are in mistakes.txt, to be read in reviews; `pytest tests/semantics/test_mistakes.py
--update-golden` rewrites that file.  The Python versions word their own errors differently, so of
these the class and the line are kept only.
"""

from __future__ import annotations

import gc
import linecache
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CellType
from typing import Any

import pytest

import dualgrad as dg
import semantics.mistakes_in_programs  # adds its mistakes
import semantics.mistakes_of_newcomers  # adds its mistakes
import semantics.mistakes_of_transforms  # noqa: F401  # adds its mistakes
from dualgrad import nn, optim
from dualgrad.runtime.errors import DualgradError, LibraryError
from dualgrad.runtime.tracebacks import hide_own_frames
from dualgrad.state import state
from semantics.mistakes import MISTAKES, REFUSALS, Case, Decorate

GOLDEN = Path(__file__).with_name("mistakes.txt")
HERE = str(Path(__file__).parent)
Make = Callable[[Decorate], Case]
all_names = pytest.mark.parametrize("name", [*MISTAKES, *REFUSALS])
names = pytest.mark.parametrize("name", MISTAKES)


def eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def attempt(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What a call returns or raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.EagerFallback)
        try:
            return function(*args)
        except Exception as error:
            return error


def user_frames(error: BaseException) -> list[tuple[str, str]]:
    """(function, source line) of the frames of a traceback that lie in this folder's mistakes."""
    frames = traceback.extract_tb(error.__traceback__)
    return [
        (f.name, linecache.getline(f.filename, f.lineno or 0).strip())
        for f in frames
        if f.filename.startswith(HERE) and f.filename != __file__
    ]


def told(error: BaseException) -> str:
    """The text of an error, without what depends on where this file lies and what ran before."""
    text = f"{type(error).__name__}: {error}"
    text = re.sub(r"\d+ bytes live \(peak \d+\)", "... bytes live (peak ...)", text)
    return re.sub(r"\S*(mistakes\w*\.py):\d+", r"\1", text)


def plain(x: Any) -> Any:
    """A value in a form that can be compared, tensors with their bits and counts of changes."""
    if isinstance(x, BaseException):
        context = x.__context__ if x.__cause__ is None else x.__cause__
        return (type(x), told(x), user_frames(x), None if context is None else told(context))
    if isinstance(x, dg.Tensor):
        array = x.detach().numpy()
        bits = (array.dtype.str, array.shape, array.tobytes())
        return (*bits, x.version, x.requires_grad, plain(x.grad))
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [plain(v) for v in x]
    if isinstance(x, nn.Module):
        return plain(list(x.parameters()))
    if isinstance(x, optim.optimizer.Optimizer):
        return plain(x.state_dict())
    return x if isinstance(x, bool | int | float | str | None) else type(x)


def captured(function: Any) -> Iterator[Any]:
    """What a function finds in its closure."""
    inner = getattr(function, "__wrapped_function__", function)
    cells: tuple[CellType, ...] = inner.__closure__ or ()
    for cell in cells:
        yield cell.cell_contents


def history(make: Make, decorate: Decorate, plan: str) -> list[Any]:
    """What each call returns or raises, and the state after it; "g" is a good call, "b" a bad."""
    dg.seed(0)
    function, good, bad = make(decorate)
    out: list[Any] = []
    for letter in plan:
        if letter == "g" and good is None:
            continue
        args = bad if letter == "b" else good or ()
        result = attempt(function, args)
        assert isinstance(result, Exception) == (letter == "b"), result
        out.append((plain(result), plain(args), [plain(x) for x in captured(function)]))
        assert state.trace is None
        assert dg.is_grad_enabled()
        assert gc.isenabled()
        assert sys.getprofile() is None
    return out


# -- the texts ------------------------------------------------------------------------------------


def pinned(error: BaseException) -> str:
    if isinstance(error, DualgradError):
        return told(error)
    return f"{type(error).__name__}\n      {user_frames(error)[-1][1]}"


def golden_texts() -> dict[str, str]:
    parts = GOLDEN.read_text(encoding="utf-8").split("#### ")[1:]
    return {name: text.rstrip("\n") for name, _, text in (p.partition("\n") for p in parts)}


def error_of(name: str) -> Exception:
    dg.seed(0)
    function, _, bad = MISTAKES[name](eager) if name in MISTAKES else (REFUSALS[name], None, ())
    error = attempt(function, bad)
    assert isinstance(error, Exception)
    return error


def test_texts_are_written(update_golden: bool) -> None:
    every = [*MISTAKES, *REFUSALS]
    if update_golden:
        text = "".join(f"#### {name}\n{pinned(error_of(name))}\n\n" for name in every)
        GOLDEN.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    assert list(golden_texts()) == every
    assert len(MISTAKES) >= 130


@all_names
def test_text_is_pinned(name: str) -> None:
    assert pinned(error_of(name)) == golden_texts()[name]


@all_names
def test_text_ends_with_the_users_line(name: str) -> None:
    error = error_of(name)
    if not isinstance(error, DualgradError):
        assert "# raises" in user_frames(error)[-1][1]
        return
    lines = str(error).split("\n")
    assert len(lines) <= 12
    assert "# raises" in lines[-2]
    assert re.fullmatch(r" +\^+", lines[-1])
    marked = lines[-2][lines[-1].index("^") : len(lines[-1])]
    assert marked.strip() == marked
    assert "#" not in marked
    assert sum(line.startswith("  hint: ") for line in lines) == 1
    assert error.expect or error.actual or isinstance(error, LibraryError)


@names
def test_need11_the_users_line_is_the_last_frame(name: str) -> None:
    for decorate in (eager, dg.function):
        dg.seed(0)
        function, _, bad = MISTAKES[name](decorate)
        error = attempt(function, bad)
        hide_own_frames(error)
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert "# raises" in linecache.getline(last.filename, last.lineno or 0)


# -- both modes -----------------------------------------------------------------------------------


@names
@pytest.mark.parametrize("plan", ["bbgb", "ggbgb"])
def test_row12_compiled_code_says_what_eager_code_says(name: str, plan: str) -> None:
    make = MISTAKES[name]
    assert history(make, dg.function, plan) == history(make, eager, plan)
