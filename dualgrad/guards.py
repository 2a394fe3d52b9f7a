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
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import is_not
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


@dataclass
class Survey:
    """The state that a call depends on."""

    key: list[object] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    containers: list[Any] = field(default_factory=list)
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

    def _parts(self, x: Any) -> list[Any]:
        """The parts of a container; its structure goes into the key."""
        kind, key = type(x), self.key
        if isinstance(x, list | tuple):
            key += [kind, len(x)]
            if kind is list:
                self.containers.append(x)
            return list(x)
        if isinstance(x, dict):
            key += [kind, len(x), *(k if _is_plain(k) else _Same(k) for k in x)]
            self.containers.append(x)
            return list(x.values())
        if isinstance(x, set | frozenset):
            key += [kind, frozenset(_Same(e) if not _is_plain(e) else e for e in x)]
            return []
        if isinstance(x, types.FunctionType):
            key += [kind, x.__code__]
            return function_parts(x)
        if isinstance(x, types.MethodType):
            key.append(kind)
            return [x.__self__, x.__func__]
        if isinstance(x, types.CellType):
            key.append(kind)
            return [x.cell_contents] if not _is_empty(x) else []
        if isinstance(x, type):
            key.append(x)
            return class_parts(x)
        return self._object(x)

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
        slots = [n for c in kind.__mro__ for n in _slots(c)]
        if attributes is None and not slots:
            self.key.append(_Same(x))
            return []
        parts: list[Any] = [getattr(x, n) for n in slots if hasattr(x, n)]
        self.key += [kind, len(parts)]
        if attributes is not None:
            self.key += [*attributes]
            self.containers.append(attributes)
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


def _is_empty(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return True
    return False


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


def function_parts(f: types.FunctionType) -> list[Any]:
    """What a function can read besides its arguments."""
    if f.__module__ and f.__module__.partition(".")[0] in _FOREIGN:
        return []
    parts: list[Any] = list(f.__defaults__ or ())
    parts += (f.__kwdefaults__ or {}).values()
    parts += [c.cell_contents for c in f.__closure__ or () if not _is_empty(c)]
    names = dict.fromkeys(n for c in codes_of(f.__code__) for n in c.co_names)
    for name in names:
        if name in f.__globals__:
            x = f.__globals__[name]
            parts.append(x)
            if isinstance(x, types.ModuleType) and x.__name__.partition(".")[0] not in _FOREIGN:
                parts += [x.__dict__[n] for n in names if n in x.__dict__]
    return parts


def class_parts(c: type) -> list[Any]:
    """Attributes and functions of a user's class and its bases."""
    parts: list[Any] = []
    for base in c.__mro__:
        if _root(base) in _FOREIGN:
            continue
        for name, x in base.__dict__.items():
            if isinstance(x, staticmethod | classmethod):
                x = x.__func__
            if isinstance(x, property):
                parts += [f for f in (x.fget, x.fset) if f is not None]
            elif not name.startswith("__") or isinstance(x, types.FunctionType):
                parts.append(x)
    return parts


def survey(roots: tuple[Any, ...]) -> Survey:
    """The state reachable from these roots."""
    out = Survey()
    for r in roots:
        out.visit(r)
    return out


class Quick:
    """The short way to a compiled path: tensors as arguments, and no state but globals.

    It serves functions whose closure, defaults and globals hold nothing but modules, functions
    and classes that are not followed, and plain values; these are compared by identity.
    """

    def __init__(self, fn: Any) -> None:
        self.paths: dict[tuple[object, ...], Any] = {}
        self._names: tuple[str, ...] | None = None
        self._values: tuple[object, ...] = ()
        self._globals: dict[str, Any] = getattr(fn, "__globals__", {})
        if isinstance(fn, types.FunctionType) and not (
            fn.__closure__ or fn.__defaults__ or fn.__kwdefaults__
        ):
            names = dict.fromkeys(n for c in codes_of(fn.__code__) for n in c.co_names)
            self._names = tuple(names)

    def key(self, args: tuple[Any, ...]) -> tuple[object, ...] | None:
        """What a call is known by; None where only a survey will do."""
        names = self._names
        if names is None:
            return None
        values = tuple([self._globals.get(n) for n in names])
        if len(values) != len(self._values) or any(map(is_not, values, self._values)):
            self.paths.clear()
            if not all(map(_is_inert, values)):
                return None
            self._values = values
        key: list[object] = [state.grad_enabled]
        seen = set()
        for x in args:
            if x.__class__ is not Tensor or x.grad_fn is not None:
                return None
            seen.add(id(x))
            key += (x.sig, x.requires_grad)
        return tuple(key) if len(seen) == len(args) else None


def _is_inert(x: object) -> bool:
    """Whether a global holds no state that `survey` would follow."""
    if isinstance(x, types.ModuleType):
        return x.__name__.partition(".")[0] in _FOREIGN
    if isinstance(x, types.FunctionType | type):
        return _root_name(x.__module__) in _FOREIGN
    return x is None or isinstance(x, bool | int | float | str | bytes | DType)


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
