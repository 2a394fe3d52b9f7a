"""What is made of scans and their inverse: logcumsumexp, diff."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import at_most
from dualgrad.compiler.ir.value import dim_text, public
from dualgrad.compiler.ops.arithmetic import absolute
from dualgrad.compiler.ops.base import LAST, axis_argument, normalize_axis
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import copy, stop_gradient
from dualgrad.compiler.ops.joining import cat
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.padding import pad
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.reduce import as_float
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, samples_of
from dualgrad.compiler.ops.scan import CumMax, LinearRecurrence, cumprod, cumsum, row_and_axis
from dualgrad.compiler.ops.slicing import narrow
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import bool_, int64
from dualgrad.runtime.errors import ArgumentError, ShapeError

INF = float("inf")


@composite
@single
def _logcumsumexp(x: Any, *, axis: int) -> Any:
    x = as_float(x)
    if x.ndim == 0:
        return copy(x)
    fixed = stop_gradient(x)
    largest, before = (CumMax.of(axis, False, exclusive).on(fixed) for exclusive in (False, True))
    # Where everything so far is -inf (or something is inf) the shift is 0, so nothing is NaN.
    shift, old = (where(absolute(m).eq(INF), 0.0, m) for m in (largest, before))
    decay = where(before.eq(-INF), 0.0, (old - shift).exp())
    total = LinearRecurrence.of(axis).on(decay, (x - shift).exp())
    nothing = total.eq(0.0)
    return where(nothing, -INF, shift + where(nothing, 1.0, total).log())


@public("logcumsumexp")
def logcumsumexp(x: Any, axis: Any = None, **dim: Any) -> Any:
    """Return log(sum of exp(x)) up to each element along `axis` (None: flattened).

    Sums are relative to the largest element so far, so they neither overflow nor vanish; a run of
    -inf gives -inf, with gradient 0.
    """
    x, axis = row_and_axis("logcumsumexp", x, axis, dim)
    return _logcumsumexp(x, axis=axis)


@samples_of(logcumsumexp)
def _logcumsumexp_samples() -> list[Sample]:
    def case(arg: Arg, axis: int | None, smooth: bool = True) -> Sample:
        return Sample(
            lambda x: logcumsumexp(x, axis),
            (arg,),
            lambda np, x: np.logaddexp.accumulate(
                np.ravel(x) if axis is None else np.asarray(x), axis or 0
            ),
            relative=1e-6 if smooth else 0.0,
            ulps=0.0 if smooth else 1.0,
            gradient=smooth,
        )

    infinite = Arg((4, 3), values=(-INF, -INF, 0.0, -INF, 1.0, INF, 2.0, -INF, -1.0))
    return [
        *(
            case(Arg(s, low=1.0, high=9.0), k)
            for s, k in (((5, 67), 1), ((70, 5), 0), ((9,), None))
        ),
        case(Arg((0, 3)), 1),
        case(infinite, 0, False),
        case(infinite, 1, False),
        case(Arg((3, 4), values=(1000.0, -1000.0)), 1, False),
        case(Arg((10,), values=SPECIAL[:5]), 0, False),
    ]


def cumulative_sum(
    x: Any, axis: int | None = None, dtype: Any = None, *, include_initial: bool = False
) -> Any:
    """Return `cumsum` along `axis` under the array API's name; `include_initial` puts a 0 first.

    Raises ShapeError without an axis unless x has one dimension.
    """
    axis = _only_axis("cumulative_sum", x, axis)
    return _with_initial(cumsum(x, axis, dtype), axis, 0 if include_initial else None)


def cumulative_prod(
    x: Any, axis: int | None = None, dtype: Any = None, *, include_initial: bool = False
) -> Any:
    """Return `cumprod` along `axis`; `include_initial` puts a 1 first.  See `cumulative_sum`."""
    axis = _only_axis("cumulative_prod", x, axis)
    return _with_initial(cumprod(x, axis, dtype), axis, 1 if include_initial else None)


def _only_axis(op: str, x: Any, axis: int | None) -> int:
    check_tensors(op, x)
    if axis is None and x.ndim != 1:
        raise ShapeError(
            "which axis?",
            op=op,
            expect="an axis",
            actual=dim_text(x.shape),
            hint="name it: axis=-1 is the last one",
        )
    return normalize_axis(op, axis or 0, x.ndim)


def _with_initial(x: Any, axis: int, first: int | None) -> Any:
    return x if first is None else pad(x, (0, 0) * (x.ndim - 1 - axis) + (1, 0), value=first)


@samples_of(cumulative_sum)
def _cumulative_sum_samples() -> list[Sample]:
    return _initial_samples(cumulative_sum, "cumulative_sum")


@samples_of(cumulative_prod)
def _cumulative_prod_samples() -> list[Sample]:
    return _initial_samples(cumulative_prod, "cumulative_prod")


def _initial_samples(function: Any, name: str) -> list[Sample]:
    def case(arg: Arg, axis: int | None, first: bool) -> Sample:
        return Sample(
            lambda x: function(x, axis, include_initial=first),
            (arg,),
            lambda np, x: getattr(np, name)(x, axis=axis, include_initial=first),
            relative=1e-6,
            gradient=arg.dtype.is_float,
        )

    return [
        case(Arg((5,)), None, True),
        case(Arg((3, 4)), 0, True),
        case(Arg((3, 4)), -1, False),
        case(Arg((2, 3), int64, -9, 9), 1, True),
        Sample(function, (Arg((2, 3)),), error=ValueError, match="which axis"),
    ]


@composite
def _diff(x: Any, *ends: Any, n: int, axis: int, first: bool, last: bool) -> Any:
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    pieces = [expand_to(e, shape) if e.ndim == 0 else e for e in ends]
    x = cat([*pieces[: int(first)], x, *pieces[len(pieces) - int(last) :]], axis) if ends else x
    if at_most(x.shape[axis], n):
        return narrow(x, axis, 0, 0)
    for _ in range(n):
        size = x.shape[axis] - 1
        later, earlier = narrow(x, axis, 1, size), narrow(x, axis, 0, size)
        x = later.ne(earlier) if x.dtype is bool_ else later - earlier
    return x


@public("diff")
def diff(
    x: Any, n: int = 1, axis: int = LAST, prepend: Any = None, append: Any = None, **dim: Any
) -> Any:
    """Return x[i+1] - x[i] along `axis`, taken `n` times; of bools whether they differ.

    `prepend` and `append` (tensors, or numbers for one element each) are joined to x first.
    Empty where the axis is no longer than n.  Raises ArgumentError for a negative n.
    """
    check_tensors("diff", x)
    axis = normalize_axis("diff", axis_argument("diff", axis, dim), x.ndim)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ArgumentError(
            "n counts differences",
            op="diff",
            expect="an int >= 0",
            actual=f"{n!r}",
            hint="n is how often differences are taken; the axis is axis=",
        )
    if n == 0:
        return copy(x)
    ends = [e for e in (prepend, append) if e is not None]
    return _diff(x, *ends, n=n, axis=axis, first=prepend is not None, last=append is not None)


@samples_of(diff)
def _diff_samples() -> list[Sample]:
    def case(arg: Arg, **how: Any) -> Sample:
        return Sample(
            lambda x: diff(x, **how),
            (arg,),
            lambda np, x: np.diff(x, **how),
            relative=1e-6 if how.get("n", 1) > 1 else 0.0,
            gradient=arg.dtype.is_float,
        )

    plain: list[tuple[tuple[int, ...], int, int]] = [((5, 7), 1, -1), ((5, 7), 2, 0), ((4,), 3, 0)]
    plain += [((4,), 4, 0), ((4,), 9, 0), ((1,), 1, 0), ((0, 3), 1, 0), ((2, 5, 3), 1, 1)]
    joined = Sample(
        lambda x, y: diff(x, 1, 0, prepend=y, append=2.0),
        (Arg((4, 3)), Arg((2, 3))),
        lambda np, x, y: np.diff(x, 1, 0, prepend=y, append=np.float32(2)),
    )
    refused = Sample(lambda x: diff(x, -1), (Arg((3,)),), error=ValueError, match="n counts")
    return [
        *(case(Arg(s), n=n, axis=axis) for s, n, axis in plain),
        Sample(
            lambda x: diff(x, prepend=0.5),
            (Arg((6,)),),
            lambda np, x: np.diff(x, prepend=x.dtype.type(0.5)),
        ),
        case(Arg((3, 4), int64, -9, 9), axis=1),
        case(Arg((9,), bool_)),
        joined,
        refused,
    ]
