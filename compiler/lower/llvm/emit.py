"""Writing LLVM IR text, one function at a time, front to back.

Values are SSA names ("%7") or Python integers, which stand for i64 constants.  The text is final:
no pass cleans it up, so what is written is what runs.

    f = Function("internal void @clear(ptr %p, i64 %n)")
    with f.loop(0, "%n") as i:
        f.store("i64", 0, f.at("%p", i, "i64"), align=8)
    text = f.text()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Value = str | int
_FEW = 16


class Function:
    """The text of one function under construction; `signature` follows `define`.

    A `rare` one runs once where others run in loops: code generation spends less time on it.
    """

    def __init__(self, signature: str, rare: bool = False) -> None:
        attributes = "nounwind noinline optnone" if rare else "nounwind"
        # jump tables would need relocations in data
        self._lines = [f'define {signature} {attributes} "no-jump-tables"="true" {{', "entry:"]
        self._early: list[str] = []
        self._names = 0
        self.block = "entry"

    def text(self, result: str = "void") -> str:
        """The finished function; `result` is the type and value that it returns."""
        head, rest = self._lines[:2], self._lines[2:]
        return "\n".join([*head, *self._early, *rest, f"  ret {result}", "}", ""])

    # -- statements ---------------------------------------------------------------------------

    def do(self, statement: str) -> None:
        self._lines.append("  " + statement)

    def value(self, expression: str) -> str:
        """A new name for the value of `expression`."""
        name = f"%{self._new()}"
        self.do(f"{name} = {expression}")
        return name

    def early(self, expression: str) -> str:
        """A name for a value that is computed before all others, so that it may be used
        everywhere; `expression` names only arguments and other early values."""
        name = f"%{self._new()}"
        self._early.append(f"  {name} = {expression}")
        return name

    def load(self, kind: str, pointer: str, align: int = 8) -> str:
        return self.value(f"load {kind}, ptr {pointer}, align {align}")

    def store(self, kind: str, value: Value, pointer: str, align: int = 8) -> None:
        self.do(f"store {kind} {value}, ptr {pointer}, align {align}")

    def call(self, function: str, *arguments: tuple[str, Value]) -> None:
        """Call a void function with (type, value) arguments."""
        self.do(f"call void {function}({_typed(arguments)})")

    def result(self, kind: str, function: str, *arguments: tuple[str, Value]) -> str:
        """The value that `function` returns."""
        return self.value(f"call {kind} {function}({_typed(arguments)})")

    # -- i64 arithmetic -----------------------------------------------------------------------

    def add(self, x: Value, y: Value) -> str:
        return self.value(f"add i64 {x}, {y}")

    def sub(self, x: Value, y: Value) -> str:
        return self.value(f"sub i64 {x}, {y}")

    def mul(self, x: Value, y: Value) -> str:
        return self.value(f"mul i64 {x}, {y}")

    def quotient(self, x: Value, y: Value) -> str:
        """x // y for x >= 0, y > 0."""
        return self.value(f"udiv i64 {x}, {y}")

    def ceil_quotient(self, x: Value, y: Value) -> str:
        """ceil(x / y) for x >= 0, y > 0."""
        return self.quotient(self.sub(self.add(x, y), 1), y)

    def min(self, x: Value, y: Value) -> str:
        return self.result("i64", "@llvm.smin.i64", ("i64", x), ("i64", y))

    def max(self, x: Value, y: Value) -> str:
        return self.result("i64", "@llvm.smax.i64", ("i64", x), ("i64", y))

    def compare(self, relation: str, x: Value, y: Value, kind: str = "i64") -> str:
        """An i1; `relation` as in icmp: eq, ne, slt, sle, ..."""
        return self.value(f"icmp {relation} {kind} {x}, {y}")

    def select(self, condition: str, yes: Value, no: Value, kind: str = "i64") -> str:
        return self.value(f"select i1 {condition}, {kind} {yes}, {kind} {no}")

    def at(self, pointer: str, index: Value, element: str) -> str:
        """The address `index` elements after `pointer`."""
        return self.value(f"getelementptr {element}, ptr {pointer}, i64 {index}")

    # -- control flow -------------------------------------------------------------------------

    def new_block(self) -> str:
        return self._new("b")

    def start(self, block: str) -> None:
        """What follows belongs to `block`."""
        self._lines.append(f"{block}:")
        self.block = block

    def start_next(self) -> None:
        """Go on in a new block."""
        block = self.new_block()
        self.jump(block)
        self.start(block)

    def jump(self, block: str) -> None:
        self.do(f"br label %{block}")

    def branch(self, condition: str, yes: str, no: str) -> None:
        self.do(f"br i1 {condition}, label %{yes}, label %{no}")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Code that runs only if `condition` holds."""
        yes, after = self.new_block(), self.new_block()
        self.branch(condition, yes, after)
        self.start(yes)
        yield
        self.jump(after)
        self.start(after)

    @contextmanager
    def otherwise(self, condition: str) -> Iterator[None]:
        """Code that runs only if `condition` does not hold."""
        with self.when(self.value(f"xor i1 {condition}, true")):
            yield

    @contextmanager
    def loop(self, first: Value, stop: Value, step: Value = 1) -> Iterator[str]:
        """for i in range(first, stop, step), step > 0; yields i."""
        head, body, after = (self.new_block() for _ in range(3))
        before = self.block
        self.jump(head)
        self.start(head)
        i = f"%{self._new()}"
        phi = self._reserve()
        self.branch(self.compare("slt", i, stop), body, after)
        self.start(body)
        yield i
        following = self.add(i, step)
        self._fill(phi, i, "i64", (first, before), (following, self.block))
        self.jump(head)
        self.start(after)

    def each(self, count: int) -> Iterator[Value]:
        """0 .. count-1, each in code of its own if they are few, else in a loop."""
        if count <= _FEW:
            yield from range(count)
        else:
            with self.loop(0, count) as i:
                yield i

    def repeat(self) -> Repeat:
        """A loop tested at its end, with values carried from turn to turn."""
        return Repeat(self)

    # -- names and places ---------------------------------------------------------------------

    def _new(self, prefix: str = "v") -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def _reserve(self) -> int:
        """A line to be filled later: a phi names values that do not exist yet."""
        self._lines.append("")
        return len(self._lines) - 1

    def _fill(self, line: int, name: str, kind: str, *sources: tuple[Value, str]) -> None:
        choices = ", ".join(f"[ {value}, %{block} ]" for value, block in sources)
        self._lines[line] = f"  {name} = phi {kind} {choices}"


class Repeat:
    """do { ... } while (condition): carry values in, name their successors, then close.

        turn = f.repeat()
        i = turn.carry("i64", 0)
        j = f.add(i, 1)
        turn.close(f.compare("slt", j, "%n"), [j])

    Successors come in the order of the carried values; after the loop they hold its results.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._before = function.block
        self._body = function.new_block()
        self._carried: list[tuple[int, str, str, Value]] = []
        function.jump(self._body)
        function.start(self._body)

    def carry(self, kind: str, first: Value) -> str:
        """A value that is `first` in the first turn; only at the start of the body."""
        name = f"%{self._function._new()}"
        self._carried.append((self._function._reserve(), name, kind, first))
        return name

    def close(self, condition: str, successors: Sequence[Value]) -> None:
        f = self._function
        for (line, name, kind, first), following in zip(self._carried, successors, strict=True):
            f._fill(line, name, kind, (first, self._before), (following, f.block))
        after = f.new_block()
        f.branch(condition, self._body, after)
        f.start(after)


def _typed(arguments: Sequence[tuple[str, Value]]) -> str:
    return ", ".join(f"{kind} {value}" for kind, value in arguments)
