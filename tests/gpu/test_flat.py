"""Flat kernels on the shim: the bits of the CPU, at every size, alignment and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import Array
from test_ops import GOOD

import dualgrad as dg
from dualgrad.compiler.ir.dims import ShapeEnv, shape_env, sym, symbol_of
from dualgrad.compiler.ir.node import Graph, Node, input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.ir import is_flat
from dualgrad.compiler.lower.cuda.launch import KernelLaunch
from dualgrad.compiler.lower.cuda.module import functions_of, kernels_text
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.ops import random as rnd
from dualgrad.compiler.ops.elementwise import Copy
from dualgrad.compiler.ops.slicing import slices
from dualgrad.runtime.dtype import ALL, DType, float16, float32, float64, int8, int64, uint64
from dualgrad.runtime.floats import encode
from gpu import shim
from gpu.compiling import nvrtc_or_skip, text_of
from gpu.programs import graph_of_sample
from gpu.running import Arguments, Case, case, compare, layout_of, outputs_of

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

SPECIAL = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.999, 1e-3, 127.5, 128.0, -129.0, 255.9),
    *(32767.9, -32769.0, 65504.0, 65520.0, 7e4, 2.0**31, -(2.0**31), 2.0**32, 2.0**53, 2.0**63),
    *(-(2.0**63), 2.0**64, 1e30, 3.4e38, 1e300, 6e-8, 1e-7, 1e-40, -1e-45, 1e-310, 5e-324),
    *(float("inf"), float("-inf"), float("nan")),
)
SIZES = (2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 255, 257, 1030)  # around every vector


def special(dtype: DType) -> Array:
    """Numbers that conversions and roundings treat differently, in any order."""
    rng = np.random.default_rng(5)
    if dtype.is_float:
        with np.errstate(over="ignore"):
            return encode(rng.permutation(np.array(SPECIAL)), dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, 37).astype(bool)
    info = np.iinfo(dtype.numpy)
    ends = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, info.max // 2, 100]
    ends += [min(2**53 + 1, info.max), min(2**24 + 1, info.max), min(65520, info.max)]
    return rng.permutation(np.array(ends, dtype.numpy))


def random(*shape: int, dtype: Any = np.float32) -> Array:
    return (3 * np.random.default_rng(len(shape)).standard_normal(shape)).astype(dtype)


def copy(x: Node) -> Node:
    """x in row-major memory of its own."""
    node = Copy.of().on(x)
    assert isinstance(node, Node)
    return node


# -- every op -------------------------------------------------------------------------------------

SLICES = 8


def from_samples(number: int) -> list[Case]:
    """Every eighth of the samples of all ops, as far as they are flat."""
    out = []
    for sample in GOOD[number :: 5 * SLICES]:
        graph, arrays = graph_of_sample(sample)
        layouts = tuple(x.layout for x in arrays)
        out.append(Case(graph, layouts, [Arguments([x.storage() for x in arrays])]))
    return [c for c in out if all(is_flat(k) or k.kind == "call" for k in c.program.kernels)]


@pytest.mark.parametrize("number", range(SLICES))
def test_ops(number: int) -> None:
    cases = from_samples(number)
    assert len(cases) > 10
    compare(*cases, shift=number % 2, seed=number)


# -- numbers --------------------------------------------------------------------------------------


def test_casts() -> None:
    """Saturation, NaN, ties, halves from wider numbers, integers that wrap."""

    def all_of(x: Node) -> list[Node]:
        return [x.to(t) for t in ALL if t is not x.dtype]

    compare(*(case(all_of, special(t), dtypes=[t]) for t in ALL))


@pytest.mark.parametrize("number", range(2))
def test_arithmetic(number: int) -> None:
    def results(x: Node, y: Node) -> list[Node]:
        out = [x + y, x * y, dg.maximum(x, y), x < y, dg.eq(x, y), x >= y]
        if x.dtype.kind == "b":
            return [x | y, x ^ y, ~x, dg.eq(x, y)]
        if x.dtype.is_int:
            return [*out, x - y, -x, x & y, x | y, x ^ y, ~x, x // y, x % y, dg.abs(x)]
        return [*out, x - y, x / y, -x, dg.sqrt(x), dg.floor(x), dg.round(x), dg.abs(x), dg.sign(x)]

    cases = []
    for t in ALL[number::2]:
        x = special(t)
        y = np.roll(x, 3)
        if t.is_int:
            y = np.where(y == 0, 3, y).astype(y.dtype)
        cases.append(case(results, x, y, dtypes=[t, t]))
    compare(*cases)


def test_shifts_and_functions() -> None:
    x = random(9, 40)
    compare(
        case(lambda x: [dg.exp(x), dg.sin(x), dg.tanh(x), dg.log(dg.abs(x)), dg.erf(x)], x),
        case(lambda x: [dg.exp(x), dg.cos(x), dg.log1p(x * x)], x.astype(np.float64)),
        case(lambda x: [x << 3, x >> 2], np.arange(-50, 50, dtype=np.int16)),
    )


def test_numbers_of_the_caller() -> None:
    def function(x: Node, a: Node, b: Node, c: Node) -> list[Node]:
        return [dg.where(c, x * a, x + b), x.to(float64) * a, x.to(int64) * b]

    compare(
        case(function, random(7, 5), 0.1, -(2**40) - 1, True),
        case(function, random(64), -0.0, 5, False),
    )


# -- memory ---------------------------------------------------------------------------------------


def symbolic(function: Any, dtypes: tuple[DType, ...], sizes: tuple[int, ...]) -> Case:
    """A function of vectors of one unknown size."""
    n = sym("n")
    nodes = tuple(input_node(k, TensorType((n,), t)) for k, t in enumerate(dtypes))
    rng = np.random.default_rng(1)
    runs = [
        Arguments([encode(rng.integers(0, 100, size), t) for t in dtypes], {symbol_of(n): size})
        for size in sizes
    ]
    return Case(Graph(nodes, (), outputs_of(function(*nodes))), (None,) * len(nodes), runs)


@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
@pytest.mark.parametrize("shift", [0, 1, 2, 4])
def test_sizes_and_alignments(shift: int, wide: bool) -> None:
    """Vectors of 2 to 16 elements, their rests, and addresses that do not allow them."""
    cases = [symbolic(lambda x: x + x, (t,), SIZES) for t in ALL if t.kind != "b"]
    cases.append(symbolic(lambda x: ~x, (ALL[0],), SIZES))
    mixed = (int8, float16, float32, float64)
    cases.append(symbolic(lambda a, b, c, d: [a + 1, b + c, d * a, c > a], mixed, SIZES))
    compare(*cases, shift=shift, wide=wide)


@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
def test_rows_of_unknown_length(wide: bool) -> None:
    rows, columns = sym("r"), sym("c")
    shapes: tuple[tuple[Any, ...], ...] = ((rows, columns), (columns,), (rows, 1))
    nodes = tuple(input_node(k, TensorType(s, float32)) for k, s in enumerate(shapes))
    x, y, z = nodes
    runs = [
        Arguments(
            [random(r, c), random(c), random(r, 1)], {symbol_of(rows): r, symbol_of(columns): c}
        )
        for r in (33, 3, 2)
        for c in (32, 2, 4, 6, 37)
    ]
    with shape_env(ShapeEnv(dict(runs[0].values))):
        outputs = (x * 2.0 + y - z, (x + y).sum(axis=0), copy(x.transpose(0, 1)))
    compare(Case(Graph(nodes, (), outputs), (None,) * 3, runs), wide=wide)


@pytest.mark.parametrize("shift", [0, 1])
def test_layouts(shift: int) -> None:
    """Rows with gaps, every other element, columns first, repeated rows and elements."""
    x = random(24, 40)
    views = [x[:, :36], x[:, 1:37], x[::2], x[:, ::2], x.T, x[:, :35], x[3:, 4:8], x[:, 5]]
    views += [np.broadcast_to(x[:1], (24, 40)), np.broadcast_to(x[:, :1], (24, 40))]
    cases = [case(lambda v: v * 2.0, v) for v in views]
    cases += [case(lambda v, w: v + w, v, random(*v.shape)) for v in views]
    cube = random(6, 10, 16)
    for axes in ((0, 2, 1), (2, 0, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)):
        cases.append(case(lambda v: v * 2.0, cube.transpose(axes)))
    cases.append(case(lambda a, b: a * b, random(6, 1, 16), random(1, 10, 1)))
    cases.append(case(lambda a: a.reshape(10, 96) + 1.0, cube.transpose(1, 0, 2)))
    cases.append(case(lambda a: a + 1.0, random(0, 5)))
    cases.append(case(lambda a: a + 1.0, np.array(2.5, np.float32)))
    compare(*cases, shift=shift)


@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
def test_transposing_maps(wide: bool) -> None:
    """Tiles, whole and cut, of one or several arrays, read or written across."""
    x, cube = random(40, 70), random(5, 34, 37)
    kinds = [np.int8, np.float16, np.float64, bool, np.int64]
    cases = [case(copy, (x > 0.5 if t is bool else x.astype(t)).T) for t in kinds]
    cases += [case(copy, cube.transpose(axes)) for axes in ((0, 2, 1), (2, 0, 1), (2, 1, 0))]
    square = random(64, 96)
    cases += [
        case(lambda a, b: a * 2.0 + b, square.T, random(96, 64)),
        case(lambda a, b, c: [a * b - c, a + c], square.T, random(1, 64), square.T),
        case(lambda a, b: a + b, random(34, 20, 16).transpose(2, 1, 0), random(34, 20, 16).T),
        case(lambda a: dg.cat([a, a * 2.0], 1), x.T),
    ]
    compare(*cases, wide=wide)
    for program in (cases[0].program, cases[5].program, cases[8].program):
        assert "tile" in kernels_text(program)


def test_transposed_inputs_are_overwritten() -> None:
    """Through tiles if the other accesses run along rows, else along the columns themselves."""
    types = [TensorType((40, 36), float32), TensorType((40, 36), float32)]
    x, y = (input_node(k, t) for k, t in enumerate(types))
    graph = Graph((x, y), (), (), ((x * 2.0 + y, 0),))
    for second, tiles in ((random(40, 36), 2), (random(36, 40).T, 0)):
        arrays = [random(36, 40).T, second]
        one = Case(graph, tuple(map(layout_of, arrays)), [Arguments(arrays)])
        compare(one)
        assert kernels_text(one.program).count("__shared__") == tiles


# -- other kernels --------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
def test_columns_and_scans(wide: bool) -> None:
    x = random(45, 36)
    cases = [case(lambda x: [x.sum(axis=0), x.mean(axis=0), (x * x).sum(axis=0)], x)]
    cases += [
        case(lambda x: [x.max(axis=0), x.argmin(axis=0), x.prod(axis=0)], v)
        for v in (x, x[:, 1:], x.T, x.astype(np.float64), x.astype(np.int8), x.astype(np.float16))
    ]
    cases.append(case(lambda x: x.sum(axis=1), random(5, 7, 9)))
    cases.append(case(lambda x: x.sum(axis=0), random(9000, 3)))  # in blocks of rows
    cases.append(case(lambda x: [x.cumsum(0), x.cumsum(1), dg.cummax(x, 1)[0]], x))
    cases.append(case(lambda x: [dg.cummax(x, 0)[1], dg.logcumsumexp(x, 1)], x))
    compare(*cases, wide=wide)


@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
def test_gathers_and_updates(wide: bool) -> None:
    x, i = random(20, 12), np.random.default_rng(0).integers(0, 20, 50)
    j = np.random.default_rng(0).integers(-20, 20, (30, 12))
    compare(
        case(lambda x, i: dg.index_select(x, 0, i) * 2.0, x, i),
        case(lambda x, i: dg.take(x, i, axis=0), x.T.copy().T, i),
        case(lambda x, j: dg.gather(x, 0, j), x, j % 20),
        case(lambda x, i, v: dg.index_add(x, 0, i, v), x, i, random(50, 12)),
        case(lambda x, i, v: dg.index_add(x, 1, i, v), random(12, 20), i, random(12, 50)),
        case(lambda x, j, v: dg.scatter_add(x, 0, j, v), x, j % 20, random(30, 12)),
        case(lambda x, i: dg.index_fill(x, 0, i, 1.5), x, i),
        case(lambda x: [dg.roll(x, 3, 1), dg.flip(x, (0,)), dg.cat([x, x * 2.0], 1)], x),
        case(
            lambda x: [dg.triu(x), dg.diagonal(x), slices(x, (slice(2, 9), slice(1, None, 2)))], x
        ),
        case(lambda x: dg.one_hot(x, 20), i),
        wide=wide,
    )


def test_any_number_of_updates() -> None:
    """Threads look at several updates at a time; the last may be fewer."""
    n = sym("n")
    shapes: tuple[tuple[Any, ...], ...] = ((20, 12), (n,), (n, 12))
    kinds = (float32, int64, float32)
    types = (TensorType(s, t) for s, t in zip(shapes, kinds, strict=True))
    nodes = tuple(input_node(k, t) for k, t in enumerate(types))
    runs = []
    for count in (50, 2, 7, 8, 9, 64):
        where = np.random.default_rng(count).integers(0, 20, count)
        values = {symbol_of(n): count}
        runs.append(Arguments([random(20, 12), where, random(count, 12)], values))
    with shape_env(ShapeEnv(dict(runs[0].values))):
        result = dg.index_add(nodes[0], 0, *nodes[1:])
    one = Case(Graph(nodes, (), (result,)), (None,) * 3, runs)
    assert "taken" in kernels_text(one.program)
    compare(one)


@pytest.mark.parametrize("shift", [0, 1])
def test_gathers_of_neighbours(shift: int) -> None:
    """Rows from computed places, in vectors where their addresses allow it."""
    i = np.random.default_rng(0).integers(-20, 20, 50)
    x = random(20, 33)
    tables = [x[:, :32].copy(), x[:, :32], x[:, 1:17], x[:, :24].astype(np.float16), x > 0.5]
    tables += [np.asfortranarray(x[:, :16]), x[:, :16].astype(np.float64), x[:, :17].copy()]
    cases = [case(lambda x, i: dg.index_select(x, 0, i), t, i) for t in tables]
    y = random(50, 32)
    cases.append(case(lambda x, i, y: dg.tanh(dg.index_select(x, 0, i)) + y, tables[0], i, y))
    bad = i.copy()
    bad[31] = 20
    cases.append(case(lambda x, i, y: dg.index_select(x, 0, i) + y, tables[0], bad, y))
    compare(*cases, shift=shift)
    assert "dg_read<4>" in kernels_text(cases[0].program)
    assert "dg_read<8>" in kernels_text(cases[3].program)


def test_checks_that_fail() -> None:
    """The error is the CPU's; of several the least."""
    x, i = random(20, 12), np.random.default_rng(0).integers(0, 20, 50)
    for bad in (20, 2**40, -21, -(2**45)):
        where = i.copy()
        where[37] = bad
        compare(
            case(lambda x, i: dg.index_select(x, 0, i) * 2.0, x, where),
            case(lambda x, i, v: dg.index_add(x, 0, i, v), x, where, random(50, 12)),
            case(lambda x, i: dg.index_select(x, 0, i).sum(axis=0) + 1.0, x, where),
        )


def test_random_numbers() -> None:
    seed, position = np.array(2**63 + 5, np.uint64), np.array(2**40 + 3, np.uint64)
    shape = (7, 13)
    compare(
        case(lambda s, p: rnd.RandomBits.of(shape, uint64).on(s, p), seed, position),
        case(lambda s, p: rnd.RandomUniform.of(shape, float32).on(s, p), seed, position),
        case(lambda s, p: rnd.RandomNormal.of(shape, float64).on(s, p), seed, position),
        case(lambda x, s, p: rnd.dropout(x, s, p, 0.25), random(5, 16), seed, position),
    )


def test_inputs_are_overwritten() -> None:
    x = input_node(0, TensorType((12, 16), float32))
    y = input_node(1, TensorType((16,), float32))
    graph = Graph((x, y), (), (x.sum(axis=0),), ((x * 2.0 + y, 0), (y + 1.0, 1)))
    arrays = [random(12, 16), random(16)]
    one = Case(graph, (None, None), [Arguments(arrays)])
    strided = random(24, 16)[::2]
    other = Case(graph, (layout_of(strided), None), [Arguments([strided, random(16)])])
    compare(one, other)


def test_kernels_of_one_text_are_one_function() -> None:
    """Here with other buffers, other places in them, and other alignments."""

    def pieces(x: Node) -> list[Node]:
        parts = [slices(x, (slice(k, k + 24),)) for k in (0, 24, 49, 101)]
        return [copy(p) * 2.0 for p in parts]

    one = case(pieces, random(130))
    launches = [s for s in functions_of(one.program, Formulas())[1] if isinstance(s, KernelLaunch)]
    assert len(launches) == 4
    assert len({s.function for s in launches}) == 1
    assert len({s.buffers for s in launches}) == 4
    compare(one)


# -- resources ------------------------------------------------------------------------------------


def deep(steps: int) -> Case:
    """A chain of operations, a number in every one."""

    def function(x: Node, y: Node) -> Node:
        for k in range(steps):
            x = x * y + float(k) if k % 3 else dg.maximum(x, y) - x
        return x

    return case(function, random(64, 64), random(64, 64))


def many(count: int, dtype: Any) -> Case:
    """All operands are needed until the end."""

    def function(*xs: Node) -> Node:
        total = xs[0]
        for x in (*xs, *xs):
            total = total * x + x
        return total

    return case(function, *(random(64, 64, dtype=dtype) for _ in range(count)))


def test_deep_kernels_keep_their_values_in_registers() -> None:
    """Up to the longest that fusion makes."""
    compiler = nvrtc_or_skip()
    cases = [deep(60), deep(200), *(many(n, t) for n in (12, 30, 60, 100) for t in (float, "f4"))]
    cases.append(case(lambda x: dg.sin(dg.lgamma(dg.tanh(x))), random(64, dtype=float)))
    text = text_of(c.program for c in cases)
    for arch in ("sm_75", "sm_80", "sm_90"):
        usage = compiler.compile(text, arch).usage()
        assert len(usage) >= len(cases)
        assert not any(u.stack or u.spill_stores or u.spill_loads for u in usage.values())
