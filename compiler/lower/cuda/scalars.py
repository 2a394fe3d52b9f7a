"""Scalar expressions as C: each is computed once where it is needed, under a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dualgrad.compiler.build.float16 import conversion
from dualgrad.compiler.ir.dims import Atom, Dim
from dualgrad.compiler.kernel.ir import Buffer, Store
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first, const
from dualgrad.compiler.lower.cuda.ctype import (
    hexadecimal,
    literal,
    register_type,
    unsigned_type,
)
from dualgrad.compiler.lower.cuda.writer import Writer
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import CompileError

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "rem": "%", "and": "&", "or": "|", "xor": "^",
    "shl": "<<", "shr": ">>", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
_WRAPS = {"add", "sub", "mul", "shl"}  # may overflow: computed without a sign
_FUNCTIONS = {
    "fma": "fma", "sqrt": "sqrt", "abs": "fabs", "copysign": "copysign", "floor": "floor",
    "rint": "rint",
}  # fmt: skip
_BITS = {
    ("float", "int"): "__float_as_int",
    ("float", "unsigned int"): "__float_as_uint",
    ("int", "float"): "__int_as_float",
    ("unsigned int", "float"): "__uint_as_float",
    ("double", "long long"): "__double_as_longlong",
    ("long long", "double"): "__longlong_as_double",
}


class Formulas:
    """The device functions of a module's formulas, each written once."""

    def __init__(self) -> None:
        self._names: dict[Formula, str] = {}
        self._texts: list[str] = []
        self._helpers: dict[str, None] = {}  # in order
        self._tables: dict[str, str] = {}  # text of the numbers -> name

    def need(self, text: str) -> None:
        """Functions that kernels call by their own names."""
        self._helpers[text] = None

    def table(self, e: Scalar) -> str:
        """The name of a table; all of its numbers lie in one or two lines of the cache."""
        numbers = ", ".join(literal(const(x, e.dtype)) for x in e.numbers)
        name = self._tables.setdefault(numbers, f"dg_table_{len(self._tables)}")
        kind = register_type(e.dtype)
        self.need(f"__device__ const {kind} {name}[{len(e.numbers)}] = {{{numbers}}};")
        return name

    @property
    def helpers(self) -> str:
        """What was needed, each text once."""
        return "\n".join(self._helpers)

    def function(self, formula: Formula) -> str:
        """The name of a formula's function; it is written when first asked for."""
        if formula not in self._names:
            self._names[formula] = name = f"{formula.name}_{len(self._names)}"
            code = ScalarCode(self)
            for k, x in enumerate(formula.params):
                code.keep(x, f"x{k}")
            code.w.line(f"return {code.value(formula.body)};")
            kind = register_type(formula.body.dtype)
            params = ", ".join(
                f"{register_type(x.dtype)} x{k}" for k, x in enumerate(formula.params)
            )
            self._texts.append(code.w.text(f"DG_INLINE {kind} {name}({params})"))
        return self._names[formula]

    @property
    def text(self) -> str:
        """All functions, callees before callers."""
        return "\n".join(self._texts)


class ScalarCode:
    """Writes one function: scalar expressions on top of loads.

    `atoms` names the loop variables and sizes that index expressions are made of, `places` says
    for each buffer which pointer leads to which of its elements.
    """

    def __init__(self, formulas: Formulas) -> None:
        self.w = Writer()
        self.formulas = formulas
        self.atoms: dict[Atom, str] = {}
        self.places: dict[str, tuple[str, int]] = {}
        self._scopes: list[dict[Scalar, str]] = [{}]

    # -- names --------------------------------------------------------------------------------

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Names given inside are not used after it."""
        self._scopes.append({})
        yield
        self._scopes.pop()

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A block of the text, with a scope."""
        with self.w.block(head), self.scope():
            yield

    def find(self, e: Scalar) -> str | None:
        for names in reversed(self._scopes):
            if e in names:
                return names[e]
        return None

    def keep(self, e: Scalar, name: str) -> str:
        """`name` holds the value of `e` from here to the end of the scope."""
        self._scopes[-1][e] = name
        return name

    def forget_loads(self, buffers: set[Buffer]) -> None:
        """What was read from memory that has been written since is no longer what stands there."""
        for names in self._scopes:
            stale: set[Scalar] = set()
            for e in children_first(tuple(names)):
                read = e.op in ("load", "gather") and e.memory[0] in buffers
                if read or any(x in stale for x in e.args):
                    stale.add(e)
            for e in stale & set(names):
                del names[e]

    # -- index expressions --------------------------------------------------------------------

    def dim(self, d: Dim) -> str:
        """An integer expression, as a C expression of type dg_index."""
        if isinstance(d, int):
            return str(d)
        parts = []
        for monomial, c in d.terms:
            factors = [self.atom(a) for a in monomial]
            if c != 1 or not factors:
                factors.insert(0, str(c))
            parts.append(" * ".join(factors))
        return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"

    def atom(self, atom: Atom) -> str:
        if atom.kind == "sym":
            return self.atoms[atom]
        a, b = (self.dim(x) for x in atom.args)
        name = {"min": "dg_min", "div": "dg_div", "mod": "dg_mod"}[atom.kind]
        return f"{name}({a}, {b})"

    # -- values -------------------------------------------------------------------------------

    def value(self, e: Scalar) -> str:
        """The value of an expression: a name or a constant."""
        stack = [e]
        while stack:
            x = stack[-1]
            if x.op == "const" or self.find(x) is not None:
                stack.pop()
                continue
            waiting = [a for a in x.args if a.op != "const" and self.find(a) is None]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            self._compute(x)
        return self.operand(e)

    def operand(self, e: Scalar) -> str:
        """The name of a value that has been computed, or a constant."""
        found = literal(e) if e.op == "const" else self.find(e)
        assert found is not None, e
        return found

    def _compute(self, e: Scalar) -> None:
        if e.op == "cast":
            formula = conversion(e.args[0], e.dtype, native=True)
            if formula is not None:
                self.keep(e, self.value(formula))
                return
        self.keep(e, self.w.value(register_type(e.dtype), self.expression(e)))

    def expression(self, e: Scalar) -> str:
        """A C expression for an expression whose operands have been computed."""
        if e.op == "load":
            return self.load(*e.memory)
        if e.op == "gather":
            return self.load(*e.memory, self.operand(e.args[0]))
        if e.op == "index":
            return self.dim(e.position)
        if e.op == "param":
            name = str(e.attr)
            return f"{name} != 0" if e.dtype.kind == "b" else name
        xs = [self.operand(x) for x in e.args]
        if e.op == "table":
            return f"{self.formulas.table(e)}[{xs[0]} & {len(e.numbers) - 1}]"
        if e.op == "detour":
            call = f"{self.formulas.function(e.formula)}({', '.join(xs[2:])})"
            return f"{xs[0]} ? {call} : {xs[1]}"
        if e.op == "formula":
            return f"{self.formulas.function(e.formula)}({', '.join(xs)})"
        return apply(e, xs)

    def load(self, buffer: Buffer, index: Dim, shift: str | None = None) -> str:
        """One element of memory; `shift` (long long) is added to the index."""
        text = self.element(buffer, index, shift)
        return f"{text} != 0" if buffer.dtype.kind == "b" else text

    def element(self, buffer: Buffer, index: Dim, shift: str | None = None) -> str:
        """An element of memory, to be read or written."""
        pointer, start = self.places[buffer.name]
        place = self.dim(index - start)
        return f"{pointer}[{place}]" if shift is None else f"{pointer}[{place} + {shift}]"

    # -- stores -------------------------------------------------------------------------------

    def assign(self, stores: tuple[Store, ...]) -> None:
        """Stores as one parallel assignment: all values before the first is written."""
        ready = [
            (s, self.value(s.value), None if s.position is None else self.value(s.position))
            for s in stores
        ]
        for s, value, shift in ready:
            self.store(s.buffer, s.index, value, shift)
        self.forget_loads({s.buffer for s in stores})

    def store(self, buffer: Buffer, index: Dim, value: str, shift: str | None) -> None:
        """Write one element of memory."""
        self.w.line(f"{self.element(buffer, index, shift)} = {value};")


def apply(e: Scalar, xs: list[str]) -> str:
    """A primitive, cast, bitcast or select of operands."""
    dtype, op = e.args[-1].dtype, e.op
    kind = register_type(e.dtype)
    if op == "select":
        return f"{xs[0]} ? {xs[1]} : {xs[2]}"
    if op == "bitcast":
        return bits_as(xs[0], dtype, e.dtype)
    if op == "cast":
        return convert(xs[0], dtype, e.dtype)
    if op in _FUNCTIONS:
        suffix = "f" if dtype.bits == 32 else ""
        return f"{_FUNCTIONS[op]}{suffix}({', '.join(xs)})"
    if op in _COMPARISONS:
        return f"{xs[0]} {_INFIX[op]} {xs[1]}"
    if op == "neg":
        return f"-{xs[0]}" if dtype.is_float else f"({kind})(0u - ({unsigned_type(dtype)}){xs[0]})"
    if op == "not":
        return f"!{xs[0]}" if dtype.kind == "b" else f"({kind})~{xs[0]}"
    if dtype.is_float:
        return f"{xs[0]} {_INFIX[op]} {xs[1]}"
    if op in _WRAPS:
        u = unsigned_type(dtype)
        return f"({kind})(({u}){xs[0]} {_INFIX[op]} ({u}){xs[1]})"
    return f"({kind})({xs[0]} {_INFIX[op]} {xs[1]})"


def bits_as(x: str, source: DType, target: DType) -> str:
    """The bits of x read as another dtype of the same width."""
    a, b = register_type(source), register_type(target)
    if (a, b) in _BITS:
        return f"{_BITS[a, b]}({x})"
    if a == "double":
        return f"(unsigned long long)__double_as_longlong({x})"
    if b == "double":
        return f"__longlong_as_double((long long){x})"
    return f"({b}){x}"


def convert(x: str, source: DType, target: DType) -> str:
    """x from one dtype to another, never to bool; of 16-bit floats, float16 from and to float32."""
    if target.kind == "b":
        raise CompileError("a cast to bool is a comparison", op="cuda")
    if source.is_low:
        return f"dg_half_to_float({x})"
    if target.is_low:
        return f"dg_float_to_half({x})"
    kind = register_type(target)
    if not source.is_float or target.is_float:
        return f"({kind}){x}"
    suffix = "f" if source.bits == 32 else ""
    bits = target.bits - target.is_signed
    least, most = (-(2**bits), 2**bits - 1) if target.is_signed else (0, 2**bits - 1)
    below = hexadecimal(float(least))
    text = f"{x}, {below}{suffix}, {hexadecimal(float(2**bits))}{suffix}"
    return f"dg_truncate<{kind}>({text}, {_limit(least, target)}, {_limit(most, target)})"


def _limit(number: int, dtype: DType) -> str:
    return literal(const(number, dtype))
