"""Counting how often numbers occur, or fall into bins.

A size that depends on values is asked for with `item()`, so these functions run eagerly unless
all bounds are given.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ops.arithmetic import minimum
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import Iota, count
from dualgrad.compiler.ops.elementwise import cast_node, to
from dualgrad.compiler.ops.gather import check_index
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.rounding import floor
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.search import searchsorted
from dualgrad.compiler.ops.slicing import narrow
from dualgrad.compiler.ops.take_put import Put, filled
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import float64, int64
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError


def totals(positions: Any, weights: Any, size: Dim) -> Any:
    """The sum of the weights that go to each of `size` positions, in their order."""
    column = (1, positions.size, 1)
    updates = expand_to(weights, positions.shape).reshape(column)
    zeros = filled(0, weights.dtype, (1, size, 1))
    return Put.of(0, "add").on(zeros, positions.reshape(column), updates).reshape((size,))


@composite
def _bincount(x: Node, *weights: Node, size: Dim) -> Any:
    if weights:
        (given,) = weights
        return totals(x, given if given.dtype.is_float else cast_node(given, float64), size)
    return totals(x, filled(1, int64, x.shape), size)


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """Return how often each of 0, 1, ..., max(x) occurs in x [n], at least `minlength` numbers.

    int64; with `weights` [n] the sum of the weights instead, in their order (float64 if they are
    no floats).  Raises ArgumentError for negative numbers.
    """
    check_index("bincount", x)
    if x.ndim != 1 or (weights is not None and weights.shape != x.shape):
        raise ShapeError(
            "numbers and weights stand in one dimension",
            op="bincount",
            expect="x (n,) and weights (n,)",
            actual=f"{x.shape}" + ("" if weights is None else f" and {weights.shape}"),
            hint="flatten them with .reshape(-1)",
        )
    if not isinstance(minlength, int) or minlength < 0:
        raise ArgumentError(
            "minlength is natural",
            op="bincount",
            expect="minlength >= 0",
            actual=f"{minlength}",
            hint="leave minlength out for as many counts as needed",
        )
    smallest, largest = (int(f().item()) for f in (x.min, x.max)) if x.size else (0, -1)
    if smallest < 0:
        raise ArgumentError(
            "only natural numbers are counted",
            op="bincount",
            expect="x >= 0",
            actual=f"{smallest}",
            hint="subtract the smallest first, or count classes with dg.unique_counts",
        )
    given = () if weights is None else (weights,)
    return _bincount(x, *given, size=max(largest + 1, minlength))


@composite
def _histc(x: Any, low: Any, high: Any, *, bins: Dim) -> Any:
    low, high = cast_node(low, x.dtype), cast_node(high, x.dtype)
    inside = (x >= low) & (x <= high)
    share = (x - low) / (high - low) * count(bins, x.dtype)
    place = to(where(inside, floor(share), 0.0), int64)
    place = minimum(place, count(bins - 1, int64))
    return totals(place, cast_node(inside, x.dtype), bins)


def histc(x: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """Return how many elements of x (floats) fall into each of `bins` bins of equal width.

    The bins span [min, max], or all of x if both are 0; the last one contains its upper end.
    Other elements do not count.  Returns [bins] of x's dtype.
    """
    check_tensors("histc", x)
    if not x.dtype.is_float:
        raise DTypeError(
            "counts floats",
            op="histc",
            expect="floats",
            actual=x.dtype.name,
            hint="convert with .astype(dg.float32), or use dg.bincount",
        )
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1 or min > max:
        raise ArgumentError(
            "there must be bins",
            op="histc",
            expect="bins >= 1 and min <= max",
            actual=f"bins={bins}, min={min}, max={max}",
            hint="give the lower end first",
        )
    low, high = float(min), float(max)
    if low == high:
        if low == 0 and x.size:
            low, high = x.min().item(), x.max().item()
        if low == high:
            low, high = low - 1, high + 1
    return _histc(x, low, high, bins=bins)


@composite
def _edges(x: Any, low: Any, high: Any, *, bins: Dim) -> Any:
    dtype = x.dtype if x.dtype.is_float else float64
    low, high = cast_node(low, dtype), cast_node(high, dtype)
    number = cast_node(Iota.of((bins + 1,), 0).on(), dtype)
    inner = low + number * ((high - low) / count(bins, dtype))
    return where(number.eq(count(bins, dtype)), high, inner)


@composite
def _histogram(x: Any, edges: Any, *weights: Any, density: bool) -> Any:
    flat, bins = x.reshape((x.size,)), edges.shape[0] - 1
    place = searchsorted(edges, flat, "right") - 1
    place = where(
        flat.eq(narrow(edges, 0, bins, 1).expand(flat.shape)), count(bins - 1, int64), place
    )
    inside = (place >= 0) & (place < count(bins, int64))
    given = weights[0].reshape((x.size,)) if weights else filled(1, int64, flat.shape)
    hits = totals(where(inside, place, 0), where(inside, given, 0), bins)
    if not density:
        return hits
    widths = narrow(edges, 0, 1, bins) - narrow(edges, 0, 0, bins)
    return cast_node(hits, widths.dtype) / cast_node(hits.sum(), widths.dtype) / widths


def histogram(
    x: Any, bins: Any = 10, range: Any = None, weights: Any = None, density: bool = False
) -> tuple[Any, Any]:
    """Return how many elements of x fall between neighbours among `bins` + 1 edges, and the edges.

    `bins` is a number of bins of equal width over `range` (low, high), all of x by default, or a
    tensor [n + 1] of ascending edges.  The last bin contains its upper end.  int64 [n], with
    `weights` (of x's shape) their sums; with `density` divided by the total and the widths.
    """
    if isinstance(bins, int):
        low, high = _range_of(x, range)
        if bins < 1 or not low <= high:
            raise ArgumentError(
                "there must be bins",
                op="histogram",
                expect="bins >= 1 and low <= high",
                actual=f"bins={bins}, range=({low}, {high})",
                hint="give the lower end first",
            )
        low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
        bins = _edges(x, low, high, bins=bins)
    check_tensors("histogram", bins)
    if bins.ndim != 1 or bins.shape[0] < 2 or (weights is not None and weights.shape != x.shape):
        raise ShapeError(
            "edges stand in one dimension, weights as the numbers do",
            op="histogram",
            expect=f"at least two edges, and weights {x.shape}",
            actual=f"edges {bins.shape}"
            + ("" if weights is None else f", weights {weights.shape}"),
            hint="make edges with dg.linspace(low, high, bins + 1)",
        )
    given = () if weights is None else (weights,)
    return _histogram(x, bins, *given, density=bool(density)), bins


def _range_of(x: Any, range: Any) -> tuple[float, float]:
    if range is not None:
        return float(range[0]), float(range[1])
    return (float(x.min().item()), float(x.max().item())) if x.size else (0.0, 1.0)


@samples_of(histogram)
def _histogram_cases() -> list[Sample]:
    x = Arg((6, 20), values=(-1.0, -0.75, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, -2.0, 0.3))
    edges = Arg((5,), values=(-1.0, 0.0, 0.3, 0.5, 1.5))

    def case(function: Any, *args: Any, density: bool = False) -> Sample:
        return Sample(
            lambda *a: function(None, *a, density)[0],
            args,
            lambda np, *a: function(np, *a, density)[0],
            relative=1e-6 * density,
            gradient=False,
        )

    def by_edges(np: Any, x: Any, e: Any, density: bool) -> Any:
        return (np.histogram if np else histogram)(x, e, density=density)

    def weighted(np: Any, x: Any, e: Any, w: Any, density: bool) -> Any:
        return (np.histogram if np else histogram)(x, e, weights=w, density=density)

    def by_range(np: Any, x: Any, density: bool) -> Any:
        return (np.histogram if np else histogram)(x, 8, (-1, 1), density=density)

    bad = Sample(
        lambda x, e: histogram(x, e)[0], (x, Arg((1,))), error=ValueError, match="edges stand"
    )
    whole = Arg((6, 20), int64, -4, 9)
    return [
        case(by_edges, x, edges),
        case(weighted, x, edges, Arg((6, 20), int64, -9, 9)),
        case(by_range, x),
        case(by_range, whole),
        bad,
    ]


@samples_of(histc)
def _histc_cases() -> list[Sample]:
    def reference(np: Any, x: Any, bins: int, low: float, high: float) -> Any:
        return np.histogram(x, bins, (low, high))[0].astype(x.dtype)

    values = (-1.0, -0.75, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, -2.0)
    return [
        Sample(
            lambda x, a=a: histc(x, *a),
            (Arg((4, 10), values=values),),
            lambda np, x, a=a: reference(np, x, *a),
            gradient=False,
        )
        for a in ((4, -1.0, 1.0), (8, 0.0, 1.0), (1, -1.0, 2.0))
    ]
