"""Sorting: positions come from a function of the host, values are picked by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import public
from dualgrad.compiler.ops.base import axis_argument, normalize_axis
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample
from dualgrad.runtime.dtype import DType, float32, int64


@dataclass(frozen=True, eq=False)
class Argsort(Library):
    """The positions along an axis in ascending (0) or descending (1) order."""

    axis: int
    descending: int
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
    x: Any, axis: int = -1, descending: bool = False, stable: bool = True, **dim: Any
) -> Any:
    """Return the int64 positions that sort x along `axis`.

    Equal elements stay in order, whether `stable` asks for it or not; NaN comes last.
    """
    if x.ndim == 0:
        return argsort(x.reshape(1), 0).reshape(())
    axis = normalize_axis("argsort", axis_argument("argsort", axis, dim), x.ndim)
    return _argsort(x, axis=axis, descending=bool(descending))
