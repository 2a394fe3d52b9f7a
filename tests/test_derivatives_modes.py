"""Transforms inside, around and behind compiled functions; and against JAX, where it is."""

from __future__ import annotations

import gc
import importlib.util
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support import as_array, same_bits, tensors_in

import dualgrad as dg
from dualgrad import EagerFallback, RetraceWarning, nn, optim


@pytest.fixture(autouse=True)
def _compiled() -> Iterator[None]:
    """A call that runs eagerly is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RetraceWarning)
        warnings.simplefilter("error", EagerFallback)
        yield


def drawn(*shape: int, seed: int = 0) -> dg.Tensor:
    return dg.tensor(np.random.default_rng(seed).standard_normal(shape))


def same(got: Any, want: Any) -> None:
    first, second = tensors_in(got), tensors_in(want)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        same_bits(a, b)
        assert a.requires_grad == b.requires_grad


# -- compiled functions ---------------------------------------------------------------------------


def wavy(x: Any) -> Any:
    return dg.sin(x) * x.sum()


TRANSFORMS: list[Callable[[Any], Any]] = [
    dg.value_and_grad(lambda x: wavy(x).square().mean()),
    lambda x: dg.jvp(wavy, (x,), (x * 2.0,)),
    lambda x: dg.vjp(wavy, x)[1](dg.ones_like(x)),
    lambda x: dg.hvp(lambda x: wavy(x).sum(), (x,), (x,)),
]


@pytest.mark.parametrize("number", range(len(TRANSFORMS)))
def test_one_program_for_all_sizes(number: int) -> None:
    f = TRANSFORMS[number]
    compiled = dg.function(f, strict=True)
    for n in (4, 5, 6, 9):
        same(compiled(drawn(n)), f(drawn(n)))
    assert compiled.n_traces == 2


def test_jacobians_of_several_sizes() -> None:
    f = dg.jacobian(wavy)
    compiled = dg.function(f, strict=True)
    for n in (3, 4, 3, 5):
        same(compiled(drawn(n)), f(drawn(n)))
    assert compiled.n_traces == 2


def test_state_of_callable_objects_is_read_anew() -> None:
    class Model:
        def __init__(self) -> None:
            self.w, self.scale = drawn(3), 2.0

        def __call__(self, x: Any) -> Any:
            return (self.w * x).sum() * self.scale

    model, x = Model(), drawn(3, seed=1)
    plain = dg.grad(model)
    compiled = dg.function(plain, strict=True)
    for _ in range(3):
        same(compiled(x), plain(x))
        model.scale += 0.5
        same(compiled(x), plain(x))
        model.w = drawn(3, seed=2)
    assert compiled.n_traces == 2


def test_training_a_module() -> None:
    def run(decorate: Callable[[Any], Any]) -> tuple[list[float], list[dg.Tensor]]:
        dg.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def loss(model: Any, x: Any) -> Any:
            return (model(x) - x[:, :1]).square().mean()

        @decorate  # type: ignore[untyped-decorator]
        def step(x: Any) -> Any:
            with dg.no_grad():
                value, grads = dg.value_and_grad(loss)(model, x)
            for name, p in model.named_parameters():
                p.grad = grads[name]
            optimizer.step()
            return value

        x = drawn(6, 3).astype(dg.float32)
        return [float(step(x)) for _ in range(4)], list(model.parameters())

    (eager, first), (static, second) = run(lambda f: f), run(lambda f: dg.function(f, strict=True))
    assert eager == static
    assert eager[-1] < eager[0]
    same(second, first)


def test_results_of_compiled_functions_stay_connected() -> None:
    w, x = drawn(3).requires_grad_(), drawn(3, seed=1)
    functions: list[Callable[[Any], Any]] = [
        dg.value_and_grad(lambda x: (x * w * x).sum()),
        lambda x: dg.jvp(lambda x: x * w * x, (x,), (x,)),
        lambda x: dg.vjp(lambda x: x * w * x, x)[1](dg.ones(3, dtype=dg.float64)),
    ]
    for f in functions:
        found = []
        for run in (f, dg.function(f, strict=True)):
            xs = x.detach().requires_grad_()
            w.grad = None
            sum(t.square().sum() for t in tensors_in(run(x))).backward()
            sum(t.square().sum() for t in tensors_in(run(xs))).backward()
            found.append((w.grad, xs.grad))
        same(found[1], found[0])


def test_a_pullback_leaves_a_compiled_function() -> None:
    f = dg.function(lambda x: dg.vjp(lambda x: x * x, x))
    for n in range(3):
        x = drawn(3, seed=n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EagerFallback)
            value, back = f(x)
        same(value, x * x)
        same(back(x)[0], 2.0 * x * x)


def test_transforms_under_modes_of_their_own() -> None:
    x = drawn(3)

    @dg.function(strict=True)
    def f(x: Any) -> Any:
        with dg.no_grad():
            inside = dg.grad(lambda x: (x * x).sum())(x)
            with dg.enable_grad():
                y = dg.grad(lambda x: (x.detach() * x).sum())(x)
        return inside, y

    same(f(x), (2.0 * x, x))


WEIGHTS = dg.tensor([0.5, -1.0, 2.0])
KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "grad": lambda f, x: dg.grad(f)(x),
    "grad, connected": lambda f, x: dg.grad(lambda y: f(y * WEIGHTS.requires_grad_()))(x),
    "vjp": lambda f, x: dg.vjp(f, x)[1](dg.tensor(1.0)),
    "jvp": lambda f, x: dg.jvp(f, (x,), (x,)),
    "jacobian": lambda f, x: dg.jacobian(f)(x),
    "hessian": lambda f, x: dg.hessian(f)(x),
    "hvp": lambda f, x: dg.hvp(f, (x,), (x,)),
    "vmap": lambda f, x: dg.vmap(dg.hessian(f))(dg.stack([x, x])),
    "compiled": lambda f, x: dg.function(dg.grad(f))(x),
    "checkpoint": lambda f, x: dg.grad(lambda y: dg.checkpoint(f, y))(x),
}


@pytest.mark.parametrize("name", KINDS)
def test_memory_is_free_when_a_transform_is_done(name: str) -> None:
    """At once, and not only when the garbage is collected."""
    made: list[weakref.ref[dg.Tensor]] = []

    def f(x: Any) -> Any:
        y = x * 2
        made.append(weakref.ref(y))
        return (y * y).sin().sum()

    gc.collect()
    gc.disable()
    try:
        found = KINDS[name](f, dg.tensor([0.1, 0.2, 0.3]))
        del found
        assert made
        assert [ref() for ref in made] == [None] * len(made)
    finally:
        gc.enable()


def test_transforms_of_several_functions_share_no_programs() -> None:
    x = drawn(3)
    functions: list[Any] = [lambda x: (x * 2.0).sum(), lambda x: (x * x).sum(), lambda x: x.mean()]
    compiled = [dg.function(dg.grad(f), strict=True) for f in functions]
    for _ in range(2):
        for f, c in zip(functions, compiled, strict=True):
            same(c(x), dg.grad(f)(x))
    assert [c.n_traces for c in compiled] == [1, 1, 1]
    for _ in range(3):  # but one function that is decorated again and again does
        again = dg.function(dg.grad(lambda x: (x * 3.0).sum()), strict=True)
        again(x)
        compiled.append(again)
    assert again.n_traces == 1
    assert f"{__file__.rpartition('/')[2]}:" in repr(again)


def test_jacobians_in_one_go_or_one_by_one() -> None:
    x, seen = drawn(4), []
    once = dg.jacobian(lambda x: dg.cumsum(dg.sin(x) * x.sum()))(x)

    def hooked(x: Any) -> Any:
        y = dg.sin(x) * x.sum()
        y.register_hook(lambda g: seen.append(g.shape))
        return dg.cumsum(y)

    same(dg.jacobian(hooked)(x), once)
    assert seen == [(4,)] * 4
    same(dg.jacobian(dg.function(lambda x: dg.cumsum(dg.sin(x) * x.sum())))(x), once)
    per_sample = dg.vmap(dg.jacobian(lambda x: dg.cumsum(dg.sin(x) * x.sum())))
    rows = dg.stack([x, x * 2.0])
    same(per_sample(rows)[0], once)
    same(dg.function(per_sample, strict=True)(rows), per_sample(rows))
    product = dg.jvp(dg.vmap(lambda x: dg.sin(x) * x.sum()), (rows,), (rows,))[1]
    single = dg.jvp(lambda x: dg.sin(x) * x.sum(), (x,), (x,))[1]
    same(product[0], single)


def test_tall_jacobians_are_built_by_columns() -> None:
    w, at = drawn(40, 3).requires_grad_(), drawn(3, seed=1)

    def curve(x: Any) -> Any:
        return {"fit": dg.exp(-dg.abs(w.detach() @ x)) * x[0], "sum": x.sum(), "n": 3}

    fit, total = dg.jacobian(lambda x: curve(x)["fit"])(at), dg.jacobian(curve)(at)["sum"]
    columns = [
        dg.jvp(lambda x: curve(x)["fit"], (at,), (dg.eye(3, dtype=dg.float64)[k],))[1]
        for k in range(3)
    ]
    same(fit, dg.stack(columns, axis=1))
    same(total, dg.ones(3, dtype=dg.float64))
    for f in (curve, dg.function(curve)):
        found = dg.jacobian(f)(at)
        same(found["fit"], fit)
        assert found["n"] is None
    compiled = dg.function(dg.jacobian(curve), strict=True)
    same(compiled(at)["fit"], fit)

    def far(x: Any) -> Any:
        return dg.sin(w @ x)

    for f in (dg.jacobian(far), dg.function(dg.jacobian(far), strict=True)):
        w.grad = None
        f(at).square().sum().backward()
        by_hand = dg.cos(w @ at)[:, None] * w
        (want,) = dg.autograd.grad(by_hand.square().sum(), w)
        np.testing.assert_allclose(as_array(w.grad), as_array(want), rtol=1e-12, atol=1e-13)
    second = dg.hessian(far)(at)
    product = as_array(-dg.sin(w @ at))[:, None, None] * np.einsum(
        "ij,ik->ijk", as_array(w), as_array(w)
    )
    np.testing.assert_allclose(as_array(second), product, rtol=1e-12, atol=1e-13)


# -- another library ------------------------------------------------------------------------------


def _network(xp: Any, p: Any, x: Any) -> Any:
    h = xp.tanh(x @ p["w"][0] + p["b"])
    return xp.exp(-xp.square(h @ p["w"][1])).sum() / (1.0 + p["scale"] * p["scale"])


def _curve(xp: Any, p: Any, x: Any) -> Any:
    y = xp.sin(x[0, 0] * p["b"] + x[:, 1].sum()) * xp.where(p["b"] > 0.0, p["b"], p["b"] * p["b"])
    return xp.log1p(y * y) * xp.cumsum(p["b"]) + p["scale"] * xp.linalg.norm(p["w"][1])


def _drawn(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    p = {
        "w": (rng.standard_normal((2, 4)), rng.standard_normal((4, 3))),
        "b": rng.standard_normal(4),
        "scale": np.asarray(rng.standard_normal()),
    }
    return p, rng.standard_normal((5, 2))


def _each(f: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _each(f, v) for k, v in x.items()}
    return tuple(_each(f, v) for v in x) if isinstance(x, tuple) else f(x)


def _arrays(x: Any) -> list[Any]:
    if isinstance(x, dict):
        return [a for k in sorted(x) for a in _arrays(x[k])]
    return [a for v in x for a in _arrays(v)] if isinstance(x, tuple | list) else [as_array(x)]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
@pytest.mark.parametrize("function", [_network, _curve])
def test_against_jax(function: Any) -> None:
    import jax
    import jax.numpy as jnp

    p, x = _drawn(7)
    q, z = _drawn(8)
    scalar = function is _network

    def of(xp: Any, library: Any, array: Callable[[Any], Any]) -> Any:
        def f(p: Any, x: Any) -> Any:
            return function(xp, p, x)

        def total(p: Any, x: Any) -> Any:
            return f(p, x).sum()

        args, tangents = (_each(array, p), array(x)), (_each(array, q), array(z))
        value, back = library.vjp(f, *args)
        hvp = library.jvp(library.grad(total, argnums=(0, 1)), args, tangents)[1]
        jacobian = library.grad(f) if scalar else getattr(library, "jacrev", dg.jacobian)(f)
        return [
            value,
            back(value),
            library.value_and_grad(total, argnums=(1, 0))(*args),
            library.jvp(f, args, tangents),
            hvp,
            jacobian(*args),
            library.hessian(total, argnums=1)(*args),
            library.grad(lambda x: library.jvp(lambda p: f(p, x), args[:1], tangents[:1])[1].sum())(
                args[1]
            ),
        ]

    with jax.enable_x64(True):
        want = [np.asarray(a) for a in _arrays(of(jnp, jax, jnp.asarray))]
    got = _arrays(of(dg, dg, dg.tensor))
    assert len(got) == len(want) > 20
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    args, tangents = (_each(dg.tensor, p), dg.tensor(x)), (_each(dg.tensor, q), dg.tensor(z))
    reverse = dg.hvp(lambda p, x: function(dg, p, x).sum(), args, tangents)
    forward = dg.jvp(dg.grad(lambda p, x: function(dg, p, x).sum(), (0, 1)), args, tangents)[1]
    for a, b in zip(_arrays(reverse), _arrays(forward), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
