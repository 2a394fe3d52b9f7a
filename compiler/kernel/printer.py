"""Loop IR as text, for golden files, reports and the messages of the verifier.

    kernel softmax_0  # row
      buffers x: f32[1280], y: f32[1280]
      parallel i < 128:
        reduce lanes(64) j < 10:
          %1 = x[j + 10*i]
          carry m: f32 = -inf
          step m = select(m >= %1, m, %1)
          combine m(l, r) = select(l >= r, l, r)
        vector j < 10:
          y[j + 10*i] = x[j + 10*i] - m

Formulas that are called, and tables, are written out after the kernel that needs them.

A subexpression with several uses, or a long one, is printed once as `%n = ...`; it holds for the
checks and stores that follow, up to the end of one parallel assignment.  A constant carries its
dtype (`1.0:f32`) where nothing beside it tells.  An operand of `contract` reads
`buffer[base; batch, row, column]`, strides in elements; one of `call` reads `buffer[shape]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.kernel.ir import (
    Accumulator,
    Block,
    Buffer,
    Call,
    Check,
    Contract,
    If,
    Kernel,
    Loop,
    Operand,
    Pack,
    Reduce,
    Stmt,
    Store,
    Walk,
    scalars_of,
    walk,
)
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first

Line = tuple[Stmt | None, str]
Names = Mapping[str, tuple[str, Dim]]  # of buffers: other names, and where indices count from

_LONGEST_OPERAND = 48
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "rem": "%",
    "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
_PREFIX = {"neg": "-", "not": "~"}
_NEVER_NAMED = ("const", "reg", "param", "index")


def render(kernel: Kernel) -> str:
    """The kernel as text, one line per statement, with a newline at the end."""
    return "".join(text + "\n" for _, text in lines_of(kernel))


def common_text(kernel: Kernel, starts: Mapping[Buffer, Dim]) -> str:
    """The kernel as text without its name and sizes of buffers; these are numbered in the order of
    `buffers_of`, indices count from `starts`.  Kernels of one text do the same to their buffers,
    from these starts on."""
    names = {b.name: f"b{k}" for k, b in enumerate(starts)}
    printer = _Printer({b.name: (names[b.name], start) for b, start in starts.items()})
    types = ", ".join(f"{names[b.name]}: {b.dtype.short}" for b in starts)
    printer.add(None, 0, f"kernel of {types}  # {kernel.kind}")
    printer.params(kernel)
    printer.body(kernel.body, 1)
    printer.definitions()
    return "\n".join([text for _, text in printer.lines])


def lines_of(kernel: Kernel) -> list[Line]:
    """The lines of the text, each with the statement that it belongs to."""
    printer = _Printer({})
    printer.head(kernel)
    printer.body(kernel.body, 1)
    printer.definitions()
    return printer.lines


def params_of(kernel: Kernel) -> list[Scalar]:
    """All parameters in the order of their first use."""
    known: dict[Scalar, None] = {}
    for stmt in walk(kernel.body):
        known.update(dict.fromkeys(children_first(scalars_of(stmt), known)))
    return [e for e in known if e.op == "param"]


def constant_text(e: Scalar) -> str:
    """The shortest text that gives the constant back in its dtype."""
    assert isinstance(e.attr, (bool, int, float))
    if e.dtype.is_float:
        with np.errstate(over="ignore"):
            return str(e.dtype.compute.numpy.type(e.attr))
    return str(e.attr)


class _Apart:
    """What is written out after a kernel: the formulas and tables that have been met."""

    def __init__(self) -> None:
        self.formulas: dict[Formula, str] = {}  # what they are called
        self.tables: dict[str, str] = {}  # names, and the numbers
        self._known: dict[tuple[str, str], str] = {}

    def formula(self, formula: Formula) -> str:
        return self.formulas.setdefault(formula, f"{formula.name}.{len(self.formulas)}")

    def table(self, e: Scalar) -> str:
        kind = e.dtype.short
        text = ", ".join(str(e.dtype.numpy.type(x)) for x in e.numbers)
        name = self._known.setdefault((kind, text), f"table.{len(self._known)}")
        self.tables[name] = f"{kind}[{text}]"
        return name


class _Block:
    """The names of shared and long subexpressions in a run of statements."""

    def __init__(self, roots: Sequence[Scalar], names: Names, apart: _Apart) -> None:
        self.names, self.apart = names, apart
        self.uses = Counter(roots)
        self.uses.update([x for e in children_first(roots) for x in e.args])
        self.text: dict[Scalar, str] = {}
        self.count = 0

    def define(self, root: Scalar) -> list[str]:
        """The definitions that `root` still needs, in order."""
        out: list[str] = []
        for e in children_first((root,), self.text):
            text = self.spell(e)
            shared = self.uses[e] > 1 and e.op not in _NEVER_NAMED
            if shared or (e is not root and len(text) > _LONGEST_OPERAND):
                self.count += 1
                out.append(f"%{self.count} = {text}")
                text = f"%{self.count}"
            self.text[e] = text
        return out

    def spell(self, e: Scalar) -> str:
        if e.op == "load":
            assert isinstance(e.attr, tuple)
            name, index = placed(self.names, *e.memory)
            return f"{name}[{index}]"
        if e.op == "gather":
            return self.place(*e.memory, e.args[0])
        if e.op == "const":
            return constant_text(e)
        if e.op == "param":
            return f"${e.attr}"
        if not e.args:
            return repr(e)
        args = [self.operand(e, a) for a in e.args]
        if e.op in _INFIX and len(args) == 2:
            return f"{_wrap(args[0])} {_INFIX[e.op]} {_wrap(args[1])}"
        if e.op in _PREFIX:
            return _PREFIX[e.op] + _wrap(args[0])
        names = {"cast": e.dtype.short, "bitcast": f"bits.{e.dtype.short}"}
        if e.op in ("formula", "detour"):
            names["formula"] = self.apart.formula(e.formula)
        if e.op == "detour":
            return f"detour({args[0]}, {args[1]}, {names['formula']}({', '.join(args[2:])}))"
        if e.op == "table":
            names["table"] = self.apart.table(e)
        return f"{names.get(e.op, e.op)}({', '.join(args)})"

    def place(self, buffer: Buffer, index: Dim, position: Scalar) -> str:
        """An element whose place is computed."""
        name, index = placed(self.names, buffer, index)
        fixed = f"{index} + " if index != 0 else ""
        return f"{name}[{fixed}{self.text[position]}]"

    def operand(self, user: Scalar, e: Scalar) -> str:
        told = any(a.op != "const" and a.dtype is e.dtype for a in user.args)
        bare = e.op != "const" or (told and user.op not in ("cast", "bitcast"))
        return self.text[e] if bare else f"{self.text[e]}:{e.dtype.short}"


def _wrap(text: str) -> str:
    """`text` as an operand of an operator; calls and indices keep together without help."""
    depth = 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == " " and depth == 0:
            return f"({text})"
    return text


class _Printer:
    def __init__(self, names: Names) -> None:
        self.names = names
        self.lines: list[Line] = []
        self.apart = _Apart()

    def block(self, roots: Sequence[Scalar]) -> _Block:
        return _Block(roots, self.names, self.apart)

    def add(self, stmt: Stmt | None, depth: int, text: str) -> None:
        self.lines.append((stmt, "  " * depth + text))

    def head(self, kernel: Kernel) -> None:
        self.add(None, 0, f"kernel {kernel.name}  # {kernel.kind}")
        memory = ", ".join(f"{b.name}: {b.dtype.short}[{b.size}]" for b in kernel.starts)
        if memory:
            self.add(None, 1, f"buffers {memory}")
        self.params(kernel)

    def params(self, kernel: Kernel) -> None:
        params = ", ".join(f"${p.attr}: {p.dtype.short}" for p in params_of(kernel))
        if params:
            self.add(None, 1, f"params {params}")

    def definitions(self) -> None:
        """The formulas that the kernel calls, and its tables."""
        written: set[Formula] = set()
        while left := [x for x in self.apart.formulas.items() if x[0] not in written]:
            formula, name = left[0]
            written.add(formula)
            params = ", ".join(f"{x}: {x.dtype.short}" for x in formula.params)
            block = self.block([formula.body])
            for text in block.define(formula.body):
                self.add(None, 2, text)
            self.add(None, 1, f"{name}({params}) = {block.text[formula.body]}")
        for name, numbers in self.apart.tables.items():
            self.add(None, 1, f"{name} = {numbers}")

    def body(self, statements: Sequence[Stmt], depth: int) -> None:
        for group in _groups(statements):
            block = self.block([x for stmt in group for x in scalars_of(stmt)])
            for stmt in group:
                self.statement(stmt, depth, block)

    def statement(self, stmt: Stmt, depth: int, block: _Block) -> None:
        if isinstance(stmt, Loop):
            self.add(stmt, depth, f"{stmt.kind} {stmt.var} < {stmt.extent}:")
            self.body(stmt.body, depth + 1)
        elif isinstance(stmt, If):
            self.value(stmt, depth, block, stmt.condition, "if ", ":")
            self.body(stmt.body, depth + 1)
        elif isinstance(stmt, Reduce):
            self.reduce(stmt, depth)
        elif isinstance(stmt, Store):
            self.store(stmt, depth, block)
        elif isinstance(stmt, Check):
            end = f" < {stmt.bound}, else error {stmt.code}"
            self.value(stmt, depth, block, stmt.value, "check 0 <= ", end)
        elif isinstance(stmt, Contract):
            self.contract(stmt, depth)
        elif isinstance(stmt, Pack):
            name, _ = placed(self.names, stmt.packed, 0)
            self.add(stmt, depth, f"pack {stmt.k} x {stmt.n}: {name} = {self.operand(stmt.b)}")
        elif isinstance(stmt, Call):
            self.add(stmt, depth, self.call(stmt))
        else:
            self.add(stmt, depth, repr(stmt))

    def value(
        self, stmt: Stmt, depth: int, block: _Block, e: Scalar, before: str, after: str = ""
    ) -> None:
        for text in block.define(e):
            self.add(stmt, depth, text)
        self.add(stmt, depth, before + block.text[e] + after)

    def store(self, stmt: Store, depth: int, block: _Block) -> None:
        place = "{}[{}]".format(*placed(self.names, stmt.buffer, stmt.index))
        if stmt.position is not None:
            for text in block.define(stmt.position):
                self.add(stmt, depth, text)
            place = block.place(stmt.buffer, stmt.index, stmt.position)
        self.value(stmt, depth, block, stmt.value, f"{place} = ")

    def reduce(self, stmt: Reduce, depth: int) -> None:
        order = f"lanes({stmt.lanes})" if stmt.order == "lanes" else stmt.order
        self.add(stmt, depth, f"reduce {order} {stmt.var} < {stmt.extent}:")
        roots = [x for a in stmt.accumulators for x in a.step]
        roots += [x for s in stmt.stores for x in scalars_of(s)]
        block = self.block(roots)
        for accumulator in stmt.accumulators:
            self.accumulator(stmt, accumulator, depth + 1, block)
        for store in stmt.stores:
            self.statement(store, depth + 1, block)

    def accumulator(self, stmt: Reduce, a: Accumulator, depth: int, block: _Block) -> None:
        first = self.block(a.init)
        for carry, init in zip(a.carry, a.init, strict=False):
            self.value(stmt, depth, first, init, f"carry {carry}: {carry.dtype.short} = ")
        for carry, step in zip(a.carry, a.step, strict=False):
            self.value(stmt, depth, block, step, f"step {carry} = ")
        last = self.block(a.combine)
        names = ", ".join(map(repr, (*a.left, *a.right)))
        for carry, combine in zip(a.carry, a.combine, strict=False):
            self.value(stmt, depth, last, combine, f"combine {carry}({names}) = ")

    def contract(self, stmt: Contract, depth: int) -> None:
        axes = zip(
            (stmt.batch_var, stmt.row_var, stmt.col_var),
            (stmt.batch, stmt.m, stmt.n),
            strict=True,
        )
        ranges = ", ".join(f"{v} < {d}" for v, d in axes)
        work = stmt.workspace
        scratch = "" if work is None else f", workspace {placed(self.names, work, 0)[0]}"
        apart = "" if stmt.parts is None else f" in {stmt.parts} parts"
        apart += ", b packed" if stmt.packed else ""
        self.add(stmt, depth, f"contract {ranges} over {stmt.k}{apart}{scratch}:")
        for name in "abc":
            self.add(stmt, depth + 1, f"{name} = {self.operand(getattr(stmt, name))}")
        self.add(stmt, depth + 1, f"{stmt.result}: {stmt.result.dtype.short} = sums")
        self.body(stmt.epilogue, depth + 1)

    def operand(self, x: Operand) -> str:
        name, base = placed(self.names, x.buffer, x.base)
        return f"{name}[{base}; {x.batch}, {_step(x.row)}, {_step(x.col)}]"

    def call(self, x: Call) -> str:
        inputs = map(self.whole, x.inputs)
        params = ", ".join([*inputs, *map(str, x.sizes), *map(repr, x.params)])
        return f"{self.whole(x.output)} = call {x.routine}({params}), else error {x.code}"

    def whole(self, x: Block) -> str:
        name, base = placed(self.names, x.buffer, x.base)
        start = "" if base == 0 else f" from {base}"
        return f"{name}[{', '.join(map(str, x.shape))}]{start}"


def _step(step: Dim | Walk) -> str:
    """A stride, or where the index of a walk lies."""
    return f"{step.var} -> {step.place}" if isinstance(step, Walk) else str(step)


def placed(names: Names, buffer: Buffer, index: Dim) -> tuple[str, Dim]:
    """What a buffer is called, and an index counted from where it starts."""
    name, start = names.get(buffer.name, (buffer.name, 0))
    return name, index - start


def _groups(statements: Sequence[Stmt]) -> list[list[Stmt]]:
    """Runs of checks and then stores, which see the same memory; other statements alone."""
    groups: list[list[Stmt]] = []
    last: Stmt | None = None
    for stmt in statements:
        follows = isinstance(last, Check) or (isinstance(stmt, Store) and isinstance(last, Store))
        if not (follows and isinstance(stmt, (Store, Check))):
            groups.append([])
        groups[-1].append(stmt)
        last = stmt
    return groups
