"""`print`, logging and `debug` in compiled functions: recorded in a trace, made at every call.

While a function is traced nothing is printed.  What it would print is kept as text with gaps for
the values of tensors, in program order; a call of the compiled path fills the gaps with the values
that the tensors had at that point, after the program has run.

Where the user's code makes text of a tensor by itself (an f-string, `str`), it gets a text with a
mark in place of the value.  That is done only if the bytecode shows that the text goes straight
into a recorded call, so that no code can look at it.
"""

from __future__ import annotations

import builtins
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.display.printing import formatted, notes_of, tensor_text
from dualgrad.gradients.tape import FreedNode
from dualgrad.jit import bytecode
from dualgrad.jit.errors import Unsupported
from dualgrad.jit.numbers import Number
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.floats import decode
from dualgrad.runtime.records import dataclass, field
from dualgrad.runtime.srcinfo import Location, user_location
from dualgrad.state import state

Array = np.ndarray[Any, Any]
_MARK = re.compile("\ue0d9(\\d+)\ue0d9")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{5,}")
_ATOMS = (bool, int, float, complex, bytes, type(None))


class Shot(NamedTuple):
    """A tensor as it was at some point of the trace: number `place` of the recorded ones."""

    calls: Calls
    place: int
    type: TensorType
    notes: str

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def tensor(self, r: Any) -> Any:
        """It in the results of a run, without history."""
        return r.tensors[self.calls.first + self.place].detached()

    def array(self, r: Any) -> Array:
        """Its values in the results of a run."""
        return self.tensor(r).on_host("printing")  # type: ignore[no-any-return]

    def value(self, r: Any, how: str) -> Any:
        values = decode(self.array(r), self.dtype)
        return values if how == "numpy" else getattr(values, how)()


Fill = Callable[[Any], Any]  # on the `Results` of a run


class Deferred:
    """A Python value of a tensor (`item()`, `tolist()`, `numpy()`) on its way into a text."""

    __slots__ = ("how", "place", "shot")

    def __init__(self, shot: Shot, how: str, place: Location | None) -> None:
        self.shot, self.how, self.place = shot, how, place

    def __format__(self, spec: str) -> str:
        return _of_trace().mark_value(self, lambda x: format(x, spec), sys._getframe(1))

    def __str__(self) -> str:
        return _of_trace().mark_value(self, str, sys._getframe(1))

    def __repr__(self) -> str:
        return _of_trace().mark_value(self, repr, sys._getframe(1))

    def _asked(self, *_: object) -> Any:
        raise _unseen(f"{self.how}()", self.place)

    __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = __hash__ = _asked
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __getattr__ = _asked
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _asked


@dataclass
class Calls:
    """The calls that a trace has recorded.

    `waiting` holds marks and deferred values whose texts are on the stack of a frame, with the
    place of the call that will take them.
    """

    node_of: Callable[[Any], Node]
    nodes: list[Node] = field(default_factory=list)  # of the shots
    first: int = 0  # where these begin among the results of the program
    numbers: list[Number] = field(default_factory=list)
    first_number: int = 0
    made: list[Fill] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)  # by number of the mark
    waiting: dict[int, tuple[FrameType, int, Location | None]] = field(default_factory=dict)
    values: dict[int, tuple[Deferred, FrameType, int, Location | None]] = field(
        default_factory=dict
    )

    # -- tensors on their way into text ---------------------------------------------------------

    def shot(self, x: Any) -> Shot:
        """The value of a tensor as it is now."""
        node = self.node_of(x)
        place = next((k for k, known in enumerate(self.nodes) if known is node), None)
        if place is None:
            place = len(self.nodes)
            self.nodes.append(node)
        return Shot(self, place, x.type, notes_of(x))

    def mark_tensor(self, x: Any, spec: str | None, frame: FrameType) -> str:
        """A text that stands for a tensor's; `spec` is None for `repr`."""
        if not self._in_text(frame) and not (
            bytecode.formats(frame.f_code, frame.f_lasti) if spec is not None else _is_plain(frame)
        ):
            raise _unseen("repr()" if spec is None else "format()")
        if spec:
            _check_spec(x.type, spec)
        shot = self.shot(x)

        def fill(r: Any) -> str:
            array = shot.array(r)
            if spec is None:
                return tensor_text(array, shot.dtype, shot.notes)
            return formatted(array, shot.dtype, shot.notes, spec)

        return self._mark(fill, frame)

    def mark_value(self, x: Deferred, show: Callable[[Any], str], frame: FrameType) -> str:
        """A text that stands for that of a deferred value."""
        if not self._in_text(frame):
            _, expected, place, _ = self.values.pop(id(x), (None, None, -1, None))
            here = bytecode.standing(frame.f_code, frame.f_lasti)
            if frame is not expected or here != place:
                raise _unseen(f"{x.how}()")
            if not (bytecode.formats(frame.f_code, here) or _is_plain(frame)):
                raise _unseen(f"{x.how}()")
        if x.how == "item":
            show(x.shot.dtype.numpy.type(1).item())  # a format that is no good raises now
        return self._mark(lambda r: show(x.shot.value(r, x.how)), frame)

    def defer(self, x: Any, how: str, frame: FrameType) -> Deferred | None:
        """A stand-in for a value of a tensor, if it can only go into a text."""
        place = bytecode.destination(frame.f_code, frame.f_lasti, False)
        if place is None or (how == "item" and any(n != 1 for n in x.type.shape)):
            return None
        out = Deferred(self.shot(x), how, user_location())
        self.values[id(out)] = (out, frame, place, out.place)
        return out

    def mark_number(self, x: Number, show: Callable[[Any], str], frame: FrameType) -> str | None:
        """A text that stands for that of a number; None if code could look at it."""
        show(x._value)  # a format that is no good raises now
        code, here = frame.f_code, frame.f_lasti
        if not (self._in_text(frame) or bytecode.formats(code, here) or _is_plain(frame)):
            return None
        value = self._number(x)
        try:
            return self._mark(lambda r: show(value(r)), frame)
        except Unsupported:
            return None

    def _number(self, x: Number) -> Fill:
        place = len(self.numbers)
        self.numbers.append(x)
        return lambda r: r.numbers[self.first_number + place]

    def place(self, first: int, first_number: int) -> None:
        """Where results of a run are found: tensors of the shots, numbers."""
        self.first, self.first_number = first, first_number

    def _in_text(self, frame: FrameType) -> bool:
        """Whether the text is asked for by `_text` itself."""
        return frame.f_code is _str.__code__

    def _mark(self, fill: Fill, frame: FrameType | None) -> str:
        number = len(self.fills)
        self.fills.append(fill)
        while frame is not None and not self._in_text(frame):
            place = bytecode.destination(frame.f_code, frame.f_lasti, True)
            if place is None:
                raise _unseen("text of a tensor")
            if place != bytecode.RETURNED:
                self.waiting[number] = (frame, place, user_location())
                break
            # A method such as __repr__ returns it to what asked for it.
            name, frame = frame.f_code.co_name, frame.f_back
            own = name in ("__repr__", "__str__")
            if frame is None or not own or not (self._in_text(frame) or _is_plain(frame)):
                raise _unseen("text of a tensor")
        return f"\ue0d9{number}\ue0d9"

    # -- recording ------------------------------------------------------------------------------

    def text(self, x: Any, frame: FrameType) -> Fill:
        """What `str(x)` will be; `frame` has called the function that is recorded."""
        if type(x) is Deferred:
            value = self._value(x, frame)
            return lambda r: str(value(r))
        return self._filled(x if type(x) is str else _str(x), frame)

    def described(self, x: Any, frame: FrameType) -> Fill:
        """The text of x, of a tensor with its type."""
        text = self.text(x, frame)
        if not hasattr(x, "sig"):
            return text
        shot = self.shot(x)
        return lambda r: f"{shot.tensor(r).type!r} {text(r)}"

    def _filled(self, text: str, frame: FrameType) -> Fill:
        """A text with its marks replaced."""
        if _ADDRESS.search(text):
            raise Unsupported(
                "the address of an object is printed",
                why="a compiled program may serve other objects",
                location=user_location(),
            )
        parts = _MARK.split(text)
        if len(parts) == 1:
            return lambda _: text
        fills: list[Fill] = []
        for k, part in enumerate(parts):
            if k % 2:
                self._claim(int(part), frame)
                fills.append(self.fills[int(part)])
            else:
                fills.append(lambda _, part=part: part)  # type: ignore[misc]
        return lambda r: "".join([f(r) for f in fills])

    def _claim(self, number: int, frame: FrameType) -> None:
        expected = self.waiting.pop(number, None)
        here = bytecode.standing(frame.f_code, frame.f_lasti)
        if expected is not None and (expected[0] is not frame or expected[1] != here):
            raise _unseen("text of a tensor")

    def _value(self, x: Deferred, frame: FrameType) -> Fill:
        _, expected, place, _ = self.values.pop(id(x), (None, None, -1, None))
        if frame is not expected or bytecode.standing(frame.f_code, frame.f_lasti) != place:
            raise _unseen(f"{x.how}()")
        return lambda r: x.shot.value(r, x.how)

    def argument(self, x: Any, frame: FrameType) -> Fill:
        """What a recorded function is given in place of x."""
        kind = type(x)
        if kind is str:
            return self._filled(x, frame)
        if kind is Deferred:
            return self._value(x, frame)
        if kind in _ATOMS:
            return lambda _: x
        if isinstance(x, Number):
            return self._number(x)
        if kind in (list, tuple):
            parts = [self.argument(e, frame) for e in x]
            return lambda r: kind(p(r) for p in parts)
        if kind is dict:
            items = {k: self.argument(v, frame) for k, v in x.items()}
            return lambda r: {k: v(r) for k, v in items.items()}
        if hasattr(x, "sig"):
            shot = self.shot(x)
            asked, freed = x.requires_grad, x.grad_fn and x.grad_fn.name_of(x.output_number)

            def show(r: Any) -> Any:
                out = shot.tensor(r)
                out.requires_grad = asked
                if freed is not None:
                    out.grad_fn, out.output_number = FreedNode(freed, out.type), 0
                return out

            return show
        raise Unsupported(
            f"a {kind.__name__} is logged, whose text may change", location=user_location()
        )

    def add(self, call: Fill) -> None:
        self.made.append(call)

    def finish(self) -> None:
        """Refuse texts of tensors that did not end in a recorded call."""
        unclaimed = [w[2] for w in self.waiting.values()] + [v[3] for v in self.values.values()]
        self.waiting.clear()
        self.values.clear()
        if unclaimed:
            raise _unseen("text of a tensor", unclaimed[0])


def _unseen(what: str, place: Location | None = None) -> Unsupported:
    return Unsupported(
        f"{what} asks for the values of a tensor inside a compiled function",
        expect="text that goes straight into print(...) or a logger",
        actual="text that code could look at",
        hint="write the f-string as an argument of print(...)",
        location=place or user_location(),
    )


def _is_plain(frame: FrameType) -> bool:
    """Whether a frame is about to have the text of a value, as it is."""
    code, offset = frame.f_code, frame.f_lasti
    if bytecode.formats_plainly(code, offset):
        return True
    name = bytecode.calls_name(code, offset)
    if name not in ("str", "repr") or name in frame.f_globals:
        return False
    return frame.f_builtins.get(name) in (str, repr)


def _check_spec(type: TensorType, spec: str) -> None:
    """Raise now what a format will raise."""
    formatted(np.ones([0] if type.shape else (), type.dtype.numpy), type.dtype, "", spec)


def _str(x: Any) -> str:
    return str(x)


def _of_trace() -> Calls:
    trace = state.trace
    if trace is None:
        raise _unseen("a value of a tensor")
    return trace.calls


# -- the functions that are recorded --------------------------------------------------------------

_print = builtins.print
_log = logging.Logger._log
_is_enabled = logging.Logger.isEnabledFor


def _recorded_print(*values: Any, **options: Any) -> None:
    trace = state.trace
    if trace is None:
        return _print(*values, **options)
    frame = sys._getframe(1)
    calls = trace.calls
    stream = _stream_of(options.pop("file", None))
    if not all(isinstance(options[k], str | bool | None) for k in options):
        raise Unsupported("print() is called with options that cannot be repeated")
    texts = [calls.text(x, frame) for x in values]
    if any(_MARK.search(x) for x in options.values() if isinstance(x, str)):
        raise _unseen("text of a tensor")

    def call(r: Any) -> None:
        file = None if stream is None else getattr(sys, stream)
        builtins.print(*[t(r) for t in texts], file=file, **options)

    calls.add(call)
    return None


def _stream_of(file: Any) -> str | None:
    if file is None:
        return None
    for name in ("stdout", "stderr"):
        if file is getattr(sys, name):
            return name
    raise Unsupported(
        f"print() writes to a {type(file).__name__}",
        why="a compiled program would not notice when another one takes its place",
        location=user_location(),
    )


def _recorded_is_enabled(logger: logging.Logger, level: int) -> bool:
    """A recorded call asks again whenever it is made; other code gets no answer."""
    if state.trace is None:
        return _is_enabled(logger, level)
    if sys._getframe(1).f_globals.get("__name__") == "logging":
        return True
    raise Unsupported("isEnabledFor() is called, whose answer may change", location=user_location())


def _recorded_log(
    logger: logging.Logger, level: int, msg: Any, args: Any, *rest: Any, **options: Any
) -> None:
    trace = state.trace
    if trace is None:
        return _log(logger, level, msg, args, *rest, **options)
    extra = options.pop("extra", None)
    if rest or any(options.values()) or (extra is not None and not _plain_dict(extra)):
        raise Unsupported("a logger is called with options", location=user_location())
    frame: FrameType = sys._getframe(1)
    while frame.f_code.co_filename == _LOGGING and frame.f_back is not None:
        frame = frame.f_back
    code, line = frame.f_code, frame.f_lineno
    calls = trace.calls
    message, parts = calls.argument(msg, frame), calls.argument(args, frame)
    extra = dict(extra) if extra else None

    def call(r: Any) -> None:
        if not logger.isEnabledFor(level):
            return
        record = logger.makeRecord(
            logger.name,
            level,
            code.co_filename,
            line,
            message(r),
            parts(r),
            None,
            code.co_name,
            extra,
        )
        logger.handle(record)

    calls.add(call)
    return None


_LOGGING = logging.Logger.info.__code__.co_filename


def _plain_dict(x: Any) -> bool:
    return type(x) is dict and all(type(v) in (*_ATOMS, str) for v in x.values())


def debug(*values: Any, label: str = "") -> Any:
    """Write values to the standard error stream, with the line that asks for it.

    In a compiled function that happens at every call, with the values of that moment.  Returns
    the (first) value, so that it can be put around a part of an expression.
    """
    frame = sys._getframe(1)
    head = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
    head += f" {label}" if label else ""
    trace = state.trace
    if trace is None:
        shown = [f"{x.type!r} {x!r}" if hasattr(x, "sig") else x for x in values]
        builtins.print(f"{head}:", *shown, file=sys.stderr)
    else:
        fills = [trace.calls.described(x, frame) for x in values]

        def call(r: Any) -> None:
            builtins.print(f"{head}:", *[f(r) for f in fills], file=sys.stderr)

        trace.calls.add(call)
    return values[0] if values else None


_lock = threading.Lock()
_active = 0


@contextmanager
def recorded() -> Iterator[None]:
    """Let calls of print and of loggers in this thread be recorded by its trace."""
    global _active
    with _lock:
        _active += 1
        if _active == 1 and builtins.print is _print:
            builtins.print = _recorded_print
        if _active == 1 and logging.Logger._log is _log:
            logging.Logger._log = _recorded_log  # type: ignore[method-assign,assignment]
            logging.Logger.isEnabledFor = _recorded_is_enabled  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        with _lock:
            _active -= 1
            if not _active and builtins.print is _recorded_print:
                builtins.print = _print
            if not _active and logging.Logger._log is _recorded_log:
                logging.Logger._log = _log  # type: ignore[method-assign]
                logging.Logger.isEnabledFor = _is_enabled  # type: ignore[method-assign]
