"""Sorting: positions come from a function of the host, values are picked by them."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import public
from dualgrad.compiler.ops.base import LAST, axis_argument, normalize_axis
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.gather import take_along_axis
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import KEPT
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, samples_of
from dualgrad.compiler.ops.slicing import narrow
from dualgrad.runtime.dtype import DType, float32, int64
from dualgrad.runtime.errors import ArgumentError


class Argsort(Library):
    """The positions along an axis in ascending (0) or descending (1) order."""

    precision = KEPT

    axis: int
    descending: int
    checked = False
    routine = "argsort"
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_dtype(int64)

    @staticmethod
    def samples() -> list[Sample]:
        def case(shape: tuple[int, ...], axis: int, **more: Any) -> Sample:
            arg = Arg(shape, **more)
            return Sample(
                lambda x: argsort(x, axis),
                (arg,),
                lambda np, x: np.argsort(x, axis=axis, kind="stable"),
                gradient=False,
            )

        def descending(dtype: DType, values: tuple[float, ...]) -> Sample:
            return Sample(
                lambda x: argsort(x, descending=True),
                (Arg((3, 9), dtype, values=values),),
                lambda np, x: np.lexsort(
                    (np.where(np.isnan(x), 0, -np.asarray(x)), np.isnan(x)), axis=-1
                ),
                gradient=False,
            )

        return [
            case((3, 5), -1),
            case((5, 3), 0, layout="transposed"),
            case((2, 4, 3), 1, layout="strided"),
            case((0,), 0),
            case((2, 10), 1, values=SPECIAL),
            case((40,), 0, values=(3.0, 1.0, 2.0, 1.0)),
            case((3, 5), 1, dtype=int64, low=-3, high=3),
            descending(float32, (1.0, float("nan"), 3.0, 1.0, -2.0)),
            descending(int64, (1, 5, 3, 1, -2)),
            Sample(lambda x: argsort(x, 1), (Arg((3,)),), error=ValueError, match="out of range"),
        ]


@composite
def _argsort(x: Any, *, axis: int, descending: bool) -> Any:
    return Argsort.of(axis, int(descending)).on(x)


@public("argsort")
def argsort(
    x: Any, axis: int = LAST, descending: bool = False, stable: bool = True, **dim: Any
) -> Any:
    """Return the int64 positions that sort x along `axis`.

    Equal elements stay in order, whether `stable` asks for it or not; NaN comes last.
    """
    check_tensors("argsort", x)
    if x.ndim == 0:
        return argsort(x.reshape(1), 0).reshape(())
    axis = normalize_axis("argsort", axis_argument("argsort", axis, dim), x.ndim)
    return _argsort(x, axis=axis, descending=bool(descending))


@composite
def _sort(x: Any, *, axis: int, descending: bool) -> Any:
    return take_along_axis(x, Argsort.of(axis, int(descending)).on(x), axis)


@public("sort")
def sort(
    x: Any, axis: int = LAST, descending: bool = False, stable: bool = True, **dim: Any
) -> Any:
    """Return x sorted along `axis`; see `argsort` for the order.

    The gradient goes back to where each element came from.
    """
    check_tensors("sort", x)
    if x.ndim == 0:
        return sort(x.reshape(1), 0).reshape(())
    axis = normalize_axis("sort", axis_argument("sort", axis, dim), x.ndim)
    return _sort(x, axis=axis, descending=bool(descending))


def msort(x: Any) -> Any:
    """Return x sorted along its first axis."""
    return sort(x, 0)


@composite
def _topk(x: Any, *, k: Dim, axis: int, largest: bool) -> Any:
    order = narrow(Argsort.of(axis, int(largest)).on(x), axis, 0, k)
    return take_along_axis(x, order, axis), order


@public("topk")
def topk(
    x: Any, k: int, axis: int = LAST, largest: bool = True, sorted: bool = True, **dim: Any
) -> tuple[Any, Any]:
    """Return (values, int64 positions) of the k largest (or smallest) elements along `axis`.

    They come in order, whether `sorted` asks for it or not, the first of equal elements first;
    NaN comes last.  Raises ArgumentError unless 0 <= k <= size.
    """
    check_tensors("topk", x)
    axis = axis_argument("topk", axis, dim)
    if x.ndim == 0:
        values, positions = topk(x.reshape(1), k, 0, largest)
        return values.reshape(()), positions.reshape(())
    axis = normalize_axis("topk", axis, x.ndim)
    n = x.shape[axis]
    if isinstance(k, bool) or (isinstance(n, int) and isinstance(k, int) and not 0 <= k <= n):
        raise ArgumentError(
            "no such number",
            op="topk",
            expect=f"0 <= k <= {n}",
            actual=f"k={k}",
            hint=f"ask for at most {n} elements: min(k, {n})",
        )
    found: tuple[Any, Any] = _topk(x, k=k, axis=axis, largest=bool(largest))
    return found


@samples_of(sort)
def _sort_samples() -> list[Sample]:
    def good(arg: Arg, axis: int, descending: bool = False) -> Sample:
        def reference(np: Any, x: Any) -> Any:
            found = np.sort(x, axis=axis)
            return np.flip(found, axis) if descending else found

        smooth = arg.values is None and arg.dtype is float32
        return Sample(lambda x: sort(x, axis, descending), (arg,), reference, gradient=smooth)

    return [
        good(Arg((3, 5)), -1),
        good(Arg((5, 3), layout="transposed"), 0, True),
        good(Arg((2, 4, 3)), 1, True),
        good(Arg((0, 2)), 0),
        good(Arg((2, 10), values=SPECIAL[2:]), 1),
        good(Arg((3, 5), int64, -3, 3), 1, True),
        Sample(lambda x: sort(x), (Arg(()),), lambda np, x: x),
    ]


@samples_of(topk)
def _topk_samples() -> list[Sample]:
    def good(k: int, shape: tuple[int, ...], part: int, largest: bool, axis: int = -1) -> Sample:
        def reference(np: Any, x: Any) -> Any:
            order = np.argsort(-x if largest else x, axis=axis, kind="stable")
            order = np.take(order, np.arange(k), axis)
            return order if part else np.take_along_axis(x, order, axis)

        return Sample(
            lambda x: topk(x, k, axis, largest)[part],
            (Arg(shape),),
            reference,
            gradient=not part,
        )

    return [
        good(2, (3, 5), 0, True),
        good(2, (3, 5), 1, True),
        good(3, (4, 2), 0, False, 0),
        good(0, (3,), 0, True),
        good(5, (2, 5, 2), 1, False, 1),
        Sample(lambda x: topk(x, 4), (Arg((3,)),), error=ValueError, match="no such number"),
    ]


@samples_of(msort)
def _msort_samples() -> list[Sample]:
    return [Sample(msort, (Arg((5, 3)),), lambda np, x: np.sort(x, axis=0))]
