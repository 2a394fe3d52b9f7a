"""Random chains of batched products and what stands between them, as in attention: item by item,
over all items, or across them.

    case = generate(seed, threads)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphgen import Case, Generator

import dualgrad as dg
from dualgrad.compiler.ir.node import Graph, Node
from dualgrad.compiler.ops.slicing import slices
from dualgrad.runtime.dtype import float16, float32, float64

BATCHES = (2, 3, 4, 5, 6, 8, 10, 20, 24)
SIDES = (1, 2, 3, 4, 5, 8, 12, 16, 17, 32, 33, 64, 65)


def generate(seed: int, threads: int) -> Case:
    """The case of a seed; the program may use so many threads."""
    return ChainGenerator(seed).case(threads)


class ChainGenerator(Generator):
    """Every value has the shape [batch, rows, columns], or one that broadcasts to such a one."""

    def graph(self) -> Graph:
        rng = self.rng
        self.dtype = rng.choice((float32, float32, float32, float64, float16))
        self.batch = rng.choice(BATCHES)
        value = self.operand(rng.choice(SIDES), rng.choice(SIDES))
        self.made: list[Any] = [value]
        for _ in range(rng.choice((2, 3, 5, 8, 10))):
            value = self.next(rng.choice(self.made[-3:]))
            if self.number(value.type.size) <= 20_000 and value.ndim == 3:
                self.made.append(value)
        computed = [x for x in self.made if x not in self.inputs] or [dg.exp(self.made[0])]
        outputs = [computed[-1], *(x for x in computed[:-1] if rng.random() < 0.2)]
        return Graph(tuple(self.inputs), (), tuple(dict.fromkeys(outputs)), self.writes(computed))

    def new(self, *shape: int) -> Node:
        return self.add_input(shape, self.dtype)

    def operand(self, rows: int, cols: int) -> Any:
        """A matrix for each item: an input, heads beside each other, repeated, or of all items."""
        batch = self.batch
        heads = self.rng.choice([h for h in (1, 2, 3, 4, 5) if batch % h == 0])
        ways: tuple[Callable[[], Any], ...] = (
            lambda: self.new(batch, rows, cols),
            lambda: self.new(batch, cols, rows).transpose(1, 2),
            lambda: (
                self.new(batch // heads, rows, heads, cols)
                .transpose(1, 2)
                .reshape(batch, rows, cols)
            ),
            lambda: self.new(rows, batch, cols).transpose(0, 1),
            lambda: self.new(1, rows, cols).expand(batch, rows, cols),
            lambda: self.new(batch, rows, cols) * 0.5,
            lambda: slices(self.new(batch, rows + 2, cols), (slice(None), slice(1, -1))),
        )
        return self.rng.choice(ways)()

    def next(self, x: Any) -> Any:
        rng = self.rng
        batch, rows, cols = x.shape
        if batch != self.batch:
            return dg.tanh(x.expand(self.batch, rows, cols))
        others = [y for y in self.made if y.shape == x.shape]
        same = [y for y in self.made if y.shape[0] == batch and y.shape[1] == cols]
        heads = rng.choice([h for h in (1, 2, 3, 4, 5) if batch % h == 0])
        products: tuple[Callable[[], Any], ...] = (
            lambda: x @ self.operand(cols, rng.choice(SIDES)),
            lambda: self.operand(rng.choice(SIDES), rows) @ x,
            lambda: x @ x.transpose(1, 2),
            lambda: x.transpose(1, 2) @ x,
            lambda: x @ rng.choice(same) if same else x @ x.transpose(1, 2),
        )
        rest: tuple[Callable[[], Any], ...] = (
            lambda: dg.softmax(x, 2),
            lambda: dg.softmax(x * 0.25, 1),
            lambda: dg.relu(x) + self.new(cols),
            lambda: x + self.operand(rows, cols),
            lambda: x - x.mean(2, keepdims=True),
            lambda: x - x.max(1, keepdims=True),
            lambda: x + rng.choice(others) * 0.5,
            lambda: dg.tanh(x).transpose(1, 2) * 2.0,
            lambda: dg.flip(x, 0) + x,
            lambda: x * 0.5 + x.mean(0, keepdims=True),
            lambda: dg.cumsum(x, rng.choice((1, 2))),
            lambda: dg.where(self.new(1, rows, cols) > 0, x, -1.0),
            lambda: dg.exp(-dg.abs(x)).reshape(batch, cols, rows),
            lambda: (
                dg.tanh(
                    x.reshape(batch // heads, heads, rows, cols)
                    .transpose(1, 2)
                    .reshape(1, batch // heads * rows, heads * cols)
                )
                .reshape(batch // heads, rows, heads, cols)
                .transpose(1, 2)
                .reshape(batch, rows, cols)
            ),
            lambda: self.mixed(x),
        )
        return rng.choice(products if rng.random() < 0.45 else rest)()

    def mixed(self, x: Any) -> Any:
        """All rows of all items by one matrix, and back."""
        batch, rows, cols = x.shape
        out = x.reshape(batch * rows, cols) @ self.new(cols, cols)
        return out.reshape(batch, rows, cols) + x
