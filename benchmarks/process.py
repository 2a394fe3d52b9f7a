"""The other end of `benchmarks.worker`, and of other processes that answer requests."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.arms import Arm

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_SECONDS = 300.0


class WorkerFailed(Exception):
    """An arm cannot run; the text says why in one line."""


class Process:
    """A process that answers requests, one JSON object per line."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        errors: Path,
        interpreter: str = sys.executable,
    ) -> None:
        """Run `python -m module arguments`; its error output goes to a file."""
        self._errors = errors.open("w+")
        self._process = subprocess.Popen(
            [interpreter, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=dict(environment),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()
        # the end of its input ends it
        self._process.communicate()
        self._errors.close()

    def ask(self, do: str, **request: Any) -> Any:
        """The answer to a request.  Raises WorkerFailed without one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = _Watch(self._process.kill)
        try:
            print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            raise WorkerFailed(watch.reason or self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1] if lines else f"exit status {self._process.returncode}"


class Worker(Process):
    """A process that runs workloads in one arm."""

    def __init__(self, arm: Arm, cache: Path, threads: int, errors: Path) -> None:
        arguments = [arm.framework, arm.decorator, arm.finish]
        environment = arm.environment(cache, threads)
        super().__init__("benchmarks.worker", arguments, environment, errors, arm.interpreter)


class _Watch:
    """Ends a process that takes too long."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self.reason = ""
        self._kill = kill
        self._timer = threading.Timer(_PATIENCE_SECONDS, self._expired)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _expired(self) -> None:
        self.reason = f"no answer within {_PATIENCE_SECONDS:.0f} s"
        self._kill()
