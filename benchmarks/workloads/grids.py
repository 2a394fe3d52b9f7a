"""Ops whose time depends on sizes: matrix products, convolutions, attention, large arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmarks.workloads.base import Array, Work, Workload, normal

_COLUMNS = 1024  # of large arrays


@dataclass(frozen=True)
class Product(Workload):
    """[batch,] rows x inner times inner x columns.

    what      where it comes from
    swapped   "a" or "b": the operand whose columns are consecutive in memory
    epilogue  with a bias for each column, and relu
    """

    name: ClassVar[str] = "product"
    what: str
    rows: int
    inner: int
    columns: int
    batch: int = 1
    swapped: str = ""
    epilogue: bool = False

    def title(self) -> str:
        batch = f"{self.batch} of " if self.batch > 1 else ""
        a, b = (f"{x}^T" if x in self.swapped else x for x in "ab")
        product = f"relu({a} {b} + c)" if self.epilogue else f"{a} {b}"
        return f"{self.what}: {batch}{self.rows}x{self.inner}x{self.columns}, {product}"

    def work(self) -> Work:
        rows, inner, columns = self.rows, self.inner, self.columns
        sizes = rows * inner + inner * columns + rows * columns
        flops = 2 * self.batch * rows * inner * columns
        return Work(flops, 4 * self.batch * sizes, "2 x batch x rows x inner x columns")

    def arrays(self) -> dict[str, Array]:
        batch = (self.batch,) if self.batch > 1 else ()
        shapes = {"a": (self.rows, self.inner), "b": (self.inner, self.columns)}
        out = {}
        for name, shape in shapes.items():
            swap = name in self.swapped
            stored = normal(*batch, *(shape[::-1] if swap else shape), seed=ord(name))
            out[f"{name}^T" if swap else name] = stored
        return out | ({"c": normal(self.columns)} if self.epilogue else {})


@dataclass(frozen=True)
class Convolution(Workload):
    """Of inputs [batch, channels, ...] with weights [outputs, channels / groups, ...].

    part  "forward", or which gradient alone: "weight", "input"
    size  of the input in each dimension; kernel, stride, padding: the same in each
    """

    name: ClassVar[str] = "convolution"
    tolerance: ClassVar[float] = 3e-5
    part: str
    batch: int
    channels: int
    size: tuple[int, ...]
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def title(self) -> str:
        size = "x".join(map(str, (self.batch, self.channels, *self.size)))
        window = "x".join([str(self.kernel)] * len(self.size))
        texts = [f"conv {size} to {self.outputs}, {window}"]
        texts += [f"stride {self.stride}"] * (self.stride > 1)
        texts += [f"padding {self.padding}"] * (self.padding > 0)
        texts += [f"{self.groups} groups"] * (self.groups > 1)
        return f"{', '.join(texts)}: {self.part}"

    def _output(self) -> tuple[int, ...]:
        places = [(n + 2 * self.padding - self.kernel) // self.stride + 1 for n in self.size]
        return (self.batch, self.outputs, *places)

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        window = (self.kernel,) * len(self.size)
        weight = (self.outputs, self.channels // self.groups, *window)
        return (self.batch, self.channels, *self.size), weight

    def work(self) -> Work:
        x, weight = self._shapes()
        output = math.prod(self._output())
        flops = 2 * output * math.prod(weight[1:])
        sizes = 4 * (math.prod(x) + math.prod(weight) + output)
        return Work(flops, sizes, "2 x outputs x window x channels of a group")

    def arrays(self) -> dict[str, Array]:
        x, weight = self._shapes()
        options = {"stride": self.stride, "padding": self.padding, "groups": self.groups}
        tensors = {"x": normal(*x), "weight": normal(*weight, seed=1)}
        if self.part != "forward":
            tensors["seed"] = normal(*self._output(), seed=2)
        return {
            **tensors,
            **{name: np.array(number) for name, number in options.items()},
            "part": np.array(self.part),
        }


@dataclass(frozen=True)
class Attention(Workload):
    """Scaled dot products of queries, keys and values [batch, heads, length, width]."""

    name: ClassVar[str] = "attention"
    tolerance: ClassVar[float] = 3e-5
    part: str
    batch: int
    heads: int
    length: int
    width: int
    causal: bool = False

    def title(self) -> str:
        size = "x".join(map(str, (self.batch, self.heads, self.length, self.width)))
        return f"attention {size}{', causal' if self.causal else ''}: {self.part}"

    def work(self) -> Work:
        pairs = self.batch * self.heads * self.length**2
        products = 2 if self.part == "forward" else 6
        sizes = 4 * self.batch * self.heads * self.length * self.width
        return Work(
            2 * products * pairs * self.width // (2 if self.causal else 1),
            sizes * (4 if self.part == "forward" else 8),
            "2 x (2 products forward, 4 backward) x batch x heads x length^2 x width",
        )

    def arrays(self) -> dict[str, Array]:
        shape = (self.batch, self.heads, self.length, self.width)
        tensors = dict(zip(("q", "k", "v", "seed"), normal(4, *shape), strict=True))
        if self.part == "forward":
            del tensors["seed"]
        return {**tensors, "causal": np.array(self.causal)}


@dataclass(frozen=True)
class Streaming(Workload):
    """A formula of `models.STREAMING` on so many rows of 1024 float32, without its gradient or
    with it; that has the sizes of a result."""

    name: ClassVar[str] = "streaming"
    formula: str
    rows: int = 1 << 15
    operands: int = 1
    results: int = 1  # of the size of an operand
    gradient: bool = False

    def title(self) -> str:
        part = "forward and backward" if self.gradient else "forward"
        return f"{self.formula}, {self.rows}x{_COLUMNS}: {part}"

    def work(self) -> Work:
        moved = self.operands + self.results + self.gradient
        return Work(0, 4 * moved * self.rows * _COLUMNS, "operands and result")

    def arrays(self) -> dict[str, Array]:
        shape = (self.operands + self.gradient, self.rows, _COLUMNS)
        names = ["x", "y"][: self.operands] + ["seed"] * self.gradient
        tensors = dict(zip(names, normal(*shape), strict=True))
        return {**tensors, "formula": np.array(self.formula)}
