"""Python numbers: those that only feed arithmetic are inputs of the program; others are guarded.

Rows 11 (counters), 19 and need 4.
"""

from __future__ import annotations

import copy
import dataclasses
import decimal
import enum
import fractions
import json
import math
import operator
import pickle
import threading
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.jit.ledger import Ledger, on_numbers, recording
from dualgrad.jit.lifting import Lifting
from semantics.support import compare

X = dg.tensor([1.5, -2.0, 3.25])
Pair = namedtuple("Pair", "a b")


# -- the ledger ----------------------------------------------------------------------------------

BINARY = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.pow, max, min, math.atan2, math.copysign, math.hypot, divmod,
    operator.lt, operator.ge, operator.eq, operator.ne,
]  # fmt: skip
POWER = BINARY.index(operator.pow)
UNARY = [
    operator.neg, operator.pos, abs, round, math.cos, math.exp, math.sqrt, math.floor, math.ceil,
    math.trunc, math.isnan, bool, float, int, math.log1p, lambda v: round(v, 1),
    lambda v: sum([v, 0.5, v]), lambda v: v if v > 1 else -v, lambda v: f"{v}", hash,
]  # fmt: skip
WHOLE = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]
NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([0.0, -0.0, 0.5, -1.5, 2.0, math.inf, math.nan, 1e300, 2**70, -(2**63)]),
    st.floats(-3, 3),
)
Steps = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8), st.integers(0, 8)), max_size=7)


def evaluated(steps: list[tuple[int, int, int]], numbers: list[Any]) -> list[Any]:
    """What a random program makes of some numbers."""
    values: list[Any] = [*numbers, 2, 0.1, True]
    for op, a, b in steps:
        x, y = values[a % len(values)], values[b % len(values)]
        whole = isinstance(x, int) and isinstance(y, int)
        if op == POWER and whole and not (abs(x) < 2**64 and abs(y) < 64):
            continue  # its digits would fill the memory
        if op < len(BINARY):
            out = BINARY[op](x, y)
        elif op < len(BINARY) + len(UNARY):
            out = UNARY[op - len(BINARY)](x)
        elif whole:
            out = WHOLE[op % len(WHOLE)](x, y % 64)
        else:
            continue
        values += out if isinstance(out, tuple) else [out]
    return values


def outcome(function: Callable[[], list[Any]]) -> Any:
    try:
        return [(type(v), repr(v)) for v in function()]
    except Exception as error:
        return (type(error), str(error))


@settings(max_examples=400, deadline=None)
@given(steps=Steps, first=st.tuples(NUMBERS, NUMBERS), others=st.lists(st.tuples(NUMBERS, NUMBERS)))
def test_need04_recorded_arithmetic_is_that_of_python(
    steps: list[tuple[int, int, int]], first: Any, others: list[Any]
) -> None:
    """A recorded path gives Python's results, bit for bit, for all numbers that it serves."""
    ledger = Ledger()
    with recording(ledger):
        numbers = [ledger.fact(k, x) for k, x in enumerate(first)]
        try:
            values = evaluated(steps, numbers)
        except Exception:
            values = []
    proxies = [v for v in values if ledger.is_open(v)]
    texts = [repr(v) for v in values]
    if values:
        assert [(v.__class__, t) for v, t in zip(values, texts, strict=True)] == outcome(
            lambda: evaluated(steps, list(first))
        )
    evaluate = ledger.evaluator(proxies, {0: 0, 1: 1})
    for pair in (first, *others):
        if any(type(a) is not type(b) for a, b in zip(pair, first, strict=True)):
            continue
        found = () if evaluate is None else evaluate(list(pair))
        if found is None:
            assert pair is not first or not values
            continue
        expected = outcome(lambda pair=pair: evaluated(steps, list(pair)))
        if not values:  # the traced program raised, so does this one
            assert isinstance(expected, tuple)
            continue
        k = 0
        for value, text, (kind, right) in zip(values, texts, expected, strict=True):
            if ledger.is_open(value):
                value, text, k = found[k], repr(found[k]), k + 1
            assert (value.__class__, text) == (kind, right)


def recorded(function: Callable[[Any], Any], first: Any, *others: Any) -> list[Any]:
    """Results of a function of one number, traced with `first`, for others; None: not served."""
    ledger = Ledger()
    with recording(ledger):
        out = function(ledger.fact(0, first))
    held = ledger.is_open(out)
    evaluate = ledger.evaluator([out] if held else [], {0: 0})
    results = []
    for x in others:
        found = () if evaluate is None else evaluate([x])
        results.append(None if found is None else found[0] if held else out)
    return results


def test_need04_classes_of_numbers_are_answered() -> None:
    ledger = Ledger()
    with recording(ledger):
        n, x = ledger.fact(0, 3), ledger.fact(1, 2.5)
        assert isinstance(n, int)
        assert isinstance(x, float)
        assert not isinstance(n, bool)
        assert n.__class__ is int
        match n:
            case int(m):
                assert m == 3
        assert hasattr(n, "bit_length")
        assert not hasattr(x, "bit_length")
        assert not hasattr(x, "value")


@pytest.mark.parametrize(
    "function",
    [
        lambda v: [10, 20, 30][v],
        lambda v: {1: "a", 2: "b"}[v],
        lambda v: "x" * v,
        lambda v: [0] * v,
        lambda v: list(range(v)),
        lambda v: f"{v:03d}",
        lambda v: "%d" % v,  # noqa: UP031
        lambda v: str(v) + repr(v),
        lambda v: json.dumps({"v": int(v)}),
        lambda v: fractions.Fraction(1, 3) * v,
        lambda v: decimal.Decimal("1.5") + int(v),
        lambda v: np.float64(2.5) * v,
        lambda v: np.arange(3)[v],
        lambda v: np.sin(v),
        lambda v: np.full(2, v).tolist(),
        lambda v: complex(v, 1) * v,
        lambda v: v * 1j,
        lambda v: copy.deepcopy([v])[0] + 1,
        lambda v: pickle.loads(pickle.dumps(v)),
        lambda v: v.bit_length(),
        lambda v: v.numerator,
        lambda v: (v == None, v == "1", v == fractions.Fraction(1)),  # noqa: E711
        lambda v: fractions.Fraction(1) == v,
        lambda v: pow(v, 2, 5),
        lambda v: sorted([3, v, 0, 1.5]),
        lambda v: v in (1, 2),
        lambda v: math.isclose(v, 1.0, rel_tol=0.1),
        lambda v: math.fsum([v, 0.5]),
        lambda v: v and "yes",
    ],
)
def test_need04_whatever_asks_for_the_value_gets_it(function: Callable[[Any], Any]) -> None:
    """The result is that of the plain number, and no other number is served with it wrongly."""
    for first in (1, 2):
        results = recorded(function, first, 1, 2, 0)
        for x, found in zip((1, 2, 0), results, strict=True):
            if found is not None or x == first:
                plain = found._value if hasattr(found, "_value") else found
                expected = function(x)
                assert repr(plain) == repr(expected)
                assert type(plain) is type(expected)


def test_need04_guards_tell_zeros_and_nans_apart() -> None:
    assert recorded(lambda v: math.copysign(1.0, float(v)), 0.0, 0.0, -0.0) == [1.0, None]
    assert recorded(lambda v: float(v) != 0, math.nan, math.nan, 1.0) == [True, None]


def test_need04_an_error_is_kept_with_the_value_that_raised() -> None:
    def inverse(v: Any) -> Any:
        try:
            return 1 / v
        except ZeroDivisionError:
            return "none"

    assert recorded(inverse, 0, 0, 2) == ["none", None]
    assert recorded(inverse, 2, 4, 0) == [0.25, None]


def test_need04_large_integers_stay_exact() -> None:
    assert recorded(lambda v: (v**40 + 1) % 10**9, 3, 7) == [(7**40 + 1) % 10**9]


def test_need04_types_of_powers_are_guarded() -> None:
    assert recorded(lambda v: 2**v, 3, 4, -1) == [16, None]
    assert recorded(lambda v: v**0.5, 4.0, 9.0, -9.0) == [3.0, None]


def test_need04_numbers_are_plain_after_their_trace_and_in_other_threads() -> None:
    ledger = Ledger()
    with recording(ledger):
        x = ledger.fact(0, 2.0)
        found: list[Any] = []
        other = threading.Thread(target=lambda: found.append((x * 2, math.sqrt(x), sum([x, x]))))
        other.start()
        other.join()
    after = (x * 2, math.sqrt(x), sum([x, x]))
    assert found == [after] == [(4.0, math.sqrt(2.0), 4.0)]
    assert all(type(v) is float for v in (*found[0], *after))
    assert not ledger.lines
    assert math.sqrt.__module__ == "math"
    assert not hasattr(math.sqrt, "__wrapped__")
    assert not hasattr(sum, "__wrapped__")


def test_need04_a_function_of_numbers_can_be_one_operation() -> None:
    @on_numbers
    def steps(n: int, size: int) -> int:
        return 0 if n < size else n // size

    assert recorded(lambda v: steps(v, 3), 1, 1, 2, 7, 30) == [0, 0, 2, 10]
    assert steps(7, 3) == 2


# -- arguments -----------------------------------------------------------------------------------


def test_need04_values_of_arguments_are_inputs() -> None:
    def make() -> Any:
        def f(x: Any, a: float, n: int, *, bias: float = 0.5) -> Any:
            return (x * a + n) / 3 - bias, a * 2, n + 1

        return f

    calls = [
        (
            X,
            0.1 * k,
            k,
        )
        for k in range(20)
    ]
    compare(make, [*calls, (X, math.inf, -1), (X, math.nan, 0), (X, -0.0, 2**40)], traces=1)


def test_need04_spelling_is_one_trace() -> None:
    def make() -> Any:
        def f(x: Any, a: float = 2.0, b: float = 3.0) -> Any:
            return x * a + b

        return f

    def call(*args: Any, **named: Any) -> Any:
        return lambda f: f(X, *args, **named)

    f = compare(make, [call(2.5), call(3.5), call(4.5)], traces=1)
    assert f.n_traces == 1


@pytest.mark.parametrize("value", [True, 1, 1.0, -1, 2, 0, 0.0, 1e300, 2**62])
def test_row19_kinds_of_numbers_are_kept_apart(value: Any) -> None:
    def make() -> Any:
        def f(x: Any, a: Any) -> Any:
            return x * a, a, [a, (a, {"a": a})]

        return f

    ints = dg.tensor([1, 2, 3])
    compare(make, [(X, 3), (X, value), (X, 2.5), (X, value), (ints, 2), (ints, value)], eager=None)


class Mode(enum.Enum):
    FAST = 1
    SLOW = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def test_row19_strings_enums_and_none_choose_the_program() -> None:
    def make() -> Any:
        def f(x: Any, mode: Any) -> Any:
            if mode is Mode.FAST or mode == "fast":
                return x * 2
            return x * 3 if mode is None else x + (mode is Level.LOW)

        return f

    modes = [Mode.FAST, Mode.SLOW, "fast", "slow", None, Level.LOW, Level.HIGH]
    compare(make, [(X, m) for m in modes * 2], traces=len(modes))


def test_row19_static_numbers_are_guarded_by_value() -> None:
    def make() -> Any:
        def f(x: Any, axis: int, n: int, deep: int) -> Any:
            for _ in range(deep):
                x = x * n
            return x.sum(axis), x.reshape(n, -1)

        return f

    x = dg.tensor(np.arange(12.0).reshape(2, 6))
    f = compare(make, [(x, 0, 2, 1), (x, 1, 2, 1), (x, 0, 3, 2), (x, 1, 2, 1), (x, 0, 2, 1)])
    assert f.n_traces == 3


def test_row19_numbers_in_containers_are_inputs() -> None:
    @dataclasses.dataclass(frozen=True)
    class Settings:
        lr: float
        sizes: tuple[int, ...]

    def make() -> Any:
        def f(x: Any, opts: Any, *rest: Any, **named: Any) -> Any:
            a = opts["a"] + opts["b"][0] + opts["c"][1][1] + rest[0].b + rest[1].lr
            return x * a + named["k"] - rest[1].sizes[0], a, opts["c"]

        return f

    def call(v: float) -> Any:
        return lambda f: f(
            X,
            {"a": v, "b": [v + 1, 2], "c": (1, (2, v * 3)), "d": OrderedDict(z=v)},
            Pair(1, v / 2),
            Settings(v, (int(v), 2)),
            deque([v]),
            k=int(v) + 7,
        )

    compare(make, [call(0.5), call(1.5), call(-3.0), call(9.25)], traces=1)


def test_row19_branches_on_numbers_are_paths() -> None:
    def make() -> Any:
        def f(x: Any, step: int) -> Any:
            rate = min(1.0, step / 4) if step > 0 else 0.25
            return x * (rate if step % 2 else -rate), rate

        return f

    f = compare(make, [(X, k) for k in (0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 3, 2)])
    assert f.n_traces <= 5


def test_row19_math_is_recorded() -> None:
    def make() -> Any:
        def f(x: Any, t: float) -> Any:
            rate = 0.5 * (1 + math.cos(math.pi * t / 10)) + abs(math.sin(t)) ** 2 // 1
            return x * rate + math.exp(-t), math.floor(t * 3), round(t, 2)

        return f

    compare(make, [(X, 0.37 * k) for k in range(12)], traces=1)


def test_row19_numbers_of_all_sizes_reach_a_program() -> None:
    """Integers of more than 64 bits are refused by ops, with the same error."""

    def make() -> Any:
        def f(x: Any, n: int) -> Any:
            return x + n, n * n

        return f

    compare(make, [(X, n) for n in (1, 2**62, 2**63 - 1, 2**63, 3, 2**200, -(2**63))], eager=None)


def test_row19_errors_of_python_arithmetic_are_the_same() -> None:
    def make() -> Any:
        def f(x: Any, n: int) -> Any:
            return x * (6 / n)

        return f

    compare(make, [(X, 2), (X, 3), (X, 0), (X, 4), (X, 0)], eager=None)


def test_row19_exponents_follow_the_eager_special_cases() -> None:
    def make() -> Any:
        def f(x: Any, p: Any) -> Any:
            return x.abs() ** p

        return f

    compare(make, [(X, p) for p in (2, 3, 0.5, 1.7, 2.0, -1, 5, 2, 1.9, 0.5)], eager=None)


def test_row19_tensors_made_of_numbers_are_no_constants() -> None:
    def make() -> Any:
        def f(x: Any, v: float, n: int) -> Any:
            out = dg.full((3,), v) + dg.tensor(v) * dg.tensor(n) + dg.full_like(x, n)
            return out + x, dg.tensor([v, n]), dg.full((2,), v, dtype=dg.float16)

        return f

    compare(make, [(X, 0.1, 3), (X, 0.7, 4), (X, 1e-40, -4)])


def test_row19_numbers_past_the_limit_run_eagerly_and_paths_stay() -> None:
    def make() -> Any:
        def f(x: Any, n: int) -> Any:
            return x.reshape(1, 3)[:, : n % 4].sum(), n

        return f

    calls = [(X, k) for k in range(24)]
    f = compare(make, [*calls, *calls], eager=None)
    assert f.n_traces <= 17


def test_row19_gradients_that_flow_out_know_the_numbers_of_their_call() -> None:
    def make() -> Any:
        w = dg.tensor([1.0, 2.0, 3.0], requires_grad=True)

        def f(x: Any, k: float, n: int) -> Any:
            return (w * x * k).exp().sum() * k + (w**2).sum() * n / k

        def call(g: Any, k: float, n: int) -> Any:
            y = g(X, k, n)
            (first,) = dg.grad(y, [w], create_graph=True)
            (first * first).sum().backward()
            second, w.grad = w.grad, None
            return y.detach(), first.detach(), second

        return f, call

    def later(f: Any, call: Any) -> Any:
        """Two calls before the first backward."""
        a, b = f(X, 0.3, 2), f(X, 0.7, 5)
        a.backward()
        b.backward()
        return a.detach(), b.detach()

    calls = [lambda f, call, k=k: call(f, 0.1 * k, k) for k in range(1, 6)]
    compare(make, [*calls, later], traces=1)


def test_row19_gradients_inside_know_the_numbers_of_their_call() -> None:
    def make() -> Any:
        w = dg.tensor([1.0, 2.0, 3.0], requires_grad=True)

        def f(x: Any, k: float) -> Any:
            loss = (w * x * k).tanh().sum() / k
            loss.backward()
            return loss.detach()

        return f, w

    compare(make, [(X, 0.25 * k) for k in range(1, 7)], traces=2)


# -- captured numbers and counters -----------------------------------------------------------------


class Counter:
    total = 0

    def __init__(self) -> None:
        self.n = 0
        self.scale = 0.5
        self.history = [1, 2.0]
        self.table = {"steps": 0, "pair": (1, 2.5)}


class Slotted:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 3


def counts(body: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    def make() -> Any:
        c = Counter()
        return (lambda x: body(c, x)), c

    return make


def add_attribute(c: Any, x: Any) -> Any:
    c.n += 1
    return x * c.n


def add_entry(c: Any, x: Any) -> Any:
    c.table["steps"] += 2
    c.history[1] *= 1.5
    return x * c.history[1] + c.table["steps"]


def add_twice(c: Any, x: Any) -> Any:
    before = c.n
    c.n += 1
    y = x * c.n
    c.n *= 3
    return y + c.n, before, c.n


def in_a_tuple(c: Any, x: Any) -> Any:
    a, b = c.table["pair"]
    c.table["pair"] = (a + 1, b / 2)
    return x * a + b, c.table["pair"]


def moved(c: Any, x: Any) -> Any:
    c.n, c.history[0] = c.history[0] + 1, c.n
    return x + c.n


def set_to_what_it_was(c: Any, x: Any) -> Any:
    old, c.n = c.n, 0
    c.scale = c.scale + 0.25
    return x * old + c.scale


@pytest.mark.parametrize(
    "body", [add_attribute, add_entry, add_twice, in_a_tuple, moved, set_to_what_it_was]
)
def test_row11_counters_do_not_retrace(body: Callable[[Any, Any], Any]) -> None:
    f = compare(counts(body), [(X,)] * 8)
    assert f.n_traces <= 3


def test_row11_counters_set_from_outside_as_well() -> None:
    def bump(f: Any, c: Any) -> Any:
        c.n = 100
        return f(X)

    def constant(f: Any, c: Any) -> Any:
        c.n = 5
        return f(X)

    compare(counts(add_attribute), [(X,), (X,), bump, (X,), constant, constant, (X,)], traces=2)
    compare(counts(set_to_what_it_was), [(X,), bump, (X,), bump, constant, (X,)])


def test_row11_counters_in_cells_slots_classes_and_globals() -> None:
    def make() -> Any:
        n = 0
        s = Slotted()

        class Own:
            k = 1

        def f(x: Any) -> Any:
            nonlocal n
            global tally
            n += 1
            s.n += n
            Own.k += 2
            tally += 0.5
            return x * n + s.n - Own.k * tally

        def state(f: Any) -> Any:
            return (f(X), s.n, Own.k, n, tally)

        global tally
        tally = 1.0
        return f, s, state

    compare(make, [lambda f, s, state: state(f)] * 6)


tally = 1.0


def test_row11_a_learning_rate_in_every_kind_of_place() -> None:
    class Holder:
        rate = 0.5
        __slots__ = ("slot",)

    def make() -> Any:
        h = Holder()
        h.slot = 1.0
        pair = {"p": (0.5, (1, 2.0))}

        def f(x: Any, extra: float = 0.25) -> Any:
            return x * h.slot * Holder.rate + pair["p"][1][1] * extra

        def change(g: Any, k: int) -> Any:
            h.slot, Holder.rate = 1.0 + k, 0.5 / (k + 1)
            pair["p"] = (0.5, (1, 2.0 - k))
            f.__defaults__ = (0.25 * k,)
            return g(X)

        return f, change

    f = compare(make, [lambda f, c, k=k: c(f, k) for k in range(8)])
    assert f.n_traces == 2


def test_row11_shared_tuples_are_followed() -> None:
    """A tuple that stands in two places: its numbers cannot be inputs, and must not go stale."""

    def make() -> Any:
        shared = {"a": (1.0, 2.0), "b": None}
        shared["b"] = shared["a"]

        def f(x: Any) -> Any:
            return x * shared["a"][0] + shared["b"][1]

        def change(g: Any, k: int) -> Any:
            shared["a"] = shared["b"] = (1.0 + k, 2.0 * k)
            return g(X)

        return f, change

    compare(make, [lambda f, c, k=k: c(f, k) for k in range(6)], eager=None)


def test_row11_numbers_kept_in_new_objects() -> None:
    def make() -> Any:
        c = Counter()

        def f(x: Any, v: float) -> Any:
            c.history = [v, v * 2]
            c.table = {"v": (v, [v + 1])}
            return x * v, c.history, {"t": c.table}

        return f, c

    compare(make, [(X, 0.5), (X, 1.5), (X, 2.5), (X, 0.5)], eager=None)


def test_row11_no_number_of_a_trace_is_left_behind() -> None:
    c = Counter()

    @dg.function
    def f(x: Any, v: float) -> Any:
        c.n += 1
        c.scale = v
        c.history[0] = (v, c.n)
        return [v, (c.n, x * v)], {"v": v}

    for k in range(4):
        out = f(X, 0.5 * k)
        numbers = [out[0][0], out[0][1][0], out[1]["v"], c.n, c.scale, *c.history[0]]
        assert [type(v) for v in numbers] == [float, int, float, int, float, float, int]
        assert numbers == [0.5 * k, k + 1, 0.5 * k, k + 1, 0.5 * k, 0.5 * k, k + 1]


def test_row11_state_is_restored_when_a_trace_with_numbers_fails() -> None:
    def make() -> Any:
        c = Counter()

        def f(x: Any, v: float) -> Any:
            c.n += 1
            c.table["pair"] = (v, c.n)
            if c.n == 3:
                raise ValueError(f"three {v}")
            return x * c.n * float(x[0].item() > 100) if v == 2.0 else x * v

        return f, c

    compare(make, [(X, 0.5), (X, 1.5), (X, 2.5), (X, 2.0), (X, 3.5)], eager=None)


def test_need04_other_threads_see_plain_numbers_during_a_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While numbers of a trace stand in shared state, another thread computes with their values."""
    state = {"lr": 0.5, "n": 1}

    def first(x: Any) -> Any:
        state["n"] += 1
        return x * state["lr"] + state["n"]

    f = dg.function(first)
    g = dg.function(lambda x: (x * state["lr"], state["lr"] * 2, state["lr"]))
    results: list[Any] = []
    real = Lifting.restore

    def restore(self: Lifting) -> None:
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=lambda: results.append(g(X)))
            other.start()
            other.join()
        real(self)

    for lr in (0.5, 0.25, 0.75, 1.25):
        state["lr"] = lr
        assert g(X)[0].tolist() == (X * lr).tolist()
        n = state["n"]
        with monkeypatch.context() as patch:
            patch.setattr(Lifting, "restore", restore)
            out = f(X)
        assert out.tolist() == (X * lr + (n + 1)).tolist()
        for y, twice, seen in results:
            assert y.tolist() == (X * lr).tolist()
            assert (twice, seen) == (2 * lr, lr)
            assert type(twice) is float
            assert isinstance(seen, float)
        results.clear()
    assert [type(v) for v in state.values()] == [float, int]
