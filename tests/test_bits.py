"""The promise of the project: eager and compiled give the same bits, at any number of threads.

Random programs over the op library are drawn by hypothesis: inputs of many sizes and layouts, then
instructions, each a name and four small numbers that choose operands and parameters.  Every such
list is a program (`Machine` takes the next operand that fits, or skips the instruction), so
failing ones shrink well.  Failures that were found stand at the end, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support import as_array, both, draw, same_bits, tensors_in

import dualgrad as dg
from dualgrad import functional
from dualgrad.compiler.ops.sample import Arg
from dualgrad.runtime.dtype import DType, bool_, float32, float64, int32, int64, uint8
from dualgrad.runtime.errors import GradientError, TraceError

LARGEST = 40_000  # elements of any value
SIDES = (0, 1, 2, 3, 5, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129)
LONG = (255, 1000, 4095, 4096, 4097, 8200, 20_000)
LAYOUTS = ("contiguous", "contiguous", "contiguous", "transposed", "strided", "broadcast")
DTYPES = (float32, float32, float32, float32, float64, int64, int32, bool_, uint8)
UNARY = ("exp", "tanh", "sigmoid", "neg", "abs", "square", "relu", "clone", "softmax_", "log_")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
REDUCE = ("sum", "mean", "max", "min", "argmax", "argmin")

# Programs that cannot be compiled run eagerly, as `@function` says; there is nothing to compare.
LIMITS = ("an index is checked after state has been changed",)

Instruction = tuple[str, int, int, int, int]


@dataclass(frozen=True)
class Input:
    """One tensor that a program starts from."""

    arg: Arg
    captured: bool  # reached through the closure, else an argument
    trained: bool  # requires gradients
    seed: int


@dataclass(frozen=True)
class Program:
    inputs: tuple[Input, ...]
    code: tuple[Instruction, ...]

    def arrays(self) -> list[np.ndarray[Any, Any]]:
        return [draw(i.arg, np.random.default_rng(i.seed)) for i in self.inputs]


def count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes broadcast to one that is not too large."""
    try:
        return count(np.broadcast_shapes(a, b)) <= LARGEST
    except ValueError:
        return False


@dataclass
class Machine:
    """Runs instructions on tensors; what it does depends on shapes and dtypes only."""

    values: list[dg.Tensor]
    leaves: list[dg.Tensor]  # trained inputs
    captured: list[dg.Tensor]  # tensors to be changed in place

    def run(self, code: tuple[Instruction, ...]) -> list[Any]:
        for name, a, b, c, d in code:
            new = getattr(self, f"do_{name}")(a, b, c, d)
            if new is not None:
                self.values.append(new)
        return [*(x.detach() for x in self.values[-5:]), [p.grad for p in self.leaves]]

    def pick(self, number: int, fit: Callable[[dg.Tensor], bool]) -> dg.Tensor | None:
        """The first value that fits, counted backwards from a place."""
        n = len(self.values)
        for k in range(n):
            x = self.values[(n - 1 - number - k) % n]
            if fit(x):
                return x
        return None

    def number(self, a: int) -> dg.Tensor | None:
        return self.pick(a, lambda x: x.dtype is not bool_)

    def floating(self, a: int) -> dg.Tensor | None:
        return self.pick(a, lambda x: x.dtype.is_float)

    def do_unary(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.floating(a)
        if x is None:
            return None
        name = UNARY[b % len(UNARY)]
        if name == "softmax_":
            return None if 0 in x.shape or not x.shape else dg.softmax(x, c % x.ndim)
        if name == "log_":
            return dg.log(dg.sqrt(dg.abs(x) + 0.25))
        return getattr(x, name)()

    def do_binary(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.number(a)
        if x is None:
            return None
        shape = x.shape
        y = self.pick(b, lambda v: v.dtype is not bool_ and fits(v.shape, shape))
        function = getattr(dg, BINARY[c % len(BINARY)])
        if BINARY[c % len(BINARY)] == "div" and y is not None:
            return function(x, dg.abs(y) + 1)
        return None if y is None else function(x, y)

    def do_scalar(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.number(a)
        if x is None:
            return None
        number = (2, 0.5, -1.25, 3, True, 1e-3, -0.0)[b % 7]
        function = getattr(dg, BINARY[c % len(BINARY)])
        return function(x, number) if d % 2 or c % len(BINARY) == 3 else function(number, x)

    def do_where(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.number(a)
        if x is None:
            return None
        shape = x.shape
        y = self.pick(b, lambda v: v.dtype is not bool_ and fits(v.shape, shape))
        if y is None:
            return None
        condition = getattr(x, COMPARE[c % len(COMPARE)])(y if d % 3 else 0.25)
        return (condition, dg.where(condition, x, y), dg.where(~condition, x, 0.5),
                condition & (x == y))[d % 4]  # fmt: skip

    def do_cast(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.pick(a, lambda v: True)
        assert x is not None
        target = DTYPES[3 + b % (len(DTYPES) - 3)]
        if x.dtype.is_float and not target.is_float and target is not bool_:
            x = dg.abs(dg.where(x == x, dg.tanh(x), 0.0)) * 100.0
        return x.to(target)

    def do_reduce(self, a: int, b: int, c: int, d: int) -> Any:
        name = REDUCE[b % len(REDUCE)]
        x = self.pick(a, lambda v: v.dtype is not bool_ or name == "sum")
        if x is None:
            return None
        axes = tuple(k for k in range(x.ndim) if c >> k & 1)
        if name not in ("sum", "mean") and 0 in x.shape:
            return None
        if name.startswith("arg"):
            return getattr(x, name)(axis=axes[0] if axes else None, keepdims=d % 2 == 1)
        return getattr(x, name)(axis=axes if c % 5 else None, keepdims=d % 2 == 1)

    def do_view(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.pick(a, lambda v: True)
        assert x is not None
        way = b % 6
        if way == 0:
            return x.flatten()
        if way == 1 and x.ndim > 1:
            return x.transpose(c % x.ndim, d % x.ndim)
        if way == 2 and x.ndim < 4 and count(x.shape) * 3 <= LARGEST:
            return x.unsqueeze(c % (x.ndim + 1)).expand(
                *(3 if k == c % (x.ndim + 1) else -1 for k in range(x.ndim + 1))
            )
        if way == 3:
            return x.squeeze()
        if way == 4:
            side = (2, 3, 5, 16)[c % 4]
            n = count(x.shape)
            return x.reshape(side, n // side) if n and n % side == 0 else x.reshape(-1 if n else 0)
        return x.permute(tuple(reversed(range(x.ndim))))

    def do_matmul(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.pick(a, lambda v: v.dtype.is_float and 1 <= v.ndim <= 3)
        if x is None:
            return None
        inner, kind = x.shape[-1], x.dtype
        y = self.pick(
            b,
            lambda v: (
                v.dtype is kind
                and 1 <= v.ndim <= 3
                and v.shape[-2 if v.ndim > 1 else 0] == inner
                and (v.ndim < 3 or x.ndim < 3 or fits(v.shape[:-2], x.shape[:-2]))
            ),
        )
        if y is None:
            y = x.transpose(-1, -2) if x.ndim > 1 else x
        rows = count(x.shape[:-1]) * count(y.shape[-1:] if y.ndim > 1 else ())
        return None if rows * max(1, count(y.shape[:-2])) > LARGEST else x @ y

    def do_one_hot(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.floating(a)
        if x is None or count(x.shape) > LARGEST // 5 or x.ndim > 2:
            return None
        labels = (dg.where(x == x, dg.tanh(x), 0.0) * 2.5 + 2.5).to(int64)
        return dg.one_hot(dg.minimum(labels, 4), 5)

    def do_loss(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.pick(a, lambda v: v.dtype.is_float and v.ndim == 2 and v.shape[1] > 0)
        if x is None:
            return None
        target = x.argmax(axis=1)
        return functional.cross_entropy(x * 0.5, target, reduction=("mean", "sum", "none")[b % 3])

    def do_random(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.floating(a)
        if x is None:
            return None
        make = dg.rand if b % 2 else dg.randn
        return make(*x.shape, device=x.device)

    def do_detach(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.floating(a)
        return None if x is None else x.detach()

    def do_update(self, a: int, b: int, c: int, d: int) -> Any:
        """Change a captured tensor in place."""
        if not self.captured:
            return None
        target = self.captured[a % len(self.captured)]
        shape, kind = target.shape, target.dtype
        source = self.pick(
            b,
            lambda v: (
                v.dtype is kind
                and fits(v.shape, shape)
                and np.broadcast_shapes(v.shape, shape) == shape
            ),
        )
        with dg.no_grad():
            if source is None:
                return None
            if c % 3 == 0 and kind.is_float:
                target.mul_(0.75)
            elif c % 3 == 1:
                target.copy_(source.detach())
            elif kind is not bool_:
                target.add_(source.detach())
        return None

    def do_backward(self, a: int, b: int, c: int, d: int) -> Any:
        x = self.pick(a, lambda v: v.requires_grad and v.dtype.is_float)
        if x is None:
            return None
        loss = (x * x).sum() if b % 2 else x.mean()
        loss.backward(retain_graph=True)
        if d % 3 == 0:
            self.step(0.125)
        return loss

    def do_zero_grad(self, a: int, b: int, c: int, d: int) -> Any:
        for p in self.leaves:
            p.grad = None
        return None

    def step(self, rate: float) -> None:
        with dg.no_grad():
            for p in self.leaves:
                if p.grad is not None and any(p is t for t in self.captured):
                    p.sub_(p.grad * rate)


NAMES = tuple(n.removeprefix("do_") for n in dir(Machine) if n.startswith("do_"))


# -- running one program in all ways --------------------------------------------------------------


class Run:
    """A program with inputs of its own, that can be run again from the same start.

    `place` makes a tensor of an array, with the array's layout.
    """

    def __init__(
        self,
        program: Program,
        compiled: bool,
        place: Callable[[np.ndarray[Any, Any]], dg.Tensor] = dg.from_numpy,
    ) -> None:
        self.start = program.arrays()
        self.tensors = []
        for i, array in zip(program.inputs, self.start, strict=True):
            own = array.copy() if array.flags.writeable else array
            if i.arg.layout in ("transposed", "strided"):
                own = draw(i.arg, np.random.default_rng(i.seed))
            self.tensors.append(place(own).requires_grad_(i.trained))
        inputs = program.inputs
        self.captured = [t for t, i in zip(self.tensors, inputs, strict=True) if i.captured]
        pairs = zip(self.tensors, self.start, strict=True)
        self.changeable = [(t, array) for t, array in pairs if array.flags.writeable]
        known = {id(t) for t, _ in self.changeable}
        self.writeable = [t for t in self.captured if id(t) in known]
        leaves = [t for t, i in zip(self.tensors, inputs, strict=True) if i.trained]
        self.args = [t for t, i in zip(self.tensors, inputs, strict=True) if not i.captured]
        captured, writeable, code = self.captured, self.writeable, program.code

        def call(args: list[dg.Tensor]) -> list[Any]:
            return Machine([*captured, *args], leaves, writeable).run(code)

        self.function: Callable[..., Any] = dg.function(call, strict=True) if compiled else call

    def __call__(self, threads: int) -> list[Any]:
        """Results, final values of the inputs, or the error that stopped it."""
        dg.set_num_threads(threads)
        dg.seed(11)
        for t, array in self.changeable:
            with dg.no_grad():
                t.copy_(dg.from_numpy(array).to(t.device))
        for t in self.tensors:
            t.grad = None
        out = self.function(self.args)
        flat = [x for r in out for x in (r if isinstance(r, list) else [r])]
        found = [None if x is None else x.detach().cpu() for x in (*flat, *self.tensors)]
        return [None if x is None else as_array(x).copy() for x in found]


Outcome = tuple[str, list[Any]]  # what stopped it, or "" and its results


def outcome(run: Run, threads: int) -> Outcome:
    try:
        return "", run(threads)
    except GradientError as error:
        return f"{type(error).__name__}: {error.what}", []
    except TraceError as error:
        limit = next((text for text in LIMITS if text in error.what), None)
        if limit is None:
            raise
        return limit, []


def assert_same(got: Outcome, want: Outcome, what: str) -> None:
    assert got[0] == want[0], what
    for k, (x, y) in enumerate(zip(got[1], want[1], strict=True)):
        assert (x is None) == (y is None), f"{what}: result {k}"
        if x is not None:
            same_bits(x, y, f"{what}: result {k}")


def compare(program: Program) -> None:
    eager, static = Run(program, False), Run(program, True)
    want, first = outcome(eager, 1), outcome(static, 1)
    if first[0] in LIMITS:
        return
    assert_same(first, want, "static, while it is traced")
    assert_same(outcome(static, 1), want, "static")
    assert_same(outcome(static, 2), want, "static, 2 threads")
    assert_same(outcome(eager, 2), want, "eager, 2 threads")


# -- drawing programs -----------------------------------------------------------------------------

sides = st.sampled_from(SIDES)
shapes = st.one_of(
    st.just(()),
    st.tuples(st.one_of(sides, st.sampled_from(LONG))),
    st.tuples(sides, sides),
    st.tuples(st.sampled_from((1, 3, 300)), st.sampled_from((1, 17, 64, 129))),
    st.tuples(
        st.sampled_from((0, 1, 2, 5)), st.sampled_from(SIDES[:9]), st.sampled_from(SIDES[:9])
    ),
)


@st.composite
def inputs(draw_: st.DrawFn) -> Input:
    dtype: DType = draw_(st.sampled_from(DTYPES))
    low, high = (-2.0, 2.0) if dtype.is_float else (-9, 9)
    arg = Arg(draw_(shapes), dtype, low, high, layout=draw_(st.sampled_from(LAYOUTS)))
    trained = dtype.is_float and draw_(st.booleans())
    return Input(arg, draw_(st.booleans()), trained, draw_(st.integers(0, 99)))


small = st.integers(0, 15)
instructions = st.tuples(st.sampled_from(NAMES), small, small, small, small)
programs = st.builds(
    Program,
    st.lists(inputs(), min_size=1, max_size=4).map(tuple),
    st.lists(instructions, min_size=1, max_size=14).map(tuple),
)
COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=60, **COMMON)
@given(programs)
def test_random_programs(program: Program) -> None:
    compare(program)


@pytest.mark.slow
@settings(max_examples=2500, phases=(Phase.generate, Phase.shrink), **COMMON)
@given(programs)
def test_many_random_programs(program: Program) -> None:
    compare(program)


# -- programs that once gave other bits, or none ---------------------------------------------------


def ramp(*shape: int) -> dg.Tensor:
    return dg.tensor(np.arange(count(shape), dtype=np.float32).reshape(shape) * 0.37 - 1.0)


def same_in_both_modes(function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
    """Results and final values of the arguments are equal."""

    def call(*args: dg.Tensor) -> Any:
        return function(*args), args

    eager, static = both(call, lambda: tuple(ramp(*s) for s in shapes))
    for x, y in zip(tensors_in(eager), tensors_in(static), strict=True):
        same_bits(y, x)


def test_number_on_either_side() -> None:
    x = ramp(1, 2)
    same_bits(dg.sub(2, x), 2 - as_array(x))
    same_bits(dg.sub(x, 2), as_array(x) - 2)
    same_bits(dg.div(x, 4), as_array(x) / 4)
    same_bits(dg.div(4, x), np.float32(4) / as_array(x))


def test_shapes_of_equal_programs() -> None:
    for shape in ((), (1,), (1, 1), (0,), (3, 0), (0, 3)):
        assert as_array(dg.exp(dg.zeros(*shape))).shape == shape
        assert as_array(dg.function(dg.exp)(dg.zeros(*shape))).shape == shape


def test_reshape_of_empty_transposed_memory() -> None:
    x = dg.from_numpy(np.ones((2, 0, 2), np.float32).T)
    assert x.reshape(0).shape == (0,)
    assert x.reshape(3, 0, 5).shape == (3, 0, 5)


def test_blocked_sum_of_a_middle_axis() -> None:
    same_in_both_modes(lambda x: x.sum(1), (4, 130, 6))


def test_reshape_that_copies_is_no_view() -> None:
    def f(x: dg.Tensor) -> dg.Tensor:
        y = x.unsqueeze(1).expand(2, 3).flatten()
        x.add_(1.0)
        return y

    same_in_both_modes(f, (2,))


def test_loops_over_expanded_dimensions() -> None:
    def f(x: dg.Tensor) -> dg.Tensor:
        return x.unsqueeze(2).expand(2, 2, 3).unsqueeze(2).expand(2, 2, 3, 3).clone()

    same_in_both_modes(f, (2, 2))


def test_written_value_that_is_returned_as_a_clone() -> None:
    def f(x: dg.Tensor) -> tuple[dg.Tensor, dg.Tensor]:
        old = x / 1.0
        x.mul_(0.75)
        return x.clone(), old @ x

    same_in_both_modes(f, (2, 5, 5))


def test_position_in_a_run_of_one() -> None:
    def f(x: dg.Tensor) -> Any:
        return x.argmax(axis=1), functional.cross_entropy(x, x.argmax(axis=1))

    same_in_both_modes(f, (2, 1))


@pytest.mark.parametrize("shape", [(6, 1, 9), (1, 6, 9), (2, 3, 9)])
def test_value_that_is_kept_in_a_result_of_another_rank(shape: tuple[int, ...]) -> None:
    def f(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        e = dg.exp(x)
        return (e / e.sum(-1, keepdims=True)).reshape(*shape) * y

    same_in_both_modes(f, (6, 9), shape)


def test_value_of_a_difference_in_a_gradient() -> None:
    x = ramp(4)
    results = []
    for compiled in (False, True):
        w = ramp(4).requires_grad_()

        def f() -> Any:
            functional.mse_loss(w * x, x).backward()  # noqa: B023
            return w.grad  # noqa: B023

        results.append(dg.function(f, strict=True)() if compiled else f())
    same_bits(results[1], results[0])
