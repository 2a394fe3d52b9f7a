"""Plugin for pytest: says how much was compiled in the test processes, and in how much time."""

from dataclasses import fields
from typing import Any

import pytest

from dualgrad.runtime.profile import Snapshot, counters

_of_workers: list[Snapshot] = []


def pytest_sessionfinish(session: Any) -> None:
    """A process of pytest-xdist hands its counts to the one that has started it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["compiled"] = vars(counters.snapshot())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of those processes has ended."""
    counts = getattr(node, "workeroutput", {}).get("compiled")
    if counts is not None:
        _of_workers.append(Snapshot(**counts))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    all_counts = [counters.snapshot(), *_of_workers]
    total = Snapshot(*(sum(getattr(c, f.name) for c in all_counts) for f in fields(Snapshot)))
    workers = f" by {len(_of_workers)} workers" if _of_workers else ""
    terminalreporter.write_line(
        f"{total.compiled} programs compiled in {total.compile_seconds:.1f} s{workers}, "
        f"{total.cache_hits} taken from the disk cache, {total.kernels} kernels launched"
    )
