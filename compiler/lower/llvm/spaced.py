"""Loads of every second or third element, and of elements that several lanes share.

Both are loads of neighbours and a shuffle: on many processors faster than gathers by far.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualgrad.compiler.ir.dims import Dim, Expr, coefficient, free_atoms_of, symbol_of, terms_of
from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.compiler.lower.llvm.lanes import Declarations
from dualgrad.runtime.records import dataclass

_SHORT = (2, 3)  # distances for which that pays


@dataclass(frozen=True)
class Shared:
    """Lane l takes element (l + phase) // lanes of those from the first on; `number` % lanes in the
    first lane is the phase."""

    number: Dim
    lanes: int


def is_short(step: Dim | None) -> bool:
    return step in _SHORT


def shared_by(index: Dim, variable: Expr) -> Shared | None:
    """How neighbouring lanes share the elements at `index`, if that is all that it does."""
    atom = symbol_of(variable)
    moving = [(m, c) for m, c in terms_of(index) if any(atom in free_atoms_of(a) for a in m)]
    if len(moving) != 1:
        return None
    ((monomial, c),) = moving
    if c != 1 or len(monomial) != 1 or monomial[0].kind != "div":
        return None
    number, lanes = monomial[0].args
    split = coefficient(number, variable)
    if split is None or split[0] != 1 or not isinstance(lanes, int) or lanes not in _SHORT:
        return None
    return Shared(number, lanes)


@dataclass(frozen=True)
class Load:
    """What is loaded, and from where: elements of an LLVM type from an address on, for lanes of
    which a mask may say which ones count."""

    names: Declarations
    kind: str
    suffix: str
    align: int
    address: str
    width: int
    mask: str

    def masked(self, f: Function, width: int, mask: str) -> str:
        """So many neighbours, zeros where the mask is not set."""
        whole, flags = f"<{width} x {self.kind}>", f"<{width} x i1>"
        name = f"llvm.masked.load.v{width}{self.suffix}.p0"
        read = self.names.intrinsic(name, whole, "ptr", "i32", flags, whole)
        arguments = (("ptr", self.address), ("i32", self.align), (flags, mask))
        return f.result(whole, read, *arguments, (whole, "zeroinitializer"))


def every(f: Function, load: Load, step: int) -> str:
    """Elements 0, step, 2 step, ... from the address on."""
    width = load.width
    wide = width * step
    picks = [lane // step if lane % step == 0 else width for lane in range(wide)]
    mask = _shuffled(f, load.mask, "i1", width, picks)
    return _shuffled(f, load.masked(f, wide, mask), load.kind, wide, range(0, wide, step))


def several(f: Function, load: Load, lanes: int, phase: str) -> str:
    """Elements that so many lanes share, the first lane's from the address on; the first one has
    `phase` lanes less."""
    width = load.width
    masks, values = [], []
    for p in range(lanes):
        first = (max(k * lanes - p, 0) for k in range(width))
        masks.append(_shuffled(f, load.mask, "i1", width, [min(x, width) for x in first]))
    whole = load.masked(f, width, _chosen(f, masks, phase, f"<{width} x i1>"))
    for p in range(lanes):
        picks = [(lane + p) // lanes for lane in range(width)]
        values.append(_shuffled(f, whole, load.kind, width, picks))
    return _chosen(f, values, phase, f"<{width} x {load.kind}>")


def _shuffled(f: Function, x: str, kind: str, width: int, picks: Sequence[int]) -> str:
    """Lanes of x, zeros for lane number `width`."""
    numbers = ", ".join(f"i32 {k}" for k in picks)
    whole = f"<{width} x {kind}>"
    return f.value(
        f"shufflevector {whole} {x}, {whole} zeroinitializer, <{len(picks)} x i32> <{numbers}>"
    )


def _chosen(f: Function, values: list[str], phase: str, kind: str) -> str:
    """The value number `phase`."""
    out = values[0]
    for p, value in enumerate(values[1:], 1):
        out = f.select(f.compare("eq", phase, p), value, out, kind)
    return out
