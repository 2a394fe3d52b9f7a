"""Parts of modules by name, their dtypes and gradients as a whole, and hooks of all modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import as_array

import dualgrad as dg
from dualgrad import nn


def build(nn: Any) -> Any:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()))


def test_parts_by_name() -> None:
    m = build(nn)
    assert m.get_submodule("") is m
    assert m.get_submodule("1.0") is m[1][0]
    assert m.get_parameter("1.0.weight") is m[1][0].weight
    assert m.get_buffer("1.0.running_mean") is m[1][0].running_mean
    m.register_module("tail", nn.ReLU())
    assert m.get_submodule("tail") is m.tail


@pytest.mark.parametrize(
    ("method", "target", "text"),
    [
        ("get_submodule", "1.5", r"Sequential has no module '5' \(looking for '1.5'\); it has '0'"),
        ("get_submodule", "0.weight", "Linear has no module 'weight'"),
        ("get_parameter", "1.0.running_mean", "BatchNorm1d has no parameter 'running_mean'"),
        ("get_parameter", "bias", "Sequential has no parameter 'bias'; it has none"),
        ("get_buffer", "0.weight", "Linear has no buffer 'weight'"),
    ],
)
def test_parts_that_are_not_there(method: str, target: str, text: str) -> None:
    with pytest.raises(AttributeError, match=text):
        getattr(build(nn), method)(target)


def test_modules_are_put_at_a_name() -> None:
    m = build(nn)
    new = nn.Linear(3, 3)
    m.set_submodule("1.1", new)
    assert m[1][1] is new
    m.set_submodule("1.extra", nn.ReLU())
    assert [name for name, _ in m[1].named_children()] == ["0", "1", "extra"]
    with pytest.raises(AttributeError, match="no module 'other'"):
        m.set_submodule("1.other", new, strict=True)
    with pytest.raises(AttributeError, match="no module '7'"):
        m.set_submodule("7.other", new)


def test_all_modules_also_under_other_names() -> None:
    shared = nn.ReLU()
    m = nn.Sequential(shared, shared)
    assert len(list(m.modules())) == 2
    assert len(list(m.modules(remove_duplicate=False))) == 3


@pytest.mark.parametrize("name", ["float", "double", "half", "bfloat16"])
def test_dtypes_of_a_whole_module(name: str) -> None:
    m = build(nn).to(dg.float64)
    weight = m[0].weight
    assert getattr(m, name)() is m
    want = {"float": dg.float32, "double": dg.float64, "half": dg.float16}.get(name, dg.bfloat16)
    assert {t.dtype for t in (*m.parameters(), m[1][0].running_var)} == {want}
    assert m[1][0].num_batches_tracked.dtype is dg.int64
    assert m[0].weight is weight
    assert m.to("cpu", non_blocking=True) is m


def test_gradients_of_a_whole_module() -> None:
    m = build(nn)
    x = dg.randn(4, 2)
    assert m[0].requires_grad_(False) is m[0]
    m(x).sum().backward()
    assert [p.grad is None for p in m.parameters()] == [True, True, False, False]
    m.requires_grad_()
    m(x).sum().backward()
    assert all(p.grad is not None for p in m.parameters())


# -- hooks of all modules


@pytest.fixture
def handles() -> Iterator[list[Any]]:
    found: list[Any] = []
    yield found
    for handle in found:
        handle.remove()


def order_of(nn: Any, module: Any, tensor: Any, handles: list[Any]) -> list[Any]:
    """The hooks in the order in which they run; the same with PyTorch."""
    order: list[Any] = []

    def note(label: str) -> Any:
        return lambda mod, *rest: order.append((label, type(mod).__name__))

    m = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    for owner, label in ((m[0], "own"), (module, "all")):
        for kind in ("forward_pre", "forward", "full_backward_pre", "full_backward"):
            name = f"register_module_{kind}_hook" if owner is module else f"register_{kind}_hook"
            handles.append(getattr(owner, name)(note(f"{label} {kind}")))
    x = tensor([[1.0, 2.0]], requires_grad=True)
    m(x).sum().backward()
    for handle in handles[-4:]:
        handle.remove()
    order.append("removed")
    m(x).sum().backward()
    return order


def test_hooks_of_all_modules_run_as_in_pytorch(handles: list[Any]) -> None:
    torch = pytest.importorskip("torch")
    ours = order_of(nn, nn, dg.tensor, handles)
    theirs = order_of(torch.nn, torch.nn.modules.module, torch.tensor, handles)
    assert ours == theirs
    assert ours.count(("all forward", "ReLU")) == 1


def test_hooks_of_all_modules_are_seen_by_compiled_functions(handles: list[Any]) -> None:
    m = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    f = dg.function(m, strict=True)
    x = dg.ones(1, 2)
    before = as_array(f(x))
    handles.append(nn.register_module_forward_hook(lambda mod, args, out: out + 1))
    changed = as_array(f(x))
    assert changed.tolist() == as_array(m(x)).tolist()
    assert (changed >= 1).all()
    handles.pop().remove()
    assert as_array(f(x)).tolist() == before.tolist()


def test_hooks_of_registrations_may_replace(handles: list[Any]) -> None:
    seen: list[Any] = []
    handles.append(
        nn.register_module_parameter_registration_hook(
            lambda mod, name, p: seen.append(name) or (None if p is None else nn.Parameter(p * 0))
        )
    )
    handles.append(
        nn.register_module_buffer_registration_hook(lambda mod, name, b: seen.append(name))
    )
    handles.append(
        nn.register_module_module_registration_hook(lambda mod, name, m: seen.append(name))
    )
    m = nn.Sequential(nn.BatchNorm1d(1, bias=False))
    assert seen == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked", "0"]
    assert isinstance(m[0].weight, nn.Parameter)
    handles.pop(0).remove()
    seen.clear()
    m[0].weight = nn.Parameter(dg.ones(1))
    assert as_array(m[0].weight).tolist() == [1]
    assert seen == []
