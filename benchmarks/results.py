"""What has been measured."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.machine import Machine
from benchmarks.workloads.base import Work

_SHORTEST = 10_000.0  # nanoseconds of a floor; less is the cost of a call
_SLOWER = 1.05


def percentile(numbers: list[float], percent: float) -> float:
    """A percentile, interpolated linearly between the two nearest numbers."""
    ordered = sorted(numbers)
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _noticed(floor: float) -> float | None:
    return floor if floor >= _SHORTEST else None


@dataclass
class ArmResult:
    """One arm of one workload.

    cold_seconds    first call in a fresh process with an empty disk cache
    warm_seconds    first call in a fresh process with a filled disk cache; None without a cache
    import_seconds  to import the framework, in the last of these processes
    nanoseconds     of one step: one number per measurement
    difference      largest difference from dualgrad eager, relative to the largest number
    same_bits       whether results and state are those of dualgrad eager, bit for bit
    launches, kernels, peak_bytes
                    programs and kernels run per step, most memory in use; dualgrad only
    over_eager      time of a step over that of the same step run eagerly in turns with it, in one
                    process; only of a static arm that is slower than the eager arm's process
    report          what `@function` says about its programs; static arm only
    """

    arm: str
    cold_seconds: float
    warm_seconds: float | None
    import_seconds: float
    nanoseconds: list[float] = field(default_factory=list)
    difference: float = 0.0
    same_bits: bool = False
    launches: float | None = None
    kernels: float | None = None
    peak_bytes: int | None = None
    over_eager: float | None = None
    report: str = ""

    @property
    def median(self) -> float:
        """Nanoseconds per step."""
        return statistics.median(self.nanoseconds)

    @property
    def spread(self) -> tuple[float, float]:
        """10th and 90th percentile, in nanoseconds per step."""
        return percentile(self.nanoseconds, 10), percentile(self.nanoseconds, 90)

    @property
    def undisturbed(self) -> float:
        """Nanoseconds per step when little else happens: the 10th percentile."""
        return self.spread[0]

    def as_json(self) -> dict[str, Any]:
        low, high = self.spread
        return {**asdict(self), "median_ns": self.median, "p10_ns": low, "p90_ns": high}


def looks_slower(static: ArmResult, eager: ArmResult) -> bool:
    """Whether an arm's times are longer than the other's by more than what passes for equal."""
    pairs = ((static.median, eager.median), (static.undisturbed, eager.undisturbed))
    return any(longer > _SLOWER * shorter for longer, shorter in pairs)


@dataclass
class WorkloadResult:
    """All arms of one workload; the first is dualgrad eager, the second dualgrad static.

    left_out  reasons, one line for each arm that did not run
    work      what a step cannot do without
    floors    nanoseconds that the machine needs for it at best: one number per turn
    """

    name: str
    title: str
    arms: list[ArmResult]
    left_out: list[str]
    work: Work
    floors: list[float]

    @property
    def floor(self) -> float | None:
        """The median; None where it is too short to be known."""
        return _noticed(statistics.median(self.floors))

    @property
    def undisturbed_floor(self) -> float | None:
        """The 10th percentile; None where it is too short to be known."""
        return _noticed(percentile(self.floors, 10))

    @property
    def slower(self) -> bool:
        """Whether static is slower than eager, side by side in one process."""
        ratio = self.arms[1].over_eager
        return ratio is not None and ratio > _SLOWER

    @property
    def best_other(self) -> ArmResult | None:
        """The fastest arm that is not dualgrad."""
        return min(self.arms[2:], key=lambda arm: arm.median, default=None)

    @property
    def same_bits(self) -> bool:
        """Whether static results are those of eager, bit for bit."""
        return self.arms[1].same_bits

    @property
    def speedup(self) -> float:
        """How many times faster static is than eager."""
        return self.arms[0].median / self.arms[1].median

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "speedup_static": self.speedup,
            "slower": self.slower,
            "same_bits": self.same_bits,
            "work": asdict(self.work),
            "floor_ns": self.floor,
            "arms": [arm.as_json() for arm in self.arms],
            "left_out": self.left_out,
        }


@dataclass
class Run:
    """One call of the benchmark.

    left_out      reasons, one line for each arm that could not take part
    others_share  part of all processors' time that other processes used, None where unknown
    """

    machine: Machine
    command: str
    left_out: list[str]
    results: list[WorkloadResult] = field(default_factory=list)
    others_share: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine.as_json(),
            "command": self.command,
            "left_out": self.left_out,
            "others_share": self.others_share,
            "workloads": [result.as_json() for result in self.results],
        }
