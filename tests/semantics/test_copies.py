"""Pickling and copying: what is decorated behaves as what is not; subclasses."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import dualgrad as dg
from dualgrad import nn
from semantics.support import bits, compare


@dg.function
def module_level(x: dg.Tensor, scale: float = 2.0, *, shift: float = 0.0) -> dg.Tensor:
    """Scale and shift."""
    return x * scale + shift


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.steps = 0

    @dg.function
    def forward(self, x: dg.Tensor) -> dg.Tensor:
        return dg.tanh(self.inner(x))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.steps = 0

    def forward(self, x: dg.Tensor) -> dg.Tensor:
        return dg.tanh(self.inner(x))


class WithMethod:
    def __init__(self, by: float) -> None:
        self.by = by
        self.run = dg.function(self._run)

    def _run(self, x: dg.Tensor) -> dg.Tensor:
        return x * self.by


class Marked(dg.Tensor):
    """A tensor with methods of its own."""

    __slots__ = ()

    def doubled(self) -> dg.Tensor:
        return self * 2


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_row41_functions_are_pickled_by_name(protocol: int) -> None:
    module_level(dg.ones(2))
    assert pickle.loads(pickle.dumps(module_level, protocol)) is module_level
    assert copy.copy(module_level) is module_level
    assert copy.deepcopy([module_level])[0] is module_level
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(dg.function(lambda x: x), protocol)


def test_row41_signature_text_and_annotations_are_kept() -> None:
    plain = module_level.eager
    assert module_level.__name__ == "module_level"
    assert module_level.__doc__ == "Scale and shift."
    assert module_level.__module__ == __name__
    assert inspect.signature(module_level) == inspect.signature(plain)
    assert inspect.get_annotations(module_level) == inspect.get_annotations(plain)


def test_row41_copies_of_modules_with_decorated_methods() -> None:
    net, plain = Net(), Plain()
    x = dg.ones(4, 3)
    net(x)
    assert list(net.state_dict()) == list(plain.state_dict())
    other = copy.deepcopy(net)
    with dg.no_grad():
        other.inner.weight.fill_(0.5)
        before = net(x)
        again = pickle.loads(pickle.dumps(net))
        assert bits(again(x)) == bits(before)
        assert bits(other(x)) != bits(before)
        assert bits(other(x)) == bits(Net.forward.eager(other, x))
    plain.load_state_dict(net.state_dict())
    with dg.no_grad():
        assert bits(plain(x)) == bits(net(x))


def test_row41_objects_that_hold_a_decorated_method_of_theirs() -> None:
    a = WithMethod(2.0)
    x = dg.ones(2)
    assert a.run(x).tolist() == [2.0, 2.0]
    b, c = copy.deepcopy(a), pickle.loads(pickle.dumps(a))
    b.by, c.by = 3.0, 4.0
    assert [o.run(x).tolist()[0] for o in (a, b, c)] == [2.0, 3.0, 4.0]


def test_row42_subclasses_of_module() -> None:
    def make() -> Any:
        class Deep(Plain):
            def forward(self, x: dg.Tensor) -> dg.Tensor:
                return super().forward(x) + 1

        net = Deep()
        return (lambda x: net(x).detach()), net

    x = dg.ones(4, 3)
    compare(make, [(x,), (x,)], traces=1)


def test_row42_subclasses_of_tensor() -> None:
    def make() -> Any:
        return lambda x: (x.doubled(), x, type(x).__name__)

    compare(make, [lambda f: f(Marked(dg.ones(2))), lambda f: f(Marked(dg.ones(3)))], eager=None)
