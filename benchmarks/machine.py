"""Where and with what the numbers were measured."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dualgrad as dg
from benchmarks.process import ROOT
from dualgrad.runtime.host import cpu_count, memory_bytes


@dataclass(frozen=True)
class Machine:
    """Header of the tables.

    load  processes that ran or waited, averaged over the last minute; None where unknown
    """

    cpu: str
    cores: int
    memory_gib: float
    system: str
    versions: dict[str, str]
    commit: str
    date: str
    threads: int
    load: float | None

    def lines(self) -> list[tuple[str, str]]:
        """Labels and texts."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        busy = "" if self.load is None else f", load before {self.load:.2f}"
        lines = [
            ("machine", f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB"),
            ("system", f"{self.system}{busy}"),
            ("versions", versions),
            ("date", self.date),
            ("threads", str(self.threads)),
        ]
        return [*lines, ("commit", self.commit)] if self.commit else lines

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def describe(packages: list[str], threads: int) -> Machine:
    """This machine now; `packages` are those of the arms that take part."""
    versions = {"Python": platform.python_version(), "dualgrad": dg.__version__}
    for package in ("numpy", "llvmlite", *packages):
        if package not in versions:
            versions[package] = _version(package)
    return Machine(
        _cpu(),
        cpu_count(),
        memory_bytes() / 2**30,
        f"{platform.system()} {platform.release()} {platform.machine()}",
        versions,
        _commit(),
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        threads,
        os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


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
