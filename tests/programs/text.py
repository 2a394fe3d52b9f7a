"""A program as Python source that a person can run.

`source` defines `program(dg, decorate)`.  It makes what the function captures and the function,
and returns a call of it: `call(seed, n, seen)` makes arguments (of the size `n` where they have
it), calls the function, goes through the statements outside, and leaves all its variables in
`seen`, also if it raises.  `dg` may be PyTorch, for programs that both understand.
"""

from __future__ import annotations

import linecache
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

HEAD = """\
import numpy as np
import dualgrad as dg

inf, nan = float("inf"), float("nan")


def numbers(seed, shape, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape).round(2)


"""
FOOT = """

for decorate in (lambda f: f, dg.function):
    call, seen = program(dg, decorate)
    dg.seed(0)
    for seed, n in {calls}:
        try:
            call(seed, n, seen)
        except Exception as error:
            print(type(error).__name__, error)
        for name, value in seen.items():
            print(name, value, getattr(value, "grad", None))
    print("-" * 80)
"""


def numbers(seed: int, shape: Any, low: float = -2.0, high: float = 2.0) -> Any:
    """Float64 numbers of few digits, as the head of a script has them, too."""
    return np.random.default_rng(seed).uniform(low, high, shape).round(2)


@dataclass(frozen=True)
class Parameter:
    """An argument of the function: its name, and the expression that makes it."""

    name: str
    text: str


@dataclass(frozen=True)
class Program:
    """The parts of the source; every statement is one string, of one or more lines."""

    captured: tuple[Parameter, ...]  # made once
    arguments: tuple[Parameter, ...]  # made for each call
    inside: tuple[str, ...]  # statements of the function
    results: tuple[str, ...]
    outside: tuple[str, ...]  # statements after the call; the results are r0, r1, ...
    calls: tuple[tuple[int, int], ...]  # seed and size of each call

    @property
    def source(self) -> str:
        names = ", ".join(a.name for a in self.arguments)
        outputs = ", ".join(f"r{k}" for k in range(len(self.results)))
        seen = ", ".join(f"{c.name}={c.name}" for c in self.captured)
        lines = [
            "def program(dg, decorate):",
            *(f"    {c.name} = {c.text}" for c in self.captured),
            "",
            "    @decorate",
            f"    def f({names}):",
            *(indented(s, 8) for s in self.inside),
            f"        return [{', '.join(self.results)}]",
            "",
            "    def call(seed, n, seen):",
            "        try:",
            *(f"            {a.name} = {a.text}" for a in self.arguments),
            f"            [{outputs}] = f({names})",
            *(indented(s, 12) for s in self.outside),
            "        finally:",
            "            seen.update(locals(), seen=None)",
            "",
            f"    return call, dict({seen})",
            "",
        ]
        return "\n".join(lines)

    @property
    def script(self) -> str:
        """The program as a file that prints what it does in both modes."""
        return HEAD + self.source + FOOT.format(calls=list(self.calls))

    def make(self, library: Any, decorate: Callable[[Any], Any]) -> tuple[Any, dict[str, Any]]:
        """The call and the captured tensors.  `library` is dualgrad, or PyTorch."""
        source = self.source
        name = f"<program {zlib.crc32(source.encode())}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        space = {"np": np, "inf": np.inf, "nan": np.nan, "numbers": numbers}
        exec(compile(source, name, "exec"), space)
        made: tuple[Any, dict[str, Any]] = space["program"](library, decorate)  # type: ignore[operator]
        return made

    def with_parts(self, **parts: Any) -> Program:
        return replace(self, **parts)


def indented(text: str, n: int) -> str:
    return "\n".join(" " * n + line for line in text.splitlines())
