"""Matrix products on the shim: the bits of the CPU, whatever the tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from support import Array

import dualgrad as dg
from dualgrad import functional
from dualgrad.compiler import pipeline
from dualgrad.compiler.ir.dims import Dim, sym, symbol_of
from dualgrad.compiler.ir.node import Graph, Node, input_node
from dualgrad.compiler.ir.types import Layouts, TensorType
from dualgrad.compiler.kernel.ir import Contract
from dualgrad.compiler.lower.cuda import contract
from dualgrad.compiler.lower.cuda.contract import Tile, tiles_of
from dualgrad.compiler.lower.cuda.module import module_of
from dualgrad.compiler.ops.slicing import slices
from dualgrad.runtime.dtype import as_dtype, float16, float32, float64, int64
from gpu import graphs, shim
from gpu.compiling import nvrtc_or_skip
from gpu.running import Arguments, Case, case, compare
from gpu.test_build import gradient_of

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

M, N, K = sym("m"), sym("n"), sym("k")
ALL, EVEN = slice(None), slice(None, None, 2)
TILES = tiles_of(float32)
LAYOUTS = ("nn", "nt", "tn", "tt")


@pytest.fixture(params=range(len(TILES)), ids=[f"{t.m}x{t.n}" for t in TILES])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tile:
    """Every kernel uses this tile, or one of those that its dtype has."""

    def chosen(c: Any) -> Tile:
        tiles = tiles_of(c.result.dtype)
        return tiles[max(0, request.param + len(tiles) - len(TILES))]

    monkeypatch.setattr(contract, "tile_for", chosen)
    return TILES[request.param]


def numbers(*shape: int, dtype: str = "float32", seed: int = 3) -> Array:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-1000, 1000, shape).astype(dtype)


def matrices(
    m: int, n: int, k: int, layout: str = "nn", dtype: str = "float32"
) -> tuple[Array, Array]:
    """Operands of a product; "t" is one that lies in memory by columns."""
    a = numbers(m, k, dtype=dtype) if layout[0] == "n" else numbers(k, m, dtype=dtype).T
    b = numbers(k, n, dtype=dtype) if layout[1] == "n" else numbers(n, k, dtype=dtype).T
    return a, b


def part(x: Node, *parts: slice | int) -> Node:
    """A view of a part, without the axes of which one element is taken."""
    out = slices(x, [p if isinstance(p, slice) else slice(p, p + 1) for p in parts])
    shape = [n for k, n in enumerate(out.shape) if k >= len(parts) or isinstance(parts[k], slice)]
    return out.reshape(shape)


def unknown(layout: str, dtype: str, sizes: Iterable[tuple[int, int, int]]) -> Case:
    """A product of matrices of unknown sizes, to be run at these."""
    shapes: tuple[tuple[Dim, ...], ...] = ((M, K), (K, N))
    nodes = tuple(input_node(k, TensorType(s, as_dtype(dtype))) for k, s in enumerate(shapes))
    layouts: Layouts = tuple(
        None if x == "n" else (1, s[0]) for x, s in zip(layout, shapes, strict=True)
    )
    runs = [
        Arguments(
            list(matrices(m, n, k, layout, dtype)),
            {symbol_of(x): size for x, size in zip((M, N, K), (m, n, k), strict=True)},
        )
        for m, n, k in sizes
    ]
    return Case(Graph(nodes, (), (dg.matmul(*nodes),)), layouts, runs)


def edges(t: Tile) -> list[tuple[int, int, int]]:
    """Sizes around those of a tile, and of blocks of K."""
    return [
        (2, 3, 4),
        (t.m, t.n, 2 * t.depth),
        (t.m - 1, t.n + 1, t.depth + 1),
        (t.m + 4, t.n - 4, t.depth - 1),
        (2 * t.m + 1, 5, 3 * t.depth),
        (7, 2 * t.n + 3, 2 * t.depth + 4),
        (9, 10, 511),
        (12, 8, 512),
        (8, 12, 513),
        (4, 4, 520),
        (5, 9, 1024),
        (12, 4, 1025),
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unknown_sizes(tile: Tile, layout: str) -> None:
    compare(unknown(layout, "float32", edges(tile)))
    misaligned = [(tile.m + 1, 8, tile.depth), (8, 12, 519)]
    compare(unknown(layout, "float32", misaligned), shift=1, seed=1)


@pytest.mark.parametrize("layout", ["nn", "tt"])
def test_known_sizes(tile: Tile, layout: str) -> None:
    sizes = [(tile.m + 4, tile.n + 8, 24), (tile.m, tile.n, 40), (33, 6, 7), (8, 12, 1032)]
    compare(*(case(dg.matmul, *matrices(*s, layout)) for s in sizes))


def test_empty_sums(tile: Tile) -> None:
    sizes = [(5, 7, 0), (5, 7, 1), (0, 4, 3), (4, 0, 3)]
    compare(*(case(lambda x, y: dg.matmul(x, y) + 1.0, *matrices(*s)) for s in sizes))
    compare(*(case(dg.matmul, *matrices(*s)) for s in sizes))


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "uint32"])
def test_dtypes(tile: Tile, dtype: str) -> None:
    for layout in ("nn", "tt"):
        sizes = [(tile.m + 1, 6, 37), (6, tile.n + 1, 2 * tile.depth), (5, 8, 515), (4, 6, 512)]
        compare(unknown(layout, dtype, sizes))


def test_integers_wrap() -> None:
    a, b = (np.full(s, 2**40 + 12345, np.int64) for s in ((9, 600), (600, 11)))
    compare(case(dg.matmul, a, b))


def test_batches(tile: Tile) -> None:
    a, b = numbers(3, 20, 36), numbers(3, 36, 24)
    wide = numbers(3, 24, 20).transpose(0, 2, 1)
    cases = [
        case(dg.matmul, a, b),
        case(lambda x, y: part(x, 1) @ y, a, b),
        case(lambda x, y: x @ part(y, 2), a, b),
        case(lambda x, y: x @ y.transpose(1, 2), wide, numbers(3, 17, 24)),
        case(lambda x, y: x.reshape((3, 1, 20, 36)) @ y.reshape((1, 3, 36, 24)), a, b),
    ]
    compare(*cases)


def test_views(tile: Tile) -> None:
    a, b = numbers(2, 41, 81), numbers(90, 64)
    cases = [
        case(lambda x, y: part(x, 0, slice(40), slice(1, 81)) @ part(y, slice(3, 83)), a, b),
        case(
            lambda x, y: part(x, 1, EVEN, EVEN) @ part(y, slice(1, 83, 2), slice(None, None, 3)),
            a,
            b,
        ),
        case(lambda x, y: part(x, 1, ALL, slice(75, 3, -1)) @ part(y, slice(79, 7, -1)), a, b),
        case(lambda x, y: x.expand((37, 64)) @ y.expand((64, 5)), numbers(1, 64), numbers(64, 1)),
        case(lambda x: x @ x.transpose(0, 1), numbers(33, 40)),
    ]
    compare(*cases)
    compare(*cases, shift=1)


def test_epilogues(tile: Tile) -> None:
    a, b = matrices(tile.m + 2, 70, 36)
    bias, residual = numbers(70), numbers(tile.m + 2, 70, seed=4)

    def dense(x: Any, y: Any, z: Any, r: Any) -> Any:
        return dg.tanh(x @ y + z) + r * 2.0

    def several(x: Any, y: Any, z: Any, r: Any) -> Any:
        total = x @ y
        return total, dg.exp(total * 0.1), (total + r).transpose(0, 1) * 1.0, total > z

    cases = [
        case(dense, a, b, bias, residual),
        case(several, a, b, bias, residual),
        case(lambda x, y, z, r: (x @ y + part(r, ALL, slice(1))).to(float16), a, b, bias, residual),
        case(lambda x, y, z, r: dg.relu(x @ y + part(z, 0)), a, b, bias, residual),
    ]
    compare(*cases)


def test_epilogue_after_blocks(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "sums_apart", lambda _: False)
    a, b = matrices(10, 70, 1100)
    bias = numbers(70)
    one = case(lambda x, y, z: (x @ y, dg.relu(x @ y + z)), a, b, bias)
    assert [k.kind for k in one.program.kernels] == ["contract"]
    compare(one, case(dg.matmul, *matrices(8, 12, 1032, "tt")))


def test_wide_indices() -> None:
    cases = [case(lambda x, y: x @ y + 1.0, *matrices(70, 40, 515, x)) for x in LAYOUTS]
    compare(*cases, wide=True)


@pytest.mark.parametrize("layout", ["nt", "tn"])
def test_zeros_and_infinities(tile: Tile, layout: str) -> None:
    """Sums that round to -0.0 keep their sign; infinities beside an edge do not spread."""
    m, n, k = tile.m + 3, tile.n + 3, tile.depth + 3
    a, b = matrices(m, n, k, layout)
    a[1] = -1e-30
    b[:, 2] = 1e-30
    a[m - 1] = np.inf
    a[m - 2, k - 1] = np.nan
    b[k - 1, n - 1] = -np.inf
    compare(case(dg.matmul, a, b))


def test_tiny_sums_stay_negative_zeros() -> None:
    a, b = np.full((4, 5), -1e-30, np.float32), np.full((5, 6), 1e-30, np.float32)
    product = case(dg.matmul, a, b)
    (out,) = product.cpu.bind({}).run([a, b], ())
    assert (np.signbit(out) & (out == 0)).all()
    compare(product)


@pytest.mark.parametrize("seed", range(4))
def test_order_of_threads(seed: int) -> None:
    compare(case(dg.matmul, *matrices(70, 75, 90)), seed=seed, blocks=1 + seed)


def test_choice_of_tiles() -> None:
    def chosen(m: Dim, n: Dim, batch: Dim = 1, dtype: Any = float32) -> tuple[int, int]:
        nodes = (
            input_node(0, TensorType((batch, m, 64), dtype)),
            input_node(1, TensorType((batch, 64, n), dtype)),
        )
        program = Case(
            Graph(nodes, (), (dg.matmul(*nodes),)), (None, None), [Arguments([])]
        ).program
        (c,) = program.kernels[0].body
        assert isinstance(c, Contract)
        t = contract.tile_for(c)
        return t.m, t.n

    assert chosen(4096, 4096) == (128, 128)
    assert chosen(1024, 1024) == (128, 64)
    assert chosen(512, 1024) == (64, 64)
    assert chosen(64, 64) == (32, 32)
    assert chosen(64, 64, batch=1000) == (64, 64)
    assert chosen(4096, 4096, dtype=float64) == (64, 64)
    assert chosen(4096, 4096, dtype=int64) == (64, 64)


def filled(graph: Graph) -> Case:
    """A graph with random inputs."""
    arrays = [numbers(*x.shape, seed=k) for k, x in enumerate(graph.inputs)]  # type: ignore[arg-type]
    return Case(graph, (None,) * len(arrays), [Arguments(arrays)])


PROGRAMS: dict[str, Callable[[], Graph]] = {
    "conv1d": lambda: gradient_of(
        lambda x, w: functional.conv1d(x, w, stride=2), dg.ones(2, 3, 19), dg.ones(4, 3, 5)
    ),
    "conv2d": lambda: gradient_of(
        lambda x, w, b: functional.conv2d(x, w, b, padding=1),
        *(dg.ones(2, 3, 9, 8), dg.ones(5, 3, 3, 3), dg.ones(5)),
    ),
    "grouped conv2d": lambda: gradient_of(
        lambda x, w: functional.conv2d(x, w, stride=2, groups=2),
        *(dg.ones(2, 4, 9, 8), dg.ones(6, 2, 3, 3)),
    ),
    "linear": lambda: gradient_of(
        lambda x, w, b: dg.relu(functional.linear(x, w, b)),
        *(dg.ones(33, 20), dg.ones(45, 20), dg.ones(45)),
    ),
    "attention": lambda: gradient_of(
        lambda q, k, v: dg.softmax(q @ k.transpose(-2, -1), -1) @ v,
        *(dg.ones(2, 3, 10, 16), dg.ones(2, 3, 12, 16), dg.ones(2, 3, 12, 8)),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    one = filled(PROGRAMS[name]())
    assert any(k.kind == "contract" for k in one.program.kernels)
    compare(one)


def test_block_sums_apart() -> None:
    """A small result of long sums: blocks side by side, their totals with the epilogue."""
    m, n, k = 12, 9, 2600
    (a, b), bias = matrices(m, n, k), numbers(9)
    batched = numbers(2, m, k), numbers(2, k, n)
    cases = [
        case(dg.matmul, a, b),
        case(lambda x, y, z: (dg.relu(x @ y + z), x @ y), a, b, bias),
        case(dg.matmul, *matrices(m, n, k, "tt")),
        case(dg.matmul, *matrices(m, n, 1030, dtype="int64")),
        case(lambda x, y: (x @ y).sum(1), *batched),
    ]
    for one in cases:
        assert [k.kind for k in one.program.kernels][:2] == ["contract", "column"]
    compare(*cases)
    graphs.compare(cases[1].graph, cases[1].layouts, 1)


def test_block_sums_apart_of_unknown_sizes() -> None:
    x, y = (input_node(k, TensorType((20, K * N), float32)) for k in range(2))
    graph = Graph((x, y), (), (x @ y.transpose(0, 1),))
    runs = [
        Arguments(
            [numbers(20, k * n), numbers(20, k * n, seed=4)], {symbol_of(K): k, symbol_of(N): n}
        )
        for k, n in ((2, 3), (100, 30), (64, 8), (27, 19))
    ]
    one = Case(graph, (None, None), runs)
    assert [k.kind for k in one.program.kernels] == ["contract", "column"]
    compare(one)


def test_tiny_block_sums_stay_negative_zeros() -> None:
    a, b = np.full((4, 1100), -1e-30, np.float32), np.full((1100, 6), 1e-30, np.float32)
    a[:, 550:] = 0.0
    compare(case(dg.matmul, a, b))
    compare(case(dg.matmul, a[:, :550], b[:550]), case(dg.matmul, -a, b))


# -- machine code, without a GPU ------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nn", "tt"])
def test_resources(tile: Tile, layout: str) -> None:
    """Registers for two blocks of a processor, none of them spilt; the multiplication reads
    shared memory by as many bytes as there are."""
    compiler = nvrtc_or_skip()
    for dtype, bits in (("float32", 32), ("float64", 64)):
        one = unknown(layout, dtype, [(2, 3, 4)])
        image = compiler.compile(module_of(one.program).text, "sm_80")
        (usage,) = image.usage().values()
        assert usage.spill_stores == usage.spill_loads == usage.stack == 0
        assert usage.registers <= 128
        assert usage.shared <= 48 << 10
        if tile.height > 2:
            assert f"ld.shared.v{128 // bits}.f{bits}" in image.ptx
