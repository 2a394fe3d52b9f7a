"""The workloads in TensorFlow; `compiled` is `function` or `xla`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from benchmarks.program import Arrays, Decorator, Program, parameters
from benchmarks.steps import models

Params = dict[str, Any]
Loss = Callable[[Params, Any, Any], Any]

tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))

function = partial(tf.function, autograph=False)
xla = partial(function, jit_compile=True)


class Optimizer:
    """Updates parameters in place by TensorFlow's own fused ops; `buffers` is what it keeps."""

    def __init__(self, params: Params) -> None:
        self.buffers: list[Any] = []

    def _zeros(self, param: Any) -> Any:
        self.buffers.append(tf.Variable(tf.zeros_like(param)))
        return self.buffers[-1].handle

    def advance(self) -> None:
        """Called once before the updates of a step."""

    def update(self, name: str, param: Any, gradient: Any) -> None:
        raise NotImplementedError


class Sgd(Optimizer):
    def update(self, name: str, param: Any, gradient: Any) -> None:
        tf.raw_ops.ResourceApplyGradientDescent(var=param.handle, alpha=1e-2, delta=gradient)


class Rmsprop(Optimizer):
    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.squares = {name: self._zeros(p) for name, p in params.items()}

    def update(self, name: str, param: Any, gradient: Any) -> None:
        square = tf.raw_ops.ReadVariableOp(resource=self.squares[name], dtype=tf.float32)
        square = 0.99 * square + 0.01 * gradient * gradient
        tf.raw_ops.AssignVariableOp(resource=self.squares[name], value=square)
        param.assign_sub(1e-3 * gradient / (tf.sqrt(square) + 1e-8))


class Adam(Optimizer):
    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.means = {name: self._zeros(p) for name, p in params.items()}
        self.squares = {name: self._zeros(p) for name, p in params.items()}
        self.step = tf.Variable(0.0)
        self.buffers.append(self.step)

    def advance(self) -> None:
        self.step.assign_add(1.0)

    def update(self, name: str, param: Any, gradient: Any) -> None:
        tf.raw_ops.ResourceApplyAdam(
            var=param.handle, m=self.means[name], v=self.squares[name],
            beta1_power=0.9**self.step, beta2_power=0.999**self.step,
            lr=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, grad=gradient,
        )  # fmt: skip


def _training(
    arrays: Arrays,
    compiled: Decorator,
    loss_of: Loss,
    optimizer_of: type[Optimizer],
    first: Params,
) -> Program:
    params = {name: tf.Variable(value) for name, value in first.items()}
    optimizer = optimizer_of(params)

    def step(x: Any, target: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(params, x, target)
        gradients = tape.gradient(loss, list(params.values()))
        optimizer.advance()
        for (name, param), gradient in zip(params.items(), gradients, strict=True):
            optimizer.update(name, param, gradient)
        return loss

    def reset() -> None:
        for name, value in first.items():
            params[name].assign(value)
        for buffer in optimizer.buffers:
            buffer.assign(tf.zeros_like(buffer))

    batches = zip(arrays["inputs"], arrays["targets"], strict=True)
    inputs = [(tf.constant(x), tf.constant(target)) for x, target in batches]
    return Program(compiled(step), inputs, lambda: [*params.values(), *optimizer.buffers], reset)


def _dense(params: Params, x: Any) -> Any:
    *hidden, last = [name.removesuffix(".weight") for name in params if name.endswith("weight")]
    for layer in hidden:
        x = tf.nn.relu(_affine(params, layer, x))
    return _affine(params, last, x)


def _affine(params: Params, layer: str, x: Any) -> Any:
    product = tf.matmul(x, params[f"{layer}.weight"], transpose_b=True)
    return tf.nn.bias_add(product, params[f"{layer}.bias"])


def _classified(params: Params, x: Any, labels: Any) -> Any:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, _dense(params, x))
    return tf.reduce_mean(losses)


def _squared(output: Any, target: Any) -> Any:
    return tf.reduce_mean(tf.math.squared_difference(output, target))


def mlp(arrays: Arrays, compiled: Decorator) -> Program:
    return _training(arrays, compiled, _classified, Rmsprop, parameters(arrays))


def mlp3(arrays: Arrays, compiled: Decorator) -> Program:
    return _training(arrays, compiled, _classified, Sgd, parameters(arrays))


def tiny(arrays: Arrays, compiled: Decorator) -> Program:
    def loss_of(params: Params, x: Any, target: Any) -> Any:
        return _squared(_dense(params, x), target)

    return _training(arrays, compiled, loss_of, Sgd, parameters(arrays))


def cnn(arrays: Arrays, compiled: Decorator) -> Program:
    """Channels stand last: TensorFlow has no other convolution on CPUs."""
    first = parameters(arrays)
    for name in ("0.weight", "3.weight"):
        first[name] = first[name].transpose(2, 3, 1, 0)
    dense = first["7.weight"].reshape(64, 64, 5, 5).transpose(0, 2, 3, 1)
    first["7.weight"] = dense.reshape(64, 1600)

    def block(params: Params, layer: str, x: Any) -> Any:
        x = tf.nn.conv2d(x, params[f"{layer}.weight"], 1, "VALID")
        x = tf.nn.relu(tf.nn.bias_add(x, params[f"{layer}.bias"]))
        return tf.nn.max_pool2d(x, 2, 2, "VALID")

    def loss_of(params: Params, x: Any, labels: Any) -> Any:
        x = block(params, "3", block(params, "0", x))
        dense = {name: value for name, value in params.items() if name[0] in "79"}
        return _classified(dense, tf.reshape(x, (-1, 1600)), labels)

    images = {**arrays, "inputs": arrays["inputs"].transpose(0, 1, 3, 4, 2)}
    return _training(images, compiled, loss_of, Adam, first)


def _layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, shift, scale, 1e-5)


def transformer(arrays: Arrays, compiled: Decorator) -> Program:
    def attention(params: Params, x: Any) -> Any:
        batch, length, width = x.shape
        flat = tf.reshape(x, (-1, width))
        weight = params["self_attn.in_proj_weight"]
        projected = tf.matmul(flat, weight, transpose_b=True) + params["self_attn.in_proj_bias"]
        heads = tf.reshape(projected, (batch, length, 3, 8, width // 8))
        q, k, v = tf.unstack(tf.transpose(heads, (2, 0, 3, 1, 4)))
        scores = tf.matmul(q, k, transpose_b=True) / (width // 8) ** 0.5
        values = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), (0, 2, 1, 3))
        out = _affine(params, "self_attn.out_proj", tf.reshape(values, (-1, width)))
        return tf.reshape(out, x.shape)

    def loss_of(params: Params, x: Any, target: Any) -> Any:
        def norm(name: str, x: Any) -> Any:
            return _layer_norm(x, params[f"{name}.weight"], params[f"{name}.bias"])

        x = x + attention(params, norm("norm1", x))
        flat = tf.reshape(norm("norm2", x), (-1, x.shape[-1]))
        hidden = tf.nn.gelu(_affine(params, "linear1", flat))
        x = x + tf.reshape(_affine(params, "linear2", hidden), x.shape)
        return _squared(x, target)

    return _training(arrays, compiled, loss_of, Sgd, parameters(arrays))


def lstm(arrays: Arrays, compiled: Decorator) -> Program:
    """One product for the inputs of all steps; the steps are unrolled."""

    def loss_of(params: Params, x: Any, target: Any) -> Any:
        steps, batch, width = x.shape
        flat = tf.reshape(x, (-1, width))
        gates = tf.matmul(flat, params["weight_ih_l0"], transpose_b=True)
        gates = gates + (params["bias_ih_l0"] + params["bias_hh_l0"])
        h = c = tf.zeros((batch, width))
        outputs = []
        for given in tf.unstack(tf.reshape(gates, (steps, batch, -1))):
            sums = given + tf.matmul(h, params["weight_hh_l0"], transpose_b=True)
            i, f, g, o = tf.split(sums, 4, axis=-1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            outputs.append(h)
        return _squared(tf.stack(outputs), target)

    return _training(arrays, compiled, loss_of, Sgd, parameters(arrays))


def black_scholes(arrays: Arrays, compiled: Decorator) -> Program:
    def step(price: Any, strike: Any, years: Any) -> Any:
        return models.black_scholes(tf.math, price, strike, years)

    names = ("price", "strike", "years")
    return Program(compiled(step), [tuple(tf.constant(arrays[name]) for name in names)])


def layernorm_gelu(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any, r: Any, scale: Any, shift: Any) -> Any:
        return r + tf.nn.gelu(_layer_norm(x, scale, shift))

    names = ("x", "r", "scale", "shift")
    return Program(compiled(step), [tuple(tf.constant(arrays[name]) for name in names)])


def chain(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any) -> Any:
        y = tf.tanh(x) * 2 + 1
        return y / tf.sqrt(y * y + 1)

    return Program(compiled(step), [(tf.constant(arrays["x"]),)])


def softmax(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any) -> Any:
        return tf.nn.softmax(x)

    return Program(compiled(step), [(tf.constant(arrays["x"]),)])


def matmul(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any, w: Any, b: Any) -> Any:
        return tf.nn.relu(tf.matmul(x, w) + b)

    return Program(compiled(step), [tuple(tf.constant(arrays[name]) for name in "xwb")])


def dispatch(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Any) -> Any:
        return x + 1

    return Program(compiled(step), [(tf.constant(arrays["x"]),)])
