"""Measuring one workload: first calls, agreement of results, then interleaved blocks."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.arms import REFERENCE, STATIC, Arm
from benchmarks.floor import Floor
from benchmarks.process import Worker, WorkerFailed
from benchmarks.results import ArmResult, WorkloadResult
from benchmarks.workloads import Workload

CHECKED_STEPS = 10
_LEAST_TURNS = 3
_COMPARED_STEPS = 3  # with other libraries; small differences grow from step to step


@dataclass(frozen=True)
class Effort:
    """How long to measure a workload.

    repeats  blocks of each arm
    budget   seconds after which no further turn begins, though each arm has some blocks
    settle   seconds at the start of a block that do not count
    least    seconds of one measurement, at least
    """

    repeats: int
    budget: float = float("inf")
    settle: float = 0.02
    least: float = 0.002


def measure(
    workload: Workload, arms: Sequence[Arm], effort: Effort, threads: int
) -> WorkloadResult:
    """Measure the arms that have this workload.  Raises WorkerFailed if dualgrad cannot run."""
    with TemporaryDirectory(prefix="dualgrad-bench-") as name, ExitStack() as processes:
        run = _Run(workload, threads, Path(name), processes)
        for arm in arms:
            if arm.framework in workload.lacking:
                continue
            try:
                run.start(arm)
            except WorkerFailed as failure:
                if not arm.peer:
                    raise
                run.left_out.append(f"{arm.name}: {failure}")
        run.compare()
        run.take_turns(effort)
        run.explain()
        results = [run.results[arm.name] for arm in run.workers]
        return WorkloadResult(
            workload.name, workload.title(), results, run.left_out, workload.work(), run.floors
        )


class _Run:
    """One workload while it is measured."""

    def __init__(
        self, workload: Workload, threads: int, folder: Path, processes: ExitStack
    ) -> None:
        self.workload = workload
        self.threads = threads
        self.folder = folder
        self.processes = processes
        self.workers: dict[Arm, Worker] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.results: dict[str, ArmResult] = {}
        self.left_out: list[str] = []
        self.floors: list[float] = []
        self.arrays = folder / "arrays.npz"
        np.savez(self.arrays, allow_pickle=False, **workload.arrays())

    def start(self, arm: Arm) -> None:
        """Make the first calls of an arm; its last process stays for the timing."""
        cold = None
        if arm.caches:
            with self._worker(arm) as worker:
                cold = self._first_steps(arm, worker)
        worker = self.processes.enter_context(self._worker(arm))
        answer = self._first_steps(arm, worker)
        if cold is not None and cold["digests"] != answer["digests"]:
            raise WorkerFailed("the program from the disk cache gives other results")
        self.workers[arm] = worker
        self.answers[arm.name] = answer
        first = answer["seconds"][0]
        self.results[arm.name] = ArmResult(
            arm.name,
            cold_seconds=first if cold is None else cold["seconds"][0],
            warm_seconds=None if cold is None else first,
            import_seconds=answer["import_seconds"],
        )

    def compare(self) -> None:
        """Note how results differ from the reference; drop arms that compute something else."""
        reference, expected = self.answers[REFERENCE.name], self._outputs(REFERENCE)
        for arm in list(self.workers):
            answer, result = self.answers[arm.name], self.results[arm.name]
            result.same_bits = all(answer[k] == reference[k] for k in ("digests", "state"))
            result.difference = max(map(_difference, self._outputs(arm), expected))
            if arm.peer and not result.difference <= self.workload.tolerance:
                self.left_out.append(f"{arm.name}: differs by {result.difference:.1e}")
                del self.workers[arm]

    def take_turns(self, effort: Effort) -> None:
        """Run blocks of all arms in turns, each turn in a new random order."""
        order, shuffle = list(self.workers), random.Random(0).shuffle
        floor = Floor(self.workload.work())
        end = time.monotonic() + effort.budget
        for turn in range(effort.repeats):
            if turn >= _LEAST_TURNS and time.monotonic() > end:
                break
            shuffle(order)
            self.floors.append(floor.block())
            for arm in order:
                block = self.workers[arm].ask("block", settle=effort.settle, least=effort.least)
                self.results[arm.name].nanoseconds += block

    def explain(self) -> None:
        """Ask the arms of dualgrad what they ran."""
        for arm in (REFERENCE, STATIC):
            for name, value in self.workers[arm].ask("counts", steps=CHECKED_STEPS).items():
                setattr(self.results[arm.name], name, value)
        self.results[STATIC.name].report = self.workers[STATIC].ask("explain")

    def _worker(self, arm: Arm) -> Worker:
        cache = self.folder / arm.name.replace(" ", "-")
        return Worker(arm, self.workload.name, self.arrays, cache, self.threads)

    def _first_steps(self, arm: Arm, worker: Worker) -> dict[str, Any]:
        path = str(self._path(arm))
        answer: dict[str, Any] = worker.ask(
            "start", steps=CHECKED_STEPS, kept=_COMPARED_STEPS, path=path
        )
        return answer

    def _path(self, arm: Arm) -> Path:
        return self.folder / f"{arm.name.replace(' ', '-')}.npz"

    def _outputs(self, arm: Arm) -> list[np.ndarray[Any, Any]]:
        with np.load(self._path(arm)) as arrays:
            return [array.astype(np.float64) for array in arrays.values()]


def _difference(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Largest difference, relative to the largest expected number; inf for other shapes."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / np.abs(expected).max())
