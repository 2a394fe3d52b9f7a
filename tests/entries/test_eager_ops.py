"""Eager ops that native code runs, against the same ops run by Python."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest
from natives import in_python, ran_natively
from support import draw

import dualgrad as dg
from dualgrad import nn
from dualgrad.compiler.ir import value
from dualgrad.compiler.ops.arithmetic import Add
from dualgrad.compiler.ops.base import OPS
from dualgrad.compiler.ops.sample import Arg
from dualgrad.entries import ops
from dualgrad.runtime.native import library
from dualgrad.runtime.profile import counters

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")


def facts(x):
    """All that is to be seen of a tensor, but for objects that every run makes anew."""
    node = x.grad_fn
    return (
        x.array.tobytes(), x.array.dtype, x.array.shape, x.array.strides if x.size else (),
        x.array.flags.writeable, x.type, x.layout, x.sig, x.version, x.requires_grad, type(x),
        x.base is None,
        (x.grad, x.node, x.owner), x.origin is None,
        node and (node.name, x.output_number, node.place, len(node.edges), node.versions),
    )  # fmt: skip


def first_samples():
    """One sample for each op class, of those that are not refused."""
    for op in OPS:
        found = next((s for s in op.samples() if s.error is None), None)
        if found is not None:
            yield pytest.param(found, id=op.__name__)


@pytest.mark.parametrize("sample", list(first_samples()))
def test_all_ops_come_out_as_in_python(sample):
    rng = np.random.default_rng(7)
    operands = [
        dg.tensor(draw(a, rng), requires_grad=a.dtype.is_float and sample.gradient)
        if isinstance(a, Arg)
        else a
        for a in sample.args
    ]

    def run():
        out = sample.function(*operands)
        return [facts(x) for x in (out if isinstance(out, tuple | list) else (out,))]

    run()
    found = run()
    with in_python():
        assert found == run()


OPERANDS = {
    "matrix": dg.tensor(np.arange(12, dtype=np.float32).reshape(3, 4)),
    "strided": dg.tensor(np.arange(24, dtype=np.float32).reshape(4, 6))[:3, ::2][:, :1],
    "transposed": dg.tensor(np.arange(12, dtype=np.float32).reshape(4, 3)).T,
    "row": dg.tensor([1.0, -2.0, 3.0, 0.5]),
    "doubles": dg.tensor(np.linspace(0, 1, 4)),
    "learned": nn.Parameter(dg.tensor([0.5, 1.0, 2.0, 4.0])),
    "no dimensions": dg.tensor(3.0),
    "empty": dg.zeros((0, 4)),
    "ints": dg.tensor([1, 2, 3, -4]),
    "bools": dg.tensor([True, False, True, True]),
    "number": 2.5,
    "int": -3,
    "bool": True,
}
TENSORS = [k for k, x in OPERANDS.items() if isinstance(x, dg.Tensor)]


@pytest.mark.parametrize("right", OPERANDS)
@pytest.mark.parametrize("left", TENSORS)
def test_operands_of_all_kinds(left, right):
    x, y = OPERANDS[left], OPERANDS[right]

    def run():
        return [facts(x + y), facts(y * x), facts(x < y)]

    try:
        run()
    except ValueError:
        pytest.skip("the shapes do not fit")
    assert ran_natively(run)
    found = run()
    with in_python():
        assert found == run()


def test_what_holds_for_a_thread_holds_for_native_code():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    x * x
    with dg.no_grad():
        assert not (x * x).requires_grad
        assert ran_natively(lambda: x * x)
        seen = []
        thread = threading.Thread(target=lambda: seen.append((x * x).requires_grad))
        thread.start()
        thread.join()
        assert seen == [True]
        with dg.enable_grad():
            assert (x * x).grad_fn.name == "mul"
    assert (x * x).requires_grad


def test_many_threads_one_after_the_other_and_at_once():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    x + x
    wrong = []

    def work(records):
        with dg.enable_grad() if records else dg.no_grad():
            for _ in range(50):
                if (x + x).requires_grad is not records:
                    wrong.append(records)

    for _ in range(40):
        threads = [threading.Thread(target=work, args=(k % 2 == 0,)) for k in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong


def test_large_work_lets_go_of_the_interpreter_and_of_nothing_else():
    x = dg.tensor(np.linspace(0, 1, 300_000))
    found = x.exp()
    results = [None] * 4

    def work(k):
        results[k] = x.exp()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(r.array.tobytes() == found.array.tobytes() for r in results)


def test_no_reference_is_lost_or_kept():
    x, y = dg.tensor([1.0, 2.0]), dg.tensor([3.0, 4.0])
    number = 12345.678

    def run():
        for _ in range(200):
            x + y
            x * number
            dg.exp(x)

    run()
    watched = [x, y, x.array, x.type, x.sig, number, None, Add.of(), dg.Tensor]
    gc.collect()
    before = [sys.getrefcount(o) for o in watched]
    run()
    gc.collect()
    after = [sys.getrefcount(o) for o in watched]
    assert all(abs(a - b) < 20 for a, b in zip(after, before, strict=True)), (before, after)


def test_results_are_owned_by_who_has_them():
    x = dg.tensor([1.0, 2.0])
    x + x
    outputs = value.apply(Add.of(), x, x)
    counts = (
        sys.getrefcount(outputs),
        sys.getrefcount(outputs[0]),
        sys.getrefcount(outputs[0].array),
    )
    assert counts == (2, 2, 2)  # of this frame or what holds it, and of the call
    assert gc.is_tracked(outputs[0])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + dg.zeros((3,)),
        lambda x: x + "a",
        lambda x: x.take(dg.tensor([9])),
        lambda x: value.apply(Add.of(), 1, 2),
        lambda x: value.apply(Add.of()),
        lambda x: x.astype(dg.int64) + 2**70,
    ],
)
def test_errors_are_those_of_python(wrong):
    x = dg.tensor([1.0, 2.0])
    x + x
    x.take(dg.tensor([1]))
    x.astype(dg.int64) + 1
    texts = []
    for _ in range(2):
        with pytest.raises(Exception) as native:  # noqa: PT011
            wrong(x)
        texts.append((type(native.value), str(native.value)))
    with in_python(), pytest.raises(texts[0][0]) as plain:
        wrong(x)
    assert texts == [(type(plain.value), str(plain.value))] * 2


def test_numbers_are_told_from_each_other_by_class():
    x = dg.tensor([1, 2, 3])
    for _ in range(2):
        assert (x + 1).dtype is dg.int64
        assert (x + 1.0).dtype is dg.float32
        assert (x + True).tolist() == [2, 3, 4]
        assert (x + (-(2**63))).tolist()[0] == -(2**63) + 1


def test_subclasses_that_run_their_own_ops_do():
    seen = []

    class Watched(dg.Tensor):
        def apply_unit(self, unit, operands):
            seen.append(unit.name)
            return super().apply_unit(unit, operands)

    class Plain(dg.Tensor):
        pass

    x, y = Watched(dg.tensor([1.0])), Plain(dg.tensor([1.0]))
    for _ in range(3):
        assert (x + x).item() == (y + y).item() == 2
    assert seen == ["add"] * 3
    assert ran_natively(lambda: y + y)


def test_functions_are_traced():
    @dg.function
    def double(x):
        return x + x

    x = dg.tensor([1.0, 2.0])
    x + x
    before = counters.snapshot().launches
    assert double(x).tolist() == [2, 4]
    assert counters.snapshot().launches == before + 1


def test_nan_is_found():
    x = dg.tensor([-1.0, 2.0])
    x.log()
    with dg.detect_nan(), pytest.raises(dg.errors.NaNError):
        x.log()
    assert np.isnan(x.log().tolist()[0])


def test_forgotten_plans_come_back():
    x = dg.tensor([1.0, 2.0])
    x + x
    assert ran_natively(lambda: x + x)
    dg.clear_caches()
    assert not ops._entries._places.known
    assert ran_natively(lambda: x + x)
    assert (x + x).tolist() == [2, 4]


def test_more_plans_than_places():
    first = ops._entries._places.count
    kept = []
    for n in range(1, first):
        x = dg.zeros((n,))
        kept.append(x)
        x + 1
    assert ops._entries._places.count > first
    assert ran_natively(lambda: [x + 1 for x in kept])
