"""Gradients as PyTorch users know them: the same programs under both, results and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array

import dualgrad as dg

Leaf = Callable[..., Any]
Log = list[Any]
SCENARIOS: list[Callable[..., Log]] = []


def scenario(f: Callable[..., Log]) -> Callable[..., Log]:
    SCENARIOS.append(f)
    return f


def refused(f: Callable[[], Any]) -> str:
    try:
        f()
    except (RuntimeError, ValueError, TypeError):
        return "refused"
    return "accepted"


def plain(x: Any) -> Any:
    """Results as lists, so that those of both libraries can be compared."""
    if isinstance(x, list | tuple):
        return [plain(e) for e in x]
    return x.detach().numpy().tolist() if hasattr(x, "detach") else x


def close(got: Any, want: Any) -> None:
    if isinstance(want, list):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            close(a, b)
    elif isinstance(want, float):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    else:
        assert got == want


def dg_leaf(*values: float) -> Any:
    return dg.tensor(list(values), dtype=dg.float64, requires_grad=True)


# -- grad -----------------------------------------------------------------------------------------


@scenario
def grad_of_leaves_and_results(T: Any, leaf: Leaf) -> Log:
    x, w = leaf(1.0, 2.0, 3.0), leaf(0.5, -1.0, 2.0)
    y = x * w
    z = (y * y).sum() + y.sum()
    return [T.autograd.grad(z, [x, y, w], retain_graph=True), T.autograd.grad(z, x), x.grad, w.grad]


@scenario
def grad_of_several_outputs_with_weights(T: Any, leaf: Leaf) -> Log:
    x = leaf(1.0, 2.0, 3.0)
    y, z = x * 2, (x * x).sum()
    weights = leaf(1.0, 10.0, 100.0).detach()
    return [
        T.autograd.grad([y, z], [x], grad_outputs=[weights, None]),
        refused(lambda: T.autograd.grad(x * 2, x)),
        refused(lambda: T.autograd.grad([x * 2, x * 3], x, grad_outputs=[weights])),
        refused(lambda: T.autograd.grad((x * 2).sum(), x, grad_outputs=weights)),
    ]


@scenario
def grad_of_the_input_itself(T: Any, leaf: Leaf) -> Log:
    x = leaf(3.0)
    y = x * x
    return [T.autograd.grad(x, x), T.autograd.grad(y, [y, x]), x.grad]


@scenario
def unused_inputs(T: Any, leaf: Leaf) -> Log:
    x, other = leaf(1.0, 2.0), leaf(5.0)
    late = other * 2
    z = (x * x).sum()
    constant = x.detach()
    return [
        refused(lambda: T.autograd.grad(z, [x, other], retain_graph=True)),
        T.autograd.grad(z, [x, other, late], allow_unused=True, retain_graph=True),
        T.autograd.grad(z, [other, x], retain_graph=True, materialize_grads=True),
        refused(lambda: T.autograd.grad(z, constant)),
        refused(lambda: T.autograd.grad(constant.sum(), x)),
    ]


@scenario
def one_input_twice(T: Any, leaf: Leaf) -> Log:
    x = leaf(2.0)
    return [T.autograd.grad(x * x * x, [x, x])]


@scenario
def only_what_is_needed_is_freed(T: Any, leaf: Leaf) -> Log:
    x, w = leaf(2.0, 3.0), leaf(4.0, 5.0)
    a, b = (x * x) * x, (w * w) * w
    z = (a * b).sum()
    first = T.autograd.grad(z, a)
    return [
        first,
        refused(lambda: T.autograd.grad(z, b)),
        T.autograd.grad(a.sum(), x),
        refused(lambda: a.sum().backward()),
        T.autograd.grad(b.sum(), w),
    ]


@scenario
def higher_derivatives(T: Any, leaf: Leaf) -> Log:
    x = leaf(0.5, 1.5)
    y = (x.exp() * x * x).sum()
    out: Log = []
    for _ in range(4):
        (g,) = T.autograd.grad(y, x, create_graph=True)
        out.append(g)
        y = g.sum()
    return [*out, x.grad]


@scenario
def gradient_penalty(T: Any, leaf: Leaf) -> Log:
    x, w = leaf(0.5, 1.5, -1.0), leaf(1.0, 2.0, 3.0)
    score = ((x * w).tanh() * w).sum()
    (g,) = T.autograd.grad(score, x, create_graph=True)
    loss = ((g * g).sum().sqrt() - 1) ** 2 + score
    loss.backward()
    return [x.grad, w.grad]


@scenario
def graph_of_gradients_without_retaining(T: Any, leaf: Leaf) -> Log:
    x = leaf(2.0)
    y = x * x * x
    (g,) = T.autograd.grad(y, x, create_graph=True, retain_graph=False)
    return [g, refused(lambda: T.autograd.grad(y, x)), refused(lambda: T.autograd.grad(g, x))]


@scenario
def gradients_share_no_memory_with_each_other(T: Any, leaf: Leaf) -> Log:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    z = x + w
    z.backward(T.ones_like(z))
    with T.no_grad():
        x.grad *= 10
    return [x.grad, w.grad]


# -- backward -------------------------------------------------------------------------------------


@scenario
def backward_into_some_inputs(T: Any, leaf: Leaf) -> Log:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x * w).sum().backward(inputs=[w])
    first = [x.grad, plain(w.grad)]
    (x * w * w).sum().backward(inputs=w)
    return [first, x.grad, w.grad]


@scenario
def backward_of_several(T: Any, leaf: Leaf) -> Log:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y, z = x * w, (x * x).sum()
    T.autograd.backward([y, z], [T.ones_like(y), None])
    return [x.grad, w.grad, refused(lambda: T.autograd.backward([y, z], [T.ones_like(y), None]))]


@scenario
def accumulation(T: Any, leaf: Leaf) -> Log:
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    for _ in range(3):
        y.backward(retain_graph=True)
    out = [plain(x.grad)]
    y.backward()
    out += [plain(x.grad), refused(lambda: y.backward())]
    x.grad = None
    (x * 3).sum().backward()
    return [*out, x.grad]


@scenario
def accumulation_with_a_graph(T: Any, leaf: Leaf) -> Log:
    x = leaf(1.0, 2.0)
    (x * x * x).sum().backward(create_graph=True)
    (x * x).sum().backward(create_graph=True)
    g = x.grad
    x.grad = None
    (g * g).sum().backward()
    return [g, x.grad]


# -- modes ----------------------------------------------------------------------------------------


@scenario
def grad_mode(T: Any, leaf: Leaf) -> Log:
    x = leaf(1.0)
    out: Log = []

    @T.no_grad()
    def plainly() -> bool:
        return bool((x * 2).requires_grad)

    @T.no_grad
    def bare() -> bool:
        return bool((x * 2).requires_grad)

    @T.no_grad()
    def steps() -> Any:
        yield T.is_grad_enabled()
        with T.enable_grad():
            yield (x * 2).requires_grad
        yield T.is_grad_enabled()

    @T.set_grad_enabled(False)
    def off() -> bool:
        return bool((x * 2).requires_grad)

    out += [plainly(), bare(), off(), T.is_grad_enabled()]
    out += [(a, T.is_grad_enabled()) for a in steps()]
    T.set_grad_enabled(False)
    out.append(T.is_grad_enabled())
    with T.set_grad_enabled(True):
        out.append(T.is_grad_enabled())
        with T.set_grad_enabled(False):
            out.append(T.is_grad_enabled())
        out.append(T.is_grad_enabled())
    out.append(T.is_grad_enabled())
    T.set_grad_enabled(True)
    return out


# -- hooks ----------------------------------------------------------------------------------------


@scenario
def order_of_hooks(T: Any, leaf: Leaf) -> Log:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    out: Log = []

    def note(name: str) -> Callable[[Any], None]:
        return lambda g: out.append((name, plain(g)))

    x.register_hook(note("x"))
    w.register_hook(note("w"))
    x.register_post_accumulate_grad_hook(lambda t: out.append(("x done", plain(t.grad))))
    w.register_post_accumulate_grad_hook(lambda t: out.append(("w done", plain(t.grad))))
    y = x * w
    y.register_hook(note("y"))
    z = y * w
    z.register_hook(lambda g: g * 10)
    z.register_hook(note("z"))
    z.sum().backward()
    return out


@scenario
def hooks_and_grad(T: Any, leaf: Leaf) -> Log:
    x = leaf(1.0, 2.0)
    out: Log = []
    x.register_hook(lambda g: g * 2)
    x.register_post_accumulate_grad_hook(lambda t: out.append("done"))
    y = x * x
    y.register_hook(lambda g: g + 1)
    z = (y * y).sum()
    out.append(T.autograd.grad(z, [x], retain_graph=True))
    out.append(T.autograd.grad(z, [y], retain_graph=True))
    z.backward(inputs=[x])
    return [*out, x.grad]


@scenario
def gradient_dropped_as_soon_as_it_is_complete(T: Any, leaf: Leaf) -> Log:
    xs = [leaf(float(k)) for k in range(4)]
    out: Log = []

    def use(t: Any) -> None:
        out.append((plain(t.grad), [x.grad is None for x in xs]))
        with T.no_grad():
            t -= t.grad
        t.grad = None

    for x in xs:
        x.register_post_accumulate_grad_hook(use)
    y = xs[0] * 1.0
    for x in xs[1:]:
        y = y * x + x
    y.sum().backward()
    return [*out, xs]


@scenario
def hooks_after_accumulation_are_for_leaves(T: Any, leaf: Leaf) -> Log:
    x = leaf(1.0)
    return [
        refused(lambda: (x * 2).register_post_accumulate_grad_hook(print)),
        refused(lambda: x.detach().register_post_accumulate_grad_hook(print)),
    ]


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")
@pytest.mark.parametrize("run", SCENARIOS, ids=lambda f: f.__name__)
def test_as_in_torch(run: Callable[..., Log]) -> None:
    torch = pytest.importorskip("torch")

    def torch_leaf(*values: float) -> Any:
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    close(plain(run(dg, dg_leaf)), plain(run(torch, torch_leaf)))


# -- inside of compiled functions -----------------------------------------------------------------


def penalty(x: dg.Tensor, w: dg.Tensor) -> Any:
    y = (x * w).tanh()
    score = (y * w).sum()
    g, gy = dg.autograd.grad(score, [x, y], create_graph=True)
    (h,) = dg.autograd.grad((g * g).sum(), w, retain_graph=True)
    ((g * g).sum() + score).backward(inputs=[w])
    return g.detach(), gy.detach(), h.detach()


def test_compiled_grad_has_the_bits_of_eager_mode() -> None:
    results = []
    for f in (penalty, dg.function(penalty, strict=True)):
        x, w = dg_leaf(0.5, 1.5, -1.0), dg_leaf(1.0, 2.0, 3.0)
        for _ in range(2):
            out = f(x, w)
        results.append([as_array(t).tobytes() for t in (*out, w.grad)])
        assert x.grad is None
    assert results[0] == results[1]


def chain(x: dg.Tensor, w: dg.Tensor) -> Any:
    a = x * w
    b = a.tanh() * w
    return a, b, (a * b).sum()


def test_grad_through_a_compiled_function() -> None:
    """Among its results are the inputs of `grad`; only the steps between are visited."""
    results = []
    for f in (chain, dg.function(chain, strict=True)):
        x, w = dg_leaf(0.5, 1.5, -1.0), dg_leaf(1.0, 2.0, 3.0)
        a, b, z = f(x, w)
        log: Log = [dg.autograd.grad(z, [a, b, w], retain_graph=True)]
        (g,) = dg.autograd.grad(z, a, create_graph=True)
        log.append(dg.autograd.grad((g * g).sum(), [x, b], retain_graph=True))
        log.append(dg.autograd.grad(z, b))
        log.append(refused(lambda z=z, a=a: dg.autograd.grad(z, a)))
        log.append(dg.autograd.grad(b.sum(), [x, w], retain_graph=True))
        a, b, z = f(x, w)
        z.backward(inputs=[w])
        log += [w.grad, x.grad is None]
        results.append(log)
    close(plain(results[1]), plain(results[0]))


def test_hooks_after_accumulation_in_compiled_functions() -> None:
    def step(x: dg.Tensor, w: dg.Tensor) -> Any:
        (x * w + w).sum().backward()

    results = []
    for f in (step, dg.function(step, strict=True)):
        x, w = dg_leaf(0.5, 1.5), dg_leaf(1.0, 2.0)
        x.register_post_accumulate_grad_hook(lambda t: t.grad.mul_(2.0))
        for _ in range(2):
            f(x, w)
        results.append([x.grad, w.grad])
        handle = w.register_post_accumulate_grad_hook(lambda t: t.grad.mul_(3.0))
        f(x, w)
        handle.remove()
        f(x, w)
        results[-1] += [x.grad, w.grad]
    close(plain(results[1]), plain(results[0]))


def test_switched_for_good_inside() -> None:
    def f(x: dg.Tensor) -> Any:
        dg.set_grad_enabled(False)
        return x * 2

    compiled = dg.function(f)
    x = dg_leaf(1.0)
    try:
        with pytest.warns(dg.EagerFallback, match="set_grad_enabled"):
            y = compiled(x)
        assert not y.requires_grad
        assert not dg.is_grad_enabled()
    finally:
        dg.set_grad_enabled(True)


def test_shared_part_is_freed_whatever_it_saves() -> None:
    """PyTorch lets a freed node pass if it saved nothing; here each backward needs its graph."""
    x = dg_leaf(1.0, 2.0)
    y = x + 1
    a, b = y * 2, y * y
    a.sum().backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        b.sum().backward()


def test_asked_for_behind_a_hook_is_what_the_hook_returns() -> None:
    """With one input or several, where PyTorch's answer differs between the two."""
    x = dg_leaf(1.0, 2.0)
    y = x * x
    y.register_hook(lambda g: g + 1)
    z = (y * y).sum()
    (alone,) = dg.autograd.grad(z, [y], retain_graph=True)
    _, beside = dg.autograd.grad(z, [x, y])
    assert plain(alone) == plain(beside) == [3.0, 9.0]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda x, z: dg.autograd.grad(z, []), "inputs are tensors"),
        (lambda x, z: dg.autograd.grad(z, 3), "inputs are tensors"),
        (lambda x, z: dg.autograd.grad([z, None], x), "outputs are tensors"),
        (lambda x, z: dg.autograd.grad(z, x, grad_outputs=[1.0]), "weight of an output"),
        (lambda x, z: dg.autograd.grad(z, x, grad_outputs=[None, None]), "not one weight"),
        (lambda x, z: z.backward(inputs=[x.detach()]), r"inputs\[0\] is f64\[2\]"),
        (lambda x, z: dg.autograd.grad(z, dg_leaf(1.0)), "allow_unused=True"),
    ],
)
def test_what_is_wrong_is_said(wrong: Callable[[Any, Any], Any], text: str) -> None:
    x = dg_leaf(1.0, 2.0)
    with pytest.raises((ValueError, RuntimeError), match=text):
        wrong(x, (x * x).sum())
