"""What a call of a compiled function can depend on: a walk over everything it can reach.

The walk starts at arguments and function and goes along attributes, dict entries, sequence
elements, closure cells, defaults and the globals whose names occur in code it meets.  It
collects a key (everything but the values of tensors, by value), and tensors and containers in
the order met, so that a later call with an equal key finds the same places again.  Objects are
followed by structure, not identity.  Over-guarding is allowed: whatever is reached is part of
the key, used or not.  What holds state that cannot be followed makes the survey `opaque`.
"""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import operator
import pathlib
import re
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from dualgrad.runtime.dtype import DType
from dualgrad.tensor import Tensor

_OWN = "dualgrad"
_FOREIGN = frozenset(sys.stdlib_module_names) | {
    "numpy", "dualgrad", "llvmlite", "cupy", "torch", "jax", "pytest", "_pytest", "builtins",
}  # fmt: skip
_PLAIN = (bool, int, str, bytes, type(None), type(Ellipsis), DType, range)
_VALUES = (
    datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, pathlib.PurePath,
    re.Pattern, np.dtype, np.generic,
)  # fmt: skip
# Also values, of modules that are not imported for that: without them there are none.
_LATE_VALUES = (("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"))
# Objects without state of their own that code could read.
_INERT = (
    types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType,
    types.MethodDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, types.GenericAlias, types.CodeType, np.ufunc,
    operator.itemgetter, operator.attrgetter, operator.methodcaller,
    type(threading.Lock()), type(threading.RLock()),
    type(collections.namedtuple("Pair", "x").__dict__["x"]),
)  # fmt: skip
# Names that reach state in ways the walk does not see.
_UNSEEN = frozenset({"globals", "eval", "exec", "__import__", "environ", "getenv"})
_SMALL_ARRAY = 4096  # bytes of a NumPy array that become part of the key

_MISSING = object()
Restore = Callable[[tuple[Any, ...]], None]
TENSOR = "tensor"


class Watch(NamedTuple):
    """A place whose contents a call depends on."""

    container: Any  # sized, or None
    read: Callable[[], Iterable[Any]]
    held: tuple[Any, ...]  # what it held when it was met
    restore: Restore | None  # puts that back; containers of the survey are restored as such

    def unchanged(self) -> bool:
        if self.container is not None and len(self.container) != len(self.held):
            return False
        return all(map(is_, self.read(), self.held))


@dataclass
class Survey:
    """The state that a call depends on."""

    key: list[Any] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    containers: list[Any] = field(default_factory=list)
    watched: list[Watch] = field(default_factory=list)
    arguments: int = 0  # how many of the tensors come from the first root
    opaque: str | None = None  # what cannot be followed
    _seen: dict[int, int] = field(default_factory=dict)
    _alive: list[object] = field(default_factory=list)
    _names: dict[str, None] = field(default_factory=dict)  # that occur in code
    _modules: list[types.ModuleType] = field(default_factory=list)

    def visit(self, root: Any) -> None:
        """Walk one root.  Iterative; each object once, later meetings as references."""
        stack = [root]
        key, seen = self.key, self._seen
        while stack:
            x = stack.pop()
            kind = x.__class__
            if isinstance(x, Tensor):
                self._tensor(x)
            elif kind in _PLAIN:
                key.append((kind, x))
            elif kind is float:
                key.append((float, x.hex()))
            elif id(x) in seen:
                key.append(("again", seen[id(x)]))
            else:
                seen[id(x)] = len(seen)
                self._alive.append(x)
                stack.extend(reversed(self._parts(x)))

    def _tensor(self, x: Tensor) -> None:
        found = self._seen.get(id(x))
        if found is not None:
            self.key.append(("again", found))
            return
        self._seen[id(x)] = len(self._seen)
        self.tensors.append(x)
        self.key.append((TENSOR, x.__class__, x.sig, x.requires_grad, x.grad_fn is None))

    def watch(
        self, container: Any, read: Callable[[], Iterable[Any]], restore: Restore | None = None
    ) -> None:
        self.watched.append(Watch(container, read, tuple(read()), restore))

    def stop(self, what: str) -> list[Any]:
        """Note that something cannot be followed."""
        self.opaque = self.opaque or what
        return []

    # -- what an object consists of -----------------------------------------------------------

    def _parts(self, x: Any) -> list[Any]:
        """The parts of an object; its structure goes into the key."""
        kind = type(x)
        parts = self._builtin(x)
        if parts is None:
            return self._code(x)
        if kind.__module__ != "builtins" and kind is not collections.deque:
            # A subclass of a builtin: its attributes, and those of its class.
            parts += self._attributes(x)
        return parts

    def _builtin(self, x: Any) -> list[Any] | None:
        """The parts of containers and numbers, also of their subclasses."""
        kind, key = type(x), self.key
        if isinstance(x, enum.Enum):
            key.append((kind, x.name))
            return []
        if isinstance(x, tuple):
            key.append((kind, len(x)))
            return list(x)
        if isinstance(x, list | collections.deque):
            key.append((kind, len(x)))
            self.containers.append(x)
            self.watch(x, x.__iter__)
            return list(x)
        if isinstance(x, dict):
            key.append((kind, tuple(_plain_key(k) for k in x)))
            self.containers.append(x)
            self.watch(x, x.keys)
            self.watch(x, x.values)
            return [k for k in x if type(k) not in _PLAIN and type(k) is not float] + [*x.values()]
        if isinstance(x, set | frozenset):
            key.append((kind, frozenset(_plain_key(e) for e in x)))
            self.watch(x, x.__iter__, partial(_refill, x) if isinstance(x, set) else None)
            return [e for e in x if type(e) not in _PLAIN and type(e) is not float]
        if isinstance(x, slice):
            key.append(kind)
            return [x.start, x.stop, x.step]
        if isinstance(x, float):
            key.append((kind, float.hex(x)))
            return []
        if isinstance(x, complex):
            key.append((kind, x.real.hex(), x.imag.hex()))
            return []
        if isinstance(x, _PLAIN):
            key.append((kind, x))
            return []
        return None

    def _code(self, x: Any) -> list[Any]:
        """The parts of functions, methods, cells, classes and modules."""
        kind, key = type(x), self.key
        if isinstance(x, types.FunctionType):
            key.append((kind, x.__code__))
            return self._function(x)
        if isinstance(x, types.MethodType):
            key.append(kind)
            return [x.__self__, x.__func__]
        if isinstance(x, types.BuiltinFunctionType) and _is_random(x.__self__):
            return self.stop(f"random numbers of NumPy ({x.__name__})")
        if isinstance(x, types.CellType):
            key.append(kind)
            self.watch(None, partial(_contents, x), partial(_fill, x))
            return _contents(x)
        if isinstance(x, partial):
            key.append(kind)
            return [x.func, x.args, x.keywords]
        if isinstance(x, staticmethod | classmethod):
            return [x.__func__]
        if isinstance(x, property):
            return [f for f in (x.fget, x.fset) if f is not None]
        if isinstance(x, functools._lru_cache_wrapper):
            return [x.__wrapped__]
        if isinstance(x, type):
            key.append(x)
            return self._class(x)
        if isinstance(x, types.ModuleType):
            key.append(Same(x))
            if _root_name(x.__name__) not in _FOREIGN:
                self._modules.append(x)
            return []
        return self._object(x)

    def _function(self, f: types.FunctionType) -> list[Any]:
        """What a function can read besides its arguments."""
        if _root_name(f.__module__) in _FOREIGN:
            return []
        self.watch(
            None, lambda: (f.__code__, f.__defaults__, f.__kwdefaults__, *f.__dict__.values())
        )
        parts: list[Any] = list(f.__defaults__ or ())
        parts += (f.__kwdefaults__ or {}).values()
        parts += f.__closure__ or ()
        if f.__dict__:
            parts.append(f.__dict__)
        names = tuple(dict.fromkeys(n for c in codes_of(f.__code__) for n in c.co_names))
        self._names.update(dict.fromkeys(names))
        self._watch_names(f.__globals__, names)
        for n in names:
            if n in f.__globals__:
                parts.append(f.__globals__[n])
                if f.__globals__[n] is np and "random" in names:
                    self.stop("numpy.random")
            elif n in _UNSEEN:
                self.stop(n)
            elif isinstance(sys.modules.get(n), types.ModuleType):
                parts.append(sys.modules[n])  # imported inside the function
        return parts

    def _watch_names(self, space: dict[str, Any], names: tuple[str, ...]) -> None:
        """Watch some entries of a module's or function's globals, present or not."""
        read = partial(map, space.get, names, (_MISSING,) * len(names))

        def restore(held: tuple[Any, ...]) -> None:
            for name, value in zip(names, held, strict=True):
                if value is not _MISSING:
                    space[name] = value
                else:
                    space.pop(name, None)

        self.watch(None, read, restore)

    def _class(self, c: type) -> list[Any]:
        """Attributes and functions of a user's class and its bases."""
        parts: list[Any] = []
        for base in c.__mro__:
            if _root(base) in _FOREIGN:
                continue
            names = tuple(base.__dict__)
            self.watch(base.__dict__, base.__dict__.values, partial(_set_all, base, names))
            self.key.append(names)
            for name, x in base.__dict__.items():
                hidden = name.startswith(("__", "_abc_")) and not isinstance(
                    x, types.FunctionType | bool | int | float
                )
                if not hidden:
                    parts.append(x)
        return parts

    def _object(self, x: Any) -> list[Any]:
        """The parts of any other instance."""
        kind = type(x)
        inner = getattr(x, "__wrapped_function__", None)
        if inner is not None:  # a compiled function
            self.key.append(kind)
            return [inner]
        if isinstance(x, (*_VALUES, *_late_values())):
            self.key.append((kind, str(x), repr(x)))
            return []
        if isinstance(x, _INERT) or _root(kind) in ("typing", "abc", "_abc", "_typing", "weakref"):
            self.key.append(Same(x))
            return []
        if isinstance(x, np.ndarray):
            if x.nbytes > _SMALL_ARRAY or x.dtype.hasobject:
                return self.stop("a NumPy array")
            self.key.append((kind, x.dtype.str, x.shape, x.tobytes()))
            held = x.copy()  # its values cannot be compared by identity
            self.watch(None, lambda: (object(),), lambda _: np.copyto(x, held))
            return []
        if hasattr(x, "__next__") or _is_random(x):
            return self.stop(f"a {kind.__name__}, whose state changes when it is used")
        if not hasattr(x, "__dict__") and not _slots_of(kind):
            return self.stop(f"a {kind.__name__}, which cannot be followed")
        self.key.append(kind)
        return self._attributes(x)

    def _attributes(self, x: Any) -> list[Any]:
        """Attributes of an instance, in its dict and its slots, and its class."""
        kind = type(x)
        attributes = getattr(x, "__dict__", None)
        slots = _slots_of(kind)
        present = tuple(n for n in slots if hasattr(x, n))
        self.key.append(present)
        self.watch(None, lambda: (x.__class__, getattr(x, "__dict__", None)))
        parts: list[Any] = [kind] if _root(kind) != _OWN else []
        if slots:
            read = partial(map, partial(getattr, x), slots, (_MISSING,) * len(slots))
            self.watch(None, read, partial(_set_all, x, slots))
            parts += [getattr(x, n) for n in present]
        if attributes is not None:
            self.key.append(tuple(attributes))
            self.containers.append(attributes)
            self.watch(attributes, attributes.keys)
            self.watch(attributes, attributes.values)
            parts += attributes.values()
        return parts

    def finish(self) -> None:
        """Follow modules along the names that occur in code, until nothing new comes up."""
        done: set[tuple[int, str]] = set()
        found = True
        while found:
            found = False
            for module in tuple(self._modules):
                for name in tuple(self._names):
                    if (id(module), name) in done:
                        continue
                    done.add((id(module), name))
                    if name in module.__dict__:
                        found = True
                        self.key.append(name)
                        self._watch_names(module.__dict__, (name,))
                        self.visit(module.__dict__[name])


class Same:
    """Guards an object by identity, and keeps it alive so that the identity means something."""

    __slots__ = ("x",)

    def __init__(self, x: object) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.x is other.x

    def __hash__(self) -> int:
        return id(self.x)


def _plain_key(k: object) -> object:
    """A dict key or set element by type and value, other objects by identity."""
    if isinstance(k, float):
        return (type(k), k.hex())
    return (type(k), k) if type(k) in _PLAIN else Same(k)


def _slots_of(kind: type) -> tuple[str, ...]:
    names: list[str] = []
    for c in kind.__mro__:
        own = c.__dict__.get("__slots__", ())
        names += (own,) if isinstance(own, str) else own
    return tuple(n for n in names if n not in ("__dict__", "__weakref__"))


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # an empty cell
        return []


def _fill(cell: types.CellType, held: tuple[Any, ...]) -> None:
    if held:
        cell.cell_contents = held[0]
    elif _contents(cell):
        del cell.cell_contents


def _refill(x: set[Any], held: tuple[Any, ...]) -> None:
    x.clear()
    x.update(held)


def _set_all(owner: Any, names: tuple[str, ...], held: tuple[Any, ...]) -> None:
    """Put attributes back that have changed."""
    for name, value in zip(names, held, strict=True):
        if name.startswith("__") or getattr(owner, name, _MISSING) is value:
            continue
        if value is not _MISSING and not isinstance(value, staticmethod | classmethod | property):
            setattr(owner, name, value)


def _root_name(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _late_values() -> tuple[type, ...]:
    modules = ((sys.modules.get(module), name) for module, name in _LATE_VALUES)
    return tuple(getattr(m, name) for m, name in modules if hasattr(m, name))


def _root(kind: type) -> str:
    return _root_name(kind.__module__)


def _is_random(x: object) -> bool:
    """Whether x is a generator of random numbers other than our own."""
    return type(x).__module__.startswith(("numpy.random", "random"))


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and all that are defined inside."""
    yield code
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            yield from codes_of(c)


def survey(roots: tuple[Any, ...]) -> Survey:
    """The state reachable from these roots."""
    out = Survey()
    for k, r in enumerate(roots):
        out.visit(r)
        if k == 0:
            out.arguments = len(out.tensors)
    out.finish()
    return out
