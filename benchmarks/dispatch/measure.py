"""Measuring rows of `benchmarks.dispatch`: one process per arm, blocks of all arms in turns."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.arms import ARMS, REFERENCE, STATIC, Arm
from benchmarks.dispatch.rows import Row
from benchmarks.process import Process, WorkerFailed

_OFF = (("DG_NATIVE", "0"),)
EAGER_OFF = replace(REFERENCE, name="eager without entries", settings=_OFF)
STATIC_OFF = replace(STATIC, name="compiled without entries", settings=_OFF)
KERNELS = replace(STATIC_OFF, name="kernels")  # programs are noted where Python launches them
JAX = Arm(
    "jax", "jax", finish="block_until_ready", caches="JAX_COMPILATION_CACHE_DIR",
    settings=(("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),),
)  # fmt: skip
JAX_JIT = replace(JAX, name="jax.jit", decorator="jax.jit")
NUMPY, TORCH, TORCH_COMPILE = ARMS[2:5]


@dataclass(frozen=True)
class Effort:
    """How long to measure a row.

    repeats  blocks of each arm
    settle   seconds at the start of a block that do not count
    least    seconds of one measurement, at least
    count    measurements of a block
    """

    repeats: int
    settle: float = 0.002
    least: float = 0.003
    count: int = 3


@dataclass
class Measured:
    """What was measured of one row.

    nanoseconds  per call, by the name of the arm
    faults       page faults per call, by the name of the arm
    left_out     arms that cannot run it or compute something else, with the reason
    same_bits    whether dualgrad's results are the same bits, compiled or not
    """

    row: Row
    nanoseconds: dict[str, list[float]] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    same_bits: bool = True

    def median(self, arm: Arm) -> float | None:
        found = self.nanoseconds.get(arm.name)
        return statistics.median(found) if found else None

    def ratio(self, own: Arm, others: Sequence[Arm]) -> float | None:
        """Time relative to the fastest of some other arms."""
        times = [t for arm in others if (t := self.median(arm)) is not None]
        time = self.median(own)
        return time / min(times) if times and time is not None else None


class Arms:
    """The processes of some arms; the first is the one whose results are expected of others."""

    def __init__(self, arms: Sequence[Arm], threads: int, folder: Path, stack: ExitStack) -> None:
        self.workers = {arm: stack.enter_context(worker(arm, threads, folder)) for arm in arms}

    def measure(self, group: str, row: Row, effort: Effort, faults: bool = False) -> Measured:
        """Compare the results of a row, then time it."""
        result = Measured(row)
        able = self._start(group, row, result)
        for turn in range(effort.repeats):
            random.Random(turn).shuffle(able)
            for arm in able:
                times = self._ask(arm, "block", settle=effort.settle, least=effort.least,
                                  count=effort.count)  # fmt: skip
                result.nanoseconds.setdefault(arm.name, []).extend(times)
        if faults:
            for arm in able:
                result.faults[arm.name] = self._ask(arm, "faults", calls=20)
        return result

    def _start(self, group: str, row: Row, result: Measured) -> list[Arm]:
        """Make a row in all arms; those that can run it and agree with the first."""
        able: list[Arm] = []
        expected: list[float] = []
        for arm in self.workers:
            if arm.framework in row.lacking:
                continue
            try:
                numbers = self._ask(arm, "start", group=group, name=row.name)
            except WorkerFailed as failure:
                if not arm.peer:
                    raise
                result.left_out[arm.name] = str(failure)
                continue
            expected = expected or numbers
            if not arm.peer and arm != NUMPY:
                result.same_bits &= numbers == expected
            difference = _difference(numbers, expected)
            if difference <= row.tolerance:
                able.append(arm)
            else:
                result.left_out[arm.name] = f"differs by {difference:.1e}"
        return able

    def _ask(self, arm: Arm, do: str, **request: Any) -> Any:
        return ask(self.workers[arm], do, **request)


def worker(arm: Arm, threads: int, folder: Path) -> Process:
    """The process of an arm; its disk cache lies in `folder`."""
    place = folder / arm.name.replace(" ", "-")
    place.mkdir(exist_ok=True)
    kind = "kernels" if arm == KERNELS else "calls"
    arguments = [arm.framework, arm.decorator, arm.finish, kind]
    environment = arm.environment(place, threads)
    errors = folder / f"{place.name}.txt"
    return Process("benchmarks.dispatch.worker", arguments, environment, errors)


def ask(process: Process, do: str, **request: Any) -> Any:
    """The answer to a request.  Raises WorkerFailed without one."""
    answer = process.ask(do, **request)
    if isinstance(answer, dict) and "failed" in answer:
        raise WorkerFailed(answer["failed"])
    return answer


def _difference(got: list[float], expected: list[float]) -> float:
    """Largest difference, relative to the largest expected number; inf for other counts."""
    if len(got) != len(expected):
        return float("inf")
    pairs = zip(got, expected, strict=True)
    largest = max(map(abs, expected), default=0.0)
    return max((abs(a - b) for a, b in pairs), default=0.0) / (largest or 1.0)
