"""Where and with what the numbers were measured."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import dualgrad as dg
from benchmarks.frameworks import version
from benchmarks.process import ROOT
from dualgrad.runtime.host import cpu_count, memory_bytes


@dataclass(frozen=True)
class Machine:
    """Header of the tables; `best` says what the machine can do at best."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    versions: dict[str, str]
    commit: str
    date: str
    threads: int
    best: str = ""

    def lines(self) -> list[tuple[str, str]]:
        """Labels and texts."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        lines = [
            ("machine", f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB"),
            ("system", self.system),
            ("versions", versions),
            ("date", self.date),
            ("threads", str(self.threads)),
            ("best", self.best),
            ("commit", self.commit),
        ]
        return [(label, text) for label, text in lines if text]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


class Others:
    """How busy other processes keep the processors."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._seconds = _seconds_of_others()

    def share(self) -> float | None:
        """Part of all processors' time that others used since this object was made.

        Counts processes of this one that have ended as its own.  None where the system does not
        tell.
        """
        if self._seconds is None:
            return None
        grown = (_seconds_of_others() or 0.0) - self._seconds
        elapsed = (time.monotonic() - self._begin) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, grown / elapsed))


def _seconds_of_others() -> float | None:
    """Processor time of all processes but this one and those it has waited for.

    The first line of /proc/stat, proc(5): cpu user nice system idle iowait irq softirq steal ...
    """
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, *interrupts = map(int, fields)
    busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def describe(packages: list[str], threads: int) -> Machine:
    """This machine now; `packages` are those of the arms that take part."""
    versions = {"Python": platform.python_version(), "dualgrad": dg.__version__}
    for package in ("numpy", "llvmlite", *packages):
        if package not in versions:
            versions[package] = version(package) or "unknown"
    return Machine(
        _cpu(),
        cpu_count(),
        memory_bytes() / 2**30,
        f"{platform.system()} {platform.release()} {platform.machine()}",
        versions,
        _commit(),
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        threads,
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the clone, with "-dirty" after changes; "" outside of one."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
