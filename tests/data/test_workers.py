"""Threads that load: errors, order, and an end in every case."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.data import DataLoader, Dataset, IterableDataset
from dualgrad.data import workers as data_workers
from dualgrad.runtime.errors import DataError, DataTimeout

EACH = pytest.mark.parametrize("workers", [0, 1, 3])


class Calls(Dataset[Any]):
    """Items made by a function."""

    def __init__(self, n: int, make: Callable[[int], Any]) -> None:
        self.n, self.make = n, make

    def __getitem__(self, index: int, /) -> Any:
        return self.make(index)

    def __len__(self) -> int:
        return self.n


class Source(IterableDataset[Any]):
    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return self.make()


def bad_at(number: int) -> Callable[[int], int]:
    def fails_here(index: int) -> int:
        if index == number:
            raise LookupError(f"item {index} is bad")
        return index

    return fails_here


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("DataLoader")]


def drain(batches: Any, got: list[Any]) -> None:
    got.extend(batch.tolist() for batch in batches)


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it holds at some time within 20 s."""
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.01)
    return False


@EACH
def test_errors_reach_the_loop_in_order(workers: int) -> None:
    loader = DataLoader(Calls(20, bad_at(9)), 2, num_workers=workers)
    iterator = iter(loader)
    got: list[Any] = []
    with pytest.raises(LookupError, match="item 9 is bad") as caught:
        drain(iterator, got)
    assert got == [[0, 1], [2, 3], [4, 5], [6, 7]]
    text = "".join(traceback.format_exception(caught.value))
    assert "fails_here" in text
    assert "in __getitem__" in text
    assert ("of a DataLoader, for batch 4" in text) == (workers > 0)
    assert list(iterator) == []  # the epoch has ended
    assert loader.state_dict()["current"]["batch"] == 4  # and the bad batch is left
    assert wait_until(lambda: not threads())


@EACH
def test_errors_of_a_sampler_come_after_the_batches_before(workers: int) -> None:
    class Short:
        def __iter__(self) -> Iterator[int]:
            yield from range(6)
            raise LookupError("no more")

    got: list[Any] = []
    with pytest.raises(LookupError, match="no more"):
        drain(DataLoader(range(9), 2, sampler=Short(), num_workers=workers), got)
    assert got == [[0, 1], [2, 3], [4, 5]]


@EACH
def test_errors_of_an_iterable_dataset(workers: int) -> None:
    def lines() -> Iterator[int]:
        yield from range(5)
        raise LookupError("line 5")

    got: list[Any] = []
    with pytest.raises(LookupError, match="line 5"):
        drain(DataLoader(Source(lines), 2, num_workers=workers), got)
    assert got == [[0, 1], [2, 3]]


@EACH
@pytest.mark.parametrize("where", ["dataset", "collate"])
def test_stop_iteration_does_not_end_the_loop_silently(workers: int, where: str) -> None:
    def stop(_: Any) -> Any:
        return next(iter(()))

    dataset = Calls(4, stop if where == "dataset" else int)
    loader = DataLoader(
        dataset, num_workers=workers, collate_fn=stop if where == "collate" else None
    )
    with pytest.raises(DataError, match="has raised StopIteration"):
        list(loader)


@EACH
def test_what_leaves_a_process_reaches_the_loop(workers: int) -> None:
    def leave(_: int) -> Any:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(DataLoader(Calls(4, leave), num_workers=workers))


def test_each_worker_is_prepared_once() -> None:
    seen: list[tuple[int, int]] = []
    loader = DataLoader(
        range(30),
        2,
        num_workers=3,
        worker_init_fn=lambda n: seen.append((n, threading.get_ident())),
    )
    assert len(list(loader)) == 15
    assert wait_until(lambda: len(seen) == 3)
    assert sorted(n for n, _ in seen) == [0, 1, 2]
    assert threading.get_ident() not in {ident for _, ident in seen}


def test_errors_of_worker_init_fn() -> None:
    def refuse(number: int) -> None:
        raise LookupError(f"not {number}")

    with pytest.raises(LookupError, match=r"not [01]") as caught:
        list(DataLoader(range(30), 2, num_workers=2, worker_init_fn=refuse))
    assert any("worker_init_fn" in note for note in caught.value.__notes__)


def test_workers_load_at_the_same_time() -> None:
    barrier = threading.Barrier(3)

    def meet(index: int) -> int:
        barrier.wait(timeout=30)
        return index

    assert len(list(DataLoader(Calls(9, meet), num_workers=3))) == 9


def test_no_more_is_loaded_than_asked_for() -> None:
    loaded: list[int] = []

    def note(index: int) -> int:
        loaded.append(index)
        return index

    iterator = iter(DataLoader(Calls(100, note), num_workers=2, prefetch_factor=3))
    for count in range(1, 5):
        next(iterator)
        assert wait_until(lambda count=count: len(loaded) == count + 6)  # type: ignore[misc]
        time.sleep(0.05)
        assert len(loaded) == count + 6


def test_batches_are_not_kept() -> None:
    iterator = iter(DataLoader(range(10), 2, num_workers=2))
    batch = next(iterator)
    gone = weakref.ref(batch)
    del batch
    next(iterator)
    assert gone() is None


def test_gradients_are_as_in_the_loop() -> None:
    def modes(_: int) -> bool:
        return (dg.ones(2, requires_grad=True) * 2).requires_grad

    with dg.no_grad():
        assert not any(b.item() for b in DataLoader(Calls(4, modes), num_workers=2))
    assert all(b.item() for b in DataLoader(Calls(4, modes), num_workers=2))


def test_timeout() -> None:
    go = threading.Event()
    loader = DataLoader(Calls(4, lambda i: go.wait(60)), num_workers=1, timeout=0.05)
    with pytest.raises(DataTimeout, match=r"no batch has come for 0\.05 s") as caught:
        next(iter(loader))
    go.set()
    assert isinstance(caught.value, TimeoutError)
    assert len(list(DataLoader(range(4), num_workers=1, timeout=60))) == 4


def test_a_thread_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(data_workers, "_outcome", die)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with pytest.raises(RuntimeError, match="a thread that loads batches has died"):
        list(DataLoader(range(4), num_workers=2))


def test_break_ends_the_threads() -> None:
    for _ in DataLoader(range(1000), num_workers=3):
        break
    assert wait_until(lambda: not threads())


def test_garbage_ends_the_threads() -> None:
    class Holder:
        pass

    holder: Any = Holder()
    holder.me, holder.batches = holder, iter(DataLoader(range(1000), num_workers=2))
    next(holder.batches)
    assert threads()
    del holder
    gc.collect()
    assert wait_until(lambda: not threads())


def test_garbage_is_collected_in_any_thread() -> None:
    """Workers that drop the last reference to iterators, while those have work."""

    def make(index: int) -> int:
        inner = iter(DataLoader(range(50), num_workers=2))
        next(inner)
        cycle = [inner]
        cycle.append(cycle)  # type: ignore[arg-type]
        del inner, cycle
        gc.collect()
        return index

    got = [b.item() for b in DataLoader(Calls(12, make), num_workers=3)]
    assert got == list(range(12))
    # a collection within a collection does nothing, so that some may be left
    assert wait_until(lambda: gc.collect() >= 0 and not threads())


def test_two_iterators_at_once() -> None:
    loader = DataLoader(range(9), 2, num_workers=2)
    pairs = [(a.tolist(), b.tolist()) for a, b in zip(loader, loader, strict=True)]
    assert all(a == b for a, b in pairs)
    assert len(pairs) == 5


def test_arrays_in_threads_are_right() -> None:
    """Eager operations in several threads, beside those of the loop."""

    def make(index: int) -> Any:
        x = dg.full((64,), index)
        return (x.to(dg.float32) * 2 + 1).sum()

    for i, batch in enumerate(DataLoader(Calls(200, make), 4, num_workers=4)):
        assert batch.tolist() == [64.0 * (2 * k + 1) for k in range(4 * i, 4 * i + 4)]
        assert (dg.ones(100) * i).sum().item() == 100 * i


# -- processes ------------------------------------------------------------------------------------

HEAD = """
import os, signal, sys, threading, time
from dualgrad.data import DataLoader

class Slow:
    def __init__(self, at):
        self.at = at
    def __len__(self):
        return 100
    def __getitem__(self, index):
        if index >= self.at:
            time.sleep(300)
        return index
"""


def start(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + body],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize(
    "body",
    [
        "it = iter(DataLoader(range(10000), num_workers=3)); next(it)",
        "it = iter(DataLoader(Slow(3), num_workers=3)); next(it)",
        "it = iter(DataLoader(Slow(3), num_workers=3)); next(it); raise SystemExit",
        "it = iter(DataLoader(Slow(0), num_workers=1, timeout=0.1))\n"
        "try: next(it)\nexcept TimeoutError: pass",
    ],
    ids=["idle", "busy", "SystemExit", "timeout"],
)
def test_a_process_ends(body: str) -> None:
    assert finished(start(body)) == (0, "", "")


def test_a_process_ends_after_an_error() -> None:
    code, _, err = finished(start("it = iter(DataLoader(Slow(3), num_workers=3)); next(it); 1 / 0"))
    assert code == 1
    assert err.strip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_control_c_while_waiting() -> None:
    process = start(
        "for batch in DataLoader(Slow(2), num_workers=2):\n    print(batch.item(), flush=True)"
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, out, err = finished(process)
    assert out == ""
    assert err.strip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_is_told() -> None:
    """The iterator lacks its threads there; a new one has its own."""
    body = """
import warnings
warnings.simplefilter("ignore")  # Python's own about forks beside threads
loader = DataLoader(range(100), 10, num_workers=2)
it = iter(loader)
next(it)
pid = os.fork()
if pid == 0:
    try:
        list(it)
    except RuntimeError as error:
        print(error.what, flush=True)
    print(sum(b.sum().item() for b in loader), flush=True)
    sys.exit(0)
os.waitpid(pid, 0)
print(len(list(it)))
"""
    code, out, err = finished(start(body))
    assert (code, err) == (0, "")
    assert out.split("\n") == [
        "a forked process has the iterator of a loader, but not the threads that load",
        "4950",
        "9",
        "",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": -1}, "num_workers has a value"),
        ({"num_workers": 1.0}, "num_workers has a value"),
        ({"prefetch_factor": 2}, "prefetch_factor without workers"),
        ({"timeout": 1}, "timeout without workers"),
        ({"timeout": -1, "num_workers": 1}, "timeout has a value"),
        ({"timeout": float("nan"), "num_workers": 1}, "timeout has a value"),
        ({"prefetch_factor": 0, "num_workers": 1}, "prefetch_factor has a value"),
        ({"shuffle": True, "sampler": [1]}, "shuffle beside sampler"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "batch_size beside batch_sampler"),
        ({"batch_sampler": [[1]], "drop_last": True}, "drop_last beside batch_sampler"),
        ({"batch_size": None, "drop_last": True}, "drop_last beside batch_size=None"),
        ({"generator": 3}, "no generator"),
        ({"generator": dg.Generator(3), "seed": 3}, "a generator and a seed"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(dg.errors.ArgumentError, match=message):
        DataLoader(range(3), **arguments)


def test_iterable_datasets_have_an_order() -> None:
    source = Source(lambda: iter(range(3)))
    for arguments in ({"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}):
        with pytest.raises(dg.errors.ArgumentError, match="beside an iterable dataset"):
            DataLoader(source, **arguments)
    with pytest.raises(TypeError, match="does not know how many"):
        len(DataLoader(source))


@EACH
def test_single_items(workers: int) -> None:
    arrays = [np.full(2, i) for i in range(3)]
    got = list(DataLoader(arrays, None, num_workers=workers))
    assert [x.tolist() for x in got] == [[0, 0], [1, 1], [2, 2]]
    assert all(isinstance(x, dg.Tensor) for x in got)
    assert len(DataLoader(arrays, None)) == 3
