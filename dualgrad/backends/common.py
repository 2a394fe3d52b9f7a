"""What the back ends share: keys of cache entries, times, the errors that programs report."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Container
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from dualgrad import compiler, runtime
from dualgrad.compiler.ir.dims import Atom, evaluate
from dualgrad.compiler.launch import Launch
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds, public_caller
from dualgrad.runtime.linker import llvm_version
from dualgrad.runtime.records import dataclass
from dualgrad.runtime.srcinfo import Location

if TYPE_CHECKING:
    from dualgrad.compiler.kernel.ir import Device
    from dualgrad.compiler.kernel.program import LoopProgram

_FORMAT = "3"  # of what a cache entry holds


class Bound(Protocol):
    """A program for known sizes, ready to run.

    arena    bytes of memory that it uses while it runs
    outputs  shapes and dtypes of the arrays that it makes
    """

    arena: int
    outputs: list[tuple[tuple[int, ...], DType]]

    def run(self, arrays: list[Any], scalars: tuple[float, ...] = ()) -> list[Any]:
        """Run on the inputs' arrays; returns new arrays of the outputs."""


class Code(Protocol):
    """A program in the memory of its device, freed with the last executable that runs it."""

    def bind(self, launch: Launch, lines: bool, values: dict[Atom, int]) -> Bound:
        """The program for these sizes; without `lines`, errors name the call at hand."""

    def is_too_narrow(self, launch: Launch, values: dict[Atom, int]) -> bool:
        """Whether its indices do not reach as far as these sizes need."""


class Backend(Protocol):
    """A device that programs are made for.

    device  canonical name
    kind    what programs are lowered for: "cpu" or "cuda"
    name    of its programs in this process
    place   what programs depend on besides their graph, as a part of keys on disk
    """

    device: str

    @property
    def kind(self) -> Device: ...

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> str: ...

    def load(
        self, key: str, launch: Launch, times: Times, program: LoopProgram | None, wide: bool
    ) -> Code | None:
        """The code of the program with this key, from the disk cache or, if there is a program to
        make it from, new; None if there is neither."""


@dataclass
class Times:
    """Seconds spent on making a program, by stage."""

    passes: float = 0.0
    codegen: float = 0.0
    load: float = 0.0
    cached: bool = False


@cache
def versions() -> str:
    """What machine code depends on besides its program and the device."""
    return f"{llvm_version()}, format {_FORMAT}, {_source_state()}"


def _source_state() -> str:
    """Changes whenever the project's files do: code made by an older compiler is not taken."""
    states: list[tuple[str, int, int]] = []
    packages = {"dualgrad/compiler": compiler, "dualgrad/runtime": runtime}
    for name, package in packages.items():
        for folder in package.__path__:
            _note_files(folder, name, states)
    # where they are installed they lie in this folder, too
    _note_files(os.path.dirname(os.path.dirname(__file__)), "dualgrad", states, packages)
    return hash_of(repr(sorted(states)))


def _note_files(
    folder: str, name: str, states: list[tuple[str, int, int]], apart: Container[str] = ()
) -> None:
    """Name, size and time of each source file in a folder, but for some folders in it (scandir: a
    fifth of pathlib's time)."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.endswith(".py"):
                status = entry.stat()
                states.append((f"{name}/{entry.name}", status.st_size, status.st_mtime_ns))
                continue
            inner = f"{name}/{entry.name}"
            if entry.name != "__pycache__" and inner not in apart and entry.is_dir():
                _note_files(entry.path, inner, states, apart)


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def scalar_packer(launch: Launch) -> Callable[..., bytes]:
    """A function that makes 8-byte words of a program's scalars."""
    codes = "".join("d" if d.is_float else "q" for d in launch.scalars)
    return struct.Struct("=" + codes).pack


def too_large(launch: Launch, scalars: tuple[float, ...]) -> ArgumentError:
    """The error of an integer that is no int64."""
    return ArgumentError(
        "a Python integer is too large",
        op=launch.name,
        expect="-2**63 <= n < 2**63",
        actual=", ".join(map(str, scalars)),
        hint="write it as a float",
    )


def line_of(launch: Launch, code: int, lines: bool) -> Location | None:
    """The user's line of a check, if it is known and `lines` says that it is meant."""
    line = launch.checks[code].line if lines else None
    return Location(*line, "") if line else None


def raise_failed_check(
    launch: Launch, code: int, value: int, values: dict[Atom, int], lines: bool
) -> NoReturn:
    """Raise what it means that check `code` of a program has met `value`."""
    site = launch.checks[code]
    low, bound = (evaluate(d, values) for d in (site.low, site.bound))
    raise IndexOutOfBounds(
        f"{site.what} out of range",
        op=public_caller(site.op),
        expect=f"{low} <= {site.what} < {bound}",
        actual=str(value + low),
        hint="clamp the index, or look where it comes from"
        if low
        else f"count classes from 0, or raise their number above {value + low}"
        if value + low >= 0
        else "count classes from 0; leave out what has no class, or give it a weight of 0",
        location=line_of(launch, code, lines),
    )
