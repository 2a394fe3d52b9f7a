"""Writing C text, one function at a time, front to back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Writer:
    """Lines of a function's body, indented by the blocks around them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 1
        self._names = 0

    def line(self, text: str) -> None:
        self._lines.append("  " * self._depth + text)

    def new_name(self, prefix: str = "v") -> str:
        """A name that the function does not have yet."""
        self._names += 1
        return f"{prefix}{self._names}"

    def value(self, kind: str, expression: str) -> str:
        """A new name for the value of an expression."""
        name = self.new_name()
        self.line(f"const {kind} {name} = {expression};")
        return name

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """What is written inside stands in braces after `head`."""
        self.line(f"{head} {{" if head else "{")
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    def text(self, signature: str) -> str:
        """The finished function."""
        return "\n".join([f"{signature} {{", *self._lines, "}", ""])
