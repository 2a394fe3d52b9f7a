"""Random matrix products as graphs: any strides, batches, sizes around the edges of tiles and of
blocks of K, with what is computed from their elements.

    case = generate(seed, threads)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphgen import Case, Generator

import dualgrad as dg
from dualgrad.compiler.ir.dims import Dim, product, sym, symbol_of
from dualgrad.compiler.ir.node import Graph, Node
from dualgrad.compiler.ops.slicing import slices
from dualgrad.runtime.dtype import bfloat16, float16, float32, float64, int32, int64

# around the heights and widths of tiles, of vectors from 2 to 16 lanes and of four of them
ROWS = (1, 2, 3, 5, 6, 7, 8, 12, 13, 14, 15, 16, 17, 27, 28, 29, 31, 42, 43)
COLUMNS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 96, 127, 129)
DEPTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100)
DEEP = (511, 512, 513, 1023, 1024, 1025, 1536, 1537)  # blocks along K
BATCHES = (0, 1, 1, 2, 3, 5, 9)
DTYPES = (float32,) * 8 + (float64, float64, float16, bfloat16, int64, int32)


def generate(seed: int, threads: int) -> Case:
    """The case of a seed; the program may use so many threads."""
    return ContractGenerator(seed).case(threads)


class ContractGenerator(Generator):
    """Draws one or two products and what follows them."""

    def graph(self) -> Graph:
        rng = self.rng
        self.dtype = rng.choice(DTYPES)
        m, n = self.size(ROWS), self.size(COLUMNS)
        k = self.size(DEEP if rng.random() < 0.2 else DEPTHS)
        if rng.random() < 0.3:
            return self.walked(n)
        if rng.random() < 0.06:
            m, k, n = rng.choice(((0, 3, 4), (3, 0, 4), (3, 4, 0), (150, 40, 130), (40, 600, 70)))
        batch = [(), ()] if rng.random() < 0.5 else self.batches()
        a, b = self.operand(batch[0], m, k), self.operand(batch[1], k, n)
        c = a @ b
        outputs = [c] if rng.random() < 0.5 else []
        if rng.random() < 0.75:
            outputs.append(self.after(c, n))
        if rng.random() < 0.25:
            outputs.append(
                self.operand(batch[0], n, m) @ c if rng.random() < 0.5 else c.transpose(-1, -2) @ c
            )
        outputs = [x for x in outputs if isinstance(x, Node)] or [c]
        return Graph(tuple(self.inputs), (), tuple(dict.fromkeys(outputs)), self.writes(outputs))

    def size(self, choices: tuple[int, ...]) -> Dim:
        n = self.rng.choice(choices)
        if n >= 2 and self.rng.random() < 0.2:
            size = sym(f"n{len(self.sizes)}")
            self.sizes[symbol_of(size)] = n
            return size
        return n

    def batches(self) -> list[tuple[Dim, ...]]:
        """Of the two operands; one of them may be repeated."""
        whole: tuple[Dim, ...] = self.rng.choice(((self.size(BATCHES),), (2, 3), (3,)))
        other = self.rng.choice((whole, whole, (), (1,) * len(whole), whole[1:]))
        return self.rng.sample((whole, other), 2)

    def operand(self, batch: tuple[Dim, ...], rows: Dim, cols: Dim) -> Any:
        """A batch of matrices: an input, transposed, a part of one, repeated, windows of a row,
        or something that is computed."""
        ways: tuple[Callable[[], Any], ...] = (
            lambda: self.new((*batch, rows, cols)),
            lambda: self.new((*batch, rows, cols)),
            lambda: self.new((*batch, cols, rows)).transpose(-1, -2),
            lambda: self.part(batch, rows, cols),
            lambda: self.new((*batch, 1, cols)).expand(*batch, rows, cols),
            lambda: dg.unfold(self.new((*batch, rows + cols - 1)), len(batch), cols, 1),
            lambda: self.moved(batch, rows, cols),
            lambda: dg.abs(self.new((*batch, rows, cols))),
        )
        try:
            return self.rng.choice(ways)()
        except (ValueError, TypeError, IndexError):  # e.g. no windows of size 0
            return self.new((*batch, rows, cols))

    def walked(self, n: Dim) -> Graph:
        """Products of windows: rows and columns of an operand are digits of several axes."""
        rng = self.rng
        m, k, x = self.digits()
        a = x.reshape(m, k)
        if rng.random() < 0.5:
            a = dg.relu(a)
        ways: tuple[Callable[[], Any], ...] = (
            lambda: a @ self.operand((), k, n),
            lambda: self.operand((), n, m) @ a,
            lambda: a.transpose(0, 1) @ self.operand((), m, n),
            lambda: a.reshape(1, m, k).expand(2, m, k) @ self.operand((2,), k, n),
            lambda: a @ a.transpose(0, 1) if self.number(m) < 80 else a.transpose(0, 1) @ a,
        )
        c = rng.choice(ways)()
        outputs = [c] if rng.random() < 0.6 else [dg.relu(c) * 0.5]
        return Graph(tuple(self.inputs), (), tuple(outputs), ())

    def digits(self) -> tuple[Dim, Dim, Any]:
        """A tensor of several axes, windows among them, whose first ones are rows."""
        rng = self.rng
        sides = [self.size((1, 2, 3, 4, 5, 8, 9, 17)) for _ in range(rng.choice((2, 3, 3, 4)))]
        x: Any = self.new(tuple(sides))
        for axis in range(len(sides)):
            if self.number(sides[axis]) >= 3 and rng.random() < 0.6:
                x = dg.unfold(x, axis, rng.choice((2, 3)), rng.choice((1, 1, 2)))
        order = list(range(x.ndim))
        rng.shuffle(order)
        if rng.random() < 0.3:
            order.sort()
        x = x.permute(*order)
        if rng.random() < 0.3 and all(isinstance(d, int) for d in x.shape):
            x = slices(x, tuple(slice(0, None, rng.choice((1, 1, 2))) for _ in order))
        cut = rng.randrange(1, x.ndim)
        return product(x.shape[:cut]), product(x.shape[cut:]), x

    def new(self, shape: tuple[Dim, ...]) -> Node:
        return self.add_input(shape, self.dtype)

    def part(self, batch: tuple[Dim, ...], rows: Dim, cols: Dim) -> Any:
        whole = self.new((*batch, rows * 2 + 1, cols + 3))
        last = (slice(1, None, 2), slice(2, -1))
        return slices(whole, (*(slice(None) for _ in batch), *last))

    def moved(self, batch: tuple[Dim, ...], rows: Dim, cols: Dim) -> Any:
        """The batch between rows and columns, as heads of attention lie."""
        if not batch:
            return dg.flip(self.new((rows, cols)), self.rng.choice((0, 1)))
        return self.new((*batch[:-1], rows, batch[-1], cols)).transpose(-2, -3)

    def after(self, c: Any, n: Dim) -> Any:
        """Something of the elements of a product."""
        row = self.add_input((n,), self.dtype)
        ways: tuple[Callable[[], Any], ...] = (
            lambda: dg.relu(c + row),
            lambda: c * 2 + c,
            lambda: dg.tanh(c),
            lambda: dg.softmax(c, -1),
            lambda: c.transpose(-1, -2) + 1,
            lambda: c.to(self.rng.choice((float64, float32, float16, int64))),
            lambda: c.sum(-1),
            lambda: dg.cumsum(c, -2),
            lambda: dg.cat([c, c], -1),
        )
        try:
            return self.rng.choice(ways)()
        except (ValueError, TypeError):
            return c + 1
