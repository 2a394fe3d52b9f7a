"""Changes in place that native code makes, against the same changes made by Python."""

from __future__ import annotations

import numpy as np
import pytest
from natives import in_python, ran_natively

import dualgrad as dg
from dualgrad.runtime.native import library

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")

CHANGES = {
    "+=": lambda x, y: x.add_(y),
    "-=": lambda x, y: x.sub_(y),
    "*=": lambda x, y: x.mul_(y),
    "/=": lambda x, y: x.div_(y),
    "copy_": lambda x, y: x.copy_(y),
    "[...]": lambda x, y: x.__setitem__(Ellipsis, y),
    "clamp_": lambda x, y: x.clamp_(min=y),
}


def tensors():
    base = np.arange(24, dtype=np.float32).reshape(4, 6) + 1
    whole = dg.tensor(base.copy())
    return {
        "itself": (whole, whole),
        "another": (whole, dg.tensor(base.copy())),
        "a number": (whole, 2.5),
        "an int": (whole, 3),
        "broadcast": (whole, dg.tensor(base[:1].copy())),
        "strided": (dg.tensor(base.copy()).T, dg.tensor(base.T.copy())),
        "a view of it": (whole, whole[1:2]),
        "a part, by the next": (whole[:3], whole[1:]),
        "a part, by one apart": (whole[:2], whole[2:]),
        "columns": (whole[:, :3], whole[:, 3:]),
        "ints": (dg.tensor(base.astype(np.int64)), 2),
        "empty": (dg.zeros((0, 3)), 1.0),
    }


def outcome(change, which):
    """All that three changes do to a pair of new tensors, or the error of the first."""
    x, y = tensors()[which]
    try:
        for _ in range(3):
            change(x, y)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    other = y.array.tobytes() if isinstance(y, dg.Tensor) else y
    place = x._version[2]
    return x.array.tobytes(), x.type, x.version, other, place, x.requires_grad, x.grad_fn


@pytest.mark.parametrize("which", tensors())
@pytest.mark.parametrize("change", CHANGES)
def test_as_in_python(change, which):
    found = outcome(CHANGES[change], which)
    with in_python():
        assert found == outcome(CHANGES[change], which)


def test_native_code_makes_the_plain_ones():
    x, y = dg.tensor([1.0, 2.0]), dg.tensor([3.0, 4.0])
    for change in CHANGES.values():
        assert ran_natively(lambda change=change: change(x, y))
        assert ran_natively(lambda change=change: change(x, 2.0))


def test_what_is_recorded_is():
    x = dg.tensor([1.0, 2.0])
    w = dg.tensor([3.0, 4.0], requires_grad=True)
    x *= 2
    x *= 2
    for _ in range(2):
        x *= w
    x.sum().backward()
    assert w.grad.tolist() == [2 * 4 * 3, 2 * 8 * 4]


def test_a_saved_tensor_that_has_been_changed_is_refused():
    w = dg.tensor([3.0, 4.0], requires_grad=True)
    x = dg.tensor([1.0, 2.0])
    x += 1
    x += 1
    y = (w * x).sum()
    x += 1
    with pytest.raises(dg.errors.GradientError, match="1 in-place change since"):
        y.backward()


def test_memory_that_cannot_be_written():
    fixed = np.ones(3, np.float32)
    fixed.flags.writeable = False
    wide = dg.ones(1).broadcast_to(3)
    for x in (dg.from_numpy(fixed), wide):
        for _ in range(3):
            with pytest.raises(dg.errors.ArgumentError, match="cannot be written"):
                x += 1
    assert fixed.tolist() == [1, 1, 1]


def test_views_made_under_no_grad_are_refused():
    w = dg.tensor([3.0, 4.0], requires_grad=True) * 1
    with dg.no_grad():
        view = w[:1]
        view += 1
        view += 1
    with pytest.raises(dg.errors.GradientError):
        view += 1


def test_many_operands_and_names_come_through():
    x = dg.tensor([1.0, 2.0])
    with pytest.raises(TypeError):
        x._write()
    with pytest.raises(TypeError):
        x._write(unit=1, other=2)
    with pytest.raises(AttributeError, match="'int' object has no attribute 'trace'"):
        x._write(*range(40))
