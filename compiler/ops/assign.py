"""What a change in place stores: a source with the dtype and shape of its target."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.composite import composite, raw
from dualgrad.compiler.ops.elementwise import cast_node, copy
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.errors import ShapeError


@composite
@raw
def assign(target: Any, source: Any) -> Any:
    """source with the dtype and shape of target."""
    if source.ndim > target.ndim or any(
        n != 1 and n != m
        for n, m in zip(reversed(source.shape), reversed(target.shape), strict=False)
    ):
        raise ShapeError(
            "shapes do not fit",
            op="copy_",
            expect=f"a source that broadcasts to {target.shape}",
            actual=f"{source.shape}",
            hint="reshape the source",
        )
    return copy(expand_to(cast_node(source, target.dtype), target.shape))


ASSIGN: Unit = assign.unit  # type: ignore[attr-defined]
