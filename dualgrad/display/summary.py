"""What a tensor of many elements is like: extremes, mean, spread, and how many are not finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualgrad.runtime.device_array import DeviceArray
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.floats import decode
from dualgrad.runtime.records import dataclass

Array = np.ndarray[Any, Any]
_CHUNK = 1 << 16  # elements looked at at once
FETCHED = 64 << 20  # bytes; more are not brought from a device to be shown


@dataclass
class Summary:
    """Of the finite values: least, greatest, mean and sum of squared distances from it, computed
    in float64 (integers: least and greatest as they are); `count` is the number of them."""

    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0
    count: int = 0
    nan: int = 0
    inf: int = 0

    def add(self, values: Array) -> None:
        """Take further values in.

        Formula: T. F. Chan, G. H. Golub, R. J. LeVeque, The American Statistician 37 (1983).
        """
        x = np.asarray(values, np.float64)
        finite = np.isfinite(x)
        if not finite.all():
            nan = int(np.isnan(x).sum())
            self.nan += nan
            self.inf += int(x.size - finite.sum()) - nan
            x = x[finite]
        if not x.size:
            return
        count, mean = self.count + x.size, float(x.mean())
        squares = float(np.square(x - mean).sum())
        step = mean - self.mean
        self.squares += squares + step * step * self.count * x.size / count
        self.mean += step * x.size / count
        extremes = values if values.dtype.kind in "iu" else x
        self.low = min(self.low, extremes.min().item())
        self.high = max(self.high, extremes.max().item())
        self.count = count

    @property
    def std(self) -> float:
        """Standard deviation, with the number of elements as divisor, as `Tensor.std` has it."""
        return math.sqrt(self.squares / self.count)

    def __str__(self) -> str:
        parts = []
        if self.count:
            named = {"min": self.low, "mean": self.mean, "max": self.high, "std": self.std}
            parts = [f"{name}={_short(value)}" for name, value in named.items()]
        parts += [f"{name}={n}" for name, n in (("nan", self.nan), ("inf", self.inf)) if n]
        return ", ".join(parts)


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def summary_of(array: Array | DeviceArray, dtype: DType) -> str:
    """The summary of stored values as text: "min=..., mean=..., max=..., std=..." and the numbers
    of NaNs and infinities where there are some; of bools how many are True.

    "" for more values than one would like to wait for on their way from a device.
    """
    if isinstance(array, DeviceArray):
        if array.nbytes > FETCHED:
            return ""
        array = array.to_host()
    if dtype.kind == "b":
        return f"true={int(np.count_nonzero(array))}"
    found = Summary()
    whole = np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], buffersize=_CHUNK)
    with np.errstate(all="ignore"), whole as chunks:
        for chunk in chunks:
            found.add(decode(np.asarray(chunk), dtype))
    return str(found)
