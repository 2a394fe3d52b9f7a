"""Random small networks with a loss, its gradients and updates, as functions of tensors.

    net = generate(seed)        the same seed gives the same network
    net.steps(compile)          what two steps give, with `compile` around each

Layers are chosen for the shape at hand: convolutions and pooling of images in one to three
dimensions, attention and recurrences on sequences, products and normalizations on rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from support import Array

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn, optim
from dualgrad.compiler.ir.node import input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.runtime.dtype import float32

SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17)
WIDTHS = (1, 2, 3, 5, 8, 15, 16, 17, 33)
CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
MAXIMA = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
MEANS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
LARGEST = 6000  # elements of an activation


@dataclass
class Net:
    """A function of weights and inputs; the weights are leaves."""

    shapes: list[tuple[int, ...]]  # of the weights
    layers: list[Callable[[Any, list[Any]], Any]]
    input: Array
    seed: int
    update: str
    dtype: Any

    def weights(self) -> list[Any]:
        rng = np.random.default_rng(self.seed)
        arrays = [rng.standard_normal(s).astype(np.float32) * 0.4 for s in self.shapes]
        return [nn.Parameter(dg.tensor(x).to(self.dtype)) for x in arrays]

    def arguments(self) -> Any:
        """Fresh tensors: the input and the weights."""
        return dg.tensor(self.input).to(self.dtype).requires_grad_(), self.weights()

    def steps(self, compile: Callable[[Any], Any]) -> list[Any]:
        """What two steps give, and leave in the weights."""
        x, weights = self.arguments()
        optimizer = getattr(optim, self.update)(weights, lr=0.05) if weights else None
        layers = self.layers

        def step() -> Any:
            x.grad = None
            for w in weights:
                w.grad = None
            y = x
            for layer in layers:
                y = layer(y, weights)
            loss = (y * dg.tanh(y)).mean()
            loss.backward()
            if optimizer is not None:
                optimizer.step()
            return y.detach(), loss.detach(), x.grad, [w.grad for w in weights]

        function = compile(step)
        results = [function(), function()]
        flat = [t for y, loss, g, gs in results for t in (y, loss, g, *gs)]
        return [None if t is None else t.detach().numpy().copy() for t in (*flat, *weights)]


def generate(seed: int) -> Net:
    """The network of a seed."""
    return Generator(seed).net()


class Generator:
    """Chooses layers one after another; `shape` is that of the activation."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.shapes: list[tuple[int, ...]] = []
        self.layers: list[Callable[[Any, list[Any]], Any]] = []

    def net(self) -> Net:
        rng = self.rng
        image = rng.random() < 0.5
        shape = self.image() if image else self.sequence()
        dtype = rng.choice((dg.float32,) * 6 + (dg.float64, dg.float16, dg.bfloat16))
        update = rng.choice(("SGD", "Adam", "RMSprop"))
        data = np.random.default_rng(self.seed).standard_normal(shape).astype(np.float32)
        self.shape = shape
        ways = [self.convolution] * 3 + [self.pool, self.transposed, self.depthwise, self.channels]
        ways = ways if image else [self.attention, self.recurrence, self.linear, self.rows]
        for _ in range(rng.choice((1, 1, 2, 3))):
            self.add(rng.choice([*ways, self.pointwise]))
        if image and rng.random() < 0.3:
            n = self.shape[0]
            self.layers.append(lambda y, w: y.reshape(n, -1))
            self.shape = (n, int(np.prod(self.shape[1:])))
            self.add(self.linear)
        return Net(self.shapes, self.layers, data, self.seed, update, dtype)

    def image(self) -> tuple[int, ...]:
        axes = self.rng.choice((1, 2, 2, 2, 3))
        sides = [self.rng.choice(SIDES[: (11, 11, 6)[axes - 1]]) for _ in range(axes)]
        return (self.rng.choice((1, 2, 3, 5)), self.rng.choice((1, 2, 3, 4, 6, 8)), *sides)

    def sequence(self) -> tuple[int, ...]:
        return tuple(self.rng.choice(x) for x in ((1, 2, 3), (1, 2, 5, 17, 33), (2, 4, 8, 12, 16)))

    def add(self, way: Callable[[], Callable[[Any, list[Any]], Any] | None]) -> None:
        """Add a layer unless it refuses the shape at hand."""
        known = len(self.shapes)
        layer = way()
        if layer is None:
            return
        nodes = [
            input_node(i, TensorType(s, float32)) for i, s in enumerate((self.shape, *self.shapes))
        ]
        try:
            shape = layer(nodes[0], nodes[1:]).shape
        except (ValueError, TypeError, IndexError):
            del self.shapes[known:]
            return
        if 0 in shape or np.prod(shape) > LARGEST:
            del self.shapes[known:]
            return
        self.shape = tuple(shape)
        self.layers.append(layer)

    def weight(self, *shape: int) -> int:
        """The number of a new weight."""
        self.shapes.append(shape)
        return len(self.shapes) - 1

    # -- images -------------------------------------------------------------------------------

    def each(self, choices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.rng.choice(choices) for _ in self.shape[2:])

    def convolution(self) -> Any:
        rng, f = self.rng, CONVOLUTIONS[len(self.shape) - 3]
        channels = self.shape[1]
        groups = rng.choice([g for g in (1, 1, 1, 2, 3, channels) if channels % g == 0])
        out = groups * rng.choice((1, 2, 3, 5, 8, 17))
        k = self.weight(out, channels // groups, *self.each((1, 2, 3, 3, 5)))
        b = self.weight(out) if rng.random() < 0.6 else None
        options = {
            "stride": self.each((1, 1, 1, 2, 3)),
            "padding": self.each((0, 1, 2)),
            "dilation": self.each((1, 1, 2)),
            "groups": groups,
        }
        return lambda y, w: f(y, w[k], None if b is None else w[b], **options)

    def depthwise(self) -> Any:
        f, channels = CONVOLUTIONS[len(self.shape) - 3], self.shape[1]
        k = self.weight(channels, 1, *self.each((1, 3)))
        options = {"stride": self.each((1, 2)), "padding": self.each((0, 1))}
        return lambda y, w: f(y, w[k], groups=channels, **options)

    def transposed(self) -> Any:
        rng, f = self.rng, TRANSPOSED[len(self.shape) - 3]
        k = self.weight(self.shape[1], rng.choice((1, 3, 4)), *self.each((1, 2, 3)))
        options = {"stride": self.each((1, 2)), "padding": self.each((0, 1))}
        return lambda y, w: f(y, w[k], **options)

    def pool(self) -> Any:
        rng, axes = self.rng, len(self.shape) - 3
        f = rng.choice((MAXIMA[axes], MEANS[axes]))
        options: dict[str, Any] = {"stride": self.each((1, 2, 3)), "padding": self.each((0, 0, 1))}
        size = self.each((2, 3))
        if rng.random() < 0.3:
            options["ceil_mode"] = True
        return lambda y, w: f(y, size, **options)

    def channels(self) -> Any:
        rng, c = self.rng, self.shape[1]
        k, b = self.weight(c), self.weight(c)
        groups = rng.choice([g for g in (1, 2, 3, c) if c % g == 0])
        return rng.choice(
            (
                lambda y, w: F.group_norm(y, groups, w[k], w[b]),
                lambda y, w: F.batch_norm(y, None, None, w[k], w[b], training=True),
            )
        )

    # -- sequences ----------------------------------------------------------------------------

    def attention(self) -> Any:
        rng, (n, length, width) = self.rng, self.shape
        heads = rng.choice([h for h in (1, 2, 4) if width % h == 0])
        ks = [self.weight(width, width) for _ in range(4)]
        causal, masked = rng.random() < 0.5, rng.random() < 0.3
        mask = np.random.default_rng(self.seed).random((length, length)) < 0.7
        shown = None if causal or not masked else dg.tensor(mask | np.eye(length, dtype=bool))

        def layer(y: Any, w: list[Any]) -> Any:
            parts = [(y @ w[k]).reshape(n, length, heads, -1).transpose(1, 2) for k in ks[:3]]
            out = F.scaled_dot_product_attention(
                *parts, attn_mask=shown if isinstance(y, dg.Tensor) else None, is_causal=causal
            )
            return y + out.transpose(1, 2).reshape(n, length, width) @ w[ks[3]]

        return layer

    def recurrence(self) -> Any:
        """A few steps of a cell over the second axis."""
        width, hidden = self.shape[2], self.rng.choice((3, 8, 16))
        length = min(self.shape[1], 7)
        a, b = self.weight(width, 4 * hidden), self.weight(hidden, 4 * hidden)
        c = self.weight(4 * hidden)

        def layer(y: Any, w: list[Any]) -> Any:
            h = s = dg.narrow(y @ w[a], 2, 0, hidden).mean(1) * 0.0
            out = []
            for t in range(length):
                i, f, g, o = dg.split(dg.select(y, 1, t) @ w[a] + h @ w[b] + w[c], hidden, 1)
                s = dg.sigmoid(f) * s + dg.sigmoid(i) * dg.tanh(g)
                h = dg.sigmoid(o) * dg.tanh(s)
                out.append(h)
            return dg.stack(out, 1)

        return layer

    def linear(self) -> Any:
        k, n = self.weight(self.rng.choice(WIDTHS), self.shape[-1]), len(self.shapes)
        b = self.weight(self.shapes[k][0]) if self.rng.random() < 0.7 else None
        assert n == k + 1
        act = self.rng.choice((F.relu, F.gelu, dg.tanh, lambda y: y))
        return lambda y, w: act(F.linear(y, w[k], None if b is None else w[b]))

    def rows(self) -> Any:
        width = self.shape[-1]
        k, b = self.weight(width), self.weight(width)
        return self.rng.choice(
            (
                lambda y, w: y + F.gelu(F.layer_norm(y, (width,), w[k], w[b])),
                lambda y, w: F.rms_norm(y, (width,), w[k]) + w[b],
                lambda y, w: F.log_softmax(y * w[k] + w[b], -1),
                lambda y, w: dg.cumsum(y * w[k], 1) + w[b],
                lambda y, w: dg.logsumexp(y * w[k] + w[b], -1, keepdims=True) + y,
            )
        )

    def pointwise(self) -> Any:
        return self.rng.choice(
            (
                lambda y, w: F.relu(y),
                lambda y, w: F.silu(y) * 0.5,
                lambda y, w: dg.tanh(y) + y,
                lambda y, w: y.transpose(0, -1) * 1.5,
            )
        )
