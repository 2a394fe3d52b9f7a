"""Exceptions inside of decorated functions: raised, caught, and what they leave behind."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import optim
from dualgrad.jit.trace import Trace
from dualgrad.runtime.errors import (
    ArgumentError,
    DeviceError,
    DualgradError,
    IndexOutOfBounds,
    ShapeError,
    TraceError,
)
from semantics.support import compare


def vector(*numbers: float) -> dg.Tensor:
    return dg.tensor([float(n) for n in numbers])


def integers(*numbers: int) -> dg.Tensor:
    return dg.tensor(numbers, dtype=dg.int64)


# -- exceptions about Python values ---------------------------------------------------------------


def test_row12_raised_for_some_python_values_only() -> None:
    def make() -> Any:
        def f(x: dg.Tensor, n: int) -> dg.Tensor:
            y = x * 2.0
            if n > 2:
                raise ValueError(f"{n} is too large for shape {x.shape}")
            return y + n

        return f

    x = vector(1, 2)
    compare(make, [(x, 1), (x, 3), (x, 2), (x, 3), (x, 4), (x, 1)])


def test_row12_asserted_about_shapes_and_dtypes() -> None:
    def make() -> Any:
        def f(x: dg.Tensor) -> dg.Tensor:
            assert x.ndim == 2, x.shape
            assert x.dtype is dg.float32
            return x.sum(axis=1)

        return f

    calls = [(dg.ones(2, 3),), (dg.ones(3),), (dg.ones(2, 3, dtype=dg.float64),), (dg.ones(4, 3),)]
    compare(make, calls, eager=None)  # pytest's own code runs where an assertion fails


def test_row12_an_exception_keeps_its_cause_and_its_attributes() -> None:
    class Broken(Exception):
        def __init__(self, name: str, size: int) -> None:
            super().__init__(name, size)
            self.size = size

    def make() -> Any:
        def f(x: dg.Tensor, sizes: dict[str, int]) -> dg.Tensor:
            try:
                return x * sizes["width"]
            except KeyError as error:
                raise Broken("width", len(sizes)) from error

        return f

    compare(make, [(vector(1), {"width": 2}), (vector(1), {"height": 2}), (vector(1), {})])
    with pytest.raises(Broken) as caught:
        dg.function(make())(vector(1), {})
    assert caught.value.size == 0
    assert isinstance(caught.value.__cause__, KeyError)


def test_row12_effects_before_an_exception_are_kept_once() -> None:
    def make() -> Any:
        total, log = dg.zeros(2), [0]

        def f(x: dg.Tensor, fail: bool) -> dg.Tensor:
            total.add_(x)
            log[0] += 1
            if fail:
                raise RuntimeError(f"after {log[0]}")
            return total * 1.0

        return f, total, log

    x = vector(1, 2)
    compare(make, [(x, True), (x, False), (x, True), (x, True), (x, False)], eager=None)


def test_row12_grad_mode_is_restored() -> None:
    def make() -> Any:
        def f(x: dg.Tensor, fail: bool) -> dg.Tensor:
            with dg.no_grad():
                y = x * 2.0
                if fail:
                    raise KeyError("inside")
            return y

        return f

    compare(make, [(vector(1), True), (vector(1), False), (vector(1), True)])
    assert dg.is_grad_enabled()


class Stop(BaseException):
    """What tools that run a program raise to stop it."""


@pytest.mark.parametrize("kind", [SystemExit, Stop, StopIteration, GeneratorExit])
def test_row12_exceptions_that_are_no_errors(kind: type[BaseException]) -> None:
    def make() -> Any:
        total, log = dg.zeros(2), {"calls": 0}

        def f(x: dg.Tensor, leave: bool) -> dg.Tensor:
            total.add_(x)
            log["calls"] += 1
            if leave:
                raise kind(3)
            return total * 2.0

        return f, total, log

    def call(leave: bool) -> Callable[..., Any]:
        def attempt(f: Any, *_: Any) -> Any:
            try:
                return f(vector(1, 2), leave)
            except kind as error:
                return error.args

        return attempt

    compare(make, [call(leave) for leave in (True, False, True, False)], eager=None)


# -- try and except -------------------------------------------------------------------------------


def test_row13_an_error_about_shapes_is_caught() -> None:
    def make() -> Any:
        def f(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
            try:
                return x @ w
            except ShapeError:
                return x @ w.T

        return f

    fits, turned = (dg.ones(2, 3), dg.ones(3, 2)), (dg.ones(2, 3), dg.ones(4, 3))
    compare(make, [fits, turned, fits, turned])


def test_row13_python_errors_are_caught() -> None:
    def make() -> Any:
        def f(x: dg.Tensor, options: dict[str, float], texts: list[str]) -> dg.Tensor:
            try:
                scale = options["scale"]
            except KeyError:
                scale = 3.0
            with contextlib.suppress(ValueError):
                scale = scale + float(texts[0])
            try:
                return x * scale
            finally:
                options["calls"] = options.get("calls", 0.0) + 1.0

        return f

    x = vector(1, 2)
    calls = [(x, {"scale": 2.0}, ["1"]), (x, {}, ["one"]), (x, {"scale": 4.0}, ["2"])]
    compare(make, calls, eager=None)


def test_row13_an_index_out_of_range_is_caught_when_the_program_runs() -> None:
    def make() -> Any:
        def f(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
            try:
                return x[at] * 2.0
            except IndexError:
                return x.sum()

        return f

    x = vector(1, 2, 3)
    good, bad = integers(0, 2), integers(0, 3)
    for order in ("gbgb", "bbgg"):
        calls = [(x, good if letter == "g" else bad) for letter in order]
        compare(make, calls)


def test_row13_a_singular_matrix_is_caught_when_the_program_runs() -> None:
    def make() -> Any:
        def f(a: dg.Tensor) -> dg.Tensor:
            try:
                return dg.linalg.inv(a)
            except np.linalg.LinAlgError:
                return a * 0.0

        return f

    good, bad = dg.eye(3) * 2.0, dg.ones(3, 3)
    compare(make, [(good,), (bad,), (good,), (bad,)])
    compare(make, [(bad,), (good,), (bad,)])


def test_row13_the_text_of_a_caught_error_is_the_same() -> None:
    def make() -> Any:
        seen: list[str] = []

        def f(x: dg.Tensor, w: object) -> dg.Tensor:
            try:
                return x * w  # type: ignore[no-any-return]
            except (TypeError, ValueError) as error:
                seen.append(f"{type(error).__name__}: {error}")
                return x

        return f, seen

    compare(make, [(vector(1, 2), w) for w in (2.0, "2", None, vector(1, 2, 3))], eager=None)


def _item(x: dg.Tensor) -> dg.Tensor:
    try:
        return x * x.sum().item()
    except Exception:
        return x


def _branch(x: dg.Tensor) -> dg.Tensor:
    try:
        if x.sum() > 0.0:
            return x * 2.0
    except RuntimeError:
        pass
    return x * 3.0


def _suppressed(x: dg.Tensor) -> dg.Tensor:
    with contextlib.suppress(RuntimeError):
        x = x * float(x[0])
    return x


def _finally(x: dg.Tensor) -> dg.Tensor:
    y = x
    try:
        y = x * float(x[0])
    finally:
        return y  # noqa: B012


def _array(x: dg.Tensor) -> dg.Tensor:
    try:
        return x + np.cumsum(x.numpy(), dtype=np.float32)
    except Exception:
        return x


@pytest.mark.parametrize("f", [_item, _branch, _suppressed, _finally, _array])
def test_row13_code_that_catches_everything_does_not_hide_what_tracing_cannot_do(
    f: Callable[..., Any],
) -> None:
    """The trace's refusal is no error of the program: the code under `except` must not run."""
    for x in (vector(1, 2), vector(-1, -2)):
        compare(lambda: f, [(x,), (x * 2.0,)], eager=None)


def test_row13_a_caught_error_inside_of_a_training_step() -> None:
    def make() -> Any:
        w = dg.ones(3, 2, requires_grad=True)
        optimizer = optim.SGD([w], lr=0.1)

        def step(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
            optimizer.zero_grad()
            try:
                loss = F.mse_loss(x @ w, y)
            except ValueError:
                loss = F.mse_loss(x @ w, y.unsqueeze(1))
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step, w, optimizer

    good, flat = (dg.ones(4, 3), dg.ones(4, 2)), (dg.ones(4, 3), dg.ones(4))
    compare(make, [good, flat, good, flat])


def _caught(error: type[Exception], compute: Callable[..., Any]) -> Callable[..., Any]:
    def f(x: dg.Tensor, w: dg.Tensor) -> Any:
        try:
            return compute(x, w)
        except error:
            return x.sum()

    return f


def _halves(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
    a, b = x.split(3)
    return a + b + w.sum()


SIZES: dict[str, Callable[..., Any]] = {
    "broadcast": _caught(ValueError, lambda x, w: x + w),
    "product": _caught(ValueError, lambda x, w: x @ w),
    "index": _caught(IndexError, lambda x, w: x[3] * w.sum()),
    "slice": _caught(ValueError, lambda x, w: x[1:3] + w[:2]),
    "reshape": _caught(ValueError, lambda x, w: x.reshape(-1, 2)),
    "split": _caught(ValueError, _halves),
    "topk": _caught(ValueError, lambda x, w: dg.topk(x, w.shape[0])[0]),
    "uncaught": lambda x, w: dg.narrow(x, 0, w.shape[0] - 2, 3),
    "uncaught sum": lambda x, w: x + w,
}


@pytest.mark.parametrize("name", SIZES)
def test_row13_sizes_decide_what_is_caught(name: str) -> None:
    pairs = [(4, 4), (5, 5), (6, 6), (5, 6), (6, 3), (3, 2), (2, 2), (1, 5), (7, 1), (0, 0), (6, 6)]
    tensors = [[dg.arange(n).to(dg.float32) + 1.0 for n in pair] for pair in pairs]
    compare(lambda: SIZES[name], [tuple(pair) for pair in tensors])


# -- devices --------------------------------------------------------------------------------------


DEVICES: dict[str, Callable[[dg.Tensor], Any]] = {
    "zeros": lambda x: dg.zeros(2, device="tpu"),
    "full": lambda x: dg.full((2,), 1.0, device="cuda0"),
    "arange": lambda x: dg.arange(3, device="gpu"),
    "to": lambda x: x.to("mps"),
}


@pytest.mark.parametrize("name", DEVICES)
def test_row27_devices_that_do_not_exist_are_refused_by_name(name: str) -> None:
    make = DEVICES[name]
    compare(lambda: make, [(vector(1, 2),)] * 2)
    with pytest.raises(DeviceError, match=rf"\[{name}\] unknown device") as caught:
        make(vector(1, 2))
    assert '"cpu"' in caught.value.expect
    assert caught.value.actual in ("'tpu'", "'cuda0'", "'gpu'", "'mps'")
    assert caught.value.hint


def test_row27_the_device_there_is() -> None:
    def make() -> Any:
        def f(x: dg.Tensor) -> Any:
            y = dg.ones(2, device="cpu") + x.to("cpu") + dg.tensor(1.0)
            return y, y.device, x.device

        return f

    compare(make, [(vector(1, 2),)] * 2)


# -- positions ------------------------------------------------------------------------------------


def _rows(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
    return (x * 2.0)[at].sum()


def _written(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
    x = x * 1.0
    x[at] = -1.0
    return x


def _written_to_input(x: dg.Tensor, at: dg.Tensor) -> None:
    x.add_(1.0)
    x[at] = -1.0


READS: dict[str, Callable[..., Any]] = {
    "take": lambda x, at: x[at],
    "fused": _rows,
    "gather": lambda x, at: dg.gather(x, 0, at),
    "index_select": lambda x, at: dg.index_select(x, 0, at),
    "embedding": lambda x, at: F.embedding(at, x.reshape(-1, 1)) * 2.0,
    "one_hot": lambda x, at: F.one_hot(at, 4),
    "cross_entropy": lambda x, at: F.cross_entropy(x, at[0]),
    "write": _written,
    "write to an input": _written_to_input,
    "two checks": lambda x, at: x[at] + x[at + 1],
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("bad", [4, 7, -5, 2**40])
def test_row32_the_same_error_whichever_call_meets_it(name: str, bad: int) -> None:
    def make() -> Any:
        return READS[name]

    x, good, wrong = vector(1, 2, 3, 4), integers(0, 2), integers(1, bad)
    if name == "cross_entropy":
        wrong = integers(bad, 1)
    compare(make, [(x, good), (x, wrong), (x, good), (x, wrong)], eager=None)
    compare(make, [(x, wrong), (x, wrong), (x, good)], eager=None)


def test_row32_what_is_printed_before_the_error_is_printed_once() -> None:
    def make() -> Any:
        count = {"calls": 0}

        def f(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
            count["calls"] += 1
            print("before", x.sum())
            y = x[at] * 2.0
            print("after", y)
            return y

        return f, count

    x, good, bad = vector(1, 2, 3), integers(0), integers(3)
    compare(make, [(x, good), (x, bad), (x, good), (x, bad)], eager=None)
    compare(make, [(x, bad), (x, bad), (x, good)], eager=None)


def test_row12_what_is_printed_before_an_exception_is_printed_once() -> None:
    def make() -> Any:
        def f(x: dg.Tensor, n: int) -> dg.Tensor:
            y = x * n
            print(n, y)
            if n > 2:
                raise ValueError(f"{n} in {y}")
            return y

        return f

    x = vector(1, 2)
    compare(make, [(x, 3), (x, 1), (x, 2), (x, 4), (x, 1), (x, 3)], eager=None)


@pytest.mark.parametrize("index", [3, -4, 2**40, (0, 0), slice(0, 1, 0)])
def test_row32_python_indices(index: object) -> None:
    def make() -> Any:
        return lambda x, k: x[k] * 2.0

    x = vector(1, 2, 3)
    compare(make, [(x, 0), (x, index), (x, -1), (x, index)])


def test_row32_value_and_bound_are_named() -> None:
    f = dg.function(lambda x, at: (x * 2.0)[at] + 1.0)
    f(vector(1, 2, 3), integers(2))
    with pytest.raises(IndexError) as caught:
        f(vector(1, 2, 3), integers(5))
    assert isinstance(caught.value, IndexOutOfBounds)
    assert caught.value.actual == "5"
    assert caught.value.expect == "-3 <= index along axis 0 < 3"
    assert f.n_traces == 1


def test_row32_nothing_is_written_when_an_index_is_refused() -> None:
    def make() -> Any:
        w = dg.ones(3, requires_grad=True)
        optimizer = optim.SGD([w], lr=0.5, momentum=0.9)

        def step(at: dg.Tensor) -> dg.Tensor:
            optimizer.zero_grad()
            loss = (w * w)[at].sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step, w, optimizer

    calls = [(integers(k),) for k in (0, 3, 1, 4, 2)]
    compare(make, calls)


# -- decorating -----------------------------------------------------------------------------------


def generate() -> Iterator[int]:
    yield 1


async def wait() -> None: ...


async def stream() -> Any:
    yield 1


class Yielding:
    def __call__(self) -> Iterator[int]:
        yield 1

    def items(self) -> Iterator[int]:
        yield 2


REFUSED: dict[str, tuple[Any, str]] = {
    "generator": (generate, "a generator"),
    "partial generator": (functools.partial(generate), "a generator"),
    "generator method": (Yielding().items, "a generator"),
    "object that yields": (Yielding(), "a generator"),
    "coroutine": (wait, "an async function"),
    "async generator": (stream, "an async function"),
    "class": (Yielding, "a class"),
    "staticmethod": (staticmethod(abs), "a staticmethod"),
    "classmethod": (classmethod(abs), "a classmethod"),
    "property": (property(abs), "a property"),
    "number": (3, "a value"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_row48_refused_when_decorated(name: str) -> None:
    fn, what = REFUSED[name]
    with pytest.raises(ArgumentError, match=rf"\[function\] {what} cannot be compiled") as caught:
        dg.function(fn)
    assert caught.value.hint
    assert str(caught.value).split("\n")[-2].strip() == "dg.function(fn)"


def test_row48_a_generator_that_a_function_hands_back() -> None:
    def make() -> Any:
        def halves(x: dg.Tensor, n: int) -> Iterator[dg.Tensor]:
            for _ in range(n):
                x = x / 2.0
                yield x

        return lambda x, n: halves(x * 3.0, n), list

    def consumed(f: Any, listed: Any) -> Any:
        return listed(f(vector(1, 2), 3))

    compare(make, [consumed] * 3, eager=None)


def test_row48_methods_of_classes() -> None:
    def make(decorate: Any) -> Any:
        class Scale:
            factor = 2.0

            @staticmethod
            @decorate
            def fixed(x: dg.Tensor) -> dg.Tensor:
                return x * 3.0

            @classmethod
            @decorate
            def shared(cls, x: dg.Tensor) -> dg.Tensor:
                return x * cls.factor

        return lambda x: (Scale.fixed(x), Scale().fixed(x), Scale.shared(x), Scale().shared(x))

    compare(make, [(vector(1, 2),)] * 3)


# -- strict ---------------------------------------------------------------------------------------


def _if(x: dg.Tensor) -> dg.Tensor:
    return x if x.sum() > 0.0 else -x  # raises


def _assert(x: dg.Tensor) -> dg.Tensor:
    assert (x > 0.0).all()  # raises
    return x


def _while(x: dg.Tensor) -> dg.Tensor:
    while x.max() < 9.0:  # raises
        x = x * 2.0
    return x


STRICT = [_if, _assert, _while]


@pytest.mark.parametrize("f", STRICT)
def test_need11_strict_refusals_end_with_the_users_line(f: Callable[..., Any]) -> None:
    strict = dg.function(f, strict=True)
    with pytest.raises(TraceError, match=f"@function {f.__name__} cannot be compiled") as caught:
        strict(vector(1, 2))
    lines = str(caught.value).split("\n")
    assert len(lines) <= 12
    assert "# raises" in lines[-2]
    assert lines[-1].strip(" ^") == ""
    assert caught.value.hint


def test_need11_strict_functions_raise_errors_of_the_user_as_they_are() -> None:
    f = dg.function(lambda x, w: x @ w, strict=True)
    for _ in range(2):
        with pytest.raises(ShapeError, match="inner dimensions differ"):
            f(dg.ones(2, 3), dg.ones(2, 3))
    assert f(dg.ones(2, 3), dg.ones(3, 2)).shape == (2, 2)


def test_need11_an_error_of_the_trace_alone_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager run does not raise it, so it is none of the function's own."""

    def broken(self: Trace, unit: Any, operands: Any) -> Any:
        raise ValueError("inside")

    monkeypatch.setattr(Trace, "apply", broken)
    with pytest.warns(dg.EagerFallback, match="raised an error while it was traced"):
        assert dg.function(lambda x: x + 1.0)(vector(1, 2)).tolist() == [2.0, 3.0]
    with pytest.raises(TraceError, match="ValueError: inside"):
        dg.function(lambda x: x - 1.0, strict=True)(vector(1, 2))


# -- results of decorated functions ---------------------------------------------------------------


def _twice(loss: dg.Tensor, w: dg.Tensor) -> None:
    loss.backward()
    loss.backward()


def _changed(loss: dg.Tensor, w: dg.Tensor) -> None:
    with dg.no_grad():
        w.add_(1.0)
    loss.backward()


MISUSES: dict[str, Callable[[dg.Tensor, dg.Tensor], Any]] = {
    "backward twice": _twice,
    "saved tensor changed": _changed,
    "wrong seed": lambda loss, w: loss.backward(dg.ones(4)),
    "numpy": lambda loss, w: loss.numpy(),
    "gradient of wrong shape": lambda loss, w: setattr(w, "grad", loss),
    "leaf changed": lambda loss, w: w.add_(loss),
}


@pytest.mark.parametrize("name", MISUSES)
def test_need11_results_are_misused_with_the_same_text(name: str) -> None:
    def make() -> Any:
        w = dg.ones(3, requires_grad=True)
        return lambda x: (w.exp() * w * x).sum(), w

    def call(f: Any, w: dg.Tensor) -> Any:
        with pytest.raises(DualgradError) as caught:
            MISUSES[name](f(vector(1, 2, 3)), w)
        return str(caught.value), type(caught.value)

    compare(make, [call, call], eager=None)
