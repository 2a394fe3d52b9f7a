"""Random valid kernels of the loop IR, with inputs, for tests that compare two implementations.

    case = generate(seed)       the same seed gives the same case

Kernels are maps, row passes (reductions in lanes and vector loops over one row) and column
reductions (chains in a vector loop).  Operands are kept where the language defines a result:
divisors are not zero, shift counts fit, floats that become integers are small.  The sign and
payload of a NaN are unspecified, so they never reach the bits of another value.  Of 16-bit
floats there is no arithmetic: it is float32's, converted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

import numpy as np

import dualgrad as dg
from dualgrad.compiler.ir.dims import Atom, Dim, Expr, minimum, substitute, sym, symbol_of
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.ir import (
    Accumulator,
    Buffer,
    Check,
    Kernel,
    Loop,
    Reduce,
    Stmt,
    Store,
)
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.reference import dim_value
from dualgrad.runtime.dtype import ALL, DType, bool_, float32, float64, int64
from dualgrad.runtime.floats import encode

LONG = (1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 63, 64, 65, 100, 130)
SHORT = (1, 1, 2, 3, 4, 5)
ARITHMETIC = {
    "f": ("add", "sub", "mul", "div", "neg", "fma", "sqrt", "abs", "copysign", "floor", "rint"),
    "i": ("add", "sub", "mul", "div", "rem", "neg", "and", "or", "xor", "not", "shl", "shr"),
    "u": ("add", "sub", "mul", "div", "rem", "and", "or", "xor", "not", "shl", "shr"),
    "b": ("and", "or", "xor", "not"),
}
WIDE = tuple(t for t in ALL if not t.is_low)  # scalars never compute with 16-bit floats
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


@dataclass(frozen=True)
class Case:
    """A kernel and the memory it runs on; `arrays` hold what stands there before."""

    kernel: Kernel
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    sizes: dict[Atom, int]
    params: dict[str, s.Number]
    arrays: dict[str, np.ndarray]


@dataclass
class Scope:
    """What an expression may use at some place: loop variables, registers, other expressions."""

    vars: list[tuple[Expr, Dim]] = field(default_factory=list)
    regs: list[Scalar] = field(default_factory=list)
    pool: list[Scalar] = field(default_factory=list)

    def inside(self, *variables: tuple[Expr, Dim]) -> Scope:
        return Scope([*self.vars, *variables], list(self.regs), list(self.pool))


def generate(seed: int) -> Case:
    """The case of a seed."""
    return Generator(seed).case()


def fill(rng: np.random.Generator, dtype: DType, count: int, special: bool) -> np.ndarray:
    """Numbers of a dtype: of moderate size, or any bits that are a number, and corners."""
    if dtype is bool_:
        return rng.integers(0, 2, count).astype(bool)
    if dtype.is_float:
        out = rng.standard_normal(count)
        out[::3] = np.round(2 * out[::3]) / 2  # ties
        out = encode(out, dtype)
        info = dg.finfo(dtype)
        corners = [0.0, -0.0, 1, -1.5, np.inf, -np.inf, np.nan, info.smallest_normal * info.eps]
        corners += [info.max, info.smallest_normal]
    else:
        info = np.iinfo(dtype.numpy)
        out = rng.integers(0, 100, count).astype(dtype.numpy)
        corners = np.array([0, 1, info.max, info.min, info.max // 3], dtype.numpy)
    if special:
        at = rng.integers(0, 3, count) == 0
        out[at] = rng.choice(encode(corners, dtype), int(at.sum()))
    return out


class Generator:
    """Makes one case; the methods below follow the grammar of the loop IR."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.data = np.random.default_rng(seed)
        self.special = self.rng.random() < 0.4
        few = self.rng.choice([(float32, int64, bool_), (float64, int64, bool_), WIDE, WIDE])
        self.dtypes = [*few]
        self.inputs: list[Buffer] = []
        self.outputs: list[Buffer] = []
        self.sizes: dict[Atom, int] = {}
        self.params: dict[str, s.Number] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.written: list[tuple[Store, Expr, Dim]] = []
        self.names = 0

    def case(self) -> Case:
        make = self.rng.choice([self.map, self.map, self.row, self.row, self.column])
        kernel = Kernel("k", tuple(make()))
        return Case(
            kernel, tuple(self.inputs), tuple(self.outputs), self.sizes, self.params, self.arrays
        )

    # -- loops -------------------------------------------------------------------------------

    def fresh(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def extent(self, choices: tuple[int, ...]) -> Dim:
        """A number, sometimes 0, or a symbol that stands for one."""
        n = self.rng.choice(choices)
        if n >= 2 and self.rng.random() < 0.3:
            size = sym(self.fresh("n"))
            self.sizes[symbol_of(size)] = n
            return size
        return 0 if self.rng.random() < 0.03 else n

    def variable(self, choices: tuple[int, ...]) -> tuple[Expr, Dim]:
        extent = self.extent(choices)
        return sym(self.fresh("v"), extent), extent

    def nest(self, loops: list[tuple[Expr, Dim]], body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """body in loops, the outermost perhaps parallel."""
        for k, (var, extent) in reversed(list(enumerate(loops))):
            outer = k == 0 and self.rng.random() < 0.7
            body = (Loop("parallel" if outer else "serial", var, extent, body),)
        return body

    def map(self) -> tuple[Stmt, ...]:
        loops = [self.variable(SHORT) for _ in range(self.rng.choice([0, 1, 1, 2]))]
        inner = self.variable(LONG)
        scope = Scope([*loops, inner])
        body = self.statements(scope)
        if self.rng.random() < 0.1:
            return self.nest([*loops, inner], body)
        return self.nest(loops, (Loop("vector", *inner, body),))

    def row(self) -> tuple[Stmt, ...]:
        """Reductions over a row in lanes, each followed by a pass that may use the totals."""
        loops = [self.variable(SHORT) for _ in range(self.rng.choice([0, 1, 2]))]
        scope = Scope([*loops])
        length = self.extent(LONG)
        cell = self.store(scope)  # one element per row, read before and after it is written
        body: list[Stmt] = []
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            scope.pool.append(s.load(cell.buffer, cell.index))
            order = "lanes" if self.rng.random() < 0.8 else "chain"
            body.append(self.reduction(scope, self.pass_over(length), order))
            if self.rng.random() < 0.6:
                inner = self.pass_over(length)
                stores = self.statements(scope.inside(inner))
                body.append(Loop("vector", *inner, stores))
                self.written += [(x, *inner) for x in stores if isinstance(x, Store)]
            if self.rng.random() < 0.5:
                body.extend(self.statements(scope))
            if self.rng.random() < 0.5:
                value = self.expression(scope, cell.buffer.dtype, 2)
                body.append(Store(cell.buffer, cell.index, value))
        body.extend(self.statements(scope))
        return self.nest(loops, tuple(body))

    def pass_over(self, length: Dim) -> tuple[Expr, Dim]:
        """A loop over the row, mostly of the common length."""
        if self.rng.random() < 0.3:
            return self.variable(LONG)
        return sym(self.fresh("v"), length), length

    def read_back(self, scope: Scope) -> list[Scalar]:
        """What earlier passes have stored, at the element at hand and at the first one."""
        out = []
        for store, var, extent in self.written:
            old = symbol_of(var)
            out += [
                s.load(store.buffer, substitute(store.index, {old: new}))
                for new, length in scope.vars
                if length == extent and symbol_of(new) is not old
            ]
            if extent != 0:
                out.append(s.load(store.buffer, substitute(store.index, {old: 0})))
        return out

    def column(self) -> tuple[Stmt, ...]:
        """Chains in a vector loop."""
        loops = [self.variable(SHORT) for _ in range(self.rng.choice([0, 1]))]
        inner = self.variable(LONG)
        scope = Scope([*loops, inner])
        body = [self.reduction(scope, self.variable(SHORT + LONG[:6]), "chain")]
        body += self.statements(scope)
        return self.nest(loops, (Loop("vector", *inner, tuple(body)),))

    def statements(self, scope: Scope) -> tuple[Stmt, ...]:
        back = self.read_back(scope) if self.rng.random() < 0.7 else []
        if back:
            scope = Scope(scope.vars, scope.regs, [*scope.pool[-4:], *back])
        checks = [self.check(scope)] if self.rng.random() < 0.1 else []
        stores: list[Store] = []
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            stores.append(self.store(scope))
            if self.rng.random() < 0.3:  # the stores that follow see the old value
                scope.pool.append(s.load(stores[-1].buffer, stores[-1].index))
        if self.rng.random() < 0.6:
            stores += [self.store(scope, register) for register in scope.regs[-2:]]
        return (*checks, *stores)

    # -- reductions --------------------------------------------------------------------------

    def reduction(self, scope: Scope, over: tuple[Expr, Dim], order: str) -> Reduce:
        inside = scope.inside(over)
        accumulators = [
            self.accumulator(scope, inside, order) for _ in range(self.rng.choice([1, 1, 2, 3]))
        ]
        if order == "chain":  # its stores may use what it carries, and the new values
            carries = [c for a in accumulators for c in a.carry]
            steps = [x for a in accumulators for x in a.step]
            inside = Scope(inside.vars, [*inside.regs, *carries], [*inside.pool, *carries, *steps])
        stores = [self.store(inside) for _ in range(self.rng.choice([0, 0, 1, 2]))]
        scope.regs += [c for a in accumulators for c in a.carry]
        lanes = self.rng.choice([2, 4, 8, 16, 32, 64]) if order == "lanes" else 1
        return Reduce(*over, order, lanes, tuple(accumulators), tuple(stores))  # type: ignore[arg-type]

    def accumulator(self, scope: Scope, inside: Scope, order: str) -> Accumulator:
        dtypes = [self.rng.choice(self.dtypes) for _ in range(self.rng.choice([1, 1, 1, 2]))]
        carry, left, right = (
            tuple(s.reg(self.fresh(p), t) for t in dtypes) for p in ("c", "l", "r")
        )
        plain = order == "lanes" or self.rng.random() < 0.5
        init = tuple(self.constant(t) if plain else self.expression(scope, t, 2) for t in dtypes)
        stepping = Scope(inside.vars, [*inside.regs, *carry], [*inside.pool, *carry])
        combining = Scope([], [*left, *right], [*left, *right])
        return Accumulator(
            carry,
            init,
            tuple(self.update(stepping, c) for c in carry),
            left,
            right,
            tuple(self.update(combining, x, leaves=False) for x in left),
        )

    def update(self, scope: Scope, old: Scalar, leaves: bool = True) -> Scalar:
        """A new value for a carry that depends on the old one."""
        dtype = old.dtype
        old = s.cast(old, dtype.compute)
        other = self.expression(scope, old.dtype, self.rng.choice([0, 3]), leaves)
        kinds = {"f": ("add", "mul", "max", "sub"), "b": ("and", "or", "xor")}
        op = self.rng.choice(kinds.get(old.dtype.kind, ("add", "mul", "max", "xor")))
        if op == "max":
            return s.cast(s.select(old > other, old, other), dtype)
        return s.cast(s.primitive(op, old, other), dtype)

    # -- memory ------------------------------------------------------------------------------

    def values_of(self, d: Dim, variables: list[tuple[Expr, Dim]]) -> np.ndarray:
        """All values that d takes; a loop without iterations counts as one with one."""
        values: dict[Atom, int | np.ndarray] = dict(self.sizes)
        for k, (var, extent) in enumerate(variables):
            numbers = np.arange(max(1, int(dim_value(extent, values))))
            values[symbol_of(var)] = numbers.reshape((-1,) + (1,) * (len(variables) - 1 - k))
        shape = tuple(np.size(values[symbol_of(var)]) for var, _ in variables)
        return np.broadcast_to(np.asarray(dim_value(d, values)), shape)

    def index(self, variables: list[tuple[Expr, Dim]]) -> Dim:
        """A non-negative index: strided, reversed, broadcast, or through division."""
        total: Dim = self.rng.choice([0, 0, 3])
        for var, _ in variables:
            total = total + self.rng.choice([0, 1, 1, 1, 2, 5, 7, -1, 33]) * var
        low = int(self.values_of(total, variables).min(initial=0))
        total = total - low
        if self.rng.random() < 0.25:
            a, b, c = (
                self.rng.choice([2, 3, 7]),
                self.rng.choice([2, 5, 8]),
                self.rng.choice([1, 4]),
            )
            forms = (total // a, total % b, (total // a) % b * c + total % a, minimum(total, 9))
            total = self.rng.choice(forms)
        return total

    def load(self, scope: Scope, dtype: DType) -> Scalar:
        at = self.index(scope.vars)
        top = int(self.values_of(at, scope.vars).max(initial=0))
        for buffer in self.inputs:
            if buffer.dtype is dtype and isinstance(buffer.size, int) and top < buffer.size:
                return s.load(buffer, at)
        size = top + 1 + self.rng.choice([0, 0, 5])
        buffer = Buffer(f"i{len(self.inputs)}", dtype, size)
        self.inputs.append(buffer)
        self.arrays[buffer.name] = fill(self.data, dtype, size, self.special)
        return s.load(buffer, at)

    def position(self, scope: Scope, choices: int) -> Scalar:
        """A computed number below `choices`, a power of two."""
        number = self.expression(scope, self.rng.choice(self.dtypes), self.rng.choice([0, 0, 2]))
        return self.cast(number, int64) & (choices - 1)

    def gather(self, scope: Scope, dtype: DType) -> Scalar:
        """A load of which a part of the place is computed, in steps of a size."""
        choices, step = self.rng.choice([2, 8, 64]), self.rng.choice([1, 1, 3])
        found = self.load(scope, dtype)
        buffer, at = found.memory
        size = int(dim_value(buffer.size, dict(self.sizes))) + (choices - 1) * step
        wide = Buffer(f"i{len(self.inputs)}", dtype, size)
        self.inputs.append(wide)
        self.arrays[wide.name] = fill(self.data, dtype, size, self.special)
        return s.gather(wide, at, self.position(scope, choices) * step)

    def store(self, scope: Scope, value: Scalar | None = None) -> Store:
        """To a new buffer; the loops stand in it in any order, perhaps with gaps or reversed."""
        dtype = value.dtype if value is not None else self.rng.choice(self.dtypes)
        order = list(scope.vars)
        self.rng.shuffle(order)
        if self.rng.random() < 0.5:
            order = list(reversed(scope.vars))  # the innermost loop has stride one
        at: Dim = self.rng.choice([0, 0, 4])
        step = self.rng.choice([1, 1, 1, 2])
        for var, extent in order:
            count = int(dim_value(extent, dict(self.sizes)))
            at = at + step * ((count - 1) - var if self.rng.random() < 0.1 else var)
            step *= max(1, count) + self.rng.choice([0, 0, 0, 1])
        size = int(self.values_of(at, scope.vars).max(initial=0)) + 1 + self.rng.choice([0, 3])
        position = None
        if self.rng.random() < 0.15:  # to one of four copies: iterations still do not meet
            position = self.position(scope, 4) * size
            size *= 4
        buffer = Buffer(f"o{len(self.outputs)}", dtype, size)
        self.outputs.append(buffer)
        self.arrays[buffer.name] = fill(self.data, dtype, size, False)
        if self.rng.random() < 0.15:
            scope = Scope(scope.vars, scope.regs, [*scope.pool, s.load(buffer, at)])
        depth = self.rng.choice([1, 2, 4, 6])
        if value is None:
            value = self.expression(scope, dtype, depth)
        return Store(buffer, at, value, position)

    def check(self, scope: Scope) -> Check:
        small = self.cast(self.expression(scope, self.rng.choice(self.dtypes), 2), int64)
        bound = self.rng.choice([3, 2**40])
        return Check((small & 0xFFFF), bound, self.rng.choice([0, 7, 4000]))

    # -- scalars -----------------------------------------------------------------------------

    def constant(self, dtype: DType) -> Scalar:
        if dtype is bool_:
            return s.const(self.rng.random() < 0.5, dtype)
        if not dtype.is_float:
            return s.const(self.rng.choice([0, 1, 2, 3, 100, -1, -7, 2**31 + 5]), dtype)
        numbers = [0.0, -0.0, 1.0, -1.0, 0.1, 2.5, 1e-3]
        if self.special:
            numbers += [math.inf, -math.inf, math.nan, 1e-45, 1e300]
        return s.const(self.rng.choice(numbers), dtype)

    def leaf(self, scope: Scope, dtype: DType) -> Scalar:
        kind = self.rng.random()
        if kind < 0.15:
            return self.constant(dtype)
        if kind < 0.25 and scope.regs:
            return self.cast(self.rng.choice(scope.regs), dtype)
        if kind < 0.3:
            of = self.rng.choice(s.PARAM_DTYPES)
            name = f"s{len(self.params)}"
            self.params[name] = {"f": 0.375, "i": -5, "b": True}[of.kind]
            return self.cast(s.param(name, of), dtype)
        if kind < 0.4:
            return self.cast(s.index(self.index(scope.vars)), dtype)
        if kind < 0.5 and len(self.inputs) < 40:
            return self.gather(scope, dtype)
        return self.load(scope, dtype)

    def expression(self, scope: Scope, dtype: DType, depth: int, leaves: bool = True) -> Scalar:
        """A random expression; without `leaves` it uses registers of the pool and constants."""
        if self.rng.random() < 0.2 and scope.pool:
            return self.cast(self.rng.choice(scope.pool), dtype)
        if depth == 0:
            if leaves:
                out = self.leaf(scope, dtype)
            elif self.rng.random() < 0.3:
                out = self.constant(dtype)
            else:
                out = self.cast(self.rng.choice(scope.regs), dtype)
        else:
            out = self.operation(scope, dtype, depth - 1, leaves)
        if leaves:
            scope.pool.append(out)
        return out

    def operation(self, scope: Scope, dtype: DType, depth: int, leaves: bool) -> Scalar:
        kind = self.rng.random()
        if kind < 0.12:
            names = [self.expression(scope, t, depth, leaves) for t in (bool_, dtype, dtype)]
            return s.select(*names)
        if kind < 0.27:
            return self.cast(
                self.expression(scope, self.rng.choice(self.dtypes), depth, leaves), dtype
            )
        if kind < 0.32 and dtype is not bool_:
            same = [t for t in WIDE if t.bits == dtype.bits and t is not bool_]
            x = self.expression(scope, self.rng.choice(same), depth, leaves)
            return s.bitcast(self.number(x), dtype)
        if kind < 0.38 and leaves and dtype in (float32, float64):
            return self.rng.choice([self.table, self.formula, self.detour])(scope, dtype, depth)
        if dtype is bool_ and kind < 0.7:
            of = self.rng.choice([t for t in self.dtypes if t is not bool_])
            of = of.compute
            sides = [self.expression(scope, of, depth, leaves) for _ in range(2)]
            return s.primitive(self.rng.choice(COMPARISONS), *sides)
        if dtype.is_low:
            return self.cast(self.operation(scope, float32, depth, leaves), dtype)
        name = self.rng.choice(ARITHMETIC[dtype.kind])
        count = s.PRIMITIVES[name][0]
        args = [self.expression(scope, dtype, depth, leaves) for _ in range(count)]
        return s.primitive(name, *self.defined(name, args))

    def table(self, scope: Scope, dtype: DType, depth: int) -> Scalar:
        count = self.rng.choice([2, 8, 16, 16])
        numbers = tuple(float(self.rng.randrange(-50, 50)) for _ in range(count))
        of = [t for t in WIDE if t.is_int and t.bits == dtype.bits]
        return s.table(self.expression(scope, self.rng.choice(of), depth), numbers, dtype)

    def formula(self, scope: Scope, dtype: DType, depth: int) -> Scalar:
        made = self.function(dtype)
        return made.on(*(self.expression(scope, x.dtype, depth) for x in made.params))

    def detour(self, scope: Scope, dtype: DType, depth: int) -> Scalar:
        made = self.function(dtype)
        args = [self.expression(scope, x.dtype, depth) for x in made.params]
        rare, usual = (self.expression(scope, t, depth) for t in (bool_, dtype))
        return made.where(rare, usual, *args)

    def function(self, dtype: DType) -> s.Formula:
        """A formula of one or two registers."""
        dtypes = [dtype, self.rng.choice([int64, dtype, bool_])][: self.rng.choice([1, 2])]
        params = tuple(s.reg(self.fresh("x"), t) for t in dtypes)
        body = self.expression(Scope([], [*params], [*params]), dtype, 3, leaves=False)
        return s.Formula(self.fresh("f"), params, body)

    def defined(self, name: str, args: list[Scalar]) -> list[Scalar]:
        """The operands, changed where the primitive would not be defined on them."""
        dtype = args[0].dtype
        if name == "copysign":
            args[1] = self.number(args[1])
        elif name in ("div", "rem") and not dtype.is_float:
            args[1] = (args[1] & 7) + 1
            if dtype.is_signed and self.rng.random() < 0.3:
                args[1] = -args[1] - 1
        elif name in ("shl", "shr"):
            args[1] = args[1] & (dtype.bits - 1)
        return args

    def number(self, x: Scalar) -> Scalar:
        """x, or a number where x is NaN."""
        if not x.dtype.is_float:
            return x
        wide = s.cast(x, x.dtype.compute)
        return s.select(s.primitive("eq", wide, wide), x, s.const(1.5, x.dtype))

    def cast(self, x: Scalar, dtype: DType) -> Scalar:
        if not dtype.is_float:
            x = s.cast(x, x.dtype.compute)
        if dtype is bool_:
            return x if x.dtype is bool_ else s.primitive("ne", x, s.const(0, x.dtype))
        if x.dtype.is_float and not dtype.is_float:
            size = s.primitive("abs", x)
            small = x if dtype.is_signed else size
            x = s.select(size < 100.0, small, s.const(7.25, x.dtype))
        return s.cast(x, dtype)
