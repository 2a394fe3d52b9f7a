"""What a call of a compiled function costs: python -m benchmarks.calls [options].

Functions of four numbers do almost no work, so their time is the cost of the call: finding the
path, checking what is captured, launching.  Each row is timed compiled and undecorated, in
interleaved blocks of one process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dualgrad as dg
from benchmarks.machine import Others, describe
from benchmarks.report import aligned, time_text, write_section
from dualgrad import nn, optim
from dualgrad.runtime.host import cpu_count

COLUMNS = ("call", "compiled", "undecorated", "ratio", "traces")
_BLOCK = 0.02  # seconds

scale = 1.5


class Settings:
    shift = 0.25

    def __init__(self) -> None:
        self.power, self.offset, self.factors = 2, 0.5, [1.0, 2.0]
        self.names = {"a": 3.0, "b": 4.0}


@dataclass
class Row:
    """A function and how it is called; `before` runs between calls, and is not timed apart."""

    name: str
    function: Callable[..., Any]
    call: Callable[[Callable[..., Any]], Any]


def rows() -> list[Row]:
    """All rows, with state of their own."""
    x, settings, cell = dg.ones(4), Settings(), 0.75

    def ten(x: Any) -> Any:
        s = settings
        x = x * scale + s.shift + s.power * s.offset
        x = x * s.factors[0] + s.factors[1] * s.names["a"]
        return x * s.names["b"] + cell

    def keyword(x: Any, factor: float = 2.0) -> Any:
        return x * factor

    def container(batch: dict[str, Any]) -> Any:
        return batch["x"] * batch["scale"][0]

    class Memory:
        h = dg.zeros(4)

    def stateful(x: Any) -> Any:
        Memory.h = Memory.h * 0.5 + x
        return Memory.h

    rates = iter(range(10**9))
    lengths = [dg.ones(n) for n in range(2, 14)]
    return [
        Row("x + 1", lambda x: x + 1.0, lambda f: f(x)),
        Row("ten captured values", ten, lambda f: f(x)),
        Row("a keyword argument", keyword, lambda f: f(x, factor=3.0)),
        Row("a number that changes", keyword, lambda f: f(x, float(next(rates)))),
        Row("dict and list of arguments", container, lambda f: f({"x": x, "scale": [2.0]})),
        Row("lengths that change", lambda x: x * 2.0, lambda f: f(lengths[next(rates) % 12])),
        Row("a tensor that is rebound", stateful, lambda f: f(x)),
        model_row(x),
        step_row(x),
    ]


def model_row(x: Any) -> Row:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    return Row("a model of two layers", lambda x: model(x).detach(), lambda f: f(x))


def step_row(x: Any) -> Row:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def call(f: Callable[..., Any]) -> Any:
        optimizer.param_groups[0]["lr"] *= 0.9999
        return f(x)

    return Row("its training step, with a schedule", step, call)


def block(row: Row, f: Callable[..., Any]) -> float:
    """Nanoseconds of a call, over a block of them."""
    call, count, started = row.call, 0, time.perf_counter()
    while (now := time.perf_counter()) - started < _BLOCK:
        for _ in range(10):
            call(f)
        count += 10
    return 1e9 * (now - started) / count


def measure(row: Row, repeats: int) -> list[str]:
    """The cells of a row."""
    compiled = dg.function(row.function)
    for _ in range(30):
        row.call(compiled)
        row.call(row.function)
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats):
        times[True].append(block(row, compiled))
        times[False].append(block(row, row.function))
    fast, slow = (statistics.median(times[k]) for k in (True, False))
    eager = " (eager)" if compiled.eager_reason else ""
    cells = [row.name, time_text(fast) + eager, time_text(slow), f"{fast / slow:.2f}"]
    return [*cells, str(compiled.n_traces)]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="blocks of each mode")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    arguments = parser.parse_args(argv)
    others = Others()
    table = [COLUMNS, *(tuple(measure(row, arguments.repeats)) for row in rows())]
    print("\n".join(aligned(table)))
    if arguments.markdown:
        machine = describe([], cpu_count())
        program, share = "benchmarks.calls", others.share()
        write_section(arguments.markdown, program, argv, machine, share, table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
