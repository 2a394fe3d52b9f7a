"""Every op, by the samples that its class states, through every system.

Reference, eager, static, the interpreter of the loop IR, bounds checks, gradients of first and
second order against finite differences, and gradients eager against static.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, draw, same_bits

import dualgrad as dg
from dualgrad.compiler import ops
from dualgrad.compiler.ir.dims import evaluate
from dualgrad.compiler.ir.node import Graph, input_node
from dualgrad.compiler.kernel.ir import Buffer
from dualgrad.compiler.lower.reference import run
from dualgrad.compiler.ops.base import OPS, Op
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.reduce import Reduction
from dualgrad.compiler.ops.sample import SAMPLED, Arg, Sample
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import ALL, DEFAULT_FLOAT, DType, float32, float64
from dualgrad.runtime.library import FUNCTIONS

WIDTH_OF_STEP = 1e-6  # of finite differences in float64
COARSE_STEP = 2**-6  # where the function itself rounds to float32
SEED = 7


@dataclass(frozen=True)
class Case:
    """One sample of an op class, or of a function without one."""

    name: str
    op: type[Op] | None
    number: int
    sample: Sample

    def __str__(self) -> str:
        return f"{self.name}-{self.number}"

    def arrays(self, dtype: DType | None = None) -> list[Any]:
        """The arguments; floats are drawn in `dtype` if it is given."""
        rng = np.random.default_rng(SEED)
        return [
            draw(a, rng, dtype if a.dtype.is_float else None) if isinstance(a, Arg) else a
            for a in self.sample.args
        ]


def all_cases() -> Iterator[Case]:
    for module in pkgutil.iter_modules(ops.__path__):  # some are imported by their first user
        importlib.import_module(f"{ops.__name__}.{module.name}")
    for op in OPS:
        for number, sample in enumerate(op.samples()):
            yield Case(op.__name__, op, number, sample)
    names: set[str] = set()
    for function, make in SAMPLED.items():
        name = function.__name__
        if name in names:  # those of another name space
            name = f"{function.__module__.rpartition('.')[2]}.{name}"
        names.add(name)
        for number, sample in enumerate(make()):
            yield Case(name, None, number, sample)


CASES = tuple(all_cases())
GOOD = [c for c in CASES if c.sample.error is None]
BAD = [c for c in CASES if c.sample.error is not None]
SMOOTH = [
    c
    for c in GOOD
    if c.sample.gradient
    and (c.op is None or c.op.vjp is not None)
    and any(isinstance(a, Arg) and a.dtype.is_float and a.differentiable for a in c.sample.args)
]
FIRST = {c.name: c for c in reversed(GOOD)}


def first_of_each(cases: list[Case], count: int) -> list[Case]:
    """At most `count` cases of each op."""
    return [c for k, c in enumerate(cases) if sum(d.name == c.name for d in cases[:k]) < count]


def tensors(arrays: list[Any]) -> list[Any]:
    return [dg.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays]


def eager(case: Case, dtype: DType | None = None) -> Array:
    return as_array(case.sample.function(*tensors(case.arrays(dtype))))


def static(case: Case) -> Array:
    compiled = dg.function(case.sample.function, strict=True)
    result = compiled(*tensors(case.arrays()))
    assert compiled.n_traces == 1
    return as_array(result)


# -- reference ----------------------------------------------------------------------------------


def reference(case: Case, arrays: list[Any]) -> Array:
    assert case.sample.reference is not None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(case.sample.reference(np, *arrays))


def expected_dtype(case: Case, arrays: list[Any]) -> np.dtype[Any]:
    """NumPy's result dtype; integers that turn into floats give the default float here."""
    found = reference(case, arrays).dtype
    floats = any(
        isinstance(a, np.ndarray | float) and np.asarray(a).dtype.kind == "f" for a in arrays
    )
    return DEFAULT_FLOAT.numpy if found == np.float64 and not floats else found


def widened(case: Case, arrays: list[Any]) -> list[Any]:
    """The inputs in a precision that makes the reference's own errors small."""
    exact = not (case.sample.ulps or case.sample.relative)
    wide = {np.dtype("f4"): np.float64, np.dtype("f8"): np.float64 if exact else np.longdouble}
    return [
        a.astype(wide.get(a.dtype, a.dtype)) if isinstance(a, np.ndarray) else a for a in arrays
    ]


def assert_close(got: Array, exact: Array, case: Case, arrays: list[Any]) -> None:
    sample = case.sample
    with np.errstate(over="ignore", under="ignore"):
        want = exact.astype(got.dtype)
    if not (sample.ulps or sample.relative) or got.dtype.kind != "f":
        same_bits(got, want, case)
        return
    finite = np.isfinite(want)
    same_bits(np.where(finite, got.dtype.type(0), got), np.where(finite, got.dtype.type(0), want))
    with np.errstate(invalid="ignore"):
        error = np.abs(np.where(finite, got - exact, 0))
    # the sum of magnitudes is what rounding errors of sums are relative to
    largest = np.abs(reference(case, [np.abs(a) for a in arrays])).max(initial=0)
    allowed = (0.5 + sample.ulps) * np.spacing(np.where(finite, np.abs(want), 0))
    if sample.relative:
        allowed = allowed + sample.relative * largest
    assert (error <= allowed).all(), f"{case}: error {error.max()}, allowed {np.max(allowed)}"


def compare_with_reference(case: Case, arrays: list[Any]) -> None:
    got = as_array(case.sample.function(*tensors(arrays)))
    assert got.dtype == expected_dtype(case, arrays)
    exact = reference(case, widened(case, arrays))
    assert got.shape == exact.shape
    assert_close(got, exact, case, arrays)


@pytest.mark.parametrize("case", [c for c in GOOD if c.sample.reference], ids=str)
def test_reference(case: Case) -> None:
    compare_with_reference(case, case.arrays())


def test_every_op_has_samples_with_reference() -> None:
    untested = {op for op in OPS if not any(c.op is op and c.sample.reference for c in GOOD)}
    # Size has no tensor to be applied to; means over axes of unknown size are its test.
    assert {op.__name__ for op in untested} <= {"Size"}


def other_dtypes(case: Case) -> Iterator[DType]:
    """The dtypes besides those of its arguments in which a sample can be run; the 16-bit floats
    have a file of their own."""
    own = {a.dtype for a in case.sample.args if isinstance(a, Arg)}
    op = case.op or Op
    if len(own) != 1 or case.name == "Cast":
        return
    for dtype in ALL:
        plain = issubclass(op, Elementwise | Reduction)
        if dtype.is_low or dtype in own or not (dtype.is_float or plain):
            continue
        kinds = op.accepts if issubclass(op, Elementwise) else "iuf"
        floats = issubclass(op, Elementwise) and op.floats
        if dtype.kind in kinds and not (floats and not dtype.is_float):
            yield dtype


OTHER = [
    (c, d)
    for c in FIRST.values()
    for d in other_dtypes(c)
    if float32 in {a.dtype for a in c.sample.args if isinstance(a, Arg)}
]


@pytest.mark.parametrize(("case", "dtype"), OTHER, ids=lambda x: getattr(x, "name", str(x)))
def test_other_dtypes(case: Case, dtype: DType) -> None:
    args = tuple(
        dataclasses.replace(a, dtype=dtype) if isinstance(a, Arg) else a for a in case.sample.args
    )
    moved = Case(case.name, case.op, case.number, dataclasses.replace(case.sample, args=args))
    compare_with_reference(moved, moved.arrays())
    same_bits(static(moved), eager(moved), case)


# -- the same bits everywhere ---------------------------------------------------------------------


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_static(case: Case) -> None:
    same_bits(static(case), eager(case), case)


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_interpreter(case: Case) -> None:
    xs = tensors(case.arrays())
    arrays = [x for x in xs if isinstance(x, dg.Tensor)]
    nodes = iter(input_node(k, x.type) for k, x in enumerate(arrays))
    operands = [next(nodes) if isinstance(x, dg.Tensor) else x for x in xs]
    result = case.sample.function(*operands)
    inputs = tuple(x for x in operands if hasattr(x, "op"))
    program = lower(Graph(inputs, (), (result,)), tuple(x.layout for x in arrays), "sample", 1)
    memory = {b.name: flat(b, x) for b, x in zip(program.inputs, arrays, strict=True)}
    for b in program.buffers[len(program.inputs) :]:
        memory[b.name] = np.zeros(evaluate(b.size, {}), b.dtype.numpy)
    assert run(program.kernels, memory, {}, {}, SEED, FUNCTIONS) == 0
    same_bits(memory["o0"].reshape(result.shape), eager(case), case)


def flat(buffer: Buffer, x: dg.Tensor) -> Array:
    """The memory of a tensor as the interpreter wants it: one dimension, element by element."""
    assert x.array is not None
    size = evaluate(buffer.size, {})
    return np.lib.stride_tricks.as_strided(x.array, (size,), (x.array.itemsize,)).copy()


@pytest.mark.parametrize("case", first_of_each(GOOD, 3), ids=str)
def test_bounds_checks_find_nothing(case: Case) -> None:
    want = eager(case)
    with config.scope(check=True):
        same_bits(static(case), want, case)


# -- gradients ------------------------------------------------------------------------------------


def differentiable(case: Case) -> list[int]:
    return [
        k
        for k, a in enumerate(case.sample.args)
        if isinstance(a, Arg) and a.dtype.is_float and a.differentiable
    ]


@dataclass
class Slope:
    """L(x, w) = sum of w * f(x), its gradient, and directions to move in, in float64."""

    case: Case
    xs: list[Any]
    w: Array
    rng: np.random.Generator

    @classmethod
    def of(cls, case: Case) -> Slope:
        rng = np.random.default_rng(SEED)
        out = eager(case, float64)
        xs = [np.array(a) if isinstance(a, np.ndarray) else a for a in case.arrays(float64)]
        return cls(case, xs, np.asarray(rng.uniform(0.5, 1.5, out.shape)), rng)

    @property
    def places(self) -> list[int]:
        return differentiable(self.case)

    def direction(self) -> tuple[list[Array], Array]:
        draws = [np.asarray(self.rng.uniform(-1, 1, self.xs[k].shape)) for k in self.places]
        return draws, np.asarray(self.rng.uniform(-1, 1, self.w.shape))

    def moved(self, way: tuple[list[Array], Array], step: float) -> tuple[list[Any], Array]:
        xs = list(self.xs)
        for k, d in zip(self.places, way[0], strict=True):
            xs[k] = np.asarray(xs[k] + step * d)
        return xs, np.asarray(self.w + step * way[1])

    def graph(self, xs: list[Any], w: Array) -> tuple[dg.Tensor, list[dg.Tensor]]:
        """L as a tensor, and the leaves that it depends on."""
        operands = tensors(xs)
        leaves = [operands[k].requires_grad_() for k in self.places]
        weight = dg.from_numpy(w).requires_grad_()
        return (self.case.sample.function(*operands) * weight).sum(), [*leaves, weight]

    def value(self, xs: list[Any], w: Array) -> float:
        return float(self.graph(xs, w)[0].detach().item())

    def gradient(self, xs: list[Any], w: Array) -> list[Array]:
        total, leaves = self.graph(xs, w)
        total.backward()
        return [as_array(x.grad) for x in leaves]

    def step(self) -> float:
        result = self.case.sample.function(*tensors(self.xs))
        return WIDTH_OF_STEP if result.dtype is float64 else COARSE_STEP


def along(parts: list[Array], way: tuple[list[Array], Array]) -> float:
    return float(sum((p * d).sum() for p, d in zip(parts, (*way[0], way[1]), strict=True)))


def assert_slope(found: float, measured: float, size: float, step: float) -> None:
    allowed = (1e-7 if step == WIDTH_OF_STEP else 1e-3) * max(1.0, size)
    assert abs(found - measured) <= allowed, f"gradient {found}, differences {measured}"


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradient(case: Case) -> None:
    slope = Slope.of(case)
    step = slope.step()
    way = slope.direction()
    found = along(slope.gradient(slope.xs, slope.w), way)
    ahead, behind = (slope.value(*slope.moved(way, s)) for s in (step, -step))
    assert_slope(found, (ahead - behind) / (2 * step), abs(ahead) + abs(found), step)


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_second_gradient(case: Case) -> None:
    slope = Slope.of(case)
    step = slope.step()
    way, other = slope.direction(), slope.direction()
    total, leaves = slope.graph(slope.xs, slope.w)
    total.backward(create_graph=True)
    first = [x.grad for x in leaves]
    for x in leaves:
        x.grad = None
    weights = [dg.from_numpy(np.asarray(d)) for d in (*other[0], other[1])]
    inner = sum(
        ((g * d).sum() for g, d in zip(first, weights, strict=True)), dg.zeros((), dtype=float64)
    )
    inner.backward()
    second = [np.zeros(x.shape) if x.grad is None else as_array(x.grad) for x in leaves]
    ahead, behind = (along(slope.gradient(*slope.moved(way, s)), other) for s in (step, -step))
    found = along(second, way)
    assert_slope(found, (ahead - behind) / (2 * step), abs(ahead) + abs(found), step)


def gradients(case: Case, arrays: list[Any], compiled: bool) -> list[dg.Tensor]:
    """Gradients in the sample's own dtypes, from a backward inside of the function."""
    places = differentiable(case)
    numbers = np.random.default_rng(SEED).uniform(-1, 1, eager(case).shape)
    weight = dg.tensor(numbers, dtype=float32)

    op = case.sample.function

    def run_backward(w: dg.Tensor, *xs: Any) -> list[Any]:
        (op(*xs) * w).sum().backward()
        return [xs[k].grad for k in places]

    xs = tensors(arrays)
    for k in places:
        xs[k].requires_grad_()
    function: Callable[..., Any] = (
        dg.function(run_backward, strict=True) if compiled else run_backward
    )
    return list(function(weight, *xs))


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradient_bits(case: Case) -> None:
    results = [gradients(case, case.arrays(), compiled) for compiled in (False, True)]
    for one, two in zip(*results, strict=True):
        same_bits(two, one, case)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BAD, ids=str)
@pytest.mark.parametrize("mode", ["eager", "static"])
def test_refused(case: Case, mode: str) -> None:
    assert case.sample.error is not None
    function = case.sample.function
    if mode == "static":
        function = dg.function(function)
    with pytest.raises(case.sample.error, match=case.sample.match):
        function(*tensors(case.arrays()))
