"""The language of native functions: random programs against Python's own semantics on words of 64
bits, its intrinsics, and what is no part of it."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dualgrad.runtime.linker import link, made_object
from dualgrad.runtime.native import language, writer

_serial = itertools.count()
HEAD = """
from dualgrad.runtime.native.language import *
from dualgrad.runtime.native.language import (
    native, c, address, byte, call, fill, float_bits, int32, leading_zeros, release, set_int32,
    shifted, stack, swap, text,
)
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Makes a module of a text, with its native functions compiled by themselves."""
    monkeypatch.setattr(language, "_functions", [])
    monkeypatch.setattr(language, "_cells", [])

    def make(source: str) -> Any:
        path = tmp_path / f"words{next(_serial)}.py"
        path.write_text(HEAD + textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        functions, cells = language.functions(), language.cells()
        ir = writer.text_of(functions, cells)
        names = [f.name for f in functions] + [x.name for x in cells]
        found, module.image = link("words", made_object("words", ir, lambda: ir), names)
        for f in functions:
            words = [ctypes.c_int64] * f.count
            f.address = found[f.name]
            f.call = ctypes.PYFUNCTYPE(ctypes.c_int64, *words)(f.address)
        for x in cells:
            x.bind((ctypes.c_int64 * x.words).from_address(found[x.name]))
        functions.clear()
        cells.clear()
        return module

    return make


# -- Python's semantics on words ------------------------------------------------------------------


def wrapped(x: int) -> int:
    return (int(x) + (1 << 63)) % (1 << 64) - (1 << 63)


def quotient(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: quotient,  # as in C
    ast.Mod: lambda a, b: a - b * quotient(a, b),
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.LShift: lambda a, b: a << b,
    ast.RShift: lambda a, b: a >> b,
}


class ToPython(ast.NodeTransformer):
    """A native function as one of Python: its arithmetic wraps, truths are numbers."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        name = ast.Constant(type(node.op).__name__)
        return self.called("operate", name, node.left, node.right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return self.called("wrapped", node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        return self.called("int", node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        return self.called("int", self.called("bool", node))

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        name = ast.Constant(type(node.op).__name__)
        if isinstance(node.target, ast.Name):
            read = ast.Name(node.target.id, ast.Load())
            return ast.Assign([node.target], self.called("operate", name, read, node.value))
        assert isinstance(node.target, ast.Subscript)
        target = node.target
        change = self.called("augment", target.value, target.slice, name, self.later(node.value))
        return ast.Expr(change)

    @staticmethod
    def later(value: ast.expr) -> ast.expr:
        return ast.Lambda(ast.arguments([], [], None, [], [], None, []), value)

    @staticmethod
    def called(name: str, *args: Any) -> ast.Call:
        return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def operate(name: str, a: int, b: int) -> int:
    return wrapped(OPERATORS[getattr(ast, name)](a, b))


def augment(p: list[int], k: int, name: str, value: Callable[[], int]) -> None:
    before = p[k]
    p[k] = operate(name, before, value())


def in_python(source: str) -> dict[str, Any]:
    tree = ast.parse(source)
    for f in tree.body:
        assert isinstance(f, ast.FunctionDef)
        f.decorator_list = []
    made = ast.fix_missing_locations(ToPython().visit(tree))
    space: dict[str, Any] = {"operate": operate, "wrapped": wrapped, "augment": augment}
    exec(compile(made, "words", "exec"), space)
    return space


# -- random programs ------------------------------------------------------------------------------

ODD = [0, 1, -1, 2, 7, 63, 64, 255, 1 << 31, (1 << 63) - 1, -(1 << 63), 0x5555_5555_5555_5555]


class Writer:
    """Draws functions of three words and one address of 8 words, which end."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.names = ["a", "b", "c"]
        self.depth = 0
        self.lines: list[str] = []
        self.functions = 0
        self.counters = 0
        self.in_loop = False

    def program(self, functions: int) -> str:
        for k in range(functions):
            self.names, self.counters = ["a", "b", "c"], 0
            self.lines += ["@native", f"def f{k}(a, b, c, p):"]
            self.block(1, self.random.randint(3, 7))
            self.lines += [f"    return {self.value(3)}", ""]
            self.functions += 1
        return "\n".join(self.lines)

    def block(self, level: int, count: int) -> None:
        """Statements; names that a branch makes are not known after it."""
        known = list(self.names)
        for _ in range(count):
            self.statement(level)
        if level > 1:
            self.names = known

    def out(self, level: int, line: str) -> None:
        self.lines.append("    " * level + line)

    def statement(self, level: int) -> None:
        kinds = [self.assign, self.augment, self.store]
        kinds += [self.choice, self.loop, self.counted, self.leave] if level < 4 else []
        self.random.choice(kinds)(level)

    def assign(self, level: int) -> None:
        value = self.value(3)
        name = self.random.choice([*self.names, f"x{len(self.names)}"])
        self.out(level, f"{name} = {value}")
        if name not in self.names:
            self.names.append(name)

    def augment(self, level: int) -> None:
        target = self.random.choice([*self.names, self.element()])
        operator = self.random.choice("+-*&|^")
        self.out(level, f"{target} {operator}= {self.value(2)}")

    def store(self, level: int) -> None:
        self.out(level, f"{self.element()} = {self.value(3)}")

    def element(self) -> str:
        return f"p[({self.value(1)}) & 7]"

    def choice(self, level: int) -> None:
        self.out(level, f"if {self.value(2)}:")
        self.block(level + 1, self.random.randint(1, 2))
        if self.random.random() < 0.3:
            self.out(level, f"elif {self.value(2)}:")
            self.block(level + 1, 1)
        if self.random.random() < 0.5:
            self.out(level, "else:")
            self.block(level + 1, self.random.randint(1, 2))

    def loop(self, level: int) -> None:
        n = f"n{self.counters}"
        self.counters += 1
        self.out(level, f"{n} = 0")
        self.out(level, f"while {n} < {self.random.randint(1, 4)} and {self.value(1)}:")
        self.out(level + 1, f"{n} += 1")
        self.inside(level)

    def counted(self, level: int) -> None:
        k = self.random.choice(self.names)  # the body may assign to it
        first = self.random.choice(["", f"{self.random.randint(-2, 2)}, "])
        self.out(level, f"for {k} in range({first}({self.value(1)}) & 3):")
        self.inside(level)

    def inside(self, level: int) -> None:
        before, self.in_loop = self.in_loop, True
        self.block(level + 1, self.random.randint(1, 3))
        self.in_loop = before

    def leave(self, level: int) -> None:
        ways = [f"return {self.value(2)}", *(["break", "continue"] if self.in_loop else [])]
        self.out(level, f"if {self.value(2)}:")
        self.out(level + 1, self.random.choice(ways))

    def value(self, depth: int) -> str:
        r = self.random
        if depth == 0 or r.random() < 0.2:
            return r.choice([*self.names, str(r.choice(ODD)), str(r.randint(-9, 9))])
        x, y, z = (self.value(depth - 1) for _ in range(3))
        forms = [
            *[f"({x} {o} {y})" for o in "+-*&|^"],
            f"({x} // (({y} & 255) + 1))",
            f"({x} % -(({y} & 255) + 2))",
            f"({x} << ({y} & 63))",
            f"({x} >> ({y} & 63))",
            *[f"({x} {o} {y})" for o in ("==", "!=", "<", "<=", ">", ">=")],
            f"({x} and {y})",
            f"({x} or {y} or {z})",
            f"(not {x})",
            f"(-{x})",
            f"(~{x})",
            f"({x} if {y} else {z})",
            f"p[{x} & 7]",
        ]
        if self.functions:
            forms += [f"f{r.randrange(self.functions)}({x}, {y}, {z}, p)"] * 2
        return r.choice(forms)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int, build: Callable[[str], Any]) -> None:
    source = Writer(seed).program(12)
    module, expected = build(source), in_python(source)
    random = Random(seed)
    for k, _ in itertools.product(range(12), range(6)):
        words = [random.choice([*ODD, wrapped(random.getrandbits(64))]) for _ in range(11)]
        memory = (ctypes.c_int64 * 8)(*words[3:])
        there = list(words[3:])
        found = getattr(module, f"f{k}")(*words[:3], ctypes.addressof(memory))
        assert found == expected[f"f{k}"](*words[:3], there), f"f{k}{tuple(words)}\n{source}"
        assert list(memory) == there, f"f{k}{tuple(words)}\n{source}"


# -- parts ----------------------------------------------------------------------------------------


def test_intrinsics(build: Callable[[str], Any]) -> None:
    m = build("""
        BIG = 1 << 40
        cell = Cell(3)
        @native
        def clz(x): return leading_zeros(x)
        @native
        def right(x, n): return shifted(x, n)
        @native
        def double(x): return float_bits(x)
        @native
        def numbers(p):
            set_int32(p, 4, -7)
            return int32(p, 0) * 1000 + int32(p, 4) + byte(p, 9) * 1000000
        @native
        def swapped(p, x):
            old = swap(p, x)
            release(p + 8, old)
            return old
        @native
        def cells(x):
            cell.word = cell.word + x
            (cell.at)[2] += BIG
            return cell.word
        @native
        def local(x):
            p = stack(4)
            fill(p, 255, 24)
            p[3] = x
            return p[0] + p[1] + p[2] + p[3]
        @native
        def indirect(x):
            return call(address(local), x) + c.strlen(text("four")) + c.labs(x)
        @native
        def nothing(x):
            "Only a text."
        @native
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
    """)
    for x in ODD:
        bits = x % (1 << 64)
        assert m.clz(x) == 64 - bits.bit_length()
        assert [m.right(x, n) for n in (1, 33, 63)] == [bits >> n for n in (1, 33, 63)]
        assert m.double(x) == ctypes.c_int64.from_buffer(ctypes.c_double(x)).value
        assert m.local(x) == wrapped(x - 3)
    memory = (ctypes.c_int64 * 3)(3, 250 << 8, 0)
    at = ctypes.addressof(memory)
    assert m.numbers(at) == 3000 - 7 + 250_000_000
    assert memory[0] == wrapped(3 + (-7 << 32))
    memory[:2] = 5, 0
    assert m.swapped(at, 9) == 5
    assert memory[:2] == [9, 5]
    assert [m.cells(4), m.cells(5), m.cell.word, m.cell.memory[2]] == [4, 9, 9, 2 << 40]
    m.cell.word = 100
    assert m.cells(1) == 101
    assert m.indirect(-8) == -11 + 4 + 8
    assert m.nothing(1) == 0
    assert m.fibonacci(15) == 610


def test_conditions_look_at_the_right_side_only_if_it_matters(build: Callable[[str], Any]) -> None:
    m = build("""
        @native
        def safe(p, k):
            if p and p[k] or k == 7 and not p:
                return 1 if p and p[k] > 5 else 2
            return 3
    """)
    memory = (ctypes.c_int64 * 3)(0, 5, 6)
    at = ctypes.addressof(memory)
    assert [m.safe(at, k) for k in range(3)] == [3, 2, 1]
    assert [m.safe(0, 7), m.safe(0, 0)] == [2, 3]


def test_places_are_worked_out_once(build: Callable[[str], Any]) -> None:
    m = build("""
        calls = Cell()
        @native
        def next_place():
            calls.word += 1
            return calls.word
        @native
        def work(p):
            p[next_place()] += 10
            p[next_place()] *= next_place()
            return calls.word
    """)
    memory = (ctypes.c_int64 * 5)(1, 2, 3, 4, 5)
    assert m.work(ctypes.addressof(memory)) == 3
    assert list(memory) == [1, 12, 9, 4, 5]


REFUSED = {
    "return x.real": "no expression|unknown name|no integer",
    "return 1.5": "no expression",
    "return unknown": "unknown name",
    "return print(x)": "unknown name: print",
    "return Cell(x)": "not to be called",
    "return one(x, x)": "takes 1 words",
    "return swap(x)": "takes 2 words",
    "return x / 2": "no operator.*Div",
    "return x ** 2": "no operator.*Pow",
    "return 1 < x < 3": "no expression",
    "return x in x": "no operator.*In",
    "return [x]": "no expression",
    "return lambda: x": "no expression",
    "a, b = x, x": "no expression|nothing to assign",
    "a = b = x": "no statement",
    "a: int = x": "no statement",
    "del x": "no statement",
    "with x: pass": "no statement",
    "raise x": "no statement",
    "for k in x: pass": "no statement",
    "for k in range(1, 2, 3): pass": "no step",
    "while x: pass\n    else: pass": "no statement",
    "one.word = 3": "nothing to assign",
    "return one(x=x)": "no expression",
    "return address(x)": "unknown name|no native function",
    "def inner(): pass": "no statement",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_no_part_of_the_language(line: str, build: Callable[[str], Any]) -> None:
    with pytest.raises(writer.Unknown, match=REFUSED[line]) as caught:
        build(f"@native\ndef one(x): return x\n@native\ndef two(x):\n    {line}\n")
    assert f".two, line {HEAD.count(chr(10)) + 5}: " in str(caught.value)


def test_native_functions_are_for_native_code() -> None:
    for intrinsic in (language.stack, language.text, language.leading_zeros):
        with pytest.raises(TypeError, match="native functions only"):
            intrinsic(1)
    with pytest.raises(TypeError, match="native functions only"):
        getattr(language.c, "PyTuple_New")  # noqa: B009
