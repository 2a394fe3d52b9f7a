"""What a function prints, logs and does to Python objects, at every call."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import logging
import os
import pathlib
import random
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.jit import watch
from dualgrad.runtime.errors import TraceError
from semantics.support import compare

X = dg.tensor([1.0, 2.0])
Y = dg.tensor([3.0, -4.5])
CALLS = [(X,), (Y,), (X,)]

log = logging.getLogger("dualgrad.tests.effects")


class Shown:
    """Has text of its own."""

    def __init__(self, w: dg.Tensor) -> None:
        self.w = w

    def __repr__(self) -> str:
        return f"Shown({self.w})"


# -- row 10: print ------------------------------------------------------------------------------

PRINTS: dict[str, Callable[[Any], Any]] = {
    "a tensor": lambda x: (print("x", x), x * 2),
    "a result": lambda x: print(x * 2, x.sum(), [x + 1, (x, 3)], {"a": x}),
    "f-string": lambda x: print(f"now {x} and {x.sum():.3f}", end="!\n"),
    "item in a format": lambda x: print(f"loss {x.sum().item():8.2f}|{x.mean().item()}"),
    "width from a number": lambda x: print(f"{x.sum().item():{10}.{2}f}", sep=""),
    "text of it": lambda x: print("a" + str(x.sum()), repr(x), str(x.mean().item())),
    "values as a list": lambda x: print(x.tolist(), x.numpy(), x.sum().item()),
    "integers": lambda x: print(f"{x.argmax().item():d}", (x > 1), x.argmax()),
    "error stream": lambda x: print("to", x, file=sys.stderr, flush=True),
    "nothing": lambda x: print(),
    "an object": lambda x: print(Shown(x), [Shown(x * 2)], f"{Shown(x)}"),
    "a module": lambda x: print(nn.Sequential(nn.ReLU(), nn.Flatten())),
    "debug": lambda x: dg.debug(x * 3, label="three").sum(),
    "debug of several": lambda x: dg.debug(x, 7, "text"),
    "shape": lambda x: print(x.shape, x.dtype, x.ndim),
    "keyword": lambda x: print("a", x, sep="--"),
    "a list of texts": lambda x: print(*[1, "b", x]),
    "in a comprehension": lambda x: [print(k, x[k]) for k in range(2)],
}


@pytest.mark.parametrize("name", PRINTS)
def test_row10_printed_at_every_call(name: str) -> None:
    f = PRINTS[name]
    compare(lambda: f, CALLS, traces=1)


TEXTS: dict[str, Callable[[Any], Any]] = {
    "looked at": lambda x: x if "2" in f"{x}" else x * 3,
    "kept": lambda x: [f"{x}"],
    "padded": lambda x: print(f"{x!r:>40}|"),
    "length": lambda x: print(len(str(x))),
    "method": lambda x: print(f"{x}".upper()),
    "percent": lambda x: print("%30s|" % x),  # noqa: UP031
    "format": lambda x: print("{:>30}".format(str(x))),  # noqa: UP032
    "item in a sum": lambda x: print(x.sum().item() + 1),
    "item in a test": lambda x: x * 2 if x.sum().item() > 0 else x,
    "item in a loop": lambda x: [x for _ in range(int(x.argmax().item()) + 1)],
    "given to a function": lambda x: (lambda s: print(s.replace("2", "3")))(f"{x}"),
    "ternary of types": lambda x: print(1 if isinstance(x.sum().item(), float) else 2),
    "bool": lambda x: bool(x.sum().item()),
    "walrus": lambda x: (print(s := f"{x}"), len(s)),
}


@pytest.mark.parametrize("name", TEXTS)
def test_row10_text_that_code_can_look_at_is_made_eagerly(name: str) -> None:
    f = TEXTS[name]
    compiled = compare(lambda: f, CALLS, eager=True)
    assert "test_effects.py" in str(compiled.eager_reason)


def test_row10_order_and_values_of_the_moment() -> None:
    def make() -> Any:
        w = dg.tensor([1.0, 1.0])

        def f(x: Any) -> Any:
            print("before", w, x)
            w.add_(x)
            print("after", w)
            w.mul_(2.0)
            for k in range(3):
                print(k, w[0] * k)
            return w.sum()

        return f, w

    compare(make, CALLS, traces=1)


def test_row10_gradients_printed() -> None:
    def make() -> Any:
        w = dg.tensor([1.0, 1.0], requires_grad=True)

        def f(x: Any) -> None:
            loss = (w * x).sum()
            print(w, loss, w.grad)
            loss.backward()
            print(w.grad, f"{loss.item():>12.4f}|")
            w.grad = None

        return f, w

    compare(make, CALLS, traces=1)


def test_row10_numbers_that_change() -> None:
    def make() -> Any:
        def f(x: Any, step: int, rate: float) -> Any:
            print(f"step {step}: {rate:.4f}", rate, x * rate)
            return x * rate

        return f

    compare(make, [(X, k, 0.5 / (k + 1)) for k in range(8)], traces=1)


def test_row10_errors_print_first() -> None:
    def make() -> Any:
        def f(x: Any, k: int) -> Any:
            print("start", x)
            y = x[k]
            print("end", y)
            return y

        return f

    compare(make, [(X, 1), (X, 5), (X, 0)], eager=None)


def test_row10_without_source() -> None:
    space: dict[str, Any] = {}
    exec("def f(x):\n    print(f'x is {x} and {x.sum().item():.2f}')\n    return x * 2", space)
    compare(lambda: space["f"], CALLS, traces=1)


def test_row10_a_failed_trace_prints_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    @dg.function
    def f(x: Any) -> Any:
        print("one", x)
        return x * x.sum().item()

    with pytest.warns(dg.EagerFallback, match="item"):
        f(X)
    assert capsys.readouterr().out == f"one {X}\n"


def test_row10_strict_compiles_prints_and_refuses_texts() -> None:
    dg.function(lambda x: print(f"{x}"), strict=True)(X)
    with pytest.raises(TraceError, match="test_effects"):
        dg.function(lambda x: len(f"{x}"), strict=True)(X)


def test_row10_print_is_itself_again() -> None:
    real = builtins.print
    dg.function(lambda x: print(x))(X)
    assert builtins.print is real


def test_row10_streams_are_looked_up_at_each_call() -> None:
    f = dg.function(lambda x: print("v", x))
    out = []
    for _ in range(3):
        with contextlib.redirect_stdout(io.StringIO()) as text:
            f(X)
        out.append(text.getvalue())
    assert out == [f"v {X}\n"] * 3


def test_row10_another_file_is_written_eagerly() -> None:
    def make() -> Any:
        file = io.StringIO()

        def f(x: Any) -> Any:
            print(x, file=file)
            return x * 2

        def call(f: Any, file: Any) -> str:
            f(X)
            return str(file.getvalue())

        return f, file

    def call(f: Any, file: Any) -> str:
        f(X)
        return str(file.getvalue())

    compare(make, [call] * 3, eager=True)


# -- row 10: logging ----------------------------------------------------------------------------


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[object, ...]] = []

    def emit(self, record: logging.LogRecord) -> None:
        where = (record.funcName, record.lineno, os.path.basename(record.pathname))
        self.seen.append((record.levelname, record.getMessage(), record.name, *where))


@pytest.fixture
def records() -> Any:
    handler = Records()
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.DEBUG)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def logged(f: Callable[..., Any], records: Records, calls: list[Callable[[Any], Any]]) -> Any:
    records.seen.clear()
    for call in calls:
        call(f)
    return list(records.seen)


def talks(x: Any) -> Any:
    log.info("x %s and %.2f", x, x.sum().item())
    log.debug(f"double {x * 2}")
    logging.getLogger("dualgrad.tests.effects").warning("plain")
    log.log(logging.ERROR, "with %(name)s", {"name": 3})
    return x + 1


def test_row10_logged_at_every_call(records: Records) -> None:
    levels = [logging.DEBUG, logging.WARNING, logging.DEBUG]
    calls: list[Callable[[Any], Any]] = []
    for level, x in zip(levels, (X, Y, X), strict=True):
        calls += [lambda _, level=level: log.setLevel(level), lambda f, x=x: f(x)]  # type: ignore[misc]
    f = dg.function(talks)
    assert logged(talks, records, calls) == logged(f, records, calls)
    assert f.n_traces == 1
    assert f.eager_reason is None


def test_row10_a_logger_that_is_asked_runs_eagerly(records: Records) -> None:
    def f(x: Any) -> Any:
        if log.isEnabledFor(logging.INFO):
            log.info("x %s", x)
        return x

    calls: list[Callable[[Any], Any]] = [
        lambda f: f(X),
        lambda _: log.setLevel(logging.ERROR),
        lambda f: f(X),
    ]
    want = logged(f, records, calls)
    log.setLevel(logging.DEBUG)
    with pytest.warns(dg.EagerFallback, match="isEnabledFor"):
        assert logged(dg.function(f), records, calls) == want


# -- row 11: lists, dicts and others ------------------------------------------------------------


def test_row11_appending_is_one_program() -> None:
    def make() -> Any:
        history: list[Any] = []
        keeper = Keeper()

        def f(x: Any) -> Any:
            y = x * 2
            history.append(y.sum())
            keeper.history.append((y, len("abc"), {"y": y}))
            keeper.history.extend([x, 3])
            return y

        return f, history, keeper

    compare(make, CALLS * 3, traces=1)


class Keeper:
    def __init__(self) -> None:
        self.history: list[Any] = []
        self.last: Any = None


def test_row11_appended_and_read() -> None:
    def make() -> Any:
        history: list[Any] = []

        def f(x: Any) -> Any:
            history.append(x * 2)
            return history[-1] + len(history)

        return f, history

    compare(make, CALLS * 3)


def test_row11_appended_under_two_names() -> None:
    def make() -> Any:
        history: list[Any] = []
        other = {"h": history}

        def f(x: Any) -> Any:
            history.append(x)
            return x * len(other["h"])

        return f, history, other

    compare(make, CALLS * 3)


def test_row11_a_list_that_grows_for_ever_is_left_alone() -> None:
    def make() -> Any:
        history: list[Any] = []

        def f(x: Any) -> Any:
            history.append(x)
            return x + len(history)

        return f, history

    f = compare(make, [(X,)] * 40, eager=True)
    assert f.n_traces <= 20


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "pop": lambda x, s: (s["list"].pop(), s["list"].append(x * 2)),
    "pop first": lambda x, s: (s["list"].pop(0), s["list"].append(x * 2)),
    "insert": lambda x, s: (s["list"].insert(0, x * 2), s["list"].pop()),
    "clear": lambda x, s: (s["list"].clear(), s["list"].append(x * 3)),
    "reverse": lambda x, s: s["list"].reverse(),
    "slice": lambda x, s: s["list"].__setitem__(slice(0, 2), [x * 2]),
    "deque": lambda x, s: s["deque"].append(x * 2),
    "deque left": lambda x, s: s["deque"].appendleft(x * 2),
    "rotate": lambda x, s: s["deque"].rotate(1),
    "set item": lambda x, s: s["dict"].__setitem__("a", x * 2),
    "new item": lambda x, s: s["dict"].__setitem__("new", x * 2),
    "delete": lambda x, s: (s["dict"].pop("a", None), x)[1],
    "order": lambda x, s: s["dict"].__setitem__("a", s["dict"].pop("a")),
    "setdefault": lambda x, s: s["dict"].setdefault("d", x * 2),
    "update": lambda x, s: s["dict"].update(a=x, b="text"),
    "defaultdict": lambda x, s: s["default"]["k"].append(x),
    "ordered": lambda x, s: s["ordered"].move_to_end("a"),
    "counter": lambda x, s: s["counter"].update(["a", "b"]),
    "set": lambda x, s: s["set"].add("k"),
    "attribute": lambda x, s: setattr(s["object"], "last", x * 2),
    "new attribute": lambda x, s: setattr(s["object"], "other", x * 2),
    "no attribute": lambda x, s: s["object"].__dict__.pop("gone", None),
    "text": lambda x, s: setattr(s["object"], "last", "done"),
    "flip": lambda x, s: setattr(s["object"], "last", not s["object"].last),
}


@pytest.mark.parametrize("name", CHANGES)
def test_row11_changed_containers(name: str) -> None:
    change = CHANGES[name]

    def make() -> Any:
        thing = Keeper()
        thing.gone = 1  # type: ignore[attr-defined]
        places = {
            "list": [dg.tensor([7.0]), dg.tensor([8.0]), "c"],
            "deque": collections.deque([dg.tensor([7.0])], maxlen=2),
            "dict": {"a": dg.tensor([7.0]), "b": 2},
            "default": collections.defaultdict(list),
            "ordered": collections.OrderedDict(a=1, b=2),
            "counter": collections.Counter("a"),
            "set": {"x"},
            "object": thing,
        }

        def f(x: Any) -> Any:
            change(x, places)
            return x + 1

        return f, places

    compare(make, CALLS * 2, eager=None)


class Noisy(dict[Any, Any]):
    """Keeps a record of its assignments."""

    def __init__(self) -> None:
        super().__init__()
        self.record: list[Any] = []

    def __setitem__(self, key: Any, value: Any) -> None:
        self.record.append(key)
        super().__setitem__(key, value)


def test_row11_a_container_with_a_mind_of_its_own() -> None:
    def make() -> Any:
        places = Noisy()

        def f(x: Any) -> Any:
            places["a"] = x * 2
            return x

        return f, places, places.record

    compare(make, CALLS * 2)


def test_row11_a_trace_that_fails_leaves_no_mark() -> None:
    def make() -> Any:
        history: list[Any] = []
        places = {"a": 1, "b": 2}

        def f(x: Any) -> Any:
            history.append(x)
            del places["a"]
            places["a"] = 1
            return x * x.sum().item()

        return f, history, places

    compare(make, CALLS, eager=True)


# -- row 16: what cannot be repeated --------------------------------------------------------------

IMPURE: dict[str, Callable[[Any], Any]] = {
    "time": lambda x: (x * 2, time.time() > 0)[0],
    "perf_counter": lambda x: x * (time.perf_counter() > 0),
    "sleep": lambda x: (time.sleep(0), x * 2)[1],
    "now": lambda x: x * (datetime.now().year > 0),
    "uuid": lambda x: x * len(str(uuid.uuid4())),
    "urandom": lambda x: x * len(os.urandom(4)),
    "stat": lambda x: (os.stat("."), x * 2)[1],
    "environment": lambda x: x * len(os.environ.get("EFFECTS", "ab")),
    "getenv": lambda x: x * len(os.getenv("EFFECTS", "ab")),
    "open": lambda x: (open(__file__).close(), x + 1)[1],
    "read": lambda x: x * len(pathlib.Path(__file__).read_text()[:3]),
    "write": lambda x: (sys.stdout.write("w"), x + 1)[1],
    "socket": lambda x: (socket.socket().close(), x + 1)[1],
    "id": lambda x: x * (id(x) > 0),
}


@pytest.mark.parametrize("name", IMPURE)
def test_row16_clocks_and_files_are_used_at_each_call(name: str) -> None:
    f = IMPURE[name]
    compiled = compare(lambda: f, CALLS, eager=True)
    assert "test_effects.py" in str(compiled.eager_reason)


def test_row16_a_call_is_stopped_before_it_happens(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "record"

    @dg.function
    def f(x: Any) -> Any:
        with open(place, "a") as file:
            file.write("line\n")
        return x * 2

    with pytest.warns(dg.EagerFallback, match="open"):
        f(X)
    f(X)
    assert place.read_text() == "line\n" * 2


def test_row16_nothing_happens_in_handlers_of_a_stopped_trace() -> None:
    def make() -> Any:
        generator = random.Random(5)

        def f(x: Any) -> Any:
            random.seed(3)
            try:
                a = random.random()
            except BaseException:
                a = 0.0
            finally:
                b = random.random()
            return x * a + b

        return f, generator

    compare(make, CALLS, eager=True)


def test_row16_an_iterator_from_outside() -> None:
    def make() -> Any:
        numbers = iter(range(100))
        return lambda x: x * next(numbers)

    compare(make, CALLS, eager=True)


class Dice(random.Random):
    """A generator of a class of one's own."""


def test_row16_a_class_of_ones_own() -> None:
    def make() -> Any:
        dice = Dice(3)
        return lambda x: x * dice.random()

    compare(make, CALLS, eager=True)


def test_row16_modules_imported_inside() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            import colorsys

            return x * colorsys.rgb_to_hsv(0.5, 0.25, 0.25)[2]

        sys.modules.pop("colorsys", None)
        return f

    compare(make, CALLS)


# -- row 49: context managers -------------------------------------------------------------------


class Manager:
    def __init__(self, record: list[str]) -> None:
        self.record = record

    def __enter__(self) -> Manager:
        self.record.append("in")
        return self

    def __exit__(self, *error: object) -> bool:
        self.record.append("out")
        return error[0] is ValueError


def test_row49_context_managers() -> None:
    def make() -> Any:
        record: list[str] = []

        def f(x: Any) -> Any:
            with Manager(record), contextlib.suppress(KeyError):
                y = x * 2
                raise KeyError
            with Manager(record):
                raise ValueError
            with dg.no_grad():
                z = (y * 3).sum()
            with contextlib.nullcontext(), dg.enable_grad():
                return y, z

        return f, record

    compare(make, CALLS * 2)


def test_row49_seeds_inside() -> None:
    def f(x: Any) -> Any:
        dg.manual_seed(3)
        return x + dg.randn(2), dg.rand(2)

    compare(lambda: f, CALLS, eager=None)


def test_row49_generators_as_managers() -> None:
    def make() -> Any:
        depth = [0]

        @contextlib.contextmanager
        def deeper() -> Any:
            depth[0] += 1
            try:
                yield depth[0]
            finally:
                depth[0] -= 1

        def f(x: Any) -> Any:
            with deeper() as d:
                return x * d

        return f, depth

    compare(make, CALLS, eager=None)


def test_random_states_are_compared() -> None:
    np.random.rand()  # NumPy imports its generators when they are first used
    before = watch._random_states()
    np.random.rand()
    assert watch._restore_random(before) == "numpy.random"
    assert watch._restore_random(before) is None


def test_row49_locks_are_held() -> None:
    def make() -> Any:
        lock, held = threading.Lock(), []

        def f(x: Any) -> Any:
            with lock:
                held.append(lock.locked())
                return x * 2

        return f, held

    compare(make, [(dg.ones(2),)] * 3, eager=True)
