"""Changes in place while gradients are recorded.

A tensor that is overwritten has the history of the unit that made its new values.  A view stands
for a part of the tensor behind it: on the tape that tensor becomes its old self with the part
replaced.  All views of it are stale then; see `history`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.region import overwriting
from dualgrad.compiler.ops.view import Expand, View
from dualgrad.gradients.history import (
    NO_GRAD,
    NOTHING,
    OPEN,
    Named,
    outdate,
    root_of,
    shown_by,
    unwritable_kind,
)
from dualgrad.gradients.tape import Saves, TapeNode, edge_of, saves_of
from dualgrad.runtime.errors import GradientError
from dualgrad.state import no_grad, state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

Step = tuple["Tensor", "Tensor", View]  # a view, what it is a view of, and how


def write_recorded(target: Tensor, unit: Unit, others: tuple[Any, ...]) -> None:
    """Overwrite a tensor with unit(target, *others), and record it.

    Raises GradientError for a leaf that requires gradients, a view of one, a view of a kind that
    cannot be changed, and one whose memory cannot be followed.
    """
    steps = steps_behind(target, unit)
    for x in others:
        if hasattr(x, "sig"):
            edge_of(x)  # a history that is lost is noticed before anything has changed
    kept: tuple[tuple[Any, ...], Saves] = ((), {})

    def before(operands: tuple[Any, ...], known: Saves) -> None:
        nonlocal kept
        old = target
        read = saves_of(unit, operands, known)
        if any(k in read for k, x in enumerate(operands) if x is target):
            old = second(target)
            old.requires_grad, old.grad_fn = target.requires_grad, target.grad_fn
            old.output_number = getattr(target, "output_number", 0)
        kept = tuple(old if x is target else x for x in operands), known

    trace = state.trace
    if trace is None:
        target.run_write(unit, (target, *others), before)
        shown = target
    else:
        operands = (target, *others)
        before(operands, trace.saves_of(unit, operands))
        trace.write(target, unit, others)
        shown = trace.second(target)
    rebase(target, steps, new_node(unit, *kept, shown), 0)


def check_unseen(view: Tensor, writer: Named) -> None:
    """Refuse to overwrite a view that was made under `no_grad` and shows a tensor that requires
    gradients: they would not notice."""
    assert view.origin is not None
    if view.origin[3] == NO_GRAD and root_of(view).requires_grad:
        raise unwritable_kind(view, writer.name)


def rebase(target: Tensor, steps: list[Step], node: TapeNode, k: int) -> None:
    """Let a tensor that has been overwritten be result `k` of a node, and what it shows follow."""
    new, root = target.with_history(node, k), target
    for _, root, how in steps:
        node, k = TapeNode(overwriting(how), (root, new), (root,), NOTHING), 0
        new = root.with_history(node, k)
    root.become(node, k)
    outdate(root)


def second(x: Tensor) -> Tensor:
    """The value of a tensor that is about to be changed, in memory of its own."""
    with no_grad():
        if state.trace is None:
            return x.detached().clone()
        out = state.trace.before_change(x)
    out._version = [0, None, None]
    return out


def new_node(unit: Unit, operands: tuple[Any, ...], known: Saves, shown: Tensor) -> TapeNode:
    """A change on the tape.  Operands that share the memory were used before it."""
    node = TapeNode(unit, operands, (shown,), known)
    n, version = len(operands), shown._version
    before = [
        v - (getattr(x, "_version", None) is version)
        for x, v in zip(node.inputs, node.versions, strict=False)
    ]
    node.versions = (*before, *node.versions[n:])
    return node


def steps_behind(target: Tensor, writer: Named) -> list[Step]:
    """What a tensor that `writer` is to overwrite is a view of, step by step.

    Raises GradientError where that must not be done, and ArgumentError for memory that cannot be
    written.
    """
    steps: list[Step] = []
    view = target
    view.check_writeable(writer)
    if view.origin is not None and view.origin[3] != OPEN:
        raise unwritable_kind(view, writer.name)
    while view.origin is not None:
        source, how = view.origin[:2]
        shown: View | None = shown_by(source, how)
        if shown is None or isinstance(shown, Expand) or shown.shared:
            raise _cannot_follow(view, writer.name)
        steps.append((view, source, shown))
        view = source
    for x in (*[v for v, _, _ in steps], view):
        if x.requires_grad and x._grad_fn is None:
            raise _is_leaf(x, "a view of " if steps else "", writer.name)
    if state.trace is not None:
        state.trace.check_recorded(view, writer)
    return steps


def _is_leaf(x: Tensor, part: str, op: str) -> GradientError:
    return GradientError(
        f"{part}a leaf that requires gradients cannot be changed in place",
        op=op,
        expect="a change under dg.no_grad()",
        actual=f"{part}{x.type!r} with requires_grad=True",
        hint="with dg.no_grad(): ...",
    )


def _cannot_follow(view: Tensor, op: str) -> GradientError:
    return GradientError(
        "a view cannot be changed in place whose elements cannot be told apart",
        op=op,
        expect="a view that shows each element of its base at most once, or dg.no_grad()",
        actual=f"{view.type!r}",
        hint="clone() it first",
    )
