"""Row 14: the first NaN is found, with its line, in both passes and in compiled functions."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

import dualgrad as dg
from dualgrad.runtime.errors import NaNError


def forward(x: dg.Tensor) -> dg.Tensor:
    y = x * 2
    z = y.log()  # here
    return (z * 3).sum()


def backward(x: dg.Tensor) -> dg.Tensor:
    y = (x * 0).sqrt()  # here
    z = (y * 0).sum()
    return z


def in_place(x: dg.Tensor) -> dg.Tensor:
    y = x.detach() * 0
    y /= 0  # here
    return y


def line_of(f: Callable[..., Any]) -> int:
    lines, first = inspect.getsourcelines(f)
    return first + next(k for k, text in enumerate(lines) if "# here" in text)


def leaf() -> dg.Tensor:
    return dg.tensor([1.0, -1.0, 2.0], requires_grad=True)


def caught(run: Callable[[], Any], **how: Any) -> NaNError:
    with dg.detect_nan(**how), pytest.raises(NaNError) as found:
        run()
    return found.value


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("f", "op"), [(forward, "log"), (in_place, "div")])
def test_row14_in_the_forward_pass(f: Callable[..., Any], op: str, compiled: bool) -> None:
    call = dg.function(f) if compiled else f
    if compiled:
        call(leaf())  # there is a program already
    error = caught(lambda: call(leaf()))
    assert error.op == op
    assert error.location is not None
    assert error.location.lineno == line_of(f)
    assert "forward pass" in error.what
    assert "none of the operands" in error.why


@pytest.mark.parametrize("compiled", [False, True])
def test_row14_on_the_way_back_both_lines_are_named(compiled: bool) -> None:
    call = dg.function(backward) if compiled else backward

    def run() -> None:
        z = call(leaf())
        z.backward()  # backward() stands here

    error = caught(run)
    assert error.op == "sqrt"
    assert error.location is not None
    assert error.location.lineno == line_of(backward)
    assert "way back" in error.what
    assert "z.backward()" in str(error)
    assert "this op's derivative makes it" in error.why


def test_row14_backward_inside_of_a_compiled_function() -> None:
    @dg.function
    def step(x: dg.Tensor) -> None:
        backward(x).backward()

    x = leaf()
    step(x)
    error = caught(lambda: step(leaf()))
    assert (error.op, error.location.lineno) == ("sqrt", line_of(backward))


def test_row14_gradient_of_a_program_that_ran_before() -> None:
    """Of its steps only what comes out is seen."""

    @dg.function
    def f(x: dg.Tensor) -> dg.Tensor:
        return backward(x)

    z = f(leaf())
    assert caught(z.backward).op == "f"


def test_row14_what_comes_in_is_told_apart() -> None:
    x = dg.tensor([1.0, float("nan")])
    error = caught(lambda: x * 2)
    assert "operand 0 has it already" in error.why
    assert "the first at (1,)" in error.actual
    seed = x.sum()
    assert "backward starts with" in caught(lambda: leaf().sum().backward(seed)).what


def test_row14_infinities_count_if_asked_for() -> None:
    def f() -> dg.Tensor:
        return 1 / dg.zeros(2)

    with dg.detect_nan():
        f()
    assert "inf in 2 of 2 elements" in caught(f, inf=True).actual


def test_row14_large_numbers_are_no_nans() -> None:
    x = dg.full((4,), 3e38)
    with dg.detect_nan(inf=True):
        (x * -1)[::2] + 0
        dg.full((4,), 60000.0, dtype=dg.float16) * 1


def test_row14_context_and_decorator_end() -> None:
    @dg.detect_nan()
    def f() -> dg.Tensor:
        return dg.zeros(1) / 0

    @dg.autograd.detect_anomaly()
    def g() -> dg.Tensor:
        return f()

    apply = dg.Tensor.apply_unit
    for call in (f, g):
        with pytest.raises(FloatingPointError):
            call()
    with dg.detect_nan(), dg.detect_nan():
        assert dg.Tensor.apply_unit is not apply
    assert dg.Tensor.apply_unit is apply
    assert not dg.config.eager
    dg.zeros(1) / 0


def test_row14_of_this_thread_alone() -> None:
    seen: list[Any] = []
    with dg.detect_nan():
        thread = threading.Thread(target=lambda: seen.append((dg.zeros(1) / 0).item()))
        thread.start()
        thread.join()
    assert str(seen) == "[nan]"


def test_row14_bits_are_those_of_a_compiled_call() -> None:
    @dg.function
    def step(x: dg.Tensor) -> dg.Tensor:
        (x.exp() * x).sum().backward()
        return x.tanh()

    results = []
    for look in (False, True):
        x = leaf()
        if look:
            with dg.detect_nan():
                y = step(x)
        else:
            y = step(x)
        results.append((y.detach().numpy().tobytes(), x.grad.numpy().tobytes()))
    assert results[0] == results[1]


def test_row14_inside_of_a_compiled_function() -> None:
    @dg.function
    def f(x: dg.Tensor) -> dg.Tensor:
        with dg.detect_nan():
            return x.log()

    with pytest.warns(dg.EagerFallback, match="NaNs are looked for"), pytest.raises(NaNError):
        f(leaf())


def test_row14_functions_of_users_and_hooks() -> None:
    class Bad(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: dg.Tensor) -> dg.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: dg.Tensor) -> dg.Tensor:
            return dg.full_like(g, float("nan"))

    error = caught(lambda: Bad.apply(leaf()).sum().backward())
    assert error.op == "Bad"
    y = leaf() * 2
    y.register_hook(lambda g: g * 0 / 0)
    assert caught(y.sum().backward).op == "div"
