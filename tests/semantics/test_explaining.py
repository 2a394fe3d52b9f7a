"""What a function says about itself: reports, the difference behind each retrace, modes."""

from __future__ import annotations

import io
import os
import pdb
import subprocess
import sys
import textwrap
import traceback
import warnings
from typing import Any

import pytest

import dualgrad as dg
from dualgrad.runtime.config import config


class Settings:
    def __init__(self) -> None:
        self.mode = "a"
        self.groups = [{"lr": 0.1}]


def last(f: Any) -> str:
    """Why the last trace was made."""
    return "; ".join(f.history.events[-1].why)


def test_need18_explain_names_sizes_dtypes_and_ranks() -> None:
    f = dg.function(lambda x: x * 2)
    x = dg.ones(3, 4)
    f(x)
    assert last(f) == "the first call"
    f(dg.ones(5, 4))
    assert last(f) == "argument x, dimension 0: 3 -> 5"
    f(dg.ones(3))
    assert last(f) == "argument x.ndim: 2 -> 1"
    f(x.to(dg.float64))
    assert last(f) == "argument x.dtype: dualgrad.float32 -> dualgrad.float64"
    f(dg.ones(3, 1))
    assert last(f) == "argument x, dimension 1: more than 1 -> 1"
    f(x.clone().requires_grad_())
    assert last(f) == "argument x.requires_grad: False -> True"
    with dg.no_grad():
        f(x)
    assert last(f) == "gradients are enabled: True -> False"


def test_need18_explain_names_python_values_by_their_places() -> None:
    s = Settings()

    @dg.function
    def f(x: Any, flag: bool = True, more: Any = None) -> Any:
        y = x * len(s.mode) if flag else x
        if more:
            y = y + len(more)
        return y * int(s.groups[0]["lr"] * 10)

    x = dg.ones(2)
    f(x)
    f(x, False)
    assert last(f) == "argument flag: True -> False"
    s.mode = "bb"
    f(x)
    assert last(f) == "s.mode: 'a' -> 'bb'"
    f(x, more={"k": 1})
    assert last(f) == "argument more: None -> dict of 1"
    f(x, more={"k": 1, "j": "t"})
    assert last(f).startswith("argument more: new key 'j'")
    s.groups[0]["lr"] = 0.5
    f(x)
    assert last(f) == "s.groups[0]['lr']: 0.1 -> 0.5"
    s.groups.append({"lr": 0.2})
    f(x)
    assert last(f) == "s.groups: list of 1 -> list of 2"
    text = f.explain()
    assert text.count("retrace at") == f.n_traces - 1
    assert f"{__file__}:" in text
    assert " ms)" in text


def test_need18_explain_names_what_ran_eagerly_and_where() -> None:
    @dg.function
    def f(x: Any) -> Any:
        return x * x.sum().item() if x.sum().item() > 0 else x

    with pytest.warns(dg.EagerFallback):
        f(dg.ones(2))
    assert f.history.events[-1].kind == "eager"
    line = f.eager.__code__.co_firstlineno + 2
    assert f"{__file__}:{line}" in f.explain()
    assert "eager" in f.report()


def test_need18_report_and_repr() -> None:
    @dg.function
    def f(x: Any) -> Any:
        y = dg.exp(x)
        return y.sum()

    first = f.eager.__code__.co_firstlineno
    assert repr(f) == f"<@function f at {__file__}:{first}: 0 program(s), 0 trace(s)>"
    for _ in range(100):
        f(dg.ones(3))
    report = f.report()
    assert "1 trace(s)" in report
    assert "runs 100 of" in report  # with a time, sampled
    assert f"test_explaining.py:{first + 2}" in report
    assert "machine code" in report
    page = f._repr_html_()
    assert "&lt;@function f" in page
    assert "the first call" in page
    assert f.n_traces == 1


def test_need04_second_retrace_warns_once() -> None:
    f = dg.function(lambda x, mode: x * len(mode))
    x = dg.ones(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for mode in ("a", "b", "c", "d", "e"):
            f(x, mode)
    found = [w for w in caught if w.category is dg.RetraceWarning]
    assert len(found) == 1
    assert "argument mode: 'a' -> 'c'" in str(found[0].message)
    assert " ms: " in str(found[0].message)
    assert found[0].filename == __file__


def test_need04_no_retrace() -> None:
    f = dg.function(lambda x, mode: x * len(mode))
    x = dg.ones(2)
    with dg.no_retrace():
        f(x, "a")
        f(x, "a")
        with pytest.raises(RuntimeError, match="argument mode: 'a' -> 'b'"):
            f(x, "b")
        assert f(x, "a").tolist() == [1.0, 1.0]
    assert f(x, "b").tolist() == [1.0, 1.0]
    assert f.n_traces == 2


def test_need12_disable_runs_the_users_frames() -> None:
    stacks = []

    @dg.function
    def f(x: Any) -> Any:
        stacks.append([s.name for s in traceback.extract_stack()])
        return x * 2

    with dg.disable():
        with dg.disable():
            f(dg.ones(2))
        f(dg.ones(2))
        assert config.eager
    assert not config.eager
    assert f.n_traces == 0
    assert all(
        s[-1] == "f" and s[-3] == "test_need12_disable_runs_the_users_frames" for s in stacks
    )


def test_need12_pdb_stops_in_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    @dg.function
    def f(x: Any) -> Any:
        y = x * 2
        breakpoint()
        return y + 1

    out, commands = io.StringIO(), io.StringIO("p tuple(y.shape)\nup\ncontinue\n")
    debugger = pdb.Pdb(stdin=commands, stdout=out, nosigint=True, readrc=False)
    debugger.use_rawinput = False
    before = sys.gettrace()
    monkeypatch.setattr(sys, "breakpointhook", lambda: debugger.set_trace(sys._getframe(1)))
    try:
        with dg.disable():
            assert f(dg.ones(3)).tolist() == [3.0, 3.0, 3.0]
    finally:
        sys.settrace(before)
    assert "return y + 1" in out.getvalue()
    assert "(3,)" in out.getvalue()


def test_need12_the_environment_runs_everything_eagerly() -> None:
    code = """
        import dualgrad as dg
        seen = []
        @dg.function
        def f(x):
            seen.append(float(x.sum()))
            return x * 2
        f(dg.ones(3)); f(dg.ones(3))
        assert seen == [3.0, 3.0] and f.n_traces == 0, seen
    """
    environment = {**os.environ, "DG_EAGER": "1"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True)


def test_need18_the_plain_function_is_there() -> None:
    def f(x: Any) -> Any:
        return x

    g = dg.function(f)
    assert g.eager is f
    assert g.__wrapped__ is f
