"""The workloads: names, inputs, and how closely other libraries must agree.

How a framework computes one stands under the workload's name in `benchmarks/steps`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from dualgrad import data

Array = np.ndarray[Any, Any]
BATCH = 128
BATCHES = 16


class Workload(ABC):
    """One row group of the table.

    name       on the command line, and of the functions in `benchmarks/steps`
    tolerance  largest difference from dualgrad that other libraries may have, relative to the
               largest number of the result
    lacking    frameworks that have no natural way to say it
    """

    name: ClassVar[str]
    lacking: ClassVar[tuple[str, ...]] = ()
    tolerance: ClassVar[float] = 1e-5
    known: ClassVar[dict[str, type[Workload]]] = {}

    def __init_subclass__(cls) -> None:
        Workload.known[cls.name] = cls

    @abstractmethod
    def title(self) -> str:
        """One line that says what is computed."""

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """Inputs and first values, the same for all frameworks."""


def _normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


class Mlp(Workload):
    name = "mlp"
    lacking = ("numpy",)
    # the first updates of RMSprop are sign(gradient) / 10, so last digits weigh more than usual
    tolerance = 1e-3

    def __init__(self) -> None:
        self.real = data.find_mnist() is not None

    def title(self) -> str:
        digits = "MNIST" if self.real else "synthetic digits"
        return f"training step: 784-512-10 ReLU, cross-entropy, RMSprop, batch {BATCH}, {digits}"

    def arrays(self) -> dict[str, Array]:
        count = BATCH * BATCHES
        digits = data.mnist()[0] if self.real else data.synthetic_digits(count)
        images, labels = (t.numpy()[:count] for t in digits.tensors)
        random = np.random.default_rng(0)

        def layer(inputs: int, outputs: int) -> tuple[Array, Array]:
            bound = inputs**-0.5
            weight = random.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
            return weight, random.uniform(-bound, bound, outputs).astype(np.float32)

        (w1, b1), (w2, b2) = layer(784, 512), layer(512, 10)
        return {
            "images": images.reshape(BATCHES, BATCH, 784),
            "labels": labels.reshape(BATCHES, BATCH),
            "w1": w1, "b1": b1, "w2": w2, "b2": b2,
        }  # fmt: skip


class Chain(Workload):
    name = "chain"

    def title(self) -> str:
        return "y = tanh(x) * 2 + 1, y / sqrt(y * y + 1): 7 ops on 1 000 000 float32"

    def arrays(self) -> dict[str, Array]:
        return {"x": _normal(1_000_000)}


class Softmax(Workload):
    name = "softmax"

    def title(self) -> str:
        return "softmax of the rows of 4096 x 1024 float32"

    def arrays(self) -> dict[str, Array]:
        return {"x": _normal(4096, 1024)}


class Matmul(Workload):
    name = "matmul"

    def title(self) -> str:
        return "relu(x @ w + b): 512 x 512 x 512 float32"

    def arrays(self) -> dict[str, Array]:
        x, w = _normal(2, 512, 512)
        return {"x": x, "w": w, "b": _normal(512)}


class Dispatch(Workload):
    name = "dispatch"

    def title(self) -> str:
        return "x + 1 on 4 float32: what a call costs"

    def arrays(self) -> dict[str, Array]:
        return {"x": _normal(4)}
