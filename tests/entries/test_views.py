"""Views that native code makes, against those that Python makes."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.compiler.ir import value
from dualgrad.gradients import history
from dualgrad.runtime.native import library

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")

VIEWS = {
    "transposed": lambda x: x.T,
    "reshaped": lambda x: x.reshape(2, 6),
    "flat": lambda x: x.T.T.reshape(12),
    "expanded": lambda x: x.reshape(1, 3, 4).expand(5, 3, 4),
    "part": lambda x: x.narrow(1, 1, 2),
    "row": lambda x: x.select(0, 2),
    "diagonal": lambda x: x.diagonal(),
    "windows": lambda x: x.unfold(1, 2, 1),
    "nothing": lambda x: x.narrow(0, 3, 0).T,
}


def source():
    return dg.tensor(np.arange(12.0).reshape(3, 4))


def told(view, x):
    array = view.array
    origin = view.origin
    return (
        view._type, view.sig, view.layout, view.requires_grad, array.shape, array.strides,
        array.__array_interface__["data"][0] - x.array.__array_interface__["data"][0],
        array.flags.writeable, array.flags.c_contiguous, array.dtype, view.base is x,
        origin[1], origin[3], view._version is x._version, view.node, view.owner,
        view._grad, type(array),
    )  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("recorded", [False, True])
def test_views_are_those_of_python(name, recorded):
    make = VIEWS[name]
    with dg.set_grad_enabled(recorded):
        first = source()
        expected = told(make(first), first)  # the first of its kind is made by Python
        for _ in range(2):
            x = source()
            view = make(x)
            assert told(view, x) == expected
            np.testing.assert_array_equal(view.numpy(), make(source()).numpy())
            assert any(v is view for v in x.views)


def test_views_of_views_are_numbered_and_know_their_source():
    x = source().requires_grad_()
    y = x * 1.0
    for _ in range(3):
        a = y.T
        b = a.reshape(2, 6) if a.layout is None else a.narrow(0, 1, 2)
        assert b.base is y
        assert b.origin[0] is a
        assert b.origin[2] > a.origin[2]
        assert b.grad_fn.edges[0][0] is a.grad_fn


def test_views_made_without_gradients_say_so():
    x = source()
    for _ in range(2):
        with dg.no_grad():
            view = x.T
        assert view.origin[3] == history.NO_GRAD
        assert view.T.origin[3] == history.NO_GRAD


def test_memory_that_cannot_be_written_stays_so():
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    x = dg.from_numpy(array)
    for _ in range(3):
        assert not x.T.array.flags.writeable


def test_memory_lives_as_long_as_its_views():
    for _ in range(3):
        view = source().T
        gc.collect()
        np.testing.assert_array_equal(view.numpy(), np.arange(12.0).reshape(3, 4).T)


def test_references_are_given_back():
    x = source()
    y = x.T
    things = [x, x.array, x._version, y._type, y.layout, None, y.sig]
    for _ in range(100):
        y = x.T
    before = [sys.getrefcount(t) for t in things]
    blocks = sys.getallocatedblocks()
    for _ in range(200):
        y = x.T
    after = [sys.getrefcount(t) for t in things]
    assert all(abs(a - b) < 30 for a, b in zip(after, before, strict=True)), (before, after)
    assert sys.getallocatedblocks() - blocks < 300
    assert len(x._version[1]) < 130  # weak references to views that are gone


def test_apply_is_native():
    assert value.apply is not value.applying.slow
