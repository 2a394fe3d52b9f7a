"""Methods that convert to one dtype each, under the names of NumPy and PyTorch."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.value import public
from dualgrad.compiler.ops.elementwise import copy, to
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.runtime.dtype import (
    as_dtype,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int32,
    int64,
)


@public("astype")
def astype(x: Any, dtype: Any, copy: bool = True) -> Any:
    """Return x converted to `dtype`: a copy, or with `copy=False` x itself if it has it."""
    check_tensors("astype", x)
    return _copied(x) if copy and x.dtype is as_dtype(dtype) else to(x, dtype)


_copied = copy


@public("type_as")
def type_as(x: Any, other: Any) -> Any:
    """Return x converted to the dtype of `other`, on its device."""
    return to(x, other)


@public("half")
def half(x: Any) -> Any:
    """Return x as float16."""
    return to(x, float16)


@public("bfloat16")
def to_bfloat16(x: Any) -> Any:
    """Return x as bfloat16."""
    return to(x, bfloat16)


@public("float")
def to_float(x: Any) -> Any:
    """Return x as float32."""
    return to(x, float32)


@public("double")
def double(x: Any) -> Any:
    """Return x as float64."""
    return to(x, float64)


@public("int")
def to_int(x: Any) -> Any:
    """Return x as int32."""
    return to(x, int32)


@public("long")
def to_long(x: Any) -> Any:
    """Return x as int64."""
    return to(x, int64)


@public("bool")
def to_bool(x: Any) -> Any:
    """Return x != 0."""
    return to(x, bool_)


@public("cpu")
def cpu(x: Any) -> Any:
    """Return x on the CPU: x itself if it is there.  Gradients come back to where x is."""
    return to(x, device="cpu")


@public("cuda")
def cuda(x: Any, device: Any = None) -> Any:
    """Return x on a CUDA device, the first one unless another is named by number or as "cuda:N".

    Gradients come back to where x is.  Raises DeviceError if there is no such device.
    """
    number = isinstance(device, int)
    return to(x, device="cuda" if device is None else f"cuda:{device}" if number else device)


@samples_of(astype)
def _astype_samples() -> list[Sample]:
    return [
        Sample(lambda x: astype(x, float64), (Arg((2, 3)),), lambda np, x: x.astype(np.float64)),
        Sample(
            lambda x: astype(x, int32),
            (Arg((2, 3)),),
            lambda np, x: x.astype(np.int32),
            gradient=False,
        ),
    ]
