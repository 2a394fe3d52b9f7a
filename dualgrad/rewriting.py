"""Changes of views while gradients are recorded.

A view that is overwritten stands for a part of the tensor behind it: on the tape that tensor
becomes its old self with the part replaced, and the view a view of the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Unit, apply
from dualgrad.compiler.ops.region import overwriting
from dualgrad.compiler.ops.view import Expand, View
from dualgrad.dispatch import check_write
from dualgrad.runtime.errors import GradientError
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

Step = tuple["Tensor", "Tensor", View]  # a view, what it is a view of, and how


def write_view(view: Tensor, unit: Unit, others: tuple[Any, ...]) -> bool:
    """Overwrite a view with unit(view, *others) and record it; False where that cannot be done:
    if other views of the memory are alive, or the tensor behind is a leaf or unknown."""
    steps = steps_behind(view)
    if steps is None:
        return False
    root = steps[-1][1]
    family = {id(v) for v, _, _ in steps}
    strangers = any(id(v) not in family for v in root.views)
    if strangers or root.base is not None or (root.requires_grad and root.grad_fn is None):
        return False
    if state.trace is not None:
        state.trace.check_recorded(root, unit)
    (value,) = view.apply_unit(unit, (view, *others))
    check_write(unit, view.type, value.type)
    new = value
    for _, source, how in steps:
        (new,) = source.apply_unit(overwriting(how), (source, new))
    if state.trace is not None:
        state.trace.assign(root, new.node)
    else:
        view.store(value)
    root.become(new)
    for v, _, how in reversed(steps):
        (new,) = apply(how, new)
        v.become(new)
    return True


def steps_behind(view: Tensor) -> list[Step] | None:
    """What a tensor is a view of, step by step; None if not all of it is known."""
    steps: list[Step] = []
    while view.origin is not None:
        source, how = view.origin
        shown: View | None = how(source) if callable(how) else how
        if shown is None or isinstance(shown, Expand) or shown.shared:
            return None
        steps.append((view, source, shown))
        view = source
    return steps or None


def refuse(tensor: Tensor, unit: Unit) -> GradientError:
    """The error of a change that cannot be recorded."""
    own = f"{tensor.type!r}, of which there are views"
    return GradientError(
        "views and their bases cannot be changed in place while gradients are recorded",
        op=unit.name,
        expect="a tensor whose memory no other view shares, or dg.no_grad()",
        actual=own if tensor.base is None else f"a view of {tensor.base.type!r}",
        hint="clone() it first",
    )
