"""Random graphs over the op library, with inputs, for tests that compare two ways to run them.

    case = generate(seed)       the same seed gives the same case

What an op refuses is dropped.  Sizes are numbers or symbols; inputs lie in memory with any
strides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from loopgen import fill
from support import Array

import dualgrad as dg
from dualgrad import functional
from dualgrad.compiler.grad import pullback
from dualgrad.compiler.ir.dims import Atom, Dim, ShapeEnv, evaluate, shape_env, sym, symbol_of
from dualgrad.compiler.ir.node import Graph, Node, input_node, scalar_node
from dualgrad.compiler.ir.types import Layouts, TensorType, contiguous_strides
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.ops.slicing import slices
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.dtype import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
)
from dualgrad.runtime.errors import DualgradError

LARGEST = 3000  # elements of a value
SIDES = (1, 1, 2, 3, 4, 5, 7, 8, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65)
DTYPES = (float32,) * 6 + (float64, float16, bfloat16, int64, int32, int8, uint8, bool_)
UNARY = (
    "exp", "tanh", "sigmoid", "neg", "abs", "square", "relu", "sin", "erf", "floor", "rsqrt",
    "reciprocal", "log", "sqrt", "sign", "cos", "expm1", "log1p",
)  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "hypot", "atan2", "pow")
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
REDUCE = ("sum", "mean", "max", "min", "prod", "var", "logsumexp", "any", "all")


@dataclass(frozen=True)
class Case:
    """A program, the memory of its inputs, and the numbers it is run with."""

    program: LoopProgram
    inputs: dict[str, Array]
    values: dict[Atom, int]
    numbers: tuple[float, ...]


def generate(seed: int, threads: int) -> Case:
    """The case of a seed; the program may use so many threads."""
    return Generator(seed).case(threads)


class Generator:
    """Draws one graph: inputs, then ops on what there is."""

    kinds: tuple[str, ...] = ()  # of ops; (): all

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.data = np.random.default_rng(seed)
        self.special = self.rng.random() < 0.15
        self.sizes: dict[Atom, int] = {}
        self.inputs: list[Node] = []
        self.layouts: list[tuple[Dim, ...] | None] = []
        self.values: list[Node] = []
        self.count = 0

    def case(self, threads: int) -> Case:
        with shape_env(ShapeEnv(self.sizes)):
            graph = self.graph()
            layouts: Layouts = tuple(self.layouts)
            program = lower(graph, layouts, "fuzz", threads)
        memory = {b.name: self.memory(b.dtype, b.size) for b in program.inputs}
        return Case(program, memory, self.sizes, (0.75, 3)[: len(graph.scalars)])

    def graph(self) -> Graph:
        for _ in range(self.rng.choice((1, 2, 2, 3))):
            self.input()
        scalars = (scalar_node(0, float), scalar_node(1, int)) if self.rng.random() < 0.2 else ()
        self.values += scalars
        ways = self.ways()
        for _ in range(self.rng.choice((1, 2, 4, 6, 9))):
            self.attempt(self.rng.choice(ways))
        computed = [x for x in self.values if x not in self.inputs and x not in scalars]
        if not computed:
            computed = [dg.exp(self.values[0].to(float32))]
        outputs = tuple(dict.fromkeys(computed[-self.rng.choice((1, 2, 3)) :]))
        return Graph(tuple(self.inputs), scalars, outputs, self.writes(computed))

    def ways(self) -> list[Callable[[], Any]]:
        names = self.kinds or [n for n in dir(Generator) if n.startswith("do_")]
        return [getattr(self, n) for n in names]

    def attempt(self, way: Callable[[], Any]) -> None:
        """Take what an op gives, if it takes what it is given."""
        try:
            new = way()
        except (DualgradError, ValueError, TypeError, IndexError):
            return
        for x in new if isinstance(new, tuple) else (new,):
            if isinstance(x, Node) and self.number(x.type.size) <= LARGEST:
                self.values.append(x)

    def writes(self, computed: list[Node]) -> tuple[tuple[Node, int], ...]:
        """Inputs that the program overwrites; their elements lie apart."""
        if self.rng.random() < 0.6:
            return ()
        out = []
        for k, x in enumerate(self.inputs):
            if 0 in (self.layouts[k] or ()):
                continue
            same = [v for v in computed if v.type.shape == x.shape and v.dtype is x.dtype]
            if same and self.rng.random() < 0.7:
                out.append((self.rng.choice(same), k))
        return tuple(out)

    # -- inputs -------------------------------------------------------------------------------

    def number(self, d: Dim) -> int:
        return evaluate(d, self.sizes)

    def side(self) -> Dim:
        n = self.rng.choice(SIDES)
        if n >= 2 and self.rng.random() < 0.15:
            size = sym(f"n{len(self.sizes)}")
            self.sizes[symbol_of(size)] = n
            return size
        return n if self.rng.random() < 0.98 else 0

    def shape(self) -> tuple[Dim, ...]:
        known = [x.shape for x in self.inputs]
        if known and self.rng.random() < 0.6:
            shape = list(self.rng.choice(known))
            kind = self.rng.random()
            if kind < 0.2:
                return tuple(1 if self.rng.random() < 0.4 else d for d in shape)
            if kind < 0.4:
                return tuple(shape[1:])
            if kind < 0.6:
                self.rng.shuffle(shape)
            return tuple(shape)
        return tuple(self.side() for _ in range(self.rng.choice((0, 1, 2, 2, 3, 4))))

    def input(self) -> None:
        shape = self.shape()
        while self.number(TensorType(shape, float32).size) > LARGEST:
            shape = shape[1:]
        self.add_input(shape, self.rng.choice(DTYPES))

    def add_input(self, shape: tuple[Dim, ...], dtype: DType) -> Node:
        node = input_node(len(self.inputs), TensorType(shape, dtype))
        self.inputs.append(node)
        self.layouts.append(self.strides(shape))
        self.values.append(node)
        return node

    def strides(self, shape: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
        """Row-major, or axes in any order, perhaps with gaps, perhaps repeated."""
        kind = self.rng.random()
        if kind < 0.5:
            return None
        step: Dim = self.rng.choice((1, 1, 2, 3))
        out: list[Dim] = [0] * len(shape)
        order = list(range(len(shape)))
        self.rng.shuffle(order)
        if kind < 0.6:
            order = order[1:]  # that axis has stride 0
        for axis in order:
            out[axis] = step
            step = step * shape[axis] + self.rng.choice((0, 0, 1, 3))
        return None if tuple(out) == contiguous_strides(shape) else tuple(out)

    def memory(self, dtype: DType, size: Dim) -> Array:
        return fill(self.data, dtype, self.number(size), self.special)

    # -- ops ----------------------------------------------------------------------------------

    def pick(self, floats: bool = False) -> Any:
        x = self.rng.choice(self.values[-6:])
        if floats and not x.dtype.is_float:
            return x.to(self.rng.choice((float32, float32, float64)))
        return x

    def axis(self, x: Node) -> int:
        return self.rng.randrange(x.ndim)

    def do_unary(self) -> Any:
        return getattr(dg, self.rng.choice(UNARY))(self.pick(True))

    def do_binary(self) -> Any:
        return getattr(dg, self.rng.choice(BINARY))(self.pick(), self.pick(True))

    def do_compare(self) -> Any:
        x, y = self.pick(), self.pick()
        test = getattr(dg, self.rng.choice(COMPARE))(x, y)
        return self.rng.choice((lambda: test, lambda: dg.where(test, x, y)))()

    def do_number(self) -> Any:
        number = self.rng.choice((2, 0.5, -1.25, -0.0, True))
        x, f = self.pick(), getattr(dg, self.rng.choice(BINARY[:6]))
        return f(x, number) if self.rng.random() < 0.5 else f(number, x)

    def do_cast(self) -> Any:
        x, target = self.pick(), self.rng.choice(DTYPES)
        if x.dtype.is_float and not target.is_float and target is not bool_:
            x = dg.where(dg.abs(x) < 100, dg.abs(x), 7.0)
        return x.to(target)

    def do_reduce(self) -> Any:
        x = self.pick()
        axes = tuple(k for k in range(x.ndim) if self.rng.random() < 0.5)
        f = getattr(dg, self.rng.choice(REDUCE))
        return f(x, axes or None, keepdims=self.rng.random() < 0.5)

    def do_position(self) -> Any:
        x = self.pick()
        f = self.rng.choice((dg.argmax, dg.argmin))
        return f(x, self.axis(x), keepdims=self.rng.random() < 0.5)

    def do_rows(self) -> Any:
        x = self.pick(True)
        axis = self.axis(x)
        ways: tuple[Callable[[], Any], ...] = (
            lambda: dg.softmax(x, axis),
            lambda: functional.log_softmax(x, axis),
            lambda: functional.layer_norm(x, x.shape[axis:]),
            lambda: functional.rms_norm(x, x.shape[axis:]),
            lambda: functional.gelu(x),
            lambda: functional.normalize(x, dim=axis),
        )
        return self.rng.choice(ways)()

    def do_scan(self) -> Any:
        x = self.pick()
        f = self.rng.choice((dg.cumsum, dg.cumprod, dg.cummax, dg.logcumsumexp))
        return f(x, self.axis(x))

    def do_view(self) -> Any:
        x = self.pick()
        axis, other = self.axis(x), self.axis(x)
        ways: tuple[Callable[[], Any], ...] = (
            lambda: x.flatten(),
            lambda: x.transpose(axis, other),
            lambda: x.unsqueeze(axis).expand(*x.shape[:axis], 3, *x.shape[axis:]),
            lambda: x.reshape(-1, x.shape[axis]),
            lambda: dg.flip(x, axis),
            lambda: dg.unfold(x, axis, self.rng.choice((2, 3)), self.rng.choice((1, 2))),
            lambda: dg.diagonal(x, self.rng.choice((-1, 0, 1))),
            lambda: x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :]),
        )
        return self.rng.choice(ways)()

    def do_slice(self) -> Any:
        x = self.pick()
        parts = [slice(None)] * x.ndim
        step = self.rng.choice((1, 1, 2, 3))
        parts[self.axis(x)] = slice(self.rng.choice((None, 0, 1, 2)), None, step)
        return slices(x, tuple(parts))

    def do_join(self) -> Any:
        x, y = self.pick(), self.pick()
        axis = self.axis(x)
        ways: tuple[Callable[[], Any], ...] = (
            lambda: dg.cat([x, y.to(x.dtype)], axis),
            lambda: dg.cat([x, dg.exp(x), x], axis),
            lambda: dg.stack([x, x], axis),
            lambda: dg.roll(x, 2, axis),
            lambda: functional.pad(x, (1, 2)),
            lambda: dg.tril(x),
        )
        return self.rng.choice(ways)()

    def do_gather(self) -> Any:
        """Reads and updates at computed places, a few of which may lie outside."""
        x = self.pick()
        axis, wrong = self.axis(x), self.rng.random() < 0.05
        n = self.number(x.shape[axis])
        source = self.pick(True)
        found = dg.where(dg.abs(source) < 2, dg.abs(source), 0.5) / 2.0 * (n + wrong)
        index = dg.minimum(found.to(int64), n - 1 + wrong)
        ways: tuple[Callable[[], Any], ...] = (
            lambda: dg.index_select(x, axis, index.flatten()),
            lambda: dg.take(x, index),
            lambda: dg.gather(x, axis, index) if self.fits(index, x, axis) else None,
            lambda: dg.index_add(x, axis, index.flatten(), dg.index_select(
                x, axis, index.flatten())),
            lambda: functional.embedding(index, x),
            lambda: functional.one_hot(index, n),
        )  # fmt: skip
        return self.rng.choice(ways)()

    def fits(self, index: Node, x: Node, axis: int) -> bool:
        """Whether an index is nowhere larger than x, but along the axis."""
        pairs = enumerate(zip(index.shape, x.shape, strict=True))
        return all(k == axis or self.number(n) <= self.number(m) for k, (n, m) in pairs)

    def do_product(self) -> Any:
        x, y = self.pick(True), self.pick(True)
        ways: tuple[Callable[[], Any], ...] = (
            lambda: x @ y,
            lambda: x @ y.transpose(-1, -2),
            lambda: x.transpose(-1, -2) @ x,
            lambda: dg.exp(x @ x.transpose(-1, -2)) + 1.0,
            lambda: dg.tensordot(x, x, x.ndim - 1),
            lambda: functional.linear(x, y),
        )
        return self.rng.choice(ways)()

    def do_gradient(self) -> Any:
        """What the sum of the squares of a value gives for an input."""
        x = self.pick(True)
        wanted = tuple(i for i in self.inputs if i.dtype.is_float)
        grads = pullback((x,), (dg.tanh(x),), wanted)
        return tuple(g for g in grads if g is not None)
