"""Tensors as text."""

from __future__ import annotations

import sys
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.runtime.device_array import DeviceArray
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import GradientError
from dualgrad.runtime.floats import decode
from dualgrad.runtime.lazy import LazyModule
from dualgrad.state import state

if TYPE_CHECKING:
    import html

    from dualgrad.display import markup, summary
else:
    html = LazyModule("html")
    markup = LazyModule("dualgrad.display.markup")
    summary = LazyModule("dualgrad.display.summary")

Array = np.ndarray[Any, Any]
_WHOLE = 1000  # elements up to which all are shown


def tensor_text(array: Array | DeviceArray, dtype: DType, notes: str) -> str:
    """What `repr` of a tensor gives; `notes` come from `notes_of`.

    Of a tensor of many elements it shows the edges, the shape and a summary.
    """
    text = _values_text(array, dtype, "tensor(")
    if array.size <= _WHOLE:
        missing = array.ndim > 1 and not array.size
        return f"tensor({text}{f', shape={array.shape}' if missing else ''}{notes})"
    facts = summary.summary_of(array, dtype)
    tail = f",\n       {facts}" if facts else ""
    return f"tensor({text},\n       shape={array.shape}{notes}{tail})"


def _values_text(array: Array | DeviceArray, dtype: DType, prefix: str) -> str:
    return np.array2string(
        shown_values(array, dtype),
        separator=", ",
        prefix=prefix,
        threshold=_WHOLE,
        edgeitems=_edge(array.ndim),
    )


def _edge(ndim: int) -> int:
    """How many elements at each end of a dimension are shown of a large tensor."""
    most = int(np.get_printoptions()["edgeitems"])
    return max(1, min(most, 5 - ndim))


def shown_values(array: Array | DeviceArray, dtype: DType, edge: int | None = None) -> Array:
    """The values as NumPy prints them.  Of a large array only those are looked at that are shown,
    `edge` at each end of a dimension; the others are left undefined."""
    if array.size <= _WHOLE:
        return decode(array.to_host() if isinstance(array, DeviceArray) else array, dtype)
    edge = _edge(array.ndim) if edge is None else edge
    out = np.empty(array.shape, decode(np.empty(0, array.dtype), dtype).dtype)
    ends = (slice(edge), slice(-edge, None))
    for key in product(*(ends if n > 2 * edge else (slice(None),) for n in array.shape)):
        part = array[key]
        out[key] = decode(part.to_host() if isinstance(part, DeviceArray) else part, dtype)
    return out


def notes_of(x: Any, dtype_too: bool = True) -> str:
    """What the text of a tensor says besides its values."""
    notes = "" if x.type.device == "cpu" else f", device='{x.type.device}'"
    if dtype_too and x.type.dtype.name not in ("float32", "int64", "bool"):
        notes += f", dtype={x.type.dtype!r}"
    try:
        node = x.grad_fn
    except GradientError:  # a view that has lost its history
        return f"{notes}, grad_fn=<Invalid>"
    if node is not None:
        notes += f", grad_fn=<{node.name_of(x.output_number)}>"
    elif x.requires_grad:
        notes += ", requires_grad=True"
    return notes


def kind_of(x: Any) -> str:
    """What a tensor without values is: "traced", or "mapped" over by vmap."""
    return getattr(x.owner, "kind", "traced")


def formatted(array: Array | DeviceArray, dtype: DType, notes: str, spec: str) -> str:
    """What `format` of a tensor gives: a single number without dimensions is formatted as such.

    Raises TypeError for a format of other tensors, as `object` does.
    """
    if not array.ndim:
        return format(shown_values(array, dtype).item(), spec)
    if spec:
        raise TypeError("unsupported format string passed to Tensor.__format__")
    return tensor_text(array, dtype, notes)


class Shown:
    """The text of tensors; while a function is traced, a stand-in for it (see `jit.effects`)."""

    __slots__ = ()

    type: Any

    def __repr__(self) -> str:
        trace = state.trace
        if trace is not None and not trace.is_known(self):
            return trace.calls.mark_tensor(self, None, sys._getframe(1))
        if self.array is None:  # type: ignore[attr-defined]
            return f"Tensor({kind_of(self)} {self.type!r})"
        array = self.concrete("printing")  # type: ignore[attr-defined]
        return tensor_text(array, self.type.dtype, notes_of(self))

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        trace = state.trace
        if trace is not None and not trace.is_known(self):
            return trace.calls.mark_tensor(self, spec, sys._getframe(1))
        if self.array is None:  # type: ignore[attr-defined]
            return repr(self)
        array = self.concrete("printing")  # type: ignore[attr-defined]
        return formatted(array, self.type.dtype, notes_of(self), spec)

    def _repr_html_(self) -> str:
        """The tensor in notebooks: facts, a table of the values, a summary if it is large."""
        if self.array is None:  # type: ignore[attr-defined]
            return f"<code>{html.escape(repr(self))}</code>"
        array, dtype = self.concrete("printing"), self.type.dtype  # type: ignore[attr-defined]
        facts = f"{dtype.name} {array.shape}{notes_of(self, dtype_too=False)}"
        if array.size > _WHOLE:
            facts += f", {summary.summary_of(array, dtype)}"
        flat = array.ndim <= 2 and array.size > 0
        body = shown_values(array, dtype, markup.EDGE) if flat else _values_text(array, dtype, "")
        return markup.tensor_html(type(self).__name__, facts, body)

    def _deferred(self, how: str) -> Any:
        """A stand-in for values, where a trace can tell that they are only shown."""
        trace = state.trace
        if trace is None or trace.is_known(self):
            return None
        if how == "numpy" and self.type.device != "cpu":
            return None  # an error, as in eager mode
        return trace.calls.defer(self, how, sys._getframe(2))
