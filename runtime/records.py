"""Data classes that cost next to nothing until they are used.

`dataclasses.dataclass` writes and compiles up to seven methods for each class, half a millisecond
of import time, and a framework has more than a hundred such classes, of which a process makes
instances of a few.  This `dataclass` means the same, for what is used of it here: comparing,
hashing and printing are closures over the names of the fields, and `__init__` is compiled for
classes of many instances only.  `fields`, `replace` and `is_dataclass` take its classes.

    @dataclass(frozen=True)
    class Point:
        x: int
        y: int = 0
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, FrozenInstanceError, field
from operator import attrgetter
from reprlib import recursive_repr
from typing import Any, TypeVar, dataclass_transform, overload

__all__ = ["dataclass", "field"]

T = TypeVar("T")
_MANY = 20
_PLACE = "__record__"  # where a class keeps its fields, with those of its bases


@overload
def dataclass(cls: type[T], /) -> type[T]: ...


@overload
def dataclass(
    *, frozen: bool = False, eq: bool = True, repr: bool = True
) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(field_specifiers=(field,))
def dataclass(
    cls: type[Any] | None = None, /, *, frozen: bool = False, eq: bool = True, repr: bool = True
) -> Any:
    """As `dataclasses.dataclass`, without `slots`, `order` and fields for keywords only."""

    def decorate(cls: type[Any]) -> type[Any]:
        _make(cls, frozen, eq, repr)
        return cls

    return decorate if cls is None else decorate(cls)


def _make(cls: type[Any], frozen: bool, eq: bool, repr: bool) -> None:
    own = cls.__dict__
    fields: dict[str, Any] = {}
    for base in cls.__mro__[:0:-1]:
        fields.update(base.__dict__.get(_PLACE, {}))
    for name, annotation in own.get("__annotations__", {}).items():
        if not annotation.startswith("ClassVar"):
            fields[name] = _field(cls, name)
    given = tuple(n for n, f in fields.items() if f.init)
    made: dict[str, Any] = {
        _PLACE: fields,
        "__dataclass_fields__": _Fields(cls),
        "__match_args__": given,
        "__init__": _first_init(cls, frozen, fields, given),
    }
    if eq:
        get = _values([n for n, f in fields.items() if f.compare])
        if "__eq__" not in own:
            made["__eq__"] = _eq(get)
        if own.get("__hash__") is None:
            made["__hash__"] = _hash(get) if frozen else None
    if repr and "__repr__" not in own:
        made["__repr__"] = _repr([n for n, f in fields.items() if f.repr])
    if frozen:
        made.update(__setattr__=_refuse_change, __delattr__=_refuse_removal)
    for name, value in made.items():
        setattr(cls, name, value)


def _field(cls: type[Any], name: str) -> Any:
    """The field that a class states; as with `dataclasses`, a plain default stays an attribute."""
    stated = cls.__dict__.get(name, MISSING)
    if not isinstance(stated, dataclasses.Field):
        return field() if stated is MISSING else field(default=stated)
    if stated.default is MISSING:
        delattr(cls, name)
    else:
        setattr(cls, name, stated.default)
    return stated


class _Fields:
    """`__dataclass_fields__`, made when somebody asks for it."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls

    def __get__(self, instance: object, owner: type[Any]) -> dict[str, Any]:
        fields = self.cls.__dict__[_PLACE]
        body = {"__annotations__": dict.fromkeys(fields, Any), **fields}
        twin: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(type("", (), body))
        self.cls.__dataclass_fields__ = twin.__dataclass_fields__
        return twin.__dataclass_fields__  # type: ignore[no-any-return]


def _first_init(
    cls: type[Any], frozen: bool, fields: dict[str, Any], names: tuple[str, ...]
) -> Callable[..., None]:
    """An `__init__` that reads the fields, until a class has so many instances that compiling
    one pays; `names` are those of its parameters."""
    made, put = 0, object.__setattr__ if frozen else setattr
    all_given = len(names) == len(fields)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal made
        made += 1
        values: Iterable[tuple[str, Any]] | None = None
        if made < _MANY:
            if all_given and len(args) == len(names) and not kwargs:
                values = zip(names, args, strict=True)
            else:
                values = _bound(fields, names, args, kwargs)
        if values is None:  # or arguments that do not fit: Python says it best
            init = _compiled_init(cls, frozen)
            cls.__init__ = init
            init(self, *args, **kwargs)
            return
        for name, value in values:
            put(self, name, value)
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    return __init__


def _bound(
    fields: dict[str, Any], names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterable[tuple[str, Any]] | None:
    """The value of each field for these arguments; None if they do not fit."""
    if len(args) > len(names) or not kwargs.keys() <= {*names[len(args) :]}:
        return None
    values = dict(zip(names, args, strict=False)) | kwargs
    for name, f in fields.items():
        if name in values:
            continue
        if f.default_factory is not MISSING:
            values[name] = f.default_factory()
        elif f.default is not MISSING:
            values[name] = f.default
        elif f.init:
            return None
    return [(name, values[name]) for name in fields if name in values]


def _compiled_init(cls: type[Any], frozen: bool) -> Callable[..., None]:
    given: dict[str, Any] = {"_missing_": MISSING, "_put_": object.__setattr__}
    heads, lines = ["self"], []
    for k, (name, f) in enumerate(cls.__dict__[_PLACE].items()):
        value, default = name, f"_default{k}_"
        if f.default_factory is not MISSING:
            given[default] = f.default_factory
            value = f"{default}() if {name} is _missing_ else {name}" if f.init else f"{default}()"
            heads += [f"{name}=_missing_"] * f.init
        elif f.default is not MISSING:
            given[default] = f.default
            heads += [f"{name}={default}"] * f.init
        elif f.init:
            heads.append(name)
        if f.init or f.default_factory is not MISSING:
            lines.append(f"_put_(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    body = "\n  ".join(lines or ["pass"])
    text = f" def __init__({', '.join(heads)}):\n  {body}\n return __init__"
    found: dict[str, Any] = {}
    # among the names of its module, as all code of the class
    exec(f"def scope({', '.join(given)}):\n{text}", vars(sys.modules[cls.__module__]), found)
    init: Callable[..., None] = found["scope"](**given)
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _values(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that gives these fields of an object."""
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda x: ()
    get = attrgetter(*names)
    return lambda x: (get(x),)


def _eq(get: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, object], bool]:
    def __eq__(self: Any, other: object) -> bool:
        if other.__class__ is self.__class__:
            return get(self) == get(other)
        return NotImplemented

    return __eq__


def _hash(get: Callable[[Any], Any]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:
        return hash(get(self))

    return __hash__


def _repr(names: list[str]) -> Callable[[Any], str]:
    @recursive_repr()
    def __repr__(self: Any) -> str:
        parts = ", ".join(f"{n}={getattr(self, n)!r}" for n in names)
        return f"{self.__class__.__qualname__}({parts})"

    return __repr__


def _refuse_change(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_removal(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
