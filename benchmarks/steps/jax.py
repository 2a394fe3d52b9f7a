"""The workloads in JAX; `compiled` is `jax.jit`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.program import Arrays, Decorator, Program


def mlp(arrays: Arrays, compiled: Decorator) -> Program:
    """The whole step is one compiled function that takes over the memory of its state."""
    first = [arrays[name] for name in ("w1", "b1", "w2", "b2")]
    state: list[Any] = []

    def loss_of(params: list[Any], images: Any, labels: Any) -> Any:
        w1, b1, w2, b2 = params
        logits = jax.nn.relu(images @ w1.T + b1) @ w2.T + b2
        rows = jnp.arange(len(labels))
        return -jax.nn.log_softmax(logits, axis=1)[rows, labels].mean()

    @partial(compiled, donate_argnums=(0, 1))
    def train(params: list[Any], averages: list[Any], images: Any, labels: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, images, labels)
        averages = [0.99 * a + 0.01 * g * g for a, g in zip(averages, grads, strict=True)]
        rows = zip(params, averages, grads, strict=True)
        params = [p - 1e-3 * g / (jnp.sqrt(a) + 1e-8) for p, a, g in rows]
        return params, averages, loss

    def step(images: Any, labels: Any) -> Any:
        *state[:], loss = train(*state, images, labels)
        return loss

    def reset() -> None:
        state[:] = [jnp.array(a) for a in first], [jnp.zeros_like(a) for a in first]

    reset()
    batches = zip(arrays["images"], arrays["labels"], strict=True)
    inputs = [(jnp.array(images), jnp.array(labels)) for images, labels in batches]
    return Program(step, inputs, lambda: [*state[0], *state[1]], reset)


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
