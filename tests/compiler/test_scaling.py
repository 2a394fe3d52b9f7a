"""What formulas spell in many primitives has the same bits with and without instructions for it:
products with powers of two, the parts of logarithms, tables.  And detours give the same bits
whether other lanes take them or not."""

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
from dualgrad.compiler.lower.llvm.logarithms import part_of
from dualgrad.compiler.lower.llvm.module import module_of
from dualgrad.compiler.lower.llvm.scaling import scaled
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.dtype import DType, float32, float64, int32

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": dg.exp,
    "exp2": dg.exp2,
    "expm1": dg.expm1,
    "pow": lambda x: dg.pow(1.0 - x * 0.001, x),
    "log": dg.log,
    "log2": dg.log2,
    "log10": dg.log10,
    "erf": dg.erf,
    "tanh": dg.tanh,
    "sin": dg.sin,
    "tan": dg.tan,
}
# instructions of AVX-512, and a function that takes them
INSTRUCTIONS = {
    "mask.scalef.ps": dg.exp,
    "mask.fixupimm.ps": dg.log,
    "mask.getexp.ps": dg.log2,
    "mask.getmant.ps": dg.log10,
    "permvar.sf": dg.erf,
}
COUNT = 5003  # not a multiple of a vector's lanes


def program_of(f: Callable[[Any], Any], dtype: DType) -> Any:
    x = input_node(0, TensorType((COUNT,), dtype))
    return lower(Graph((x,), (), (f(x),)), (None,), "scaled", 1)


def numbers(dtype: DType) -> Any:
    """Beyond both ends of the range of results, the ends themselves, what is no number, and all
    sizes of numbers."""
    low, high = (-110.0, 95.0) if dtype is float32 else (-760.0, 720.0)
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 88.72283, -87.33654, -103.97208, 709.78, -745.13]
    inside = np.linspace(low, high, COUNT // 2)
    random = np.random.default_rng(5).bytes(dtype.itemsize * (COUNT - COUNT // 2 - len(ends)))
    drawn = np.frombuffer(random, dtype.numpy)
    return np.concatenate([np.array([*ends, *inside]).astype(dtype.numpy), drawn])


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scaling_has_the_same_bits_on_every_target(name: str, dtype: DType) -> None:
    program = program_of(FUNCTIONS[name], dtype)
    agree(program, {"i0": numbers(dtype)}, {}, [], [How(target) for target in targets()], name)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_instruction_is_used_where_there_is_one(name: str) -> None:
    program = program_of(INSTRUCTIONS[name], float32)
    for target in targets().values():
        text = module_of(program, target, False).text
        assert (f"avx512.{name}" in text) == ("+avx512f" in target.features.split(","))


def test_logarithms_of_small_numbers_and_next_to_where_the_mantissa_is_halved() -> None:
    ends = np.array([4 / 3, 2 / 3, 1.0, 2.0, 1.5], np.float32).view(np.int32)
    near = (ends[:, None] + np.arange(-3, 4)).ravel()
    scaled = np.concatenate([near + (k << 23) for k in range(-100, 100, 7)])
    x = np.concatenate([scaled, np.arange(1, 3000), np.arange(1, 1 << 23, 9001)]).astype(np.int32)
    x = np.resize(x.view(np.float32), COUNT)
    for function in (dg.log, dg.log2, dg.log10):
        program = program_of(function, float32)
        agree(program, {"i0": x}, {}, [], [How(target) for target in targets()])


def test_bits_that_do_not_come_from_a_rounded_number_are_left_alone() -> None:
    x = reg("x", float32)
    scaled_bits = Math().scale(x, Math().bitcast(x, int32), FORMATS[float32])
    assert scaled(scaled_bits) is None
    rounded = x + 1.5 * 2.0**23
    assert scaled(Math().scale(x, Math().bitcast(rounded, int32), FORMATS[float32])) is not None


def test_only_whole_parts_of_logarithms_are_recognised() -> None:
    x = reg("x", float32)
    log = Math().log(x)
    assert part_of(log) is not None
    assert part_of(Math().select(Math().eq(x, 0.0), -np.inf, log + 1.0)) is None
    assert part_of(x + 1.0) is None
    assert part_of(Math().select(x < 0.0, x, x + x)) is None
