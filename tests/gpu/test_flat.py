"""Flat kernels on the shim: the bits of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import Array

import dualgrad as dg
from dualgrad.compiler.ir.node import Graph, Node, input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.runtime.dtype import as_dtype
from gpu import shim
from gpu.running import Case, compare

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))


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


def floats(*shape: int) -> Array:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def test_first() -> None:
    compare([case(lambda x, y: dg.tanh(x * 2.0 + y) - x, floats(30, 32), floats(32))])
