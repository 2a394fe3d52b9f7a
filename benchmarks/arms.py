"""The arms of a comparison: a framework and a way to run its code.

Each arm runs in processes of its own, so that thread pools, allocators and caches of one
framework cannot disturb another, and so that a first call is a first call.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.frameworks import interpreter, version

_THREADS = (
    "DG_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "NPROC",  # the thread pools of XLA
)  # fmt: skip
# whatever is set where the benchmark is started, it measures the defaults
_DEFAULTS = {
    "DG_CACHE": "1",
    "DG_CHECK": "0",
    "DG_EAGER": "0",
    "DG_NATIVE": "1",
    "DG_VERIFY": "0",
}


@dataclass(frozen=True)
class Arm:
    """A column of the comparison.

    framework  module in `benchmarks/steps`, and the package it needs
    decorator  what compiles a step: "module.attribute", or "" for none
    finish     method of a result that waits until it is computed; "" if steps are synchronous
    caches     environment variable that names the folder of its disk cache, "" without one
    slow       its first call takes many seconds, so `--quick` leaves it out
    settings   further environment variables with their values
    """

    name: str
    framework: str
    decorator: str = ""
    finish: str = ""
    caches: str = ""
    slow: bool = False
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def interpreter(self) -> str:
        """The Python of its processes."""
        return interpreter(self.framework)

    @property
    def peer(self) -> bool:
        """Whether it runs something that dualgrad does not depend on."""
        return self.framework not in ("dualgrad", "numpy")

    @property
    def file_name(self) -> str:
        return self.name.replace(" ", "-")

    def environment(self, cache: Path, threads: int) -> Mapping[str, str]:
        """Environment of its processes."""
        caches = {self.caches: str(cache)} if self.caches else {}
        counts = dict.fromkeys(_THREADS, str(threads))
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, **_DEFAULTS, **counts, **caches, **dict(self.settings)}


_QUIET_TF = (("TF_CPP_MIN_LOG_LEVEL", "3"),)
REFERENCE = Arm("dualgrad eager", "dualgrad", caches="DG_CACHE_DIR")
STATIC = Arm("dualgrad static", "dualgrad", "dualgrad.function", caches="DG_CACHE_DIR")
TORCH = Arm("torch eager", "torch")
ARMS = (
    REFERENCE,
    STATIC,
    Arm("NumPy", "numpy"),
    TORCH,
    Arm(
        "torch.compile", "torch", "torch.compile",
        caches="TORCHINDUCTOR_CACHE_DIR", slow=True,
    ),
    Arm("jax.jit", "jax", "jax.jit", finish="block_until_ready"),
    Arm(
        "TF function", "tensorflow", "benchmarks.steps.tensorflow.function", settings=_QUIET_TF
    ),
    Arm("TF XLA", "tensorflow", "benchmarks.steps.tensorflow.xla", settings=_QUIET_TF),
)  # fmt: skip


def choose_arms(arms: Sequence[Arm], quick: bool, peers: bool) -> tuple[list[Arm], list[str]]:
    """The arms that can run, and a line for each that cannot."""
    chosen, left_out = [], []
    for arm in arms:
        if arm.peer and not peers:
            reason = "left out by --no-peers"
        elif version(arm.framework) is None:
            reason = f"{arm.framework} is not installed in {interpreter(arm.framework)}"
        elif arm.slow and quick:
            reason = "left out by --quick, for its first calls take long"
        else:
            chosen.append(arm)
            continue
        left_out.append(f"{arm.name}: {reason}")
    return chosen, left_out
