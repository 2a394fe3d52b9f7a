"""Kernels of rows on the shim: the bits of the CPU, for every length, dtype, alignment and order of
threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from support import Array
from test_golden import graph_of
from test_ops import GOOD

import dualgrad as dg
from dualgrad import functional
from dualgrad.compiler.ir.dims import Dim, ShapeEnv, shape_env, sym, symbol_of
from dualgrad.compiler.ir.node import Graph, Node, input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.lower.cuda.module import kernels_text, pattern
from dualgrad.compiler.lower.cuda.teams import Team
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.dtype import (
    ALL,
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
)
from dualgrad.runtime.floats import encode
from gpu import shim
from gpu.programs import graph_of_sample
from gpu.running import Arguments, Case, case, compare, outputs_of

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

ROWS = 37  # of unknown number to the compiler: several turns of the loop over rows


def numbers(shape: tuple[int, ...], dtype: DType, seed: int = 0) -> Array:
    """Numbers with ties and both zeros among them."""
    rng = np.random.default_rng(seed + sum(shape))
    if dtype.is_float:
        x = rng.standard_normal(shape)
        return encode(np.where(rng.random(shape) < 0.2, np.round(x) * 0.0, x), dtype)
    return rng.integers(0, 2 if dtype is bool_ else 9, shape).astype(dtype.numpy)


def with_special(x: Array) -> Array:
    """Infinities and NaN in some rows."""
    x = x.copy()
    x[1, ::3] = -np.inf
    x[2, -1] = np.nan
    x[3, 0] = np.inf
    x[4] = -np.inf
    return x


def unknown(
    function: Callable[..., Any],
    columns: Dim,
    lengths: Sequence[int],
    dtypes: Sequence[DType] = (float32,),
    rows: int = ROWS,
    special: bool = False,
) -> Case:
    """A function of matrices of an unknown number of rows, and of known or unknown columns."""
    r = sym("r")
    nodes = tuple(input_node(k, TensorType((r, columns), t)) for k, t in enumerate(dtypes))
    runs = []
    for n in lengths:
        arrays = [numbers((rows, n), t) for t in dtypes]
        values = {symbol_of(r): rows}
        if not isinstance(columns, int):
            values[symbol_of(columns)] = n
        runs.append(Arguments([with_special(x) if special else x for x in arrays], values))
    with shape_env(ShapeEnv(dict(runs[0].values))):
        outputs = outputs_of(function(*nodes))
    return Case(Graph(nodes, (), outputs), (None,) * len(nodes), runs)


def known(function: Callable[..., Any], n: int, *dtypes: DType, special: bool = False) -> Case:
    return unknown(function, n, [n], dtypes or (float32,), special=special)


# -- what is done with rows -----------------------------------------------------------------------


def reductions(x: Node) -> list[Node]:
    return [x.sum(1), dg.amax(x, 1), dg.argmax(x, 1), x.prod(1)]


def more_reductions(x: Node) -> list[Node]:
    return [dg.amin(x, 1), dg.argmin(x, 1), dg.linalg.norm(x, axis=1), dg.logsumexp(x, 1)]


def softmax(x: Node) -> Node:
    return dg.softmax(x, 1)


def log_softmax(x: Node) -> Node:
    return dg.log_softmax(x, 1)


def moments(x: Node) -> list[Node]:
    return [x.mean(1), dg.var(x, 1)]


def normalised(x: Node) -> Node:
    return (x - x.mean(1, keepdims=True)) / dg.sqrt(dg.var(x, 1, keepdims=True) + 1e-5)


def residual(x: Node, y: Node) -> list[Node]:
    z = x + y
    return [z, dg.softmax(z, 1) * y]


ALL_OF = (reductions, more_reductions, softmax, log_softmax, moments, normalised)


def teams_of(program: LoopProgram) -> list[Team]:
    return [Team.of(k) for k in program.kernels if pattern(k) == "team"]


# -- lengths --------------------------------------------------------------------------------------

EDGES = (63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_every_length_up_to_200(shift: int) -> None:
    """One text for all of them."""
    n = sym("n")
    lengths = range(2, 200) if shift == 0 else (*range(2, 20), 63, 64, 65, 66, 68, 127, 128)
    compare(*(unknown(f, n, lengths, rows=9) for f in ALL_OF), shift=shift, seed=shift)


@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
def test_long_rows_of_unknown_length(wide: bool) -> None:
    n = sym("n")
    functions = (reductions, softmax, normalised)
    compare(*(unknown(f, n, [1000, 1024, 4095, 4096], rows=5) for f in functions), wide=wide)


@pytest.mark.parametrize("seed", range(3))
def test_short_rows(seed: int) -> None:
    lengths = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33)[seed::3]
    cases = [known(f, n) for n in lengths for f in (reductions, softmax, normalised)]
    compare(*cases, seed=seed, shift=seed)


@pytest.mark.parametrize("number", range(5))
def test_edges_of_lanes_and_registers(number: int) -> None:
    cases = [known(f, n) for n in EDGES[number::5] for f in (reductions, softmax, normalised)]
    compare(*cases, seed=number, shift=number % 3)


@pytest.mark.parametrize("n", [2048, 2049, 4095, 4096, 4097, 9000])
def test_wide_teams(n: int) -> None:
    functions = (reductions, softmax, normalised)
    cases = [unknown(f, n, [n], rows=7) for f in functions]
    if n <= 4096:
        assert all(t.is_wide for c in cases for t in teams_of(c.program))
    compare(*cases, seed=n, blocks=2)


def test_sizes_of_teams() -> None:
    """By length, dtype, number of rows, and layout."""
    one = [known(softmax, n) for n in (3, 16, 17, 300, 512, 513, 1024, 1025, 4096)]
    assert [t.threads for c in one for t in teams_of(c.program)] == [
        1,
        1,
        16,
        16,
        16,
        32,
        32,
        64,
        64,
    ]
    half, double, unsure = (
        known(softmax, 100, float16),
        known(softmax, 100, float64),
        unknown(softmax, sym("n"), [100]),
    )
    assert [t.threads for c in (half, double, unsure) for t in teams_of(c.program)] == [8, 32, 32]
    few, across = numbers((12, 300), float32), numbers((3000, 40), float32).T
    both = [case(softmax, few), case(softmax, across)]
    assert [t.threads for c in both for t in teams_of(c.program)] == [64, 16]


def test_few_rows() -> None:
    """Teams of more threads, each with fewer elements."""
    x = numbers((12, 300), float32)
    compare(*(case(f, y) for f in (softmax, reductions) for y in (x, x[:, :40].copy())))


@pytest.mark.parametrize("size", [1, 4096, 4097, 20_000, 70_001])
def test_blocks(size: int) -> None:
    """Sums of more than 4096 elements."""
    x = numbers((size,), float32)
    compare(
        case(lambda x: [x.sum(), x.mean(), dg.amax(x), dg.argmax(x), dg.var(x)], x),
        case(lambda x: (x * 2.0).sum(), x.astype(np.float64)),
        seed=size,
    )


def test_blocks_of_rows() -> None:
    compare(
        case(lambda x: [x.sum(1), dg.logsumexp(x, 1)], numbers((3, 9001), float32)),
        case(lambda x: x.sum((1, 2)), numbers((2, 90, 91), float32)),
        unknown(lambda x: x.sum(), sym("n"), [4000, 5000], rows=3),
    )


def test_nothing() -> None:
    def empty(x: Node) -> list[Node]:
        return [x.sum(1), x.prod(1), dg.softmax(x, 1), x.mean(1)]

    compare(
        case(empty, numbers((5, 0), float32)),
        case(empty, numbers((0, 5), float32)),
        case(lambda x: [x.sum(), dg.softmax(x, 0)], numbers((0,), float32)),
        case(lambda x: x.sum(1), numbers((4, 0, 3), float32)),
    )


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_dtypes(number: int) -> None:
    cases = []
    for t in ALL[number::3]:
        if t is bool_:
            functions: tuple[Any, ...] = (lambda x: [x.sum(1), dg.any(x, 1), dg.all(x, 1)],)
        elif t.is_int:
            functions = (reductions, lambda x: [dg.amin(x, 1), dg.argmin(x, 1), x.mean(1)])
        else:
            functions = (reductions, softmax, normalised)
        cases += [known(f, n, t) for f in functions for n in (40, 200)]
    compare(*cases, seed=number, shift=number)


def test_dtypes_together() -> None:
    def mixed(a: Node, b: Node, c: Node, d: Node) -> list[Node]:
        x = a.to(float32) + b + c.to(float32)
        return [dg.softmax(x, 1), (d * x.to(float64)).sum(1), (c * 2).sum(1), dg.amax(b, 1)]

    kinds = (float16, float32, int8, float64)
    compare(*(known(mixed, n, *kinds) for n in (8, 100, 1000)), shift=1)
    compare(known(residual, 100, bfloat16, bfloat16), known(residual, 96, float16, float32))


@pytest.mark.parametrize("n", [70, 130, 2100])
def test_nan_and_infinities(n: int) -> None:
    """What counts is their place; of a NaN's bits only that it is one."""
    functions = (lambda x: [dg.argmax(x, 1), dg.argmin(x, 1)], lambda x: dg.amax(x, 1) > 1.0)
    both = (lambda x: dg.isnan(dg.softmax(x, 1)), lambda x: dg.isnan(x.sum(1)))
    compare(*(known(f, n, special=True) for f in (*functions, *both)))


def test_both_zeros() -> None:
    x = np.zeros((3, 200), np.float32)
    x[0, 70:] = -0.0
    x[1, :70] = -0.0
    compare(case(lambda x: [dg.amax(x, 1), dg.amin(x, 1), x.sum(1), dg.argmax(x, 1)], x))


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_layouts(shift: int) -> None:
    """Rows with gaps, every other element, columns first, rows that overlap."""
    x = numbers((40, 140), float32)
    views = [x[:, :100], x[:, 1:101], x[::2], x[:, ::2], x[:, :99], x.T, x[3:, 4:72]]
    views += [np.broadcast_to(x[:1], (24, 140)), np.broadcast_to(x[:, :1], (40, 64))]
    cases = [case(f, v) for v in views for f in (softmax, reductions)]
    cube = numbers((5, 6, 70), float32)
    for axes in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
        v = cube.transpose(axes)
        cases.append(case(lambda x: [x.sum((1, 2)), x.sum(2)], v))
        cases.append(case(lambda x: dg.softmax(x, 2), v))
    cases.append(case(lambda x, w: dg.softmax(x * w, 1), x, x[0]))
    compare(*cases, shift=shift, seed=shift)


def written(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Case:
    """A function whose first result overwrites its first argument."""
    nodes = tuple(input_node(k, TensorType(s, float32)) for k, s in enumerate(shapes))
    value, *outputs = outputs_of(function(*nodes))
    graph = Graph(nodes, (), tuple(outputs), ((value, 0),))
    arrays = [numbers(s, float32, k) for k, s in enumerate(shapes)]
    return Case(graph, (None,) * len(nodes), [Arguments(arrays)])


def test_in_place() -> None:
    cases = []
    for n in (10, 64, 100, 1000, 3000):
        shape = (20, n)
        cases.append(written(softmax, shape))
        cases.append(written(lambda x, y: [normalised(x + y), x.sum(1)], shape, shape))
        cases.append(written(lambda x: [dg.flip(x, 1) - dg.amax(x, 1, True), x.sum(1)], shape))
    compare(*cases, blocks=2)


def test_stores_in_reductions() -> None:
    """Values that are stored where they are reduced first, and read again."""
    compare(*(known(residual, n, float32, float32) for n in (10, 65, 100, 1000, 1500, 3000)))


def test_many_reductions() -> None:
    """As many as a kernel takes: each has few of its lanes in a thread."""

    def many(x: Node) -> Node:
        out = x
        for k in range(70):
            out = out * (x * float(k)).sum(1, keepdims=True)
        return out

    compare(known(many, 100), known(many, 3000), blocks=2)


def test_matrix_times_vector() -> None:
    """Sums in 16 lanes, beside others in 64."""

    def products(a: Node, x: Node) -> list[Node]:
        return [a @ x, dg.softmax(a, 1) @ x, a.sum(1)]

    shapes = ((30, 7), (30, 16), (30, 100), (5, 1000), (3, 5000))
    cases = [case(products, numbers(s, float32), numbers(s[1:], float32)) for s in shapes]
    cases += [case(products, numbers((9, 50), float64), numbers((50,), float64))]
    compare(*cases, shift=1)


# -- checks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [None, 0, 17, 39])
@pytest.mark.parametrize("n", [10, 100, 3000])
def test_checks_of_rows(bad: int | None, n: int) -> None:
    x = numbers((40, n), float32)
    target = np.random.default_rng(n).integers(0, n, 40)
    if bad is not None:
        target[bad] = n + 5
    function = functional.cross_entropy
    each = case(lambda x, t: function(x, t, reduction="none"), x, target)
    compare(each, case(function, x, target), case(lambda x, t: x.gather(1, t), x, target[:, None]))


@pytest.mark.parametrize("bad", [None, (3, 5), (3, 69), (8, 0)])
@pytest.mark.parametrize("n", [70, 3000])
def test_checks_of_elements(bad: tuple[int, int] | None, n: int) -> None:
    """A row of which one element fails reads nothing at unchecked places."""
    x = numbers((9, n), float32)
    places = np.random.default_rng(n).integers(-n, n, (9, n))
    if bad is not None:
        places[bad] = 2**31 + 7
    compare(
        case(lambda x, t: (x * dg.take_along_axis(x, t, 1)).sum(1), x, places),
        case(lambda x, t: dg.logsumexp(x + dg.take_along_axis(x, t, 1), 1), x, places),
        blocks=2,
    )


# -- gradients and other programs -----------------------------------------------------------------


def with_gradient(function: Callable[..., Any], *arrays: Array) -> Case:
    """A loss and the gradients of its float arguments."""

    def setup() -> Any:
        tensors = [dg.tensor(x) for x in arrays]
        for x in tensors:
            if x.dtype.is_float:
                x.requires_grad = True

        def step(*xs: dg.Tensor) -> Any:
            for x in xs:
                x.grad = None
            loss = function(*xs)
            loss.backward()
            return loss, *(x.grad for x in xs if x.dtype.is_float)

        return step, tuple(tensors)

    graph = graph_of(setup)
    others = [
        np.ones([int(n) for n in x.shape], x.dtype.numpy) for x in graph.inputs[len(arrays) :]
    ]
    return Case(graph, (None,) * len(graph.inputs), [Arguments([*arrays, *others])])


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_gradients(n: int) -> None:
    x, y = numbers((20, n), float32), numbers((20, n), float32, 1)
    w, b = numbers((n,), float32), numbers((n,), float32, 1)
    target = np.random.default_rng(n).integers(0, n, 20)
    compare(
        with_gradient(functional.cross_entropy, x, target),
        with_gradient(lambda x, y: (dg.softmax(x, 1) * y).sum(), x, y),
        with_gradient(lambda x, y: (dg.log_softmax(x, 1) * y).sum(), x, y),
        with_gradient(
            lambda x, w, b, y: (functional.layer_norm(x, (n,), w, b) * y).sum(), x, w, b, y
        ),
        with_gradient(lambda x: dg.linalg.norm(x, axis=1).sum() + dg.var(x, 1).mean(), x),
        with_gradient(lambda x: dg.amax(x, 1).sum() + dg.logsumexp(x, 1).sum(), x),
    )


SLICES = 4


@pytest.mark.parametrize("number", range(SLICES))
def test_ops(number: int) -> None:
    """Every fifth of the samples of all ops, as far as some of their kernels are rows."""
    cases = []
    for sample in GOOD[number :: 5 * SLICES]:
        graph, arrays = graph_of_sample(sample)
        layouts = tuple(x.layout for x in arrays)
        kernels = lower(graph, layouts, "sample", 1, "cuda").kernels
        kinds = {pattern(k) for k in kernels if k.kind != "call"}
        if "team" in kinds and "contract" not in kinds:
            cases.append(Case(graph, layouts, [Arguments([x.storage() for x in arrays])]))
    assert len(cases) > 3
    compare(*cases, shift=number % 2, seed=number)


# -- the text -------------------------------------------------------------------------------------


def test_rows_in_registers_are_read_once() -> None:
    """Softmax reads its row in one loop, and computes no exponential twice."""
    for n in (100, 1000, 4096):
        text = kernels_text(known(softmax, n).program)
        assert text.count("__float_as_int") == 1 + (n % 64 > 0)
        assert text.count("dg_read<") + text.count("p0[") == 1 + (n % 64 > 0)
