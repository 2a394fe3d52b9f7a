"""Graphs as programs for both kinds of device, run by the interpreter of the loop IR."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from support import Array, same_bits

from dualgrad.compiler.ir.dims import Atom, Dim, evaluate
from dualgrad.compiler.ir.node import Graph
from dualgrad.compiler.ir.types import Layouts
from dualgrad.compiler.kernel.ir import Buffer, Contract, Device
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.lower.reference import run
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.dtype import DType, bool_
from dualgrad.runtime.floats import encode
from dualgrad.runtime.library import FUNCTIONS
from dualgrad.runtime.program import decode_error

SIZE = 6  # of every symbol


@dataclass(frozen=True)
class Outcome:
    """What a program has left in memory, or the number of the check that stopped it."""

    error: int | None
    memory: dict[str, Array]


def turned(graph: Graph, seed: int) -> Layouts:
    """Strides of the inputs: some row-major, some with the axes in another order, some with
    gaps."""
    rng = np.random.default_rng(seed)
    return tuple(None if rng.random() < 0.5 else _strides(x.shape, rng) for x in graph.inputs)


def _strides(shape: tuple[Dim, ...], rng: np.random.Generator) -> tuple[Dim, ...]:
    step: Dim = int(rng.choice([1, 1, 2]))
    out: list[Dim] = [0] * len(shape)
    for axis in rng.permutation(len(shape)):
        out[axis] = step
        step = step * shape[axis]
    return tuple(out)


def sizes_of(program: LoopProgram) -> dict[Atom, int]:
    return dict.fromkeys(program.symbols, SIZE)


def numbers(dtype: DType, count: int, rng: np.random.Generator) -> Array:
    """Moderate numbers, ties and both zeros among them; integers are small."""
    if dtype is bool_:
        return rng.integers(0, 2, count).astype(bool)
    if not dtype.is_float:
        return rng.integers(0, 3, count).astype(dtype.numpy)
    out = rng.uniform(-2, 2, count)
    out[::3] = np.round(2 * out[::3]) / 2
    return encode(out, dtype)


def memory_of(program: LoopProgram, seed: int) -> dict[str, Array]:
    """Inputs of random numbers, and whatever elsewhere."""
    rng, sizes = np.random.default_rng(seed), sizes_of(program)
    rest: Iterable[Buffer] = program.buffers[len(program.inputs) :]
    out = {b.name: numbers(b.dtype, evaluate(b.size, sizes), rng) for b in program.inputs}
    return out | {b.name: np.ones(evaluate(b.size, sizes), b.dtype.numpy) for b in rest}


def scalars_of(program: LoopProgram) -> dict[str, Any]:
    number = {"f": 0.375, "i": 2, "b": True}
    return {f"s{k}": number[d.kind] for k, d in enumerate(program.scalars)}


def interpreted(program: LoopProgram, seed: int) -> Outcome:
    memory = memory_of(program, seed)
    word = run(
        program.kernels,
        memory,
        scalars_of(program),
        sizes_of(program),
        seed,
        FUNCTIONS,
        program.device,
    )
    kept = {b.name: memory[b.name] for b in (*program.inputs, *program.outputs)}
    return Outcome(decode_error(word)[0] if word else None, kept)


def lowered(graph: Graph, layouts: Layouts, device: Device) -> LoopProgram:
    return lower(graph, layouts, "graph", 1, device)


def kinds(program: LoopProgram) -> list[str]:
    """What the kernels are; block sums that stay apart, and their totals, are one."""
    totals = {
        k + 1
        for k, kernel in enumerate(program.kernels)
        if any(isinstance(s, Contract) and s.parts is not None for s in kernel.body)
    }
    return [kernel.kind for k, kernel in enumerate(program.kernels) if k not in totals]


def has_walks(program: LoopProgram) -> bool:
    """Whether operands of products are read where no strides lead."""
    products = [s for kernel in program.kernels for s in kernel.body if isinstance(s, Contract)]
    return any(operand.walks for c in products for operand in (c.a, c.b))


def compare(graph: Graph, layouts: Layouts, seed: int) -> None:
    """The programs for both kinds of device leave the same bits behind."""
    cpu, cuda = (lowered(graph, layouts, device) for device in ("cpu", "cuda"))
    there, here = kinds(cuda), kinds(cpu)
    if has_walks(cpu):  # which are copied first there
        there, here = ([kind for kind in found if kind != "map"] for found in (there, here))
    assert there == here
    assert cuda.checks == cpu.checks
    assert cuda.checks_late == cpu.checks_late
    want, got = (interpreted(program, seed) for program in (cpu, cuda))
    assert got.error == want.error, cuda.text
    if want.error is None:
        for name, array in want.memory.items():
            same_bits(got.memory[name], array, f"{name} of\n{cuda.text}")
