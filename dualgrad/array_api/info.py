"""What there is in the array API namespace: dtypes, devices, capabilities."""

from __future__ import annotations

from typing import Any

from dualgrad import cuda
from dualgrad.creation import device_named
from dualgrad.dtypes import isdtype
from dualgrad.runtime.devices import CPU
from dualgrad.runtime.dtype import DEFAULT_FLOAT, DEFAULT_INT, INTS, DType, bool_, float32, float64

MAX_DIMENSIONS = 64  # NumPy's, which holds the memory
_DTYPES = {t.name: t for t in (bool_, *INTS, float32, float64)}


class NamespaceInfo:
    """The answer of `__array_namespace_info__`.

    device: a name as everywhere, None is the CPU; raises DeviceError for what is no name.
    """

    def capabilities(self) -> dict[str, Any]:
        """Whether masks index and results may have sizes that depend on values; how many
        dimensions a tensor can have."""
        return {
            "boolean indexing": True,
            "data-dependent shapes": True,
            "max dimensions": MAX_DIMENSIONS,
        }

    def default_device(self) -> str:
        """The device of new tensors."""
        return CPU

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The dtypes of new tensors by kind; there are no complex ones."""
        device_named("default_dtypes", device)
        return {"real floating": DEFAULT_FLOAT, "integral": DEFAULT_INT, "indexing": DEFAULT_INT}

    def dtypes(
        self, *, device: Any = None, kind: str | tuple[str, ...] | None = None
    ) -> dict[str, DType]:
        """The standard's dtypes that there are, by name: all, or those of a kind (see `isdtype`)
        or of several kinds."""
        device_named("dtypes", device)
        return {k: t for k, t in _DTYPES.items() if kind is None or isdtype(t, kind)}

    def devices(self) -> tuple[str, ...]:
        """The names of the devices that can be used."""
        return (CPU, *(f"cuda:{k}" for k in range(cuda.device_count())))
