"""Hooks on modules and tensors: as in PyTorch, in both modes, also when added later."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, GradientError, ShapeError
from semantics.support import compare

X = dg.tensor([[1.0, 2.0], [3.0, -4.0]])


def model() -> Any:
    dg.seed(1)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def step(m: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        m.zero_grad()
        loss = (m(x) ** 2).sum()
        loss.backward()
        return loss.detach(), [p.grad for p in m.parameters()]

    return f


# What each hook does is worked out by hand: the model without it, with the change put in.


def test_row38_forward_hooks_see_and_replace() -> None:
    m = nn.Linear(2, 2)
    seen = []
    before = m.register_forward_pre_hook(lambda mod, args: seen.append((mod, args)))
    after = m.register_forward_hook(lambda mod, args, out: seen.append((mod, args, out)))
    out = m(X)
    assert seen[0] == (m, (X,))
    assert seen[1][:2] == (m, (X,))
    assert seen[1][2] is out
    before.remove()
    after.remove()
    after.remove()
    m(X)
    assert len(seen) == 2
    m.register_forward_pre_hook(lambda mod, args: args[0] * 2)
    m.register_forward_hook(lambda mod, args, out: out + 1)
    want = (X * 2) @ m.weight.T + m.bias + 1
    np.testing.assert_allclose(m(X).detach().numpy(), want.detach().numpy(), rtol=1e-6)


def test_row38_order_keywords_and_errors() -> None:
    class Add(nn.Module):
        def forward(self, x: Any, *, by: Any = 1.0) -> Any:
            if by is None:
                raise ValueError("nothing to add")
            return x + by

    m, order = Add(), []
    m.register_forward_hook(lambda *_: order.append("a"))
    m.register_forward_hook(lambda *_: order.append("b"), prepend=True)
    m.register_forward_hook(lambda *_: order.append("always"), always_call=True)
    m.register_forward_pre_hook(lambda mod, args, kw: (args, {"by": 5.0}), with_kwargs=True)
    m.register_forward_hook(
        lambda mod, args, kw, out: order.append(kw["by"]) or None, with_kwargs=True
    )
    assert m(X, by=2.0).tolist() == (X + 5.0).tolist()
    assert order == ["b", "a", "always", 5.0]
    order.clear()
    m.register_forward_pre_hook(lambda mod, args, kw: (args, {"by": None}), with_kwargs=True)
    with pytest.raises(ValueError, match="nothing"):
        m(X)
    assert order == ["always"]
    with pytest.raises(ArgumentError):
        m.register_forward_hook(3)  # type: ignore[arg-type]


def test_row38_backward_hooks_get_both_gradients() -> None:
    m = nn.Linear(2, 1, bias=False)
    seen = []
    m.register_full_backward_hook(lambda mod, gi, go: seen.append((gi, go)))
    x = dg.tensor([[1.0, 2.0]], requires_grad=True)
    (m(x) * 3).sum().backward()
    ((grad_input,), (grad_output,)) = seen[0]
    assert grad_output.tolist() == [[3.0]]
    np.testing.assert_allclose(grad_input.numpy(), 3 * m.weight.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), 3 * m.weight.detach().numpy())  # type: ignore[union-attr]
    seen.clear()
    m(dg.tensor([[1.0, 2.0]])).sum().backward()
    assert seen[0][0] == (None,)


def test_row38_backward_hooks_replace() -> None:
    m = nn.Linear(2, 1, bias=False)
    m.register_full_backward_pre_hook(lambda mod, go: (go[0] * 2,))
    m.register_full_backward_hook(lambda mod, gi, go: (gi[0] * 10,))
    x = dg.tensor([[1.0, 2.0]], requires_grad=True)
    m(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 20 * m.weight.detach().numpy())  # type: ignore[union-attr]
    np.testing.assert_allclose(m.weight.grad.numpy(), 2 * x.detach().numpy())  # type: ignore[union-attr]


def test_row38_hooks_of_tensors() -> None:
    w = dg.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    handle = w.register_hook(lambda g: seen.append(g))
    w.register_hook(lambda g: g * 10)
    y = w * 3
    y.register_hook(lambda g: g + 1)
    (y.sum() + (w * w).sum()).backward()
    # (1 + 1) * 3 + 2 w, once for both uses
    assert seen[0].tolist() == [8.0, 10.0]
    assert w.grad.tolist() == [80.0, 100.0]  # type: ignore[union-attr]
    handle.remove()
    with w.register_hook(lambda g: seen.append(g)):
        w.sum().backward()
    w.sum().backward()
    assert len(seen) == 2
    assert w.grad.tolist() == [100.0, 120.0]  # type: ignore[union-attr]
    with pytest.raises(GradientError):
        dg.tensor([1.0]).register_hook(print)
    w.register_hook(lambda g: g.sum())
    with pytest.raises(ShapeError, match="hook"):
        w.sum().backward()


def test_row38_state_and_copies() -> None:
    m = model()
    keys = list(m.state_dict())
    m[0].register_forward_hook(lambda mod, args, out: out * 2)
    assert list(m.state_dict()) == keys
    twin = copy.deepcopy(m)
    assert twin(X).tolist() == m(X).tolist()


# -- compiled -----------------------------------------------------------------------------------

ADD: dict[str, Callable[[Any, list[Any]], Any]] = {
    "pre": lambda m, seen: m[1].register_forward_pre_hook(lambda mod, a: (a[0] + 0.5,)),
    "forward": lambda m, seen: m[1].register_forward_hook(lambda mod, a, out: out * 1.5),
    "keeps": lambda m, seen: m[0].register_forward_hook(
        lambda mod, a, out: seen.append(out.detach())
    ),
    "prints": lambda m, seen: m[0].register_forward_hook(lambda mod, a, out: print("out", out)),
    "backward": lambda m, seen: m[2].register_full_backward_hook(lambda mod, i, o: (i[0] * 2,)),
    "backward keeps": lambda m, seen: m[0].register_full_backward_hook(
        lambda mod, i, o: seen.append(o[0])
    ),
    "backward pre": lambda m, seen: m[2].register_full_backward_pre_hook(
        lambda mod, o: (o[0] * 3,)
    ),
    "parameter": lambda m, seen: m[0].weight.register_hook(lambda g: g * 10),
    "parameter prints": lambda m, seen: m[0].weight.register_hook(lambda g: print("g", g)),
    "of the model": lambda m, seen: m.register_forward_hook(lambda mod, a, out: out + 1),
}


@pytest.mark.parametrize("name", ADD)
def test_need16_added_and_removed_between_calls(name: str) -> None:
    models: list[Any] = []
    handles: list[Any] = []

    def make() -> Any:
        m = model()
        models.append(m)
        seen: list[Any] = []
        return step(m), seen, list(m.parameters())

    def add(f: Any, seen: list[Any], _: Any) -> None:
        handles.append(ADD[name](models[-1], seen))

    def remove(*_: Any) -> None:
        handles.pop().remove()

    def run(f: Any, *_: Any) -> Any:
        return f(X)

    f = compare(make, [run, run, add, run, run, run, remove, run, add, run, add, run])
    assert f.n_traces <= 6


def test_row38_a_hook_on_a_traced_tensor() -> None:
    def make() -> Any:
        w = dg.tensor([1.0, 2.0], requires_grad=True)

        def f(x: Any) -> Any:
            y = w * x
            y.register_hook(lambda g: g * 7)
            y.sum().backward()
            return w.grad

        return f, w

    compare(make, [(dg.tensor([1.0, 2.0]),)] * 3, traces=None)


def test_row38_a_gradient_that_comes_later_runs_eagerly() -> None:
    def make() -> Any:
        w = dg.tensor([1.0, 2.0], requires_grad=True)

        def f(x: Any) -> Any:
            y = w * x
            y.register_hook(lambda g: g * 7)
            return y

        return f, w

    def run(f: Any, w: Any) -> Any:
        w.grad = None
        f(dg.tensor([1.0, 2.0])).sum().backward()
        return w.grad

    compare(make, [run] * 3, eager=True)


def test_row38_hooks_on_results_of_compiled_functions() -> None:
    def make() -> Any:
        w = dg.tensor([1.0, 2.0], requires_grad=True)
        return lambda x: (w * x).sum(), w

    def run(f: Any, w: Any) -> Any:
        w.grad = None
        with w.register_hook(lambda g: g * 5):
            out = f(dg.tensor([1.0, 2.0]))
            out.register_hook(lambda g: g * 2)
            out.backward()
        return w.grad

    compare(make, [run] * 3)


def test_row38_registered_inside_runs_eagerly() -> None:
    def make() -> Any:
        m = nn.Linear(2, 2)

        def f(x: Any) -> Any:
            handle = m.register_forward_hook(lambda mod, a, out: out * 2)
            y = m(x)
            handle.remove()
            return y.detach()

        return f, m.weight, m.bias

    compare(make, [(X,)] * 3, eager=True)


# -- activations --------------------------------------------------------------------------------


def test_need16_captured_activations_are_results() -> None:
    def make() -> Any:
        dg.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        seen = nn.capture(model, ["0", "1"])

        def f(x: Any) -> Any:
            out, activations = seen(x)
            (out.sum() + activations["1"].sum()).backward()
            return out.detach(), {k: v.detach() for k, v in activations.items()}

        return f, [*model.parameters()]

    compare(make, [(dg.ones(3, 4),)] * 3, traces=2)


def test_need16_capture_ends() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    seen = nn.capture(model, ["1"])
    assert list(seen(dg.ones(1, 4))[1]) == ["1"]
    seen.remove()
    assert seen(dg.ones(1, 4))[1] == {}
    with pytest.raises(ArgumentError, match="there is no module '7'"):
        nn.capture(model, ["7"])


def test_row38_hooks_of_all_modules() -> None:
    """Registered and removed between calls; they see all modules, also those with own hooks."""
    m = model()
    m[0].register_forward_hook(lambda mod, args, out: out * 2)
    f = dg.function(m, strict=True)
    plain = f(X).tolist()
    assert plain == m(X).tolist()
    with nn.register_module_forward_hook(lambda mod, args, out: out + 1):
        changed = f(X).tolist()
        assert changed == m(X).tolist() != plain
        assert f(X * 2).tolist() == m(X * 2).tolist()
        assert f.n_traces == 2
    assert f(X).tolist() == plain
    assert f.n_traces <= 3
