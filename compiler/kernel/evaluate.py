"""From nodes to scalar expressions: what one element of a node is, by pulling from its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.dims import Atom, Dim, coefficient, substitute, sym
from dualgrad.compiler.ir.node import Leaf, Node
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.ir import Buffer, Check
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.index import Index
from dualgrad.compiler.ops.view import Reshape, View
from dualgrad.compiler.passes.fuse import EXPENSIVE, formula_of
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.records import dataclass, field

At = tuple[Dim, ...]


@dataclass(frozen=True)
class Access:
    """Where a tensor lies in memory: strides and the place of its first element, in elements."""

    buffer: Buffer
    strides: tuple[Dim, ...]
    start: Dim = 0

    def index(self, at: At) -> Dim:
        total = self.start
        for i, step in zip(at, self.strides, strict=True):
            total = total + step * i
        return total


@dataclass
class Evaluator:
    """Pulls elements of nodes.

    `stored` says which nodes are read from memory (`here` comes first), `known` gives values that
    are in registers; every other node is computed from its inputs.
    """

    stored: Mapping[Node, Access]
    here: dict[Node, Access] = field(default_factory=dict)
    known: dict[Node, Scalar] = field(default_factory=dict)
    calls: bool = False  # expensive formulas are called as functions
    change: dict[Atom, Dim] = field(default_factory=dict)  # of loop variables, in what is pulled
    checks: list[Check] = field(default_factory=list)
    new_check: Callable[[Node, str, Dim, Dim], int] = lambda node, what, bound, low: 0
    _memo: dict[tuple[Node, At], Scalar] = field(default_factory=dict)
    _changed: dict[Scalar, Scalar] = field(default_factory=dict)

    def value(self, node: Node, at: At) -> Scalar:
        """Element `at` of a node, with the change of variables made."""
        return self.changed(self.pull(node, at))

    def place(self, index: Dim) -> Dim:
        """An index expression with the change of variables made."""
        return substitute(index, self.change)

    def changed(self, value: Scalar) -> Scalar:
        """A scalar with the change of variables made."""
        if not self.change:
            return value
        memo = self._changed
        for e in s.children_first((value,), memo):
            if e.op == "load":
                memo[e] = s.load(e.memory[0], self.place(e.memory[1]))
            elif e.op == "index":
                memo[e] = s.index(self.place(e.position))
            elif e.op == "gather":
                memo[e] = s.gather(e.memory[0], self.place(e.memory[1]), memo[e.args[0]])
            else:
                args = tuple(memo[a] for a in e.args)
                memo[e] = e if args == e.args else Scalar.make(e.op, args, e.dtype, e.attr)
        return memo[value]

    def pull(self, node: Node, at: At) -> Scalar:
        """Element `at` of a node.  Iterative: graphs may be deeper than Python's stack."""
        memo, stack = self._memo, [(node, at)]
        opened: dict[tuple[Node, At], list[tuple[Node, At]]] = {}
        while stack:
            item = stack[-1]
            if item in memo:
                stack.pop()
                continue
            operands = opened.get(item)
            if operands is None:
                operands = opened[item] = self._operands(*item)
                waiting = [w for w in operands if w not in memo]
                if waiting:
                    stack.extend(waiting)
                    continue
            stack.pop()
            memo[item] = self._compute(*item, operands)
        return memo[node, at]

    def access_of(self, node: Node) -> Access | None:
        """Where a node lies in memory; a reshape of row-major memory lies there too."""
        found = self.here.get(node) or self.stored.get(node)
        if found is None and isinstance(node.op, Reshape) and node not in self.known:
            behind = self.access_of(node.inputs[0])
            if behind is not None and behind.strides == node.inputs[0].type.strides:
                return Access(behind.buffer, node.type.strides, behind.start)
        return found

    def learn(self, probe: Evaluator) -> None:
        """Take over what another evaluator of the same memory has pulled, if that took no checks:
        these are counted anew."""
        if not probe.checks:
            self._memo.update(probe._memo)

    def forget(self) -> None:
        """Drop remembered values, after `stored` or `known` changed."""
        self._memo.clear()

    def _operands(self, node: Node, at: At) -> list[tuple[Node, At]]:
        op = node.op
        if node in self.known or isinstance(op, Leaf) or self.access_of(node) is not None:
            return []
        if isinstance(op, View):
            return [(node.inputs[0], op.source(at, node.inputs[0].shape))]
        if isinstance(op, Elementwise):
            return [(x, at) for x in node.inputs]
        return []

    def _compute(self, node: Node, at: At, operands: list[tuple[Node, At]]) -> Scalar:
        op = node.op
        if operands:
            xs = [self._memo[w] for w in operands]
            return self._element(op, node, xs) if isinstance(op, Elementwise) else xs[0]
        if node in self.known:
            return self.known[node]
        access = self.access_of(node)
        if access is not None:
            return s.load(access.buffer, access.index(at))
        if isinstance(op, Leaf):
            if op.kind == "scalar":
                return s.param(f"s{op.value}", node.dtype)
            return s.const(op.value, node.dtype)
        if isinstance(op, Elementwise):
            return self._element(op, node, [])
        if isinstance(op, Index):
            return op.value(Math(), self.loads(node), at)
        raise CompileError(f"{node!r} is neither stored nor computed here", op="kernel build")

    def _element(self, op: Elementwise, node: Node, xs: list[Scalar]) -> Scalar:
        if self.calls:
            formula, size = formula_of(
                op, node.dtype, tuple(x if x.op == "const" else x.dtype for x in xs)
            )
            if size >= EXPENSIVE:
                return formula.on(*(x for x in xs if x.op != "const"))
        return op.element(Math(), node.dtype, *xs)

    def loads(self, node: Node) -> _Loads:
        """How an index op reads the inputs of `node`."""
        return _Loads(self, node)


@dataclass
class _Loads:
    """What an index op sees of its inputs (the `Loads` protocol)."""

    evaluator: Evaluator
    node: Node

    def __call__(self, k: int, at: At) -> Scalar:
        return self.evaluator.pull(self.node.inputs[k], at)

    def shape(self, k: int) -> tuple[Dim, ...]:
        return self.node.inputs[k].shape

    def gather(self, k: int, at: tuple[Dim | Scalar, ...]) -> Scalar:
        x = self.node.inputs[k]
        slots = [sym(f"g{d}", n) for d, n in enumerate(x.shape)]
        fixed = tuple(v if isinstance(i, Scalar) else i for v, i in zip(slots, at, strict=True))
        buffer, index = self.evaluator.pull(x, fixed).memory
        position = s.index(0)
        for v, i in zip(slots, at, strict=True):
            if isinstance(i, Scalar):
                split = coefficient(index, v)
                if split is None:
                    raise CompileError(f"index {index} is not affine", op=self.node.op.name)
                step, index = split
                position = added(position, i if step == 1 else i * s.index(step))
        return s.gather(buffer, index, position)

    def check(self, position: Scalar, bound: Dim, what: str, low: Dim = 0) -> None:
        code = self.evaluator.new_check(self.node, what, bound, low)
        distance = added(self.evaluator.changed(position), s.index(-low))
        check = Check(distance, bound - low, code)
        if check not in self.evaluator.checks:
            self.evaluator.checks.append(check)


def added(x: Scalar, y: Scalar) -> Scalar:
    """x + y, without additions of 0."""
    if x is s.index(0):
        return y
    return x if y is s.index(0) else x + y
