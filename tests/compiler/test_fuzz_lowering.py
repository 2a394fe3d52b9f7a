"""Random kernels: code compiled for one of several instruction sets and the reference interpreter
must give the same bits.

NaNs are equal whatever their payload.  A failure prints the seed; `generate(seed)` gives the case.
"""

from __future__ import annotations

import struct
from random import Random

import numpy as np
import pytest
from loopgen import Case, generate
from machine import targets

from dualgrad.compiler.kernel.printer import render
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.scalar import PARAM_DTYPES
from dualgrad.compiler.kernel.verify import verify
from dualgrad.compiler.lower.llvm.module import module_of
from dualgrad.compiler.lower.llvm.target import object_code
from dualgrad.compiler.lower.reference import run
from dualgrad.runtime.cpu import handles, load
from dualgrad.runtime.floats import decode
from dualgrad.runtime.program import ENTRY, Program, Target, decode_error

QUICK, BATCH, BATCHES = 20, 100, 30
PADDING = 64


def program_of(case: Case) -> LoopProgram:
    kinds = {type(v): t for v, t in zip((0.5, 1, True), PARAM_DTYPES, strict=True)}
    return LoopProgram(
        name="fuzz",
        inputs=case.inputs,
        outputs=case.outputs,
        output_types=(),
        temporaries=(),
        symbols=tuple(case.sizes),
        scalars=tuple(kinds[type(v)] for v in case.params.values()),
        kernels=(case.kernel,),
        checks=(),
        threads=1,
    )


def compiled(case: Case, arrays: dict[str, np.ndarray], checked: bool, target: Target) -> int:
    """Run the case's machine code for a processor on `arrays`; the error word."""
    program = program_of(case)
    module = module_of(program, target, checked)
    built = Program(ENTRY, object_code(module.text, target), (), ())
    memory = [arrays[b.name] for b in (*program.inputs, *program.outputs)]
    numbers = [struct.pack("d" if isinstance(v, float) else "q", v) for v in case.params.values()]
    sizes = [struct.pack("q", v) for v in case.sizes.values()]
    return load(built, {})(handles(memory), b"".join([bytes(8), *sizes, *numbers]))


def padded(x: np.ndarray) -> np.ndarray:
    """x between elements that nothing may write to."""
    ones = np.ones(PADDING, x.dtype)
    return np.concatenate([ones, x, ones])


def assert_same_bits(got: np.ndarray, want: np.ndarray, what: str) -> None:
    if got.dtype.kind == "f":
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=what)
        got, want = (np.where(np.isnan(x), x.dtype.type(0), x) for x in (got, want))
    np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8), err_msg=what)


def compare(seed: int, checked: bool) -> None:
    case = generate(seed)
    verify(case.kernel)
    want = {name: x.copy() for name, x in case.arrays.items()}
    word = run([case.kernel], want, case.params, case.sizes, seed)
    room = {name: padded(x) for name, x in case.arrays.items()}
    got = {name: x[PADDING:-PADDING] for name, x in room.items()}
    kind = Random(seed).choice([*targets()])
    found = compiled(case, got, checked, targets()[kind])
    what = f"seed {seed} on {kind}\n{render(case.kernel)}"
    for x in room.values():
        assert (x[:PADDING] == 1).all(), what
        assert (x[-PADDING:] == 1).all(), what
    assert (found == 0) == (word == 0), what
    if word:
        assert decode_error(found)[0] == decode_error(word)[0], what
        return
    for buffer in (*case.inputs, *case.outputs):
        pair = (decode(x[buffer.name], buffer.dtype) for x in (got, want))
        assert_same_bits(*pair, f"{buffer.name}: {what}")


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "checked"])
def test_random_kernels(checked: bool) -> None:
    for seed in range(QUICK):
        compare(seed + checked * QUICK, checked)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_many_random_kernels(batch: int) -> None:
    for seed in range(1000 + batch * BATCH, 1000 + (batch + 1) * BATCH):
        compare(seed, checked=seed % 2 == 0)
