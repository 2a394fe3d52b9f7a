"""Random valid kernels for a GPU: those of `loopgen` in grid and block loops, and kernels whose
iterations are more than one store."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from loopgen import LONG, SHORT, Case, Generator, Scope, fill

from dualgrad.compiler.ir.dims import Dim, Expr
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.ir import Accumulator, Buffer, If, Kernel, Loop, Stmt, Store
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import bool_


def generate(seed: int) -> Case:
    """The case of a seed."""
    return GpuGenerator(seed).case()


class GpuGenerator(Generator):
    """Makes one case for a GPU."""

    def case(self) -> Case:
        rows = [self.row] * 3
        make = self.rng.choice([self.map, *rows, self.column, self.steps, self.meeting])
        kernel = Kernel("k", spread(tuple(make())))
        return Case(
            kernel, tuple(self.inputs), tuple(self.outputs), self.sizes, self.params, self.arrays
        )

    def nest(self, loops: list[tuple[Expr, Dim]], body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        for var, extent in reversed(loops):
            body = (Loop("grid", var, extent, body),)
        return body

    def read_back(self, scope: Scope) -> list[Scalar]:
        """Nothing: no statement of a team touches what another one stores."""
        return []

    def accumulator(self, scope: Scope, inside: Scope, order: str) -> Accumulator:
        """In lanes the initial state changes nothing that it is combined with."""
        made = super().accumulator(scope, inside, order)
        if order != "lanes":
            return made
        pairs = [self.neutral(x, y) for x, y in zip(made.left, made.right, strict=True)]
        init, combine = zip(*pairs, strict=True)
        return replace(made, init=init, combine=combine)

    def neutral(self, left: Scalar, right: Scalar) -> tuple[Scalar, Scalar]:
        """A number, and a way to combine states for which it is neutral."""
        dtype = left.dtype
        if dtype is bool_:
            op, number = self.rng.choice([("and", True), ("or", False), ("xor", False)])
            return s.const(number, dtype), s.primitive(op, left, right)
        wide = [s.cast(x, dtype.compute) for x in (left, right)]
        least = -math.inf if dtype.is_float else int(np.iinfo(dtype.numpy).min)
        if self.rng.random() < 0.3:
            best = s.select((wide[0] >= wide[1]) | s.primitive("ne", wide[0], wide[0]), *wide)
            return s.const(least, dtype), s.cast(best, dtype)
        number = -0.0 if dtype.is_float else 0
        op, number = self.rng.choice([("add", number), ("mul", 1)])
        return s.const(number, dtype), s.cast(s.primitive(op, *wide), dtype)

    def row(self) -> tuple[Stmt, ...]:
        """Reductions over a row in lanes, block loops and stores that may use the totals."""
        loops = [self.variable(SHORT) for _ in range(self.rng.choice([0, 1, 2]))]
        scope = Scope([*loops])
        length = self.extent((*LONG, 257, 1000))
        body: list[Stmt] = []
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            body.append(self.reduction(scope, self.pass_over(length), "lanes"))
            if self.rng.random() < 0.6:
                inner = self.pass_over(length)
                body.append(Loop("block", *inner, self.statements(scope.inside(inner))))
            if self.rng.random() < 0.4:
                body.extend(self.statements(scope))
        return self.nest(loops, tuple(body))

    def steps(self) -> tuple[Stmt, ...]:
        """A serial loop in a thread: what a store finds depends on the iteration before it."""
        loops = [self.variable(SHORT) for _ in range(self.rng.choice([0, 1, 1]))]
        inner, step = self.variable(LONG), self.variable(SHORT)
        around = Scope([*loops, inner])
        first = self.store(around)
        old = s.load(first.buffer, first.index)
        scope = around.inside(step)
        new = self.cast(self.operation(scope, first.value.dtype, 1, True), first.value.dtype)
        both = self.update(Scope(scope.vars, [old], [old, new]), old)
        body: tuple[Stmt, ...] = (Store(first.buffer, first.index, both),)
        if self.rng.random() < 0.6:
            body = (If(self.expression(around.inside(step), bool_, 2), body),)
        many = (first, Loop("serial", *step, body))
        return self.nest(loops, (Loop("block", *inner, many),))

    def meeting(self) -> tuple[Stmt, ...]:
        """A team's serial loop: each of its iterations changes elements of those before it."""
        loops = [self.variable(SHORT) for _ in range(self.rng.choice([0, 1, 1]))]
        step, inner = self.variable(SHORT), self.variable(LONG)
        apart = self.rng.choice([0, 1, 2])
        at = inner[0] + apart * step[0]
        if loops:
            at = at + loops[0][0] * (LONG[-1] + apart * SHORT[-1])
        variables = [*loops, step, inner]
        size = int(self.values_of(at, variables).max(initial=0)) + 1
        dtype = self.rng.choice(self.dtypes)
        buffer = Buffer(f"o{len(self.outputs)}", dtype, size)
        self.outputs.append(buffer)
        self.arrays[buffer.name] = fill(self.data, dtype, size, False)
        value = self.update(Scope(variables), s.load(buffer, at))
        body: tuple[Stmt, ...] = (Store(buffer, at, value),)
        if self.rng.random() < 0.3:
            body = (If(self.expression(Scope(variables), bool_, 2), body),)
        return self.nest(loops, (Loop("serial", *step, (Loop("block", *inner, body),)),))


def spread(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Vector loops become block loops."""
    return tuple(
        replace(x, kind="block" if x.kind == "vector" else x.kind, body=spread(x.body))
        if isinstance(x, Loop)
        else x
        for x in body
    )
