"""The process of one arm of `benchmarks.dispatch`.

    python -m benchmarks.dispatch.worker LIBRARY DECORATOR FINISH KIND

Requests are JSON objects, one per line: {"do": name of a method of `Session`, ...}.  KIND is
"calls", or "kernels" to time programs alone.  Until the library has been imported, this module
needs the standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
import timeit
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_STEADY = 30  # calls after which nothing is new: sizes, numbers and types have all been met
_TRIES = 3  # for each measurement
_STAGES = ("trace", "passes", "machine code", "load")


def _switches() -> int:
    """How often the system has taken the processor away from this thread, where it tells."""
    if resource is None or not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return int(resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw)


class Session:
    """The rows of one library, as they are asked for."""

    def __init__(self, library: str, decorator: str, finish: str, kernels: bool) -> None:
        started = time.perf_counter()
        importlib.import_module(library)
        self.import_seconds = time.perf_counter() - started
        libraries = importlib.import_module("benchmarks.dispatch.libraries")
        rows = importlib.import_module("benchmarks.dispatch.rows")
        self.recorder: Any = None
        if kernels:
            self.recorder = importlib.import_module("benchmarks.dispatch.kernels").Recorder()
        self.library = libraries.Library.known[library](decorator)
        self.groups = rows.GROUPS
        self.finish = f".{finish}()" if finish else ""
        self.names: dict[str, Any] = {}
        self.expression, self.number = "", 1

    def _make(self, group: str, name: str) -> None:
        (row,) = (r for r in self.groups[group] if r.name == name)
        call = row.make(self.library)
        self.names = dict(call.names)
        self.expression = f"({call.expression}){self.finish}"
        self.number = 1

    def start(self, group: str, name: str) -> list[float]:
        """Make a row and call it until it is steady; numbers of its first result."""
        numpy = importlib.import_module("numpy")
        self._make(group, name)
        code = compile(self.expression, "<row>", "eval")
        result = eval(code, self.names)
        result = result.detach() if hasattr(result, "detach") else result
        # copied: calls may change the result in place
        numbers: list[float] = numpy.asarray(result).ravel()[:1000].astype(float).tolist()
        for _ in range(_STEADY):
            eval(code, self.names)
        return numbers

    def block(self, settle: float, least: float, count: int) -> list[float]:
        """Nanoseconds per call of some measurements in a row of `least` seconds each, after
        `settle` seconds of calls that do not count.

        Where the system took the processor away during some, others are tried.
        """
        if self.recorder is not None:
            with self.recorder:
                eval(self.expression, self.names)
            return [self.recorder.time(least) for _ in range(count)]
        timer = timeit.Timer(self.expression, "__import__('gc').enable()", globals=self.names)
        begin = time.perf_counter()
        while time.perf_counter() - begin < settle:
            timer.timeit(self.number)
        while timer.timeit(self.number) < least:
            self.number *= 2
        calm: list[float] = []
        disturbed: list[float] = []
        while len(calm) < count and len(disturbed) < _TRIES * count:
            before = _switches()
            time_of_call = 1e9 * timer.timeit(self.number) / self.number
            (calm if _switches() == before else disturbed).append(time_of_call)
        return [*calm, *sorted(disturbed)][:count]

    def faults(self, calls: int) -> float | None:
        """Page faults of a call, where the system tells."""
        if resource is None:
            return None
        code = compile(self.expression, "<row>", "eval")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(calls):
            eval(code, self.names)
        grown: int = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        return grown / calls

    def first(self, group: str, name: str, warm: bool) -> dict[str, float]:
        """Seconds of the first call in this process, by stage where that is known.

        dualgrad only, without `warm`: LLVM is loaded before, and native entries are made, which
        happens once per machine; both are timed apart.
        """
        times = {"import": self.import_seconds}
        if self.library.name == "dualgrad" and not warm:
            started = time.perf_counter()
            binding = importlib.import_module("llvmlite.binding")
            binding.initialize_native_target()
            binding.initialize_native_asmprinter()
            times["llvmlite"] = time.perf_counter() - started
            started = time.perf_counter()
            importlib.import_module("dualgrad.runtime.native.library").load()
            times["entries"] = time.perf_counter() - started
        self._make(group, name)
        code = compile(self.expression, "<row>", "eval")
        started = time.perf_counter()
        eval(code, self.names)
        times["total"] = time.perf_counter() - started
        if self.library.name == "dualgrad":
            times |= self._stages()
        return times

    def _stages(self) -> dict[str, float]:
        """Seconds of the stages of what dualgrad has compiled, as far as it tells."""
        function = self.names.get("f")
        if function is None:
            profile = importlib.import_module("dualgrad.runtime.profile")
            return {"machine code": profile.counters.snapshot().compile_seconds}
        text = function.report()
        found = {stage: re.findall(rf"{stage} ([\d.]+) ms", text) for stage in _STAGES}
        return {stage: 1e-3 * sum(map(float, times)) for stage, times in found.items()}


def main() -> None:
    library, decorator, finish, kind = sys.argv[1:]
    # answers have the standard output to themselves: compilers and libraries print, too
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = Session(library, decorator, finish, kind == "kernels")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(session, request.pop("do"))(**request)
        except Exception as error:  # of a library; others rows may do
            answer = {"failed": f"{type(error).__name__}: {error}".partition("\n")[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
