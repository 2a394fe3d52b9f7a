"""vmap: the bits of a loop over slices, in both modes, with transforms around and inside of it."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import as_array, both, same_bits, tensors_in

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import (
    ArgumentError,
    GradientError,
    OperandError,
    ShapeError,
    TraceError,
)

Fun = Callable[..., Any]


def numbers(*shape: int, seed: int = 0) -> dg.Tensor:
    return dg.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def integers(*shape: int, high: int = 4) -> dg.Tensor:
    return dg.from_numpy(np.random.default_rng(1).integers(0, high, shape))


def looped(function: Fun, *xs: Any) -> Any:
    """A loop over slices, and the results stacked."""
    found = [function(*(x[k] for x in xs)) for k in range(len(xs[0]))]
    if isinstance(found[0], tuple):
        return tuple(dg.stack(list(column)) for column in zip(*found, strict=True))
    return dg.stack(found)


def like_a_loop(function: Fun, *make: Callable[[], Any]) -> Any:
    """vmap's result, after a comparison of its bits with a loop's and with those compiled."""
    eager, static = both(dg.vmap(function), lambda: tuple(m() for m in make))
    want = looped(function, *(m() for m in make))
    for e, s, w in zip(tensors_in(eager), tensors_in(static), tensors_in(want), strict=True):
        same_bits(e, w, "a loop")
        same_bits(s, e, "compiled")
    return eager


W, B = numbers(5, 6, seed=3), numbers(6, seed=4)
T, S = (lambda: numbers(3, 4, 5)), (lambda: numbers(3, 5, seed=2))

SINGLE: dict[str, Fun] = {
    "formula": lambda x: dg.tanh(x) * 2 + 1,
    "broadcast": lambda x: x * B[:5] + x[:, :1],
    "sum": lambda x: x.sum(0) + x.mean(1).sum(),
    "all": lambda x: x.sum(),
    "softmax": lambda x: dg.softmax(x, 0),
    "dense": lambda x: dg.tanh(x @ W + B),
    "row": lambda x: x[1] @ W,
    "column": lambda x: x @ W[:, 0],
    "dot": lambda x: x[0] @ x[1],
    "gram": lambda x: x @ x.T,
    "common product": lambda x: W.T @ x.T,
    "einsum": lambda x: dg.einsum("ij,kj->ki", x, x),
    "views": lambda x: x.T[1:, ::2].reshape(-1).flip(0),
    "new axes": lambda x: x[None, :, None, 2],
    "windows": lambda x: x.unfold(1, 3, 2),
    "negative step": lambda x: x[::-1, 1:-1],
    "roll and pad": lambda x: dg.pad(dg.roll(x, 1, 0), (1, 2)),
    "joined": lambda x: dg.cat([x, W[:, :5], x[:1]], 0),
    "sorted": lambda x: dg.sort(x, 1),
    "largest": lambda x: dg.topk(x, 2, 0),
    "position of largest": lambda x: x.argmax(1),
    "scan": lambda x: dg.cumsum(x, 0) + dg.cumprod(x, 1),
    "choice": lambda x: dg.where(x > 0, x, -x * 0.5),
    "variance": lambda x: x.var(1) + x.std(),
    "median": lambda x: x.median(0),
    "fft": lambda x: dg.fft.rfft(x),
    "solve": lambda x: dg.linalg.solve(x @ x.T + dg.eye(4), x),
    "norm": lambda x: dg.linalg.norm(x),
    "made inside": lambda x: dg.zeros(5) + dg.arange(5) + dg.tensor([1.0]) * x,
    "like": lambda x: dg.zeros_like(x) + x.new_ones(5) if hasattr(x, "new_ones") else x,
    "iteration": lambda x: sum((row * k for k, row in enumerate(x)), dg.zeros(5)),
    "length": lambda x: x * len(x) * x.shape[1] * x.ndim,
    "several": lambda x: (x.sum(), dg.ones(2)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_bits_of_a_loop(name: str) -> None:
    like_a_loop(SINGLE[name], T)


DOUBLE: dict[str, Fun] = {
    "different ranks": lambda x, y: x * y + y.sum(),
    "product": lambda x, y: x @ y,
    "outer": lambda x, y: y[:, None] * x[0],
    "written": lambda x, y: dg.stack([y, x[1], B[:5]]),
}


@pytest.mark.parametrize("name", DOUBLE)
def test_two_arguments(name: str) -> None:
    like_a_loop(DOUBLE[name], T, S)


def test_computed_positions() -> None:
    index = lambda: integers(3, 2)  # noqa: E731
    like_a_loop(lambda x, i: x[i], T, index)
    like_a_loop(lambda x, i: x[:, i], T, index)
    like_a_loop(lambda x, i: x[i, i + 1], T, index)
    like_a_loop(lambda x, i: W[i] + x[0, 0], T, index)
    like_a_loop(lambda x, i: x[dg.tensor([0, 2])] * i[0], T, index)
    like_a_loop(lambda x, i: x.gather(0, i.reshape(1, 2)), T, index)
    like_a_loop(lambda x, i: x.scatter_add(0, i.reshape(1, 2), x[2:3, :2]), T, index)
    like_a_loop(lambda x, i: x.index_add(0, i, x[:2]), T, index)
    like_a_loop(lambda x, i: dg.functional.one_hot(i, 4) + (x[0, 0] > 0), T, index)
    like_a_loop(lambda x, i: dg.functional.embedding(i, W) * x[0, 0], T, index)


def test_a_position_out_of_range() -> None:
    index = dg.tensor([[0, 1], [2, 9]])
    with pytest.raises(IndexError, match="out of range"):
        dg.vmap(lambda x, i: x[i])(numbers(2, 4), index)


@pytest.mark.parametrize("size", [0, 1])
def test_few_slices(size: int) -> None:
    x = numbers(size, 4, 5)
    same_bits(dg.vmap(lambda x: (x @ W).sum(0))(x), (x @ W).sum(1))
    assert dg.vmap(lambda x: dg.ones(2))(x).shape == (size, 2)


def test_shapes_and_layouts() -> None:
    x = numbers(5, 3, 4)
    want = looped(lambda r: r @ r.T, dg.movedim(x, 1, 0))
    same_bits(dg.vmap(lambda r: r @ r.T, in_axes=1)(x), want)
    same_bits(dg.vmap(lambda r: r @ r.T, in_axes=-2, out_axes=2)(x), dg.movedim(want, 0, 2))
    same_bits(dg.vmap(lambda r: r @ r.T, 1, -1)(x), dg.movedim(want, 0, -1))


# -- arguments and results ------------------------------------------------------------------------


class Pair(NamedTuple):
    a: Any
    b: Any


def test_containers() -> None:
    def f(p: Any, s: Any, flag: bool) -> Any:
        assert flag is True
        return {"out": Pair(p["a"] * s, [p["b"].sum(), None]), "n": 2, "common": s}

    p = {"a": numbers(3, 4), "b": numbers(2, 3)}
    axes = ({"a": 0, "b": 1}, None, None)
    got = dg.vmap(f, axes, {"out": 0, "n": 0, "common": None})(p, dg.tensor(2.0), True)
    assert isinstance(got["out"], Pair)
    same_bits(got["out"].a, p["a"] * 2)
    same_bits(got["out"].b[0], p["b"].sum(0))
    assert got["out"].b[1] is None
    assert as_array(got["n"]).tolist() == [2, 2, 2]
    assert got["common"].shape == ()


def test_keyword_arguments_are_mapped() -> None:
    x, k = numbers(3, 4), numbers(3, seed=5)
    same_bits(dg.vmap(lambda x, *, k: x * k)(x, k=k), x * k[:, None])


def test_a_module_is_an_argument_like_others() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    x = numbers(3, 2, 5)
    want = dg.stack([model(x[k]) for k in range(3)])
    same_bits(dg.vmap(lambda m, x: m(x), in_axes=(None, 0))(model, x), want)
    same_bits(dg.vmap(model)(x), want)


def test_a_convolution() -> None:
    from_outside = numbers(3, 2, 3, 3)

    def f(x: Any) -> Any:
        x = dg.functional.conv2d(x, from_outside, padding=1)
        return dg.functional.max_pool2d(dg.relu(x), 2)

    like_a_loop(f, lambda: numbers(3, 2, 2, 6, 6))
    like_a_loop(dg.grad(lambda x: f(x).sum()), lambda: numbers(3, 2, 2, 6, 6))


def test_attention() -> None:
    like_a_loop(
        lambda q: dg.functional.scaled_dot_product_attention(q, q * 2, q + 1),
        lambda: numbers(3, 2, 4, 8),
    )


def test_low_precision() -> None:
    for dtype in (dg.float16, dg.bfloat16):
        x = numbers(3, 4, 5).astype(dtype)
        got = dg.vmap(lambda x: dg.softmax(x, -1) @ x.T)(x)
        want = dg.stack([dg.softmax(x[k], -1) @ x[k].T for k in range(3)])
        same_bits(got.astype(dg.float32), want.astype(dg.float32))


# -- vmap, gradients and compiled functions around and inside of each other ----------------------


def test_vmap_of_vmap() -> None:
    def pairwise(x: Any, y: Any) -> Any:
        return dg.vmap(lambda a: dg.vmap(lambda b: ((a - b) ** 2).sum())(y))(x)

    x, y = numbers(3, 4), numbers(5, 4, seed=2)
    (eager, static) = both(pairwise, lambda: (x, y))
    same_bits(static, eager)
    want = dg.stack([dg.stack([((a - b) ** 2).sum() for b in y]) for a in x])
    same_bits(eager, want)
    crossed = dg.vmap(dg.vmap(lambda a, b: a @ b, in_axes=(None, 0)), in_axes=(0, None))
    same_bits(crossed(x, y), dg.stack([dg.stack([a @ b for b in y]) for a in x]))


def loss(w: Any, x: Any) -> Any:
    return (dg.tanh(x @ w) + B).square().mean()


def test_gradients_of_slices() -> None:
    x = numbers(4, 3, 5)
    mapped = dg.vmap(dg.grad(loss), in_axes=(None, 0))
    eager, static = both(mapped, lambda: (W, x))
    same_bits(static, eager)
    same_bits(eager, dg.stack([dg.grad(loss)(W, x[k]) for k in range(4)]))
    values, grads = dg.vmap(dg.value_and_grad(loss, argnums=1), in_axes=(None, 0))(W, x)
    for k in range(4):
        value, g = dg.value_and_grad(loss, argnums=1)(W, x[k])
        same_bits(values[k], value)
        same_bits(grads[k], g)


def test_gradients_through_vmap() -> None:
    def total(function: Fun) -> Any:
        w, x = W.detach().requires_grad_(), numbers(4, 3, 5).requires_grad_()
        function(w, x).sum().backward()
        return w.grad, x.grad

    def loop(w: Any, x: Any) -> Any:
        return dg.stack([loss(w, x[k]) for k in range(4)])

    mapped = dg.vmap(loss, in_axes=(None, 0))
    got, want = total(mapped), total(loop)
    same_bits(got[1], want[1])
    np.testing.assert_allclose(as_array(got[0]), as_array(want[0]), rtol=1e-5, atol=1e-6)
    for a, b in zip(total(dg.function(mapped, strict=True)), got, strict=True):
        same_bits(a, b)
    whole = dg.grad(lambda w, x: mapped(w, x).sum())
    eager, static = both(whole, lambda: (W, numbers(4, 3, 5)))
    same_bits(static, eager)
    same_bits(eager, got[0])


def test_backward_inside() -> None:
    def step(x: Any) -> Any:
        w = dg.ones(5, requires_grad=True)
        ((x @ w) ** 2).sum().backward()
        return w.grad

    like_a_loop(step, T)

    def of_the_slice(x: Any) -> Any:
        x = x.detach().requires_grad_()
        y = (x.sin() @ W).sum()
        y.backward(retain_graph=True)
        y.backward()
        return x.grad

    like_a_loop(of_the_slice, T)


def test_higher_derivatives_of_slices() -> None:
    def f(v: Any) -> Any:
        return (dg.sin(v) * v[0]).prod()

    v = numbers(3, 4)
    for transform in (dg.hessian(f), dg.jacobian(dg.sin), lambda v: dg.jvp(f, (v,), (v * 2,))[1]):
        got = dg.vmap(transform)(v)
        same_bits(got, dg.stack([transform(v[k]) for k in range(3)]))


def test_second_order_in_place() -> None:
    def curvature(x: Any) -> Any:
        x = x.detach().requires_grad_()
        y = (x**3).sum()
        y.backward(create_graph=True)
        g = x.grad
        x.grad = None
        (g * g).sum().backward()
        return x.grad

    got = dg.vmap(curvature)(S())
    np.testing.assert_allclose(as_array(got), 36 * as_array(S()) ** 3, rtol=1e-5)


def test_vmap_of_a_compiled_function() -> None:
    compiled = dg.function(lambda x: dg.tanh(x @ W).sum(), strict=True)
    x = T()
    mapped = dg.vmap(compiled)
    want = dg.stack([compiled(x[k]) for k in range(3)])
    same_bits(mapped(x), want)
    assert isinstance(mapped, dg.Function)
    assert mapped.n_traces == 1
    same_bits(dg.vmap(lambda x: compiled(x) * 2)(x), want * 2)


def test_symbolic_sizes() -> None:
    compiled = dg.function(dg.vmap(lambda x: dg.softmax(x @ x.T, -1).sum(0)), strict=True)
    for n, m in ((3, 4), (5, 4), (7, 6), (2, 9)):
        x = numbers(n, m, 5)
        same_bits(compiled(x), dg.vmap(lambda x: dg.softmax(x @ x.T, -1).sum(0))(x))
    assert compiled.n_traces <= 3


# -- changes --------------------------------------------------------------------------------------


def test_changes_of_what_is_mapped_reach_the_caller() -> None:
    def f(row: Any) -> Any:
        row += 1
        row[0] = row[1] * 2
        return row.sum()

    x, want = S(), S()
    total = dg.vmap(f)(x)
    sums = [f(want[k]) for k in range(3)]
    same_bits(x, want)
    same_bits(total, dg.stack(sums))


def test_what_the_function_makes_follows_what_is_put_into_it() -> None:
    def f(x: Any, y: Any) -> Any:
        out, count = dg.zeros(5), dg.zeros(5)
        part, other = out[1:3], out.detach()
        out[0] = y[2]
        part += x[0, :2]
        count += 1
        for row in x:
            out += row * count
        out[dg.tensor([3, 4])] = y[:2]
        return out, part * 1, other * 1, count

    like_a_loop(f, T, S)


def test_masks_choose_what_is_overwritten() -> None:
    def f(x: Any) -> Any:
        out = x * 1
        out[x > 0] = 0.0
        return out.masked_fill(out < -1, 5.0)

    like_a_loop(f, T)


def test_recorded_changes() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        y += x
        y[0] = 3.0
        return (y * y).sum()

    got = dg.vmap(dg.grad(f))(S())
    same_bits(got, dg.stack([dg.grad(f)(r) for r in S()]))
    x = S().requires_grad_()
    dg.vmap(f)(x).sum().backward()
    same_bits(x.grad, got)


def test_copies_keep_the_history() -> None:
    x = S().requires_grad_()
    dg.vmap(lambda x: (copy.copy(x) * 2).sum())(x).sum().backward()
    assert as_array(x.grad).tolist() == np.full((3, 5), 2.0).tolist()
    y = dg.vmap(lambda x: x.detach() * 2)(x)
    assert not y.requires_grad
    with dg.no_grad():
        assert not dg.vmap(lambda x: x * 2)(x).requires_grad


# -- random numbers -------------------------------------------------------------------------------


def test_random_numbers() -> None:
    x = dg.zeros(3, 4)
    noisy = lambda x: x + dg.randn(4)  # noqa: E731
    with pytest.raises(ArgumentError, match="random numbers are drawn in vmap"):
        dg.vmap(noisy)(x)
    dg.manual_seed(5)
    want = looped(noisy, x)
    after = dg.rand(2)
    for mapped in (
        dg.vmap(noisy, randomness="different"),
        dg.function(dg.vmap(noisy, randomness="different"), strict=True),
    ):
        dg.manual_seed(5)
        same_bits(mapped(x), want)
        same_bits(dg.rand(2), after)
    dg.manual_seed(5)
    same_bits(dg.vmap(noisy, randomness="same")(x), dg.stack([want[0]] * 3))


def test_random_changes_and_orders() -> None:
    dg.manual_seed(1)
    want = looped(lambda x: dg.randperm(6) + x, dg.zeros(3, 1, dtype=dg.int64))
    dg.manual_seed(1)
    order = dg.vmap(lambda x: dg.randperm(6) + x, randomness="different")
    same_bits(order(dg.zeros(3, 1, dtype=dg.int64)), want)
    dg.manual_seed(1)
    want = looped(lambda x: dg.zeros(4).uniform_() * x, dg.ones(3, 4))
    dg.manual_seed(1)
    filled = dg.vmap(lambda x: dg.zeros(4).uniform_() * x, randomness="different")
    same_bits(filled(dg.ones(3, 4)), want)


# -- mistakes -------------------------------------------------------------------------------------

OUTSIDE = dg.zeros(5)

MISTAKES: dict[str, tuple[Fun, Any, type[Exception], str]] = {
    "item": (lambda x: x.sum().item(), 0, TraceError, r"item\(\) asks for the values of a slice"),
    "if": (lambda x: x if x.sum() > 0 else -x, 0, TraceError, r"bool\(\) asks for the values"),
    "mask": (lambda x: x[x > 0], 0, TraceError, "a bool mask asks for the values"),
    "size": (lambda x: dg.nonzero(x), 0, TraceError, r"nonzero\(\) asks for the values"),
    "outside": (lambda x: OUTSIDE.add_(x), 0, ArgumentError, "from outside .* in place"),
    "outside, once": (lambda x: OUTSIDE.add_(1) + x, 0, ArgumentError, "in place inside vmap"),
    "view of it": (lambda x: OUTSIDE[1:].zero_(), 0, ArgumentError, "in place inside vmap"),
    "item of it": (lambda x: OUTSIDE.__setitem__(0, x[0]), 0, ArgumentError, "in place inside"),
    "flag": (lambda x: OUTSIDE.requires_grad_() + x, 0, ArgumentError, "requires_grad of a"),
    "axis": (lambda x: x, 2, ShapeError, r"argument\[0\] has no axis 2"),
    "no axis": (lambda x: x, None, ArgumentError, "nothing is mapped"),
    "axes": (lambda x: x, (0, 0), ArgumentError, "not as many axes as arguments"),
    "structure": (lambda x: x, ({"a": 0},), ArgumentError, "in_axes does not fit"),
    "kind of axis": (lambda x: x, "0", ArgumentError, "in_axes does not fit"),
    "text": (lambda x: "x", 0, OperandError, "a result is no tensor"),
    "shape": (lambda x: x @ W[:4], 0, ShapeError, r"actual: 5 != 4"),
    "backward": (lambda x: (x @ W).sum().backward(), 0, GradientError, "nothing to diff"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    function, axes, error, text = MISTAKES[name]
    for make in (lambda f: f, dg.function):
        with pytest.raises(error, match=text):
            make(dg.vmap(function, in_axes=axes))(S())
        assert as_array(OUTSIDE).tolist() == [0.0] * 5
    assert dg.vmap(lambda x: x * 1)(S()).shape == (3, 5)


def test_more_mistakes() -> None:
    with pytest.raises(ShapeError, match=r"argument\[0\]: 3 along axis 0, argument\[1\]: 2 along"):
        dg.vmap(lambda a, b: a)(dg.ones(3), dg.ones(2))
    with pytest.raises(ArgumentError, match="result differs between slices"):
        dg.vmap(lambda x: x, out_axes=None)(S())
    with pytest.raises(ShapeError, match="result has no axis 3"):
        dg.vmap(lambda x: x, out_axes=3)(S())
    with pytest.raises(ArgumentError, match="maps a function"):
        dg.vmap(3)
    with pytest.raises(ArgumentError, match="randomness"):
        dg.vmap(dg.sin, randomness="some")


def test_a_slice_outlives_its_function() -> None:
    kept = []
    dg.vmap(lambda x: kept.append(x) or x)(S())
    with pytest.raises(TraceError, match="a mapped tensor is used outside of its function"):
        kept[0] + 1
    with pytest.raises(TraceError):
        kept[0].numpy()


def test_nothing_is_kept() -> None:
    x = S().requires_grad_()
    seen: list[Any] = []

    def f(row: Any) -> Any:
        y = row * 2
        seen.append(weakref.ref(y))
        return y.sum() * dg.ones(2)

    out = dg.vmap(f)(x)
    gc.collect()
    assert seen[0]() is None
    known = weakref.ref(out)
    del out
    assert known() is None


# -- against jax ----------------------------------------------------------------------------------


def test_against_jax() -> None:
    jax = pytest.importorskip("jax")
    x, w = as_array(T()), as_array(W)

    def f(lib: Any, w: Any, x: Any) -> Any:
        return lib.tanh(x @ w).sum(0)[::2] * lib.exp(-(x * x).sum())

    ours = dg.vmap(dg.jacobian(lambda w, x: f(dg, w, x), argnums=1), in_axes=(None, 0))
    theirs = jax.vmap(jax.jacobian(lambda w, x: f(jax.numpy, w, x), argnums=1), in_axes=(None, 0))
    got = ours(dg.from_numpy(w), dg.from_numpy(x))
    np.testing.assert_allclose(as_array(got), np.asarray(theirs(w, x)), rtol=2e-4, atol=1e-6)


# -- hooks and arrays ----------------------------------------------------------------------------


def test_hooks() -> None:
    def of_a_result(x: Any) -> Any:
        x = x.detach().requires_grad_()
        y = x * 2
        y.register_hook(lambda g: g * 3)
        y.sum().backward()
        return x.grad

    def of_a_leaf(x: Any) -> Any:
        x = x.detach().requires_grad_()
        x.register_hook(lambda g: g * 3)
        (x * x).sum().backward()
        return x.grad

    for f in (of_a_result, of_a_leaf):
        same_bits(dg.vmap(f)(S()), looped(f, S()))
    w = dg.ones(5, requires_grad=True)
    with pytest.raises(TraceError, match="a hook is registered on a tensor from outside"):
        dg.vmap(lambda x: w.register_hook(print) and x)(S())


def test_memory_of_an_array_is_shared_by_all_slices() -> None:
    array = np.zeros(5, np.float32)
    with pytest.raises(ArgumentError, match="in place inside vmap"):
        dg.vmap(lambda x: dg.from_numpy(array).add_(1) + x)(S())
    assert not array.any()
    same_bits(dg.vmap(lambda x: dg.from_numpy(array) + x)(S()), S() + 0)
    same_bits(dg.vmap(lambda x: dg.tensor(array).add_(1) + x)(S()), S() + 1)
