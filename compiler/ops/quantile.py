"""Order statistics: quantile and median, and the same without NaN.

Elements are sorted, picked and interpolated; the gradient flows to the elements that were picked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ir.dims import product
from dualgrad.compiler.ir.value import Value, public
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import count
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.extremum import Max
from dualgrad.compiler.ops.gather import take_along_axis
from dualgrad.compiler.ops.joining import cat
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.precision import kept
from dualgrad.compiler.ops.reduce import Sum, as_float, reduce_axes, reduced
from dualgrad.compiler.ops.rounding import ceil, floor, round_
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.sort import argsort
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import float64, int64, uint8
from dualgrad.runtime.errors import ArgumentError, ShapeError

INF = float("inf")
NAN = float("nan")


def _continuous(alpha: float, beta: float) -> Callable[[Any, Any], Any]:
    """The places of Hyndman and Fan, "Sample quantiles in statistical packages" (1996)."""
    return lambda n, q: n * q + (alpha + q * (1 - alpha - beta)) - 1


def _midpoint(n: Any, q: Any) -> Any:
    place = (n - 1) * q
    return 0.5 * (floor(place) + ceil(place))


def _averaged(n: Any, q: Any) -> Any:
    place = n * q - 1
    return floor(place) + where(place.eq(floor(place)), 0.5, 1.0)


def _closest(n: Any, q: Any) -> Any:
    """The nearest place, of two the one with an even number when counted from 1."""
    place = n * q - 1.5
    low = floor(place)
    even = low.eq(2 * floor(0.5 * low))
    return low + where(place.eq(low) & ~even, 0.0, 1.0)


# Where a quantile q of n elements stands among them when they are sorted, counted from 0.
METHODS: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda n, q: (n - 1) * q,
    "lower": lambda n, q: floor((n - 1) * q),
    "higher": lambda n, q: ceil((n - 1) * q),
    "nearest": lambda n, q: round_((n - 1) * q),
    "midpoint": _midpoint,
    "inverted_cdf": lambda n, q: ceil(n * q - 1),
    "averaged_inverted_cdf": _averaged,
    "closest_observation": _closest,
    "interpolated_inverted_cdf": _continuous(0, 1),
    "hazen": _continuous(0.5, 0.5),
    "weibull": _continuous(0, 0),
    "median_unbiased": _continuous(1 / 3, 1 / 3),
    "normal_unbiased": _continuous(3 / 8, 3 / 8),
}


def _between(low: Any, high: Any, t: Any) -> Any:
    """low + t (high - low), exact at both ends; NaN only between -inf and inf."""
    step = high - low
    from_low = ((t < 0.5) | high.eq(INF)) & low.ne(-INF)
    found = where(from_low, low + step * t, high - step * (1.0 - t))
    return where(low.eq(high) | t.eq(0.0), low, found)


@composite
@kept
def _quantile(
    x: Any, *q: Any, axes: tuple[int, ...], keepdims: bool, method: str, skip_nan: bool
) -> Any:
    x = as_float(x)
    qs = [cast_node(v.reshape((v.size,)), float64) for v in q]
    levels = cat(qs, 0) if len(qs) > 1 else qs[0]
    rest = tuple(k for k in range(x.ndim) if k not in axes)
    shape = tuple(x.shape[k] for k in rest)
    rows = x.permute((*rest, *axes)).reshape((*shape, product(x.shape[a] for a in axes)))
    last = len(shape)
    missing = rows.ne(rows)
    if skip_nan:
        n: Any = cast_node(reduce_axes(Sum, cast_node(~missing, int64), (last,), True), float64)
        nothing: Any = n.eq(0.0)
    else:
        n = expand_to(count(rows.shape[last], float64), (*(1,) * last, 1))
        nothing = reduce_axes(Max, cast_node(missing, uint8), (last,), True).ne(0)
    place = METHODS[method](n, levels)
    place = where(place > n - 1.0, n - 1.0, place)
    place = where(place > 0.0, place, 0.0)
    low = floor(place)
    high = where(low + 1.0 > n - 1.0, low, low + 1.0)
    ordered = take_along_axis(rows, argsort(rows, last), last)
    below, above = (take_along_axis(ordered, cast_node(i, int64), last) for i in (low, high))
    found = _between(below, above, cast_node(place - low, x.dtype))
    found = where(nothing, NAN, found)
    kept = tuple(1 if k in axes else m for k, m in enumerate(x.shape)) if keepdims else shape
    scalar = len(q) == 1 and q[0].ndim == 0
    if scalar:
        return found.reshape(kept)
    moved = found.permute((last, *range(last)))
    return moved.reshape((levels.shape[0], *kept))


def _checked(op: str, x: Any, q: Any, method: str, axes: tuple[int, ...]) -> tuple[Any, ...]:
    """The quantiles as operands of `_quantile`."""
    if method not in METHODS:
        raise ArgumentError(
            "no such method",
            op=op,
            expect=" or ".join(map(repr, METHODS)),
            actual=repr(method),
            hint="leave it out for 'linear'",
        )
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(
            "an empty run has no quantiles",
            op=op,
            expect="at least one element along each axis",
            actual=f"shape {tuple(x.shape)}, axes {axes}",
            hint="look where a size of 0 comes from",
        )
    if isinstance(q, Value):
        if q.ndim > 1:
            raise ShapeError(
                "quantiles stand in a row",
                op=op,
                expect="q [] or [k]",
                actual=f"{q}",
                hint="flatten them with .reshape(-1)",
            )
        return (q,)
    numbers = tuple(q) if isinstance(q, tuple | list) else (q,)
    for v in numbers:
        if isinstance(v, bool) or not isinstance(v, int | float) or not 0 <= v <= 1:
            raise ArgumentError(
                "no quantile",
                op=op,
                expect="numbers in [0, 1], or a tensor",
                actual=repr(v),
                hint="give a share: 0.5 for the median",
            )
    return tuple(float(v) for v in numbers)


def _run(
    op: str,
    x: Any,
    q: Any,
    axis: Any,
    keepdims: bool,
    method: str,
    names: dict[str, Any],
    skip_nan: bool,
) -> Any:
    method = names.pop("interpolation", method)
    axes, keep = reduced(op, x, axis, keepdims, names)
    levels = _checked(op, x, q, method, axes)
    found = _quantile(x, *levels, axes=axes, keepdims=keep, method=method, skip_nan=skip_nan)
    one_in_a_row = isinstance(q, tuple | list) and len(q) == 1
    return found.unsqueeze(0) if one_in_a_row else found


@public("quantile")
def quantile(
    x: Any,
    q: Any,
    axis: Any = None,
    keepdims: bool = False,
    *,
    method: str = "linear",
    **names: Any,
) -> Any:
    """Return the quantiles q of x over `axis` (None: of all elements); NaN if there is one.

    q is a number in [0, 1], several of them, or a tensor [] or [k]; of several, results stand
    along a new first axis.  `method` (or `interpolation`) says what lies between two elements, by
    NumPy's names.  Raises ArgumentError for another q or method, ShapeError for an empty run.
    """
    return _run("quantile", x, q, axis, keepdims, method, names, False)


@public("nanquantile")
def nanquantile(
    x: Any,
    q: Any,
    axis: Any = None,
    keepdims: bool = False,
    *,
    method: str = "linear",
    **names: Any,
) -> Any:
    """Return the quantiles of the elements that are not NaN; NaN where there are none."""
    return _run("nanquantile", x, q, axis, keepdims, method, names, True)


@public("median")
def median(x: Any, axis: Any = None, keepdims: bool = False, **names: Any) -> Any:
    """Return the median over `axis`, of an even number of elements the mean of the two in the
    middle, as in NumPy (PyTorch's is the lower one, with its index); see `quantile`."""
    return _run("median", x, 0.5, axis, keepdims, "linear", names, False)


@public("nanmedian")
def nanmedian(x: Any, axis: Any = None, keepdims: bool = False, **names: Any) -> Any:
    """Return the median of the elements that are not NaN; NaN where there are none."""
    return _run("nanmedian", x, 0.5, axis, keepdims, "linear", names, True)


# -- samples --------------------------------------------------------------------------------------


def _cases(function: Any, name: str) -> list[Sample]:
    def case(arg: Arg, q: Any, axis: Any, keep: bool = False, method: str = "linear") -> Sample:
        return Sample(
            lambda x: function(x, q, axis, keep, method=method),
            (arg,),
            lambda np, x: getattr(np, name)(x, q, axis, keepdims=keep, method=method).astype(
                x.dtype
            ),
            relative=1e-6 if arg.values is None else 0.0,
            ulps=0.0 if arg.values is None else 1.0,
            gradient=arg.values is None,
        )

    gaps = Arg((4, 3), values=(1.0, NAN, 3.0, 2.5, NAN, NAN, NAN))
    levels = (0.0, 0.2, 0.25, 0.5, 0.625, 0.9, 1.0)
    tensor = Sample(
        lambda x, q: function(x, q, 1),
        (Arg((3, 7)), Arg((2,), values=(0.25, 0.75), differentiable=False)),
        lambda np, x, q: getattr(np, name)(x, q, 1).astype(x.dtype),
        relative=1e-6,
    )
    refused = [
        Sample(lambda x: function(x, 1.5), (Arg((3,)),), error=ValueError, match="no quantile"),
        Sample(
            lambda x: function(x, 0.5, method="best"),
            (Arg((3,)),),
            error=ValueError,
            match="no such method",
        ),
        Sample(lambda x: function(x, 0.5), (Arg((0,)),), error=ValueError, match="empty run"),
    ]
    return [
        *(case(Arg((3, n)), levels, 1, method=m) for m in METHODS for n in (4, 9)),
        case(Arg((5, 7)), 0.3, None),
        case(Arg((5, 7)), 0.3, 0, True),
        case(Arg((2, 3, 4)), (0.5,), (0, -1), True),
        case(Arg((3, 1)), (0.1, 0.9), 1),
        case(gaps, (0.0, 0.5, 0.75), 0),
        tensor,
        *refused,
    ]


@samples_of(quantile)
def _quantile_samples() -> list[Sample]:
    return _cases(quantile, "quantile")


@samples_of(nanquantile)
def _nanquantile_samples() -> list[Sample]:
    return _cases(nanquantile, "nanquantile")


def _median_cases(function: Any, name: str) -> list[Sample]:
    gaps = Arg((4, 3), values=(1.0, NAN, 3.0, 2.5, NAN, NAN, NAN))
    return [
        Sample(
            lambda x, axis=axis, keep=keep: function(x, axis, keep),
            (arg,),
            lambda np, x, axis=axis, keep=keep: getattr(np, name)(x, axis, keepdims=keep),
            relative=1e-6 if arg is not gaps else 0.0,
            gradient=arg is not gaps,
        )
        for arg, axis, keep in (
            (Arg((5, 8)), 1, False),
            (Arg((5, 8)), 0, True),
            (Arg((5, 7)), None, False),
            (Arg((2, 3, 4)), (0, 2), False),
            (gaps, 0, False),
            (gaps, 1, False),
            (Arg((5, 8), int64, -9, 9), 1, False),
        )
    ]


@samples_of(median)
def _median_samples() -> list[Sample]:
    return _median_cases(median, "median")


@samples_of(nanmedian)
def _nanmedian_samples() -> list[Sample]:
    return _median_cases(nanmedian, "nanmedian")
