"""What stands in place of a trace while `vmap` runs a function: one run for all slices.

The function sees tensors of one slice.  Beneath each there is a whole tensor, with the slices
along its axis 0, or one that is the same for all slices.  A unit that is applied to tensors of a
slice is applied to what is beneath them, in its batched form (see `compiler.batching`), by
whatever is active outside: the eager mode, a trace, another level.

There is a tape above and one beneath.  Gradients taken inside of the function are gradients of a
slice, those taken outside flow through the units beneath.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dualgrad.compiler.batching import Batched, spread, under
from dualgrad.compiler.grad import crosses_devices
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit, apply
from dualgrad.compiler.ops import random as ops
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import Copy, Elementwise
from dualgrad.compiler.ops.view import View
from dualgrad.gradients.rewriting import second
from dualgrad.gradients.tape import Saves, next_number, record
from dualgrad.ranges import arange
from dualgrad.runtime.dtype import uint64
from dualgrad.runtime.errors import ArgumentError, DualgradError, TraceError
from dualgrad.state import state
from dualgrad.tensor import Tensor

COPIES = ("", "tensor(array)", "indexing with an array")  # what makes memory of its own
_MOST = 4000  # units whose gradients' needs are remembered
_saves: dict[tuple[Any, ...], Saves] = {}


class Whole:
    """What is beneath a tensor of a slice.

    tensor   with the slices along axis 0 if `mapped`, else the same for each slice
    outside  whether it shows memory of a tensor that is the same for all slices
    source   what it shows the memory of, and by which view (None: as it is)
    shown    what shows its memory, in the order in which that came to be
    """

    __slots__ = ("__weakref__", "mapped", "outside", "shown", "source", "tensor")

    def __init__(self, tensor: Tensor, mapped: bool, outside: bool = False) -> None:
        self.tensor, self.mapped, self.outside = tensor, mapped, outside
        self.source: tuple[Whole, View | None] | None = None
        self.shown: list[weakref.ref[Whole]] = []

    def over(self, tensor: Tensor) -> Whole:
        """The same for a second handle on the tensor."""
        return Whole(tensor, self.mapped, self.outside)

    def slice(self, k: int) -> Tensor:
        """One slice, as a tensor that knows nothing of others."""
        return self.tensor[k] if self.mapped else self.tensor

    def shows(self, source: Whole, how: View | None) -> None:
        """It is a view of the memory of `source`."""
        self.source = (source, how)
        source.shown.append(weakref.ref(self))

    def with_room(self, tensor: Tensor) -> None:
        """Go over to a tensor with slices, and all that shows its memory with it."""
        self.tensor, self.mapped = tensor, True
        for x in self.shown:
            view = x()
            if view is not None and view.source is not None:
                how = view.source[1]
                new = (
                    tensor.detach()
                    if how is None
                    else apply(under(how, tensor.shape[0]), tensor)[0]
                )
                view.with_room(new)


@composite
def _repeated(x: Any, *, size: Dim) -> Any:
    return Copy.of().on(spread(x, size))


class Level:
    """One run of a function on all slices at once; see `jit.trace.Trace` for what asks for it."""

    kind = "mapped"  # what its tensors are called

    def __init__(self, size: Any, randomness: str) -> None:
        self.size, self.randomness = size, randomness
        self.parent: Any = state.trace
        self.first_node = next_number()
        self.first_asked: int = -1 if self.parent is None else self.parent.first_asked
        self.made: dict[int, Tensor] = {}  # tensors that the function has made, not yet used
        self.watched: dict[int, Tensor] = {}  # what stands for tensors from outside, by their id
        self.hooked = False

    @property
    def refusals(self) -> list[Any]:
        """What a trace outside is to know of; see `jit.errors`."""
        return [] if self.parent is None else self.parent.refusals

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.parent is None:
            raise AttributeError(name)
        return getattr(self.parent, name)

    @contextmanager
    def active(self) -> Iterator[Level]:
        """The function runs."""
        state.trace = self  # type: ignore[assignment]
        try:
            yield self
        finally:
            state.trace = self.parent
            self.made.clear()
            self.watched.clear()

    @contextmanager
    def beneath(self) -> Iterator[None]:
        """What is done in this context is done to whole tensors."""
        state.trace = self.parent
        try:
            yield
        finally:
            state.trace = self  # type: ignore[assignment]

    @contextmanager
    def above(self) -> Iterator[None]:
        """The function's own code goes on, perhaps later and elsewhere."""
        before, state.trace, self.parent = self.parent, self, state.trace  # type: ignore[assignment]
        try:
            yield
        finally:
            state.trace, self.parent = self.parent, before

    # -- tensors ------------------------------------------------------------------------------

    def owns(self, x: Any) -> bool:
        """Whether a tensor is one of a slice."""
        if getattr(x, "owner", None) is self:
            return True
        if id(x) not in self.made:
            return False
        self._adopt(x)
        return True

    def _adopt(self, x: Tensor) -> None:
        """A tensor that the function has made from numbers is the same for each slice."""
        del self.made[id(x)]
        raw = x.detached()
        if self.parent is not None:
            self.parent.note_created(raw, "")
        x.node, x.owner = Whole(raw, False), self  # type: ignore[assignment]

    def whole(self, x: Any) -> Whole:
        """What is beneath a tensor."""
        return x.node if self.owns(x) else Whole(x, False, True)

    def raw_type(self, x: Tensor) -> TensorType:
        return x._type if self.parent is None else self.parent.type_of(x)

    def slice_of(self, whole: Whole) -> Tensor:
        """The tensor that the function sees."""
        raw = whole.tensor
        type = self.raw_type(raw)
        if whole.mapped:
            type = type.with_shape(type.shape[1:])
        out = Tensor.of_array(None, type, None)  # type: ignore[arg-type]
        if not whole.mapped:
            out.array, out.layout = raw.array, raw.layout
        out.node, out.owner, out.sig = whole, self, ("of a slice", type)  # type: ignore[assignment]
        out._version = raw._version
        return out

    def slices(self, raw: Tensor) -> Tensor:
        """One slice of a tensor that has them along axis 0."""
        return self.slice_of(Whole(raw, True))

    def put_over(self, x: Tensor, raw: Tensor) -> None:
        """Let another tensor with slices be beneath x."""
        x.node, x.array, x._version = Whole(raw, True), None, raw._version  # type: ignore[assignment]

    def put_together(self, x: Tensor) -> Tensor:
        """The whole tensor of a result, slices along axis 0."""
        whole = self.whole(x)
        with self.beneath():
            if whole.mapped:
                return whole.tensor
            return _repeated(whole.tensor, size=self.size)  # type: ignore[no-any-return]

    # -- ops ----------------------------------------------------------------------------------

    def apply(self, unit: Unit, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        wholes = [self.whole(x) if isinstance(x, Tensor) else Whole(x, False) for x in operands]
        flags = tuple(w.mapped for w in wholes)
        raws = tuple(w.tensor for w in wholes)
        with self.beneath():
            results = apply(self.form(unit, flags, operands), *raws)
        mapped = any(flags)
        outside = isinstance(unit, View) and wholes[0].outside
        outputs = tuple(self._output(r, operands, raws, Whole(r, mapped, outside)) for r in results)
        if isinstance(unit, View):
            self._note_view(unit, operands[0], wholes[0], outputs[0])
        if state.grad_enabled:
            self._record(unit, operands, outputs)
        return outputs

    def form(self, unit: Unit, flags: tuple[bool, ...], operands: tuple[Any, ...]) -> Unit:
        """The unit that does to whole tensors what `unit` does to slices."""
        if not any(flags) or crosses_devices(unit):
            return unit
        if isinstance(unit, View):
            return under(unit, self._size_of(operands, flags))
        if isinstance(unit, Elementwise):
            ranks = [(x.ndim if hasattr(x, "sig") else 0) for x in operands]
            if all(r == max(ranks) for r, f in zip(ranks, flags, strict=True) if f):
                return unit  # broadcasting does it
        return Batched.of(unit, flags)

    def _size_of(self, operands: tuple[Any, ...], flags: tuple[bool, ...]) -> Any:
        """The number of slices as types have it: a symbol where it is one."""
        x = next(x for x, f in zip(operands, flags, strict=True) if f)
        return self.raw_type(x.node.tensor).shape[0]

    def _output(
        self, raw: Tensor, operands: tuple[Any, ...], raws: tuple[Any, ...], whole: Whole
    ) -> Tensor:
        for x, below in zip(operands, raws, strict=True):
            if raw is below:  # passed on as it is
                return x if self.owns(x) else self.slice_of(Whole(raw, False, True))
        return self.slice_of(whole)

    def _note_view(self, unit: View, source: Tensor, whole: Whole, out: Tensor) -> None:
        below: Whole = out.node  # type: ignore[assignment]
        if below.tensor.base is None:  # a copy
            below.outside = False
            return
        below.shows(whole, unit)
        if self.owns(source):
            source.shares(out, unit)
        else:
            out.base = source if source.base is None else source.base

    def _record(self, unit: Unit, operands: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
        """Put a unit on the tape of the slices, for which tensors from outside are constants."""
        known = self.taken(operands)
        if any(getattr(x, "requires_grad", False) for x in known):
            record(unit, known, outputs, self.saves_of(unit, known))

    def taken(self, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        """Operands as the tape of the slices knows them, without histories from outside."""
        return tuple(
            self._stands_for(x)
            if isinstance(x, Tensor) and x.requires_grad and not self.owns(x)
            else x
            for x in operands
        )

    def _stands_for(self, x: Tensor) -> Tensor:
        found = self.watched.get(id(x))
        return self.slice_of(Whole(x, False, True)) if found is None else found

    def saves_of(self, unit: Unit, operands: tuple[Any, ...]) -> Saves:
        """What is known of the gradient of a unit on such operands."""
        if len(_saves) > _MOST:
            _saves.clear()
        key = (unit, *[x.type if hasattr(x, "sig") else type(x) for x in operands])
        return _saves.setdefault(key, {})

    def second(self, x: Tensor) -> Tensor:
        """A handle on the value of a tensor as it is now, for the tape."""
        return x

    def before_change(self, x: Tensor) -> Tensor:
        """The values of a tensor that is about to be changed, apart from it."""
        whole = self.whole(x)
        with self.beneath():
            raw = second(whole.tensor)
        return self.slice_of(Whole(raw, whole.mapped))

    def trace_node(self, node: Node) -> Tensor:
        """A tensor that a trace outside knows as a node, the same for each slice."""
        return self.slice_of(Whole(self.parent.trace_node(node), False))

    def filled(self, shape: tuple[Any, ...], value: Any, dtype: Any) -> Tensor | None:
        with self.beneath():
            raw = self.parent.filled(shape, value, dtype)
        return None if raw is None else self.slice_of(Whole(raw, False))

    def draw(self, generator: Any, words: int, device: str) -> tuple[Any, Any]:
        """Seed and position in the stream of a generator, for `words` words a slice."""
        if self.randomness == "error":
            raise ArgumentError(
                "random numbers are drawn in vmap",
                op="vmap",
                expect="to be told whether slices get the same ones",
                actual='randomness="error"',
                hint='vmap(f, randomness="different"), or randomness="same"',
            )
        with self.beneath():
            if self.randomness == "same":
                return generator.advance(words, device)  # type: ignore[no-any-return]
            blocks = -(-words // ops.BLOCK)
            seed, first = generator.advance(blocks * ops.BLOCK * self.size, device)
            steps = arange(self.size, dtype=uint64, device=device) * blocks
            positions = steps + first
        return seed, self.slices(positions)

    # -- facts --------------------------------------------------------------------------------

    def type_of(self, x: Tensor) -> TensorType:
        return x._type if x.owner is self or id(x) in self.made else self.raw_type(x)

    def sizes(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return shape if self.parent is None else self.parent.sizes(shape)

    def is_known(self, x: Any) -> bool:
        """Whether a tensor has values to show, or none at all (see `needs_value`)."""
        whole = self.whole(x)
        return whole.mapped or self.parent is None or self.parent.is_known(whole.tensor)

    def needs_value(self, x: Any, what: str) -> None:
        """Refuse to give the values of a tensor that differ between slices."""
        whole = self.whole(x)
        if whole.mapped:
            raise TraceError(
                f"{what} asks for the values of a slice inside vmap",
                op="vmap",
                expect="code that does the same for all slices",
                actual=f"{x.type!r}",
                why="the function runs once, for all slices together",
                hint="use dg.where(...), or call the function in a loop",
            )
        if self.parent is not None:
            self.parent.needs_value(whole.tensor, what)

    def grad_of(self, x: Tensor) -> Tensor | None:
        return x._grad if self.parent is None or self.owns(x) else self.parent.grad_of(x)

    def set_grad(self, x: Tensor, value: Tensor | None) -> None:
        if not self.owns(x):
            raise _changed_outside("grad", x, "the gradient of a tensor from outside is set")
        x._grad = value

    # -- changes ------------------------------------------------------------------------------

    def note_created(self, x: Tensor, how: str) -> None:
        """The function has made a tensor from numbers."""
        if self.parent is not None:
            self.parent.note_created(x, how)
        if how in COPIES:
            self.made[id(x)] = x

    def note_copied(self, source: Tensor, out: Tensor) -> None:
        """`out` is a second handle on `source` and its history."""
        if self.owns(source):
            out.node, out.owner = source.node, self
        elif self.parent is not None:
            self.parent.note_copied(source, out)

    def note_detached(self, source: Tensor, out: Tensor) -> None:
        """`out` shares the memory of `source`, but no history, above or beneath."""
        whole = self.whole(source)
        with self.beneath():
            below = Whole(whole.tensor.detach(), whole.mapped, whole.outside)
        below.shows(whole, None)
        out.node, out.owner = below, self  # type: ignore[assignment]
        out.sig = ("of a slice", out._type)

    def note_flag(self, x: Tensor) -> None:
        """`requires_grad` of a tensor is about to change."""
        if not self.owns(x):
            raise _changed_outside(
                "requires_grad_", x, "requires_grad of a tensor from outside is changed"
            )

    def note_cut(self, x: Tensor) -> None:
        """A tensor forgets its history, above and beneath."""
        if not self.owns(x):
            raise _changed_outside("detach_", x, "a tensor from outside is cut off from its graph")
        with self.beneath():
            x.node.tensor.detach_()  # type: ignore[union-attr]

    def check_recorded(self, target: Tensor, unit: Unit) -> None:
        if not self.owns(target):
            raise _changed_outside(unit.name, target)

    def write(self, target: Tensor, unit: Unit, others: tuple[Any, ...]) -> None:
        """A change in place."""
        whole = self.whole(target)
        if whole.outside and not whole.mapped:
            raise _changed_outside(unit.name, target)
        if any(isinstance(x, Tensor) and self.whole(x).mapped for x in others):
            self._make_room(whole)
        wholes = [self.whole(x) if isinstance(x, Tensor) else Whole(x, False) for x in others]
        flags = (whole.mapped, *(w.mapped for w in wholes))
        form = self.form(unit, flags, (target, *others))
        with self.beneath():
            whole.tensor._write(form, *(w.tensor for w in wholes))

    def _make_room(self, whole: Whole) -> None:
        """Let a tensor that was the same for all slices have one for each."""
        if whole.mapped:
            return
        while whole.source is not None:
            whole = whole.source[0]
        with self.beneath():
            raw = _repeated(whole.tensor, size=self.size)
            raw._version = whole.tensor._version
            whole.with_room(raw)


def _changed_outside(op: str, x: Tensor, what: str = "") -> DualgradError:
    return ArgumentError(
        what or "a tensor from outside of the function is changed in place inside vmap",
        op=op,
        expect="a change of a tensor that is mapped over, or made by the function",
        actual=f"{x.type!r}",
        why="all slices share it, and the function runs once for all of them",
        hint="return the new value instead",
    )


def current() -> Level | None:
    """The level whose function runs, if one does."""
    return state.trace if isinstance(state.trace, Level) else None


def is_eager() -> bool:
    """Whether ops run at once, of all slices perhaps."""
    trace = state.trace
    while isinstance(trace, Level):
        trace = trace.parent
    return trace is None


def lowest(x: Tensor) -> Tensor:
    """What is beneath a tensor at the end: one that knows nothing of slices."""
    while isinstance(x.owner, Level):
        x = x.node.tensor  # type: ignore[union-attr]
    return x


def is_shared(x: Tensor) -> bool:
    """Whether a tensor is one from outside of vmap, where there is vmap."""
    level = current()
    return level is not None and not level.owns(x)


def cut(x: Tensor) -> Tensor:
    """The same memory without history; within vmap, of the slice alone: gradients from outside
    still flow through."""
    level = current()
    if level is None or not state.grad_enabled:
        return x.detach()
    whole = level.whole(x)
    below = Whole(whole.tensor, whole.mapped, whole.outside)
    below.shows(whole, None)
    return level.slice_of(below)


def is_recorded(x: Tensor) -> bool:
    """Whether gradients flow through a tensor, also outside of vmap alone."""
    return x.requires_grad or is_recorded_beneath(x)


def is_recorded_beneath(x: Tensor) -> bool:
    """Whether what is beneath a tensor of a slice has a history outside of vmap."""
    while isinstance(x.owner, Level):
        x = x.node.tensor  # type: ignore[union-attr]
        if x.requires_grad:
            return True
    return False
