"""Training steps: forward, backward, and the optimizer's update.

Their arrays are "inputs" and "targets", each a stack of batches that are used in turn, and first
values of the parameters.  These bear the names and have the shapes that the model's layers give
them in PyTorch and dualgrad alike; see `benchmarks/steps/models.py`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from itertools import pairwise
from typing import ClassVar

import numpy as np

from benchmarks.program import PARAMETER
from benchmarks.workloads.base import Array, Work, Workload, normal
from dualgrad import data

Shapes = dict[str, tuple[int, ...]]
BATCHES = 16


class Training(Workload):
    """A training step; the loss is the cross-entropy of classes, or else the mean squared error.

    model     what is trained, and how, as the title has it
    batch     samples of a step
    averages  numbers that the optimizer keeps for each parameter
    """

    lacking: ClassVar[tuple[str, ...]] = ("numpy",)
    model: ClassVar[str]
    batch: ClassVar[int]
    averages: ClassVar[int] = 0

    def title(self) -> str:
        return f"training step: {self.model}, batch {self.batch}"

    @abstractmethod
    def shapes(self) -> Shapes:
        """Shapes of the parameters by their names."""

    @abstractmethod
    def samples(self) -> tuple[Array, Array]:
        """Inputs and targets."""

    @abstractmethod
    def multiply_adds(self) -> tuple[int, int]:
        """Of the forward pass; and those among them whose input needs no gradient."""

    def work(self) -> Work:
        forward, first = self.multiply_adds()
        params = sum(math.prod(shape) for shape in self.shapes().values())
        inputs, targets = self.samples()
        sizes = inputs[0].nbytes + targets[0].nbytes + 8 * params * (1 + self.averages)
        return Work(
            2 * (3 * forward - first),
            sizes,
            "each multiply-add forward, for the weights and for the inputs but the first; "
            "a batch read, parameters and averages read and written",
        )

    def arrays(self) -> dict[str, Array]:
        inputs, targets = self.samples()
        return {"inputs": inputs, "targets": targets, **first_values(self.shapes())}


def first_values(shapes: Shapes) -> dict[str, Array]:
    """Parameters as layers begin: scales of norms are 1; all else is uniform within the inverse
    root of the number of inputs."""
    random = np.random.default_rng(0)
    values, bound = {}, 1.0
    for name, shape in shapes.items():
        if len(shape) > 1:
            bound = float(np.prod(shape[1:])) ** -0.5
        ones = "norm" in name and name.endswith("weight")
        value = np.ones(shape) if ones else random.uniform(-bound, bound, shape)
        values[PARAMETER + name] = value.astype(np.float32)
    return values


def dense(*widths: int) -> Shapes:
    """Parameters of dense layers with an activation between each two, in nn.Sequential."""
    shapes: Shapes = {}
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes |= {f"{2 * i}.weight": (outputs, inputs), f"{2 * i}.bias": (outputs,)}
    return shapes


def dense_multiply_adds(batch: int, shapes: Shapes) -> tuple[int, int]:
    """Those of dense layers, and of the first of them."""
    sizes = [batch * math.prod(shape) for shape in shapes.values() if len(shape) > 1]
    return sum(sizes), sizes[0]


class Digits(Training):
    """A classifier of handwritten digits."""

    def __init__(self) -> None:
        self.real = data.find_mnist() is not None

    def title(self) -> str:
        return f"{super().title()}, {'MNIST' if self.real else 'synthetic digits'}"

    def samples(self) -> tuple[Array, Array]:
        count = self.batch * BATCHES
        digits = data.mnist()[0] if self.real else data.synthetic_digits(count)
        images, labels = (t.numpy()[:count] for t in digits.tensors)
        return images.reshape(BATCHES, self.batch, -1), labels.reshape(BATCHES, self.batch)


class Mlp(Digits):
    name = "mlp"
    model = "784-512-10 ReLU, cross-entropy, RMSprop"
    batch = 128
    averages = 1
    quick = True
    # the first updates of RMSprop are sign(gradient) / 10, so last digits weigh more than usual
    tolerance = 1e-3

    def shapes(self) -> Shapes:
        return dense(784, 512, 10)

    def multiply_adds(self) -> tuple[int, int]:
        return dense_multiply_adds(self.batch, self.shapes())


class Mlp3(Digits):
    name = "mlp3"
    model = "784-512-512-10 ReLU, SGD"
    batch = 64

    def shapes(self) -> Shapes:
        return dense(784, 512, 512, 10)

    def multiply_adds(self) -> tuple[int, int]:
        return dense_multiply_adds(self.batch, self.shapes())


class Tiny(Training):
    name = "tiny"
    model = "10-5-1 ReLU, SGD"
    batch = 1
    quick = True

    def shapes(self) -> Shapes:
        return dense(10, 5, 1)

    def multiply_adds(self) -> tuple[int, int]:
        return dense_multiply_adds(self.batch, self.shapes())

    def samples(self) -> tuple[Array, Array]:
        return normal(BATCHES, 1, 10), normal(BATCHES, 1, 1, seed=1)


class Cnn(Digits):
    name = "cnn"
    model = "(conv 3x3, ReLU, pool 2) 1-32-64, dense 64-10, Adam"
    batch = 128
    averages = 2
    # the first updates of Adam are sign(gradient) / 1000
    tolerance = 1e-3

    def shapes(self) -> Shapes:
        return {
            "0.weight": (32, 1, 3, 3), "0.bias": (32,),
            "3.weight": (64, 32, 3, 3), "3.bias": (64,),
            "7.weight": (64, 1600), "7.bias": (64,),
            "9.weight": (10, 64), "9.bias": (10,),
        }  # fmt: skip

    def multiply_adds(self) -> tuple[int, int]:
        first = 26 * 26 * 9 * 32
        return self.batch * (first + 11 * 11 * 9 * 32 * 64 + 1600 * 64 + 64 * 10), (
            self.batch * first
        )

    def samples(self) -> tuple[Array, Array]:
        images, labels = super().samples()
        return images.reshape(BATCHES, self.batch, 1, 28, 28), labels


class Transformer(Training):
    name = "transformer"
    model = "transformer block 128 x 256, 8 heads, MLP 1024, SGD"
    batch = 8
    tolerance = 1e-4
    length, width, hidden = 128, 256, 1024

    def shapes(self) -> Shapes:
        width, hidden = self.width, self.hidden
        return {
            "self_attn.in_proj_weight": (3 * width, width), "self_attn.in_proj_bias": (3 * width,),
            "self_attn.out_proj.weight": (width, width), "self_attn.out_proj.bias": (width,),
            "linear1.weight": (hidden, width), "linear1.bias": (hidden,),
            "linear2.weight": (width, hidden), "linear2.bias": (width,),
            "norm1.weight": (width,), "norm1.bias": (width,),
            "norm2.weight": (width,), "norm2.bias": (width,),
        }  # fmt: skip

    def multiply_adds(self) -> tuple[int, int]:
        rows, width = self.batch * self.length, self.width
        dense = rows * width * (4 * width + 2 * self.hidden)
        return dense + 2 * rows * self.length * width, 0

    def samples(self) -> tuple[Array, Array]:
        shape = (4, self.batch, self.length, self.width)
        return normal(*shape), normal(*shape, seed=1)


class Lstm(Training):
    name = "lstm"
    model = "LSTM 128-128 over 64 steps, SGD"
    batch = 64
    lacking = ("numpy", "TF XLA")  # it compiles 64 unrolled steps for minutes
    steps, width = 64, 128

    def shapes(self) -> Shapes:
        gates, width = 4 * self.width, self.width
        return {
            "weight_ih_l0": (gates, width), "weight_hh_l0": (gates, width),
            "bias_ih_l0": (gates,), "bias_hh_l0": (gates,),
        }  # fmt: skip

    def multiply_adds(self) -> tuple[int, int]:
        inputs = self.steps * self.batch * 4 * self.width * self.width
        return 2 * inputs, inputs

    def samples(self) -> tuple[Array, Array]:
        shape = (4, self.steps, self.batch, self.width)
        return normal(*shape), normal(*shape, seed=1)
