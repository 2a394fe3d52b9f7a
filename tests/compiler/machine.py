"""Loop programs run twice, by the interpreter and as machine code for any CPU that the host can
stand for, in memory that shows what should not be touched.

    agree(program, inputs, values, numbers, [How(...), ...])
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from unittest import mock

import numpy as np
from support import Array, same_bits

import dualgrad as dg
from dualgrad.compiler.ir.dims import Atom, evaluate
from dualgrad.compiler.kernel.ir import Buffer, buffers_of
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.launch import plan_arena
from dualgrad.compiler.lower import reference
from dualgrad.compiler.lower.llvm import launches, module, stripped, together
from dualgrad.compiler.lower.llvm.cost import UNITS
from dualgrad.compiler.lower.llvm.gemm import routine_module
from dualgrad.compiler.lower.llvm.target import object_code
from dualgrad.runtime import library
from dualgrad.runtime.cpu import handles, host_target, link_library, load
from dualgrad.runtime.floats import decode
from dualgrad.runtime.linker import target_of
from dualgrad.runtime.program import ENTRY, HostCall, Program, Target, decode_error

THREADS = 5  # that programs are made for
MARGIN = 64  # elements around every buffer
POISON = 0xFF  # NaN as a float

_SSE2 = "+64bit,+cmov,+cx16,+cx8,+fxsr,+mmx,+sse,+sse2"
_SSE4 = f"{_SSE2},+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt"
_AVX = f"{_SSE4},+avx"
_AVX2 = f"{_AVX},+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
_OLDER = {"sse2": _SSE2, "sse4": _SSE4, "avx": _AVX, "avx2": _AVX2}


@functools.cache
def targets() -> dict[str, Target]:
    """The host, and processors with less: their code runs on the host too."""
    host = host_target()
    present = {"+64bit", *host.features.split(",")}
    fitting = {name: f for name, f in _OLDER.items() if present.issuperset(f.split(","))}
    older = {name: target_of(host.triple, "x86-64", f) for name, f in fitting.items()}
    return {"host": host, **older}


@dataclass(frozen=True)
class How:
    """A way to run a program.

    shift    of all buffers but temporaries, in elements from an address that fits a vector
    eager    parallel loops are cut into chunks however little there is to do
    """

    target: str = "host"
    threads: int = 1
    checked: bool = False
    shift: int = 0
    eager: bool = False

    @classmethod
    def drawn(cls, rng: Random, target: str | None = None) -> How:
        """A random way, on this target if one is given."""
        return cls(
            target or rng.choice([*targets()]),
            rng.randrange(1, THREADS + 1),
            checked=rng.random() < 0.3,
            shift=rng.randrange(16),
            eager=rng.random() < 0.7,
        )


@functools.cache
def routine(name: str, target: str) -> int:
    """The address of a routine that programs for a target call."""
    call = HostCall.parse(name)
    if call is not None:
        return library.callback(call)
    kind = targets()[target]
    return link_library(f"{name}_{target}", object_code(routine_module(name, kind), kind), (name,))[
        name
    ]


@contextmanager
def chunks_of_anything() -> Iterator[None]:
    """Code made inside cuts parallel loops into chunks wherever there are two iterations."""
    with (
        mock.patch.object(launches, "SERIAL_BELOW", UNITS),
        mock.patch.object(launches, "_GRAIN", UNITS),
        mock.patch.object(module, "SERIAL_BELOW", UNITS),
        mock.patch.object(stripped, "SERIAL_BELOW", UNITS),
        mock.patch.object(together, "SERIAL_BELOW", UNITS),
    ):
        yield


class Guarded:
    """A buffer between elements that must stay as they are, not aligned to more than itself."""

    def __init__(self, content: Array, shift: int) -> None:
        item = content.itemsize
        self.block = np.full(content.nbytes + 2 * MARGIN * item + 128, POISON - 1, np.uint8)
        start = -self.block.ctypes.data % 64 + (MARGIN + shift % MARGIN) * item
        self.array = self.block[start : start + content.nbytes].view(content.dtype)
        self.array[:] = content
        self.around = (self.block[:start], self.block[start + content.nbytes :])

    def assert_apart(self, what: object) -> None:
        assert all((x == POISON - 1).all() for x in self.around), f"written beside {what}"


def poisoned(buffer: Buffer, values: Mapping[Atom, int]) -> Array:
    size = evaluate(buffer.size, values)
    return np.full(size * buffer.dtype.itemsize, POISON, np.uint8).view(buffer.dtype.numpy)


def native(
    program: LoopProgram,
    memory: dict[str, Array],
    values: Mapping[Atom, int],
    numbers: Sequence[float],
    how: How,
) -> int:
    """Run the machine code of a program on its inputs and outputs; the error word."""
    target = targets()[how.target]
    if how.eager:
        with chunks_of_anything():
            made = module.module_of(program, target, how.checked)
    else:
        made = module.module_of(program, target, how.checked)
    externs = {name: routine(name, how.target) for name in made.externs}
    code = load(Program(ENTRY, object_code(made.text, target), made.externs, ()), externs)
    offsets, size = plan_arena(program.launch.spaces, dict(values))
    arena = Guarded(np.full(-(-size // 64) * 64, POISON, np.uint8), 0)
    rooms = {b: Guarded(memory[b.name], how.shift) for b in (*program.inputs, *program.outputs)}
    slots = [arena.array.ctypes.data, *offsets, *(values[a] for a in program.symbols)]
    words = struct.pack(f"={len(slots)}q", *slots)
    words += b"".join(struct.pack("=d" if isinstance(x, float) else "=q", x) for x in numbers)
    before = dg.get_num_threads()
    dg.set_num_threads(how.threads)
    try:
        word = code(handles([r.array for r in rooms.values()]), words)
    finally:
        dg.set_num_threads(before)
    arena.assert_apart("the arena")
    for buffer, room in rooms.items():
        room.assert_apart(buffer.name)
        memory[buffer.name] = room.array
    return word


def interpreted(
    program: LoopProgram,
    memory: dict[str, Array],
    values: Mapping[Atom, int],
    numbers: Sequence[float],
    seed: int | None = None,
) -> int:
    """Run a program by the interpreter on its inputs and outputs; the error word."""
    touched = {b.name: b for k in program.kernels for b in buffers_of(k.body)}
    inside = {name: poisoned(b, values) for name, b in touched.items() if name not in memory}
    params = {f"s{k}": x for k, x in enumerate(numbers)}
    every = memory | inside
    return reference.run(program.kernels, every, params, values, seed, library.FUNCTIONS)


def agree(
    program: LoopProgram,
    inputs: Mapping[str, Array],
    values: Mapping[Atom, int],
    numbers: Sequence[float],
    hows: Sequence[How],
    what: str = "",
) -> None:
    """The interpreter and machine code leave the same bits in memory, or stop by the same check.

    After a failed check only what the program has not come to write to is known: inputs that
    it does not write are compared.
    """

    def fresh() -> dict[str, Array]:
        given = {b.name: inputs[b.name].copy() for b in program.inputs}
        return given | {b.name: poisoned(b, values) for b in program.outputs}

    want = fresh()
    word = interpreted(program, want, values, numbers)
    for how in hows:
        got = fresh()
        where = f"{how}\n{what}\n{program.text}"
        found = native(program, got, values, numbers, how)
        if word:
            assert found, where
            assert decode_error(found)[0] == decode_error(word)[0], where
            continue
        assert found == 0, f"{decode_error(found)} {where}"
        for b in (*program.inputs, *program.outputs):
            pair = (decode(x[b.name], b.dtype) for x in (got, want))
            same_bits(*pair, f"{b.name}: {where}")
