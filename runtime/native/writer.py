"""From the subset of Python that `language` describes to LLVM IR, before any pass."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable
from types import FunctionType
from typing import Any

from dualgrad.runtime.native.language import INTRINSICS, Cell, Native, c

# C functions whose result is an `int`
_INTS = frozenset({
    "PyObject_IsTrue", "PyDict_SetItem", "PyObject_GenericSetAttr", "PyObject_SetAttr",
    "PyList_Append", "PyType_IsSubtype", "PyErr_GivenExceptionMatches", "PyFrame_GetLasti",
    "PyObject_RichCompareBool", "PyDict_DelItem", "PyList_SetItem", "PyObject_Not", "munmap",
    "PyObject_SetItem", "PyFrame_GetLineNumber", "PySet_Contains", "PyDict_Contains", "madvise",
    "PyTuple_SetItem", "PyErr_CheckSignals", "PyWeakref_GetRef", "PySequence_Contains",
    "PyDict_Next", "PyUnicode_Compare", "PyCell_Set", "clock_gettime",
    "PyErr_ExceptionMatches",
})  # fmt: skip
# C functions with doubles: result and parameters, d or w each
_DOUBLES = {
    "PyFloat_AsDouble": ("d", "w"),
    "PyFloat_FromDouble": ("w", "d"),
    "PyLong_AsDouble": ("d", "w"),
}

_INLINED = 32  # lines of a function that becomes a part of those that call it


def text_of(described: list[Native], cells: list[Cell]) -> str:
    """LLVM IR of functions, before any pass."""
    module = _Module()
    bodies = [_Body(module, f).text() for f in described]
    head = [f'@"{x.name}" = global [{x.words} x i64] zeroinitializer, align 64' for x in cells]
    head += module.texts
    head += sorted(module.declared.values())
    return "\n".join([*head, *bodies])


class _Module:
    """What several functions share: C functions, constant texts, and the files they stand in."""

    def __init__(self) -> None:
        self.files: dict[str, dict[int, ast.FunctionDef]] = {}
        self.declared: dict[str, str] = {}
        self.texts: list[str] = []

    def text(self, value: str) -> str:
        raw = value.encode() + b"\0"
        name = f"@text{len(self.texts)}"
        escaped = "".join(f"\\{byte:02x}" for byte in raw)
        self.texts.append(f'{name} = internal constant [{len(raw)} x i8] c"{escaped}"')
        return name

    def definition(self, function: FunctionType) -> ast.FunctionDef:
        """The text of a function; each file is parsed once."""
        file = function.__code__.co_filename
        if file not in self.files:
            tree = ast.parse("".join(linecache.getlines(file, function.__globals__)))
            found = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
            self.files[file] = {_first_line(n): n for n in found}
        return self.files[file][function.__code__.co_firstlineno]


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


class Unknown(TypeError):
    """Something that is no part of the language."""


class _Body:
    """Writes one function.  Variables live in memory; LLVM's passes put them into registers."""

    def __init__(self, module: _Module, described: Native) -> None:
        self.module, self.described = module, described
        self.globals = described.function.__globals__
        self.node = node = module.definition(described.function)
        self.parameters = [a.arg for a in node.args.args]
        self.locals = set(described.function.__code__.co_varnames)
        self.lines: list[str] = []
        self.entry: list[str] = []  # stack memory
        self.count = 0
        self.loops: list[tuple[str, str]] = []  # where `continue` and `break` go
        self.ended = False

    def text(self) -> str:
        for name in sorted(self.locals):
            self.entry.append(f'  %"v.{name}" = alloca i64')
        for k, name in enumerate(self.parameters):
            self.entry.append(f'  store i64 %a{k}, ptr %"v.{name}"')
        self.block(self.node.body)
        if not self.ended:
            self.out("ret i64 0")
        taken = ", ".join(f"i64 %a{k}" for k in range(len(self.parameters)))
        inlined = " alwaysinline" if len(self.lines) <= _INLINED else ""
        head = f'define i64 @"{self.described.name}"({taken}) nounwind{inlined} {{\nentry:'
        return "\n".join([head, *self.entry, *self.lines, "}"])

    # -- lines --------------------------------------------------------------------------------

    def out(self, line: str) -> None:
        if not self.ended:
            self.lines.append(f"  {line}")
        self.ended = self.ended or line.startswith(("ret ", "br "))

    def new(self, line: str) -> str:
        """The value that an instruction makes."""
        self.count += 1
        self.out(f"%t{self.count} = {line}")
        return f"%t{self.count}"

    def label(self) -> str:
        self.count += 1
        return f"l{self.count}"

    def start(self, label: str) -> None:
        self.out(f"br label %{label}")
        self.lines.append(f"{label}:")
        self.ended = False

    def branch(self, condition: str, yes: str, no: str) -> None:
        bit = self.new(f"icmp ne i64 {condition}, 0")
        self.out(f"br i1 {bit}, label %{yes}, label %{no}")

    def unknown(self, node: ast.AST, what: str) -> Unknown:
        line = getattr(node, "lineno", self.node.lineno)
        return Unknown(f"{self.described.name}, line {line}: {what}")

    # -- statements ---------------------------------------------------------------------------

    def block(self, statements: list[ast.stmt]) -> None:
        for s in statements:
            self.statement(s)

    def statement(self, s: ast.stmt) -> None:
        match s:
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.Expr(value=value):
                self.value(value)
            case ast.Assign(targets=[target], value=value):
                self.assign(target, self.value(value))
            case ast.AugAssign(target=target, op=op, value=value):
                self.augment(target, op, value)
            case ast.Return(value=value):
                self.out(f"ret i64 {'0' if value is None else self.value(value)}")
            case ast.If():
                self.choice(s)
            case ast.While(test=test, body=body, orelse=[]):
                again, inside, after = self.label(), self.label(), self.label()
                self.start(again)
                self.branch(self.value(test), inside, after)
                self.loop(inside, body, again, after, lambda: None)
            case ast.For(
                target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range")), orelse=[]
            ):
                self.counted(name, s)
            case ast.Continue() | ast.Break():
                self.out(f"br label %{self.loops[-1][isinstance(s, ast.Break)]}")
            case _:
                raise self.unknown(s, f"no statement of native code: {ast.unparse(s)}")

    def choice(self, s: ast.If) -> None:
        yes, no, after = self.label(), self.label(), self.label()
        self.branch(self.value(s.test), yes, no)
        self.open(yes)
        self.block(s.body)
        self.out(f"br label %{after}")
        self.open(no)
        self.block(s.orelse)
        self.start(after)

    def open(self, label: str) -> None:
        """Begin a block that is reached by jumps alone."""
        self.lines.append(f"{label}:")
        self.ended = False

    def loop(
        self, inside: str, body: list[ast.stmt], again: str, after: str, step: Callable[[], None]
    ) -> None:
        following = self.label()
        self.open(inside)
        self.loops.append((following, after))
        self.block(body)
        self.loops.pop()
        self.start(following)
        step()
        self.out(f"br label %{again}")
        self.open(after)

    def counted(self, name: str, s: ast.For) -> None:
        """for name in range(...)"""
        assert isinstance(s.iter, ast.Call)
        bounds = [self.value(a) for a in s.iter.args]
        first, last = ("0", bounds[0]) if len(bounds) == 1 else bounds[:2]
        if len(bounds) > 2:
            raise self.unknown(s, "a range has no step")
        count = self.variable()  # of its own: the body may change what it is told
        self.out(f"store i64 {first}, ptr {count}")
        again, begin, inside, after = self.label(), self.label(), self.label(), self.label()
        self.start(again)
        k = self.new(f"load i64, ptr {count}")
        self.out(f"br i1 {self.new(f'icmp slt i64 {k}, {last}')}, label %{begin}, label %{after}")
        self.open(begin)
        self.store_local(name, k)
        self.out(f"br label %{inside}")

        def step() -> None:
            self.out(f"store i64 {self.new(f'add i64 {k}, 1')}, ptr {count}")

        self.loop(inside, s.body, again, after, step)

    def load_local(self, name: str) -> str:
        return self.new(f'load i64, ptr %"v.{name}"')

    def store_local(self, name: str, value: str) -> None:
        self.out(f'store i64 {value}, ptr %"v.{name}"')

    def assign(self, target: ast.expr, value: str) -> None:
        if isinstance(target, ast.Name):
            self.store_local(target.id, value)
        else:
            self.out(f"store i64 {value}, ptr {self.place(target)}")

    def augment(self, target: ast.expr, op: ast.operator, value: ast.expr) -> None:
        """target op= value, where the place is worked out once."""
        place = f'%"v.{target.id}"' if isinstance(target, ast.Name) else self.place(target)
        before = self.new(f"load i64, ptr {place}")
        self.out(f"store i64 {self.binary(op, before, self.value(value), target)}, ptr {place}")

    def place(self, target: ast.expr) -> str:
        """The memory that `p[k]` or `CELL.word` stands for."""
        match target:
            case ast.Subscript(value=base, slice=index):
                start = self.new(f"inttoptr i64 {self.value(base)} to ptr")
                return self.new(f"getelementptr i64, ptr {start}, i64 {self.value(index)}")
            case ast.Attribute(value=base, attr="word"):
                cell = self.object(base)
                if isinstance(cell, Cell):
                    return f'@"{cell.name}"'
        raise self.unknown(target, f"nothing to assign to: {ast.unparse(target)}")

    # -- expressions --------------------------------------------------------------------------

    def value(self, e: ast.expr) -> str:
        match e:
            case ast.Constant(value=int() as number):
                return str(int(number))
            case ast.Name(id=name) if name in self.locals:
                return self.load_local(name)
            case ast.Subscript() | ast.Attribute(attr="word"):
                return self.new(f"load i64, ptr {self.place(e)}")
            case ast.Name() | ast.Attribute():
                return self.constant(e)
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(op, self.value(left), self.value(right), e)
            case ast.UnaryOp(op=op, operand=operand):
                return self.unary(op, self.value(operand), e)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                kind = self.one_of(_COMPARISONS, op, e)
                return self.bit(f"icmp {kind} i64 {self.value(left)}, {self.value(right)}")
            case ast.BoolOp(op=op, values=values):
                return self.shortcut(isinstance(op, ast.And), values)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.chosen(test, body, orelse)
            case ast.Call(func=func, args=args, keywords=[]):
                return self.called(func, args, e)
        raise self.unknown(e, f"no expression of native code: {ast.unparse(e)}")

    def bit(self, comparison: str) -> str:
        return self.new(f"zext i1 {self.new(comparison)} to i64")

    def one_of(self, table: dict[type, str], op: ast.AST, e: ast.AST) -> str:
        if type(op) not in table:
            raise self.unknown(e, f"no operator of native code: {type(op).__name__}")
        return table[type(op)]

    def binary(self, op: ast.operator, left: str, right: str, e: ast.AST) -> str:
        return self.new(f"{self.one_of(_OPERATORS, op, e)} i64 {left}, {right}")

    def unary(self, op: ast.unaryop, x: str, e: ast.AST) -> str:
        match op:
            case ast.Not():
                return self.bit(f"icmp eq i64 {x}, 0")
            case ast.USub():
                return self.new(f"sub i64 0, {x}")
            case ast.Invert():
                return self.new(f"xor i64 {x}, -1")
        raise self.unknown(e, "no operator of native code")

    def variable(self) -> str:
        """Stack memory for a value that two branches make."""
        self.count += 1
        self.entry.append(f"  %s{self.count} = alloca i64")
        return f"%s{self.count}"

    def shortcut(self, all_of: bool, values: list[ast.expr]) -> str:
        found, after = self.variable(), self.label()
        for k, v in enumerate(values):
            bit = self.bit(f"icmp ne i64 {self.value(v)}, 0")
            self.out(f"store i64 {bit}, ptr {found}")
            if k < len(values) - 1:
                following = self.label()
                yes, no = (following, after) if all_of else (after, following)
                self.branch(bit, yes, no)
                self.open(following)
        self.start(after)
        return self.new(f"load i64, ptr {found}")

    def chosen(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> str:
        found, yes, no, after = self.variable(), self.label(), self.label(), self.label()
        self.branch(self.value(test), yes, no)
        for label, e in ((yes, body), (no, orelse)):
            self.open(label)
            self.out(f"store i64 {self.value(e)}, ptr {found}")
            self.out(f"br label %{after}")
        self.open(after)
        return self.new(f"load i64, ptr {found}")

    def object(self, e: ast.expr) -> Any:
        """What a name of the module stands for."""
        match e:
            case ast.Name(id=name) if name in self.globals:
                return self.globals[name]
            case ast.Attribute(value=base, attr=attr):
                owner = self.object(base)
                return _CFunction(attr) if owner is c else getattr(owner, attr, None)
        raise self.unknown(e, f"unknown name: {ast.unparse(e)}")

    def constant(self, e: ast.expr) -> str:
        if isinstance(e, ast.Attribute) and e.attr == "at":
            cell = self.object(e.value)
            if isinstance(cell, Cell):
                return f'ptrtoint (ptr @"{cell.name}" to i64)'
        found = self.object(e)
        if isinstance(found, int):
            return str(int(found))
        raise self.unknown(e, f"no integer: {ast.unparse(e)}")

    # -- calls --------------------------------------------------------------------------------

    def called(self, func: ast.expr, args: list[ast.expr], e: ast.expr) -> str:
        if isinstance(func, ast.Name) and func.id in INTRINSICS:
            return self.intrinsic(func.id, args, e)
        target = self.object(func)
        words = [self.value(a) for a in args]
        taken = ", ".join(f"i64 {w}" for w in words)
        if isinstance(target, Native):
            if len(words) != target.count:
                raise self.unknown(e, f"{target.name} takes {target.count} words")
            return self.new(f'call i64 @"{target.name}"({taken})')
        if isinstance(target, _CFunction):
            return self.c_function(target.name, words)
        raise self.unknown(e, f"not to be called: {ast.unparse(func)}")

    def c_function(self, name: str, words: list[str]) -> str:
        kinds = _DOUBLES.get(name, ("w", "w" * len(words)))
        types = [_TYPES[k] for k in kinds[1]]
        result = "i32" if name in _INTS else _TYPES[kinds[0]]
        self.module.declared[name] = f"declare {result} @{name}({', '.join(types)}) nounwind"
        passed = [w if t == "i64" else self.as_double(w) for t, w in zip(types, words, strict=True)]
        taken = ", ".join(f"{t} {w}" for t, w in zip(types, passed, strict=True))
        made = self.new(f"call {result} @{name}({taken})")
        if result == "i32":
            return self.new(f"sext i32 {made} to i64")
        return made if result == "i64" else self.new(f"bitcast double {made} to i64")

    def as_double(self, word: str) -> str:
        return self.new(f"bitcast i64 {word} to double")

    def pointer(self, e: ast.expr, offset: ast.expr) -> str:
        start = self.new(f"inttoptr i64 {self.value(e)} to ptr")
        return self.new(f"getelementptr i8, ptr {start}, i64 {self.value(offset)}")

    def intrinsic(self, name: str, args: list[ast.expr], e: ast.expr) -> str:
        if name != "call" and len(args) != INTRINSICS[name]:
            raise self.unknown(e, f"{name} takes {INTRINSICS[name]} words")
        made: str = getattr(self, f"_{name}")(*args)
        return made

    def _call(self, target: ast.expr, *args: ast.expr) -> str:
        words = [self.value(a) for a in args]
        pointer = self.new(f"inttoptr i64 {self.value(target)} to ptr")
        return self.new(f"call i64 {pointer}({', '.join(f'i64 {w}' for w in words)})")

    def _address(self, function: ast.expr) -> str:
        found = self.object(function)
        if isinstance(found, Native):
            return f'ptrtoint (ptr @"{found.name}" to i64)'
        raise self.unknown(function, "no native function")

    def _stack(self, words: ast.expr) -> str:
        n = self.value(words)  # a constant
        self.count += 1
        self.entry.append(f"  %s{self.count} = alloca [{n} x i64], align 16")
        return self.new(f"ptrtoint ptr %s{self.count} to i64")

    def _text(self, value: ast.expr) -> str:
        assert isinstance(value, ast.Constant)
        assert isinstance(value.value, str)
        return f"ptrtoint (ptr {self.module.text(value.value)} to i64)"

    def _int32(self, base: ast.expr, offset: ast.expr) -> str:
        found = self.new(f"load i32, ptr {self.pointer(base, offset)}")
        return self.new(f"sext i32 {found} to i64")

    def _set_int32(self, base: ast.expr, offset: ast.expr, value: ast.expr) -> str:
        pointer = self.pointer(base, offset)
        low = self.new(f"trunc i64 {self.value(value)} to i32")
        self.out(f"store i32 {low}, ptr {pointer}")
        return "0"

    def _byte(self, base: ast.expr, offset: ast.expr) -> str:
        found = self.new(f"load i8, ptr {self.pointer(base, offset)}")
        return self.new(f"zext i8 {found} to i64")

    def _swap(self, base: ast.expr, value: ast.expr) -> str:
        pointer = self.new(f"inttoptr i64 {self.value(base)} to ptr")
        return self.new(f"atomicrmw xchg ptr {pointer}, i64 {self.value(value)} seq_cst")

    def _release(self, base: ast.expr, value: ast.expr) -> str:
        pointer = self.new(f"inttoptr i64 {self.value(base)} to ptr")
        self.out(f"store atomic i64 {self.value(value)}, ptr {pointer} release, align 8")
        return "0"

    def _leading_zeros(self, x: ast.expr) -> str:
        self.module.declared["ctlz"] = "declare i64 @llvm.ctlz.i64(i64, i1)"
        return self.new(f"call i64 @llvm.ctlz.i64(i64 {self.value(x)}, i1 false)")

    def _shifted(self, x: ast.expr, bits: ast.expr) -> str:
        return self.new(f"lshr i64 {self.value(x)}, {self.value(bits)}")

    def _float_bits(self, x: ast.expr) -> str:
        number = self.new(f"sitofp i64 {self.value(x)} to double")
        return self.new(f"bitcast double {number} to i64")

    def _fill(self, start: ast.expr, byte: ast.expr, count: ast.expr) -> str:
        self.module.declared["memset"] = "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
        pointer = self.new(f"inttoptr i64 {self.value(start)} to ptr")
        low = self.new(f"trunc i64 {self.value(byte)} to i8")
        n = self.value(count)
        self.out(f"call void @llvm.memset.p0.i64(ptr {pointer}, i8 {low}, i64 {n}, i1 false)")
        return "0"


class _CFunction:
    """A C function of the process."""

    def __init__(self, name: str) -> None:
        self.name = name


_TYPES = {"w": "i64", "d": "double"}
_OPERATORS: dict[type, str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "sdiv", ast.Mod: "srem",
    ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor", ast.LShift: "shl", ast.RShift: "ashr",
}  # fmt: skip
_COMPARISONS: dict[type, str] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Is: "eq", ast.IsNot: "ne",
    ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge",
}  # fmt: skip
