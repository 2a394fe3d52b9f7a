"""Which kinds of Python objects hold state: values, inert objects, and what is foreign."""

from __future__ import annotations

import collections
import datetime
import operator
import pathlib
import re
import sys
import threading
import types
from typing import Any

import numpy as np

from dualgrad.runtime.dtype import DType
from dualgrad.runtime.native.callables import types_of_stand_ins

OWN = "dualgrad"
_FOREIGN = frozenset(sys.stdlib_module_names) | {
    "numpy", "dualgrad", "llvmlite", "cupy", "torch", "jax", "pytest", "_pytest", "builtins",
} - {"__main__"}  # fmt: skip
LOCKS = (type(threading.Lock()), type(threading.RLock()))
PLAIN = (bool, int, str, bytes, type(None), type(Ellipsis), DType, range)
_VALUES = (
    datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, pathlib.PurePath,
    re.Pattern, np.dtype, np.generic,
)  # fmt: skip
# Also values, of modules that are not imported for that: without them there are none.
_LATE_VALUES = (("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"))
# Objects without state of their own that code could read.
INERT = (
    types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType,
    types.MethodDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, types.GenericAlias, types.CodeType, np.ufunc,
    operator.itemgetter, operator.attrgetter, operator.methodcaller,
    type(collections.namedtuple("Pair", "x").__dict__["x"]), *types_of_stand_ins(),
)  # fmt: skip
# Names that reach state in ways a walk does not see.
ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})
UNSEEN = frozenset({"globals", "eval", "exec", "__import__", "environ", "getenv"})
UNSEEN_ATTRIBUTES = frozenset(
    {
        "__globals__", "__subclasses__", "f_globals", "f_locals", "get_objects", "get_referrers",
        "import_module",
    }
)  # fmt: skip
# What reads attributes by names that it is given as text.
COMPUTING: tuple[Any, ...] = (
    getattr, hasattr, setattr, delattr, vars, dir, object.__getattribute__, type.__getattribute__,
    operator.attrgetter, operator.methodcaller,
)  # fmt: skip
EVALUATING: tuple[Any, ...] = (globals, eval, exec, __import__)
# Attributes of functions and of classes that stand in no dict.
FUNCTION_TEXTS = ("__name__", "__qualname__", "__doc__", "__module__")
CLASS_TEXTS = ("__name__", "__qualname__")
FUNCTION_PARTS = frozenset({"__code__", "__defaults__", "__kwdefaults__", "__closure__"})
# What this package's own code reads of functions and classes for its messages.
TEXTS = FUNCTION_PARTS.union(FUNCTION_TEXTS, CLASS_TEXTS, ["__annotations__"])
# Entries of classes that Python itself makes and keeps.
MACHINERY = frozenset(
    {
        "__dict__", "__weakref__", "__dataclass_fields__", "__dataclass_params__", "__slotnames__",
        "__annotations__", "__annotations_cache__", "__annotate_func__", "__abstractmethods__",
        "_abc_impl",
    }
)  # fmt: skip
SMALL_ARRAY = 4096  # bytes of a NumPy array that become part of a key


def is_foreign(module: str | None) -> bool:
    """Whether a module's code and classes are taken to be constant."""
    return root_name(module) in _FOREIGN


def root_name(module: str | None) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""


def root_of(kind: type) -> str:
    """The top-level module of a class."""
    return root_name(kind.__module__)


def is_value(x: object) -> bool:
    """Whether an object of another library is known by its text."""
    return isinstance(x, (*_VALUES, *_late_values()))


def _late_values() -> tuple[type, ...]:
    modules = ((sys.modules.get(module), name) for module, name in _LATE_VALUES)
    return tuple(getattr(m, name) for m, name in modules if hasattr(m, name))


def is_random(x: object) -> bool:
    """Whether x is a generator of random numbers other than our own."""
    return type(x).__module__.startswith(("numpy.random", "random"))


def slots_of(kind: type) -> tuple[str, ...]:
    """The names of all slots of a class."""
    names: list[str] = []
    for c in kind.__mro__:
        own = c.__dict__.get("__slots__", ())
        names += (own,) if isinstance(own, str) else own
    return tuple(n for n in names if n not in ("__dict__", "__weakref__"))


class Same:
    """Guards an object by identity, and keeps it alive so that the identity means something."""

    __slots__ = ("x",)

    def __init__(self, x: object) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.x is other.x

    def __hash__(self) -> int:
        return id(self.x)


def is_one_of(x: object, known: tuple[Any, ...]) -> bool:
    """Whether x is one of these objects; never asks x itself."""
    return any(x is k for k in known)


def plain_key(k: Any) -> object:
    """A dict key or set element by type and value, other objects by identity."""
    if isinstance(k, float):
        return (type(k), k.hex())
    return (type(k), k) if type(k) in PLAIN else Same(k)
