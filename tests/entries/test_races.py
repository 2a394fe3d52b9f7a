"""The table of native entries changes while others use it: threads, and ops in finalizers."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import dispatch
from dualgrad.entries import ops
from dualgrad.runtime import memory
from dualgrad.runtime.native import library
from dualgrad.runtime.profile import counters

pytestmark = pytest.mark.skipif(not library.load(), reason="native code is off")


class Dying:
    """Calls a function when it dies."""

    def __init__(self, function):
        self.function = function

    def __del__(self):
        self.function()


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def plan_of_sum(x):
    for _ in range(2):
        x + x
    (plan,) = [
        p for k, p in dispatch._plans.items() if k[0].name == "add" and k[2:] == (x.sig,) * 2
    ]
    return plan


def test_an_op_while_plans_die():
    x = dg.ones((7, 3))
    seen = []

    def op():
        before = counters.native[0]
        seen.append(((x + x).tolist(), counters.native[0] - before))

    plan = plan_of_sum(x)
    plan.entries.append(Dying(op))
    del plan
    dispatch.forget()
    # Python has run it, as the native entry was not to be found any more
    assert seen == [([[2.0] * 3] * 7, 0)]
    assert (x + x).tolist() == [[2.0] * 3] * 7


def test_an_entry_is_made_while_another_one_is(monkeypatch):
    x = dg.ones((5, 2))
    dispatch.forget()
    made = ops.Entry

    def entry(*parts):
        monkeypatch.setattr(ops, "Entry", made)
        for _ in range(2):
            x + x  # as a finalizer might do
        return made(*parts)

    monkeypatch.setattr(ops, "Entry", entry)
    x + x
    places = ops._entries._places
    held = {e.address for e, _ in places.known.values()}
    assert set(places._words[1:]) - {0} == held
    assert (x + x).tolist() == [[2.0] * 2] * 5


def test_threads_while_plans_are_forgotten(often):
    stop = time.monotonic() + 1.5
    shapes = [dg.ones((n, 4)) for n in (1, 3, 5)]
    failed = []

    def work():
        w = dg.ones((4,), requires_grad=True)
        while time.monotonic() < stop and not failed:
            for x in shapes:
                w.grad = None
                (w * x).sum().backward()
                if not np.array_equal(w.grad.numpy(), [x.shape[0]] * 4):
                    failed.append(w.grad)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    while time.monotonic() < stop:
        dispatch.forget()
        time.sleep(0.004)
    for t in threads:
        t.join()
    assert not failed


def test_an_interrupt_in_a_compiled_call_is_not_lost(monkeypatch):
    f = dg.function(lambda x: x + 1.0)
    x = dg.zeros((1 << 18,))
    for _ in range(3):
        f(x)

    class Interrupted:
        """Stands for `gc` while memory is looked for."""

        isenabled = staticmethod(lambda: True)

        @staticmethod
        def collect():
            monkeypatch.undo()
            raise KeyboardInterrupt

    try:
        dg.set_memory_limit(dg.memory_stats().live_bytes + 1000)
        monkeypatch.setattr(memory, "gc", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            f(x)
        with pytest.raises(dg.errors.OutOfMemory):
            f(x)
    finally:
        dg.set_memory_limit(None)
    assert f(x).sum().item() == 1 << 18
