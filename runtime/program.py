"""What a compiler hands to a device: a Program, and the ABI by which it is launched.

Entry
    i64 entry(ptr handles, ptr params, ptr context)

handles   array of addresses of CPython ndarray objects (PyArrayObject).  The address of an
          array's data is the 8-byte word HANDLE_DATA_OFFSET bytes into the object.
params    array of 8-byte slots: signed integers, or the bits of float64 scalars.
context   array of 8-byte slots:
            [CONTEXT_POOL]          the thread pool; its word POOL_WORKERS is the number of
                                    threads besides the caller's
            [CONTEXT_PARALLEL_FOR]  void parallel_for(ptr pool, ptr fn, ptr ctx, i64 n)
            [CONTEXT_EXTERNS + i]   the routine named by Program.externs[i]

Result    0, or an error word: the low ERROR_CHECK_BITS bits are 1 + the index of the check that
          failed, the bits above are the offending value, signed.

No address of the process ever appears in object code, so a Program may be kept on disk: what it
calls comes through the context.

Externs
    Names that `HostCall.parse` reads are functions of the host, `i64 f(ptr words)`: for each input
    and then the output the address of row-major memory and the dimensions, then further sizes.
    The result is 1, or 0 if the function raised an exception, which the device has kept.
    All other names are compiled routines.

This module is a leaf that compiler and devices share; it needs neither NumPy nor llvmlite.
"""

from __future__ import annotations

import json
from typing import Any

from dualgrad.runtime.records import dataclass

ENTRY = "program"  # what compiled programs call theirs
HANDLE_DATA_OFFSET = 16
CONTEXT_POOL = 0
CONTEXT_PARALLEL_FOR = 1
CONTEXT_EXTERNS = 2
POOL_WORKERS = 40
ERROR_CHECK_BITS = 16
_HOST = "host:"

Param = int | float | str | tuple["Param", ...]


@dataclass(frozen=True)
class HostCall:
    """A function of the host that a program calls, with what is fixed when it is compiled.

    types   dtype name and number of dimensions of each input, then of the output
    sizes   how many further numbers it takes when it runs
    """

    routine: str
    params: tuple[Param, ...]
    types: tuple[tuple[str, int], ...]
    sizes: int

    @property
    def name(self) -> str:
        """Its name among the externs of a program."""
        return _HOST + json.dumps([self.routine, self.params, self.types, self.sizes])

    @classmethod
    def parse(cls, name: str) -> HostCall | None:
        """The call behind a name; None for names of other routines."""
        if not name.startswith(_HOST):
            return None
        return cls(*_tuples(json.loads(name.removeprefix(_HOST))))


def _tuples(x: Any) -> Any:
    """JSON lists as tuples, at every depth."""
    return tuple(map(_tuples, x)) if isinstance(x, list) else x


@dataclass(frozen=True)
class Target:
    """A CPU feature set that code is generated for.

    triple, cpu, features   as LLVM writes them
    vector_bits             width of a vector register, in bits
    registers               number of vector registers
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int

    @property
    def key(self) -> str:
        """Stable text for cache keys: equal exactly for equal targets."""
        sizes = f"{self.vector_bits}x{self.registers}"
        return "|".join((self.triple, self.cpu, self.features, sizes))


@dataclass(frozen=True)
class KernelInfo:
    """One kernel of a program: its symbol, what kind of loop it is, and the user's lines
    (file name, line number) it computes."""

    name: str
    kind: str
    lines: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Program:
    """Machine code of one compiled graph.

    name          entry symbol
    object_code   relocatable object
    externs       names of the shape-generic library routines it calls, in context order
    kernels       what is inside, for reports
    """

    name: str
    object_code: bytes
    externs: tuple[str, ...]
    kernels: tuple[KernelInfo, ...]


def decode_error(word: int) -> tuple[int, int]:
    """(index of the failed check, offending value) of a non-zero result of an entry."""
    return (word & ((1 << ERROR_CHECK_BITS) - 1)) - 1, word >> ERROR_CHECK_BITS
