"""Padding: constant, reflect, replicate and circular."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim, Offset
from dualgrad.compiler.ir.node import as_node
from dualgrad.compiler.ops.composite import composite, raw
from dualgrad.compiler.ops.elementwise import cast_node, copy
from dualgrad.compiler.ops.joining import cat
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.region import Overwrite
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.slicing import Slice, narrow, strided
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.errors import ArgumentError, ShapeError

MODES = ("constant", "reflect", "replicate", "circular")


@composite
@raw
def _pad_constant(
    x: Any, value: Any, *, before: tuple[Offset, ...], after: tuple[Offset, ...]
) -> Any:
    shape = tuple(b + n + a for b, n, a in zip(before, x.shape, after, strict=True))
    base = expand_to(cast_node(as_node(value), x.dtype), shape)
    return Overwrite.of(Slice.of(before, (1,) * x.ndim, x.shape)).on(base, x)


def zero_padded(x: Any, before: tuple[Dim, ...], after: tuple[Dim, ...]) -> Any:
    """x with zeros at both ends of its last axes; no amount is negative."""
    if all(isinstance(n, int) and n == 0 for n in (*before, *after)):
        return x
    lead = (0,) * (x.ndim - len(before))
    return _pad_constant(x, 0.0, before=(*lead, *before), after=(*lead, *after))


@composite
@raw
def _pad_edges(x: Any, *, before: tuple[Offset, ...], after: tuple[Offset, ...], mode: str) -> Any:
    for axis, (b, a) in enumerate(zip(before, after, strict=True)):
        if b == 0 and a == 0:
            continue
        left, right = _edges(x, axis, b, a, mode)
        parts = [*([left] if b != 0 else []), x, *([right] if a != 0 else [])]
        x = cat(parts, axis) if len(parts) > 1 else x
    return x


def _edges(x: Any, axis: int, before: Dim, after: Dim, mode: str) -> tuple[Any, Any]:
    """What stands before and after x along an axis."""
    n = x.shape[axis]
    if mode == "circular":
        return narrow(x, axis, n - before, before), narrow(x, axis, 0, after)
    if mode == "reflect":
        return _reversed(x, axis, before, before), _reversed(x, axis, n - 2, after)
    sizes = [tuple(m if k == axis else s for k, s in enumerate(x.shape)) for m in (before, after)]
    first, last = narrow(x, axis, 0, 1), narrow(x, axis, n - 1, 1)
    return first.expand(sizes[0]), last.expand(sizes[1])


def _reversed(x: Any, axis: int, start: Dim, length: Dim) -> Any:
    """Elements start, start - 1, ... of an axis."""
    starts = tuple(start if k == axis else 0 for k in range(x.ndim))
    steps = tuple(-1 if k == axis else 1 for k in range(x.ndim))
    sizes = tuple(length if k == axis else n for k, n in enumerate(x.shape))
    return strided(x, starts, steps, sizes)


def pad(x: Any, pad: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Any:
    """Return x with elements added at the ends of its last axes.

    `pad` holds pairs (before, after), the last axis first.  Modes: "constant" (`value`; negative
    amounts cut off), "reflect" (mirrored without the edge), "replicate" (the edge repeated),
    "circular" (the other end).  Raises ShapeError where an amount is too large for the mode,
    ArgumentError for an unknown mode.
    """
    check_tensors("pad", x)
    amounts = tuple(pad) if isinstance(pad, list | tuple) else (pad,)
    if len(amounts) % 2 or len(amounts) > 2 * x.ndim:
        raise ArgumentError(
            "amounts come in pairs",
            op="pad",
            expect=f"at most {x.ndim} pairs (before, after)",
            actual=str(amounts),
            hint="give two amounts per axis, those of the last axis first",
        )
    if mode not in MODES:
        raise ArgumentError(
            "no such mode",
            op="pad",
            expect=" or ".join(map(repr, MODES)),
            actual=repr(mode),
            hint="leave mode out for 'constant'",
        )
    untouched = (0,) * (x.ndim - len(amounts) // 2)
    before = (*untouched, *reversed(amounts[0::2]))
    after = (*untouched, *reversed(amounts[1::2]))
    _check_amounts(x, before, after, mode)
    if any(n < 0 for n in amounts):
        starts = tuple(max(0, -b) for b in before)
        sizes = tuple(
            n + min(0, b) + min(0, a) for n, b, a in zip(x.shape, before, after, strict=True)
        )
        x = strided(x, starts, (1,) * x.ndim, sizes)
        before, after = (tuple(max(0, n) for n in side) for side in (before, after))
    if not any((*before, *after)):
        return copy(x)
    if mode == "constant":
        return _pad_constant(x, value, before=before, after=after)
    return _pad_edges(x, before=before, after=after, mode=mode)


def _check_amounts(x: Any, before: tuple[int, ...], after: tuple[int, ...], mode: str) -> None:
    for axis, (n, b, a) in enumerate(zip(x.shape, before, after, strict=True)):
        if not isinstance(n, int):
            continue
        least, most = (0, n - (mode == "reflect")) if mode != "constant" else (-n, b + a + n)
        if mode == "replicate":
            most = max(b, a) if n else 0
        fits = all(least <= v <= max(most, 0) for v in (b, a)) and n + b + a >= 0
        if not fits:
            raise ShapeError(
                f"axis {axis} is too short for this padding",
                op="pad",
                expect=f"amounts from {least} to {max(most, 0)} for {n} elements ({mode})",
                actual=f"({b}, {a})",
                hint="pad less, or with mode='constant'",
            )


@samples_of(pad)
def _pad_samples() -> list[Sample]:
    names = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}

    def case(shape: tuple[int, ...], amounts: tuple[int, ...], mode: str) -> Sample:
        pairs = tuple(zip(amounts[0::2], amounts[1::2], strict=True))[::-1]
        widths = ((0, 0),) * (len(shape) - len(pairs)) + pairs
        return Sample(
            lambda x: pad(x, amounts, mode),
            (Arg(shape),),
            lambda np, x: np.pad(x, widths, names[mode]),
        )

    good = [case((3, 5), (1, 2, 2, 0), mode) for mode in MODES]
    good += [case((7,), (0, 3), mode) for mode in MODES]
    cut = Sample(
        lambda x: pad(x, (-1, 2, 1, -2), value=3.0),
        (Arg((4, 5)),),
        lambda np, x: np.pad(x[:-2, 1:], ((1, 0), (0, 2)), constant_values=3.0),
    )
    bad = Sample(
        lambda x: pad(x, (3, 0), "reflect"),
        (Arg((2, 3)),),
        error=ValueError,
        match=r"\[pad\] axis 1 is too short",
    )
    unknown = Sample(
        lambda x: pad(x, (1, 1), "mirror"), (Arg((3,)),), error=ValueError, match="no such mode"
    )
    return [*good, cut, case((2, 0), (1, 1), "constant"), bad, unknown]
