"""grad, value_and_grad, vjp, jvp, hvp, jacobian, hessian: values, structure, composition, modes."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import as_array, both, same_bits, tensors_in

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import (
    ArgumentError,
    DTypeError,
    GradientError,
    OperandError,
    ShapeError,
)


def f64(*values: Any) -> dg.Tensor:
    return dg.tensor(values[0] if len(values) == 1 else list(values), dtype=dg.float64)


def close(got: Any, want: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(as_array(got), np.asarray(want), rtol=tolerance, atol=tolerance)


def in_both(function: Callable[..., Any], make: Callable[[], tuple[Any, ...]]) -> Any:
    """What a function gives in eager mode, after a comparison with what it gives compiled."""
    eager, static = both(function, make)
    first, second = tensors_in(eager), tensors_in(static)
    assert len(first) == len(second) > 0
    for e, s in zip(first, second, strict=True):
        same_bits(s, e)
        assert s.requires_grad == e.requires_grad
    return eager


def cubes(x: Any) -> Any:
    return (x * x * x).sum()


POINT = (0.5, -1.25, 2.0)


def point() -> tuple[dg.Tensor]:
    return (f64(*POINT),)


# -- what is computed -----------------------------------------------------------------------------


def test_gradient() -> None:
    close(in_both(dg.grad(cubes), point), [3 * v * v for v in POINT])


def test_value_and_gradient() -> None:
    value, g = in_both(dg.value_and_grad(cubes), point)
    close(value, sum(v**3 for v in POINT))
    close(g, [3 * v * v for v in POINT])


def test_products_with_a_jacobian() -> None:
    a = np.arange(6.0).reshape(2, 3) - 2.5

    def f(x: Any) -> Any:
        return dg.sin(dg.tensor(a.tolist(), dtype=dg.float64) @ x)

    x, t, c = np.array(POINT), np.array([1.0, 0.5, -2.0]), np.array([3.0, -1.0])
    matrix = np.cos(a @ x)[:, None] * a

    def pushed(x: Any, t: Any) -> Any:
        return dg.jvp(f, (x,), (t,))

    def pulled(x: Any, c: Any) -> Any:
        value, back = dg.vjp(f, x)
        return value, back(c), back(2.0 * c)

    value, tangent = in_both(pushed, lambda: (f64(x), f64(t)))
    close(value, np.sin(a @ x))
    close(tangent, matrix @ t)
    value, (once,), (twice,) = in_both(pulled, lambda: (f64(x), f64(c)))
    close(once, c @ matrix)
    close(twice, 2 * c @ matrix)


def test_jacobian_and_hessian() -> None:
    def f(x: Any) -> Any:
        return dg.stack([x[0] * x[1], x[1] * x[2] * x[2]])

    a, b, c = POINT
    close(in_both(dg.jacobian(f), point), [[b, a, 0], [0, c * c, 2 * b * c]])
    second = in_both(dg.hessian(lambda x: f(x).sum()), point)
    close(second, [[0, 1, 0], [1, 0, 2 * c], [0, 2 * c, 2 * b]])
    product = in_both(lambda x: dg.hvp(lambda x: f(x).sum(), (x,), (x * 2.0,)), point)
    close(product, as_array(second) @ (2 * np.array(POINT)))


def test_shapes_of_jacobians() -> None:
    x, y = dg.ones(2, 3), dg.ones(3, 4)
    found = dg.jacobian(lambda x, y: {"product": x @ y, "sum": x.sum()}, argnums=(0, 1))(x, y)
    assert [t.shape for t in found["product"]] == [(2, 4, 2, 3), (2, 4, 3, 4)]
    assert [t.shape for t in found["sum"]] == [(2, 3), (3, 4)]
    assert dg.jacobian(lambda x: x[:0])(x).shape == (0, 3, 2, 3)
    blocks = dg.hessian(lambda x, y: (x @ y).sum(), argnums=(0, 1))(x, y)
    assert [[t.shape for t in row] for row in blocks] == [
        [(2, 3, 2, 3), (2, 3, 3, 4)],
        [(3, 4, 2, 3), (3, 4, 3, 4)],
    ]


def test_what_does_not_depend_on_the_argument_has_zeros() -> None:
    x = f64(1.0, 2.0)
    close(dg.grad(lambda x: dg.tensor(3.0))(x), [0, 0])
    close(dg.grad(lambda x: x.detach().sum())(x), [0, 0])
    close(dg.jacobian(lambda x: dg.ones(2))(x), np.zeros((2, 2)))
    close(dg.jvp(lambda x: dg.ones(3), (x,), (x,))[1], np.zeros(3))


def test_numbers_are_arguments_as_well() -> None:
    close(dg.grad(lambda x: x * x)(3.0), 6.0)
    close(dg.jvp(lambda x, y: x * y, (3.0, 2.0), (1.0, 0.5))[1], 2.0 + 1.5)
    close(dg.grad(lambda x, n: (x**n).sum(), argnums=0)(f64(2.0), 3), 12.0)


# -- structure ------------------------------------------------------------------------------------


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass(frozen=True)
class Layer:
    weight: Any
    bias: Any
    name: str = "layer"


@dataclasses.dataclass
class Slotted:
    __slots__ = ("scale",)
    scale: Any


def parameters() -> Any:
    return {
        "layers": [
            Layer(dg.tensor([[1.0, 2.0], [0.5, -1.0]]), dg.tensor([0.1, 0.2])),
            Layer(dg.tensor([[0.3, 0.1], [1.0, 2.0]]), dg.tensor([0.0, 1.0]), "last"),
        ],
        "pair": Pair(dg.tensor(2.0), (dg.tensor([1.0, 3.0]), None)),
        "ordered": OrderedDict(z=dg.tensor(1.5), y=dg.tensor(0.5)),
        "rates": defaultdict(float, {"lr": 0.25}),
        "slotted": Slotted(dg.tensor(0.7)),
        "step": 3,
        "kind": "mlp",
        "count": dg.tensor([1, 2]),
    }


def loss(p: Any, x: Any) -> Any:
    for layer in p["layers"]:
        x = dg.tanh(x @ layer.weight + layer.bias)
    y = (x * p["pair"].b[0]).sum() * p["pair"].a ** p["step"]
    y = y * p["ordered"]["z"] + p["ordered"]["y"] ** 2 + p["count"].sum()
    return y * p["rates"]["lr"] + p["slotted"].scale ** 2


def leaves_of(p: Any) -> list[dg.Tensor]:
    first, last = p["layers"]
    return [
        first.weight, first.bias, last.weight, last.bias, p["pair"].a, p["pair"].b[0],
        p["ordered"]["z"], p["ordered"]["y"], p["rates"]["lr"], p["slotted"].scale,
    ]  # fmt: skip


def test_nested_containers() -> None:
    p, x = parameters(), dg.tensor([[1.0, -2.0], [0.3, 0.4], [2.0, 1.0]])
    g = dg.grad(loss)(p, x)
    assert [type(part) for part in g.values()] == [type(v) for v in p.values()][:-3] + [
        type(None)
    ] * 3
    assert type(g["layers"][0]) is Layer
    assert (g["layers"][1].name, type(g["pair"].b), g["pair"].b[1]) == (None, tuple, None)
    assert list(g["ordered"]) == ["z", "y"]
    wanted = parameters()
    for t in leaves_of(wanted):
        if isinstance(t, dg.Tensor):
            t.requires_grad_()
    rate = wanted["rates"]["lr"] = dg.tensor(0.25, requires_grad=True)
    loss(wanted, x).backward()
    assert rate.grad is not None
    for got, leaf in zip(leaves_of(g), leaves_of(wanted), strict=True):
        assert not got.requires_grad
        same_bits(got, leaf.grad)
    assert all(t.grad is None for t in tensors_in(p))


def test_nested_containers_compiled() -> None:
    x = dg.tensor([[1.0, -2.0], [0.3, 0.4], [2.0, 1.0]])
    in_both(lambda p, x: leaves_of(dg.grad(loss)(p, x)), lambda: (parameters(), x))
    compiled = dg.function(dg.grad(loss), strict=True)
    for got, want in zip(
        leaves_of(compiled(parameters(), x)), leaves_of(dg.grad(loss)(parameters(), x)), strict=True
    ):
        same_bits(got, want)


def test_products_of_containers() -> None:
    def f(p: Any, y: Any) -> Any:
        return {"out": [p["w"] * y, p["w"].sum()], "n": 3}

    w, y = f64(1.0, 2.0), f64(3.0, 4.0)
    value, tangent = dg.jvp(f, ({"w": w}, y), ({"w": f64(1.0, 0.0)}, None))
    close(value["out"][0], [3, 8])
    close(tangent["out"][0], [3, 0])
    close(tangent["out"][1], 1)
    assert tangent["n"] is None
    _, back = dg.vjp(f, {"w": w}, y)
    gw, gy = back({"out": [f64(1.0, 1.0), None], "n": None})
    close(gw["w"], [3, 4])
    close(gy, [1, 2])


def test_several_arguments() -> None:
    def f(x: Any, y: Any, *, k: float) -> Any:
        return (x * y * y).sum() * k

    x, y = f64(1.0, 2.0), f64(3.0, 4.0)
    close(dg.grad(f, 1)(x, y, k=2.0), [12, 32])
    close(dg.grad(f, -1)(x, y, k=2.0), [12, 32])
    gy, gx = dg.grad(f, argnums=[1, 0])(x, y, k=1.0)
    close(gx, [9, 16])
    close(gy, [6, 16])
    mixed = dg.hessian(f, argnums=(0, 1))(x, y, k=1.0)
    close(mixed[0][1], np.diag([6, 8]))
    close(mixed[1][0], np.diag([6, 8]))
    products = dg.hvp(lambda x, y: f(x, y, k=1.0), (x, y), (None, f64(1.0, 1.0)))
    close(products[0], [6, 8])
    close(products[1], [2, 4])


def test_something_beside_the_value() -> None:
    def f(x: Any) -> Any:
        y = x * x
        return y.sum(), {"squares": y, "note": "kept"}

    x = f64(1.0, 3.0)
    g, aux = dg.grad(f, has_aux=True)(x)
    close(g, [2, 6])
    assert aux["note"] == "kept"
    assert not aux["squares"].requires_grad
    (value, aux), g = dg.value_and_grad(f, has_aux=True)(x)
    close(value, 10)
    close(aux["squares"], [1, 9])
    value, back, aux = dg.vjp(f, x, has_aux=True)
    close(back(2.0)[0], [4, 12])
    value, tangent, aux = dg.jvp(f, (x,), (x,), has_aux=True)
    close(tangent, 20)
    second, aux = dg.hessian(f, has_aux=True)(x)
    close(second, 2 * np.eye(2))
    close(aux["squares"], [1, 9])


def test_modules() -> None:
    dg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    model[0].bias.requires_grad_(False)
    x = dg.randn(5, 3)

    def loss(model: Any, x: Any) -> Any:
        return model(x).square().mean()

    with dg.no_grad():
        value, g = dg.value_and_grad(loss)(model, x)
    assert list(g) == ["0.weight", "2.weight", "2.bias"]
    assert not any(t.requires_grad for t in g.values())
    assert not value.requires_grad
    loss(model, x).backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            same_bits(g[name], p.grad)
    connected = dg.grad(loss)(model, x)
    penalty = sum(t.square().sum() for t in connected.values())
    model.zero_grad()
    penalty.backward()
    eps, w = 1e-2, model[2].weight
    before = as_array(w)[0, 1].copy()
    ends = []
    for step in (eps, -eps):
        with dg.no_grad():
            w[0, 1] = float(before + step)
            ends.append(sum(float(t.square().sum()) for t in dg.grad(loss)(model, x).values()))
    close(w.grad[0, 1], (ends[0] - ends[1]) / (2 * eps), 2e-3)


# -- composition ----------------------------------------------------------------------------------


def test_transforms_of_transforms() -> None:
    def third(x: Any) -> Any:
        return dg.grad(dg.grad(dg.grad(lambda x: dg.sin(x) * x)))(x)

    (v,) = (0.7,)
    want = -3 * np.sin(v) - v * np.cos(v)
    close(in_both(third, lambda: (f64(v),)), want)
    forward = in_both(lambda x: dg.jvp(dg.grad(cubes), (x,), (dg.ones_like(x),))[1], point)
    close(forward, [6 * v for v in POINT])
    back = in_both(lambda x: dg.grad(lambda x: dg.jvp(cubes, (x,), (x * x,))[1])(x), point)
    close(back, [12 * v**3 for v in POINT])  # of 3 x^4
    twice = in_both(lambda x: dg.jvp(lambda x: dg.jvp(cubes, (x,), (x,))[1], (x,), (x,))[1], point)
    close(twice, sum(9 * v**3 for v in POINT))


def test_each_level_has_variables_of_its_own() -> None:
    # Known as perturbation confusion: the inner derivative by y is 1, whatever x is.
    def f(x: Any) -> Any:
        return x * dg.grad(lambda y: x + y)(2.0)

    close(in_both(dg.grad(f), lambda: (dg.tensor(1.0),)), 1.0)

    def g(x: Any) -> Any:
        return dg.grad(lambda y: (x * y * y).sum())(x).sum()  # 2 x^2, of which x is known inside

    close(in_both(dg.grad(g), point), [4 * v for v in POINT])


def test_gradients_reach_tensors_from_outside() -> None:
    w = f64(2.0).requires_grad_()
    x = f64(1.0, 3.0)
    g = dg.grad(lambda x: (x * x * w).sum())(x)
    g.sum().backward()
    close(w.grad, 8.0)
    w.grad = None
    value, back = dg.vjp(lambda x: x * w, x)
    assert value.requires_grad
    back(x)[0].sum().backward()
    close(w.grad, 4.0)
    x.requires_grad_()
    dg.grad(cubes)(x).sum().backward()
    close(x.grad, [6, 18])


def test_nothing_is_connected_that_need_not_be() -> None:
    w, x = f64(2.0).requires_grad_(), f64(1.0, 3.0)
    gx, gy = dg.grad(lambda x, y: (x * x).sum() + (y * w).sum(), (0, 1))(x, x)
    assert not gx.requires_grad
    assert gy.requires_grad
    with dg.no_grad():
        value, g = dg.value_and_grad(lambda x: (x * x * w).sum())(x)
        assert not value.requires_grad
        assert not g.requires_grad
        assert dg.grad(lambda x: w)(x).requires_grad is False
        value, back = dg.vjp(lambda x: x * w, x)
        assert not back(x)[0].requires_grad
    assert w.requires_grad
    close(g, [4, 12])
    assert w.grad is None


def test_leaves_of_the_caller_get_no_gradient() -> None:
    x, w = f64(*POINT).requires_grad_(), f64(2.0).requires_grad_()
    dg.value_and_grad(lambda x: cubes(x) * w)(x)
    dg.jacobian(lambda x: x * w)(x)
    dg.jvp(lambda x: x * w, (x,), (x,))
    assert x.grad is None
    assert w.grad is None


def test_two_gradients_share_no_memory() -> None:
    x = f64(1.0, 2.0)
    a, b = dg.grad(lambda x, y: (x + y).sum(), (0, 1))(x, x)
    a.add_(1.0)
    close(b, [1, 1])
    cotangent = f64(1.0, 2.0)
    (g,) = dg.vjp(lambda x: x + 0.0, x)[1](cotangent)
    g.add_(1.0)
    close(cotangent, [1, 2])


def test_gradients_of_compiled_functions() -> None:
    f = dg.function(cubes, strict=True)
    (x,) = point()
    for transform in (dg.grad, dg.value_and_grad, dg.jacobian, dg.hessian):
        for got, want in zip(
            tensors_in(transform(f)(x)), tensors_in(transform(cubes)(x)), strict=True
        ):
            same_bits(got, want)
    for got, want in zip(dg.jvp(f, (x,), (x,)), dg.jvp(cubes, (x,), (x,)), strict=True):
        same_bits(got, want)
    same_bits(dg.hvp(f, (x,), (x,)), dg.hvp(cubes, (x,), (x,)))
    same_bits(dg.vjp(f, x)[1](2.0)[0], dg.vjp(cubes, x)[1](2.0)[0])


def test_state_of_the_function() -> None:
    class Counter:
        def __init__(self) -> None:
            self.calls = 0
            self.seen = dg.zeros(2, dtype=dg.float64)
            self.last: Any = None

        def loss(self, x: Any) -> Any:
            self.calls += 1
            with dg.no_grad():
                self.seen.add_(x)
            self.last = (x * x).sum()
            return self.last

    eager, static = Counter(), Counter()
    plain, compiled = dg.grad(eager.loss), dg.function(dg.grad(static.loss), strict=True)
    for k in range(4):
        x = f64(1.0, float(k))
        same_bits(compiled(x), plain(x))
        assert (eager.calls, static.calls) == (k + 1, k + 1)
        same_bits(static.seen, eager.seen)
        same_bits(static.last, eager.last)
        assert not eager.last.requires_grad
        assert not static.last.requires_grad


def test_training_by_functions() -> None:
    def step(p: Any, x: Any, y: Any) -> Any:
        def loss(p: Any) -> Any:
            return ((dg.tanh(x @ p["w"]) @ p["v"] - y) ** 2).mean()

        value, g = dg.value_and_grad(loss)(p)
        return {k: p[k] - 0.1 * g[k] for k in p}, value

    rng = np.random.default_rng(0)
    x, y = (dg.tensor(rng.standard_normal(s)) for s in ((8, 3), (8, 1)))
    eager = static = {
        k: dg.tensor(rng.standard_normal(s)) for k, s in (("w", (3, 4)), ("v", (4, 1)))
    }
    compiled, losses = dg.function(step, strict=True), []
    for _ in range(20):
        eager, value = step(eager, x, y)
        static, again = compiled(static, x, y)
        same_bits(again, value)
        losses.append(float(value))
    assert compiled.n_traces == 1
    assert losses[-1] < 0.7 * losses[0]


# -- mistakes -------------------------------------------------------------------------------------


X = dg.tensor([1.0, 2.0])
MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: dg.grad(X), OperandError, r"hint: dg\.autograd\.grad"),
    (lambda: dg.jacobian(3), OperandError, r"\[jacobian\] jacobian takes a function"),
    (lambda: dg.grad(cubes, argnums="x"), ArgumentError, "numbers of arguments"),
    (lambda: dg.grad(cubes, argnums=1)(X), ArgumentError, "no such argument"),
    (lambda: dg.grad(cubes, argnums=(0, -1))(X), ArgumentError, "named twice"),
    (lambda: dg.grad(cubes)(x=X), ArgumentError, "pass it by position"),
    (lambda: dg.grad(lambda x: x * 2)(X), GradientError, r"f32\[2\][\s\S]*hint: end it with .sum"),
    (lambda: dg.grad(lambda x: None)(X), GradientError, "actual: None"),
    (lambda: dg.grad(lambda x: (x.sum(), 1))(X), GradientError, "has_aux=True"),
    (lambda: dg.grad(cubes, has_aux=True)(X), ArgumentError, "returns a pair"),
    (lambda: dg.grad(lambda x: x.sum())(dg.tensor([1, 2])), DTypeError, "only floats"),
    (lambda: dg.grad(lambda x: x * x)(3), DTypeError, "hint: write 3.0"),
    (lambda: dg.grad(cubes)(np.ones(2)), OperandError, r"numpy.ndarray[\s\S]*dg.tensor"),
    (lambda: dg.jvp(cubes, X, X), ArgumentError, "primals are a tuple"),
    (lambda: dg.jvp(cubes, (X,), (X, X)), ArgumentError, "not as many tangents"),
    (lambda: dg.jvp(cubes, (X,), (dg.ones(3),)), ShapeError, r"tangent\[0\] has another shape"),
    (lambda: dg.vjp(cubes, X)[1](dg.ones(2)), ShapeError, "the cotangent has another shape"),
    (lambda: dg.vjp(cubes, X)[1](f64(1.0)), DTypeError, "the cotangent has another dtype"),
    (lambda: dg.vjp(lambda x: {"a": x}, X)[1](X), ArgumentError, "a Tensor in place of a dict"),
    (
        lambda: dg.vjp(lambda x: {"a": x}, X)[1]({"b": X}),
        ArgumentError,
        r"keys 'b' in place of 'a'",
    ),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes(number: int) -> None:
    run, kind, text = MISTAKES[number]
    with pytest.raises(kind, match=text):
        run()
