"""Eager ops, one at a time, against NumPy and PyTorch: python -m benchmarks.eager [options] [ops].

Each library has a process of its own; blocks of all libraries follow each other.  For dualgrad
the first call of each op is timed as well, with an empty and with a filled disk cache (in a
process that has compiled something before: loading llvmlite is a cost of the process).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from benchmarks.machine import Others, describe
from benchmarks.oprows import ROWS, Row
from benchmarks.process import ROOT
from benchmarks.report import aligned, time_text, write_section
from dualgrad.runtime.host import cpu_count

LIBRARIES = ("dualgrad", "numpy", "torch")
COLUMNS = ("op", "dualgrad", "NumPy", "torch", "ratio", "first", "cached")
_THREADS = ("DG_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Library:
    """A process that runs ops of one library."""

    def __init__(self, name: str, threads: int, cache: Path) -> None:
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.opworker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**environment, "DG_CACHE_DIR": str(cache)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def ask(self, do: str, expression: str) -> float | None:
        """Nanoseconds of a call; None where the library cannot run it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(do, expression, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        return float(answer) if answer.strip() not in ("", "-") else None


@dataclass
class Result:
    """What was measured of one op, in nanoseconds."""

    row: Row
    blocks: dict[str, list[float]] = field(default_factory=dict)
    first: float | None = None
    cached: float | None = None

    def median(self, library: str) -> float | None:
        blocks = self.blocks.get(library)
        return statistics.median(blocks) if blocks else None

    @property
    def ratio(self) -> float | None:
        """Time relative to the fastest other library."""
        others = [t for n in LIBRARIES[1:] if (t := self.median(n)) is not None]
        own = self.median("dualgrad")
        return own / min(others) if others and own is not None else None

    def cells(self) -> list[str]:
        times = [self.median(n) for n in LIBRARIES]
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        texts = ["" if t is None else time_text(t) for t in (*times, self.first, self.cached)]
        return [self.row.name, *texts[:3], ratio, *texts[3:]]


def first_calls(results: Sequence[Result], threads: int, folder: Path) -> None:
    """The first call of each op, with an empty and then with a filled cache."""
    for state in ("first", "cached"):
        with Library("dualgrad", threads, folder) as library:
            for result in results:
                setattr(result, state, library.ask("once", result.row.dualgrad))


def steady_calls(
    results: Sequence[Result], names: Sequence[str], repeats: int, threads: int, folder: Path
) -> None:
    """Interleaved blocks of all libraries."""
    workers = {n: Library(n, threads, folder) for n in names}
    for result in results:
        for _ in range(repeats):
            for name, worker in workers.items():
                expression = getattr(result.row, name)
                time = None if expression is None else worker.ask("block", expression)
                if time is not None:
                    result.blocks.setdefault(name, []).append(time)
        print("  ".join(result.cells()), flush=True)
    for worker in workers.values():
        worker.__exit__()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eager", description=__doc__)
    parser.add_argument("ops", nargs="*", help="rows to measure (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each library")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    arguments = parser.parse_args(argv)
    known = {row.name: row for row in ROWS}
    for name in arguments.ops:
        if name not in known:
            parser.error(f"no row {name!r}; there are {', '.join(known)}")
    rows = [known[n] for n in arguments.ops] or ROWS
    names = [n for n in LIBRARIES if importlib.util.find_spec(n) is not None]
    others = Others()
    results = [Result(row) for row in rows]
    with TemporaryDirectory(prefix="dualgrad-bench-") as folder:
        first_calls(results, arguments.threads, Path(folder))
        steady_calls(results, names, arguments.repeats, arguments.threads, Path(folder))
    ratios = [r.ratio for r in results if r.ratio is not None]
    slow = [r.row.name for r in results if r.ratio is not None and r.ratio > 1.3]
    summary = (
        f"{len(ratios)} ops compared; median ratio {statistics.median(ratios):.2f}; "
        f"above 1.3: {', '.join(slow) or 'none'}"
        if ratios
        else "nothing to compare with"
    )
    table = [COLUMNS, *(r.cells() for r in results)]
    print("\n".join(aligned(table)))
    print(summary)
    if arguments.markdown:
        machine = describe(names, arguments.threads)
        program, share = "benchmarks.eager", others.share()
        write_section(arguments.markdown, program, argv, machine, share, table, [summary])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
