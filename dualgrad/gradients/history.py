"""Views and their histories, by PyTorch's rules.

A view of a tensor with a history has one of its own: the view, applied to the tensor.  Once the
memory has been changed in place while gradients are recorded, that does not hold any more for any
view of it: it is `STALE`, and gets a new one, from the new history of the tensor behind it, when it
is asked for.

Three kinds of views do not: those made under `no_grad`, those of a function that gives several
(`split`, `chunk`, `unbind`, iteration), and those out of a user's own `Function`.  They cannot be
changed while gradients are recorded, nor be used after such a change of what they show.
"""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from dualgrad.compiler.ops.view import View
from dualgrad.gradients.hooks import (
    move_retention,
    put_off_retention,
    retain,
    retains,
    take_up_retention,
)
from dualgrad.gradients.tape import STALE, Kept, Saves, TapeNode, next_number
from dualgrad.jit.errors import Unsupported
from dualgrad.runtime.errors import GradientError, ShapeError
from dualgrad.runtime.srcinfo import user_place
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

# Of a view: its source, the op or the key of an index (None: unknown), its number among all views,
# and what kind it is.
Origin = tuple["Tensor", Any, int, str]
OPEN, NO_GRAD, SEVERAL, FUNCTION = "", "no_grad", "several", "function"
NOTHING: Saves = {1: Kept(), 2: Kept(), 3: Kept()}  # read by gradients of views
MANY = 32  # views from which on the list of them is searched for dead ones
next_view = itertools.count(1).__next__


class Named(Protocol):
    """What a change in place is called by: a unit, or a function of the user's own."""

    @property
    def name(self) -> str: ...


class Viewing:
    """The part of `Tensor` that knows views and histories.

    `_version` is shared by all tensors over the same memory: how often it has been changed, weak
    references to the views that are not stale, and the user's line of the last change.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        base: Tensor | None
        origin: Origin | None
        output_number: int
        requires_grad: bool
        _grad_fn: Any
        _version: list[Any]

        def detached(self) -> Tensor: ...

        def requires_grad_(self, requires_grad: bool = True) -> Tensor: ...

    @property
    def grad_fn(self) -> TapeNode | None:
        """The place on the tape that the tensor comes from; None for a leaf.

        Raises GradientError for a view that has lost its history; see the module.
        """
        found = self._grad_fn
        if found is STALE:
            resolve(self)  # type: ignore[arg-type]
            found = self._grad_fn
        return found  # type: ignore[no-any-return]

    @grad_fn.setter
    def grad_fn(self, node: TapeNode | None) -> None:
        self._grad_fn = node

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was not computed from one that requires gradients."""
        return self.grad_fn is None

    @property
    def version(self) -> int:
        """How often the memory has been changed in place; shared with all that shares it."""
        return int(self._version[0])

    @property
    def views(self) -> list[Tensor]:
        """The views alive that share the memory, but for those that are stale."""
        return [x for ref in self._version[1] or () if (x := ref()) is not None]

    def shares(self: Tensor, view: Tensor, how: Any) -> None:  # type: ignore[misc]
        """Let `view` be a view of the memory, made by the op or the key `how`."""
        view.base = self if self.base is None else self.base
        kind = OPEN if state.grad_enabled else NO_GRAD
        if self.origin is not None:
            kind = self.origin[3] or kind
        view.origin = (self, how, next_view(), kind)
        view._version = self._version
        show(view)

    def one_of_several(self: Tensor) -> Tensor:  # type: ignore[misc]
        """Note that the tensor is one of several views that one function makes; returns it."""
        if self.origin is not None and self.origin[3] == OPEN:
            self.origin = (*self.origin[:3], SEVERAL)
        return self

    def of_function(self: Tensor) -> None:  # type: ignore[misc]
        """Note that the tensor, if it is a view, is the result of a function of the user's own."""
        if self.origin is not None:
            self.origin = (*self.origin[:3], FUNCTION)

    def changed(self, own: int = 1) -> None:
        """Note a change in place; `own` counts the frames of dualgrad that are known to run."""
        version = self._version
        version[0] += 1
        version[2] = user_place(own + 1)

    def become(self: Tensor, node: TapeNode, k: int) -> None:  # type: ignore[misc]
        """Be result `k` of a recorded unit from now on."""
        old = (self._grad_fn, getattr(self, "output_number", 0))
        self.requires_grad, self._grad_fn, self.output_number = True, node, k
        move_retention(self, *old)

    def detach_(self: Tensor) -> Tensor:  # type: ignore[misc]
        """Forget the history: the tensor is a leaf without gradients from now on; returns self.

        Raises GradientError for a view, whose base would keep its own: use `detach()`.
        """
        if self.origin is not None:
            raise GradientError(
                "a view cannot be cut off from what it shows",
                op="detach_",
                expect="a tensor that is no view",
                actual=f"a view of {self.origin[0].type!r}",
                hint="use detach(), which makes another handle",
            )
        if state.trace is not None:
            state.trace.note_cut(self)
        self.requires_grad, self._grad_fn = False, None
        return self

    @property
    def data(self: Tensor) -> Tensor:  # type: ignore[misc]
        """The same memory without history, whose changes nobody counts: `detach()` is safer."""
        out = self.detach()
        out._version = [0, None, None]
        return out

    @data.setter
    def data(self: Tensor, value: Tensor) -> None:  # type: ignore[misc]
        """Lie in the memory of another tensor of this type from now on; history and gradient stay.

        Views of the old memory stay there.  Raises ShapeError for a tensor of another type.
        """
        set_data(self, value)

    def retain_grad(self: Tensor) -> None:  # type: ignore[misc]
        """Let `backward` add the gradient of this tensor to its `.grad`, though it is no leaf.

        Leaves have theirs anyway.  Raises GradientError for a tensor that does not require
        gradients.
        """
        if not self.requires_grad:
            raise GradientError(
                "there will be no gradient",
                op="retain_grad",
                expect="a tensor with requires_grad=True",
                actual="requires_grad=False",
                hint="compute it from a tensor that requires gradients, outside of dg.no_grad()",
            )
        if self.grad_fn is not None:
            retain(self)

    @property
    def retains_grad(self: Tensor) -> bool:  # type: ignore[misc]
        """Whether `retain_grad` keeps the gradient of this tensor, which is no leaf."""
        return self.requires_grad and retains(self)


def set_data(x: Tensor, value: Tensor) -> None:
    """See `Viewing.data`."""
    if not hasattr(value, "sig") or value.type != x.type:
        raise ShapeError(
            "the data of a tensor have its type",
            op="data",
            expect=repr(x.type),
            actual=repr(value.type) if hasattr(value, "sig") else type(value).__name__,
            hint="make a new tensor of the other type",
        )
    if state.trace is not None:
        raise Unsupported(
            "a tensor gets other memory",
            op="data",
            actual=f"{x.type!r}",
            hint="copy the values under dg.no_grad(): x.copy_(value)",
        )
    x.array, x.layout, x.sig, x.base = value.array, value.layout, value.sig, value.base
    # What the tape has saved is not there any more.
    x.origin, x._version = None, [x._version[0] + 1, None, user_place()]


def renumbered(numbers: set[int]) -> dict[int, int]:
    """New numbers for views, in the order of those they had when they were traced."""
    return {number: next_view() for number in sorted(numbers)}


def show(view: Tensor) -> None:
    """Note a view among those of its memory."""
    version = view._version
    known = version[1]
    if known is None:
        known = version[1] = []
    known.append(weakref.ref(view))
    n = len(known)
    if n >= MANY and not n & (n - 1):
        thin(known)


def thin(known: list[weakref.ref[Tensor]]) -> None:
    """Forget views that are gone."""
    known[:] = [ref for ref in known if ref() is not None]


def root_of(x: Tensor) -> Tensor:
    """The tensor that a view, or a view of a view, shows; a tensor that is no view itself."""
    while x.origin is not None:
        x = x.origin[0]
    return x


def outdate(root: Tensor) -> None:
    """The root has another history: that of its views is stale."""
    version = root._version
    if not version[1]:
        return
    known = {id(root): True}
    others = []
    for ref in version[1]:
        view = ref()
        if view is None:
            continue
        if _shows(view, known):
            if view._grad_fn is not None:
                put_off_retention(view)
            view.requires_grad, view._grad_fn = True, STALE
        else:
            others.append(ref)
    version[1] = others


def _shows(view: Tensor, known: dict[int, bool]) -> bool:
    """Whether a tensor is a view of a root; `known` is what is known of others."""
    path = []
    x: Tensor | None = view
    while x is not None and id(x) not in known:
        path.append(id(x))
        x = None if x.origin is None else x.origin[0]
    found = x is not None and known[id(x)]
    known.update(dict.fromkeys(path, found))
    return found


def resolve(view: Tensor) -> None:
    """Give a stale view its history, and those it is a view of."""
    trace, state.trace = state.trace, None  # no op runs, and what comes from outside stays there
    try:
        _resolve(view)
    finally:
        state.trace = trace


def _resolve(view: Tensor) -> None:
    steps = []
    while view._grad_fn is STALE:
        assert view.origin is not None
        if view.origin[3] != OPEN:
            raise lost_history(view)
        steps.append((view, *view.origin[:3]))
        view = view.origin[0]
    source = root_of(view)._grad_fn
    first = next_number() if source is None or source is STALE else source.number
    for view, source, how, number in reversed(steps):
        if source.requires_grad:
            node = TapeNode(shown_by(source, how), (source,), (view,), NOTHING)
            # Whoever asks first: the views of one history stand on the tape as they were made.
            node.number = first + number
            view._grad_fn, view.output_number = node, 0
            take_up_retention(view)
        else:
            view.requires_grad, view._grad_fn = False, None
        show(view)


def shown_by(source: Tensor, how: Any) -> View:
    """The op of a view."""
    return how(source) if callable(how) else how  # type: ignore[no-any-return]


def is_lost(x: Tensor) -> bool:
    """Whether a tensor is a view that has lost its history."""
    return x._grad_fn is STALE and x.origin is not None and x.origin[3] != OPEN


_MADE = {
    NO_GRAD: "a view was made under dg.no_grad()",
    SEVERAL: "a view is one of several that one function has made",
    FUNCTION: "a view is the result of a Function",
}
_HINTS = {
    NO_GRAD: "make the view outside of dg.no_grad(), or change it inside",
    SEVERAL: "index the tensor for a view that can be changed: x[0] in place of x.unbind()[0]",
    FUNCTION: "clone() it first, or return a copy from forward",
}


def lost_history(view: Tensor) -> GradientError:
    """The error of a view that is used after what it shows has been changed."""
    assert view.origin is not None
    kind = view.origin[3]
    return GradientError(
        f"{_MADE[kind]}, and what it shows has been changed in place since",
        op="view",
        expect="no change while gradients are recorded between making the view and using it",
        actual=f"{view.type!r}, a view of {root_of(view).type!r}",
        why="the view has lost its place in the graph",
        hint="make the view again after the change",
    )


def unwritable_kind(view: Tensor, op: str) -> GradientError:
    """The error of a change of such a view."""
    assert view.origin is not None
    kind = view.origin[3]
    return GradientError(
        f"{_MADE[kind]}, and cannot be changed in place while gradients are recorded",
        op=op,
        expect="a view that was made alone, while gradients are recorded",
        actual=f"{view.type!r}, a view of {root_of(view).type!r}",
        hint=_HINTS[kind],
    )
