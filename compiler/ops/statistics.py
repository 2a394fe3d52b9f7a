"""Composites of reductions: variance, norms, logsumexp, counts, and sums that skip NaN."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import same
from dualgrad.compiler.ir.value import dim_text, public
from dualgrad.compiler.ops.arithmetic import absolute
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import cast_node, stop_gradient
from dualgrad.compiler.ops.extremum import Max, Min, check_nonempty
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import kept, single
from dualgrad.compiler.ops.reduce import (
    Sum,
    as_float,
    counted,
    dtype_argument,
    float_argument,
    mean,
    reduce_axes,
    reduced,
    reduction_case,
    wide,
)
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import DType, bool_, int64, uint8
from dualgrad.runtime.errors import ArgumentError, ShapeError

INF = float("inf")
NAN = float("nan")


def root(x: Any) -> Any:
    """The square root, with gradient 0 at 0."""
    zero = x.eq(0.0)
    return where(zero, 0.0, where(zero, 1.0, x).sqrt())


# -- variance -------------------------------------------------------------------------------------


@composite
@kept
def _variance(
    x: Any,
    *,
    axes: tuple[int, ...],
    keepdims: bool,
    correction: float,
    standard: bool,
    with_mean: bool,
    dtype: DType | None,
) -> Any:
    x = as_float(x, dtype)
    center: Any = reduce_axes(Sum, x, axes, True) / counted(x, axes)
    centered = x - center
    squares: Any = reduce_axes(Sum, centered * centered, axes, keepdims)
    found = squares / counted(x, axes, correction)
    found = root(found) if standard else found
    return (found, center.reshape(found.shape)) if with_mean else found


@composite
@kept
def _variance_without_nan(
    x: Any,
    *,
    axes: tuple[int, ...],
    keepdims: bool,
    correction: float,
    standard: bool,
    dtype: DType | None,
) -> Any:
    x = as_float(x, dtype)
    missing = x.ne(x)
    count: Any = reduce_axes(Sum, cast_node(~missing, int64), axes, True)
    count = cast_node(count, x.dtype)
    center: Any = reduce_axes(Sum, where(missing, 0.0, x), axes, True) / count
    centered = where(missing, 0.0, x - center)
    squares: Any = reduce_axes(Sum, centered * centered, axes, keepdims)
    freedom = where(count > correction, count - correction, NAN)
    found = squares / freedom.reshape(squares.shape)
    return root(found) if standard else found


def _spread_of(
    op: str, x: Any, axis: Any, keepdims: bool, dtype: Any, names: dict[str, Any], **how: Any
) -> Any:
    """A variance or what is made of it; `correction` under its three names."""
    given = [names.pop(k) for k in ("correction", "ddof") if k in names]
    if "unbiased" in names:
        given.append(int(names.pop("unbiased")))
    correction = given[0] if given and given[0] is not None else 0
    if len(given) > 1 or isinstance(correction, bool) or not isinstance(correction, int | float):
        raise ArgumentError(
            "what is subtracted from the count is no number",
            op=op,
            expect="one of correction=, ddof= (numbers) and unbiased= (a bool)",
            actual=", ".join(map(repr, given)),
            hint="correction=0 divides by the count, correction=1 by the count less one",
        )
    axes, keep = reduced(op, x, axis, keepdims, names)
    body = how.pop("body", _variance)
    target = float_argument(op, dtype)
    return body(x, axes=axes, keepdims=keep, correction=correction, dtype=target, **how)


@public("var")
def var(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **names: Any
) -> Any:
    """Return the variance over `axis`: the mean square of x - mean x, in two passes.

    The divisor is the number of elements minus `correction` (default 0, as in NumPy and the array
    API; PyTorch's default is 1), also called `ddof`; `unbiased=True` stands for 1.  Where it is not
    positive the result is NaN or inf.  Integers become the default float.
    """
    return _spread_of("var", x, axis, keepdims, dtype, names, standard=False, with_mean=False)


@public("std")
def std(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **names: Any
) -> Any:
    """Return the standard deviation over `axis`, the root of `var`; its gradient at 0 is 0."""
    return _spread_of("std", x, axis, keepdims, dtype, names, standard=True, with_mean=False)


@public("var_mean")
def var_mean(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **names: Any
) -> tuple[Any, Any]:
    """Return `var` and the mean over `axis`."""
    found, center = _spread_of(
        "var_mean", x, axis, keepdims, dtype, names, standard=False, with_mean=True
    )
    return found, center


@public("std_mean")
def std_mean(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **names: Any
) -> tuple[Any, Any]:
    """Return `std` and the mean over `axis`."""
    found, center = _spread_of(
        "std_mean", x, axis, keepdims, dtype, names, standard=True, with_mean=True
    )
    return found, center


@public("nanvar")
def nanvar(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **names: Any
) -> Any:
    """Return the variance over `axis` of the elements that are not NaN; see `var`."""
    body = _variance_without_nan
    return _spread_of("nanvar", x, axis, keepdims, dtype, names, standard=False, body=body)


@public("nanstd")
def nanstd(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **names: Any
) -> Any:
    """Return the standard deviation over `axis` of the elements that are not NaN."""
    body = _variance_without_nan
    return _spread_of("nanstd", x, axis, keepdims, dtype, names, standard=True, body=body)


# -- norms ----------------------------------------------------------------------------------------


@composite
@single
def _vector_norm(
    x: Any, *, order: float, axes: tuple[int, ...], keepdims: bool, dtype: DType | None
) -> Any:
    x = as_float(x, dtype)
    if order == 2:
        return root(reduce_axes(Sum, x * x, axes, keepdims))
    if order == 0:
        return cast_node(reduce_axes(Sum, cast_node(x.ne(0.0), int64), axes, keepdims), x.dtype)
    size = absolute(x)
    if order == 1:
        return reduce_axes(Sum, size, axes, keepdims)
    if abs(order) == INF:
        return reduce_axes(Max if order > 0 else Min, size, axes, keepdims)
    powers = _power(size, order)
    return _power(reduce_axes(Sum, powers, axes, keepdims), 1 / order)


def _power(x: Any, exponent: float) -> Any:
    """x**exponent for x >= 0, with gradient 0 at 0."""
    zero = x.eq(0.0)
    return where(zero, 0.0 if exponent > 0 else INF, where(zero, 1.0, x) ** exponent)


@public("norm", "vector_norm")
def vector_norm(
    x: Any,
    ord: Any = 2,
    axis: Any = None,
    keepdims: bool = False,
    *,
    dtype: Any = None,
    **names: Any,
) -> Any:
    """Return (sum of |x|**ord)**(1/ord) over `axis` (None: all elements, whatever the shape).

    `ord` (or `p`) is any number: 0 counts what is not 0, inf and -inf give the largest and the
    smallest |x|; "fro" and None stand for 2.  The gradient at 0 is 0.  Raises ShapeError for the
    largest or smallest of nothing, ArgumentError for another `ord`.
    """
    order = names.pop("p", ord)
    order = 2 if order is None or order == "fro" else order
    if isinstance(order, bool) or not isinstance(order, int | float) or order != order:
        raise ArgumentError(
            "no such norm",
            op="norm",
            expect="a number, None or 'fro'",
            actual=repr(order),
            hint="dg.linalg.matrix_norm has the norms of matrices",
        )
    axes, keep = reduced("norm", x, axis, keepdims, names)
    if abs(order) == INF:
        check_nonempty("norm", x, axes)
    target = float_argument("norm", dtype)
    return _vector_norm(x, order=float(order), axes=axes, keepdims=keep, dtype=target)


@composite
@single
def _logsumexp(x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    x = as_float(x)
    largest: Any = stop_gradient(reduce_axes(Max, x, axes, True))
    shift = where(absolute(largest).eq(INF), 0.0, largest)
    total: Any = reduce_axes(Sum, (x - shift).exp(), axes, True)
    nothing = total.eq(0.0)
    found = where(nothing, -INF, shift + where(nothing, 1.0, total).log())
    shape = tuple(n for k, n in enumerate(x.shape) if k not in axes)
    return found if keepdims else found.reshape(shape)


@public("logsumexp")
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return log(sum of exp(x)) over `axis`, relative to the largest element.

    -inf where all elements are (with gradient 0) or there are none; inf where one is inf.
    """
    axes, keep = reduced("logsumexp", x, axis, keepdims, dim)
    return _logsumexp(x, axes=axes, keepdims=keep)


# -- counts and sums that skip NaN ----------------------------------------------------------------


@composite
def _count_nonzero(x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    truth = x if x.dtype is bool_ else x.ne(0)
    return reduce_axes(Sum, cast_node(truth, int64), axes, keepdims)


@public("count_nonzero")
def count_nonzero(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the int64 number of elements over `axis` that are not 0 (NaN is not)."""
    axes, keep = reduced("count_nonzero", x, axis, keepdims, dim)
    return _count_nonzero(x, axes=axes, keepdims=keep)


@composite
@single
def _nansum(x: Any, *, axes: tuple[int, ...], keepdims: bool, dtype: DType | None) -> Any:
    x = cast_node(x, dtype or wide(x.dtype))
    x = where(x.ne(x), 0, x) if x.dtype.is_float else x
    total: Any = reduce_axes(Sum, x, axes, keepdims)
    return total + 0  # the sum of nothing is 0, not -0.0


@public("nansum")
def nansum(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **dim: Any
) -> Any:
    """Return the sum over `axis` with NaN counted as 0; see `sum`."""
    axes, keep = reduced("nansum", x, axis, keepdims, dim)
    return _nansum(x, axes=axes, keepdims=keep, dtype=dtype_argument(dtype))


@composite
@kept
def _nanmean(x: Any, *, axes: tuple[int, ...], keepdims: bool, dtype: DType | None) -> Any:
    x = as_float(x, dtype)
    missing = x.ne(x)
    count = cast_node(reduce_axes(Sum, cast_node(~missing, int64), axes, keepdims), x.dtype)
    total: Any = reduce_axes(Sum, where(missing, 0.0, x), axes, keepdims)
    return total / count


@public("nanmean")
def nanmean(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **dim: Any
) -> Any:
    """Return the mean over `axis` of the elements that are not NaN; NaN where there are none."""
    axes, keep = reduced("nanmean", x, axis, keepdims, dim)
    return _nanmean(x, axes=axes, keepdims=keep, dtype=float_argument("nanmean", dtype))


@composite
@kept
def _average(x: Any, weights: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    total: Any = reduce_axes(Sum, as_float(x * weights), axes, keepdims)
    whole = expand_to(as_float(weights), x.shape)
    return total / reduce_axes(Sum, cast_node(whole, total.dtype), axes, keepdims)


@public("average")
def average(
    x: Any, axis: Any = None, weights: Any = None, keepdims: bool = False, **dim: Any
) -> Any:
    """Return the mean over `axis`, each element counted `weights` times.

    weights have the shape of x, or that of the one axis.  Raises ShapeError for other shapes.
    """
    axes, keep = reduced("average", x, axis, keepdims, dim)
    if weights is None:
        return mean(x, axes, keep)
    check_tensors("average", weights)
    if weights.ndim == 1 and len(axes) == 1 and same(weights.shape[0], x.shape[axes[0]]):
        weights = weights.reshape((-1, *(1,) * (x.ndim - 1 - axes[0])))
    elif weights.shape != x.shape:
        raise ShapeError(
            "the weights do not fit",
            op="average",
            expect=f"weights {dim_text(x.shape)}, or those of one axis",
            actual=f"weights {dim_text(weights.shape)}, axis {axis}",
            hint="reshape the weights to the shape of x, or name the axis: axis=...",
        )
    return _average(x, weights, axes=axes, keepdims=keep)


# -- samples --------------------------------------------------------------------------------------

SHAPES: list[tuple[tuple[int, ...], Any, bool]]
SHAPES = [((5, 67), None, False), ((5, 67), 1, True), ((70, 5), 0, False)]
SHAPES += [((2, 3, 4), (0, -1), True), ((3, 2), (), False), ((9000,), 0, False)]
GAPS = Arg((4, 3), values=(1.0, NAN, 3.0, 2.5, NAN, -1.0, NAN))


def _plain(function: Any, name: str, relative: float = 1e-6) -> list[Sample]:
    """Samples of a function that NumPy has under this name."""
    return [
        *(reduction_case(function, name, *c, relative=relative) for c in SHAPES),
        reduction_case(function, name, (3, 40), 1, False, dtype=int64, relative=relative),
    ]


def _gaps(function: Any, name: str) -> list[Sample]:
    """Samples with NaN in some places and in a whole row."""
    rows = Arg((3, 4), values=(1.0, NAN, 3.0, 2.5, NAN, NAN, NAN, NAN, 0.5, 1.5, NAN, -1.0))
    return [
        Sample(
            lambda x, k=k: function(x, k),
            (arg,),
            lambda np, x, k=k: getattr(np, name)(x, axis=k),
            ulps=4.0,
            gradient=False,
        )
        for arg, k in ((GAPS, None), (GAPS, 1), (rows, 1))
    ]


@samples_of(var)
def _var_samples() -> list[Sample]:
    def case(shape: tuple[int, ...], axis: Any, **how: Any) -> Sample:
        return Sample(
            lambda x: var(x, axis, **how),
            (Arg(shape),),
            lambda np, x: np.var(x, axis, ddof=next(iter(how.values())) * 1),
            relative=1e-6,
        )

    refused = Sample(
        lambda x: var(x, ddof=1, unbiased=True),
        (Arg((3,)),),
        error=ValueError,
        match=r"\[var\] what is subtracted",
    )
    far = Sample(
        lambda x: var(x + 1000.0, 0),
        (Arg((300, 2), values=(0.25, 0.5, 1.0, 0.75)),),
        lambda np, x: np.var(x, 0),
        relative=1e-6,
    )
    nothing = [
        Sample(
            lambda x, n=n: var(x, 1, ddof=n),
            (Arg((2, k)),),
            lambda np, x, n=n: np.var(x, 1, ddof=n),
            gradient=False,
        )
        for k, n in ((1, 1), (0, 0))
    ]
    return [
        *_plain(var, "var"),
        case((5, 9), 1, correction=1),
        case((5, 9), None, ddof=2.5),
        case((9, 5), 0, unbiased=True),
        far,
        *nothing,
        refused,
    ]


@samples_of(std)
def _std_samples() -> list[Sample]:
    constant = Sample(
        lambda x: std(x, 1),
        (Arg((3, 4), values=(2.0,)),),
        lambda np, x: np.std(x, 1),
        gradient=False,
    )
    return [*(c for c in _plain(std, "std") if c.args[0].shape != (3, 2)), constant]


@samples_of(var_mean)
def _var_mean_samples() -> list[Sample]:
    arg = (Arg((5, 7)),)
    return [
        Sample(
            lambda x: var_mean(x, 1, True)[0],
            arg,
            lambda np, x: np.var(x, 1, keepdims=True),
            relative=1e-6,
        ),
        Sample(lambda x: var_mean(x, 0)[1], arg, lambda np, x: np.mean(x, 0), relative=1e-6),
        Sample(lambda x: std_mean(x)[0], arg, lambda np, x: np.std(x), relative=1e-6),
        Sample(
            lambda x: std_mean(x, 1, ddof=1)[1], arg, lambda np, x: np.mean(x, 1), relative=1e-6
        ),
    ]


@samples_of(nanvar)
def _nanvar_samples() -> list[Sample]:
    return [reduction_case(nanvar, "var", (5, 7), 1, True, relative=1e-6), *_gaps(nanvar, "nanvar")]


@samples_of(nanstd)
def _nanstd_samples() -> list[Sample]:
    return [
        reduction_case(nanstd, "std", (5, 7), 0, False, relative=1e-6),
        *_gaps(nanstd, "nanstd"),
    ]


@samples_of(vector_norm)
def _norm_samples() -> list[Sample]:
    def case(shape: tuple[int, ...], order: Any, axis: Any, keep: bool = False) -> Sample:
        def reference(np: Any, x: Any) -> Any:
            x = np.abs(x)
            if order == INF or order == -INF:
                return (np.max if order > 0 else np.min)(x, axis, keepdims=keep)
            if order == 0:
                return np.sum(x != 0, axis, keepdims=keep).astype(x.dtype)
            return np.sum(x**order, axis, keepdims=keep) ** (1 / order)

        return Sample(
            lambda x: vector_norm(x, order, axis, keep), (Arg(shape),), reference, relative=2e-6
        )

    zeros = Sample(
        lambda x: vector_norm(x, 2, 1),
        (Arg((2, 3), values=(0.0,)),),
        lambda np, x: x.sum(1),
        gradient=False,
    )
    orders = [0, 1, 2, 3, 2.5, 0.5, -1, INF, -INF]
    return [
        *(case((5, 9), p, axis) for p in orders for axis in (None, 1)),
        case((2, 3, 4), 2, (0, 2), True),
        case((70, 3), 1, 0),
        zeros,
        Sample(
            lambda x: vector_norm(x, "nuc"), (Arg((2,)),), error=ValueError, match="no such norm"
        ),
        Sample(lambda x: vector_norm(x, INF), (Arg((0,)),), error=ValueError, match="empty run"),
    ]


@samples_of(logsumexp)
def _logsumexp_samples() -> list[Sample]:
    def reference(np: Any, x: Any, axis: Any, keep: bool) -> Any:
        x = np.asarray(x)
        return np.logaddexp.reduce(x, tuple(range(x.ndim)) if axis is None else axis, keepdims=keep)

    def case(arg: Arg, axis: Any, keep: bool = False) -> Sample:
        return Sample(
            lambda x: logsumexp(x, axis, keep),
            (arg,),
            lambda np, x: reference(np, x, axis, keep),
            relative=1e-6 if arg.values is None else 0.0,
            gradient=arg.values is None and 0 not in arg.shape,
        )

    infinite = Arg((3, 2), values=(-INF, -INF, INF, 0.0, NAN, 1.0))
    return [
        *(
            case(Arg(shape, low=1, high=9), axis, keep)
            for shape, axis, keep in SHAPES
            if axis != ()
        ),
        case(infinite, 1),
        case(Arg((2, 0)), 1),
        case(Arg((3, 2), values=(1000.0, -1000.0)), 1),
    ]


@samples_of(count_nonzero)
def _count_samples() -> list[Sample]:
    some = Arg((4, 9), values=(0.0, 1.0, -0.0, NAN, 2.0))
    return [
        Sample(
            lambda x, k=k: count_nonzero(x, k),
            (arg,),
            lambda np, x, k=k: np.asarray(np.count_nonzero(x, k)),
            gradient=False,
        )
        for arg in (some, Arg((70, 3), uint8, 0, 3), Arg((5,), bool_), Arg((0, 2)))
        for k in (None, 0)
    ]


@samples_of(nansum)
def _nansum_samples() -> list[Sample]:
    return [*_plain(nansum, "sum"), *_gaps(nansum, "nansum")]


@samples_of(nanmean)
def _nanmean_samples() -> list[Sample]:
    return [*_plain(nanmean, "mean"), *_gaps(nanmean, "nanmean")]


@samples_of(average)
def _average_samples() -> list[Sample]:
    def case(shape: tuple[int, ...], weights: tuple[int, ...], axis: Any) -> Sample:
        return Sample(
            lambda x, w: average(x, axis, w),
            (Arg(shape), Arg(weights, low=0.5, high=2)),
            lambda np, x, w: np.average(x, axis, w),
            relative=1e-6,
        )

    refused = Sample(
        lambda x, w: average(x, 0, w),
        (Arg((3, 2)), Arg((2,))),
        error=ValueError,
        match="do not fit",
    )
    return [
        case((4, 5), (4, 5), None),
        case((4, 5), (4, 5), 0),
        case((4, 5), (5,), 1),
        case((2, 3, 4), (3,), 1),
        reduction_case(
            lambda x, k, keep: average(x, k, None, keep), "mean", (4, 5), 1, True, relative=1e-6
        ),
        refused,
    ]
