"""Scalar expressions of one function: each is computed once where it is needed.

What a loop does not change is computed before it, as a scalar, and repeated into lanes inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dualgrad.compiler.build.float16 import conversion
from dualgrad.compiler.ir.dims import Atom, Expr, symbol_of, symbols, terms_of
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Buffer, Check, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first
from dualgrad.compiler.lower.llvm.lanes import Lanes, apply, constant, element, splat, vector
from dualgrad.compiler.lower.llvm.logarithms import logarithm_part, part_of
from dualgrad.compiler.lower.llvm.memory import MemoryCode, Shift
from dualgrad.compiler.lower.llvm.registers import by_registers, has_registers
from dualgrad.compiler.lower.llvm.scaling import scale, scaled
from dualgrad.compiler.lower.llvm.tables import lookup
from dualgrad.runtime.program import Target


class ScalarCode(MemoryCode):
    """Writes one function: scalar expressions on top of memory accesses."""

    def value(self, e: Scalar) -> str:
        """The value of an expression in all lanes."""
        width = self.lanes.width
        stack = [e]
        while stack:
            x = stack[-1]
            if self.find((x, width)) is not None:
                stack.pop()
                continue
            args = () if self.find((x, 1)) else self.operands(x)
            waiting = [a for a in args if not self.find((a, width))]
            if waiting:
                stack.extend(waiting)
            else:
                stack.pop()
                self.keep((x, width), self._compute(x))
        return self.value_of(e)

    def operands(self, e: Scalar) -> tuple[Scalar, ...]:
        """What the code of an expression needs."""
        if e.dtype.is_float and has_registers(self.target, self.lanes.width, e.dtype.bits):
            part = part_of(e)
            return part.operands if part else scaled(e) or e.args
        return e.args

    def _compute(self, e: Scalar) -> str:
        width = self.lanes.width
        if e.op == "const":
            return constant(e, width)
        if width > 1:
            outside = self.find((e, 1))
            if outside is not None:
                return splat(self.f, outside, element(e.dtype), width)
        if e.op == "load":
            return self.load(*e.memory)
        if e.op == "gather":
            return self.load(*e.memory, self.shift(e.args[0]))
        if e.op == "index":
            if width > 1:
                return self.positions(e.position)
            return str(self.dim(e.position))
        if e.op == "param":
            return splat(self.f, self.scalar(e), element(e.dtype), width)
        if e.op == "cast":
            formula = conversion(e.args[0], e.dtype, converts_half(self.target))
            if formula is not None:
                return self.value(formula)
        args = self.operands(e)
        xs = [self.value_of(x) for x in args]
        if args is not e.args:
            part = part_of(e)
            if part:
                return logarithm_part(self.f, self.names, e, part, xs, width)
            return scale(self.f, self.names, e, xs, width)
        if e.op == "table":
            return lookup(self.f, self.names, self.target, e, xs[0], width)
        if e.op == "formula":
            return self.call(e.formula, xs, width)
        if e.op == "detour":
            return self.detour(e, xs)
        return apply(self.f, self.names, e, xs, width)

    def call(self, formula: Formula, xs: Sequence[str], width: int, attributes: str = "") -> str:
        """The value of a formula of operands in so many lanes."""
        kinds = (vector(element(x.dtype), width) for x in formula.params)
        return self.f.result(
            vector(element(formula.body.dtype), width),
            self.formula_function(formula, width, attributes),
            *zip(kinds, xs, strict=True),
        )

    def detour(self, e: Scalar, xs: Sequence[str]) -> str:
        """A value for which a formula is called where a condition holds in any lane; register by
        register, so that there is one function for loops of all widths."""
        f, width, kind = self.f, self.lanes.width, vector(element(e.dtype), self.lanes.width)
        rare, usual, *operands = xs
        anywhere = rare
        if width > 1:
            bits = f.value(f"bitcast <{width} x i1> {rare} to i{width}")
            anywhere = f.value(f"icmp ne i{width} {bits}, 0")
        away, back, before = f.new_block(), f.new_block(), f.block
        f.branch(anywhere, away, back)
        f.start(away)
        lanes = min(width, max(2, self.target.vector_bits // e.dtype.bits))

        def exactly(*part: str) -> str:
            return self.call(e.formula, part, lanes, " cold")

        kinds = (element(x.dtype) for x in e.formula.params)
        values = [*zip(kinds, operands, strict=True)]
        exact = by_registers(f, values, element(e.dtype), width, lanes, exactly)
        test = vector("i1", width)
        chosen = f.value(f"select {test} {rare}, {kind} {exact}, {kind} {usual}")
        f.jump(back)
        f.start(back)
        return f.value(f"phi {kind} [ {usual}, %{before} ], [ {chosen}, %{away} ]")

    def formula_function(self, formula: Formula, width: int, attributes: str = "") -> str:
        """The function of a formula in so many lanes; it is written when first asked for."""
        names = self.names
        if (formula, width) not in names.formulas:
            name = f"@{formula.name}.{len(names.formulas)}"
            params = [vector(element(x.dtype), width) for x in formula.params]
            kind = vector(element(formula.body.dtype), width)
            passed = ", ".join(f"{t} %x{k}" for k, t in enumerate(params))
            names.formulas[formula, width] = name, ""
            unchecked = replace(self.parts, checked=False)
            code = ScalarCode(f"internal {kind} {name}({passed}){attributes}", {}, unchecked)
            code.lanes = Lanes(width)
            for k, x in enumerate(formula.params):
                code.keep((x, width), f"%x{k}")
            names.formulas[formula, width] = name, code.f.text(f"{kind} {code.value(formula.body)}")
        return names.formulas[formula, width][0]

    def shift(self, position: Scalar | None) -> Shift | None:
        """A computed position, as one number where all lanes have the same."""
        if position is None:
            return None
        if position.op == "const":
            return Shift(constant(position, 1), False)
        if self.lanes.width > 1:
            outside = self.find((position, 1))
            if outside is None:
                return Shift(self.value(position), True)
            return Shift(outside, False)
        return Shift(self.value(position), False)

    def value_of(self, e: Scalar) -> str:
        found = self.find((e, self.lanes.width))
        assert found is not None, e
        return found

    def hoist(self, body: Iterable[Stmt], inside: set[Atom]) -> None:
        """Compute now, as scalars, what `body` uses but its loop over `inside` leaves alone."""
        body = tuple(body)
        written = {s.buffer for s in ir.walk(body) if isinstance(s, Store)}
        bound = inside | {symbol_of(s.var) for s in ir.walk(body) if isinstance(s, Loop | Reduce)}
        roots = tuple(x for s in ir.walk(body) for x in ir.scalars_of(s))
        fixed: set[Scalar] = set()
        for e in children_first(roots):
            if e.op == "const":
                fixed.add(e)
                continue
            if e.op == "gather":  # only what a check before it has let through may be read
                continue
            if e.op == "reg" and self.find((e, self.lanes.width)) is None:
                continue
            if e.op == "load" and (e.memory[0] in written or symbols(e.memory[1]) & bound):
                continue
            if e.op == "load" and e.memory[0].size == 0:  # in a loop that is never entered
                continue
            if e.op == "index" and symbols(e.position) & bound:
                continue
            if all(x in fixed for x in e.args):
                fixed.add(e)
                self.value(e)
        self._hoist_pointers(body, roots, bound)

    def _hoist_pointers(
        self, body: tuple[Stmt, ...], roots: tuple[Scalar, ...], bound: set[Atom]
    ) -> None:
        """Addresses, up to the terms that the loop changes."""
        accesses = [(s.buffer, s.index) for s in ir.walk(body) if isinstance(s, Store)]
        accesses += [e.memory for e in children_first(roots) if e.op in ("load", "gather")]
        for buffer, index in accesses:
            fixed = Expr.of(
                {m: c for m, c in terms_of(index) if not symbols(Expr.of({m: 1})) & bound}
            )
            self.pointer(buffer, fixed)

    def check(self, check: Check) -> None:
        """Stop unless 0 <= value < bound in every lane that counts."""
        value, bound = self.value(check.value), self.dim(check.bound)
        if self.lanes.width == 1:
            self.stop_if(self.f.value(f"icmp uge i64 {value}, {bound}"), value, check.code)
        else:
            self.stop_if_any(value, bound, check.code)

    def forget_loads(self, buffers: set[Buffer]) -> None:
        """What was read from memory that has been written since is no longer what stands there."""
        stale: set[Scalar] = set()
        for names in self.scopes:
            held = [
                key[0] for key in names if isinstance(key, tuple) and isinstance(key[0], Scalar)
            ]
            for e in children_first(tuple(held)):
                read = e.op in ("load", "gather") and e.memory[0] in buffers
                if read or any(x in stale for x in e.args):
                    stale.add(e)
            for key in [k for k in names if isinstance(k, tuple) and k[0] in stale]:
                del names[key]


def converts_half(target: Target) -> bool:
    """Whether a target has instructions between float16 and float32."""
    return "+f16c" in target.features.split(",") or target.triple.startswith(("aarch64", "arm64"))
