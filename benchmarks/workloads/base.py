"""What a workload is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Work:
    """What a step cannot do without.

    flops    multiplications and additions in products of matrices and convolutions
    bytes    inputs, results and state, each read or written once; what a step makes and uses up
             itself does not count
    formula  how they are counted, in one line
    """

    flops: int
    bytes: int
    formula: str


class Workload(ABC):
    """One row group of the table.

    name       on the command line, and of the functions in `benchmarks/steps`
    tolerance  largest difference from dualgrad that other libraries may have, relative to the
               largest number of the result
    lacking    frameworks that have no natural way to say it, and arms that take too long
    quick      whether `--quick` runs it
    """

    name: ClassVar[str]
    lacking: ClassVar[tuple[str, ...]] = ()
    tolerance: ClassVar[float] = 1e-5
    quick: ClassVar[bool] = False

    @abstractmethod
    def title(self) -> str:
        """One line that says what is computed."""

    @abstractmethod
    def work(self) -> Work:
        """What a step cannot do without."""

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """Inputs and first values, the same for all frameworks."""


def normal(*shape: int, seed: int = 0) -> Array:
    """Float32 of the standard normal distribution."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
