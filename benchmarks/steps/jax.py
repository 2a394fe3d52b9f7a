"""The workloads in JAX; `compiled` is `jax.jit`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.program import Arrays, Decorator, Program, parameters
from benchmarks.steps import models

Params = dict[str, Any]
Loss = Callable[[Params, Any, Any], Any]


class Optimizer(NamedTuple):
    """A rule for updates.

    start   params to its state
    update  (state, params, gradients) to the new state and params
    """

    start: Callable[[Params], Any]
    update: Callable[[Any, Params, Params], tuple[Any, Params]]


def _zeros(params: Params) -> Params:
    return {name: jnp.zeros_like(param) for name, param in params.items()}


def _sgd(rate: float) -> Optimizer:
    def update(state: Any, params: Params, grads: Params) -> tuple[Any, Params]:
        return state, jax.tree.map(lambda p, g: p - rate * g, params, grads)

    return Optimizer(lambda params: (), update)


def _rmsprop(rate: float) -> Optimizer:
    def update(squares: Params, params: Params, grads: Params) -> tuple[Any, Params]:
        squares = jax.tree.map(lambda a, g: 0.99 * a + 0.01 * g * g, squares, grads)

        def changed(p: Any, a: Any, g: Any) -> Any:
            return p - rate * g / (jnp.sqrt(a) + 1e-8)

        return squares, jax.tree.map(changed, params, squares, grads)

    return Optimizer(_zeros, update)


def _adam(rate: float) -> Optimizer:
    def start(params: Params) -> Any:
        return jnp.zeros(()), _zeros(params), _zeros(params)

    def update(state: Any, params: Params, grads: Params) -> tuple[Any, Params]:
        step, means, squares = state
        step = step + 1
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, grads)
        squares = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, squares, grads)
        first, second = 1 - 0.9**step, 1 - 0.999**step

        def changed(p: Any, m: Any, a: Any) -> Any:
            return p - rate / first * m / (jnp.sqrt(a / second) + 1e-8)

        return (step, means, squares), jax.tree.map(changed, params, means, squares)

    return Optimizer(start, update)


def _training(
    arrays: Arrays, compiled: Decorator, loss_of: Loss, optimizer: Optimizer, first: Params
) -> Program:
    """The whole step is one compiled function that takes over the memory of its state."""
    state: list[Any] = []

    @partial(compiled, donate_argnums=(0, 1))
    def train(params: Params, kept: Any, x: Any, target: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, x, target)
        kept, params = optimizer.update(kept, params, grads)
        return params, kept, loss

    def step(x: Any, target: Any) -> Any:
        *state[:], loss = train(*state, x, target)
        return loss

    def reset() -> None:
        params = {name: jnp.array(value) for name, value in first.items()}
        state[:] = params, optimizer.start(params)

    reset()
    batches = zip(arrays["inputs"], arrays["targets"], strict=True)
    inputs = [(jnp.array(x), jnp.array(target)) for x, target in batches]
    return Program(step, inputs, lambda: jax.tree.leaves(state), reset)


def _cross_entropy(logits: Any, labels: Any) -> Any:
    return -jax.nn.log_softmax(logits, axis=1)[jnp.arange(len(labels)), labels].mean()


def _dense(params: Params, x: Any) -> Any:
    *hidden, last = [name.removesuffix(".weight") for name in params if name.endswith("weight")]
    for layer in hidden:
        x = jax.nn.relu(x @ params[f"{layer}.weight"].T + params[f"{layer}.bias"])
    return x @ params[f"{last}.weight"].T + params[f"{last}.bias"]


def _classified(params: Params, x: Any, labels: Any) -> Any:
    return _cross_entropy(_dense(params, x), labels)


def mlp(arrays: Arrays, compiled: Decorator) -> Program:
    return _training(arrays, compiled, _classified, _rmsprop(1e-3), parameters(arrays))


def mlp3(arrays: Arrays, compiled: Decorator) -> Program:
    return _training(arrays, compiled, _classified, _sgd(1e-2), parameters(arrays))


def tiny(arrays: Arrays, compiled: Decorator) -> Program:
    def loss_of(params: Params, x: Any, target: Any) -> Any:
        return jnp.square(_dense(params, x) - target).mean()

    return _training(arrays, compiled, loss_of, _sgd(1e-2), parameters(arrays))


def cnn(arrays: Arrays, compiled: Decorator) -> Program:
    """Channels stand last, as they do in JAX's own examples."""
    first = parameters(arrays)
    for name in ("0.weight", "3.weight"):
        first[name] = first[name].transpose(2, 3, 1, 0)
    dense = first["7.weight"].reshape(64, 64, 5, 5).transpose(0, 2, 3, 1)
    first["7.weight"] = dense.reshape(64, 1600)

    def block(x: Any, weight: Any, bias: Any) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=layout)
        window = (1, 2, 2, 1)
        x = jax.nn.relu(x + bias)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")

    def loss_of(params: Params, x: Any, labels: Any) -> Any:
        x = block(x, params["0.weight"], params["0.bias"])
        x = block(x, params["3.weight"], params["3.bias"]).reshape(len(labels), -1)
        dense = {name: value for name, value in params.items() if name[0] in "79"}
        return _classified(dense, x, labels)

    images = {**arrays, "inputs": arrays["inputs"].transpose(0, 1, 3, 4, 2)}
    return _training(images, compiled, loss_of, _adam(1e-3), first)


def _layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centered).mean(-1, keepdims=True) + 1e-5)
    return centered / deviation * scale + shift


def transformer(arrays: Arrays, compiled: Decorator) -> Program:
    def attention(params: Params, x: Any) -> Any:
        batch, length, width = x.shape
        projected = x @ params["self_attn.in_proj_weight"].T + params["self_attn.in_proj_bias"]
        q, k, v = projected.reshape(batch, length, 3, 8, width // 8).transpose(2, 0, 3, 1, 4)
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / (width // 8) ** 0.5, axis=-1)
        heads = (weights @ v).swapaxes(1, 2).reshape(batch, length, width)
        return heads @ params["self_attn.out_proj.weight"].T + params["self_attn.out_proj.bias"]

    def loss_of(params: Params, x: Any, target: Any) -> Any:
        def norm(name: str, x: Any) -> Any:
            return _layer_norm(x, params[f"{name}.weight"], params[f"{name}.bias"])

        x = x + attention(params, norm("norm1", x))
        hidden = norm("norm2", x) @ params["linear1.weight"].T + params["linear1.bias"]
        hidden = jax.nn.gelu(hidden, approximate=False)
        x = x + hidden @ params["linear2.weight"].T + params["linear2.bias"]
        return jnp.square(x - target).mean()

    return _training(arrays, compiled, loss_of, _sgd(1e-2), parameters(arrays))


def lstm(arrays: Arrays, compiled: Decorator) -> Program:
    """One product for the inputs of all steps, then a scan."""

    def loss_of(params: Params, x: Any, target: Any) -> Any:
        bias = params["bias_ih_l0"] + params["bias_hh_l0"]
        gates = x @ params["weight_ih_l0"].T + bias
        weight = params["weight_hh_l0"].T

        def advance(state: Any, given: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(given + h @ weight, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros(x.shape[1:])
        _, outputs = jax.lax.scan(advance, (zeros, zeros), gates)
        return jnp.square(outputs - target).mean()

    return _training(arrays, compiled, loss_of, _sgd(1e-2), parameters(arrays))


def black_scholes(arrays: Arrays, compiled: Decorator) -> Program:
    def step(price: Any, strike: Any, years: Any) -> Any:
        return models.black_scholes(lax, price, strike, years)

    names = ("price", "strike", "years")
    return Program(compiled(step), [tuple(jnp.array(arrays[name]) for name in names)])


def layernorm_gelu(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any, r: Any, scale: Any, shift: Any) -> Any:
        return r + jax.nn.gelu(_layer_norm(x, scale, shift), approximate=False)

    names = ("x", "r", "scale", "shift")
    return Program(compiled(step), [tuple(jnp.array(arrays[name]) for name in names)])


def chain(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any) -> Any:
        y = jnp.tanh(x) * 2 + 1
        return y / jnp.sqrt(y * y + 1)

    return Program(compiled(step), [(jnp.array(arrays["x"]),)])


def softmax(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any) -> Any:
        return jax.nn.softmax(x, axis=1)

    return Program(compiled(step), [(jnp.array(arrays["x"]),)])


def matmul(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any, w: Any, b: Any) -> Any:
        return jax.nn.relu(x @ w + b)

    return Program(compiled(step), [tuple(jnp.array(arrays[name]) for name in "xwb")])


def dispatch(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any) -> Any:
        return x + 1

    return Program(compiled(step), [(jnp.array(arrays["x"]),)])
