"""What a worker process can do with its program; all answers can be written as JSON."""

from __future__ import annotations

import gc
import hashlib
import importlib
import statistics
import time
from collections.abc import Callable
from itertools import count
from operator import methodcaller
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.program import Arrays, Decorator, Program

Answer = dict[str, Any]
_MEASUREMENTS = 5  # per block
_PAIRS = 101


def _unchanged(step: Callable[..., Any]) -> Callable[..., Any]:
    return step


def _load(name: str) -> Decorator:
    module, _, attribute = name.rpartition(".")
    decorator: Decorator = getattr(importlib.import_module(module), attribute)
    return decorator


def _array(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(x.detach().numpy() if hasattr(x, "detach") else x)


def _digest(x: Any) -> str:
    array = _array(x)
    head = f"{array.dtype} {array.shape} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


class Session:
    """Programs of one framework, one at a time, and how they are timed."""

    program: Program
    plain: Callable[..., Any]  # its step as it was before it was decorated

    def __init__(
        self, steps: ModuleType, decorator: str, finish: str, import_seconds: float
    ) -> None:
        self.makers = steps
        self.decorator = _load(decorator) if decorator else _unchanged
        self.finish = methodcaller(finish) if finish else None
        self.import_seconds = import_seconds
        self.steps = 1  # of one measurement; found when the first block runs

    def start(self, workload: str, arrays: str, steps: int, kept: int, path: str) -> Answer:
        """Make the program of a workload, whose arrays are in a file, and run its first steps; the
        results of `kept` of them go to `path`.

        The answer has seconds and digests of all results, and digests of the state afterwards.
        """
        make: Callable[[Arrays, Decorator], Program] = getattr(self.makers, workload)
        with np.load(arrays) as loaded:
            self.program = make(dict(loaded), self._decorate)
        self.steps = 1
        seconds, digests = [], []
        results: list[np.ndarray[Any, Any]] = []
        for _, arguments in zip(range(steps), self._inputs(), strict=False):
            started = time.perf_counter()
            result = self.program.step(*arguments)
            if self.finish is not None:
                self.finish(result)
            seconds.append(time.perf_counter() - started)
            digests.append(_digest(result))
            results += [_array(result)] if len(results) < kept else []
        np.savez(path, *results)
        return {
            "import_seconds": self.import_seconds,
            "seconds": seconds,
            "digests": digests,
            "state": [_digest(x) for x in self.program.state()],
        }

    def block(self, settle: float, least: float) -> list[float]:
        """Nanoseconds per step of some measurements in a row, each `least` seconds or longer.

        Starts from the first state, with `settle` seconds that do not count: they bring the
        processor's caches, clocks and threads into the state that this program leaves them in.
        """
        self.program.reset()
        gc.collect()
        begin = time.perf_counter()
        while time.perf_counter() - begin < settle:
            self._time(1)
        while self._time(self.steps) < 1e9 * least:
            self.steps *= 2
        return [self._time(self.steps) / self.steps for _ in range(_MEASUREMENTS)]

    def over_plain(self) -> float:
        """Time of a step over that of the step without its decorator: median of pairs.

        Both run in turns in this process, so on the same memory: where operands and results lie
        makes more of a difference between two processes than what is compared here.
        """
        steps = (self.program.step, self.plain)
        ratios = []
        for turn in range(_PAIRS):
            order = (0, 1) if turn % 2 else (1, 0)
            times = {i: self._time_anew(steps[i]) for i in order}
            ratios.append(times[0] / times[1])
        return statistics.median(ratios)

    def counts(self, steps: int) -> Answer:
        """Programs and kernels that dualgrad runs per step, and its peak memory in bytes."""
        memory = importlib.import_module("dualgrad.runtime.memory")
        counters = importlib.import_module("dualgrad.runtime.profile").counters
        self.program.reset()
        memory.reset_peak()
        before = counters.snapshot()
        self._time(steps)
        grown = counters.since(before)
        return {
            "launches": grown.launches / steps,
            "kernels": grown.kernels / steps,
            "peak_bytes": memory.stats().peak_bytes,
        }

    def explain(self) -> str:
        """What `@function` says about its programs."""
        text: str = self.program.step.report()  # type: ignore[attr-defined]
        return text

    def _decorate(self, step: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        self.plain = step
        return self.decorator(step, **options)

    def _inputs(self) -> Any:
        inputs = self.program.inputs
        return (inputs[i % len(inputs)] for i in count())

    def _time_anew(self, step: Callable[..., Any]) -> int:
        """Nanoseconds of as many steps as a block measures at a time, from the first state."""
        self.program.reset()
        self._time(1, step)
        return self._time(self.steps, step)

    def _time(self, steps: int, step: Callable[..., Any] | None = None) -> int:
        """Nanoseconds of this many steps."""
        step, finish = step or self.program.step, self.finish
        inputs = self.program.inputs
        todo = [inputs[i % len(inputs)] for i in range(steps)]
        if finish is None:
            begin = time.perf_counter_ns()
            for arguments in todo:
                step(*arguments)
            return time.perf_counter_ns() - begin
        begin = time.perf_counter_ns()
        for arguments in todo:
            finish(step(*arguments))
        return time.perf_counter_ns() - begin
