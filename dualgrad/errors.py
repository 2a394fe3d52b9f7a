"""The classes of errors, for `except`: each is also the builtin class that fits it.

try:
    model.load_state_dict(state)
except dg.errors.ArgumentError as error:
    print(error.what, error.hint)
"""

from __future__ import annotations

from dualgrad.compiler.ops.indexing import BadIndex
from dualgrad.runtime.errors import (
    ArgumentError,
    CompileError,
    DataError,
    DataTimeout,
    DeviceError,
    DTypeError,
    DualgradError,
    ExchangeError,
    GradientError,
    IndexOutOfBounds,
    LibraryError,
    NaNError,
    OperandError,
    OutOfMemory,
    ShapeError,
    TraceError,
)
from dualgrad.runtime.library import LinAlgError

__all__ = [
    "ArgumentError",
    "BadIndex",
    "CompileError",
    "DTypeError",
    "DataError",
    "DataTimeout",
    "DeviceError",
    "DualgradError",
    "ExchangeError",
    "GradientError",
    "IndexOutOfBounds",
    "LibraryError",
    "LinAlgError",
    "NaNError",
    "OperandError",
    "OutOfMemory",
    "ShapeError",
    "TraceError",
]
