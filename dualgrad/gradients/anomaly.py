"""Looking for the first NaN, in the forward pass and on the way back.

While `detect_nan` is on, ops and gradients of this thread are looked at one by one, and compiled
functions run eagerly: they compute the same bits, so what shows up is what a compiled call has.
Nothing of this costs anything while it is off: the methods that look take the place of others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from dualgrad.compiler.batching import is_gradient
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.view import View
from dualgrad.entries.state import watch
from dualgrad.gradients.flow import Flow
from dualgrad.gradients.tape import Edge, TapeNode
from dualgrad.jit.errors import Unsupported
from dualgrad.jit.modes import disable
from dualgrad.runtime.device_array import DeviceArray
from dualgrad.runtime.errors import NaNError
from dualgrad.runtime.floats import decode
from dualgrad.runtime.srcinfo import Location, user_location
from dualgrad.state import state
from dualgrad.tensor import Tensor
from dualgrad.transforms import levels

F = TypeVar("F", bound=Callable[..., Any])
_lock = threading.Lock()
_open = 0  # contexts that are open, in all threads
_replaced: list[tuple[type, str, Any]] = []


class detect_nan:
    """Inside of this context (or a function decorated with it) the first NaN is an error.

    Raises NaNError (a FloatingPointError) when an op makes or passes on a NaN, with the user's
    line, or when a gradient does, with the line of the forward pass it belongs to and the line
    that asked for gradients.  With `inf=True` infinities count as well.  Functions compiled with
    `dg.function` run eagerly meanwhile, op by op, in all threads.  Every op is followed by a look
    at its result: about the time of a sum over it.
    """

    def __init__(self, inf: bool = False) -> None:
        self.inf = inf
        self._before: list[tuple[str, Any]] = []

    def __enter__(self) -> None:
        if state.trace is not None:
            raise Unsupported(
                "NaNs are looked for inside of the function",
                hint="use dg.detect_nan() around the call",
            )
        eager = disable()
        self._before.append((state.looks_for, eager))
        eager.__enter__()
        _replace()
        state.looks_for = "inf" if self.inf or state.looks_for == "inf" else "nan"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        state.looks_for, eager = self._before.pop()
        _put_back()
        eager.__exit__(None, None, None)

    def __call__(self, function: F) -> F:
        inf = self.inf

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with detect_nan(inf):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


def _replace() -> None:
    """Let ops and gradients be looked at."""
    global _open
    with _lock:
        _open += 1
        if _open > 1:
            return
        watch(1)
        visits = ((kind, "push", _looking_push) for kind in _kinds(TapeNode))
        for owner, name, make in (*_LOOKS, *visits):
            old = owner.__dict__[name]
            _replaced.append((owner, name, old))
            setattr(owner, name, make(old))


def _put_back() -> None:
    global _open
    with _lock:
        _open -= 1
        if not _open:
            watch(-1)
            while _replaced:
                setattr(*_replaced.pop())


def _looking_apply(apply: Any) -> Any:
    @wraps(apply)
    def apply_unit(self: Tensor, unit: Unit, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        out: tuple[Any, ...] = apply(self, unit, operands)
        looks = state.looks_for and state.trace is None
        if looks and not (isinstance(unit, View) or is_gradient(unit)):
            for x in out:
                if (found := _found(x)) is not None:
                    raise _forward_error(unit.name, x, found, operands)
        return out

    return apply_unit


def _looking_write(write: Any) -> Any:
    @wraps(write)
    def run_write(self: Tensor, unit: Unit, operands: tuple[Any, ...], before: Any = None) -> Any:
        out = write(self, unit, operands, before)
        if state.looks_for and state.trace is None and (found := _found(self)) is not None:
            others = [x for x in operands if getattr(x, "array", None) is not self.array]
            raise _forward_error(unit.name, self, found, others)
        return out

    return run_write


def _looking_send(send: Any) -> Any:
    @wraps(send)
    def look(self: Flow, edge: Edge, g: Tensor) -> None:
        if state.looks_for and levels.is_eager() and (found := _found(g)) is not None:
            raise _Appeared(found)
        send(self, edge, g)

    return look


def _looking_push(push: Any) -> Any:
    @wraps(push)
    def look(self: TapeNode, flow: Flow, slots: Any, retain: bool) -> None:
        try:
            push(self, flow, slots, retain)
        except _Appeared as error:
            raise _backward_error(self, error, slots) from None

    return look


_LOOKS = (
    (Tensor, "apply_unit", _looking_apply),
    (Tensor, "run_write", _looking_write),
    (Flow, "send", _looking_send),
    (Flow, "settle", _looking_send),
)


def _kinds(kind: type[Any]) -> list[type[Any]]:
    """The classes of nodes that say themselves how gradients flow on."""
    below = [k for c in kind.__subclasses__() for k in _kinds(c)]
    return [kind, *below] if "push" in kind.__dict__ else below


class _Appeared(NaNError):
    """A gradient has a NaN; the node that sent it, if one has, knows where it comes from."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the gradient that backward starts with has {found.partition(' ')[0]}",
            op="backward",
            expect="numbers",
            actual=found,
            hint="look at the seed: y.backward(gradient=...)",
        )
        self.found = found


def _found(x: Any) -> str | None:
    """What is wrong with the values of a tensor, in words; None if nothing is."""
    x, dtype = levels.lowest(x), x.dtype
    if not dtype.is_float or x.array is None:
        return None
    stored = x.array.to_host() if isinstance(x.array, DeviceArray) else x.array
    values = decode(stored, dtype)
    with np.errstate(all="ignore"):  # finite only if all values are
        row = values.reshape(-1) if values.flags.c_contiguous else None
        total = values.sum(dtype=np.float64) if row is None else np.dot(row, row)
    if np.isfinite(total):
        return None
    bad = np.isnan(values) if state.looks_for == "nan" else ~np.isfinite(values)
    count = int(bad.sum())
    if not count:
        return None
    name = "NaN" if np.isnan(values).any() else "inf"
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    place = f", the first at {where}" if where else ""
    return f"{name} in {count} of {values.size} elements of {x.type!r}{place}"


def _forward_error(op: str, x: Tensor, found: str, operands: Sequence[Any]) -> NaNError:
    known = [k for k, t in enumerate(operands) if isinstance(t, Tensor) and _found(t)]
    why = f"operand {known[0]} has it already" if known else "none of the operands has any"
    return NaNError(
        f"the first {found.partition(' ')[0]} of the forward pass",
        op=op,
        expect="finite numbers" if state.looks_for == "inf" else "numbers",
        actual=found,
        why=why,
        hint="look where that operand comes from" if known else _hint(op),
    )


def _hint(op: str) -> str:
    if op in ("log", "log2", "log10", "sqrt", "rsqrt", "pow", "div", "true_divide"):
        return "keep operands away from where the op is not defined: clamp them, or add an epsilon"
    return "look at the values of the operands at this line"


def _backward_error(node: TapeNode, error: _Appeared, slots: Any) -> NaNError:
    called = user_location()
    known = any(g is not None and _found(g) for g in slots)
    forward = None if node.place is None else Location.of_place(node.place)
    lines = "" if called is None else "\n".join(called.render().split("\n")[:2])
    return NaNError(
        f"the first {error.found.partition(' ')[0]} on the way back",
        op=node.name,
        expect="finite gradients" if state.looks_for == "inf" else "gradients that are numbers",
        actual=f"{error.found}, the gradient of an operand at the line below, on the way from\n"
        f"{lines}",
        why="the gradient of the result has it already"
        if known
        else "the gradient of the result has none: this op's derivative makes it",
        hint="dg.where(ok, f(x), 0) still differentiates f where it is not ok: "
        "replace x there, too",
        location=forward or called,
    )
