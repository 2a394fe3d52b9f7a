"""Arguments and results of every kind, unregistered: spelled in any way, nested, made anew."""

from __future__ import annotations

import collections
import enum
import functools
import types
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from semantics.support import compare


def vector(*numbers: float) -> dg.Tensor:
    return dg.tensor([float(n) for n in numbers])


class Pair(NamedTuple):
    first: Any
    second: Any = None


class Named(collections.namedtuple("Base", "a b")):
    """A namedtuple with attributes of its own."""


@dataclass
class Box:
    content: Any
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    content: Any
    note: str = "n"


@dataclass(slots=True)
class Slotted:
    content: Any
    scale: float = 2.0


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    content: Any


@attrs.define
class Attrs:
    content: Any
    scale: float = 2.0


@attrs.frozen
class FrozenAttrs:
    content: Any


class Plain:
    def __init__(self, content: Any) -> None:
        self.content = content


class WithSlots:
    __slots__ = ("content", "unset")

    def __init__(self, content: Any) -> None:
        self.content = content


class Bag(dict[str, Any]):
    content: Any = None


class Stack(list[Any]):
    pass


class Color(enum.Enum):
    RED = 1
    BLUE = 2


HOLDERS = [
    Pair, Box, Frozen, Slotted, FrozenSlots, Attrs, FrozenAttrs, Plain, WithSlots,
]  # fmt: skip


# -- how a call is spelled ------------------------------------------------------------------------


def test_row20_keywords_defaults_and_order_are_one_trace() -> None:
    def make() -> Any:
        return lambda x, scale=2.0, *, shift=1.0, flip=False: x * scale + shift * (not flip)

    x = vector(1, 2)
    compare(
        make,
        [
            (x,),
            (x, 2.0),
            lambda f: f(x, scale=2.0),
            lambda f: f(x=x),
            lambda f: f(scale=2.0, x=x),
            lambda f: f(x, shift=1.0, scale=2.0),
            lambda f: f(flip=False, shift=1.0, x=x),
        ],
        traces=1,
    )


def test_row20_any_number_of_arguments() -> None:
    def make() -> Any:
        def f(x: Any, /, *rest: Any, last: Any = 1.0, **more: Any) -> Any:
            return x + sum(rest) * last, [*more.items()]

        return f

    x = vector(1, 2)
    compare(
        make,
        [
            (x,),
            (x, x, 3.0),
            lambda f: f(x, x, 4.0, last=2.0),
            lambda f: f(x, a=x, b=1),
            lambda f: f(x, b=1, a=x),
            lambda f: f(x, x=2.0),
        ],
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda f, x: f(),
        lambda f, x: f(x, 1.0, 2.0),
        lambda f, x: f(x, y=1.0),
        lambda f, x: f(x, x=x),
        lambda f, x: f(scale=1.0, x=x, k=1),
        lambda f, x: f(x, 1.0),
    ],
)
def test_row20_calls_that_python_refuses(call: Any) -> None:
    def make() -> Any:
        def f(x: Any, scale: float = 2.0, *, k: int) -> Any:
            return x * scale * k

        return f

    x = vector(1, 2)
    compare(make, [lambda f: call(f, x), lambda f: f(x, k=2), lambda f: call(f, x)])


def test_row20_defaults_that_change() -> None:
    def make() -> Any:
        def f(x: Any, scale: float = 2.0, *, shift: float = 1.0) -> Any:
            return x * scale + shift

        def change(g: Any) -> None:
            inner = getattr(g, "__wrapped__", g)
            inner.__defaults__, inner.__kwdefaults__ = (3.0,), {"shift": 5.0}

        return f, change

    x = vector(1, 2)
    compare(make, [lambda f, _: f(x), lambda f, c: c(f), lambda f, _: f(x)])


def test_row20_methods_per_instance_and_per_class() -> None:
    def make(decorate: Any) -> Any:
        class Scale:
            def __init__(self, by: float) -> None:
                self.by = by

            @decorate
            def run(self, x: Any, power: int = 1) -> Any:
                return x**power * self.by

            @classmethod
            @decorate
            def name(cls, x: Any) -> Any:
                return x, cls.__name__

            @staticmethod
            @decorate
            def twice(x: Any) -> Any:
                return x * 2

        class Other(Scale):
            pass

        return Scale.run, Scale(2.0), Scale(3.0), Other(2.0), Scale, Other

    x = vector(1, 2)
    f = compare(
        make,
        [
            lambda f, a, b, c, *_: (a.run(x), b.run(x), c.run(x)),
            lambda f, a, b, c, *_: (a.run(x, power=1), b.run(power=1, x=x), c.run(x, 2)),
            lambda f, a, b, c, *_: setattr(a, "by", 7.0),
            lambda f, a, b, c, *_: (a.run(x), b.run(x)),
            lambda f, a, b, c, S, T: (S.name(x), T.name(x), a.twice(x), S.run(b, x)),
        ],
    )
    assert f.n_traces <= 5


def test_row20_wrappers_see_the_call_as_it_was_spelled() -> None:
    def make() -> Any:
        def noted(g: Any) -> Any:
            @functools.wraps(g)
            def call(*args: Any, **kwargs: Any) -> Any:
                return g(*args, **kwargs), len(args), sorted(kwargs)

            return call

        return noted(lambda x, scale=2.0: x * scale)

    x = vector(1, 2)
    compare(make, [(x,), lambda f: f(x, scale=2.0), lambda f: f(x, 3.0), lambda f: f(scale=1, x=x)])


@pytest.mark.parametrize("kind", ["partial", "method", "module", "callable"])
def test_row20_other_callables(kind: str) -> None:
    class Callable_:
        def __call__(self, x: Any, scale: float = 2.0) -> Any:
            return x * scale

        def method(self, x: Any, scale: float = 2.0) -> Any:
            return x * scale

    def make() -> Any:
        if kind == "partial":
            return functools.partial(lambda a, x, scale=2.0: x * scale + a, 1.0)
        if kind == "method":
            return Callable_().method
        if kind == "module":
            return nn.Linear(2, 3)
        return Callable_()

    x = vector(1, 2)
    calls: list[Any] = [(x,), (x,)]
    if kind != "module":
        calls += [lambda f: f(x, scale=3.0), lambda f: f(x, 3.0)]
    compare(make, calls, eager=None)


# -- what comes in --------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", HOLDERS)
def test_row22_records_come_in(holder: Any) -> None:
    def make() -> Any:
        return lambda h, k: (h[0]["x"] * k if holder is Pair else h.content["x"] * k, h)

    calls = [(holder({"x": vector(1, 2), "y": None}), 2.0) for _ in range(3)]
    compare(make, calls, traces=1)


def test_row21_nested_containers_come_in() -> None:
    def make() -> Any:
        def f(tree: Any) -> Any:
            a, (b, c) = tree["list"][0], tree["pair"]
            return a + b.content * tree["n"], c, tree["mode"]

        return f

    def tree(n: float, mode: Any) -> Any:
        return {
            "list": [vector(1, 2), None, (3, "x")],
            "pair": Pair(Box(vector(3, 4)), {"deep": [Frozen(vector(5, 6))]}),
            "n": n,
            "mode": mode,
        }

    compare(make, [(tree(1.0, Color.RED),), (tree(2.0, Color.RED),), (tree(2.0, Color.BLUE),)])


@pytest.mark.parametrize(
    "values",
    [
        (True, False, True),
        ("a", "b", "a"),
        (Color.RED, Color.BLUE, Color.RED),
        (None, 1.0, None),
        (1, 1.0, True),
        (0.0, -0.0, 0.0),
        (b"a", b"b", b"a"),
        (2, 3, 4),
        (2**70, 2**71, 2**70),
        (dg.float32, dg.float64, dg.float32),
        (slice(0, 1), slice(1, 2), slice(0, 1)),
        (frozenset({1}), frozenset({2}), frozenset({1})),
        (1j, 2j, 1j),
        (np.float32(2), np.float32(3), np.int64(2)),
        (range(2), range(3), range(2)),
        (int, float, int),
        (len, abs, len),
    ],
)
def test_row19_arguments_that_are_no_tensors(values: Any) -> None:
    def make() -> Any:
        def f(x: Any, v: Any) -> Any:
            if v is None or v is False:
                return x
            if isinstance(v, int | float | np.generic) and abs(v) < 100:
                return x * v, v
            return x + len(repr(v)), v

        return f

    x = vector(1, 2)
    compare(make, [(x, v) for v in values], eager=None)


def test_row23_none_in_and_out() -> None:
    def make() -> Any:
        return lambda x, y=None: None if x is None else (None, x if y is None else x + y)

    x = vector(1, 2)
    compare(make, [(x,), (x, x), (None,), (x, None), (None, x)])


# -- what goes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", HOLDERS)
def test_row22_records_go_out_new_at_each_call(holder: Any) -> None:
    def make() -> Any:
        return lambda x: (holder(x * 2), holder([x, holder(x + 1)]))

    kept: list[Any] = []

    def call(f: Any) -> Any:
        kept.append(f(vector(1, 2)))
        return kept[-1]

    compare(make, [call, call, call], traces=1)
    assert len({id(r) for r in kept}) == len({id(r[0]) for r in kept}) == 6
    assert all(type(r[0]) is holder for r in kept)


def test_row22_what_passes_through_stays_the_same_object() -> None:
    def make() -> Any:
        box = Box(vector(9, 9))

        def f(b: Any, x: Any) -> Any:
            return b, box, Pair(b, box), {"box": b, "again": [b, b.content]}, x

        return f, box

    def call(f: Any, own: Any) -> Any:
        b = Box(vector(1, 2))
        out = f(b, b.content)
        assert out[0] is b
        assert out[1] is own
        assert out[2].first is b
        assert out[3]["again"][1] is b.content
        return out

    compare(make, [call, call, call])


def test_row21_containers_go_out_with_exact_types() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            bag = Bag(a=x * 2)
            bag.content = x + 1
            stack = Stack([x, 1])
            default = collections.defaultdict(list, {"k": [x * 3]})
            ordered = collections.OrderedDict(b=x, a=1)
            queue = collections.deque([x, 2], maxlen=3)
            return (
                bag, stack, default, ordered, queue, {1, 2}, frozenset({"a"}), Named(x, 1),
                collections.Counter("aab"), slice(1, x.shape[0]), types.SimpleNamespace(y=x * 4),
            )  # fmt: skip

        return f

    kept: list[Any] = []

    def call(f: Any) -> Any:
        kept.append(f(vector(1, 2)))
        return kept[-1]

    compare(make, [call, call, call], traces=1)
    first, second = kept[-2:]
    for a, b in zip(first, second, strict=True):
        assert type(a) is type(b)
        assert a is not b or isinstance(a, frozenset | slice)
    assert second[2]["new"] == []
    assert second[4].maxlen == 3


def test_row22_new_objects_that_refer_to_each_other() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            a, b = Plain(x), Plain(x * 2)
            a.other, b.other = b, a
            a.self = a
            a.again = [b, b]
            return a

        return f

    def call(f: Any) -> Any:
        a = f(vector(1, 2))
        assert a.self is a
        assert a.other.other is a
        assert a.again[0] is a.again[1] is a.other
        return a

    compare(make, [call, call], traces=1)


def test_row22_a_module_made_inside() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            layer = nn.Linear(2, 3)
            return layer, layer(x)

        return f

    compare(make, [(vector(1, 2),)] * 3, eager=None)


def test_row22_methods_and_partials_go_out() -> None:
    def make() -> Any:
        def f(x: Any, box: Any) -> Any:
            return Plain(x * 2).__init__, functools.partial(Pair, x, second=box)

        return f

    def call(f: Any) -> Any:
        box = Box(1)
        method, made = f(vector(1, 2), box)
        assert made().second is box
        return method, made()

    compare(make, [call, call], traces=1)


def test_row24_results_that_are_no_tensors() -> None:
    def make() -> Any:
        def f(x: Any, mode: str) -> Any:
            return x.shape, x.ndim, mode.upper(), Color.RED, 2.5, 3 + 4j, None, x.dtype, len, Box

        return f

    x = vector(1, 2)
    f = compare(make, [(x, "a"), (x, "a"), (x, "b")])
    assert f.n_traces == 2
    compare(lambda: lambda x: x.shape[0] * 2, [(x,), (x,)], traces=1)


def test_need20_a_lambda_is_known_by_its_code_and_what_it_holds() -> None:
    def made(k: float, mode: str) -> Any:
        return dg.function(lambda x: x * k if mode == "a" else x + k)

    x = vector(1, 2)
    for n in range(300):
        k, mode = n % 40 + 0.5, "ab"[n // 150]
        f = made(k, mode)
        for _ in range(2):
            assert f(x).tolist() == ([k, 2 * k] if mode == "a" else [1 + k, 2 + k])
    assert f.n_traces <= 4


def test_need20_functions_of_one_code_keep_their_own_state() -> None:
    def scaled(by: Any) -> Any:
        return dg.function(lambda x: x * by)

    weights = [vector(2, 3), vector(4, 5)]
    f, g = map(scaled, weights)
    x = vector(1, 1)
    for _ in range(3):
        assert f(x).tolist() == [2.0, 3.0]
        assert g(x).tolist() == [4.0, 5.0]
        assert f(x).tolist() == [2.0, 3.0]
    weights[0].fill_(7.0)
    assert f(x).tolist() == [7.0, 7.0]
    assert g(x).tolist() == [4.0, 5.0]
    assert f.n_traces == g.n_traces == 1


def test_row22_numbers_and_sizes_in_new_objects_are_plain() -> None:
    def make() -> Any:
        def f(x: Any, k: Any) -> Any:
            box = Box([k + 1, x.shape[0]])
            box.size, box.bag = x.shape[0] * 2, Bag(k=k * 2)
            return box, Slotted(x * k, k * 3), Stack([k]), Pair(k, {x.shape[0]})

        return f

    def call(n: int, k: float) -> Any:
        def run(f: Any) -> Any:
            out = f(dg.ones(n), k)
            assert type(out[0].size) is int
            assert type(out[0].bag["k"]) is float
            assert type(out[1].scale) is float
            assert [type(e) for e in out[3].second] == [int]
            return out

        return run

    compare(make, [call(3, 1.5), call(4, 2.5), call(5, 3.5), call(3, 1.5)])
