"""Mixed precision in functions of the user's own: `custom_fwd` and `custom_bwd`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

from dualgrad.amp.autocast_mode import autocast, get_autocast_dtype, is_autocast_enabled
from dualgrad.runtime.dtype import DType, as_dtype, float64
from dualgrad.tensor import Tensor


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: Any = None) -> Any:
    """Decorate `forward` of a `dg.autograd.Function` that is called within `autocast`.

    cast_inputs   a float dtype: within autocast, floats on the device are converted to it (not
                  float64), also in lists and dicts, and `forward` runs without autocast.
                  None: `forward` runs in mixed precision like any other code.
    Then `backward` is to be decorated with `custom_bwd`.
    """
    if fwd is None:
        return lambda function: custom_fwd(
            function, device_type=device_type, cast_inputs=cast_inputs
        )
    dtype = None if cast_inputs is None else as_dtype(cast_inputs)

    @wraps(fwd)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        enabled = is_autocast_enabled(device_type)
        ctx._mixed = (enabled and dtype is None, get_autocast_dtype(device_type))
        if dtype is None or not enabled:
            return fwd(ctx, *args, **kwargs)
        given = _converted((args, kwargs), device_type, dtype)
        with autocast(device_type, enabled=False):
            return fwd(ctx, *given[0], **given[1])

    return forward


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorate `backward` of a `dg.autograd.Function`: it runs in the mode `forward` ran in."""
    if bwd is None:
        return lambda function: custom_bwd(function, device_type=device_type)

    @wraps(bwd)
    def backward(ctx: Any, *args: Any) -> Any:
        enabled, dtype = ctx._mixed
        with autocast(device_type, dtype, enabled):
            return bwd(ctx, *args)

    return backward


def _converted(x: Any, device_type: str, dtype: DType) -> Any:
    if isinstance(x, Tensor):
        fits = x.dtype.is_float and x.dtype is not float64
        return x.to(dtype) if fits and x.device.partition(":")[0] == device_type else x
    if isinstance(x, Mapping):
        return {k: _converted(v, device_type, dtype) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(_converted(v, device_type, dtype) for v in x)
    return x
