"""Initial values: each function fills a tensor in place, without a gradient, and returns it.

Sources: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
networks", 2010 (xavier); K. He et al., "Delving deep into rectifiers", 2015 (kaiming); A. Saxe et
al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", 2013
(orthogonal); F. Mezzadri, "How to generate random matrices from the classical compact groups", 2007
(orthogonal); J. Martens, "Deep learning via Hessian-free optimization", 2010 (sparse).

Numbers are drawn from `generator`, by default the one that `dg.seed` sets.
"""

from __future__ import annotations

import math

import numpy as np

from dualgrad.compiler.ops.linalg_factor import qr
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.special import erfinv
from dualgrad.creation import from_numpy
from dualgrad.nn.checks import check_number
from dualgrad.random import Generator, normal, uniform
from dualgrad.ranges import eye
from dualgrad.runtime.dtype import DType, float32, float64
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor

_CONVOLUTIONS = tuple(f"conv{way}{n}d" for way in ("", "_transpose") for n in (1, 2, 3))


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers in a <= x < b, all equally likely."""
    return _copy(tensor, uniform(tensor.shape, a, b, tensor.dtype, generator, tensor.device))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with normally distributed numbers."""
    return _copy(tensor, normal(tensor.shape, mean, std, tensor.dtype, generator, tensor.device))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with normally distributed numbers in a <= x <= b, by the inverse of their law.

    Raises ArgumentError unless a < b and std > 0.
    """
    check_number("trunc_normal_", "b", b, above=a)
    check_number("trunc_normal_", "std", std, above=0.0)
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2.0))) for bound in (a, b))
    share = uniform(tensor.shape, low, high, float64, generator, tensor.device)
    return _copy(tensor, (erfinv(share) * (std * math.sqrt(2.0)) + mean).clamp(a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one number."""
    with no_grad():
        tensor.fill_(val)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with 1 where row and column are equal, 0 elsewhere."""
    _check_dimensions("eye_", tensor, 2, 2)
    rows, columns = tensor.shape
    return _copy(tensor, eye(rows, columns, dtype=tensor.dtype, device=tensor.device))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a kernel [out, in, *sizes] so that its convolution gives channels back as they are.

    The 1 stands in the middle; in each group of output channels as many inputs come through as
    there are.  Raises ShapeError for other numbers of dimensions than 3 to 5, or if groups do not
    divide the output channels.
    """
    _check_dimensions("dirac_", tensor, 3, 5)
    outputs, inputs, *kernel = tensor.shape
    if groups < 1 or outputs % groups:
        raise ShapeError(
            "groups of channels must have equal sizes",
            op="dirac_",
            expect="a number of groups that divides the output channels",
            actual=f"groups={groups}, shape {tuple(tensor.shape)}",
            hint="choose a divisor of the first size",
        )
    values = np.zeros((groups, outputs // groups, inputs, *kernel), np.float32)
    same = np.arange(min(outputs // groups, inputs))
    values[(slice(None), same, same, *(n // 2 for n in kernel))] = 1.0
    return _copy(tensor, from_numpy(values.reshape(tensor.shape)).to(tensor.device))


def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None
) -> Tensor:
    """Fill a matrix normally, with a share `sparsity` of each column 0, rounded up.

    Raises ArgumentError unless 0 <= sparsity <= 1.
    """
    _check_dimensions("sparse_", tensor, 2, 2)
    check_number("sparse_", "sparsity", sparsity, 0, 1)
    kept = tensor.shape[0] - math.ceil(sparsity * tensor.shape[0])
    order = uniform(tensor.shape, generator=generator, device=tensor.device).argsort(0).argsort(0)
    values = normal(tensor.shape, 0.0, std, _wide(tensor), generator, tensor.device)
    return _copy(tensor, where(order < kept, values, 0.0))


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with a matrix [first size, all others] whose rows, or else columns, are orthonormal.

    All such matrices are equally likely; it is multiplied by `gain`.
    """
    _check_dimensions("orthogonal_", tensor, 2)
    rows = tensor.shape[0]
    if not tensor.size:
        return tensor
    sizes = (rows, tensor.size // rows)
    drawn = normal((max(sizes), min(sizes)), 0.0, 1.0, _wide(tensor), generator, tensor.device)
    q, r = qr(drawn)
    q = q * where(r.diagonal() < 0, -gain, gain)
    return _copy(tensor, (q.T if sizes[0] < sizes[1] else q).reshape(tensor.shape))


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill uniformly in +-gain sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6.0 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill normally with standard deviation gain sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans(tensor))), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill uniformly in +-gain sqrt(3 / fan); `a` is the negative slope of a leaky_relu."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill normally with standard deviation gain / sqrt(fan)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor that keeps the variance through `nonlinearity`, as PyTorch defines it.

    `param` is the negative slope of a leaky_relu (default 0.01).

    Raises ArgumentError for an unknown name.
    """
    slope = 0.01 if param is None else param
    gains = {
        **dict.fromkeys(("linear", *_CONVOLUTIONS), 1.0),
        "sigmoid": 1.0,
        "tanh": 5.0 / 3.0,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1.0 + slope * slope)),
        "selu": 0.75,
    }
    if nonlinearity not in gains:
        raise _unknown("calculate_gain", "nonlinearity", nonlinearity, tuple(gains))
    return gains[nonlinearity]


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise _unknown("kaiming", "mode", mode, ("fan_in", "fan_out"))
    fan = _fans(tensor)[mode == "fan_out"]
    # an empty fan has no elements to fill
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Return the fan-in and fan-out of a weight [out, in, *kernel]."""
    if len(tensor.shape) < 2:
        raise ShapeError(
            "fan-in and fan-out need a weight of two dimensions or more",
            op="init",
            expect="[out, in, ...]",
            actual=f"shape {tuple(tensor.shape)}",
            hint="use uniform_ or normal_ for vectors",
        )
    outputs, inputs, *kernel = tensor.shape
    field = math.prod(kernel)
    return inputs * field, outputs * field


def _check_dimensions(op: str, tensor: Tensor, least: int, most: float = math.inf) -> None:
    if not least <= tensor.ndim <= most:
        more = " or more" if most == math.inf else f" to {most}" if most > least else ""
        raise ShapeError(
            "a tensor of another number of dimensions",
            op=op,
            expect=f"{least}{more} dimensions",
            actual=f"shape {tuple(tensor.shape)}",
            hint="reshape it, or use normal_",
        )


def _wide(tensor: Tensor) -> DType:
    """The dtype in which values for a tensor are computed before they are rounded to its own."""
    return float32 if tensor.dtype.is_low else tensor.dtype


def _copy(tensor: Tensor, values: Tensor) -> Tensor:
    with no_grad():
        tensor.copy_(values)
    return tensor


def _unknown(op: str, name: str, actual: str, known: tuple[str, ...]) -> ArgumentError:
    return ArgumentError(
        f"unknown {name}",
        op=op,
        expect=", ".join(known),
        actual=repr(actual),
        hint="use one of these names",
    )
