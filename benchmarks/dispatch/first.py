"""First calls by stage, each in a process of its own."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.arms import Arm
from benchmarks.dispatch.measure import ask, worker
from benchmarks.process import WorkerFailed
from benchmarks.report import time_text

COLUMNS = (
    "first call", "library", "import", "llvmlite", "entries", "cold", "trace", "passes",
    "machine code", "load", "cached",
)  # fmt: skip
_COLD = ("llvmlite", "entries", "total", "trace", "passes", "machine code", "load")
Times = dict[str, float]  # seconds, by stage


def first_call(arm: Arm, group: str, name: str, repeats: int, threads: int) -> list[str]:
    """The cells of a call in one arm: medians over processes, with empty and filled caches."""
    cold: list[Times] = []
    cached: list[Times] = []
    if not arm.peer:  # its bytecode files may not be there yet
        with TemporaryDirectory(prefix="dualgrad-first-") as folder:
            _once(arm, group, name, threads, folder, warm=False)
    for _ in range(1 if arm.slow else repeats):
        with TemporaryDirectory(prefix="dualgrad-first-") as folder:
            cold.append(_once(arm, group, name, threads, folder, warm=False))
            if arm.caches:
                cached.append(_once(arm, group, name, threads, folder, warm=True))
    cells = [name, arm.name, _median([*cold, *cached], "import")]
    cells += [_median(cold, stage) for stage in _COLD]
    return [*cells, _median(cached, "total")]


def table(
    rows: Sequence[tuple[str, str]], arms: dict[str, Sequence[Arm]], repeats: int, threads: int
) -> list[list[str]]:
    """All rows; `arms` are those of a group.  Prints each as it is done."""
    out = []
    for group, name in rows:
        for arm in arms[group]:
            try:
                cells = first_call(arm, group, name, repeats, threads)
            except WorkerFailed as failure:
                if not arm.peer:
                    raise
                print(f"{name}: without {arm.name}: {failure}", flush=True)
                continue
            out.append(cells)
            print("  ".join(cells), flush=True)
    return out


def _once(arm: Arm, group: str, name: str, threads: int, folder: str, warm: bool) -> Times:
    with worker(arm, threads, Path(folder)) as process:
        times: Times = ask(process, "first", group=group, name=name, warm=warm)
        return times


def _median(found: Sequence[Times], stage: str) -> str:
    seconds = [times[stage] for times in found if stage in times]
    return time_text(1e9 * statistics.median(seconds)) if seconds else ""
