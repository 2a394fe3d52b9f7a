"""Compiled calls in native code do what Python's own path does, and leave nothing behind."""

from __future__ import annotations

import ctypes
import gc
import struct
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from natives import ran_natively

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.entries import guards
from dualgrad.jit import function as jit
from dualgrad.runtime.native import layout, library

pytestmark = pytest.mark.skipif(not library.load(), reason="no native entries here")


@pytest.fixture(autouse=True, scope="module")
def no_hooks() -> None:
    """Leaves with hooks that refer to them, of earlier tests, keep all calls from native code."""
    gc.collect()


def warm(f: Any, *args: Any, **kwargs: Any) -> Any:
    """What a call returns that native code serves."""
    for _ in range(4):
        f(*args, **kwargs)
    assert f._entry is not None
    return natively(f, *args, **kwargs)


def natively(f: Any, *args: Any, **kwargs: Any) -> Any:
    """What a call returns; Python code has no part in it."""

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("native code leaves the call to Python")

    entry, eager = (guards.layout.slot(jit.Function, n) for n in ("_entry", "_eager"))
    jit.calls.serve(refused, entry, eager)
    try:
        return f(*args, **kwargs)
    finally:
        jit.calls.serve(jit._python_call, entry, eager)


def leaves_to_python(f: Any, *args: Any, **kwargs: Any) -> bool:
    try:
        natively(f, *args, **kwargs)
    except AssertionError as error:
        return "leaves" in str(error)
    return False


# -- what is served ------------------------------------------------------------------------------

FACTOR = 2.5


class Memory:
    h = dg.zeros(4)
    count = 0


class Slots:
    __slots__ = ("h",)


def simple() -> Any:
    return lambda x: x * 2.0 + 1.0


def globals_too() -> Any:
    return lambda x: x * FACTOR


def containers() -> Any:
    return lambda x: {"sum": (x.sum(), [x + 1.0, x]), "x": x, 3: None, "n": "text"}


def same_twice() -> Any:
    def f(x: Any) -> Any:
        y = x * 3.0
        pair = [y, y]
        return pair, pair, y

    return f


def detached() -> Any:
    w = dg.ones(4, requires_grad=True)
    return lambda x: (x * w).detach()


def differentiable() -> Any:
    w = dg.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    return lambda x: (x * w).sum()


def class_attribute() -> Any:
    def f(x: Any) -> Any:
        Memory.h = Memory.h * 0.5 + x
        return Memory.h * 1.0

    return f


def counter() -> Any:
    def f(x: Any) -> Any:
        Memory.count += 1
        return x * 2.0

    return f


def closure() -> Any:
    h = dg.zeros(4)

    def f(x: Any) -> Any:
        nonlocal h
        h = h + x
        return h * 2.0

    return f


def slot() -> Any:
    s = Slots()
    s.h = dg.ones(4)

    def f(x: Any) -> Any:
        s.h = s.h + x
        return s.h * 1.0

    return f


def in_place() -> Any:
    state = {"h": dg.zeros(4), "n": [dg.ones(4)]}

    def f(x: Any) -> Any:
        state["h"].add_(x)
        state["n"][0] = state["n"][0] * 0.5
        return state["h"] + state["n"][0]

    return f


STATE: dict[Any, Any] = {}


def state_of(f: Any) -> list[Any]:
    """Parameters and gradients of the model that a step trains."""
    found = [*STATE[f].parameters()] if f in STATE else []
    return plain([*found, *(p.grad for p in found)])


def step(make: Callable[[Any], Any], detach: bool) -> Callable[[], Any]:
    def case() -> Any:
        dg.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        optimizer = make(model.parameters())

        def f(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (model(x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss.detach() if detach else loss

        STATE[f] = model
        return f

    return case


CASES: dict[str, Callable[[], Any]] = {
    f.__name__: f
    for f in (
        simple, globals_too, containers, same_twice, detached, differentiable, class_attribute,
        counter, closure, slot, in_place,
    )
}  # fmt: skip
CASES["SGD"] = step(lambda p: optim.SGD(p, lr=0.1), True)
CASES["momentum"] = step(lambda p: optim.SGD(p, lr=0.1, momentum=0.9), False)
CASES["Adam"] = step(lambda p: optim.Adam(p, lr=0.1), True)


def plain(x: Any) -> Any:
    """Everything that can be seen of a result."""
    if isinstance(x, dg.Tensor):
        node = x.grad_fn
        freed = node is not None and node.released
        base = x.base is None
        about = (x.type, x.requires_grad, node is None, freed, x.version, x.is_leaf, base)
        return (x.detach().numpy().tobytes(), about, node and node.name_of(x.output_number))
    if isinstance(x, list | tuple):
        return [type(x), *map(plain, x)]
    if isinstance(x, dict):
        return [(k, plain(v)) for k, v in x.items()]
    return (type(x), x)


@pytest.mark.parametrize("case", CASES)
def test_native_calls_are_those_of_python(case: str) -> None:
    """Results, state and gradients: native calls against an undecorated twin."""
    Memory.h, Memory.count = dg.zeros(4), 0
    twin, state = CASES[case](), []
    xs = [dg.tensor(np.linspace(-1, k, 4, dtype=np.float32)) for k in range(9)]
    for x in xs:
        state.append((plain(twin(x)), state_of(twin), Memory.count))
    Memory.h, Memory.count = dg.zeros(4), 0
    f = dg.function(CASES[case]())
    inner = f.__wrapped__
    for k, x in enumerate(xs):
        found = natively(f, x) if k > 4 else f(x)
        now = (plain(found), state_of(inner), Memory.count)
        assert now == state[k], k
    assert f._entry is not None


def test_identities_in_results_are_kept() -> None:
    x = dg.ones(4)
    first, second, y = warm(dg.function(same_twice()), x)
    assert first is second
    assert first[0] is first[1] is y
    found = warm(dg.function(containers()), x)
    assert found["x"] is x
    assert found["sum"][1][1] is x


def test_gradients_flow_out_of_native_calls() -> None:
    f = dg.function(lambda x, w: (x * w).sum())
    w = dg.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    x = dg.tensor([4.0, 3.0, 2.0, 1.0])
    warm(f, x, w).backward()
    assert w.grad is not None
    np.testing.assert_array_equal(w.grad.numpy(), x.numpy())
    w.grad = None
    with dg.no_grad():
        assert not f(x, w).requires_grad


# -- arguments -----------------------------------------------------------------------------------


def test_arguments_are_bound_as_in_python() -> None:
    f = dg.function(lambda x, a=2.0, b=3.0: x * a + b)
    x = dg.tensor([1.0, 2.0])
    warm(f, x)
    for args, kwargs in (
        ((x,), {}),
        ((x, 5.0), {}),
        ((x,), {"b": 7.0}),
        ((), {"b": 1.0, "x": x, "a": 4.0}),
        ((x, 2.0, 9.0), {}),
    ):
        expected = f.__wrapped__(*args, **kwargs).numpy()
        np.testing.assert_array_equal(natively(f, *args, **kwargs).numpy(), expected)
    f.__wrapped__.__defaults__ = (10.0, 20.0)
    f(x)
    np.testing.assert_array_equal(f(x).numpy(), [30.0, 40.0])
    for args, kwargs in (
        ((), {}),
        ((x, 1.0, 2.0, 3.0), {}),
        ((x,), {"x": x}),
        ((x,), {"y": x}),
        ((x, 1.0), {"a": 2.0}),
    ):
        with pytest.raises(TypeError):
            f(*args, **kwargs)


def test_positional_only_parameters_are_not_names() -> None:
    f = dg.function(lambda x, y=2.0, /, z=1.0: x * y + z)
    x = dg.ones(2)
    warm(f, x)
    np.testing.assert_array_equal(natively(f, x, z=5.0).numpy(), [7.0, 7.0])
    with pytest.raises(TypeError, match="positional-only"):
        f(x, y=3.0)


def test_more_arguments_than_parameters_go_to_python() -> None:
    f = dg.function(lambda x, *more: x + sum(more))
    x = dg.ones(2)
    for _ in range(5):
        np.testing.assert_array_equal(f(x, 1.0, 2.0).numpy(), [4.0, 4.0])
        np.testing.assert_array_equal(f(x).numpy(), [1.0, 1.0])
    assert ran_natively(lambda: f(x))
    assert not ran_natively(lambda: f(x, 1.0, 2.0))


def test_keywords_made_at_run_time_count() -> None:
    f = dg.function(lambda x, factor=1.0: x * factor)
    x = dg.ones(2)
    warm(f, x)
    for _ in range(3):
        name = "".join(["fac", "tor"])
        np.testing.assert_array_equal(f(x, **{name: 3.0}).numpy(), [3.0, 3.0])


# -- guards ----------------------------------------------------------------------------------------


class Settings:
    shift = 1.0

    def __init__(self) -> None:
        self.scale, self.words, self.items = 2.0, ["a"], {"k": 3.0}


def change_attribute(s: Any, f: Any) -> None:
    s.scale = 5.0


def change_entry(s: Any, f: Any) -> None:
    s.items["k"] = 7.0


def add_entry(s: Any, f: Any) -> None:
    s.items["z"] = 7.0


def change_dict(s: Any, f: Any) -> None:
    s.__dict__ = {**s.__dict__, "scale": 3.5}


def change_list(s: Any, f: Any) -> None:
    s.words.append("b")


def change_class(s: Any, f: Any) -> None:
    s.__class__ = type("Other", (Settings,), {"shift": 9.0})


def change_class_attribute(s: Any, f: Any) -> None:
    type(s).shift += 1.0


def change_code(s: Any, f: Any) -> None:
    f.__wrapped__.__code__ = (lambda x: x * 100.0).__code__


def change_cell(s: Any, f: Any) -> None:
    f.__wrapped__.__closure__[0].cell_contents = SimpleNamespace(
        scale=0.5, words=[], items={"k": 1.0}, shift=0.0
    )


CHANGES = (
    change_attribute, change_entry, add_entry, change_dict, change_list, change_class,
    change_class_attribute, change_cell,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changes_of_the_state_are_seen(change: Callable[[Any, Any], None]) -> None:
    s = Settings()

    def g(x: Any) -> Any:
        return x * s.scale + len(s.words) + sum(s.items.values()) + s.shift

    f = dg.function(g)
    x = dg.tensor([1.0, 2.0])
    warm(f, x)
    before = Settings.shift
    change(s, f)
    for _ in range(6):
        np.testing.assert_array_equal(f(x).numpy(), g(x).numpy())
    Settings.shift = before


def values_of(x: Any) -> Any:
    return x.tolist() if isinstance(x, dg.Tensor) else x


@pytest.mark.parametrize(
    "other",
    [
        dg.ones(5),
        dg.ones(4, dtype=dg.float64),
        dg.ones(4, 1),
        dg.ones(8)[::2],
        dg.ones(4, requires_grad=True),
        dg.ones(4, requires_grad=True) * 1.0,
        nn.Parameter(dg.ones(4)),
        2.0,
    ],
    ids=repr,
)
def test_other_arguments_are_not_taken_for_known_ones(other: Any) -> None:
    f = dg.function(lambda x: x * 2.0)
    warm(f, dg.ones(4))
    expected = other * 2.0
    for _ in range(4):
        found = f(other)
        assert type(found) is type(expected)
        assert getattr(found, "requires_grad", False) == getattr(expected, "requires_grad", False)
        assert values_of(found) == values_of(expected)


@pytest.mark.parametrize("value", [0.0, -0.0, 1, True, float("nan"), float("inf"), 2**70, None])
def test_numbers_are_told_apart(value: Any) -> None:
    """Values that a function looks at are compared bit by bit, and by their type."""

    def g(x: Any, n: Any) -> Any:
        return x * (1.0 if n is None or str(n) > "3" else 2.0) + len(repr(n))

    f = dg.function(g)
    x = dg.ones(2)
    warm(f, x, 0.5)
    for _ in range(4):
        np.testing.assert_array_equal(f(x, value).numpy(), g(x, value).numpy())
        np.testing.assert_array_equal(f(x, 0.5).numpy(), g(x, 0.5).numpy())


def test_one_tensor_twice_is_another_call() -> None:
    def g(x: Any, y: Any) -> Any:
        return x + 1.0 if x is y else x * 2.0

    f = dg.function(g)
    x, y = dg.ones(3), dg.ones(3)
    warm(f, x, y)
    np.testing.assert_array_equal(f(x, x).numpy(), [2.0] * 3)
    np.testing.assert_array_equal(natively(f, x, y).numpy(), [2.0] * 3)
    np.testing.assert_array_equal(f(y, y).numpy(), [2.0] * 3)


def test_memory_that_overlaps_is_left_to_python() -> None:
    def g(x: Any, y: Any) -> Any:
        x.add_(1.0)
        return y * 2.0

    f = dg.function(g)
    warm(f, dg.ones(4), dg.ones(4))
    a = dg.zeros(6)
    np.testing.assert_array_equal(f(a[:4], a[2:]).numpy(), [2.0, 2.0, 0.0, 0.0])
    fixed = np.zeros(4, np.float32)
    fixed.flags.writeable = False
    with pytest.raises(Exception, match=r"read-only|cannot be written"):
        f(dg.from_numpy(fixed), dg.ones(4))


def test_views_of_foreign_memory_are_served_where_they_lie_apart() -> None:
    def g(x: Any, y: Any) -> Any:
        x.add_(1.0)
        return y * 2.0

    f = dg.function(g)
    rows = np.zeros((6, 2, 8), np.float32)
    known = dg.ones(2, 4)
    warm(f, known, dg.from_numpy(rows[0, :, 4:]))
    mixed = natively(f, known, dg.from_numpy(rows[1, :, 4:]))
    np.testing.assert_array_equal(mixed.numpy(), np.zeros((2, 4)))
    # both in one memory: whole rows between them, or none
    first, last = dg.from_numpy(rows[0, :, 4:]), dg.from_numpy(rows[5, :, 4:])
    warm(f, first, last)
    natively(f, dg.from_numpy(rows[4, :, 4:]), dg.from_numpy(rows[2, :, 4:]))
    for x, y in ((rows[3, :, 4:], rows[3, :, 4:]), (rows[3, :, 4:], rows[3, :, :4])):
        assert leaves_to_python(f, dg.from_numpy(x), dg.from_numpy(y))
    x = dg.from_numpy(rows[3, :, 4:])
    np.testing.assert_array_equal(f(x, x).numpy(), np.full((2, 4), 2.0))


def test_views_of_an_array_that_is_written_are_left_to_python() -> None:
    def g(x: Any, y: Any) -> Any:
        x.add_(1.0)
        return y * 2.0

    f = dg.function(g)
    x = dg.zeros(4)
    warm(f, x, dg.from_numpy(np.zeros(8, np.float32)[4:]))
    before = x.numpy().copy()
    seen = dg.from_numpy(x.numpy()[:])
    assert leaves_to_python(f, x, seen)
    np.testing.assert_array_equal(f(x, seen).numpy(), 2 * (before + 1))


def test_hooks_of_leaves_are_seen() -> None:
    def g(x: Any) -> Any:
        (x * x).sum().backward()
        return x.grad * 1.0

    f = dg.function(g)
    x = dg.ones(3, requires_grad=True)
    for _ in range(5):
        x.grad = None
        f(x)
    x.grad = None
    with x.register_hook(lambda g: g * 10.0):
        assert leaves_to_python(f, x)
        np.testing.assert_array_equal(f(x).numpy(), [20.0] * 3)
    for call in (f, f, partial(natively, f)):
        x.grad = None
        np.testing.assert_array_equal(call(x).numpy(), [2.0] * 3)


def test_sizes_are_inputs_natively() -> None:
    f = dg.function(lambda x, y: (x * 2.0).sum() + y)
    for n in (3, 4, 5, 6, 5, 4):
        f(dg.ones(n), dg.ones(n))
    traces = f.n_traces
    for n in (6, 5, 4):
        natively(f, dg.ones(n), dg.ones(n))
        np.testing.assert_array_equal(
            natively(f, dg.ones(n), dg.ones(n)).numpy(), [2.0 * n + 1] * n
        )
    assert f.n_traces == traces


# -- errors ----------------------------------------------------------------------------------------


def test_errors_are_those_of_the_function() -> None:
    f = dg.function(lambda x, i: x[i])
    x = dg.tensor([1.0, 2.0, 3.0])
    warm(f, x, dg.tensor([0, 2]))
    with pytest.raises(IndexError) as error:
        f(x, dg.tensor([0, 7]))
    assert "f = dg.function(lambda x, i: x[i])" in str(error.value)
    np.testing.assert_array_equal(natively(f, x, dg.tensor([1, 1])).numpy(), [2.0, 2.0])


def test_settings_that_ask_for_python_have_it() -> None:
    seen = []

    def g(x: Any) -> Any:
        seen.append(0)
        return x * 2.0

    f = dg.function(lambda x: x * 2.0)
    x = dg.ones(2)
    warm(f, x)
    with dg.config.scope(eager=True):
        assert leaves_to_python(f, x)
    with dg.no_grad():
        assert leaves_to_python(f, x)
    assert not leaves_to_python(f, x)


# -- memory ----------------------------------------------------------------------------------------


def references(objects: list[Any]) -> list[int]:
    return [sys.getrefcount(x) for x in objects]


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_behind(case: str) -> None:
    """Reference counts of arguments and singletons, and the number of objects, stay as they are."""
    Memory.h, Memory.count = dg.zeros(4), 0
    f = dg.function(CASES[case]())
    x = dg.ones(4)
    warm(f, x)
    watched = [x, x.array, x._version, x.type, f, f._entry, f._entry.kept, 0, 1, (), dg.Tensor]
    for _ in range(40):
        f(x)
    gc.collect()
    before, objects = references(watched), len(gc.get_objects())
    for _ in range(200):
        f(x)
    gc.collect()
    after = references(watched)
    assert abs(len(gc.get_objects()) - objects) < 50
    for x_before, x_after in zip(before, after, strict=True):
        assert abs(x_after - x_before) < 20


def test_calls_that_fail_leave_nothing_behind() -> None:
    f = dg.function(lambda x, i: (x * 2.0)[i])
    x, i, bad = dg.ones(3), dg.tensor([0]), dg.tensor([9])
    warm(f, x, i)

    def fail() -> None:
        with pytest.raises(IndexError):
            f(x, bad)

    for _ in range(5):
        fail()
    gc.collect()
    before = references([x, x.array, bad, bad.array])
    for _ in range(50):
        fail()
    gc.collect()
    after = references([x, x.array, bad, bad.array])
    assert all(b - a < 5 for a, b in zip(before, after, strict=True))


def test_arguments_are_not_kept() -> None:
    """Neither by the call that makes a table nor by later ones."""
    f = dg.function(lambda x, parts: x * parts["w"][0])
    gc.disable()
    try:
        for _ in range(6):
            x, w = dg.ones(3), dg.ones(3)
            gone = [weakref.ref(x), weakref.ref(w)]
            f(x, {"w": (w,)})
            del x, w
            assert [r() for r in gone] == [None, None]
    finally:
        gc.enable()


def test_functions_die_with_what_they_hold() -> None:
    f = dg.function(lambda x: x + 1.0)
    warm(f, dg.ones(3))
    path, gone = weakref.ref(f), []
    weakref.finalize(f, gone.append, 1)
    del f
    gc.collect()
    assert path() is None
    assert gone == [1]


# -- threads -------------------------------------------------------------------------------------


def test_threads_call_one_function_while_its_state_changes() -> None:
    """Large programs let other threads run; results belong to the state before or after."""
    holder = SimpleNamespace(w=dg.ones(200_000))
    f = dg.function(lambda x: (x * holder.w).sum())
    x = dg.ones(200_000)
    warm(f, x)
    wrong: list[Any] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            found = f(x).item()
            if found not in (200_000.0, 400_000.0):
                wrong.append(found)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for t in threads:
        t.start()
    for k in range(60):
        holder.w = dg.full((200_000,), 1.0 + k % 2)
    stop.set()
    for t in threads:
        t.join()
    assert not wrong


# -- tables ----------------------------------------------------------------------------------------


def row(*numbers: int) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def decide(*instructions: Any) -> bool:
    """Whether guards hold, each as (instruction, words...)."""
    words = [w for name, *words in instructions for w in (getattr(guards, name).address, *words)]
    table = row(*words, guards.done.address)
    frame = row(*[0] * guards.FRAME)
    return guards.passes(ctypes.addressof(table), ctypes.addressof(frame)) == guards.DONE


def test_entries_of_dicts_are_compared_in_order() -> None:
    one, two = object(), object()
    keys = ["a", "b"]
    d = {"a": one, "b": two}
    words = (id(keys[0]), guards.SAME, id(one), id(keys[1]), guards.ANY, 0)
    assert decide(("entries_are", id(d), 2, *words))
    for other in ({"b": two, "a": one}, {"a": one}, {"a": two, "b": two}, {"a": one, "c": two}):
        assert not decide(("entries_are", id(other), 2, *words))
    made = {"".join(["", k]): v for k, v in d.items()}
    assert decide(("entries_are", id(made), 2, *words))


def test_floats_are_compared_bit_by_bit() -> None:
    def bits(x: float) -> int:
        return int(struct.unpack("=q", struct.pack("=d", x))[0])

    values = [0.0, -0.0, 1.5, float("nan"), float("inf"), 5e-324]
    for a in values:
        for b in values:
            assert decide(("is_float", id(a), bits(b))) == (bits(a) == bits(b))
    assert not decide(("is_float", id(1), bits(1.0)))


@pytest.mark.parametrize("count", [1, 2, 17, 200])
def test_rows_with_an_object_twice_are_found(count: int) -> None:
    size = 1 << (2 * count).bit_length()
    objects = [object() for _ in range(count)]
    addresses = [*map(id, objects)]
    copies = [("copy", 10 + k, a) for k, a in enumerate(addresses)]
    assert decide(*copies, ("are_distinct", 10, count, size))
    if count > 1:
        copies[-1] = ("copy", 10 + count - 1, addresses[0])
        assert not decide(*copies, ("are_distinct", 10, count, size))


def test_words_are_found_among_others() -> None:
    others = sorted(range(10**12, 10**12 + 90, 9))
    for k in range(len(others) + 1):
        part = others[:k]
        for x in range(10**12 - 2, 10**12 + 95):
            table = (("copy", 9, x), ("are_apart", 1, 9, len(part), *part))
            assert decide(*table) == (x not in part)


def test_changes_of_dicts_are_noticed() -> None:
    """A dict is looked at anew after each kind of change."""
    if not layout.versions_count():
        pytest.skip("dicts have no versions here")
    one, two, key = object(), object(), "k"
    d: dict[str, Any] = {key: one}
    asked = (guards.entries_are.address, id(d), 1, id(key), guards.SAME, id(one))
    far = 8 * (4 + len(asked))
    table = row(
        guards.unchanged.address, id(d), 0, far + 16, *asked, guards.note_version.address, far,
        guards.done.address,
    )  # fmt: skip
    frame = row(*[0] * guards.FRAME)

    def holds() -> bool:
        return guards.passes(ctypes.addressof(table), ctypes.addressof(frame)) == guards.DONE

    assert holds()
    assert table[2]
    for change, expected in (
        (lambda: d.update(k=two), False),
        (lambda: d.update(k=one), True),
        (lambda: d.update(z=one), False),
        (lambda: d.pop("z"), True),
        (lambda: d.clear(), False),
        (lambda: d.setdefault("k", one), True),
        (lambda: d.popitem(), False),
        (lambda: d.__ior__({"k": one}), True),
    ):
        change()
        assert holds() is expected
        assert holds() is expected
