"""`autocast`: the context of mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from dualgrad.amp.precision import Mixed
from dualgrad.runtime.devices import find
from dualgrad.runtime.dtype import DType, as_dtype, bfloat16, float16
from dualgrad.runtime.errors import ArgumentError, DTypeError
from dualgrad.state import state, within

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULTS = {"cpu": bfloat16, "cuda": float16}


class autocast:
    """Inside of this context (or a function decorated with it) ops run in mixed precision.

    device_type   "cpu" or "cuda": on tensors of these devices
    dtype         float16 or bfloat16; by default bfloat16 on the CPU, float16 on CUDA
    enabled       False: ops run as without the context, also inside of another one

    Matrix products, convolutions and attention convert their operands to `dtype`; sums, norms,
    softmax, losses, exp, log and powers convert theirs to float32; all others take operands as
    they are, and where these differ, promote them.  Operands in float64 are left alone, and so
    are ops in place.  Weights stay as they are: each use converts them, and so gradients come
    back in their dtype.  The gradient of an op runs in the dtypes in which the op ran, so
    `backward` may be called outside.  Around, inside of or through a `dg.function` the same
    happens as without it, with the same bits.

    Rules of P. Micikevicius et al., "Mixed precision training", 2018, in PyTorch's form.
    Raises ArgumentError for an unknown kind of device and DTypeError for another dtype.
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True) -> None:
        self.device, self.fast_dtype = _checked(device_type, dtype, enabled)
        self.enabled = bool(enabled)
        self._before: list[Mixed | None] = []

    def __enter__(self) -> autocast:
        before = state.mixed
        chosen = {} if before is None else dict(before.chosen)
        if self.enabled:
            chosen[self.device] = self.fast_dtype
        else:
            chosen.pop(self.device, None)
        self._before.append(before)
        state.mixed = Mixed.of(chosen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        state.mixed = self._before.pop()

    def __call__(self, function: F) -> F:
        return within(lambda: autocast(self.device, self.fast_dtype, self.enabled), function)


def _checked(device_type: Any, dtype: Any, enabled: bool = True) -> tuple[str, DType]:
    """The kind of a device, and the dtype for it."""
    name = find(device_type)
    if name is None or ":" in device_type:
        raise ArgumentError(
            "unknown kind of device",
            op="autocast",
            expect='"cpu" or "cuda"',
            actual=repr(device_type),
            hint='autocast("cpu") is for all tensors on the CPU',
        )
    kind = name.partition(":")[0]
    found = _DEFAULTS[kind] if dtype is None else as_dtype(dtype)
    if enabled and not found.is_low:
        raise DTypeError(
            "mixed precision needs a 16-bit float",
            op="autocast",
            expect="float16 or bfloat16",
            actual=found.name,
            hint="leave dtype out, or pass enabled=False",
        )
    return kind, found


def is_autocast_enabled(device_type: str) -> bool:
    """Whether ops on tensors of this kind of device run in mixed precision."""
    return state.mixed is not None and _checked(device_type, None)[0] in state.mixed.chosen


def get_autocast_dtype(device_type: str) -> DType:
    """The 16-bit float of `autocast` for this kind of device: of the context, else the default."""
    kind, default = _checked(device_type, None)
    return default if state.mixed is None else state.mixed.chosen.get(kind, default)
