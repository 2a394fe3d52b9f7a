"""What a compiled function depends on: its arguments and the Python state that it can reach.

`survey` walks from the arguments, closure cells, defaults and globals of a function along
attributes, dict entries and sequence elements.  It returns a key (everything but tensors' values,
by value) and the tensors and containers in the order met, so that a later call finds the same
places again.  Objects are followed by structure, not identity.  Over-guarding is allowed:
whatever is reached is part of the key, whether the function used it or not.
"""

from __future__ import annotations

import enum
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import is_
from typing import Any

from dualgrad.runtime.dtype import DType
from dualgrad.state import state
from dualgrad.tensor import Tensor

_OWN = "dualgrad"
_ATOMS = (
    bool,
    int,
    str,
    bytes,
    type(None),
    type(Ellipsis),
    enum.Enum,
    DType,
    slice,
    range,
    complex,
)
_FOREIGN = frozenset(sys.stdlib_module_names) | {
    "numpy", "dualgrad", "llvmlite", "cupy", "torch", "jax", "pytest", "builtins",
}  # fmt: skip


# (a sized container or None, how to read what it holds, what it held)
Watch = tuple[Any, Callable[[], Iterable[Any]], tuple[Any, ...]]


@dataclass
class Survey:
    """The state that a call depends on."""

    key: list[object] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    containers: list[Any] = field(default_factory=list)
    watched: list[Watch] = field(default_factory=list)
    arguments: int = 0  # how many of the tensors come from the first root
    _seen: dict[int, int] = field(default_factory=dict)
    _alive: list[object] = field(default_factory=list)

    @property
    def hashable(self) -> tuple[object, ...]:
        return tuple(self.key)

    def visit(self, root: Any) -> None:
        """Walk one root.  Iterative; each container once, later meetings as references."""
        stack = [root]
        key, seen = self.key, self._seen
        while stack:
            x = stack.pop()
            kind = type(x)
            if kind is float:
                key.append((float, x.hex()))
            elif isinstance(x, Tensor):
                self._tensor(x)
            elif isinstance(x, _ATOMS):
                key.append(x if kind is not bool and kind is not int else (kind, x))
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
        self.key += [type(x), x.sig, x.requires_grad, x.grad_fn is None]

    def _watch(self, container: Any, read: Callable[[], Iterable[Any]]) -> None:
        self.watched.append((container, read, tuple(read())))

    def _parts(self, x: Any) -> list[Any]:
        """The parts of a container; its structure goes into the key."""
        kind, key = type(x), self.key
        if isinstance(x, tuple):
            key += [kind, len(x)]
            return list(x)
        if isinstance(x, list):
            key += [kind, len(x)]
            self.containers.append(x)
            self._watch(x, x.__iter__)
            return list(x)
        if isinstance(x, dict):
            key += [kind, len(x), *(k if _is_plain(k) else _Same(k) for k in x)]
            self.containers.append(x)
            self._watch(x, x.keys)
            self._watch(x, x.values)
            return list(x.values())
        if isinstance(x, set | frozenset):
            key += [kind, frozenset(_Same(e) if not _is_plain(e) else e for e in x)]
            self._watch(x, x.__iter__)
            return []
        return self._code(x)

    def _code(self, x: Any) -> list[Any]:
        """The parts of functions, methods, cells and classes."""
        kind, key = type(x), self.key
        if isinstance(x, types.FunctionType):
            key += [kind, x.__code__]
            self._watch(None, lambda: (x.__code__, x.__defaults__, x.__kwdefaults__))
            return self._function(x)
        if isinstance(x, types.MethodType):
            key.append(kind)
            return [x.__self__, x.__func__]
        if isinstance(x, types.CellType):
            key.append(kind)
            self._watch(None, partial(_contents, x))
            return _contents(x)
        if isinstance(x, type):
            key.append(x)
            return self._class(x)
        return self._object(x)

    def _function(self, f: types.FunctionType) -> list[Any]:
        """What a function can read besides its arguments."""
        if _root_name(f.__module__) in _FOREIGN:
            return []
        parts: list[Any] = list(f.__defaults__ or ())
        parts += (f.__kwdefaults__ or {}).values()
        parts += f.__closure__ or ()
        names = tuple(dict.fromkeys(n for c in codes_of(f.__code__) for n in c.co_names))
        spaces = [f.__globals__]
        for name in names:
            x = f.__globals__.get(name)
            if isinstance(x, types.ModuleType) and _root_name(x.__name__) not in _FOREIGN:
                spaces.append(x.__dict__)
        for space in spaces:
            self._watch(None, partial(map, space.get, names))
            parts += [space[n] for n in names if n in space]
        return parts

    def _class(self, c: type) -> list[Any]:
        """Attributes and functions of a user's class and its bases."""
        parts: list[Any] = []
        for base in c.__mro__:
            if _root(base) in _FOREIGN:
                continue
            self._watch(base.__dict__, base.__dict__.values)
            for name, x in base.__dict__.items():
                if isinstance(x, staticmethod | classmethod):
                    x = x.__func__
                if isinstance(x, property):
                    parts += [f for f in (x.fget, x.fset) if f is not None]
                elif not name.startswith("__") or isinstance(x, types.FunctionType):
                    parts.append(x)
        return parts

    def _object(self, x: Any) -> list[Any]:
        kind = type(x)
        inner = getattr(x, "__wrapped_function__", None)
        if inner is not None:
            self.key.append(kind)
            return [inner]
        attributes = getattr(x, "__dict__", None)
        if isinstance(x, types.ModuleType) or _root(kind) in _FOREIGN - {_OWN}:
            self.key.append(_Same(x))
            return []
        slots = tuple(n for c in kind.__mro__ for n in _slots(c))
        if attributes is None and not slots:
            self.key.append(_Same(x))
            return []
        self._watch(None, lambda: (x.__class__,))
        parts: list[Any] = [getattr(x, n) for n in slots if hasattr(x, n)]
        if slots:
            self._watch(None, lambda: [getattr(x, n, None) for n in slots])
        self.key += [kind, len(parts)]
        if attributes is not None:
            self.key += [*attributes]
            self.containers.append(attributes)
            self._watch(attributes, attributes.keys)
            self._watch(attributes, attributes.values)
            parts += attributes.values()
        return [kind, *parts]


class _Same:
    """Guards an object by identity, and keeps it alive so that the identity means something."""

    __slots__ = ("x",)

    def __init__(self, x: object) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.x is other.x

    def __hash__(self) -> int:
        return id(self.x)


def _slots(c: type) -> tuple[str, ...]:
    names = c.__dict__.get("__slots__", ())
    names = (names,) if isinstance(names, str) else tuple(names)
    return tuple(n for n in names if not n.startswith("__"))


def _is_plain(x: object) -> bool:
    return isinstance(x, str | int | bool | bytes | float | type(None))


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # an empty cell
        return []


def _root_name(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _root(kind: type) -> str:
    return _root_name(kind.__module__)


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
    return out


class Standing:
    """The state behind a function's arguments as it was found; tells quickly if it still is so.

    Everything is compared by identity: containers hold the same objects, tensors have the same
    types and layouts.  If so, a survey would find the same tensors and containers again, and
    the paths found since then hold for equal arguments.
    """

    def __init__(self, fn: Any, common: tuple[Any, ...]) -> None:
        found = survey((fn,))
        self.watched = found.watched
        self.flags = [(t, t.sig, t.requires_grad, t.grad_fn) for t in found.tensors]
        rest = survey((fn, *common))
        self.tensors, self.containers = rest.tensors, rest.containers
        self.ids = {id(t) for t in self.tensors}
        self.ids |= {id(c) for c in self.containers}
        self.paths: dict[tuple[object, ...], Any] = {}

    def unchanged(self) -> bool:
        for container, read, held in self.watched:
            if container is not None and len(container) != len(held):
                return False
            if not all(map(is_, read(), held)):
                return False
        for t, sig, requires_grad, grad_fn in self.flags:
            if t.sig is not sig and t.sig != sig:
                return False
            if t.requires_grad is not requires_grad or t.grad_fn is not grad_fn:
                return False
        return True

    def found(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Survey:
        """What a survey would find, for arguments that `key` accepts."""
        return Survey(tensors=[*args, *self.tensors], containers=[kwargs, *self.containers])

    def key(self, args: tuple[Any, ...]) -> tuple[object, ...] | None:
        """What a call with these arguments is known by; None where only a survey will do.

        It serves calls whose arguments are distinct tensors that are no part of the state.
        """
        key: list[object] = [state.grad_enabled]
        seen = set()
        for x in args:
            if not isinstance(x, Tensor) or x.grad_fn is not None:
                return None
            seen.add(id(x))
            key += (x.__class__, x.sig, x.requires_grad)
        if len(seen) != len(args) or not seen.isdisjoint(self.ids):
            return None
        return tuple(key)


# -- Calls that a replay could not repeat -------------------------------------------------------

_IMPURE_MODULES = frozenset(
    {"time", "random", "_random", "secrets", "posix", "nt", "_io", "select"}
)
_IMPURE_NAMES = frozenset({"print", "input", "open", "breakpoint"})


def impurity(function: Any) -> str | None:
    """The name of a C function whose effect or result differs from call to call, else None."""
    name = getattr(function, "__name__", "")
    module = getattr(function, "__module__", None) or ""
    owner = getattr(function, "__self__", None)
    origin = type(owner).__module__ if owner is not None else ""
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    if (module in _IMPURE_MODULES or origin in _IMPURE_MODULES) and name not in (
        "fspath",
        "getpid",
    ):
        return f"{module or origin}.{name}"
    if origin.startswith("numpy.random") or module.startswith("numpy.random"):
        return f"numpy.random.{name}"
    if module == "builtins" and name in _IMPURE_NAMES:
        return f"{name}()"
    return None
