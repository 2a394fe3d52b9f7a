"""CUDA devices: programs become CUDA C++, are compiled for the device, and run on its arrays.

Everything is queued on the driver's one stream, in the order of the calls.  Memory that dies here
while work on it is waiting is handed out again to later work only, so nothing needs to wait: but
programs with checks do, for their error word, and functions of the host, for their operands.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.backends.common import (
    Times,
    line_of,
    raise_failed_check,
    scalar_packer,
    too_large,
    versions,
)
from dualgrad.compiler.ir.dims import Atom, evaluate
from dualgrad.compiler.launch import Launch, plan_arena, size_of
from dualgrad.compiler.lower.cuda.launch import (
    HostBlock,
    HostLaunch,
    KernelLaunch,
    Step,
    plain_step,
    read_step,
)
from dualgrad.runtime import cuda, library
from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.config import config
from dualgrad.runtime.device_array import DeviceArray, download, upload
from dualgrad.runtime.devices import device_index
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.profile import counters
from dualgrad.runtime.program import decode_error
from dualgrad.runtime.records import dataclass, field

if TYPE_CHECKING:
    from dualgrad.compiler.kernel.ir import Device
    from dualgrad.compiler.kernel.program import LoopProgram
    from dualgrad.compiler.lower.cuda import module as codegen
    from dualgrad.runtime.driver import Driver
else:
    codegen = LazyModule("dualgrad.compiler.lower.cuda.module")

_NO_ERROR = 2**64 - 1
_THREADS = 2048  # that a multiprocessor holds
_TURNS = 8  # blocks beyond what the device holds at once, so that it can balance them
# elements that indices of 32 bits reach; a thread may step beyond them by the size of the grid
INDEX_LIMIT = 2**31 - 2**24


class CudaBackend:
    """See `Backend`."""

    kind: Device = "cuda"

    def __init__(self, device: str) -> None:
        self.device, self.number = device, device_index(device)
        self.driver = cuda.driver(self.number)

    @property
    def name(self) -> str:
        return f"{self.device} {id(self.driver)}"  # code holds its driver, so ids are not reused

    @property
    def place(self) -> str:
        return f"cuda {self.driver.target} {config.check} {versions()}"

    def load(
        self, key: str, launch: Launch, times: Times, program: LoopProgram | None, wide: bool
    ) -> CudaCode | None:
        key = f"{key} wide {wide} {self.place}"
        started = time.perf_counter()
        entry = default_cache().get(key)
        if entry is not None:
            plain = json.loads(entry)
            text, steps = plain["text"], tuple(map(read_step, plain["steps"]))
            times.cached = True
        elif program is not None:
            module = codegen.module_of(program, wide)
            text, steps = module.text, _numbered(module.steps, program)
            plain = {"text": text, "steps": [plain_step(s) for s in steps]}
            default_cache().put(key, json.dumps(plain).encode())
        else:
            return None
        kernels = any(isinstance(s, KernelLaunch) for s in steps)
        image = cuda.image_of(text, self.number) if kernels else b""
        times.codegen = time.perf_counter() - started
        started = time.perf_counter()
        code = CudaCode(self.driver, self.number, image, steps, wide)
        times.load = time.perf_counter() - started
        return code


def _numbered(steps: Sequence[Step], program: LoopProgram) -> tuple[Step, ...]:
    """Steps that name temporaries by their place among the spaces of a launch."""
    names = {t.buffer.name: f"t{k}" for k, t in enumerate(program.temporaries)}

    def renamed(b: HostBlock) -> HostBlock:
        return replace(b, buffer=names.get(b.buffer, b.buffer))

    def numbered(step: Step) -> Step:
        if isinstance(step, HostLaunch):
            inputs = tuple(map(renamed, step.inputs))
            return replace(step, inputs=inputs, output=renamed(step.output))
        buffers = tuple((names.get(name, name), further) for name, further in step.buffers)
        return replace(step, buffers=buffers)

    return tuple(map(numbered, steps))


@dataclass(eq=False)
class CudaCode:
    """Kernels in the memory of a device, and the steps that launch them."""

    driver: Driver
    number: int
    image: bytes
    steps: tuple[Step, ...]
    wide: bool
    functions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {s.function for s in self.steps if isinstance(s, KernelLaunch)}
        if names:
            module = self.driver.load(self.image)
            self.functions = {n: self.driver.function(module, n) for n in sorted(names)}

    def bind(self, launch: Launch, lines: bool, values: dict[Atom, int]) -> CudaBound:
        return CudaBound(self, launch, lines, values)

    def is_too_narrow(self, launch: Launch, values: dict[Atom, int]) -> bool:
        if self.wide:
            return False
        kernels = [s for s in self.steps if isinstance(s, KernelLaunch)]
        loops = [evaluate(s.reach, values) for s in kernels]
        return max([launch.reach(values), *loops, *values.values()]) >= INDEX_LIMIT


class CudaBound:
    """A program for known sizes: everything its launches need, worked out."""

    __slots__ = ("arena", "checked", "code", "lines", "outputs", "program", "scalars", "steps",
                 "values")  # fmt: skip

    def __init__(
        self, code: CudaCode, program: Launch, lines: bool, values: dict[Atom, int]
    ) -> None:
        offsets, self.arena = plan_arena(program.spaces, values)
        self.outputs = [(size_of(t.shape, values), t.dtype) for t in program.outputs]
        self.scalars = scalar_packer(program)
        self.code, self.program, self.lines, self.values = code, program, lines, values
        self.checked = bool(program.checks)
        places = _places(len(program.inputs), len(program.outputs), offsets)
        numbers = [values[a] for a in program.symbols]
        most = code.driver.info(code.number).multiprocessors
        steps: list[_Kernel | _Host] = []
        for step in code.steps:
            if isinstance(step, HostLaunch):
                steps.append(_Host(step, places, values))
            elif evaluate(step.work, values) > 0:
                steps.append(_Kernel(step, code, places, numbers, values, most))
        self.steps = steps

    def run(self, arrays: list[DeviceArray], scalars: tuple[float, ...] = ()) -> list[DeviceArray]:
        driver = self.code.driver
        outputs = [DeviceArray.empty(driver, shape, dtype.numpy) for shape, dtype in self.outputs]
        addresses = [a.address for a in arrays]
        addresses += [a.address for a in outputs]
        if self.arena:
            arena = driver.allocate(self.arena)
            addresses.append(arena.address)
        words = b""
        if scalars:
            try:
                words = self.scalars(*scalars)
            except struct.error:
                raise too_large(self.program, scalars) from None
        counters.launches += 1
        counters.kernels += len(self.steps)
        if self.checked:
            self.run_checked(driver, addresses, words)
        else:
            for step in self.steps:
                step.run(driver, addresses, words, b"")
        return outputs

    def run_checked(self, driver: Driver, addresses: list[int], words: bytes) -> None:
        """Run a program whose checks may stop it; waits for it."""
        word = driver.allocate(8)
        driver.fill(word.address, 0xFF, 8)
        error = struct.pack("=Q", word.address)
        for step in self.steps:
            if step.__class__ is _Kernel:
                step.run(driver, addresses, words, error)
                continue
            self.look(driver, word.address)
            try:
                step.run(driver, addresses, words, error)
            except BaseException as reason:  # as on the CPU, see `library.callback`
                code = step.code  # type: ignore[union-attr]
                location = line_of(self.program, code, self.lines)
                library.raise_as_failure(reason, self.program.checks[code].op, location)
        self.look(driver, word.address)

    def look(self, driver: Driver, address: int) -> None:
        """Raise what the error word says, if anything."""
        found = bytearray(8)
        driver.download(memoryview(found), address)
        (word,) = struct.unpack("=Q", found)
        if word != _NO_ERROR:
            code, value = decode_error(word - 2**64 if word >= 2**63 else word)
            raise_failed_check(self.program, code, value, self.values, self.lines)


Places = dict[str, tuple[int, int]]  # of buffers: number among the addresses, bytes further on


def _places(inputs: int, outputs: int, offsets: Sequence[int]) -> Places:
    """Inputs, outputs, then the arena, in which all temporaries lie."""
    places = {f"i{k}": (k, 0) for k in range(inputs)}
    places |= {f"o{k}": (inputs + k, 0) for k in range(outputs)}
    return places | {f"t{k}": (inputs + outputs, offset) for k, offset in enumerate(offsets)}


class _Kernel:
    """A kernel, ready to be launched."""

    __slots__ = (
        "blocks",
        "function",
        "guarded",
        "pack",
        "pointers",
        "scalars",
        "symbols",
        "threads",
    )  # fmt: skip

    def __init__(
        self,
        step: KernelLaunch,
        code: CudaCode,
        places: Places,
        numbers: list[int],
        values: dict[Atom, int],
        multiprocessors: int,
    ) -> None:
        self.function, self.threads = code.functions[step.function], step.threads
        work = -(-evaluate(step.work, values) // step.per_block)
        self.blocks = min(work, multiprocessors * max(_THREADS // step.threads, 1) * _TURNS)
        self.pointers = [
            (places[name][0], places[name][1] + further) for name, further in step.buffers
        ]
        self.pack = struct.Struct(f"={len(self.pointers)}Q").pack
        self.symbols = struct.pack(f"={len(step.symbols)}q", *(numbers[k] for k in step.symbols))
        self.scalars = [slice(8 * k, 8 * k + 8) for k in step.scalars]
        self.guarded = step.guarded

    def run(self, driver: Driver, addresses: list[int], words: bytes, error: bytes) -> None:
        args = self.pack(*[addresses[k] + further for k, further in self.pointers]) + self.symbols
        for part in self.scalars:
            args += words[part]
        if self.guarded:
            args += error
        driver.launch(self.function, self.blocks, self.threads, args)


class _Host:
    """A function of the host: its operands are brought here, its result is sent back."""

    __slots__ = ("call", "code", "inputs", "output", "sizes")

    def __init__(self, step: HostLaunch, places: Places, values: dict[Atom, int]) -> None:
        self.call, self.code = step.call, step.code
        self.sizes = size_of(step.sizes, values)
        blocks = [
            _Block.of(b, np.dtype(name), places, values)
            for b, (name, _) in zip((*step.inputs, step.output), step.call.types, strict=True)
        ]
        self.inputs, self.output = blocks[:-1], blocks[-1]

    def run(self, driver: Driver, addresses: list[int], words: bytes, error: bytes) -> None:
        operands = []
        for b in self.inputs:
            x = np.empty(b.shape, b.dtype)
            download(driver, x, addresses[b.number] + b.further)
            operands.append(x)
        b = self.output
        result = np.empty(b.shape, b.dtype)
        library.run_call(self.call, result, operands, self.sizes)
        upload(driver, addresses[b.number] + b.further, result)


@dataclass(frozen=True)
class _Block:
    """A `HostBlock` of known sizes: number among the addresses, bytes further on."""

    number: int
    further: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(
        cls, b: HostBlock, dtype: np.dtype[Any], places: Places, values: dict[Atom, int]
    ) -> _Block:
        number, further = places[b.buffer]
        further += evaluate(b.base, values) * dtype.itemsize
        return cls(number, further, size_of(b.shape, values), dtype)
