"""Python state that a compiled function reads in ways that its own code does not show.

Attributes that C code looks up, state behind builtin methods, texts and registrations.  Rows 17
and 18, as in `test_captures`.
"""

from __future__ import annotations

import abc
import copy
import enum
import functools
import inspect
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

import dualgrad as dg
from dualgrad.jit.watch import named_in_format
from semantics.test_captures import Box, Case, row, setter

CASES: dict[str, Callable[[], Case]] = {}
EAGER: set[str] = set()  # cases that run eagerly


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def eager(build: Callable[[], Case]) -> Callable[[], Case]:
    EAGER.add(build.__name__)
    return case(build)


# -- attributes looked up by C code ---------------------------------------------------------------


@case
def attribute_in_a_format() -> Case:
    s = Box(2.0)
    return lambda x: x * float("{0.kappa}".format(s)), setter(s, "kappa", 3.0, 4.0)  # noqa: UP030, UP032


@case
def attribute_in_a_format_with_a_mapping() -> Case:
    s = Box(2.0)
    text = "{box.kappa}"
    return lambda x: x * float(text.format_map({"box": s})), setter(s, "kappa", 3.0, 4.0)


def test_attributes_that_a_format_names() -> None:
    assert named_in_format("{} {:.3f} {a!r} {{b.c}}") == set()
    assert named_in_format("{0.ab[1].cd:>4} {x.ef}") == {"ab", "cd", "ef"}
    assert named_in_format("{:{w.x}}") is None
    assert named_in_format("{") is None


@case
def namespaces_compared() -> Case:
    a, b = types.SimpleNamespace(kay=1), types.SimpleNamespace(kay=1)
    return lambda x: x * 2 if a == b else x, setter(b, "kay", 2, 1)


@case
def namespace_among_others() -> Case:
    a, b = types.SimpleNamespace(kay=1), types.SimpleNamespace(kay=1)
    return lambda x: x * 2 if a in [b] else x, setter(b, "kay", 2, 1)


@case
def namespace_shown() -> Case:
    s = types.SimpleNamespace(kay=1)
    return lambda x: x * len(repr(s)) + len(f"{s}") + len("%s" % s), setter(s, "kay", 22, 333)  # noqa: UP031


@case
def copied_object() -> Case:
    s = Box(2.0)

    def f(x: Any) -> Any:
        return x, copy.copy(s)

    return f, setter(s, "kappa", 3.0, 4.0)


@case
def pickled_object() -> Case:
    s = types.SimpleNamespace(kay=2)
    return lambda x: x * len(pickle.dumps(s)), setter(s, "kay", "abcdef", 3)


@case
def attribute_read_by_the_standard_library() -> Case:
    s = Box(2.0)
    return lambda x: x * inspect.getattr_static(s, "kappa"), setter(s, "kappa", 3.0, 4.0)


@case
def slot_by_its_descriptor() -> Case:
    class Scale:
        __slots__ = ("kay",)

    s = Scale()
    s.kay = 2.0
    slot: Any = Scale.kay
    return lambda x: x * slot.__get__(s), setter(s, "kay", 3.0, 4.0)


# -- state behind builtin objects -----------------------------------------------------------------


@case
def builtin_method_of_a_list() -> Case:
    k = [2.0]
    get = k.__getitem__
    return lambda x: x * get(0), [lambda: k.__setitem__(0, 3.0), lambda: k.insert(0, 4.0)]


@case
def builtin_method_of_a_dict() -> Case:
    k = {"a": 2.0}
    get = k.get
    return lambda x: x * get("a", 1.0), [lambda: k.update(a=3.0), k.clear, lambda: k.update(a=4.0)]


@case
def builtin_method_of_the_class_of_a_user() -> Case:
    class Table(dict[str, float]):
        kay = 2.0

    make = Table.fromkeys
    return lambda x: x * make("ab", 1.0).kay, setter(Table, "kay", 3.0, 4.0)


@case
def attribute_of_a_partial_function() -> Case:
    inner = functools.partial(max, 2.0)
    inner.kay = 2.0  # type: ignore[attr-defined]
    return lambda x: x * inner.kay, setter(inner, "kay", 3.0, 4.0)  # type: ignore[attr-defined]


@case
def attribute_of_a_decorated_function() -> Case:
    inner = dg.function(lambda x: x)
    inner.kay = 2.0  # type: ignore[attr-defined]
    return lambda x: inner(x) * inner.kay, setter(inner, "kay", 3.0, 4.0)  # type: ignore[attr-defined]


@case
def function_attribute_that_may_be_missing() -> Case:
    def inner(x: Any) -> Any:
        return x

    def f(x: Any) -> Any:
        try:
            return x * inner.kay  # type: ignore[attr-defined]
        except AttributeError:
            return x * getattr(inner, "kappa", 1.0)

    changes = [*setter(inner, "kappa", 2.0), *setter(inner, "kay", 3.0)]
    return f, [*changes, lambda: delattr(inner, "kay"), *setter(inner, "__dict__", {"kay": 5.0})]


@case
def defaults_that_are_read() -> Case:
    def inner(k: float = 2.0) -> None:
        pass

    return lambda x: x * inner.__defaults__[0], setter(inner, "__defaults__", (3.0,), (4.0,))  # type: ignore[index]


@case
def code_that_is_read() -> Case:
    def one() -> float:
        return 2.0

    def other() -> float:
        return 3.0

    return lambda x: x * one.__code__.co_consts[1], setter(one, "__code__", other.__code__)


@case
def arguments_of_an_exception() -> Case:
    e = ValueError(2.0)
    return lambda x: x * e.args[0], setter(e, "args", (3.0,), (4.0,))


# -- attributes of classes and modules with names like Python's own -------------------------------


@case
def table_in_a_class() -> Case:
    class Settings:
        __config__: ClassVar[dict[str, float]] = {"k": 2.0}
        __scale__ = "a"

    table = Settings.__config__
    changes = [lambda: table.update(k=3.0), *setter(Settings, "__scale__", "bc")]
    return lambda x: x * Settings.__config__["k"] * len(Settings.__scale__), changes


@case
def special_method_that_is_no_function() -> Case:
    class Length(Box):
        def __call__(self) -> Any:
            return self.kappa

    length = Length(2)

    class Sized:
        __len__ = length

    s: Any = Sized()
    return lambda x: x * len(s), setter(length, "kappa", 3, 4)


@case
def annotations_of_a_class() -> Case:
    class Settings:
        kay: int

    found = Settings.__annotations__
    return lambda x: x * len(Settings.__annotations__), [lambda: found.update(b=int)]


@case
def annotations_of_a_function() -> Case:
    def inner(x: int) -> None:
        pass

    found = inner.__annotations__
    return lambda x: x * len(inner.__annotations__), [lambda: found.update(b=int)]


@case
def class_of_a_module() -> Case:
    class Settings(types.ModuleType):
        kay = 2.0

    module = Settings("settings_of_a_test")
    return lambda x: x * module.kay, setter(Settings, "kay", 3.0, 4.0)


@case
def computed_name_in_a_module() -> Case:
    module: Any = types.ModuleType("settings_of_a_test")
    module.kay = 2.0
    name = "".join(["ka", "y"])
    return lambda x: x * getattr(module, name), setter(module, "kay", 3.0, 4.0)


@case
def module_attribute_that_may_be_missing() -> Case:
    module: Any = types.ModuleType("settings_of_a_test")

    def f(x: Any) -> Any:
        try:
            return x * module.kay
        except AttributeError:
            return x

    return f, [*setter(module, "kay", 3.0), lambda: delattr(module, "kay")]


@case
def names_of_a_module() -> Case:
    module: Any = types.ModuleType("settings_of_a_test")
    return lambda x: x * len(vars(module)), [*setter(module, "kay", 3.0), *setter(module, "b", 1)]


@case
def registered_class() -> Case:
    class Base(abc.ABC):  # noqa: B024
        pass

    class Settings:
        pass

    s = Settings()
    return lambda x: x * 2 if isinstance(s, Base) else x, [lambda: Base.register(Settings) and None]


@case
def attribute_of_an_enumeration() -> Case:
    class Mode(enum.Enum):
        A = 1

    mode: Any = Mode.A
    mode.kay = 2.0
    return lambda x: x * mode.kay, setter(mode, "kay", 3.0, 4.0)


# -- what cannot be followed ----------------------------------------------------------------------


@eager
def globals_of_a_function() -> Case:
    space: dict[str, Any] = {"kay": 2.0}
    inner = types.FunctionType((lambda x: x).__code__, space)
    return lambda x: x * inner.__globals__["kay"], [lambda: space.update(kay=3.0)]


@eager
def table_of_modules() -> Case:
    module: Any = types.ModuleType("settings_of_a_test")
    module.kay = 2.0
    sys.modules["settings_of_a_test"] = module
    return lambda x: x * sys.modules["settings_of_a_test"].kay, setter(module, "kay", 3.0)


@eager
def subclasses_of_a_class() -> Case:
    class Base:
        pass

    kept: list[type] = []
    more = lambda: kept.append(type("Other", (Base,), {}))  # noqa: E731
    return lambda x: x * len(Base.__subclasses__()), [more]


@eager
def variables_of_a_caller() -> Case:
    s = Box(2.0)

    def inner(x: Any) -> Any:
        return x * sys._getframe(1).f_locals["kay"]

    def f(x: Any) -> Any:
        kay = s.kappa
        return inner(x) + kay

    return f, setter(s, "kappa", 3.0)


@pytest.fixture(autouse=True)
def _modules_as_before() -> Iterator[None]:
    yield
    sys.modules.pop("settings_of_a_test", None)


@pytest.mark.parametrize("name", CASES)
def test_row17_hidden_state_that_changes(name: str) -> None:
    row(CASES[name], name in EAGER or None)


def test_row17_changes_of_keyword_defaults_are_effects() -> None:
    def build() -> Case:
        def inner(x: Any, *, k: float = 1.0) -> Any:
            return x * k

        def f(x: Any) -> Any:
            inner.__kwdefaults__["k"] += 1
            return inner(x)

        return f, [lambda: inner.__kwdefaults__.update(k=7.0)]

    row(build, False)


def test_row17_changes_of_names_are_effects() -> None:
    def build() -> Case:
        class Settings:
            pass

        def inner(x: Any) -> Any:
            return x

        def f(x: Any) -> Any:
            Settings.__name__ += "a"
            inner.__name__ += "bc"
            return x * len(Settings.__name__) + len(inner.__name__)

        return f, [*setter(Settings, "__name__", "abc"), *setter(inner, "__name__", "d")]

    row(build, None)


def test_row17_changes_of_names_like_pythons_own_are_effects() -> None:
    def build() -> Case:
        class Settings:
            __scale__ = 1

        def f(x: Any) -> Any:
            Settings.__scale__ += 1
            return x * Settings.__scale__

        return f, setter(Settings, "__scale__", 5)

    row(build, None)
