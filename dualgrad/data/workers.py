"""Threads that load batches ahead of the user's loop.

The loop gives out tasks and takes outcomes, by two queues whose `put` is safe in a finalizer
(`queue.SimpleQueue`); order is restored by number.  The threads know the queues only, never the
iterator: when that is left, by `break`, by an error or by Ctrl-C, its finalizer ends them.  They
are daemons, so a process that ends does not wait for them before its exit handlers, and one of
these ends them: none then runs while the interpreter is taken down.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

from dualgrad.data.sources import Outcome, Source
from dualgrad.runtime.errors import DataTimeout, LibraryError
from dualgrad.state import state

_LOOK_SECONDS: Final = 0.2
"""How long the loop waits before it looks whether the threads still live: some systems do not
interrupt a wait by Ctrl-C either."""
_EXIT_SECONDS: Final = 2.0
"""How long a process at its end waits for threads that are in the code of the user."""


class Job:
    """What the threads of one epoch share.

    init          the user's `worker_init_fn`, called with the number of the thread
    grad_enabled  whether gradients are recorded, as in the thread of the loop
    """

    def __init__(self, source: Source, init: Callable[[int], Any] | None) -> None:
        self.source = source
        self.init = init
        self.tasks: SimpleQueue[Any] = SimpleQueue()
        self.outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self.stopped = False
        self.grad_enabled = state.grad_enabled
        self.threads: list[threading.Thread] = []

    def stop(self) -> None:
        """Let each thread end after what it is doing.  Safe at any moment, in any thread."""
        self.stopped = True
        for _ in self.threads:
            self.tasks.put(None)


_jobs: weakref.WeakSet[Job] = weakref.WeakSet()


class Workers:
    """Takes the outcomes of a source, in order, from `count` threads.

    prefetch  tasks given out for each thread
    timeout   seconds to wait for an outcome; 0 is for ever
    """

    def __init__(
        self,
        source: Source,
        count: int,
        prefetch: int,
        timeout: float,
        init: Callable[[int], Any] | None,
    ) -> None:
        self._job = job = Job(source, init)
        self._ahead = count * prefetch
        self._timeout = timeout
        self._process = os.getpid()
        self._next = self._tasks = source.position.batch
        self._given = 0  # tasks whose outcome has not come
        self._waiting: dict[int, Outcome] = {}
        self._no_more = False  # tasks
        for number in range(count):
            name = f"DataLoader worker {number}"
            thread = threading.Thread(target=_work, args=(job, number), name=name, daemon=True)
            job.threads.append(thread)
        self.stop = weakref.finalize(self, job.stop)
        self.stop.atexit = False
        _jobs.add(job)
        for thread in job.threads:
            thread.start()

    def take(self) -> Outcome:
        """Return the next outcome, which may be an error or the end.

        Raises DataTimeout if it takes too long, LibraryError if no thread can make it any more.
        """
        if self._process != os.getpid():
            raise LibraryError(
                "a forked process has the iterator of a loader, but not the threads that load",
                op="DataLoader",
                why="fork() copies the one thread that calls it",
                hint="call iter(loader) in the process that takes the batches",
            )
        self._give_out()
        deadline = time.monotonic() + self._timeout if self._timeout else float("inf")
        while self._next not in self._waiting:
            if not self._given:
                return Outcome(self._next, ended=True)
            outcome = self._receive(deadline)
            self._given -= 1
            self._waiting[outcome.number] = outcome
        outcome = self._waiting.pop(self._next)
        self._next += 1
        self._give_out()
        return outcome

    def _give_out(self) -> None:
        job = self._job
        while not self._no_more and self._given + len(self._waiting) < self._ahead:
            try:
                task = next(job.source.tasks, None)
            except Exception as error:  # of a sampler: after the batches before it
                self._waiting[self._tasks] = Outcome(self._tasks, error=error)
                task = None
            if task is None:
                self._no_more = True
                return
            self._tasks += 1
            self._given += 1
            job.tasks.put(task)

    def _receive(self, deadline: float) -> Outcome:
        while True:
            left = deadline - time.monotonic()
            try:
                return self._job.outcomes.get(timeout=max(0.0, min(left, _LOOK_SECONDS)))
            except Empty:
                self._look()
            if left <= 0:
                raise DataTimeout(
                    f"no batch has come for {self._timeout:g} s",
                    op="DataLoader",
                    expect=f"batch {self._next} of the epoch within the timeout",
                    hint="give a longer timeout, or 0 to wait as long as it takes",
                )

    def _look(self) -> None:
        """Refuse to wait for what cannot come."""
        if all(thread.is_alive() for thread in self._job.threads):
            return
        if self._job.outcomes.empty():
            raise LibraryError(
                "a thread that loads batches has died",
                op="DataLoader",
                hint="standard error may say why; num_workers=0 loads in this thread",
            )


def _work(job: Job, number: int) -> None:
    """Load batches until told to stop; what goes wrong reaches the loop as an outcome."""
    state.grad_enabled = job.grad_enabled
    failed = _failure(job.init, number) if job.init is not None else None
    while not job.stopped:
        task = job.tasks.get()
        if task is None or job.stopped:
            return
        job.outcomes.put(_outcome(job, task, number, failed))


def _failure(init: Callable[[int], Any], number: int) -> BaseException | None:
    try:
        init(number)
    except BaseException as error:
        error.add_note(f"raised by worker_init_fn({number}) of a DataLoader")
        return error
    return None


def _outcome(job: Job, task: Any, number: int, failed: BaseException | None) -> Outcome:
    outcome = job.source.outcome(task)
    if failed is not None:
        return Outcome(outcome.number, error=failed)
    if outcome.error is not None:
        where = f"raised in worker {number} of a DataLoader, for batch {outcome.number}"
        outcome.error.add_note(where)
    return outcome


@atexit.register
def _end() -> None:
    """Stop the threads that still run, for a short time also those in the code of the user."""
    jobs = list(_jobs)
    for job in jobs:
        job.stop()
    deadline = time.monotonic() + _EXIT_SECONDS
    for thread in [thread for job in jobs for thread in job.threads]:
        thread.join(max(0.0, deadline - time.monotonic()))
