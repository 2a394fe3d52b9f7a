"""Measuring one workload: first calls, agreement of results, then interleaved blocks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.arms import REFERENCE, STATIC, Arm
from benchmarks.floor import Floor
from benchmarks.process import Worker, WorkerFailed
from benchmarks.results import ArmResult, WorkloadResult, looks_slower
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
    """Measure the arms that have this workload, each in processes of its own.

    Raises WorkerFailed if dualgrad cannot run.
    """
    with TemporaryDirectory(prefix="dualgrad-bench-") as name, ExitStack() as processes:
        workers = _Workers(Path(name), threads, processes)
        run = _Run(workload, workers.folder)
        for arm in arms:
            if {arm.framework, arm.name} & {*workload.lacking}:
                continue
            with run.leaving_out(arm):
                cold = None
                if arm.caches:
                    with workers.make(arm) as worker:
                        cold = run.first_steps(arm, worker)
                run.start(arm, workers.kept(arm), cold)
        run.compare()
        run.take_turns(effort)
        run.explain()
        return run.result()


def measure_grid(
    workloads: Sequence[Workload], arms: Sequence[Arm], effort: Effort, threads: int
) -> Iterator[WorkloadResult]:
    """Measure many small workloads: each arm has one process for all of them.

    Raises WorkerFailed if dualgrad cannot run.
    """
    with TemporaryDirectory(prefix="dualgrad-bench-") as name, ExitStack() as processes:
        workers = _Workers(Path(name), threads, processes)
        for workload in workloads:
            run = _Run(workload, workers.folder, _COMPARED_STEPS)
            for arm in arms:
                with run.leaving_out(arm):
                    run.start(arm, workers.kept(arm))
            run.compare()
            run.take_turns(effort)
            yield run.result()


class _Workers:
    """The processes of a measurement."""

    def __init__(self, folder: Path, threads: int, processes: ExitStack) -> None:
        self.folder = folder
        self._threads = threads
        self._processes = processes
        self._kept: dict[Arm, Worker] = {}

    def make(self, arm: Arm) -> Worker:
        cache = self.folder / arm.file_name
        return Worker(arm, cache, self._threads, self.folder / "errors.txt")

    def kept(self, arm: Arm) -> Worker:
        """One that stays until the end."""
        if arm not in self._kept:
            self._kept[arm] = self._processes.enter_context(self.make(arm))
        return self._kept[arm]


class _Run:
    """One workload while it is measured; `checked` steps of it are compared."""

    def __init__(self, workload: Workload, folder: Path, checked: int = CHECKED_STEPS) -> None:
        self.workload = workload
        self.checked = checked
        self.folder = folder
        self.workers: dict[Arm, Worker] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.results: dict[str, ArmResult] = {}
        self.left_out: list[str] = []
        self.floors: list[float] = []
        self.arrays = folder / "arrays.npz"
        np.savez(self.arrays, allow_pickle=False, **workload.arrays())

    @contextmanager
    def leaving_out(self, arm: Arm) -> Iterator[None]:
        """Goes on without a peer that fails."""
        try:
            yield
        except WorkerFailed as failure:
            if not arm.peer:
                raise
            self.left_out.append(f"{arm.name}: {failure}")

    def first_steps(self, arm: Arm, worker: Worker) -> dict[str, Any]:
        answer: dict[str, Any] = worker.ask(
            "start",
            workload=self.workload.name,
            arrays=str(self.arrays),
            steps=self.checked,
            kept=_COMPARED_STEPS,
            path=str(self._path(arm)),
        )
        return answer

    def start(self, arm: Arm, worker: Worker, cold: dict[str, Any] | None = None) -> None:
        """Make the first calls of an arm in the process that is timed later; `cold` are the
        answers of one that had an empty disk cache."""
        answer = self.first_steps(arm, worker)
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

    def result(self) -> WorkloadResult:
        results = [self.results[arm.name] for arm in self.workers]
        title, work = self.workload.title(), self.workload.work()
        return WorkloadResult(self.workload.name, title, results, self.left_out, work, self.floors)

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
        static = self.results[STATIC.name]
        if looks_slower(static, self.results[REFERENCE.name]):
            static.over_eager = self.workers[STATIC].ask("over_plain")

    def explain(self) -> None:
        """Ask the arms of dualgrad what they ran."""
        for arm in (REFERENCE, STATIC):
            for name, value in self.workers[arm].ask("counts", steps=CHECKED_STEPS).items():
                setattr(self.results[arm.name], name, value)
        self.results[STATIC.name].report = self.workers[STATIC].ask("explain")

    def _path(self, arm: Arm) -> Path:
        return self.folder / f"{arm.file_name}.npz"

    def _outputs(self, arm: Arm) -> list[np.ndarray[Any, Any]]:
        with np.load(self._path(arm)) as arrays:
            return [array.astype(np.float64) for array in arrays.values()]


def _difference(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Largest difference, relative to the largest expected number; inf for other shapes."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / np.abs(expected).max())
