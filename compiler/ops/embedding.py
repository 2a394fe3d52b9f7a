"""Rows of a table by number."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.composite import composite, raw
from dualgrad.compiler.ops.elementwise import cast_node, stop_gradient, to
from dualgrad.compiler.ops.gather import check_index, take
from dualgrad.compiler.ops.index import one_hot as flags
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import int32, int64
from dualgrad.runtime.errors import IndexOutOfBounds, ShapeError


@composite
@raw
def _embedding(idx: Any, weight: Any, *, padding: int | None) -> Any:
    rows = take(weight, idx, 0)
    if padding is None:
        return rows
    hit = cast_node(idx, int64).eq(padding)
    mask = expand_to(hit.reshape((*idx.shape, 1)), rows.shape)
    return where(mask, stop_gradient(rows), rows)


def embedding(input: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """Return the rows of weight [n, d] with the numbers `input` [...], as [..., d].

    The gradient of a row is the sum over the places that show it, in their order; row
    `padding_idx` gets none.  Raises IndexOutOfBounds for numbers outside of [-n, n).
    """
    check_tensors("embedding", weight)
    check_index("embedding", input)
    if weight.ndim != 2:
        raise ShapeError(
            "the table has rows and columns",
            op="embedding",
            expect="weight (n, d)",
            actual=dim_text(weight.shape),
            hint="give the table first a size for numbers, then one for features",
        )
    n = weight.shape[0]
    if padding_idx is not None:
        if isinstance(n, int) and not -n <= padding_idx < n:
            raise IndexOutOfBounds(
                "padding_idx names no row",
                op="embedding",
                expect=f"-{n} <= padding_idx < {n}",
                actual=str(padding_idx),
                hint="make the table larger, or leave padding_idx out",
            )
        padding_idx = padding_idx + n if padding_idx < 0 else padding_idx
    return _embedding(input, weight, padding=padding_idx)


def one_hot(x: Any, num_classes: int = -1) -> Any:
    """Return int64 numbers [..., num_classes] that are 1 where the class equals x, else 0.

    Without `num_classes` it is one more than the largest class, which asks for a value.  Raises
    IndexOutOfBounds for a class outside of [0, num_classes).
    """
    check_index("one_hot", x)
    return to(flags(x, int(x.max().item()) + 1 if num_classes == -1 else num_classes), int64)


@samples_of(embedding)
def _embedding_cases() -> list[Sample]:
    idx = Arg((2, 3), int32, values=(0, 4, 4, 1))
    good = [
        Sample(
            lambda i, w, p=p: embedding(i, w, p),
            (idx, Arg((5, 3))),
            lambda np, i, w: w[i],
            gradient=p is None,
        )
        for p in (None, 4)
    ]
    bad = [
        (embedding, (idx, Arg((4, 3))), IndexError, "actual: 4"),
        (embedding, (idx, Arg((4,))), ValueError, "rows and columns"),
        (lambda i, w: embedding(i, w, 5), (idx, Arg((5, 3))), IndexError, "names no row"),
    ]
    return [*good, *(Sample(f, a, error=e, match=m) for f, a, e, m in bad)]


@samples_of(one_hot)
def _one_hot_samples() -> list[Sample]:
    classes = Arg((2, 3), int32, values=(0, 3, 1))
    return [
        Sample(
            lambda x: one_hot(x, 4),
            (classes,),
            lambda np, x: np.eye(4, dtype=np.int64)[x],
        ),
        Sample(lambda x: one_hot(x, 3), (classes,), error=IndexError, match="one_hot"),
    ]
