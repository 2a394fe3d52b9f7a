"""`dg.autograd.Function`: gradients that users write, as PyTorch runs them, in both modes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array
from test_autograd_torch import close, dg_leaf, plain, refused

import dualgrad as dg
from dualgrad.runtime.errors import DualgradError, GradientError


def differentiable_functions(T: Any) -> dict[str, Any]:
    """Functions whose outputs have gradients, over PyTorch or dualgrad."""

    class Exp(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (y,) = ctx.saved_tensors
            return g * y

    class Scaled(T.autograd.Function):
        """Two tensors and numbers; two outputs; broadcasting."""

        @staticmethod
        def forward(ctx: Any, x: Any, factor: float, w: Any, name: str) -> Any:
            ctx.save_for_backward(x, w)
            ctx.factor = factor
            return x * factor * w, x + w

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            x, w = ctx.saved_tensors
            gw = None
            if ctx.needs_input_grad[2]:
                gw = (g * x * ctx.factor + h).sum().reshape(w.shape)
            return g * ctx.factor * w + h, None, gw, None

    class Split(T.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return x.sum(), x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            (x,) = ctx.saved_tensors
            out = T.zeros_like(x)
            out = out if g is None else out + g
            return out if h is None else out + h * 2

    return {f.__name__: f for f in (Exp, Scaled, Split)}


def unusual_functions(T: Any) -> dict[str, Any]:
    """Functions that mark outputs, change inputs, refuse or return them."""

    class Largest(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            at = x.argmax(0)
            sign = (x > 0) * 1.0
            ctx.mark_non_differentiable(at, sign)
            ctx.save_for_backward(at)
            return x * 3, at, sign

        @staticmethod
        def backward(ctx: Any, g: Any, *rest: Any) -> Any:
            return g * 3 + rest[1].sum()

    class Doubled(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            x *= 2
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    class Once(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @(T.autograd.function if T is not dg else T.autograd).once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * x * g

    class Same(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return -g

    return {f.__name__: f for f in (Largest, Doubled, Once, Same)}


def functions(T: Any) -> dict[str, Any]:
    """The same functions over PyTorch and dualgrad."""
    return {**differentiable_functions(T), **unusual_functions(T)}


def with_saved_output(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5, -1.0)
    y = of["Exp"].apply(x * 2)
    (g,) = T.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = T.autograd.grad(g.sum(), x, create_graph=True)
    h.sum().backward()
    return [y, g, h, x.grad]


def several_arguments(T: Any, leaf: Any, of: Any) -> Any:
    x, w = leaf(0.5, -1.0), leaf(3.0)
    a, b = of["Scaled"].apply(x, 2.0, w, "name")
    (a * a).sum().backward()
    first = [plain(x.grad), plain(w.grad)]
    a, b = of["Scaled"].apply(x, 2.0, w.detach(), "name")
    (a * b).sum().backward()
    return [a, b, first, x.grad, w.grad]


def context_apart(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5, -1.0)
    a, b = of["Split"].apply(x)
    out = [T.autograd.grad(a, x, retain_graph=True), T.autograd.grad(b.sum(), x, retain_graph=True)]
    return [*out, T.autograd.grad(a * b.sum(), x)]


def outputs_without_gradient(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5, -1.0, 2.0)
    y, at, sign = of["Largest"].apply(x)
    flags = [y.requires_grad, at.requires_grad, sign.requires_grad]
    (y * sign).sum().backward()
    return [y, sign, flags, x.grad]


def in_place(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5, -1.0)
    y = x * 3
    z = of["Doubled"].apply(y)
    same = z is y
    (y * y).sum().backward()
    return [y, same, x.grad, refused(lambda: of["Doubled"].apply(leaf(1.0)))]


def no_second_derivative(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5, -1.0)
    (of["Once"].apply(x) * 2).sum().backward()
    z = of["Once"].apply(x) ** 2
    (g,) = T.autograd.grad(z.sum(), x, create_graph=True)
    return [x.grad, g, refused(lambda: T.autograd.grad(g.sum(), x))]


def the_input_returned(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5, -1.0)
    y = of["Same"].apply(x)
    (y * x).sum().backward()
    return [y is x, y.is_leaf, x.is_leaf, x.grad]


def not_recorded(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5)
    with T.no_grad():
        flags = [of["Exp"].apply(x).requires_grad]
    return [*flags, of["Exp"].apply(x.detach()).requires_grad, of["Exp"].apply(x).requires_grad]


def freed_and_kept(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5)
    y = of["Exp"].apply(x)
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    return [x.grad, refused(lambda: y.sum().backward())]


def changed_after_it_was_saved(T: Any, leaf: Any, of: Any) -> Any:
    x = leaf(0.5)
    y = of["Exp"].apply(x)
    with T.no_grad():
        y += 1
    return [refused(lambda: y.sum().backward())]


SCENARIOS = [
    with_saved_output, several_arguments, context_apart, outputs_without_gradient, in_place,
    no_second_derivative, the_input_returned, not_recorded, freed_and_kept,
    changed_after_it_was_saved,
]  # fmt: skip
by_name = pytest.mark.parametrize("run", SCENARIOS, ids=lambda f: f.__name__)


@by_name
def test_as_in_torch(run: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")

    def torch_leaf(*values: float) -> Any:
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    want = plain(run(torch, torch_leaf, functions(torch)))
    close(plain(run(dg, dg_leaf, functions(dg))), want)


# -- compiled -------------------------------------------------------------------------------------


def losses(of: Any) -> list[Callable[..., Any]]:
    return [
        lambda x, w: of["Exp"].apply(x * w).sum(),
        lambda x, w: (of["Scaled"].apply(x, 2.0, w.sum(), "a")[0] * w).sum(),
        lambda x, w: of["Split"].apply(x * w)[0] * 2,
        lambda x, w: (of["Largest"].apply(x * w)[0] * w).sum(),
        lambda x, w: (of["Doubled"].apply(x * w) * w).sum(),
        lambda x, w: (of["Same"].apply(x) * x * w).sum(),
        lambda x, w: of["Once"].apply(x + w).sum(),
    ]


@pytest.mark.parametrize("k", range(7))
def test_backward_inside_of_a_compiled_function(k: int) -> None:
    loss = losses(functions(dg))[k]

    def step(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        out = loss(x, w)
        out.backward()
        return out.detach()

    compiled = dg.function(step, strict=True)
    results = []
    for f in (step, compiled):
        x, w = dg_leaf(0.5, -1.0, 2.0), dg_leaf(1.0, 2.0, 3.0)
        values = [f(x, w) for _ in range(3)]
        results.append([as_array(t).tobytes() for t in (*values, x.grad, w.grad)])
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore:@function f runs eagerly. a gradient of the user's own")
@pytest.mark.parametrize("k", range(7))
def test_backward_through_a_compiled_function(k: int) -> None:
    loss = losses(functions(dg))[k]

    def f(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        return loss(x.tanh(), w) * 2

    results = []
    for g in (f, dg.function(f)):
        x, w = dg_leaf(0.5, -1.0, 2.0), dg_leaf(1.0, 2.0, 3.0)
        for _ in range(2):
            (g(x, w) * 3).backward()
        results.append([as_array(t).tobytes() for t in (x.grad, w.grad)])
    assert results[0] == results[1]


def test_derivatives_inside_of_a_compiled_function() -> None:
    exp = functions(dg)["Exp"]

    def f(x: dg.Tensor) -> Any:
        (g,) = dg.autograd.grad(exp.apply(x * 2).sum(), x, create_graph=True)
        return g.detach(), dg.autograd.grad((g * g).sum(), x)[0]

    x = dg_leaf(0.5, -1.0)
    want = [np.exp(2 * as_array(x)) * 2, np.exp(4 * as_array(x)) * 16]
    for g in (f, dg.function(f, strict=True)):
        for got, known in zip(g(x), want, strict=True):
            np.testing.assert_allclose(as_array(got), known, rtol=1e-14)


def test_another_gradient_is_noticed() -> None:
    exp = functions(dg)["Exp"]

    def step(x: dg.Tensor) -> None:
        exp.apply(x).sum().backward()

    compiled = dg.function(step, strict=True)
    x = dg_leaf(0.0)
    compiled(x)
    exp.backward = staticmethod(lambda ctx, g: g * 7)
    compiled(x)
    assert plain(x.grad) == [8.0]


# -- what it keeps, and refuses -------------------------------------------------------------------


def test_saved_outputs_make_no_cycle() -> None:
    exp = functions(dg)["Exp"]
    gc.disable()
    try:
        x = dg_leaf(1.0)
        y = exp.apply(x)
        alive = weakref.ref(y), weakref.ref(y.grad_fn)
        del y
        assert alive[0]() is None
        assert alive[1]() is None
    finally:
        gc.enable()


def test_saved_tensors_are_freed_by_backward() -> None:
    class Kept(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: dg.Tensor) -> dg.Tensor:
            inner = x * 2
            seen.append(weakref.ref(inner))
            ctx.save_for_backward(inner)
            return inner * 1

        @staticmethod
        def backward(ctx: Any, g: dg.Tensor) -> dg.Tensor:
            return ctx.saved_tensors[0] * g

    seen: list[Any] = []
    y = Kept.apply(dg_leaf(1.0))
    assert seen[0]() is not None
    y.sum().backward()
    assert seen[0]() is None


def returning(*grads: Any) -> type[dg.autograd.Function]:
    class Wrong(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: dg.Tensor) -> dg.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: dg.Tensor) -> Any:
            return grads if len(grads) != 1 else grads[0]

    return Wrong


@pytest.mark.parametrize(
    ("grads", "text"),
    [
        ((), "another number of gradients"),
        ((dg.ones(2, dtype=dg.float64), dg.ones(2)), "another number of gradients"),
        ((1.0,), "something else than gradients"),
        ((dg.ones(3, dtype=dg.float64),), "does not fit its argument"),
    ],
)
def test_wrong_gradients_are_refused(grads: tuple[Any, ...], text: str) -> None:
    y = returning(*grads).apply(dg_leaf(1.0, 2.0))
    with pytest.raises(DualgradError, match=text):
        y.sum().backward()


def test_gradients_are_fitted_to_arguments() -> None:
    x = dg_leaf(1.0, 2.0)
    returning(dg.ones(3, 2, dtype=dg.float32)).apply(x).sum().backward()
    assert x.grad.dtype is dg.float64
    assert plain(x.grad) == [3.0, 3.0]
    x.grad = None
    returning(None).apply(x).sum().backward()
    assert x.grad is None


def test_only_tensors_are_saved() -> None:
    class Wrong(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: dg.Tensor) -> dg.Tensor:
            ctx.save_for_backward(x, 3)
            return x

    with pytest.raises(TypeError, match="keep other values as attributes"):
        Wrong.apply(dg_leaf(1.0))


def test_view_made_inside_is_not_changed_in_place() -> None:
    class Row(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: dg.Tensor) -> dg.Tensor:
            return x[0]

        @staticmethod
        def backward(ctx: Any, g: dg.Tensor) -> dg.Tensor:
            return dg.stack([g, g])

    x = dg.ones(2, 2, dtype=dg.float64, requires_grad=True)
    row = Row.apply(x * 1)
    row.sum().backward(retain_graph=True)
    assert plain(x.grad) == [[1.0, 1.0], [1.0, 1.0]]
    with pytest.raises(GradientError):
        row *= 2
