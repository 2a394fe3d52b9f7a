"""The Tensor: one class for values that exist (eager) and values that are being traced.

An eager tensor has an `array` (NumPy's or a device's, non-negative strides) and runs each op at
once.  A traced one has a `node` of the trace's graph instead.  Views share memory with their base,
as in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.array_object import ArrayObject
from dualgrad.backends.transfers import new_array
from dualgrad.changes import Changes
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.types import TensorType, contiguous_strides
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.assign import ASSIGN
from dualgrad.compiler.ops.elementwise import Elementwise, copy
from dualgrad.compiler.ops.logical import eq, ne
from dualgrad.compiler.ops.transfer import transfer
from dualgrad.compiler.ops.view import View
from dualgrad.copying import Copying
from dualgrad.dispatch import Alias, find_or_make, find_plan, make_plan, signature_key, tell
from dualgrad.display.printing import Shown, kind_of
from dualgrad.exchange import Exchangeable
from dualgrad.gradients.flow import backward
from dualgrad.gradients.history import Named, Origin, Viewing
from dualgrad.gradients.hooks import Hookable
from dualgrad.gradients.rewriting import check_unseen, write_recorded
from dualgrad.gradients.tape import Saves, TapeNode, record_eagerly
from dualgrad.indexing import Indexable
from dualgrad.jit.errors import Unsupported
from dualgrad.runtime import buffers
from dualgrad.runtime.device_array import DeviceArray, overlaps
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    GradientError,
    OperandError,
    ShapeError,
    TraceError,
)
from dualgrad.runtime.floats import decode, encode
from dualgrad.runtime.memory import empty
from dualgrad.runtime.srcinfo import user_place
from dualgrad.state import state
from dualgrad.values import Valued

Array = np.ndarray[Any, Any]
_strided: dict[tuple[TensorType, tuple[int, ...]], tuple[TensorType, tuple[int, ...]]] = {}
_MANY = 100_000


def signature(type: TensorType, layout: tuple[int, ...]) -> tuple[TensorType, tuple[int, ...]]:
    """What ops on strided tensors are known by: the same object for equal ones, but for those
    made long ago."""
    if len(_strided) > _MANY:
        _strided.clear()
    key = (type, layout)
    return _strided.setdefault(key, key)


class Tensor(
    ArrayObject,
    Changes,
    Copying,
    Exchangeable,
    Hookable,
    Viewing,
    Valued,
    Indexable,
    Shown,
):
    """An n-dimensional array of numbers that remembers how it was computed.

    Make one with `tensor`, `zeros`, `from_numpy` and their kin.  Operators and methods are those
    of NumPy and PyTorch; `requires_grad` asks for gradients, `backward()` computes them into
    `.grad`.
    """

    __slots__ = (
        "__weakref__",
        "_grad",
        "_grad_fn",
        "_hooks",  # see `gradients.hooks`
        "_type",
        "_version",
        "array",
        "base",
        "layout",
        "node",
        "origin",
        "output_number",
        "owner",
        "requires_grad",
        "sig",
    )  # fmt: skip

    array: Array | DeviceArray | None
    layout: tuple[int, ...] | None
    node: Node | None
    owner: object  # the trace that a traced tensor belongs to
    base: Tensor | None
    origin: Origin | None  # of a view
    output_number: int
    requires_grad: bool
    sig: Any
    _type: TensorType
    _grad: Tensor | None
    _grad_fn: Any  # a TapeNode, STALE or None
    _version: list[Any]  # see `Viewing`

    __array_priority__ = 1000
    __hash__ = object.__hash__
    if TYPE_CHECKING:

        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]

    else:
        __eq__, __ne__ = eq, ne

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
        self.base = self.origin = self._grad_fn = self._grad = None
        self.requires_grad = False
        self._version = data._version
        if state.trace is not None:
            state.trace.note_detached(data, self)
        self.requires_grad_(requires_grad)

    @classmethod
    def of_array(
        cls, array: Array | DeviceArray, type: TensorType, layout: tuple[int, ...] | None
    ) -> Tensor:
        """A tensor over an array whose type and strides (in elements) are known."""
        self = object.__new__(Tensor)
        self.array, self._type, self.layout = array, type, layout
        self.sig = type if layout is None else signature(type, layout)
        self.node = self.owner = self.base = self.origin = self._grad_fn = self._grad = None
        self.requires_grad = False
        self._version = [0, None, None]
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
        self.base = self.origin = self._grad_fn = self._grad = None
        self.requires_grad = False
        self._version = [0, None, None]
        return self

    def settle(self, array: Array | DeviceArray, layout: tuple[int, ...] | None) -> None:
        """Give a traced tensor its values."""
        type = self._type = self._type.with_shape(array.shape)
        self.array, self.node, self.owner, self.layout = array, None, None, layout
        self.sig = type if layout is None else signature(type, layout)

    # -- running ops --------------------------------------------------------------------------

    def apply_unit(self, unit: Unit, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        if state.mixed is not None:
            operands = state.mixed.cast(unit, operands)
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
                    record_eagerly(unit, operands, outputs, plan.saves)
                    break
        tell(unit, operands, plan, outputs)
        return outputs

    @staticmethod
    def _settled(unit: Unit, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        """Operands of a signature seen for the first time: checked, arrays made tensors."""
        for x in operands:
            if isinstance(x, Tensor) and x.array is None:
                raise TraceError(
                    f"a {kind_of(x)} tensor is used outside of its function",
                    op=unit.name,
                    expect="a tensor that exists",
                    actual=f"{x.type!r}, known only while the function ran",
                    hint="return it from the function instead of storing it aside",
                )
        return tuple(
            settled(x, operands) if isinstance(x, np.ndarray | np.generic) else x for x in operands
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
    def is_own_memory(self) -> bool:
        return self.base is None

    @property
    def is_writeable(self) -> bool:
        """Whether the memory may be changed: not read-only, no element shown twice."""
        assert self.array is not None
        steps = zip(self.layout or (), self.array.shape, strict=False)
        return self.array.flags.writeable and not any(s == 0 and n > 1 for s, n in steps)

    def view_over(
        self, array: Array | DeviceArray, type: TensorType, layout: Any, how: Any
    ) -> Tensor:
        """A tensor over a part of the memory."""
        out = Tensor.of_array(array, type, layout)
        self.shares(out, how)
        return out

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

    # -- gradients ----------------------------------------------------------------------------

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has added up, or None."""
        trace = state.trace
        return self._grad if trace is None else trace.grad_of(self)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise not_a_tensor("grad", value, "Tensor or None")
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
        if value is not None and value.type.device != self.type.device:
            raise DeviceError(
                "a gradient is where its tensor is",
                op="grad",
                expect=self.type.device,
                actual=value.type.device,
                hint=f'move it with .to("{self.type.device}")',
            )
        trace = state.trace
        if trace is None:
            self._grad = value
        else:
            trace.set_grad(self, value)

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Compute gradients and add them to `.grad` of all leaves that require them.

        `gradient` is the weight of each element (needed unless there is one element only).  The
        graph is freed unless `retain_graph`, which is `create_graph` if None; `create_graph`
        records the gradients' own computation, for higher derivatives.  With `inputs` (a tensor
        or several, leaves or not) only their `.grad` changes.  Raises GradientError where there
        is no graph.
        """
        wanted = None if inputs is None else tensors_of(inputs, "backward", "inputs")
        backward((self,), (gradient,), retain_graph, create_graph, wanted)

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
        out.base = out.origin = out._grad_fn = out._grad = None
        out.requires_grad = False
        out._version = self._version
        return out

    def with_history(self, node: TapeNode, k: int) -> Tensor:
        """The same value as result `k` of a recorded unit."""
        out = self.detached()
        out.requires_grad, out._grad_fn, out.output_number = True, node, k
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
        type = self._type
        if state.trace is None and type.device == "cpu":
            filled = empty(type.shape, type.dtype)  # type: ignore[arg-type]
            filled.fill(encode(value, type.dtype) if type.dtype.is_low else value)
            return Tensor.of_array(filled, type, None)
        dtype, device = type.dtype, type.device
        shape = tuple(map(int, self.shape))
        array = new_array(device, shape, dtype)
        out = Tensor.of_array(array, TensorType(shape, dtype, False, device), None)
        out.fill_array(value)
        if state.trace is not None:
            state.trace.note_created(out, "")
        return out

    def fill_array(self, value: Any) -> None:
        """Overwrite the values of a new, contiguous tensor, as NumPy converts the number."""
        array, dtype = self.array, self._type.dtype
        stored = encode(value, dtype) if dtype.is_low else value
        if isinstance(array, DeviceArray) and not array.fills_fast(stored):
            number = decode(np.array(stored, dtype.numpy), dtype).item()
            if isinstance(number, int) and number >= 2**63:
                number -= 2**64  # the bits as int64
            self.overwrite(ASSIGN, number)
        else:
            assert array is not None
            array.fill(stored)

    def overwrite(self, unit: Unit, *numbers: float) -> None:
        """Overwrite the values of a new tensor with unit(self, *numbers)."""
        find_or_make(unit, (self, *numbers), write=True).run((self, *numbers))

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
        if trace is not None:
            others = trace.taken(others)
        if (
            state.grad_enabled
            and (self.requires_grad or any(getattr(x, "requires_grad", False) for x in others))
            and self._type.dtype.is_float
        ):
            write_recorded(self, unit, others)
            return self
        if self.origin is not None and state.grad_enabled:
            check_unseen(self, unit)
        if trace is not None:
            trace.write(self, unit, others)
        else:
            self.run_write(unit, (self, *others))
        return self

    def move(self, *where: Any, **how: Any) -> None:
        """Have the values of `self.to(...)` in memory of its own, and so the gradient: other
        tensors that share the memory stay behind.  For `Module.to`."""
        if state.trace is not None:
            raise Unsupported("a module is moved while tracing", hint="move it before the call")
        new = self.detached().to(*where, **how)
        if new._type is not self._type:
            version = self._version[0] + 1  # what the tape has saved is not there any more
            self.array, self._type, self.layout, self.sig = new.array, new._type, None, new.sig
            self.base, self.origin, self._version = None, None, [version, None, user_place()]
        if self._grad is not None:
            self._grad = self._grad.detached().to(*where, **how)

    def run_write(
        self,
        unit: Unit,
        operands: tuple[Any, ...],
        before: Callable[[tuple[Any, ...], Saves], None] | None = None,
    ) -> None:
        """Overwrite the values with unit(*operands), of which self is the first.

        When all is known to fit, `before` is called with the operands as tensors and numbers, and
        what is known of the gradient.
        """
        given = operands = self._settled(unit, operands)
        self.check_writeable(unit)
        elementwise = isinstance(unit, Elementwise) or unit is ASSIGN
        operands = (
            self,
            *(
                x.clone()
                if isinstance(x, Tensor)
                and not (elementwise and x.array is self.array)
                and overlaps(x.array, self.array)  # type: ignore[arg-type]
                else x
                for x in operands[1:]
            ),
        )
        plan = find_or_make(unit, operands, write=True)
        if before is not None:
            before(given, plan.saves)
        plan.run(operands)
        self.changed(own=3)
        tell(unit, operands, plan, None)

    def check_writeable(self, writer: Named) -> None:
        """Raise ArgumentError unless the memory may be changed."""
        if self.array is not None and not self.is_writeable:
            raise ArgumentError(
                "the memory cannot be written",
                op=writer.name,
                expect="writeable memory in which elements do not overlap",
                actual="a read-only array or an expanded view",
                hint="clone() it first",
            )

    def copy_(self, other: Any) -> Tensor:
        """Overwrite the values with those of `other`, converted, broadcast, and brought here from
        another device."""
        if isinstance(other, Tensor):
            other = transfer(other, self._type.device)
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


buffers.install(Tensor)


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


def settled(x: Any, operands: tuple[Any, ...]) -> Tensor:
    """An array among operands as a tensor; a number of NumPy's goes where the tensors are."""
    out = Tensor.of_numpy(np.asarray(x))
    if isinstance(x, np.generic):
        device = next((t.type.device for t in operands if isinstance(t, Tensor)), out.device)
        out = transfer(out, device)
    return out


def strided_view(array: Array | DeviceArray, a: Alias) -> Array | DeviceArray:
    size, shape = array.itemsize, a.shape
    strides = tuple([s * size for s in a.strides or ()])
    if isinstance(array, DeviceArray):
        return array.view(shape, strides, a.offset * size)
    if array.flags.c_contiguous and array.size:  # what NumPy takes as a buffer
        return np.ndarray(shape, array.dtype, array, a.offset * size, strides)
    view = np.lib.stride_tricks.as_strided
    start = view(array, (a.offset + 1,), (size,))[a.offset :] if a.offset else array
    return view(start, shape, strides)


def tensors_of(x: Any, op: str, name: str) -> tuple[Tensor, ...]:
    """The tensors of an argument that is one tensor or a sequence of at least one."""
    found = (x,) if isinstance(x, Tensor) else tuple(x) if isinstance(x, list | tuple) else ()
    wrong = [t for t in found if not isinstance(t, Tensor)]
    if wrong or not found:
        raise ArgumentError(
            f"{name} are tensors",
            op=op,
            expect="a tensor, or a list or tuple of tensors",
            actual=type(wrong[0]).__name__ if wrong else repr(x)[:60],
            hint="make tensors with dg.tensor(..., requires_grad=True)",
        )
    return found
