"""`@function`: what runs eagerly instead, exceptions, and what a function tells about itself."""

from __future__ import annotations

import cProfile
import os
import pstats
import random
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import same_bits, tensors_in, values

import dualgrad as dg
from dualgrad.functional import cross_entropy
from dualgrad.jit.function import EagerFallback
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError, GradientError, TraceError


def ones(*shape: int) -> dg.Tensor:
    return dg.ones(*shape)


# -- falling back ---------------------------------------------------------------------------------


CALLS: dict[str, Callable[[dg.Tensor], Any]] = {
    "input": lambda x: (os.stat(__file__), x * 2)[1],
    "time": lambda x: (x * 2, time.time())[0],
    "random": lambda x: (x * 2, random.random())[0],
    "numpy.random": lambda x: (x * 2, np.random.default_rng(0).random())[0],
    "item": lambda x: x * x.sum().item(),
    "bool": lambda x: x * 2 if x.sum() > 0 else x,
    "float": lambda x: x * float(x.max()),
    "tolist": lambda x: dg.tensor([v + 1.0 for v in x.tolist()]),
    "numpy": lambda x: dg.from_numpy(np.cumsum(x.numpy(), dtype=np.float32)),
    "array": lambda x: x * np.arange(3, dtype=np.float32),
    "iteration": lambda x: [float(v) for v in x.tolist()],
    "open": lambda x: (open(__file__).close(), x + 1)[1],
}


@pytest.mark.parametrize("f", CALLS.values(), ids=CALLS.keys())
def test_fallback_gives_the_eager_result_and_one_warning(f: Callable[..., Any]) -> None:
    compiled = dg.function(f)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [compiled(dg.tensor([1.0, 2.0, 3.0])) for _ in range(3)]
        results.append(compiled(dg.tensor([-1.0, -2.0, -3.0])))
    notes = [w for w in caught if issubclass(w.category, EagerFallback)]
    assert len(notes) == 1, [str(n.message) for n in notes]
    assert "runs eagerly" in str(notes[0].message)
    assert "test_function_limits.py" in str(notes[0].message)
    assert notes[0].filename.endswith("test_function_limits.py")
    for got, start in zip(results, ([1.0, 2.0, 3.0],) * 3 + ([-1.0, -2.0, -3.0],), strict=True):
        want = f(dg.tensor(start))
        for a, b in zip(tensors_in(got), tensors_in(want), strict=True):
            same_bits(a, b)
        if not tensors_in(want):
            assert got == want
    assert compiled.eager_reason is not None
    assert "runs eagerly" in compiled.report()


@pytest.mark.parametrize("f", CALLS.values(), ids=CALLS.keys())
def test_strict_refuses_instead(f: Callable[..., Any]) -> None:
    with pytest.raises(TraceError) as caught:
        dg.function(f, strict=True)(dg.tensor([1.0, 2.0, 3.0]))
    assert "cannot be compiled" in str(caught.value)
    assert "test_function_limits.py" in str(caught.value)


def test_printing_happens_at_each_call(capsys: pytest.CaptureFixture[str]) -> None:
    @dg.function
    def f(x: dg.Tensor) -> dg.Tensor:
        print("sum", x.sum().item())
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallback)
        for k in range(3):
            f(dg.full((2,), float(k)))
    assert capsys.readouterr().out.split("\n") == ["sum 0.0", "sum 2.0", "sum 4.0", ""]


def test_no_state_is_left_changed_by_a_trace_that_fails() -> None:
    total, w = dg.zeros(2), ones(2).requires_grad_()
    log: list[float] = []

    def f(x: dg.Tensor) -> dg.Tensor:
        total.add_(x)
        (w * x).sum().backward()
        log.append(total.sum().item())
        return total * 1.0

    compiled = dg.function(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallback)
        for k in range(1, 4):
            assert values(compiled(ones(2))) == [k, k]
            assert values(w.grad) == [k, k]
    assert log == [2.0, 4.0, 6.0]
    assert total.version == 3


# -- exceptions -----------------------------------------------------------------------------------


def test_exceptions_of_the_user() -> None:
    state = dg.zeros(2)

    @dg.function(strict=True)
    def f(x: dg.Tensor, fail: bool) -> dg.Tensor:
        state.add_(x)
        if fail:
            raise KeyError("mine")
        return state * 2.0

    for k in range(1, 4):
        f(ones(2), False)
        assert values(state) == [2.0 * k - 1] * 2
        with pytest.raises(KeyError, match="mine"):
            f(ones(2), True)
        assert values(state) == [2.0 * k] * 2


def test_shape_errors_have_the_same_text() -> None:
    def f(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        return (x * 2) @ y

    texts = []
    for function in (f, dg.function(f)):
        with pytest.raises(ValueError, match="inner dimensions differ") as caught:
            function(ones(2, 3), ones(4, 2))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "return (x * 2) @ y" in texts[0]


def test_gradient_errors_have_the_same_text() -> None:
    def f(x: dg.Tensor) -> None:
        y = (x * x).sum()
        y.backward()
        y.backward()

    texts = []
    for function in (f, dg.function(f)):
        with pytest.raises(GradientError) as caught:
            function(ones(2).requires_grad_())
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_index_error_leaves_the_state_intact() -> None:
    results = []
    for compiled in (False, True):
        count, labels = dg.zeros((), dtype=dg.int64), dg.zeros(3)

        def f(target: dg.Tensor) -> dg.Tensor:
            hot = dg.one_hot(target, 3).to(dg.float32)
            labels.add_(hot.sum(axis=0))  # noqa: B023
            count.add_(1)  # noqa: B023
            return hot

        function = dg.function(f, strict=True) if compiled else f
        function(dg.tensor([0, 1, 1]))
        with pytest.raises(IndexError, match=r"\[one_hot\] class out of range") as caught:
            function(dg.tensor([0, 7, 1]))
        assert "actual: 7" in str(caught.value)
        assert "hot = dg.one_hot(target, 3)" in str(caught.value)
        with pytest.raises(IndexError, match="actual: -1"):
            function(dg.tensor([0, 2, -1]))
        assert (values(count), values(labels)) == (1, [1.0, 2.0, 0.0])
        results.append((function(dg.tensor([2, 2, 2])), count, labels))
    for one, two in zip(*results, strict=True):
        same_bits(two, one)
    assert values(results[1][2]) == [1.0, 2.0, 3.0]


def test_index_error_on_the_first_call() -> None:
    @dg.function
    def f(x: dg.Tensor, target: dg.Tensor) -> dg.Tensor:
        x.add_(1.0)
        return cross_entropy(x, target)

    x = dg.zeros(2, 3)
    with pytest.raises(IndexError, match="class out of range"):
        f(x, dg.tensor([0, 3]))
    assert f(x, dg.tensor([0, 2])).item() > 1.0


# -- explaining -----------------------------------------------------------------------------------


def test_explanations() -> None:
    @dg.function(strict=True)
    def explained(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        z = dg.tanh(x @ y)
        return z.sum(axis=0)

    with pytest.raises(ArgumentError, match="has not been compiled"):
        explained.ir()
    explained(ones(20, 30), ones(30, 40))
    line = explained.__wrapped_function__.__code__.co_firstlineno + 2
    report = explained.report()
    assert "@function explained: 1 trace(s)" in report
    assert "contract" in report
    assert f"test_function_limits.py:{line}" in report
    assert "kernel explained_0" in explained.ir()
    assert "tanh" in explained.graph()
    assert "define" in explained.llvm()
    assert "kernel_0" in explained.llvm()
    assert "kernel_0" in explained.asm()
    assert explained.__name__ == "explained"


def test_reports_name_the_lines_of_their_own_function() -> None:
    first = dg.function(lambda x: x * 3.25, strict=True)
    second = dg.function(lambda x: x * 3.25, strict=True)
    for f in (first, second):
        f(ones(3))
        assert (
            f"test_function_limits.py:{f.__wrapped_function__.__code__.co_firstlineno}"
            in f.report()
        )


def test_eager_setting() -> None:
    f = dg.function(lambda x: x * 2)
    with config.scope(eager=True):
        assert values(f(ones(1))) == [2.0]
    assert f.n_traces == 0
    f(ones(1))
    assert f.n_traces == 1


def test_what_cannot_be_decorated() -> None:
    def steps(x: dg.Tensor) -> Any:
        yield x

    with pytest.raises(ArgumentError, match="generator"):
        dg.function(steps)
    with pytest.raises(ArgumentError, match="a value cannot be compiled"):
        dg.function(3)  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="a class cannot be compiled"):
        dg.function(dict)


def test_names_of_functions_are_any_identifiers() -> None:
    def größe(x: dg.Tensor) -> dg.Tensor:
        return x * 2.0

    assert values(dg.function(größe, strict=True)(ones(2))) == [2.0, 2.0]
    assert values(dg.function(lambda x: x + 1.0, strict=True)(ones(2))) == [2.0, 2.0]


def test_a_call_may_be_profiled() -> None:
    """A trace watches calls by the interpreter's own hook, and gives it back to who had it."""
    profile = cProfile.Profile()
    compiled = dg.function(lambda x: dg.exp(x) * 2.0, strict=True)
    profile.enable()
    try:
        result = compiled(ones(3))
        made_after_the_trace()
    finally:
        profile.disable()
    same_bits(result, dg.exp(ones(3)) * 2.0)
    assert any(name == "made_after_the_trace" for _, _, name in pstats.Stats(profile).stats)


def made_after_the_trace() -> None:
    """A call that a profile is to count."""
