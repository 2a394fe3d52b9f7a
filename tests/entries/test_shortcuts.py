"""Op methods that native code serves, against the functions in Python behind them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.entries.shortcuts import MOST, known
from dualgrad.runtime.native import library

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")

CALLS = {
    "sum": [((), {}), ((0,), {}), ((), {"axis": 1, "keepdims": True}), ((), {"dim": (0, -1)})],
    "mean": [((), {}), ((1, True), {}), ((), {"dtype": dg.float64})],
    "max": [((), {}), ((0,), {})],
    "reshape": [((4,), {}), ((2, 2), {}), (((4, 1),), {}), (([-1],), {}), ((-1, 1), {})],
    "permute": [((1, 0), {}), (((0, 1),), {})],
    "unsqueeze": [((0,), {}), ((-1,), {})],
    "softmax": [((), {}), ((0,), {}), ((), {"dim": 1})],
    "clip": [((-0.5, 0.5), {}), ((), {"min": 0.0}), ((0, None), {}), ((False, True), {})],
    "astype": [((dg.float64,), {}), ((dg.int8,), {})],
    "__add__": [((2,), {}), ((2.0,), {}), ((True,), {}), ((-0.0,), {})],
    "tril": [((), {}), ((1,), {}), ((), {"k": -1})],
}


def same(a, b):
    a, b = (x if isinstance(x, tuple) else (x,) for x in (a, b))
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.type == y.type
        assert x.numpy().tobytes() == y.numpy().tobytes()


@pytest.mark.parametrize("name", CALLS)
def test_methods_give_what_their_functions_give(name):
    rng = np.random.default_rng(1)
    made = [dg.from_numpy(rng.normal(size=(2, 2)).astype("float32")) for _ in range(3)]
    for _ in range(3):  # in Python, learnt, from what was learnt
        for x in (*made, made[0].T):
            for args, kwargs in CALLS[name]:
                expected = known[name].function(x, *args, **kwargs)
                same(getattr(x, name)(*args, **kwargs), expected)


def test_numbers_of_other_kinds_are_other_calls():
    x = dg.tensor([1, 2])
    for _ in range(3):
        found = [(x * n).dtype for n in (1, 1.0, True, 1, 1.0)]
        assert found == [dg.int64, dg.float32, dg.int64, dg.int64, dg.float32]


def test_a_tensor_given_twice_is_no_sample_of_two():
    x, y = dg.tensor([1.0, 2.0, 3.0]), dg.tensor([5.0, 7.0, 9.0])
    for _ in range(3):
        assert (x - x).tolist() == [0, 0, 0]
        assert (x - y).tolist() == [-4, -5, -6]
        assert (y - x).tolist() == [4, 5, 6]


def test_what_reads_elements_reads_them_each_time():
    x = dg.tensor([1.0, 2.0, 3.0])
    for counts in ([1, 1, 1], [2, 0, 1], [0, 0, 4]):
        for _ in range(2):
            found = x.repeat_interleave(dg.tensor(counts))
            assert found.tolist() == np.repeat([1.0, 2.0, 3.0], counts).tolist()


def test_gradients_and_no_grad():
    x = dg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    for _ in range(3):
        x.grad = None
        (x.sum(0) * dg.tensor([2.0, 3.0])).sum().backward()
        assert x.grad.tolist() == [[2, 3], [2, 3]]
        with dg.no_grad():
            assert not x.sum().requires_grad


def test_errors_stay():
    x = dg.ones(2, 3)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"\[sum\] axis out of range"):
            x.sum(2)
        with pytest.raises(ValueError, match="inner dimensions differ"):
            x @ x
        with pytest.raises(TypeError, match="unexpected keyword"):
            x.sum(axes=1)
        with pytest.raises(TypeError):
            x.sum(0, False, 3)


def test_traced_calls_are_traced():
    @dg.function
    def f(x):
        return x.sum(0).reshape(-1, 1) + x.mean()

    x = dg.tensor([[1.0, 2.0], [3.0, 4.0]])
    for _ in range(3):
        assert f(x).tolist() == [[6.5], [8.5]]
        assert (x.sum(0).reshape(-1, 1) + x.mean()).tolist() == [[6.5], [8.5]]


def test_ever_new_numbers_are_not_kept_for_ever():
    x = dg.tensor([1.0])
    for k in range(MOST + 50):
        assert x.fmod(k + 2).tolist() == [1.0]
    assert len(known["fmod"].learnt) <= MOST


def test_methods_show_their_signatures():
    found = dg.Tensor.sum
    assert found.__name__ == "reduce_sum"
    assert found.__doc__ == known["sum"].function.__doc__
    assert list(inspect.signature(found).parameters)[:2] == ["x", "axis"]
    x = dg.tensor([1.0, 2.0])
    bound = x.sum
    assert bound().item() == 3.0
    assert bound.__self__ is x


KEYS = [
    0, -1, np.s_[1:], np.s_[::2], np.s_[:, 1], np.s_[0, 1], (0, ...), None, ..., (), np.s_[None, 0],
    np.s_[:0], [0, 2], np.s_[::-1], (slice(None), None, 1), True,
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys_show_what_numpy_shows(key):
    array = np.arange(12, dtype="float32").reshape(3, 4)
    for _ in range(4):
        x = dg.from_numpy(array)
        found = x[key]
        assert found.shape == array[key].shape
        assert found.numpy().tobytes() == array[key].tobytes()
        if np.shares_memory(array[key], array):
            assert np.shares_memory(found.numpy(), array) == (key != np.s_[::-1])
            expected = known["__getitem__"].function(x, key)
            assert found.layout == expected.layout


def test_views_by_keys_are_seen_to_change():
    for _ in range(4):
        w = dg.zeros(4, requires_grad=True)
        y = w * 1.0
        y[0] += 3.0
        y[1:] *= 2.0
        y[-1] = 5.0
        assert y.tolist() == [3, 0, 0, 5]
        y.sum().backward()
        assert w.grad.tolist() == [1, 2, 2, 0]
        x = dg.zeros(4)
        x[0] += 3.0
        part = x[1:]
        part += 1.0
        part[0] = 7.0
        assert x.tolist() == [3, 7, 1, 1]


def test_positions_of_a_loop_are_not_learnt():
    x = dg.ones(3000)
    before = len(known["__getitem__"].learnt)
    for _ in range(2):
        for k in range(3000):
            x[k]
    assert len(known["__getitem__"].learnt) - before < 100


def test_a_position_that_is_not_there():
    x = dg.ones(3)
    for _ in range(4):
        with pytest.raises(IndexError):
            x[3]
