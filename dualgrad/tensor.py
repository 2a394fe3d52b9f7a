"""The Tensor: one class for values that exist (eager) and values that are being traced.

An eager tensor has an `array` (NumPy, non-negative strides) and runs each op at once.  A traced
one has a `node` of the trace's graph instead.  Views share memory with their base, as in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import numpy as np

from dualgrad.autograd import TapeNode, backward, record
from dualgrad.changes import Changes
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType, contiguous_strides
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.assign import ASSIGN
from dualgrad.compiler.ops.elementwise import Elementwise, copy
from dualgrad.compiler.ops.logical import eq, ne
from dualgrad.compiler.ops.view import View
from dualgrad.copying import Copying
from dualgrad.dispatch import Alias, find_plan, make_plan, signature_key
from dualgrad.hooks import Hookable
from dualgrad.indexing import Indexable
from dualgrad.printing import Shown
from dualgrad.rewriting import refuse, write_view
from dualgrad.runtime import memory
from dualgrad.runtime.dtype import DType, as_dtype, bfloat16
from dualgrad.runtime.errors import (
    ArgumentError,
    DTypeError,
    GradientError,
    OperandError,
    ShapeError,
    TraceError,
)
from dualgrad.runtime.floats import decode, encode
from dualgrad.state import state

Array = np.ndarray[Any, Any]


class Tensor(Changes, Copying, Hookable, Indexable, Shown):
    """An n-dimensional array of numbers that remembers how it was computed.

    Make one with `tensor`, `zeros`, `from_numpy` and their kin.  Operators and methods are those
    of NumPy and PyTorch; `requires_grad` asks for gradients, `backward()` computes them into
    `.grad`.
    """

    __slots__ = (
        "__weakref__",
        "_grad",
        "_type",
        "_version",
        "array",
        "base",
        "grad_fn",
        "layout",
        "node",
        "origin",
        "output_number",
        "owner",
        "requires_grad",
        "sig",
    )  # fmt: skip

    array: Array | None
    layout: tuple[int, ...] | None
    node: Node | None
    owner: object  # the trace that a traced tensor belongs to
    base: Tensor | None
    origin: tuple[Tensor, Any] | None  # of a view: its source and the op, or the key of an index
    grad_fn: TapeNode | None
    output_number: int
    requires_grad: bool
    sig: Any
    _type: TensorType
    _grad: Tensor | None
    _version: list[Any]  # changes in place so far; views that share the memory, or None

    __array_priority__ = 1000
    __hash__ = object.__hash__
    __eq__ = eq  # type: ignore[assignment]
    __ne__ = ne  # type: ignore[assignment]

    def __init__(self, data: Tensor, requires_grad: bool = False) -> None:
        if not isinstance(data, Tensor):
            raise ArgumentError(
                "a Tensor is made from another one only",
                op="Tensor",
                expect="Tensor",
                actual=type(data).__name__,
                hint="use dg.tensor(...) or dg.from_numpy(...)",
            )
        self.array, self._type = data.array, data._type
        self.layout, self.sig = data.layout, data.sig
        self.node = data.node
        self.owner = data.owner
        self.base = self.origin = self.grad_fn = self._grad = None
        self.requires_grad = False
        self._version = data._version
        if state.trace is not None:
            state.trace.note_detached(data, self)
        self.requires_grad_(requires_grad)

    @classmethod
    def of_array(cls, array: Array, type: TensorType, layout: tuple[int, ...] | None) -> Tensor:
        """A tensor over an array whose type and strides (in elements) are known."""
        self = object.__new__(Tensor)
        self.array, self._type, self.layout = array, type, layout
        self.sig = type if layout is None else (type, layout)
        self.node = self.owner = self.base = self.origin = self.grad_fn = self._grad = None
        self.requires_grad = False
        self._version = [0, None]
        return self

    @classmethod
    def of_numpy(cls, array: Array, dtype: DType | None = None) -> Tensor:
        """See `from_numpy`; `dtype` is given where it is not NumPy's (bfloat16 in uint16)."""
        dtype = dtype or as_dtype(array.dtype)
        if not array.flags.aligned or not array.dtype.isnative:
            array = np.array(array, dtype=dtype.numpy)
        type_ = TensorType(array.shape, dtype)
        if array.flags.c_contiguous:
            return cls.of_array(array, type_, None)
        steps = [divmod(s, dtype.itemsize) for s in array.strides]
        if any(s < 0 or r for s, r in steps):
            return cls.of_array(np.ascontiguousarray(array), type_, None)
        return cls.of_array(array, type_, tuple(s for s, _ in steps))

    @classmethod
    def of_node(cls, node: Node, owner: object) -> Tensor:
        """A traced tensor, of the trace `owner`."""
        self = object.__new__(Tensor)
        type = TensorType(node.shape, node.dtype, False, node.device)
        self.array, self._type, self.layout = None, type, None
        self.node, self.owner = node, owner
        self.sig = ("traced", type)
        self.base = self.origin = self.grad_fn = self._grad = None
        self.requires_grad = False
        self._version = [0, None]
        return self

    def settle(self, array: Array, layout: tuple[int, ...] | None) -> None:
        """Give a traced tensor its values."""
        type = self._type = self._type.with_shape(array.shape)
        self.array, self.node, self.owner, self.layout = array, None, None, layout
        self.sig = type if layout is None else (type, layout)

    # -- running ops --------------------------------------------------------------------------

    def apply_unit(self, unit: Unit, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        trace = state.trace
        if trace is not None:
            return trace.apply(unit, operands)
        plan = find_plan(signature_key(unit, operands, False))
        if plan is None:
            operands = self._settled(unit, operands)
            plan = make_plan(unit, operands)
        outputs: tuple[Tensor, ...]
        if plan.single is not None:
            outputs = (Tensor.of_array(plan.run(operands)[0], plan.single, None),)
        else:
            arrays = iter(plan.run(operands))
            outputs = tuple(
                Tensor.of_array(next(arrays), r, None)
                if isinstance(r, TensorType)
                else _alias(unit, operands, r)
                for r in plan.results
            )
        if state.grad_enabled:
            for x in operands:
                if isinstance(x, Tensor) and x.requires_grad:
                    plan.saves = record(unit, operands, outputs, plan.saves)
                    break
        return outputs

    @staticmethod
    def _settled(unit: Unit, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        """Operands of a signature seen for the first time: checked, arrays made tensors."""
        for x in operands:
            if isinstance(x, Tensor) and x.array is None:
                raise TraceError(
                    "a traced tensor is used outside of its @function",
                    op=unit.name,
                    expect="a tensor that exists",
                    actual=f"{x.type!r}, known only while the function was traced",
                    hint="return it from the function instead of storing it aside",
                )
        return tuple(
            Tensor.of_numpy(np.asarray(x)) if isinstance(x, np.ndarray | np.generic) else x
            for x in operands
        )

    # -- facts --------------------------------------------------------------------------------

    @property
    def type(self) -> TensorType:  # type: ignore[override]
        """What is known of the tensor; in a trace, with the sizes that are symbols there."""
        trace = state.trace
        return self._type if trace is None else trace.type_of(self)

    @property
    def dtype(self) -> DType:
        return self._type.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._type.shape)

    @property
    def shape(self) -> tuple[Any, ...]:
        """Size of each dimension."""
        trace = state.trace
        return self._type.shape if trace is None else trace.sizes(trace.type_of(self).shape)

    @property
    def size(self) -> Any:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def strides_in_elements(self) -> tuple[int, ...]:
        return contiguous_strides(self._type.shape) if self.layout is None else self.layout  # type: ignore[return-value]

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was not computed from one that requires gradients."""
        return self.grad_fn is None

    @property
    def is_own_memory(self) -> bool:
        return self.base is None

    @property
    def is_writeable(self) -> bool:
        """Whether the memory may be changed: not read-only, no element shown twice."""
        assert self.array is not None
        steps = zip(self.layout or (), self.array.shape, strict=False)
        return self.array.flags.writeable and not any(s == 0 and n > 1 for s, n in steps)

    @property
    def version(self) -> int:
        """How often the memory has been changed in place; shared with all that shares it."""
        return int(self._version[0])

    @property
    def has_views(self) -> bool:
        """Whether any view that shares the memory is still alive."""
        return bool(self._version[1])

    @property
    def views(self) -> list[Tensor]:
        """The views alive that share the memory."""
        return list(self._version[1] or ())

    def shares(self, view: Tensor, how: Any) -> None:
        """Let `view` be a view of the memory, made by the op or the key `how`."""
        view.base = self if self.base is None else self.base
        view.origin = (self, how)
        version = view._version = self._version
        if version[1] is None:
            version[1] = WeakSet()
        version[1].add(view)

    def view_over(
        self, array: Array, type: TensorType, layout: tuple[int, ...] | None, how: Any
    ) -> Tensor:
        """A tensor over a part of the memory."""
        out = Tensor.of_array(array, type, layout)
        self.shares(out, how)
        return out

    def changed(self, times: int = 1) -> None:
        """Note a change in place."""
        self._version[0] += times

    def __len__(self) -> int:
        if not self.type.shape:
            raise OperandError(
                "a tensor without dimensions has no length",
                op="len",
                expect="at least one dimension",
                actual=f"{self.type!r}",
                hint="x.size counts the elements of any tensor",
            )
        return int(self.shape[0])

    # -- values -------------------------------------------------------------------------------

    def concrete(self, what: str) -> Array:
        trace = state.trace
        if trace is not None:
            trace.needs_value(self, what)
        if self.array is None:
            raise TraceError(
                f"a traced tensor has no values for {what}",
                expect="a tensor that exists",
                actual=f"{self.type!r}",
            )
        return self.array

    def storage(self) -> Array:
        """The memory as a NumPy array: the values, for bfloat16 their bits as uint16."""
        return self.concrete("storage()")

    def numpy(self) -> Array:
        """The values as a NumPy array that shares memory.

        NumPy has no bfloat16: its values come as a new array of float32, which has them exactly.
        Raises GradientError for a tensor that requires gradients: use `.detach().numpy()`.
        """
        if self.requires_grad:
            raise GradientError(
                "a gradient would be lost",
                op="numpy",
                expect="a tensor without requires_grad",
                actual=f"{self.type!r} with requires_grad=True",
                hint="call .detach().numpy()",
            )
        deferred = self._deferred("numpy")
        if deferred is not None:
            return deferred  # type: ignore[no-any-return]
        return decode(self.concrete("numpy()"), self.type.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False and self.type.dtype is bfloat16:
            raise ValueError("NumPy has no bfloat16: an array of the values is a copy")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """The value of a tensor of one element, as a Python number."""
        deferred = self._deferred("item")
        if deferred is not None:
            return deferred
        array = self.concrete("item()")
        if array.size != 1:
            raise ShapeError(
                "only one element can become a Python number",
                op="item",
                expect="a tensor of one element",
                actual=f"shape {self.type.shape}",
                hint="index it, reduce it with .sum() or .mean(), or call .tolist()",
            )
        return decode(array, self.type.dtype).item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        deferred = self._deferred("tolist")
        if deferred is not None:
            return deferred
        return decode(self.concrete("tolist()"), self.type.dtype).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.concrete("bool()").size != 1:
            raise ArgumentError(
                "the truth value of several elements is ambiguous",
                op="bool",
                expect="a tensor of one element",
                actual=f"shape {self.type.shape}",
                hint="say .any() or .all(), or choose element by element with dg.where",
            )
        return bool(self.item())

    def __index__(self) -> int:
        if not self.type.dtype.is_int:
            raise DTypeError(
                "only integers can index",
                op="index",
                expect="an integer tensor",
                actual=self.type.dtype.name,
                hint="convert it with int(...) or .astype(dg.int64)",
            )
        return int(self.item())

    # -- gradients ----------------------------------------------------------------------------

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has added up, or None."""
        trace = state.trace
        return self._grad if trace is None else trace.grad_of(self)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (
            value.shape != self.shape or value.type.dtype is not self.type.dtype
        ):
            raise ShapeError(
                "a gradient has the type of its tensor",
                op="grad",
                expect=repr(self.type),
                actual=repr(value.type),
                hint="assign a gradient of this shape and dtype, or None",
            )
        trace = state.trace
        if trace is None:
            self._grad = value
        else:
            trace.set_grad(self, value)

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> None:
        """Compute gradients and add them to `.grad` of all leaves that require them.

        `gradient` is the weight of each element (needed unless there is one element only).  The
        graph is freed unless `retain_graph` or `create_graph` (which records the gradients'
        own computation, for higher derivatives).  Raises GradientError where there is no graph.
        """
        backward(self, gradient, retain_graph, create_graph)

    def detach(self) -> Tensor:
        """The same memory without history: no gradient flows through."""
        out = self.detached()
        out.base = self.detached() if self.base is None else self.base
        if state.trace is not None:
            state.trace.note_detached(self, out)
        return out

    def detached(self) -> Tensor:
        """A second handle on the same value, for the tape: it shares the version."""
        out = object.__new__(Tensor)
        out.array, out._type = self.array, self._type
        out.layout, out.sig = self.layout, self.sig
        out.node, out.owner = self.node, self.owner
        out.base = out.origin = out.grad_fn = out._grad = None
        out.requires_grad = False
        out._version = self._version
        return out

    def with_history(self, node: TapeNode, k: int) -> Tensor:
        """The same value as result `k` of a recorded unit."""
        out = self.detached()
        out.requires_grad, out.grad_fn, out.output_number = True, node, k
        return out

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for gradients (floats only); returns self."""
        if requires_grad and not self.type.dtype.is_float:
            raise DTypeError(
                "only floats have gradients",
                op="requires_grad_",
                expect="a float dtype",
                actual=self.type.dtype.name,
                hint="make it a float: dtype=dg.float32",
            )
        if state.trace is not None and requires_grad != self.requires_grad:
            state.trace.note_flag(self)
        if not requires_grad and self.grad_fn is not None:
            raise GradientError(
                "only leaves can stop requiring gradients",
                op="requires_grad_",
                expect="a leaf",
                actual=f"a result of {self.grad_fn.name}",
                hint="use detach()",
            )
        self.requires_grad = requires_grad
        return self

    def filled_like(self, value: float) -> Tensor:
        """A new tensor of this type with one value."""
        dtype = self.type.dtype
        shape = tuple(map(int, self.shape))
        array = memory.empty(shape, dtype)
        array.fill(encode(value, dtype) if dtype.is_low else value)
        out = Tensor.of_array(array, TensorType(shape, dtype), None)
        if state.trace is not None:
            state.trace.note_created(out, "")
        return out

    def clone(self) -> Tensor:
        """A copy in memory of its own; gradients flow through."""
        out: Tensor = copy(self)
        return out

    def contiguous(self) -> Tensor:
        """self if its memory is in row-major order, else a copy."""
        return self if self.layout is None else self.clone()

    # -- in place -----------------------------------------------------------------------------

    def _write(self, unit: Unit, *others: Any) -> Tensor:
        """Overwrite the values with unit(self, *others)."""
        trace = state.trace
        recorded = state.grad_enabled and (
            self.requires_grad or any(getattr(x, "requires_grad", False) for x in others)
        )
        if recorded and self.requires_grad and self.grad_fn is None:
            raise GradientError(
                "a leaf that requires gradients cannot be changed in place",
                op=unit.name,
                expect="a change under dg.no_grad()",
                actual=f"{self.type!r} with requires_grad=True",
                hint="with dg.no_grad(): ...",
            )
        if recorded and (self.base is not None or self.has_views):
            if write_view(self, unit, others):
                return self
            raise refuse(self, unit)
        if trace is not None:
            trace.write(self, unit, others, recorded)
            return self
        if recorded:
            (value,) = self.apply_unit(unit, (self, *others))
            self.store(value)
            self.become(value)
        else:
            self._run_write(unit, (self, *others))
        return self

    def store(self, value: Tensor) -> None:
        """Overwrite the values with those of another tensor of the same type."""
        self._run_write(ASSIGN, (self, value.detached()))

    def become(self, value: Tensor) -> None:
        """Have the history of another tensor from now on."""
        self.requires_grad = True
        self.grad_fn, self.output_number = value.grad_fn, value.output_number

    def _run_write(self, unit: Unit, operands: tuple[Any, ...]) -> None:
        operands = self._settled(unit, operands)
        assert self.array is not None
        if not self.is_writeable:
            raise ArgumentError(
                "the memory cannot be written",
                op=unit.name,
                expect="writeable memory in which elements do not overlap",
                actual="a read-only array or an expanded view",
                hint="clone() it first",
            )
        elementwise = isinstance(unit, Elementwise) or unit is ASSIGN
        operands = (
            self,
            *(
                x.clone()
                if isinstance(x, Tensor)
                and not (elementwise and x.array is self.array)
                and np.may_share_memory(x.array, self.array)
                else x
                for x in operands[1:]
            ),
        )
        plan = find_plan(signature_key(unit, operands, True))
        if plan is None:
            plan = make_plan(unit, operands, write=True)
        plan.run(operands)
        self.changed()

    def copy_(self, other: Any) -> Tensor:
        """Overwrite the values with those of `other`, converted and broadcast."""
        return self._write(ASSIGN, other)

    def fill_(self, value: float) -> Tensor:
        """Overwrite all values with one number."""
        return self._write(ASSIGN, value)

    def zero_(self) -> Tensor:
        """Overwrite all values with 0."""
        return self._write(ASSIGN, 0)

    # attached by `dualgrad.random`
    uniform_: Callable[..., Tensor]
    normal_: Callable[..., Tensor]
    exponential_: Callable[..., Tensor]
    bernoulli_: Callable[..., Tensor]
    random_: Callable[..., Tensor]


def _alias(unit: Unit, operands: tuple[Any, ...], a: Alias) -> Any:
    """An output that shares memory with an operand."""
    x = operands[a.operand]
    if a.strides is None:
        return x
    array = strided_view(x.array, a)
    layout = None if a.strides == contiguous_strides(a.shape) else a.strides
    return x.view_over(
        array, x.type.with_shape(a.shape), layout, unit if isinstance(unit, View) else None
    )


def strided_view(array: Array, a: Alias) -> Array:
    size, view = array.itemsize, np.lib.stride_tricks.as_strided
    start = view(array, (a.offset + 1,), (size,))[a.offset :] if a.offset else array
    return view(start, a.shape, tuple(s * size for s in a.strides or ()))
