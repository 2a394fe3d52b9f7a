"""What the machine gives to this process: processors and memory, limits of containers included."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_UNKNOWN_MEMORY = 8 << 30


def _text(path: str) -> str:
    with open(path, "rb") as file:  # a third of pathlib's time: every process asks before it runs
        return file.read().decode()


def _group_folders(root: str, controller: str) -> Iterator[str]:
    """Folders of the control groups around this process, innermost first.

    In a container the path may name a folder of the host that is not visible; its parents up to
    the mount point still are.
    """
    with suppress(OSError, ValueError):
        for line in _text(f"{root}/proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)  # version 2 has no controllers
            if controllers and controller not in controllers.split(","):
                continue
            folder = f"{root}/sys/fs/cgroup" + f"/{controller}" * bool(controllers)
            inner = path.strip("/")
            while inner:
                yield f"{folder}/{inner}"
                inner = inner.rpartition("/")[0]
            yield folder


def _smallest(
    root: Path, controller: str, files: Mapping[str, Callable[[str], float]]
) -> float | None:
    """The tightest of the limits in these files; a file that cannot be read sets none."""
    limits = []
    for folder in _group_folders(str(root).rstrip("/"), controller):
        for name, parse in files.items():
            with suppress(OSError, ValueError, ZeroDivisionError):
                limits.append(parse(f"{folder}/{name}"))
    return min(limits, default=None)


def _quota_v2(path: str) -> float:
    quota, period = _text(path).split()
    return int(quota) / int(period)  # quota "max" is a ValueError: no limit


def _quota_v1(path: str) -> float:
    quota = int(_text(path))
    if quota <= 0:
        raise ValueError("no limit")
    return quota / int(_text(f"{os.path.dirname(path)}/cpu.cfs_period_us"))


def _amount(path: str) -> float:
    return int(_text(path))


def cpu_count(root: Path = Path("/")) -> int:
    """Processors this process may use: its affinity, and the CPU quota of its control groups
    (rounded up), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    files = {"cpu.max": _quota_v2, "cpu.cfs_quota_us": _quota_v1}
    quota = _smallest(root, "cpu", files)
    return count if quota is None else max(1, min(count, -int(-quota // 1)))


def memory_bytes(root: Path = Path("/")) -> int:
    """Physical memory, or the limit of the control groups where that is smaller."""
    total = _UNKNOWN_MEMORY
    with suppress(AttributeError, OSError, ValueError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    files = {"memory.max": _amount, "memory.limit_in_bytes": _amount}
    limit = _smallest(root, "memory", files)
    return total if limit is None else int(min(total, limit))
