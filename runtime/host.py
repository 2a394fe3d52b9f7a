"""What the machine gives to this process: processors and memory, limits of containers included."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

_UNKNOWN_MEMORY = 8 << 30


def _own_groups(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """(controllers, path) of each control group of this process; version 2 has no controllers."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            yield controllers, PurePosixPath(path.lstrip("/"))


def _group_folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups around this process, innermost first.

    In a container the path may name a folder of the host that is not visible; its parents up to
    the mount point still are.
    """
    mount = root / "sys/fs/cgroup"
    for controllers, path in _own_groups(root):
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controller if controllers else mount
        for inner in (path, *path.parents):
            yield base / inner


def _smallest(
    root: Path, controller: str, files: Mapping[str, Callable[[Path], float]]
) -> float | None:
    """The tightest of the limits in these files; a file that cannot be read sets none."""
    limits = []
    for folder in _group_folders(root, controller):
        for name, parse in files.items():
            with suppress(OSError, ValueError, ZeroDivisionError):
                limits.append(parse(folder / name))
    return min(limits, default=None)


def _quota_v2(path: Path) -> float:
    quota, period = path.read_text().split()
    return int(quota) / int(period)  # quota "max" is a ValueError: no limit


def _quota_v1(path: Path) -> float:
    quota = int(path.read_text())
    if quota <= 0:
        raise ValueError("no limit")
    return quota / int(path.with_name("cpu.cfs_period_us").read_text())


def _amount(path: Path) -> float:
    return int(path.read_text())


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
