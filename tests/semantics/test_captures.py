"""Python state that a compiled function reads: whatever changes between calls is noticed.

Rows 17 and 18, need 1.  Each case gives a function that multiplies its argument by a captured
number, and ways of changing what is captured; both modes must agree after each change.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import functools
import operator
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import pytest

import dualgrad as dg
from dualgrad.jit.function import Function
from semantics.support import compare

Case = tuple[Callable[..., Any], list[Callable[[], None]]]
CASES: dict[str, Callable[[], Case]] = {}
EAGER: set[str] = set()  # cases that may run eagerly


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def may_be_eager(build: Callable[[], Case]) -> Callable[[], Case]:
    EAGER.add(build.__name__)
    return case(build)


number = 2.0


class Box:
    def __init__(self, value: Any) -> None:
        self.kappa = value


def setter(x: Any, name: str, *values: Any) -> list[Callable[[], None]]:
    return [functools.partial(setattr, x, name, v) for v in values]


@case
def cell() -> Case:
    k = 2.0

    def change(new: float) -> None:
        nonlocal k
        k = new

    return lambda x: x * k, [lambda: change(3.0), lambda: change(2.0), lambda: change(-0.0)]


@may_be_eager
def emptied_cell() -> Case:
    k = 2.0

    def change(*new: float) -> None:
        nonlocal k
        if new:
            (k,) = new
        else:
            del k

    def f(x: Any) -> Any:
        try:
            return x * k
        except NameError:
            return x

    return f, [lambda: change(3.0), lambda: change(), lambda: change(4.0)]


@case
def global_name() -> Case:
    space = {"kay": 2.0}
    f = types.FunctionType((lambda x: x * k).__code__, space)  # type: ignore[name-defined]  # noqa: F821
    return f, [lambda: space.update(k=3.0), lambda: space.update(k=4.0)]


@case
def default() -> Case:
    def f(x: Any, k: float = 2.0) -> Any:
        return x * k

    return f, setter(f, "__defaults__", (3.0,), (4.0,))


@case
def keyword_default() -> Case:
    def f(x: Any, *, k: float = 2.0) -> Any:
        return x * k

    return f, setter(f, "__kwdefaults__", {"k": 3.0}, {"k": 4.0})


@case
def keyword_default_in_place() -> Case:
    def inner(x: Any, *, k: float = 2.0) -> Any:
        return x * k

    defaults = inner.__kwdefaults__
    return lambda x: inner(x), [lambda: defaults.update(k=3.0), lambda: defaults.update(k=4.0)]


@case
def own_keyword_default_in_place() -> Case:
    def f(x: Any, *, k: float = 2.0) -> Any:
        return x * k

    defaults = f.__kwdefaults__
    return f, [lambda: defaults.update(k=3.0), lambda: defaults.update(k=4.0)]


@case
def keyword_defaults_change_places() -> Case:
    def inner(x: Any, *, a: float = 1.0, b: float = 5.0) -> Any:
        return x * a + b

    swapped = {"b": 1.0, "a": 5.0}
    return lambda x: inner(x), setter(inner, "__kwdefaults__", swapped, {"a": 1.0, "b": 5.0})


@case
def keyword_default_of_a_method() -> Case:
    class Scale:
        def apply(self, x: Any, *, k: float = 2.0) -> Any:
            return x * k

    s, defaults = Scale(), Scale.apply.__kwdefaults__
    return lambda x: s.apply(x), [lambda: defaults.update(k=3.0), lambda: defaults.update(k=4.0)]


@case
def class_attribute() -> Case:
    class Settings:
        kay = 2.0

    return lambda x: x * Settings.kay, setter(Settings, "kay", 3.0, 4.0)


@case
def inherited_class_attribute() -> Case:
    class Base:
        kay = 2.0

    class Settings(Base):
        pass

    changes = [*setter(Base, "kay", 3.0), *setter(Settings, "kay", 4.0)]
    return lambda x: x * Settings.kay, [*changes, lambda: delattr(Settings, "kay")]


@case
def attribute_of_a_metaclass() -> Case:
    class Kind(type):
        kay = 2.0

    class Settings(metaclass=Kind):
        pass

    return lambda x: x * Settings.kay, setter(Kind, "kay", 3.0, 4.0)


@case
def property_of_a_metaclass() -> Case:
    s = Box(2.0)

    class Kind(type):
        @property
        def kay(cls) -> Any:
            return s.kappa

    class Settings(metaclass=Kind):
        pass

    return lambda x: x * Settings.kay, setter(s, "kappa", 3.0, 4.0)


@case
def special_methods_of_a_metaclass() -> Case:
    s = Box(2.0)

    class Kind(type):
        table: ClassVar[list[int]] = [1]

        def __len__(cls) -> int:
            return len(cls.table)

        def __getattr__(cls, name: str) -> Any:
            return s.kappa

        def __call__(cls, x: Any) -> Any:
            return x * s.kappa

        def __instancecheck__(cls, x: Any) -> bool:
            return bool(s.kappa > 2.5)

    class Settings(metaclass=Kind):
        pass

    def f(x: Any) -> Any:
        if isinstance(x, Settings):
            x = x + 1
        return Settings(x) * len(Settings) - Settings.any

    return f, [*setter(s, "kappa", 3.0, 4.0), lambda: Kind.table.append(1)]


@case
def metaclass_replaced() -> Case:
    class A(type):
        kay = 2.0

    class B(type):
        kay = 3.0

    class Settings(metaclass=A):
        pass

    return lambda x: x * Settings.kay, setter(Settings, "__class__", B, A)


@case
def class_attribute_behind_an_instance() -> Case:
    class Settings:
        kay = 2.0

    s = Settings()
    changes = [*setter(Settings, "kay", 3.0), *setter(s, "kay", 4.0)]
    return lambda x: x * s.kay, [*changes, lambda: delattr(s, "kay")]


@case
def instance_attribute() -> Case:
    s = Box(2.0)
    return lambda x: x * s.kappa, setter(s, "kappa", 3.0, 4.0, 5, True)


@case
def attribute_of_an_attribute() -> Case:
    s = Box(Box(Box(2.0)))
    deep = setter(s.kappa.kappa, "kappa", 3.0)
    return lambda x: x * s.kappa.kappa.kappa, [*deep, *setter(s, "kappa", Box(Box(4.0)))]


@case
def module_attribute() -> Case:
    module = types.ModuleType("settings_of_a_test")
    module.kay = 2.0  # type: ignore[attr-defined]
    return lambda x: x * module.kay, setter(module, "kay", 3.0, 4.0)


@case
def module_in_a_module() -> Case:
    outer, inner = types.ModuleType("outer_of_a_test"), types.ModuleType("inner_of_a_test")
    outer.inner, inner.kay = inner, 2.0  # type: ignore[attr-defined]
    return lambda x: x * outer.inner.kay, setter(inner, "kay", 3.0, 4.0)


@case
def dataclass() -> Case:
    @dataclasses.dataclass
    class Settings:
        kay: float = 2.0

    s = Settings()
    return lambda x: x * s.kay, setter(s, "kay", 3.0, 4.0)


@case
def frozen_dataclass_replaced() -> Case:
    @dataclasses.dataclass(frozen=True)
    class Settings:
        kay: float = 2.0

    s = Box(Settings())
    return lambda x: x * s.kappa.kay, setter(s, "kappa", Settings(3.0), Settings(4.0))


@case
def list_element() -> Case:
    k = [1.0, 2.0]
    changes = [functools.partial(operator.setitem, k, 1, v) for v in (3.0, 4.0)]
    return lambda x: x * k[-1], [*changes, lambda: k.append(5.0), k.clear, lambda: k.append(6.0)]


@case
def dict_entry() -> Case:
    k = {"a": 2.0}
    changes = [functools.partial(operator.setitem, k, "a", v) for v in (3.0, 4.0)]
    return lambda x: x * k["a"], [*changes, lambda: k.update(b=1.0)]


@case
def dict_order() -> Case:
    k = {"a": 2.0, "b": 3.0}

    def turn() -> None:
        k["a"] = k.pop("a")

    return lambda x: x - next(iter(k.values())), [turn, turn]


@case
def nested_containers() -> Case:
    k: dict[str, Any] = {"a": [(1.0, {"b": 2.0})]}
    inner = k["a"][0][1]
    return (
        lambda x: x * k["a"][0][1]["b"],
        [lambda: inner.update(b=3.0), lambda: k.update(a=[(1.0, {"b": 4.0})])],
    )


@case
def tuple_element() -> Case:
    s = Box((1.0, 2.0))
    return lambda x: x * s.kappa[1], setter(s, "kappa", (1.0, 3.0), (1.0, 4.0, 5.0))


@case
def named_tuple() -> Case:
    class Pair(NamedTuple):
        a: float
        b: float

    s = Box(Pair(1.0, 2.0))
    return lambda x: x * s.kappa.b, setter(s, "kappa", Pair(1.0, 3.0), Pair(2.0, 3.0))


@case
def set_membership() -> Case:
    k = {1, 2}
    return lambda x: x * 2 if 3 in k else x, [lambda: k.add(3), lambda: k.discard(3)]


@case
def deque_element() -> Case:
    k = collections.deque([2.0])
    return lambda x: x * k[0], [lambda: k.appendleft(3.0), lambda: k.appendleft(4.0)]


@case
def method_per_instance() -> Case:
    class Scale(Box):
        def apply(self, x: Any) -> Any:
            return x * self.kappa

    a, b = Scale(2.0), Scale(3.0)
    s = Box(a)
    return lambda x: s.kappa.apply(x), setter(s, "kappa", b, a, Scale(4.0))


@case
def method_of_the_class_replaced() -> Case:
    class Scale(Box):
        def apply(self, x: Any) -> Any:
            return x * self.kappa

    s = Scale(2.0)
    changes = [*setter(Scale, "apply", lambda self, x: x + self.kappa)]
    return lambda x: s.apply(x), [*changes, *setter(s, "apply", lambda x: x - 1.0)]


@case
def special_method_replaced() -> Case:
    class Scale(Box):
        def __call__(self, x: Any) -> Any:
            return x * self.kappa

    s = Scale(2.0)
    return lambda x: s(x), setter(Scale, "__call__", lambda self, x: x + self.kappa)


@case
def function_that_is_called() -> Case:
    k = 2.0

    def change(new: float) -> None:
        nonlocal k
        k = new

    def inner(x: Any) -> Any:
        return x * k

    def middle(x: Any) -> Any:
        return inner(x)

    return lambda x: middle(x), [lambda: change(3.0), lambda: change(4.0)]


@case
def function_in_a_variable_replaced() -> Case:
    def times(k: float) -> Callable[[Any], Any]:
        return lambda x: x * k

    s = Box(times(2.0))
    return lambda x: s.kappa(x), setter(s, "kappa", times(3.0), times(4.0), lambda x: x + 1.0)


@case
def function_attribute() -> Case:
    def inner(x: Any) -> Any:
        return x

    inner.kay = 2.0  # type: ignore[attr-defined]
    return lambda x: inner(x) * inner.kay, setter(inner, "kay", 3.0, 4.0)


@case
def code_of_a_function_replaced() -> Case:
    def inner(x: Any) -> Any:
        return x * 2.0

    def other(x: Any) -> Any:
        return x * 3.0

    return lambda x: inner(x), setter(inner, "__code__", other.__code__)


@case
def partial_function() -> Case:
    k = [2.0]
    inner = functools.partial(lambda k, x: x * k[0], k)
    return lambda x: inner(x), [lambda: k.__setitem__(0, 3.0), lambda: k.__setitem__(0, 4.0)]


@case
def property_of_a_class() -> Case:
    class Scale(Box):
        @property
        def twice(self) -> Any:
            return self.kappa * 2

    s = Scale(2.0)
    return lambda x: x * s.twice, setter(s, "kappa", 3.0, 4.0)


@case
def descriptor() -> Case:
    class Times:
        def __init__(self, k: float) -> None:
            self.kay = k

        def __get__(self, owner: Any, kind: type) -> float:
            return self.kay * owner.kappa

    times = Times(2.0)

    class Scale(Box):
        twice = times

    s = Scale(2.0)
    return lambda x: x * s.twice, [*setter(times, "kay", 3.0), *setter(s, "kappa", 4.0)]


@case
def slots() -> Case:
    class Scale:
        __slots__ = ("kay",)

        def __init__(self) -> None:
            self.kay = 2.0

    s = Scale()
    return lambda x: x * s.kay, setter(s, "kay", 3.0, 4.0)


@case
def attribute_hook() -> Case:
    class Scale:
        def __init__(self) -> None:
            self.table = {"kay": 2.0}

        def __getattr__(self, name: str) -> Any:
            return self.table[name]

    s = Scale()
    return lambda x: x * s.kay, [lambda: s.table.update(kay=3.0), *setter(s, "kay", 4.0)]


@case
def computed_name() -> Case:
    s = Box(2.0)
    name = "".join(["kap", "pa"])
    return lambda x: x * getattr(s, name), setter(s, "kappa", 3.0, 4.0)


@case
def name_written_in_the_code() -> Case:
    s = Box(2.0)
    return lambda x: x * getattr(s, "kappa", 1.0), [
        *setter(s, "kappa", 3.0),
        lambda: delattr(s, "kappa"),
        *setter(s, "kappa", 4.0),
    ]


@case
def attribute_that_may_be_missing() -> Case:
    s = types.SimpleNamespace()
    return lambda x: x * s.kay if hasattr(s, "kay") else x, [
        *setter(s, "kay", 3.0),
        lambda: delattr(s, "kay"),
    ]


@case
def dict_of_an_object() -> Case:
    s = Box(2.0)
    return lambda x: x * s.__dict__["kappa"], setter(s, "kappa", 3.0, 4.0)


@case
def vars_of_an_object() -> Case:
    s = Box(2.0)
    return lambda x: x * vars(s)["kappa"], setter(s, "kappa", 3.0, 4.0)


@case
def attribute_getter() -> Case:
    s = Box(2.0)
    get = operator.attrgetter("kappa")
    return lambda x: x * get(s), setter(s, "kappa", 3.0, 4.0)


@case
def weak_reference() -> Case:
    s = Box(2.0)
    ref = weakref.ref(s)
    return lambda x: x * ref().kappa, setter(s, "kappa", 3.0, 4.0)  # type: ignore[union-attr]


@case
def weak_dictionary() -> Case:
    s = Box(2.0)
    table = weakref.WeakValueDictionary({"a": s})
    return lambda x: x * table["a"].kappa, setter(s, "kappa", 3.0, 4.0)


@case
def bases_replaced() -> Case:
    class A:
        def apply(self, x: Any) -> Any:
            return x * 2.0

    class B:
        def apply(self, x: Any) -> Any:
            return x * 3.0

    class Scale(A):
        pass

    s = Scale()
    return lambda x: s.apply(x), setter(Scale, "__bases__", (B,), (A,))


@case
def builtin_shadowed() -> Case:
    space: dict[str, Any] = {}
    f = types.FunctionType((lambda x: x * max(2.0, 1.0)).__code__, space)
    return f, [lambda: space.update(max=min), lambda: space.clear()]


@case
def identity_of_an_object() -> Case:
    a, b = Box(2.0), Box(2.0)
    s = Box(a)
    return lambda x: x * 2 if s.kappa is a else x, setter(s, "kappa", b, a)


@case
def length_of_an_object() -> Case:
    class Sized(Box):
        def __len__(self) -> int:
            return int(self.kappa)

    s = Sized(2)
    return lambda x: x * len(s), setter(s, "kappa", 3, 4)


@case
def default_dict() -> Case:
    table = collections.defaultdict(lambda: 2.0, {"a": 3.0})
    return lambda x: x * table["a"], [lambda: table.update(a=4.0), lambda: table.update(b=1.0)]


@case
def context_of_a_with_statement() -> Case:
    class Context(Box):
        def __enter__(self) -> Any:
            return self.kappa

        def __exit__(self, *_: object) -> None:
            pass

    s = Context(2.0)

    def f(x: Any) -> Any:
        with s as k:
            return x * k

    return f, setter(s, "kappa", 3.0, 4.0)


@case
def sorting_by_an_attribute() -> Case:
    a, b = Box(2.0), Box(3.0)
    return (
        lambda x: x * sorted([a, b], key=lambda o: o.kappa)[0].kappa,
        [*setter(a, "kappa", 4.0), *setter(b, "kappa", 1.0)],
    )


@case
def enumeration() -> Case:
    class Mode(enum.Enum):
        A = 2.0
        B = 3.0

    s = Box(Mode.A)
    return lambda x: x * s.kappa.value, setter(s, "kappa", Mode.B, Mode.A)


@case
def text() -> Case:
    s = Box("relu")
    return lambda x: x.relu() if s.kappa == "relu" else -x, setter(s, "kappa", "no", "relu")


@case
def kind_of_number() -> Case:
    s = Box(2)
    return lambda x: x.to(dg.int32) * s.kappa, setter(s, "kappa", 2.0, True, 2)


@case
def captured_tensor_replaced() -> Case:
    s = Box(dg.tensor([2.0]))
    return lambda x: x * s.kappa, setter(
        s, "kappa", dg.tensor([3.0]), dg.tensor([[1.0], [2.0]]), dg.tensor([2], dtype=dg.int32)
    )


@case
def captured_tensor_changed_in_place() -> Case:
    t = dg.tensor([2.0])
    return lambda x: x * t, [lambda: t.fill_(3.0) and None, lambda: t.fill_(4.0) and None]


@case
def module_mode() -> Case:
    from_module = dg.nn.Linear(3, 3)
    return lambda x: x * 2 if from_module.training else x, [
        lambda: from_module.eval() and None,
        lambda: from_module.train() and None,
    ]


@case
def class_of_an_instance_replaced() -> Case:
    class A(Box):
        def apply(self, x: Any) -> Any:
            return x * self.kappa

    class B(Box):
        def apply(self, x: Any) -> Any:
            return x + self.kappa

    s = A(2.0)
    return lambda x: s.apply(x), setter(s, "__class__", B, A)


@case
def bound_method_in_a_variable() -> Case:
    class Scale(Box):
        def apply(self, x: Any) -> Any:
            return x * self.kappa

    s = Scale(2.0)
    apply = s.apply
    return lambda x: apply(x), setter(s, "kappa", 3.0, 4.0)


@case
def static_and_class_methods() -> Case:
    class Scale:
        kay = 2.0

        @classmethod
        def by_class(cls, x: Any) -> Any:
            return x * cls.kay

        @staticmethod
        def by_name(x: Any) -> Any:
            return x * Scale.kay

    return lambda x: Scale.by_class(x) + Scale.by_name(x), setter(Scale, "kay", 3.0, 4.0)


@case
def recursion_over_a_tree() -> Case:
    leaf = Box(2.0)
    tree = [leaf, [Box(3.0)]]

    def walk(x: Any, node: Any) -> Any:
        if isinstance(node, list):
            for n in node:
                x = walk(x, n)
            return x
        return x * node.kappa

    return lambda x: walk(x, tree), [*setter(leaf, "kappa", 4.0), lambda: tree.append(Box(5.0))]


@may_be_eager
def generator_over_state() -> Case:
    k = [2.0, 3.0]

    def each() -> Iterator[float]:
        yield from k

    return lambda x: sum((x * v for v in each()), x), [lambda: k.append(4.0), lambda: k.clear()]


@may_be_eager
def cached_helper() -> Case:
    s = Box(2.0)
    inner = functools.lru_cache(lambda: s.kappa)
    return lambda x: x * inner(), [*setter(s, "kappa", 3.0), inner.cache_clear]


@case
def name_of_a_function() -> Case:
    def inner(x: Any) -> Any:
        return x

    return lambda x: x * len(inner.__name__), setter(inner, "__name__", "a", "bc")


@case
def text_of_a_function() -> Case:
    def inner(x: Any) -> Any:
        """What it does."""

    return lambda x: x * len(inner.__doc__ or ""), setter(inner, "__doc__", "a", None, "bc")


@case
def qualified_names() -> Case:
    def inner(x: Any) -> Any:
        return x

    class Settings:
        pass

    changes = [*setter(inner, "__qualname__", "a"), *setter(Settings, "__qualname__", "a")]
    return lambda x: x * len(inner.__qualname__ + Settings.__qualname__), changes


@case
def name_of_a_class() -> Case:
    class Settings:
        pass

    return lambda x: x * len(Settings.__name__), setter(Settings, "__name__", "a", "bc")


@case
def name_of_an_objects_class() -> Case:
    class A(Box):
        pass

    class Longer(Box):
        pass

    s = Box(A(1))
    changes = [*setter(A, "__name__", "bc"), *setter(s, "kappa", Longer(1), A(1))]
    return lambda x: x * len(type(s.kappa).__name__), changes


@case
def pattern_of_a_dataclass() -> Case:
    @dataclasses.dataclass
    class Point:
        first: float
        second: float

    p = Point(1.0, 2.0)

    def f(x: Any) -> Any:
        match p:
            case Point(1.0, k):
                return x * k
            case Point(a, b):
                return x * a + b

    return f, [*setter(p, "second", 5.0), *setter(p, "first", 2.0), *setter(p, "first", 1.0)]


@case
def pattern_with_names() -> Case:
    @dataclasses.dataclass
    class Point:
        first: float

    p = Point(2.0)

    def f(x: Any) -> Any:
        match p:
            case Point(first=2.0):
                return x
            case Point(first=k):
                return x * k

    return f, setter(p, "first", 3.0, 4.0, 2.0)


@case
def places_of_a_pattern_replaced() -> Case:
    class Point:
        __match_args__ = ("first",)

        def __init__(self) -> None:
            self.first, self.second = 1.0, 2.0

    p = Point()

    def f(x: Any) -> Any:
        match p:
            case Point(k):
                return x * k

    changes = [*setter(Point, "__match_args__", ("second",)), *setter(p, "second", 4.0)]
    return f, [*changes, *setter(Point, "__match_args__", ("first",))]


@case
def pattern_of_a_mapping() -> Case:
    class Table(collections.abc.Mapping):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.entries = {"a": 2.0}

        def __getitem__(self, key: str) -> float:
            return self.entries[key]

        def __iter__(self) -> Iterator[str]:
            return iter(self.entries)

        def __len__(self) -> int:
            return len(self.entries)

    table = Table()

    def f(x: Any) -> Any:
        match table:
            case {"a": k}:
                return x * k
            case _:
                return x

    changes = setter(Table, "get", lambda self, key, default=None: 9.0)
    return f, [lambda: table.entries.update(a=3.0), table.entries.clear, *changes]


@case
def partial_of_getattr() -> Case:
    s = Box(2.0)
    get = functools.partial(getattr, s)
    return lambda x: x * get("kappa"), setter(s, "kappa", 3.0, 4.0)


@case
def getattr_by_another_name() -> Case:
    s, get, make = Box(2.0), getattr, operator.attrgetter
    return lambda x: x * get(s, "kappa") + make("kappa")(s), setter(s, "kappa", 3.0, 4.0)


@case
def getattr_given_to_map() -> Case:
    s = Box(2.0)
    return lambda x: x * next(iter(map(getattr, [s], ["kappa"]))), setter(s, "kappa", 3.0, 4.0)


@case
def bound_getattribute() -> Case:
    s = Box(2.0)
    get = s.__getattribute__
    return lambda x: x * get("kappa"), setter(s, "kappa", 3.0, 4.0)


def row(build: Callable[[], Case], eager: bool | None) -> Function[..., Any]:
    """Calls before and after each change; the changes come around twice."""
    changes: list[Callable[[], None]] = []

    def make() -> Any:
        f, found = build()
        changes[:] = found
        return f

    count = len(build()[1])

    def call(k: int | None) -> Callable[..., Any]:
        def run(f: Any) -> Any:
            if k is not None:
                changes[k]()
            return [f(dg.tensor([1.0, -2.0, 3.0])) for _ in range(2)]

        return run

    return compare(make, [call(k) for k in [None, *range(count), *range(count)]], eager=eager)


@pytest.mark.parametrize("name", CASES)
def test_row17_captured_state_that_changes(name: str) -> None:
    row(CASES[name], None if name in EAGER else False)


def test_row18_state_of_instances_that_share_a_method() -> None:
    def make(decorate: Any) -> Any:
        class Scale:
            def __init__(self, k: float) -> None:
                self.kay = k

            @decorate
            def apply(self, x: Any) -> Any:
                self.last = x * self.kay
                return self.last

        a, b = Scale(2.0), Scale(3.0)
        return lambda who, x: (a, b)[who].apply(x), a, b

    x = dg.tensor([1.0, 2.0])

    def changed(f: Any, a: Any, b: Any) -> Any:
        a.kay = 5.0
        return [f(0, x), f(1, x)]

    compare(make, [(0, x), (1, x), (0, x), changed, (1, x)])


def test_need01_a_part_that_is_not_used_may_hold_anything(tmp_path: Any) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.kay = 2.0
            self.rows = (n for n in range(3))
            self.log = open(tmp_path / "log", "w")  # noqa: SIM115

        def step(self, x: Any) -> Any:
            return x * self.kay

        def fit(self) -> None:
            self.log.write(str(next(self.rows)))

    trainer = Trainer()
    try:
        f = dg.function(trainer.step, strict=True)
        f(dg.ones(2))
        trainer.fit()
        assert f(dg.ones(2)).tolist() == [2.0, 2.0]
        assert f.n_traces == 1
    finally:
        trainer.log.close()


def test_need01_what_does_not_matter_costs_no_trace() -> None:
    s = types.SimpleNamespace(kay=2.0, other="a", more=[1])
    f = dg.function(lambda x: x * s.kay)
    f(dg.ones(2))
    s.other, s.new = "b", 1
    s.more.append(2)
    f(dg.ones(2))
    assert f.n_traces == 1
