"""The product of elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import product
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.value import apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.precision import SINGLE, single
from dualgrad.compiler.ops.reduce import (
    Reduction,
    State,
    dtype_argument,
    reduce_axes,
    reduced,
    reduction_case,
    spread,
    wide,
)
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.scan import CumProd
from dualgrad.runtime.dtype import DType, bool_, float64, int64

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder


class Prod(Reduction):
    """The product of the elements; its gradient at one is the product of all others."""

    precision = SINGLE

    def init(self, b: Builder, dtype: DType) -> State:
        return (b.const(1, dtype),)

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        return (state[0] * xs[0],)

    def combine(self, b: Builder, left: State, right: State) -> State:
        return (left[0] * right[0],)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        shape, start, stop = x.shape, self.start, self.stop
        row = x.reshape((*shape[:start], product(shape[start:stop]), *shape[stop:]))
        (before,), (behind,) = (apply(CumProd.of(start, back, True), row) for back in (False, True))
        return (spread(g, self, shape) * (before * behind).reshape(shape),)

    @staticmethod
    def samples() -> list[Sample]:
        cases: list[tuple[tuple[int, ...], Any, bool]]
        cases = [((3, 4), None, False), ((5, 67), 1, True), ((70, 5), 0, False)]
        cases += [((2, 3, 4), (0, 2), False), ((0, 3), 0, False), ((2, 3), (), False)]
        cases += [((2, 1, 3), (1, 2), True), ((), None, False)]

        def zeros(axis: int | None) -> Sample:
            return Sample(
                lambda x: prod(x, axis),
                (Arg((4, 3), values=(1.5, 0.0, -2.0, 0.5, 3.0, 0.0, 1.25)),),
                lambda np, x: x.prod(axis),
                relative=1e-6,
            )

        wide_result = Sample(
            lambda x: prod(x, 0, dtype=float64),
            (Arg((9, 3)),),
            lambda np, x: x.prod(0, dtype=np.float64),
            relative=1e-14,
        )
        return [
            *(reduction_case(prod, "prod", *c, relative=1e-6) for c in cases),
            *(zeros(axis) for axis in (None, 0, 1)),
            reduction_case(prod, "prod", (3, 5), 1, False, dtype=int64),
            reduction_case(prod, "prod", (3, 5), 1, False, dtype=bool_),
            wide_result,
        ]


@composite
@single
def _prod(x: Node, *, axes: tuple[int, ...], keepdims: bool, dtype: DType | None) -> Node:
    return reduce_axes(Prod, cast_node(x, dtype or wide(x.dtype)), axes, keepdims)


@public("prod")
def prod(x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **dim: Any) -> Any:
    """Return the product over `axis`; 1 for an empty run.  Gradients are right at zeros as well.

    x is converted to `dtype` first, if given; else integers and bools are multiplied in 64 bits.
    """
    axes, keep = reduced("prod", x, axis, keepdims, dim)
    return _prod(x, axes=axes, keepdims=keep, dtype=dtype_argument(dtype))
