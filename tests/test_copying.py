"""`copy` and `pickle` of tensors: values, shared memory, flags, gradients, subclasses."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime import memory
from dualgrad.runtime.dtype import ALL, DType
from dualgrad.runtime.errors import GradientError

WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {n}": lambda x, n=n: pickle.loads(pickle.dumps(x, n))  # type: ignore[misc]
        for n in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "python's pickle": lambda x: pickle._loads(pickle._dumps(x)),  # type: ignore[attr-defined]
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class Tagged(dg.Tensor):
    tag: Any


class Slotted(Tagged):
    __slots__ = ("__private", "extra")
    extra: Any

    def hide(self, value: object) -> Slotted:
        self.__private = value
        return self

    def hidden(self) -> object:
        return self.__private


class Stateful(dg.Tensor):
    """One with a state of its own making."""

    def __getstate__(self) -> Any:
        return {"said": "hello"}

    def __setstate__(self, state: Any) -> None:
        self.heard = state["said"]


@ways
@pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.name)
def test_values_of_all_dtypes(way: Callable[[Any], Any], dtype: DType) -> None:
    for shape in ((), (0,), (3,), (2, 0), (2, 3)):
        x = dg.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
        y = way(x)
        assert (y.dtype, y.shape, y.tolist()) == (x.dtype, x.shape, x.tolist())
        y.fill_(5)
        assert x.tolist() == x.clone().tolist()
        assert not np.shares_memory(x.storage(), y.storage())


VIEWS: dict[str, Callable[[dg.Tensor], dg.Tensor]] = {
    "row": lambda x: x[1],
    "column": lambda x: x[:, 2],
    "steps": lambda x: x[::2, 1::2],
    "T": lambda x: x.T,
    "expand": lambda x: x[:, :1].expand(3, 4),
    "detach": lambda x: x.detach(),
    "reshape": lambda x: x.reshape(2, 6),
    "empty": lambda x: x[:0],
    "same": lambda x: x,
    "view of a view": lambda x: x.T[1:][:, 1],
    "numpy": lambda x: dg.from_numpy(x.numpy()),
    "parameter": lambda x: nn.Parameter(x, requires_grad=False),
}


@ways
@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_afterwards(way: Callable[[Any], Any], name: str) -> None:
    x = dg.arange(12.0).reshape(3, 4)
    for order in (1, -1):
        before, other = x.tolist(), VIEWS[name](x)
        y, view = way(way([x, other][::order]))[::order]
        assert (y.tolist(), view.tolist()) == (x.tolist(), other.tolist())
        assert view.strides_in_elements == other.strides_in_elements
        y += 100
        assert view.tolist() == VIEWS[name](x + 100).tolist()
        assert x.tolist() == before
        assert not np.shares_memory(x.numpy(), y.numpy())
        assert y.version == view.version == 1


@ways
def test_a_view_alone(way: Callable[[Any], Any]) -> None:
    x = dg.arange(12.0).reshape(3, 4)
    y, z = way((x.T[1], x[1:]))
    assert y.tolist() == [1.0, 5.0, 9.0]
    z[0] = 0
    assert y.tolist() == [1.0, 0.0, 9.0]
    layout = way(x.T)
    assert layout.strides_in_elements == (1, 4)
    assert layout.tolist() == x.T.tolist()


@ways
def test_memory_with_gaps(way: Callable[[Any], Any]) -> None:
    array = np.arange(1000.0).reshape(10, 100)
    x = dg.from_numpy(array[:, 3])
    y, same = way((x, x))
    assert y is same
    assert y.tolist() == x.tolist()
    assert len(pickle.dumps(x)) < 1000
    broadcast = way(dg.from_numpy(np.broadcast_to(np.arange(3.0), (2, 3))))
    assert broadcast.add_(1).tolist() == [[1.0, 2.0, 3.0]] * 2


@ways
def test_flags_and_gradients(way: Callable[[Any], Any]) -> None:
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    y = way(x)
    assert y.requires_grad
    assert y.is_leaf
    assert y.grad.tolist() == [2.0, 4.0]
    (y * y).sum().backward()
    assert y.grad.tolist() == [4.0, 8.0]
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 4.0]
    with pytest.raises(GradientError, match="cannot be copied with its graph"):
        way(x * 2)
    assert way((x * 2).detach()).tolist() == [2.0, 4.0]


@ways
def test_subclasses_and_their_attributes(way: Callable[[Any], Any]) -> None:
    x = Slotted(dg.ones(2), requires_grad=True).hide(7)
    shared = dg.zeros(3)
    x.tag, x.extra = [shared], shared
    y, again = way((x, shared))
    assert type(y) is Slotted
    assert y.requires_grad
    assert y.hidden() == 7
    assert y.extra is y.tag[0] is again
    assert way(Stateful(dg.ones(2))).heard == "hello"


def test_shallow_copies() -> None:
    x = Slotted(dg.ones(2)).hide(7)
    x.tag = ["tag"]
    y = copy.copy(x)
    assert type(y) is Slotted
    assert (y.tag, y.hidden()) == (x.tag, 7)
    assert y.tag is x.tag
    y += 1
    assert x.tolist() == [2.0, 2.0]
    z = dg.ones(2, requires_grad=True)
    w = copy.copy(z * 3)
    w.sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [3.0, 3.0]


def test_shallow_copies_take_part_in_changes() -> None:
    def f(x: dg.Tensor) -> Any:
        y = x * 2
        view = y[1:]
        first, second = copy.copy(view), copy.copy(y)
        first.mul_(3)
        second.mul_(5)
        return y, view, first, second

    x = dg.ones(3, requires_grad=True)
    for run in (f, dg.function(f)):
        found = run(x)
        assert [t.tolist() for t in found] == [
            [10.0, 30.0, 30.0],
            *([[30.0, 30.0]] * 2),
            found[0].tolist(),
        ]
        for t, wanted in zip(
            found, ([10, 30, 30], [0, 30, 30], [0, 30, 30], [10, 30, 30]), strict=True
        ):
            x.grad = None
            t.sum().backward(retain_graph=True)
            assert x.grad is not None
            assert x.grad.tolist() == wanted


@ways
def test_modules_keep_tied_parameters(way: Callable[[Any], Any]) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    twin = way(net)
    assert twin[0].weight is twin[1].weight
    assert type(twin[0].weight) is nn.Parameter
    x = dg.ones(2, 3)
    assert twin(x).tolist() == net(x).tolist()
    with dg.no_grad():
        twin[0].weight.zero_()
    assert net[0].weight.abs().sum().item() > 0


@ways
def test_copies_lie_in_the_pool(way: Callable[[Any], Any]) -> None:
    gc.collect()
    before = memory.stats().live_bytes
    x, view = way((dg.ones(1000), dg.ones(1000)[3:]))
    assert memory.block_below(x.array) is not None
    assert x.array.ctypes.data % memory.ALIGNMENT == 0
    del x, view
    gc.collect()
    assert memory.stats().live_bytes == before


def test_buffers_out_of_band() -> None:
    x, buffers = dg.arange(1000.0), []
    data = pickle.dumps([x, x[5:]], 5, buffer_callback=buffers.append)
    assert len(data) < 1000
    y, z = pickle.loads(data, buffers=buffers)
    y += 1
    assert z[0].item() == 6.0
    assert x[5].item() == 5.0


@ways
def test_copies_in_compiled_functions(way: Callable[[Any], Any]) -> None:
    x = dg.arange(4.0)

    @dg.function
    def step(x: dg.Tensor, v: dg.Tensor) -> dg.Tensor:
        x *= 2
        return v + 1

    for _ in range(2):
        y, v = way((x, x[1:]))
        assert step(y, v).tolist() == [3.0, 5.0, 7.0]


def test_inside_compiled_functions() -> None:
    @dg.function
    def f(x: dg.Tensor) -> Any:
        y = x * 2
        z = copy.deepcopy([y, y[1:]])
        z[0] += 1
        return z[1], y

    with pytest.warns(dg.EagerFallback, match="copying"):
        z, y = f(dg.arange(3.0))
    assert (z.tolist(), y.tolist()) == ([3.0, 5.0], [0.0, 2.0, 4.0])
