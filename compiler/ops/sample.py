"""Samples: inputs that exercise an op, with an independent reference, kept in the op's class.

No arrays here: an `Arg` says how the tests are to make one.  `reference` is called with the
NumPy module, the inputs in the widest precision at hand and nothing else; it must not use dualgrad.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.runtime.dtype import DType, float32
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Arg:
    """One tensor argument: uniform numbers in [low, high), or given values."""

    shape: tuple[int, ...]
    dtype: DType = float32
    low: float = -2.0
    high: float = 2.0
    values: tuple[float, ...] | None = None  # used cyclically
    layout: str = "contiguous"  # or "transposed", "strided", "broadcast"
    differentiable: bool = True


@dataclass(frozen=True)
class Sample:
    """A call `function(*args)` and what it should give, or the error it should raise."""

    function: Callable[..., Any]
    args: tuple[Any, ...]  # Arg for tensors, everything else as it is
    reference: Callable[..., Any] | None = None
    ulps: float = 0.0  # allowed error beyond the reference's rounding; 0: equal bits
    relative: float = 0.0  # or: allowed error relative to the largest magnitude
    error: type[Exception] | None = None
    match: str = ""  # regular expression that the error's text must match
    gradient: bool = True  # the sample is smooth near its inputs


Maker = Callable[[], list[Sample]]
SAMPLED: dict[Callable[..., Any], Maker] = {}  # of functions that are made of several ops


def samples_of(function: Callable[..., Any]) -> Callable[[Maker], Maker]:
    """Register what makes the samples of a public op function that has no op class of its own."""

    def register(make: Maker) -> Maker:
        SAMPLED[function] = make
        return make

    return register


SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (7,), (0,), (3, 4), (2, 0, 3), (64,), (5, 67))
FEW: tuple[tuple[int, ...], ...] = ((3, 7),)  # for formulas: how elements are found is tested
SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e-40, -1e-40, 3e38)


def unary(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    *,
    low: float = -2.0,
    high: float = 2.0,
    dtype: DType = float32,
    special: bool = True,
    ulps: float = 0.0,
    relative: float = 0.0,
    gradient: bool = True,
    few: bool = False,
) -> list[Sample]:
    """Samples of a function of one tensor over shapes, layouts and special values."""
    args = [Arg(s, dtype, low, high) for s in (FEW if few else SHAPES)]
    ways = ("strided",) if few else ("transposed", "strided")
    args += [Arg((6, 5), dtype, low, high, layout=way) for way in ways]
    out = [Sample(function, (a,), reference, ulps, relative, gradient=gradient) for a in args]
    if special and dtype.is_float:
        arg = Arg((23,), dtype, values=SPECIAL)
        out.append(Sample(function, (arg,), reference, ulps, relative, gradient=False))
    return out


def binary(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    *,
    low: float = -2.0,
    high: float = 2.0,
    dtype: DType = float32,
    special: bool = True,
    ulps: float = 0.0,
    relative: float = 0.0,
    gradient: bool = True,
    few: bool = False,
) -> list[Sample]:
    """Samples of a function of two tensors: equal shapes, broadcasting, numbers, layouts."""

    def arg(shape: tuple[int, ...], layout: str = "contiguous") -> Arg:
        return Arg(shape, dtype, low, high, layout=layout)

    pairs = [(s, s) for s in (FEW if few else SHAPES)]
    more = [((3, 1), (1, 5)), ((3, 4), (4,)), ((2, 3, 4), (3, 1)), ((), (6,)), ((2, 0), (1, 1))]
    pairs += more[:1] if few else more
    number = 2 if not dtype.is_float else 1.5
    args: list[tuple[Any, Any]] = [(arg(a), arg(b)) for a, b in pairs]
    args += [(arg((5,)), number), (number, arg((5,)))]
    ways = ("strided",) if few else ("transposed", "strided", "broadcast")
    args += [(arg((4, 6), layout), arg((4, 6))) for layout in ways]
    out = [Sample(function, a, reference, ulps, relative, gradient=gradient) for a in args]
    if special and dtype.is_float:
        x = Arg((10, 1), dtype, values=SPECIAL)
        y = Arg((10,), dtype, values=SPECIAL)
        out.append(Sample(function, (x, y), reference, ulps, relative, gradient=False))
    return out


def unary_samples_of(
    function: Callable[..., Any], reference: Callable[..., Any], **options: Any
) -> None:
    """Register a few samples of a function of one tensor that has no op class of its own."""
    samples_of(function)(lambda: unary(function, reference, few=True, **options))


def binary_samples_of(
    function: Callable[..., Any], reference: Callable[..., Any], **options: Any
) -> None:
    """Register a few samples of a function of two tensors that has no op class of its own."""
    samples_of(function)(lambda: binary(function, reference, few=True, **options))


def formula(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    *args: Arg,
    relative: float = 3e-6,
    gradient: bool = True,
) -> Sample:
    """A sample whose reference is worked out in float64 and gives the floats of its operands."""

    def rounded(np: Any, *xs: Any) -> Any:
        floats = [x.dtype for x in xs if x.dtype.kind == "f"]
        wide = (x.astype(np.float64) if x.dtype.kind == "f" else x for x in xs)
        out = np.asarray(reference(np, *wide))
        small = floats and out.dtype.kind == "f" and np.result_type(*floats).itemsize <= 8
        return out.astype(np.result_type(*floats)) if small else out

    return Sample(function, args, rounded, relative=relative, gradient=gradient)
