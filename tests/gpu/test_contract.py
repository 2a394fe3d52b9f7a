"""Matrix products on the shim: the bits of the CPU, whatever the tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import Array

import dualgrad as dg
from dualgrad.compiler.ir.node import Graph, Node, input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.lower.cuda import contract
from dualgrad.compiler.lower.cuda.contract import Tile, tiles_of
from dualgrad.runtime.dtype import as_dtype, float32
from gpu import shim
from gpu.running import Case, compare

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

LARGE, MEDIUM, SMALL = tiles_of(float32)
TILES = {"large": 0, "medium": 1, "small": 2}


@pytest.fixture(params=TILES)
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tile:
    """Every kernel uses this tile, or the one nearest to it that its dtype has."""
    number = TILES[request.param]

    def chosen(c: Any) -> Tile:
        tiles = tiles_of(c.result.dtype)
        return tiles[max(0, number - 3 + len(tiles))]

    monkeypatch.setattr(contract, "tile_for", chosen)
    return tiles_of(float32)[number]


def case(function: Any, *arrays: Array) -> Case:
    """A function of tensors that are known to be of these shapes."""
    nodes = tuple(
        input_node(k, TensorType(x.shape, as_dtype(x.dtype.name))) for k, x in enumerate(arrays)
    )
    result = function(*nodes)
    outputs = (result,) if isinstance(result, Node) else tuple(result)
    steps = tuple(tuple(s // x.itemsize for s in x.strides) for x in arrays)
    layouts = tuple(None if x.flags.c_contiguous else s for x, s in zip(arrays, steps, strict=True))
    return Case(Graph(nodes, (), outputs), list(arrays), layouts=layouts)


def numbers(*shape: int, dtype: str = "float32", seed: int = 3) -> Array:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-1000, 1000, shape).astype(dtype)


def matrices(
    m: int, n: int, k: int, layout: str = "nn", dtype: str = "float32"
) -> tuple[Array, ...]:
    """Operands of a product; "t" is one that lies in memory by columns."""
    a = numbers(m, k, dtype=dtype) if layout[0] == "n" else numbers(k, m, dtype=dtype).T
    b = numbers(k, n, dtype=dtype) if layout[1] == "n" else numbers(n, k, dtype=dtype).T
    return a, b


def test_first(tile: Tile) -> None:
    compare([case(dg.matmul, *matrices(tile.m + 3, tile.n + 5, 37))])
