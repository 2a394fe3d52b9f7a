"""Random programs of joined tensors: parts of every kind of kernel, along any axis, parts of
parts, parts that others read too.

    case = generate(seed, threads)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphgen import Case, Generator

import dualgrad as dg
from dualgrad import functional
from dualgrad.compiler.ir.node import Graph, Node
from dualgrad.compiler.ops.slicing import slices
from dualgrad.runtime.dtype import float16, float32, float64, int32

SIDES = (1, 2, 3, 4, 5, 8, 16, 17, 33, 65)
LONG = (1, 2, 3, 9, 64, 65, 300)  # of an axis that is summed


def generate(seed: int, threads: int) -> Case:
    """The case of a seed; the program may use so many threads."""
    return JoinGenerator(seed).case(threads)


class JoinGenerator(Generator):
    """Parts are made for the places that they have to fill; `made` holds what was computed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.made: list[Any] = []

    def graph(self) -> Graph:
        rng = self.rng
        self.dtype = rng.choice((float32, float32, float32, float64, float16, int32))
        whole = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            shape = tuple(rng.choice(SIDES) for _ in range(rng.choice((1, 2, 2, 3))))
            while math.prod(shape) > 1200:
                shape = shape[1:]
            whole.append(self.join(shape, rng.choice((1, 1, 2))))
        outputs = [self.after(x) if rng.random() < 0.4 else x for x in whole]
        outputs += [x for x in self.made if rng.random() < 0.2]
        return Graph(tuple(self.inputs), (), tuple(dict.fromkeys(outputs)), self.writes(outputs))

    def join(self, shape: tuple[int, ...], depth: int) -> Any:
        """Parts beside each other, or stacked; the parts of which may be joined themselves."""
        rng, axis = self.rng, self.rng.randrange(len(shape))
        count = rng.choice((2, 2, 3, 4))
        if rng.random() < 0.3:
            parts = [self.part(shape, depth - 1) for _ in range(count)]
            return dg.stack(parts, rng.randrange(len(shape) + 1))
        widths = [rng.choice((1, 2, 3, shape[axis])) for _ in range(count)]
        return dg.cat(
            [self.part((*shape[:axis], n, *shape[axis + 1 :]), depth - 1) for n in widths], axis
        )

    def part(self, shape: tuple[int, ...], depth: int) -> Any:
        """Something of a shape: joined, computed by a kernel of some kind, an input, or a part
        that has been made before."""
        rng = self.rng
        same = [x for x in self.made if x.shape == shape]
        if same and rng.random() < 0.25:
            return rng.choice(same)
        kind = rng.random()
        if depth > 0 and kind < 0.4:
            whole = self.join(shape, depth)
            if whole.shape == shape:
                return whole
            self.made.append(whole)
        if kind > 0.9:
            return self.new(shape)
        found = rng.choice(self.kinds_of(shape))()
        self.made.append(found)
        return found

    def kinds_of(self, shape: tuple[int, ...]) -> tuple[Callable[[], Any], ...]:
        rng, n, k = self.rng, self.rng.choice(LONG), self.rng.choice((1, 3, 16, 33))
        at = rng.randrange(len(shape) + 1)
        long = (*shape[:at], n, *shape[at:])
        sums = (lambda: self.new(long).sum(at), lambda: self.new(long).max(at))
        ways: tuple[Callable[[], Any], ...] = (
            *sums,
            *sums,
            lambda: self.new(shape) * 2 + self.new(shape[-1:]),
            lambda: self.new(shape[::-1]).permute(*reversed(range(len(shape)))) + 1,
            lambda: dg.cumsum(self.new(shape), rng.randrange(len(shape))),
            lambda: slices(self.new((shape[0] + 3, *shape[1:])) * 2, (slice(2, -1),)),
            lambda: (self.new((*shape, 2)) * 3).sum(-1).reshape(*shape),
            lambda: dg.flip(self.new(shape), 0),
        )
        if len(shape) >= 2:
            a, b = (*shape[:-1], k), (*shape[:-2], k, shape[-1])
            ways += (lambda: self.new(a) @ self.new(b), lambda: self.new(a) @ self.new(b) + 1)
        if self.dtype.is_float:
            ways += (
                lambda: dg.softmax(self.new(shape), rng.randrange(len(shape))),
                lambda: dg.tanh(self.new(shape)),
            )
        return ways

    def new(self, shape: tuple[int, ...]) -> Node:
        return self.add_input(shape, self.dtype)

    def after(self, x: Any) -> Any:
        rng = self.rng
        axis = rng.randrange(x.ndim)
        ways: tuple[Callable[[], Any], ...] = (
            lambda: x * 2 + x,
            lambda: x.sum(axis),
            lambda: functional.pad(x, (1, 2)),
            lambda: dg.cat([x, x * x], axis),
            lambda: x.transpose(0, -1) + 1,
            lambda: x.reshape(-1) - 1,
        )
        return rng.choice(ways)()
