"""Discrete Fourier transforms under NumPy's names.

There are no complex tensors: complex numbers are pairs (real, imaginary) in a last dimension of
size 2, and axes count without it.

    spectrum = dg.fft.rfft(x)              # x [..., n] -> [..., n // 2 + 1, 2]
    x = dg.fft.irfft(spectrum, n)
    y = dg.fft.ifft(dg.fft.fft(dg.fft.as_pairs(re, im)))
"""

from typing import Any

import numpy as np

from dualgrad.compiler.ops.fft import (
    as_pairs,
    conj,
    fft,
    fft2,
    fftn,
    fftshift,
    hfft,
    ifft,
    ifft2,
    ifftn,
    ifftshift,
    ihfft,
    imag,
    irfft,
    irfft2,
    irfftn,
    multiply,
    real,
    rfft,
    rfft2,
    rfftn,
)
from dualgrad.creation import tensor
from dualgrad.runtime.dtype import DEFAULT_FLOAT
from dualgrad.tensor import Tensor

__all__ = [
    "as_pairs",
    "conj",
    "fft",
    "fft2",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "ifft",
    "ifft2",
    "ifftn",
    "ifftshift",
    "ihfft",
    "imag",
    "irfft",
    "irfft2",
    "irfftn",
    "multiply",
    "real",
    "rfft",
    "rfft2",
    "rfftfreq",
    "rfftn",
]


def fftfreq(n: int, d: float = 1.0, dtype: Any = None) -> Tensor:
    """Return the frequencies [n] of the elements of `fft`, for samples `d` apart."""
    return tensor(np.fft.fftfreq(n, d), dtype=dtype or DEFAULT_FLOAT)


def rfftfreq(n: int, d: float = 1.0, dtype: Any = None) -> Tensor:
    """Return the frequencies [n // 2 + 1] of the elements of `rfft`, for samples `d` apart."""
    return tensor(np.fft.rfftfreq(n, d), dtype=dtype or DEFAULT_FLOAT)
