"""Products with powers of two have the same bits with and without an instruction for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from machine import How, agree, targets

import dualgrad as dg
from dualgrad.compiler.build.formats import FORMATS
from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.node import Graph, input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.scalar import reg
from dualgrad.compiler.lower.llvm.module import module_of
from dualgrad.compiler.lower.llvm.scaling import scaled
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.dtype import DType, float32, float64, int32

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": dg.exp,
    "exp2": dg.exp2,
    "expm1": dg.expm1,
    "pow": lambda x: dg.pow(1.0 - x * 0.001, x),
}
COUNT = 5003  # not a multiple of a vector's lanes


def program_of(f: Callable[[Any], Any], dtype: DType) -> Any:
    x = input_node(0, TensorType((COUNT,), dtype))
    return lower(Graph((x,), (), (f(x),)), (None,), "scaled", 1)


def numbers(dtype: DType) -> Any:
    """Beyond both ends of the range of results, the ends themselves, and what is no number."""
    low, high = (-110.0, 95.0) if dtype is float32 else (-760.0, 720.0)
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 88.72283, -87.33654, -103.97208, 709.78, -745.13]
    inside = np.linspace(low, high, COUNT - len(ends))
    return np.concatenate([ends, inside]).astype(dtype.numpy)


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scaling_has_the_same_bits_on_every_target(name: str, dtype: DType) -> None:
    program = program_of(FUNCTIONS[name], dtype)
    agree(program, {"i0": numbers(dtype)}, {}, [], [How(target) for target in targets()], name)


def test_the_instruction_is_used_where_there_is_one() -> None:
    program = program_of(dg.exp, float32)
    for target in targets().values():
        text = module_of(program, target, False).text
        assert ("avx512.mask.scalef.ps" in text) == ("+avx512f" in target.features.split(","))


def test_bits_that_do_not_come_from_a_rounded_number_are_left_alone() -> None:
    x = reg("x", float32)
    scaled_bits = Math().scale(x, Math().bitcast(x, int32), FORMATS[float32])
    assert scaled(scaled_bits) is None
    rounded = x + 1.5 * 2.0**23
    assert scaled(Math().scale(x, Math().bitcast(rounded, int32), FORMATS[float32])) is not None
