"""Binary search: where numbers belong in sorted ones, and whether they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dualgrad.compiler.ir.dims import Dim, at_most, product, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply, dim_text
from dualgrad.compiler.kernel.scalar import Scalar, cast, index
from dualgrad.compiler.ops.arguments import check_choice
from dualgrad.compiler.ops.arithmetic import minimum
from dualgrad.compiler.ops.base import result_dtype
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import count
from dualgrad.compiler.ops.elementwise import cast_node, to
from dualgrad.compiler.ops.gather import take, take_along_axis
from dualgrad.compiler.ops.index import Index, Loads
from dualgrad.compiler.ops.logical import eq, ne
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, samples_of
from dualgrad.compiler.ops.sort import argsort
from dualgrad.compiler.ops.take_put import filled
from dualgrad.runtime.dtype import bool_, float64, int32, int64
from dualgrad.runtime.errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

STRIDE = 4  # steps by which the depth of a search grows: one program serves 16 times the sizes


def depth(n: Dim) -> int:
    """Steps that find a place among n sorted elements; sizes that are symbols leave guards."""
    steps = STRIDE
    while not at_most(n, (1 << steps) - 1):
        steps += STRIDE
    return steps


def before(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """Whether x comes before y in sorted order, NaN being the last of all."""
    return (x < y) | (b.isnan(y) & ~b.isnan(x)) if x.dtype.is_float else x < y


def widened(x: Scalar) -> Scalar:
    """x in a dtype that can be compared."""
    return cast(x, x.dtype.compute)


class Search(Index):
    """For sorted rows x [o, n] and y [o, m]: how many of a row come before y[o, j] (or, with
    `right`, not after it), an int64 [o, m].  NaN counts as the largest."""

    right: int
    vjp = None
    gathers: ClassVar[dict[int, tuple[int, ...]]] = {0: (1,)}

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(types[1].shape, int64, False, types[1].device)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        n = loads.shape(0)[1]
        low, high = index(0), index(n)
        if n == 0:
            return low
        wanted = widened(loads(1, at))
        for _ in range(depth(n)):
            middle = (low + high) >> 1
            # an interval that is empty already stays so, whatever stands there
            there = widened(loads.gather(0, (at[0], b.minimum(middle, index(n - 1)))))
            passes = ~before(b, wanted, there) if self.right else before(b, there, wanted)
            goes = (low < high) & passes
            low, high = b.select(goes, middle + 1, low), b.select(goes, high, middle)
        return low

    @staticmethod
    def samples() -> list[Sample]:
        rows = Arg((2, 5), values=(-1.0, 0.0, 0.5, 0.5, 2.0, -3.0, -1.0, -1.0, 4.0, float("inf")))
        wanted = Arg((2, 6), values=(0.5, -4.0, 9.0, -1.0, 0.0, float("nan")))

        def reference(np: Any, x: Any, y: Any, side: str) -> Any:
            return np.stack([np.searchsorted(r, v, side) for r, v in zip(x, y, strict=True)])

        return [
            Sample(
                lambda x, y, k=k: apply(Search.of(k), x, y)[0],
                (rows, wanted),
                lambda np, x, y, k=k: reference(np, x, y, ("left", "right")[k]),
                gradient=False,
            )
            for k in (0, 1)
        ]


@composite
def _searchsorted(x: Node, y: Any, *, right: bool) -> Any:
    dtype = result_dtype("searchsorted", [x.type, y.type])
    x, y = cast_node(x, dtype), cast_node(y, dtype)
    outer = product(x.shape[:-1])
    rows = x.reshape((outer, x.shape[-1]))
    wanted = y.reshape((outer, y.size if x.ndim == 1 else y.shape[-1]))
    return Search.of(int(right)).on(rows, wanted).reshape(y.shape)


def searchsorted(
    sorted_sequence: Any,
    values: Any,
    side: str = "left",
    *,
    right: bool = False,
    sorter: Any = None,
    out_int32: bool = False,
) -> Any:
    """Return the int64 positions at which `values` keep `sorted_sequence` sorted.

    sorted_sequence [n] with values of any shape, or [..., n] with values [..., m].  With side
    "left" the first such position, with "right" (or right=True) the last.  NaN counts as the
    largest.  `sorter` holds the positions that sort the sequence.  `out_int32` gives int32.
    """
    check_tensors("searchsorted", sorted_sequence)
    check_choice("searchsorted", "side", side, ("left", "right"))
    x = sorted_sequence
    if sorter is not None:
        x = take_along_axis(x, sorter, -1)
    if x.ndim == 0 or (x.ndim > 1 and not _same_rows(x, values)):
        raise ShapeError(
            "values and sequences do not fit",
            op="searchsorted",
            expect="a sequence (n,), or (..., n) with values (..., m)",
            actual=f"{dim_text(x.shape)} and {dim_text(getattr(values, 'shape', ()))}",
            hint="all sizes but the last are equal",
        )
    if bool_ in (x.dtype, getattr(values, "dtype", None)):
        raise DTypeError(
            "does not take bools",
            op="searchsorted",
            expect="numbers",
            actual="bool",
            hint="convert with .astype(dg.int64)",
        )
    found = _searchsorted(x, values, right=bool(right) or side == "right")
    return to(found, int32) if out_int32 else found


def _same_rows(x: Any, values: Any) -> bool:
    shape = getattr(values, "shape", ())
    pairs = zip(x.shape[:-1], shape[:-1], strict=False)
    return len(shape) == x.ndim and all(same(n, m) for n, m in pairs)


def bucketize(input: Any, boundaries: Any, right: bool = False, *, out_int32: bool = False) -> Any:
    """Return the int64 (or int32) number of the bin of each element: i where boundaries[i-1] < x <=
    boundaries[i], with `right` where boundaries[i-1] <= x < boundaries[i]."""
    return searchsorted(boundaries, input, right=right, out_int32=out_int32)


def isin(elements: Any, test_elements: Any, invert: bool = False) -> Any:
    """Return whether each element is among `test_elements` (or, inverted, is not); NaN never is.

    bool, of the shape of `elements`.  Looks each one up among the sorted ones.
    """
    if isinstance(test_elements, bool | int | float):
        return ne(elements, test_elements) if invert else eq(elements, test_elements)
    check_tensors("isin", test_elements)
    flat = test_elements.reshape((test_elements.size,))
    if flat.size == 0:
        return _everywhere(elements, value=bool(invert))
    if flat.dtype is bool_:
        elements, flat = to(elements, int64), to(flat, int64)
    ordered = take(flat, argsort(flat), 0)
    return _among(elements, ordered, searchsorted(ordered, elements), invert=bool(invert))


@composite
def _everywhere(x: Any, *, value: bool) -> Any:
    return filled(value, bool_, x.shape)


@composite
def _among(x: Any, ordered: Any, place: Any, *, invert: bool) -> Any:
    last = ordered.shape[0] - 1
    found = take(ordered, minimum(place, count(last, int64)), 0).eq(x)
    return ~found if invert else found


# -- samples --------------------------------------------------------------------------------------


@samples_of(searchsorted)
def _searchsorted_cases() -> list[Sample]:
    ordered = Arg((7,), values=(-2.0, -1.0, -1.0, 0.0, 0.25, 1.0, float("inf")))
    many = Arg((300,), int32, values=tuple(range(-150, 150)))
    cases = [(ordered, Arg((3, 10), values=SPECIAL)), (ordered, Arg((), values=(-1.0,)))]
    cases += [(many, Arg((40,), int64, -200, 200)), (ordered, Arg((0,))), (Arg((0,)), Arg((3,)))]
    cases += [(Arg((7,), float64, values=ordered.values), Arg((5,))), (many, Arg((9,), float64))]
    good = [
        Sample(
            lambda x, y, s=s: searchsorted(x, y, s),
            args,
            lambda np, x, y, s=s: np.searchsorted(x, y, s),
            gradient=False,
        )
        for args in cases
        for s in ("left", "right")
    ]
    unsorted = Arg((5,), values=(3.0, -1.0, 2.0, 0.0, 9.0))
    order = Arg((5,), int64, values=(1, 3, 2, 0, 4))
    good.append(
        Sample(
            lambda x, y, i: searchsorted(x, y, sorter=i),
            (unsorted, Arg((6,)), order),
            lambda np, x, y, i: np.searchsorted(x, y, sorter=i),
            gradient=False,
        )
    )
    bad = [
        (lambda x, y: searchsorted(x, y, "middle"), (ordered, ordered), ValueError, "side"),
        (searchsorted, (Arg((2, 3)), Arg((3,))), ValueError, "do not fit"),
        (searchsorted, (Arg((3,), bool_), ordered), TypeError, "bools"),
    ]
    return [*good, *(Sample(f, a, error=e, match=m) for f, a, e, m in bad)]


@samples_of(bucketize)
def _bucketize_cases() -> list[Sample]:
    edges = Arg((4,), values=(-1.0, 0.0, 0.5, 1.5))
    return [
        Sample(
            lambda x, e, r=r: bucketize(x, e, r),
            (Arg((3, 5)), edges),
            lambda np, x, e, r=r: np.digitize(x, e, right=not r),
            gradient=False,
        )
        for r in (False, True)
    ]


@samples_of(isin)
def _isin_cases() -> list[Sample]:
    x = Arg((4, 5), int64, -4, 4)
    special = (Arg((2, 10), values=SPECIAL), Arg((4,), values=(0.0, float("nan"), 3e38, 7.0)))
    flags = (Arg((3,), bool_, values=(1, 0)), Arg((2,), bool_, values=(1,)))
    pairs = [(x, Arg((3,), int64, -4, 4)), (x, Arg((0,), int64)), special, flags]
    return [
        Sample(
            lambda x, y, k=k: isin(x, y, k),
            args,
            lambda np, x, y, k=k: np.isin(x, y, invert=k),
            gradient=False,
        )
        for args in pairs
        for k in (False, True)
    ]
