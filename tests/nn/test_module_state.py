"""States of modules: hooks, extra state, assignment, and nothing changed where it is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError


def values(module: nn.Module) -> dict[str, Any]:
    return {name: as_array(t).tolist() for name, t in module.state_dict().items()}


class Counting(nn.Module):
    """A layer with a number of its own in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.seen = 0

    def get_extra_state(self) -> Any:
        return {"seen": self.seen}

    def set_extra_state(self, state: Any) -> None:
        if state["seen"] < 0:
            raise ValueError("a negative count")
        self.seen = state["seen"]


def test_names_below_a_prefix_and_in_a_dict_given() -> None:
    given: dict[str, Any] = {"other": 1}
    layer = nn.Linear(2, 3)
    assert layer.state_dict(destination=given, prefix="encoder.", keep_vars=True) is given
    assert list(given) == ["other", "encoder.weight", "encoder.bias"]
    assert given["encoder.weight"] is layer.weight


def test_extra_state_as_pytorch() -> None:
    m = nn.Sequential(Counting(), nn.ReLU())
    m[0].seen = 5
    state = m.state_dict()
    assert list(state) == ["0._extra_state", "0.inner.weight", "0.inner.bias"]
    other = nn.Sequential(Counting(), nn.ReLU())
    other.load_state_dict(state)
    assert other[0].seen == 5
    del state["0._extra_state"]
    with pytest.raises(ArgumentError, match=r"missing     0\._extra_state"):
        other.load_state_dict(state)
    assert other.load_state_dict(state, strict=False).missing_keys == ["0._extra_state"]


def test_an_extra_state_that_is_refused_undoes_all() -> None:
    m = nn.Sequential(Counting(), Counting())
    before = {k: str(v) for k, v in m.state_dict().items()}
    other = nn.Sequential(Counting(), Counting())
    other[0].seen, other[1].seen = 7, -1
    with pytest.raises(ValueError, match="negative"):
        m.load_state_dict(other.state_dict())
    assert {k: str(v) for k, v in m.state_dict().items()} == before
    assert m[0].seen == 0


def test_hooks_of_saving_run_in_order() -> None:
    m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    order: list[Any] = []
    m.register_state_dict_pre_hook(lambda mod, prefix, keep: order.append((prefix, keep)))
    m[1].register_state_dict_pre_hook(lambda mod, prefix, keep: order.append((prefix, keep)))

    def rename(mod: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        order.append(list(state))
        state[prefix + "scale"] = state.pop(prefix + "weight")

    handle = m[1].register_state_dict_post_hook(rename)
    assert list(m.state_dict()) == ["0.weight", "0.bias", "1.bias", "1.scale"]
    assert order == [("", False), ("1.", False), ["0.weight", "0.bias", "1.weight", "1.bias"]]
    handle.remove()
    assert list(m.state_dict())[2:] == ["1.weight", "1.bias"]
    m.register_state_dict_post_hook(lambda *_: {})
    with pytest.raises(ArgumentError, match="hook returns something"):
        m.state_dict()


def test_hooks_before_loading_change_a_copy() -> None:
    m = nn.Sequential(nn.Linear(2, 2))
    given = {"0.old": np.ones((2, 2)), "0.bias": np.zeros(2)}

    def rename(
        mod: Any, state: Any, prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        assert strict
        assert metadata == {"version": 3}
        assert lists == ([], [], [])
        state[prefix + "weight"] = state.pop(prefix + "old")

    class State(dict[str, Any]):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._metadata = {"0": {"version": 3}}

    m[0].register_load_state_dict_pre_hook(rename)
    m.load_state_dict(State(given))
    assert values(m) == {"0.weight": [[1, 1], [1, 1]], "0.bias": [0, 0]}
    assert list(given) == ["0.old", "0.bias"]


def test_hooks_before_loading_may_refuse() -> None:
    m = nn.Linear(1, 1)
    before = values(m)
    m.register_load_state_dict_pre_hook(lambda *args: args[-1].append("a state of another model"))
    with pytest.raises(ArgumentError, match="a state of another model"):
        m.load_state_dict({"weight": np.ones((1, 1)), "bias": np.ones(1)})
    assert values(m) == before


def test_hooks_after_loading_see_the_values_and_decide_on_names() -> None:
    m = nn.Sequential(nn.Linear(1, 1))
    seen: list[Any] = []

    def hook(mod: Any, keys: Any) -> None:
        seen.append((as_array(mod[0].weight).tolist(), list(keys.missing_keys)))
        keys.missing_keys.clear()

    handle = m.register_load_state_dict_post_hook(hook)
    assert m.load_state_dict({"0.weight": np.full((1, 1), 4.0)}) == ([], [])
    assert seen == [([[4.0]], ["0.bias"])]
    handle.remove()
    m.register_load_state_dict_post_hook(lambda mod, keys: None)
    with pytest.raises(ArgumentError, match=r"missing     0\.bias"):
        m.load_state_dict({"0.weight": np.full((1, 1), 9.0)})
    assert as_array(m[0].weight).tolist() == [[4.0]]


def test_hooks_are_copied_with_the_module() -> None:
    m = Counting()
    m.register_state_dict_post_hook(_drop)
    assert list(copy.deepcopy(m).state_dict()) == list(m.state_dict()) == ["inner.weight"]
    assert list(pickle.loads(pickle.dumps(m)).state_dict()) == ["inner.weight"]


def _drop(module: Any, state: Any, prefix: str, metadata: Any) -> None:
    del state["inner.bias"], state["_extra_state"]


def test_assigned_tensors_take_the_place_of_the_old_ones() -> None:
    m = nn.BatchNorm1d(2)
    m.bias.requires_grad_(False)  # type: ignore[union-attr]
    state = {name: t.clone() for name, t in nn.BatchNorm1d(2).double().state_dict().items()}
    optimizer_sees = list(m.parameters())
    m.load_state_dict(state, assign=True)
    assert isinstance(m.weight, nn.Parameter)
    assert [p.dtype for p in m.parameters()] == [dg.float64, dg.float64]
    assert [p.requires_grad for p in m.parameters()] == [True, False]
    assert all(p is not q for p, q in zip(m.parameters(), optimizer_sees, strict=True))
    state["weight"].fill_(3.0)
    assert as_array(m.weight).tolist() == [3, 3]
    assert list(m.state_dict()) == list(state)
    with pytest.raises(ArgumentError, match="dtype       weight must be a float, not int64"):
        m.load_state_dict({**state, "weight": dg.zeros(2, dtype=dg.int64)}, assign=True)


@pytest.mark.parametrize("bad", [None, "text", {"a": 1}, [[1], [1, 2]], object()])
def test_what_is_no_tensor_is_named(bad: Any) -> None:
    m = nn.Linear(1, 1)
    before = values(m)
    with pytest.raises(ArgumentError, match=r"type        bias \(1,\) in the module, \w+ in the"):
        m.load_state_dict({"weight": np.ones((1, 1)), "bias": bad})
    assert values(m) == before


def test_a_counter_that_older_states_lack() -> None:
    m = nn.Sequential(nn.BatchNorm1d(2))
    state = m.state_dict()
    del state["0.num_batches_tracked"]
    m(dg.from_numpy(np.random.default_rng(0).standard_normal((3, 2)).astype("f4")))
    m.load_state_dict(state)
    assert as_array(m[0].num_batches_tracked) == 1
    del state["0.running_var"]
    with pytest.raises(ArgumentError, match=r"missing     0\.running_var"):
        m.load_state_dict(state)


# -- with PyTorch

DTYPES = ["float64", "float32", "float16", "bfloat16"]


def torch_model(nn: Any) -> Any:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_states_of_pytorch_load_with_the_same_bits(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch_model(torch.nn).to(getattr(torch, dtype))
    theirs.train()(torch.ones(3, 3).to(getattr(torch, dtype)))
    ours = torch_model(nn).to(dtype)
    assert repr(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    for name, t in theirs.state_dict().items():
        own = ours.state_dict()[name]
        assert str(own.dtype).split(".")[-1] == str(t.dtype).split(".")[-1]
        assert as_array(own.to(dg.float64)).tolist() == t.double().tolist()
    # and back
    again = torch_model(torch.nn).to(getattr(torch, dtype))
    again.load_state_dict({name: torch.from_dlpack(t) for name, t in ours.state_dict().items()})
    for name, t in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], t)


def test_parameters_and_strided_tensors_of_pytorch_load() -> None:
    torch = pytest.importorskip("torch")
    m = nn.Linear(2, 3)
    weight = torch.arange(6.0).reshape(2, 3).T
    m.load_state_dict({"weight": torch.nn.Parameter(weight), "bias": torch.ones(6)[::2]})
    assert as_array(m.weight).tolist() == weight.tolist()
    state = torch.nn.BatchNorm1d(2).state_dict()  # of version 2, which has a counter
    del state["num_batches_tracked"]
    with pytest.raises(ArgumentError, match="missing     num_batches_tracked"):
        nn.BatchNorm1d(2).load_state_dict(state)


def calls(nn: Any, order: list[Any]) -> dict[str, Callable[[Any], Any]]:
    """What registers each kind of hook, the same in PyTorch."""
    return {
        "register_state_dict_pre_hook": lambda m: lambda mod, p, k: order.append((p, k)),
        "register_state_dict_post_hook": lambda m: lambda mod, s, p, _: order.append((len(s), p)),
        "register_load_state_dict_pre_hook": lambda m: (
            lambda mod, s, p, _, strict, *lists: order.append((sorted(s), p, lists))
        ),
        "register_load_state_dict_post_hook": lambda m: (
            lambda mod, keys: order.append((type(mod).__name__, list(keys)))
        ),
    }


def test_hooks_are_called_as_by_pytorch() -> None:
    torch = pytest.importorskip("torch")
    orders = []
    for nn_ in (nn, torch.nn):
        order: list[Any] = []
        m = nn_.Sequential(nn_.Linear(2, 2), nn_.Linear(2, 1))
        for name, make in calls(nn_, order).items():
            getattr(m[1], name)(make(m))
        state = m.state_dict()
        m.load_state_dict({k: v for k, v in state.items() if k[0] == "1"}, strict=False)
        orders.append(order)
    assert orders[0] == orders[1]


@pytest.mark.parametrize(("prefix", "into"), [("module.", "plain"), ("_orig_mod.", "plain"),
                                              ("net.", "wrapped")])  # fmt: skip
def test_names_that_differ_by_a_prefix_are_explained(prefix: str, into: str) -> None:
    """The hint is code that makes the state fit."""
    plain, other = nn.Linear(2, 3), nn.Linear(2, 3)
    state: dict[str, Any] = dict(plain.state_dict())
    wrapped = nn.Sequential()
    wrapped.add_module("net", other)
    module = wrapped if into == "wrapped" else other
    if into == "plain":
        state = {prefix + name: t for name, t in state.items()}
    with pytest.raises(ArgumentError) as error:
        module.load_state_dict(state)
    fitting = eval(error.value.hint.removeprefix("pass "), {"state": state})
    module.load_state_dict(fitting)
    assert values(other) == values(plain)


def test_names_that_differ_by_more_are_not_explained() -> None:
    state = {f"module.{name}": t for name, t in nn.Linear(2, 3).state_dict().items()}
    with pytest.raises(ArgumentError, match="strict=False"):
        nn.Linear(2, 3).load_state_dict({**state, "more": dg.ones(1)})
