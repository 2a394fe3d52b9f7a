"""Names of devices.

"cpu", "cuda" and "cuda:N", where "cuda" is "cuda:0"; these are canonical with the number.  Whether
there is such a device is not looked at here.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dualgrad.runtime.errors import DeviceError

CPU = "cpu"
_NAMES = '"cpu", "cuda" or "cuda:N"'
_WORDS = ("cpu", "cuda", "gpu", "mps", "tpu", "xpu")


def is_device(x: object) -> bool:
    """Whether x is a word for a device, not for a dtype."""
    return isinstance(x, str) and x.partition(":")[0] in _WORDS


def canonical(device: object, op: str = "") -> str:
    """The canonical name of a device as users write it.  Raises DeviceError."""
    name = find(device)
    if name is None:
        raise DeviceError(
            "unknown device",
            op=op,
            expect=_NAMES,
            actual=repr(device),
            hint='device="cuda" is the first GPU',
        )
    return name


def find(device: object) -> str | None:
    """The canonical name of a device as users write it; None if it is no name."""
    return _canonical(device) if isinstance(device, str) else None


@lru_cache(maxsize=64)
def _canonical(device: str) -> str | None:
    if device == CPU:
        return device
    match = re.fullmatch("cuda(?::([0-9]{1,4}))?", device)
    return None if match is None else f"cuda:{int(match[1] or 0)}"


def device_index(device: str) -> int:
    """N of the canonical name "cuda:N"."""
    return int(device.removeprefix("cuda:"))
