"""What dualgrad found on this machine."""

from __future__ import annotations

import importlib.util
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from dualgrad.runtime import cuda, threads
from dualgrad.runtime.cache import CacheInfo, default_cache
from dualgrad.runtime.config import config
from dualgrad.runtime.host import cpu_count, memory_bytes
from dualgrad.runtime.linker import host_target


def cache_info() -> CacheInfo:
    """The state of the disk cache: its folder and size, and how it answered in this process."""
    return default_cache().info()


def doctor() -> None:
    """Print versions, processor, threads, disk cache and settings, and what is missing."""
    print("\n".join(f"{label:10} {text}" for label, text in findings()))


def findings() -> list[tuple[str, str]]:
    """What `doctor` prints, as (label, text)."""
    target, cache = host_target(), cache_info()
    folder = "off" if cache.root is None else str(cache.root)
    use = (
        f"{folder}: {cache.entries} entries, {cache.bytes / 2**20:.1f} MiB" if cache.root else "off"
    )
    settings = {name: getattr(config, name) for name in ("check", "eager", "verify", "traceback")}
    return [
        ("dualgrad", f"{_version('dualgrad')}, Python {platform.python_version()}"),
        ("back end", f"LLVM for {target.cpu}, {target.triple}"),
        ("vectors", f"{target.registers} registers of {target.vector_bits} bits"),
        ("threads", f"{threads.get_num_threads()} of {cpu_count()} processors"),
        ("memory", f"{memory_bytes() / 2**30:.1f} GiB"),
        ("GPUs", "; ".join(gpus()) or "none"),
        ("packages", f"numpy {np.__version__}, llvmlite {_version('llvmlite')}"),
        ("cache", f"{use}{', not used: ' + cache.problem if cache.problem else ''}"),
        ("settings", ", ".join(f"{name} {value}" for name, value in settings.items())),
        ("missing", "; ".join(missing()) or "nothing"),
    ]


def gpus() -> list[str]:
    """The CUDA devices that can be used."""
    found = []
    for k in range(cuda.device_count()):
        info = cuda.driver().info(k)
        size = f"{info.memory / 2**30:.1f} GiB"
        found.append(f"cuda:{k} {info.name}, {info.arch}, {size}")
    return found


def missing() -> list[str]:
    """What would be faster, or possible, on another system."""
    out = []
    problem = cuda.problem()
    if problem is not None:
        out.append(f"GPUs: {problem.what}: {problem.hint}")
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        out.append("native threads: one thread is used here")
    if not default_cache().info().root:
        out.append("a disk cache: every process compiles anew (DG_CACHE, DG_CACHE_DIR)")
    if importlib.util.find_spec("llvmlite") is None:
        out.append("llvmlite: nothing can be compiled (pip install llvmlite)")
    return out


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
