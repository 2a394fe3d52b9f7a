"""Instructions of one register, for vectors of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.compiler.lower.llvm.lanes import vector
from dualgrad.runtime.program import Target

REGISTER = 512  # bits of one of AVX-512


def has_registers(target: Target, width: int, bits: int) -> bool:
    """Whether so many lanes of so many bits fill registers of AVX-512."""
    return has(target, "avx512f") and width % (REGISTER // bits) == 0


def has(target: Target, feature: str) -> bool:
    return f"+{feature}" in target.features.split(",")


def by_registers(
    f: Function,
    values: Sequence[tuple[str, str]],
    result: str,
    width: int,
    lanes: int,
    instruction: Callable[..., str],
) -> str:
    """An instruction for so many lanes on the parts of vectors, given as (type of a lane, name);
    the results, of lanes of type `result`, side by side."""
    parts = [
        instruction(*(_part(f, kind, x, width, first, lanes) for kind, x in values))
        for first in range(0, width, lanes)
    ]
    while len(parts) > 1:
        size = width // len(parts)
        parts = [
            joined(f, result, x, y, size) for x, y in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _part(f: Function, kind: str, value: str, width: int, first: int, lanes: int) -> str:
    if width == lanes:
        return value
    whole = vector(kind, width)
    picks = ", ".join(f"i32 {first + k}" for k in range(lanes))
    return f.value(f"shufflevector {whole} {value}, {whole} poison, <{lanes} x i32> <{picks}>")


def joined(f: Function, kind: str, x: str, y: str, lanes: int) -> str:
    """Two vectors, one behind the other."""
    half = vector(kind, lanes)
    picks = ", ".join(f"i32 {k}" for k in range(2 * lanes))
    return f.value(f"shufflevector {half} {x}, {half} {y}, <{2 * lanes} x i32> <{picks}>")
