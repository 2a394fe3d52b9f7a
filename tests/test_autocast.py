"""Mixed precision: which op runs in which dtype, in both modes, and what gradients come back."""

from __future__ import annotations

import threading
import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from support import as_array, same_bits

import dualgrad as dg
from dualgrad import amp, nn
from dualgrad.compiler.ops.base import OPS
from dualgrad.compiler.ops.precision import KEPT, LOW, SINGLE
from dualgrad.gradients.checkpointing import checkpoint
from dualgrad.jit.function import EagerFallback
from dualgrad.state import state

F = dg.functional
LOW_DTYPES = [dg.bfloat16, dg.float16]
# bfloat16 has 8 significant bits, float16 11
ROUNDING = {dg.bfloat16: 2.0**-8, dg.float16: 2.0**-11}


def drawn(*shape: int, seed: int = 0, dtype: Any = "float32") -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def tensor(*shape: int, seed: int = 0, grad: bool = False) -> dg.Tensor:
    return dg.tensor(drawn(*shape, seed=seed), requires_grad=grad)


# -- classes --------------------------------------------------------------------------------------


def test_every_op_has_a_class() -> None:
    assert {op.precision for op in OPS} == {LOW, SINGLE, KEPT}


MATRICES = {
    "matmul": lambda x, y: x @ y,
    "vectors": lambda x, y: x[0] @ y[:, 0],
    "mm": dg.mm,
    "linear": lambda x, y: F.linear(x, y.T),
    "einsum": lambda x, y: dg.einsum("ij,jk->ik", x, y),
    "tensordot": lambda x, y: dg.tensordot(x, y, 1),
    "addmm": lambda x, y: dg.addmm(x[:, :1], x, y),
    "conv1d": lambda x, y: F.conv1d(x.reshape((1, 6, 6)), y.reshape((12, 6, 1)) * 1.0),
    "conv2d": lambda x, y: F.conv2d(x.reshape((1, 1, 6, 6)), y[:2, :2].reshape((1, 1, 2, 2)) * 1),
    "attention": lambda x, y: F.scaled_dot_product_attention(x, x, x),
    "one row": lambda x, y: F.linear(x[:1], y.T),
    "empty batch": lambda x, y: F.linear(x[:0], y.T),
}


@pytest.mark.parametrize("low", LOW_DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("name", MATRICES)
def test_products_run_in_low_precision(name: str, low: Any) -> None:
    x, y = tensor(6, 6), tensor(6, 12, seed=1)
    function = MATRICES[name]
    with dg.autocast("cpu", low):
        out = function(x, y)
    assert out.dtype is low
    # the operands rounded to `low`, the arithmetic in float64, the result rounded once
    wide = function(*(dg.tensor(as_array(t.to(low).to(dg.float64))) for t in (x, y)))
    scale = float(abs(as_array(wide)).max(initial=1.0))
    np.testing.assert_allclose(
        as_array(out.to(dg.float64)), as_array(wide), rtol=0, atol=4 * ROUNDING[low] * scale
    )


IN_FLOAT32 = {
    "sum": lambda x: x.sum(0),
    "sum of one": lambda x: x[:1].sum(0),
    "prod": lambda x: x.prod(),
    "cumsum": lambda x: x.cumsum(0),
    "norm": lambda x: x.norm(),
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x[:, :1], -1),
    "logsumexp": lambda x: x.logsumexp(0),
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "group_norm": lambda x: F.group_norm(x, 2),
    "exp": lambda x: x.exp(),
    "log": lambda x: x.abs().log(),
    "pow": lambda x: x**2.5,
    "square": lambda x: x.pow(2),
    "rsqrt": lambda x: x.abs().rsqrt(),
    "reciprocal": lambda x: x.reciprocal(),
    "mse": lambda x: F.mse_loss(x, x, reduction="none"),
    "cross_entropy": lambda x: F.cross_entropy(x, dg.tensor([0, 1, 2, 3])),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, x.relu()),
    "softplus": lambda x: F.softplus(x),
    "cosine": lambda x: F.cosine_similarity(x, x),
    "solve": lambda x: dg.linalg.inv(x + dg.eye(4) * 4),
}

AS_THEY_ARE = {
    "relu": lambda x: x.relu(),
    "gelu": lambda x: F.gelu(x),
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "add": lambda x: x + x,
    "mul by a number": lambda x: x * 3.0,
    "max": lambda x: x.max(),
    "mean": lambda x: x.mean(0),
    "sqrt": lambda x: x.abs().sqrt(),
    "reshape": lambda x: x.reshape((2, 8)),
    "index": lambda x: x[1:, dg.tensor([0, 2])],
    "where": lambda x: dg.where(x > 0, x, -x),
    "sort": lambda x: x.sort()[0],
    "avg_pool": lambda x: F.avg_pool1d(x.reshape((1, 4, 4)), 2),
    "in place": lambda x: x.clone().exp_(),
    "in place sum": lambda x: x.clone().add_(x),
}


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_sums_run_in_float32(name: str) -> None:
    function, x = IN_FLOAT32[name], tensor(4, 4, seed=2).to(dg.bfloat16)
    with dg.autocast("cpu"):
        out = function(x)
    assert out.dtype is dg.float32
    same_bits(as_array(out), as_array(function(x.float())))


@pytest.mark.parametrize("name", AS_THEY_ARE)
@pytest.mark.parametrize("dtype", [dg.bfloat16, dg.float32], ids=lambda d: d.name)
def test_others_keep_their_dtype(name: str, dtype: Any) -> None:
    function, x = AS_THEY_ARE[name], tensor(4, 4, seed=2).to(dtype)
    with dg.autocast("cpu"):
        out = function(x)
    assert out.dtype is dtype
    same_bits(as_array(out.float()), as_array(function(x).float()))


def test_operands_of_two_dtypes_promote() -> None:
    x = tensor(4, 4)
    with dg.autocast("cpu"):
        assert (x.to(dg.bfloat16) + x).dtype is dg.float32
        assert dg.cat([x.to(dg.bfloat16), x]).dtype is dg.float32
        assert (x.to(dg.bfloat16) @ x).dtype is dg.bfloat16


def test_what_is_left_alone() -> None:
    x, wide, ints = tensor(4, 4), tensor(4, 4).double(), dg.arange(16).reshape((4, 4))
    with dg.autocast("cpu"):
        assert (wide @ wide).dtype is dg.float64
        assert (wide @ x).dtype is dg.float64
        assert (ints @ ints).dtype is dg.int64
        assert wide.sum().dtype is dg.float64
        assert (x > 0).sum().dtype is dg.int64
        assert x.to(dg.bfloat16).to(dg.float32).dtype is dg.float32
    with dg.autocast("cuda"):
        assert (x @ x).dtype is dg.float32


def test_arrays_beside_tensors() -> None:
    x = tensor(4, 4)
    with dg.autocast("cpu"):
        assert (x @ drawn(4, 4)).dtype is dg.bfloat16


def test_user_composites_follow_their_body() -> None:
    @dg.composite
    def product(x: Any, y: Any) -> Any:
        return (x @ y) * 2.0

    @dg.composite
    def total(x: Any) -> Any:
        return (x * x).sum()

    @dg.composite
    def plain(x: Any) -> Any:
        return x.exp() + 1.0

    x = tensor(4, 4)
    with dg.autocast("cpu"):
        assert product(x, x).dtype is dg.bfloat16
        assert total(x.to(dg.bfloat16)).dtype is dg.float32
        assert plain(x.to(dg.bfloat16)).dtype is dg.bfloat16


# -- the context ----------------------------------------------------------------------------------


def test_nested_and_disabled() -> None:
    x = tensor(4, 4)
    with dg.autocast("cpu"):
        with dg.autocast("cpu", dg.float16):
            assert (x @ x).dtype is dg.float16
            with dg.autocast("cpu", enabled=False):
                assert (x @ x).dtype is dg.float32
                assert not amp.is_autocast_enabled("cpu")
            assert amp.get_autocast_dtype("cpu") is dg.float16
        assert (x @ x).dtype is dg.bfloat16
        with dg.autocast("cuda"):
            assert (x @ x).dtype is dg.bfloat16
            assert amp.is_autocast_enabled("cuda")
            assert amp.get_autocast_dtype("cuda") is dg.float16
    assert (x @ x).dtype is dg.float32
    assert amp.get_autocast_dtype("cpu") is dg.bfloat16


def test_one_object_many_times() -> None:
    x, context = tensor(4, 4), dg.autocast("cpu")
    for _ in range(2):
        with context, context:
            assert (x @ x).dtype is dg.bfloat16
        assert (x @ x).dtype is dg.float32


def test_an_error_ends_the_context() -> None:
    x = tensor(4, 4)
    with pytest.raises(ZeroDivisionError), dg.autocast("cpu"):
        raise ZeroDivisionError
    assert (x @ x).dtype is dg.float32


def test_decorator() -> None:
    @dg.autocast("cpu")
    def product(x: dg.Tensor) -> dg.Tensor:
        "Doc."
        return x @ x

    assert product(tensor(4, 4)).dtype is dg.bfloat16
    assert (product.__name__, product.__doc__) == ("product", "Doc.")


def test_generators_leave_the_mode_between_their_values() -> None:
    x = tensor(4, 4)

    @dg.autocast("cpu")
    def products() -> Any:
        yield x @ x
        yield x @ x

    for y in products():
        assert y.dtype is dg.bfloat16
        assert (x @ x).dtype is dg.float32


def test_other_threads_do_not_notice() -> None:
    x, found = tensor(4, 4), []
    with dg.autocast("cpu"):
        thread = threading.Thread(target=lambda: found.append((x @ x).dtype))
        thread.start()
        thread.join()
        assert (x @ x).dtype is dg.bfloat16
    assert found == [dg.float32]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("tpu",), "unknown kind of device"),
        (("cuda:0",), "unknown kind of device"),
        (("cpu", dg.float32), "needs a 16-bit float"),
    ],
)
def test_what_is_refused(arguments: Any, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        dg.autocast(*arguments)
    assert not dg.autocast("cpu", dg.float32, enabled=False).enabled


# -- gradients ------------------------------------------------------------------------------------


def model() -> nn.Module:
    dg.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def test_gradients_have_the_dtype_of_their_tensors() -> None:
    net, x = model(), tensor(5, 8, grad=True)
    with dg.autocast("cpu"):
        loss = F.cross_entropy(net(x), dg.tensor([0, 1, 2, 3, 0]))
    loss.backward()
    mixed = [as_array(t.grad) for t in (x, *net.parameters())]
    assert {t.grad.dtype for t in (x, *net.parameters())} == {dg.float32}
    net, x = model(), tensor(5, 8, grad=True)
    F.cross_entropy(net(x), dg.tensor([0, 1, 2, 3, 0])).backward()
    for a, t in zip(mixed, (x, *net.parameters()), strict=True):
        b = as_array(t.grad)
        np.testing.assert_allclose(a, b, rtol=0, atol=0.03 * abs(b).max())
        assert not np.array_equal(a, b)


def test_a_weight_used_twice() -> None:
    """Each use converts the weight, and its gradients are added in float32."""
    w, x = tensor(4, 4, grad=True), tensor(4, 4, seed=1)
    with dg.autocast("cpu"):
        out = (x @ w).float().sum() + (x.relu() @ w).float().sum()
    out.backward()
    ones = dg.ones((4, 4)).to(dg.bfloat16)
    parts = [(a.to(dg.bfloat16).T @ ones).float() for a in (x.relu(), x)]
    same_bits(as_array(w.grad), as_array(parts[0] + parts[1]))


def test_backward_inside_is_the_same() -> None:
    found = []
    for inside in (True, False):
        w = tensor(4, 4, grad=True)
        with dg.autocast("cpu"):
            out = (w @ w).exp().sum()
            if inside:
                out.backward()
        if not inside:
            out.backward()
        found.append(as_array(w.grad))
    same_bits(*found)


def test_second_derivatives() -> None:
    found = []
    for inside in (True, False):
        w = tensor(3, 3, grad=True)
        with dg.autocast("cpu"):
            out = (w @ w).tanh().sum()
            if inside:
                (g,) = dg.autograd.grad(out, [w], create_graph=True)
        if not inside:
            (g,) = dg.autograd.grad(out, [w], create_graph=True)
        (g * g).sum().backward()
        found.append(as_array(w.grad))
    same_bits(*found)


def test_transforms() -> None:
    x, w = tensor(3, 4, 4), tensor(4, 4, seed=1)
    with dg.autocast("cpu"):
        sliced = dg.vmap(lambda a: (a @ w).exp().sum())(x)
        assert sliced.dtype is dg.float32
        assert dg.vmap(lambda a: a @ w)(x).dtype is dg.bfloat16
        one_by_one = [(a @ w).exp().sum() for a in x]
        gradient = dg.grad(lambda w: (x[0] @ w).float().sum())(w)
    np.testing.assert_allclose(as_array(sliced), as_array(dg.stack(one_by_one)), rtol=1e-6)
    assert gradient.dtype is dg.float32


def test_checkpoints_run_again_in_the_same_mode() -> None:
    found = []
    for kept in (True, False):
        w, x = tensor(4, 4, grad=True), tensor(4, 4, seed=1)

        def block(x: Any, w: Any = w) -> Any:
            return ((x @ w).relu() @ w).exp()

        with dg.autocast("cpu"):
            out = (block(x) if kept else checkpoint(block, x)).sum()
        out.backward()
        found.append(as_array(w.grad))
    same_bits(*found)


def test_functions_of_the_users_own() -> None:
    seen: list[Any] = []

    class Product(dg.autograd.Function):
        @staticmethod
        @amp.custom_fwd(device_type="cpu")
        def forward(ctx: Any, x: Any, w: Any) -> Any:
            ctx.save_for_backward(x, w)
            out = x @ w
            seen.append(out.dtype)
            return out

        @staticmethod
        @amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, g: Any) -> Any:
            x, w = ctx.saved_tensors
            seen.append((g @ w.T).dtype)
            return g @ w.T, x.T @ g

    class InFloat32(Product):
        @staticmethod
        @amp.custom_fwd(device_type="cpu", cast_inputs=dg.float32)
        def forward(ctx: Any, x: Any, w: Any) -> Any:
            return Product.forward.__wrapped__(ctx, x, w)  # type: ignore[attr-defined]

    x, w = tensor(4, 4), tensor(4, 4, seed=1, grad=True)
    with dg.autocast("cpu"):
        out = Product.apply(x, w)
    out.float().sum().backward()
    assert seen == [dg.bfloat16, dg.bfloat16]
    assert w.grad is not None
    assert w.grad.dtype is dg.float32
    with dg.autocast("cpu"):
        out = InFloat32.apply(x.to(dg.bfloat16), w)
    out.sum().backward()
    assert seen[2:] == [dg.float32, dg.float32]
    out = Product.apply(x, w)
    with dg.autocast("cpu"):
        out.sum().backward()
    assert seen[4:] == [dg.float32, dg.float32]


# -- both modes -----------------------------------------------------------------------------------


def strict(function: Any) -> Any:
    return dg.function(function, strict=True)


@pytest.mark.parametrize("low", LOW_DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("where", ["inside", "around"])
def test_training_steps_have_the_same_bits(low: Any, where: str) -> None:
    def mixed() -> Any:
        return dg.autocast("cpu", low)

    inside, around = (mixed, nullcontext) if where == "inside" else (nullcontext, mixed)

    def trained(decorate: Any) -> list[Any]:
        net = model()
        optimizer = dg.optim.Adam(net.parameters(), lr=0.01)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            with inside():
                loss = F.cross_entropy(F.layer_norm(net(x), (4,)), y)
            loss.backward()
            optimizer.step()
            return loss

        f = decorate(step)
        losses = []
        for k in range(5):
            with around():
                losses.append(f(tensor(5, 8, seed=k), dg.tensor([0, 1, 2, 3, 0])))
        if decorate is strict:
            assert f.n_traces == 1
        return [as_array(t) for t in (*losses, *net.parameters())]

    eager, static = trained(lambda f: f), trained(strict)
    for a, b in zip(eager, static, strict=True):
        same_bits(a, b)


def test_the_mode_is_part_of_a_call() -> None:
    w = tensor(4, 4, grad=True)

    def product(x: Any) -> Any:
        return (x @ w).relu()

    f = strict(product)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EagerFallback)
        warnings.simplefilter("ignore")
        for k in range(50):
            x = tensor(4, 4, seed=k)
            same_bits(as_array(f(x)), as_array(product(x)))
            for low in LOW_DTYPES:
                with dg.autocast("cpu", low):
                    out, expected = f(x), product(x)
                assert out.dtype is expected.dtype is low
                same_bits(as_array(out.float()), as_array(expected.float()))
            with dg.autocast("cpu"), dg.autocast("cpu", enabled=False):
                assert f(x).dtype is dg.float32
    assert f.n_traces == 3
    assert "autocast: None -> cpu bfloat16" in f.explain()


def test_a_mode_that_stays_open_is_refused() -> None:
    x = tensor(4, 4)

    def opens(x: Any) -> Any:
        context = dg.autocast("cpu")
        context.__enter__()
        return x @ x

    with pytest.raises(dg.errors.TraceError, match="autocast holds"):
        strict(opens)(x)
    assert state.mixed is None


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        (2, 1, 5, 5),
    ),
    "lstm": (lambda: nn.LSTM(4, 6, num_layers=2, batch_first=True), (2, 3, 4)),
    "gru": (lambda: nn.GRU(4, 6, batch_first=True), (2, 3, 4)),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        (2, 3, 8),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_same_bits(name: str) -> None:
    make, shape = LAYERS[name]

    def run(decorate: Any) -> list[Any]:
        dg.manual_seed(0)
        net = make()

        def step(x: Any) -> Any:
            net.zero_grad()
            with dg.autocast("cpu"):
                out = net(x)
                out = out[0] if isinstance(out, tuple) else out
                loss = out.square().mean()
            loss.backward()
            return out, loss

        f = decorate(step)
        seen = [as_array(t.float()) for k in range(2) for t in f(tensor(*shape, seed=k))]
        assert {p.grad.dtype for p in net.parameters()} == {dg.float32}
        return seen + [as_array(p.grad) for p in net.parameters()]

    eager, static = run(lambda f: f), run(strict)
    for a, b in zip(eager, static, strict=True):
        same_bits(a, b)
