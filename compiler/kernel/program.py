"""A whole program in loop IR: kernels in order, the memory they use, what the caller passes.

    LoopProgram ::= inputs outputs temporaries  symbols scalars  kernels  checks  strips

Buffers are named i0, i1, ... (inputs), o0, ... (outputs), t0, ... (temporaries in one arena, or
private ones of a strip, which lie in a temporary).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property

from dualgrad.compiler.ir.dims import Atom, Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.ir import (
    Buffer,
    Call,
    Check,
    Device,
    Kernel,
    Store,
    walk,
)
from dualgrad.compiler.kernel.printer import common_text, render
from dualgrad.compiler.kernel.strips import Strip
from dualgrad.compiler.launch import CheckSite, Launch, Space
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.program import KernelInfo
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Temporary:
    """Memory of the arena that kernels `first`..`last` use."""

    buffer: Buffer
    first: int
    last: int


@dataclass(frozen=True)
class LoopProgram:
    """What the pipeline makes of a graph, before a target is chosen."""

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    output_types: tuple[TensorType, ...]
    temporaries: tuple[Temporary, ...]
    symbols: tuple[Atom, ...]
    scalars: tuple[DType, ...]
    kernels: tuple[Kernel, ...]
    checks: tuple[CheckSite, ...]
    threads: int  # that contractions may use; their scratch memory is sized for it
    device: Device = "cpu"
    strips: tuple[Strip, ...] = ()

    @property
    def privates(self) -> tuple[Buffer, ...]:
        """The buffers of which each thread has a part."""
        return tuple(p.buffer for strip in self.strips for p in strip.privates)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """All that kernels touch."""
        arena = (t.buffer for t in self.temporaries)
        return (*self.inputs, *self.outputs, *arena, *self.privates)

    @cached_property
    def text(self) -> str:
        """The program as text."""
        return "\n".join([*self._head, *(render(k) for k in self.kernels)]) + "\n"

    @property
    def _head(self) -> list[str]:
        """The lines of the text before the kernels."""
        on = f"threads {self.threads}" if self.device == "cpu" else f"device {self.device}"
        head = [f"program {self.name}", f"  {on}"]
        for title, buffers in (("input", self.inputs), ("output", self.outputs)):
            head += [f"  {title} {b.name}: {b.dtype.short}[{b.size}]" for b in buffers]
        head += [f"  returns {t!r}" for t in self.output_types]
        head += [
            f"  temporary {t.buffer.name}: {t.buffer.dtype.short}[{t.buffer.size}]"
            f" in {t.first}..{t.last}"
            for t in self.temporaries
        ]
        head += [f"  {strip}" for strip in self.strips]
        head += [f"  symbol {a.name}" for a in self.symbols]
        head += [f"  scalar s{k}: {d.short}" for k, d in enumerate(self.scalars)]
        return head

    @cached_property
    def common_texts(self) -> list[str]:
        """Each kernel as text that does not say which buffers it uses, and from where on."""
        return [common_text(k, self._starts(k)) for k in self.kernels]

    def _starts(self, kernel: Kernel) -> Mapping[Buffer, Dim]:
        """From where on the indices of a kernel count: functions for a GPU take pointers into
        buffers, those for a CPU are told any distance."""
        return kernel.origins if self.device == "cpu" else kernel.starts

    @cached_property
    def key(self) -> str:
        """Equal keys mean equal machine code."""
        number: dict[str, int] = {}
        launches = []
        for kernel, text in zip(self.kernels, self.common_texts, strict=True):
            places = " ".join(f"{b.name}+{start}" for b, start in self._starts(kernel).items())
            launches.append(f"{number.setdefault(text, len(number))}: {places}")
        # on a CPU the code does not know what its program is called
        head = self._head[self.device == "cpu" :]
        text = "\n".join([*head, *number, *launches])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def params(self) -> int:
        """Number of launch parameters: arena, offsets of temporaries, symbols, scalars."""
        return 1 + len(self.temporaries) + len(self.symbols) + len(self.scalars)

    @property
    def launch(self) -> Launch:
        """What running it takes."""
        return Launch(
            self.name,
            tuple(b.size for b in self.inputs),
            self.output_types,
            tuple(
                Space(t.buffer.size * t.buffer.dtype.itemsize, t.first, t.last)
                for t in self.temporaries
            ),
            self.symbols,
            self.scalars,
            tuple(KernelInfo(k.name, k.kind, k.lines) for k in self.kernels),
            self.checks,
        )

    @property
    def checks_late(self) -> bool:
        """Whether a run-time check comes after an input has been overwritten."""
        overwritten = False
        for kernel in self.kernels:
            stmts = list(walk(kernel.body))
            if overwritten and any(isinstance(s, Check | Call) for s in stmts):
                return True
            overwritten |= any(isinstance(s, Store) and s.buffer.name[0] == "i" for s in stmts)
        return False
