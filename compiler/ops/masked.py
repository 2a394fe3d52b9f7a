"""New tensors in which the elements that a mask chooses are replaced."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import product, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.value import dim_text, public
from dualgrad.compiler.ops.composite import composite, raw
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.scan import cumsum
from dualgrad.compiler.ops.scatter import check_scalar, check_updates
from dualgrad.compiler.ops.take_put import Take
from dualgrad.compiler.ops.view import expand, expand_to
from dualgrad.runtime.dtype import bool_, int64
from dualgrad.runtime.errors import DTypeError, ShapeError


def check_mask(op: str, x: Any, mask: Any) -> None:
    """Refuse what is no bool tensor that broadcasts to x."""
    if mask.dtype is not bool_:
        raise DTypeError(
            "a mask is bool",
            op=op,
            expect="bool",
            actual=mask.dtype.name,
            hint="compare: mask != 0",
        )
    pairs = zip(reversed(mask.shape), reversed(x.shape), strict=False)
    if mask.ndim > x.ndim or not all(n == 1 or same(n, m) for n, m in pairs):
        raise ShapeError(
            "the mask does not fit",
            op=op,
            expect=f"a shape that broadcasts to {dim_text(x.shape)}",
            actual=dim_text(mask.shape),
            hint="compute the mask from the tensor itself",
        )


def _widened(x: Any, mask: Any) -> Any:
    """x repeated along axes that it has not, or with size 1, where the mask has more."""
    sizes = (1,) * (mask.ndim - x.ndim) + x.shape
    masks = (1,) * (len(sizes) - mask.ndim) + mask.shape
    full = tuple(m if n == 1 else n for n, m in zip(sizes, masks, strict=True))
    return x if full == x.shape else expand(x, full)


@composite
@raw
def _masked_fill(x: Node, mask: Node, value: Node) -> Any:
    return where(mask, expand_to(cast_node(value, x.dtype), x.shape), x)


@public("masked_fill")
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """Return x with `value` (a number or a tensor without dimensions) where `mask` holds; x
    and the mask broadcast."""
    check_tensors("masked_fill", x, mask)
    x = _widened(x, mask)
    check_mask("masked_fill", x, mask)
    check_scalar("masked_fill", value)
    return _masked_fill(x, mask, value)


@composite
@raw
def _masked_scatter(x: Node, mask: Node, source: Node) -> Any:
    full, count = expand_to(mask, x.shape), product(x.shape)
    number = cumsum(cast_node(full.reshape((count,)), int64), 0) - 1
    place = where(full.reshape((count,)), number, 0).reshape((1, count, 1))
    flat = cast_node(source, x.dtype).reshape((1, source.size, 1))
    return where(full, Take.of(0).on(flat, place).reshape(x.shape), x)


@public("masked_scatter")
def masked_scatter(x: Any, mask: Any, source: Any) -> Any:
    """Return x whose elements where `mask` holds are the elements of `source` in their order; x
    and the mask broadcast.

    Raises IndexOutOfBounds if `source` has too few.
    """
    check_tensors("masked_scatter", x, mask)
    x = _widened(x, mask)
    check_mask("masked_scatter", x, mask)
    check_updates("masked_scatter", x, source)
    return x if x.size == 0 else _masked_scatter(x, mask, source)


@samples_of(masked_fill)
def _masked_fill_cases() -> list[Sample]:
    mask = Arg((3, 4), bool_, values=(1, 0, 0))
    row = Arg((4,), bool_, values=(0, 1))
    good = [
        Sample(
            masked_fill, (Arg((3, 4)), m, v), lambda np, x, m, v: np.where(m, v, x).astype(x.dtype)
        )
        for m in (mask, row)
        for v in (0.5, Arg(()))
    ]
    bad = [
        ((Arg((3, 4)), Arg((3, 4)), 1.0), TypeError, "a mask is bool"),
        ((Arg((3, 4)), Arg((3,), bool_), 1.0), ValueError, "the mask does not fit"),
        ((Arg((3, 4)), mask, Arg((4,))), ValueError, "one value"),
    ]
    return [*good, *(Sample(masked_fill, a, error=e, match=m) for a, e, m in bad)]


@samples_of(masked_scatter)
def _masked_scatter_cases() -> list[Sample]:
    def reference(np: Any, x: Any, mask: Any, source: Any) -> Any:
        out, full = x.copy(), np.broadcast_to(mask, x.shape)
        out[full] = source.ravel()[: full.sum()]
        return out

    mask = Arg((3, 4), bool_, values=(1, 0, 0, 1, 1))
    few = (Arg((3, 4)), mask, Arg((2,)))
    return [
        Sample(masked_scatter, (Arg((3, 4)), mask, Arg((5, 2))), reference),
        Sample(
            masked_scatter, (Arg((2, 3)), Arg((3,), bool_, values=(0, 1)), Arg((9,))), reference
        ),
        Sample(masked_scatter, few, error=IndexError, match="actual: 2"),
    ]
