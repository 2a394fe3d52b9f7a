"""Activations: the nonlinear functions between the layers of a network.

Where PyTorch has a gradient at a kink, it is that one.  Formulas keep branches that a `where`
does not take finite, as an infinite slope would make their gradient NaN.
"""

from __future__ import annotations

import math
from typing import Any

from dualgrad.compiler.ir.dims import same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arithmetic import absolute, clip
from dualgrad.compiler.ops.base import LAST, axis_argument, axis_of
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.exponential import expm1, log_sigmoid, sigmoid
from dualgrad.compiler.ops.hyperbolic import tanh
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of, unary, unary_samples_of
from dualgrad.compiler.ops.slicing import narrow
from dualgrad.compiler.ops.special import erf
from dualgrad.runtime.errors import ArgumentError, ShapeError

# Of the fixed point in which activations of mean 0 and variance 1 stay so: Klambauer et al.,
# "Self-normalizing neural networks", 2017, appendix.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946

# -- of exponentials ------------------------------------------------------------------------------


@composite
@single
def _softplus(x: Any, beta: Any, threshold: Any) -> Any:
    scaled = beta * x
    return where(scaled > threshold, x, -log_sigmoid(-scaled) / beta)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """Return log(1 + exp(beta x)) / beta, and x where beta x > threshold."""
    return _softplus(x, beta, threshold)


@composite
def _silu(x: Any) -> Any:
    return x * sigmoid(x)


def silu(x: Any) -> Any:
    """Return x sigmoid(x)."""
    return _silu(x)


@composite
def _gelu(x: Any) -> Any:
    return x * (0.5 * (1.0 + erf(x * math.sqrt(0.5))))


@composite
def _gelu_tanh(x: Any) -> Any:
    # (1 + tanh(z)) / 2 is sigmoid(2 z), which does not cancel; beyond 100 it is 0 or 1
    inside = clip(x, -100, 100)
    cube = inside * inside * inside
    return x * sigmoid((inside + 0.044715 * cube) * math.sqrt(8 / math.pi))


def gelu(x: Any, approximate: str = "none") -> Any:
    """Return x times the probability that a standard normal number is below x.

    `approximate` "tanh" takes x (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3))) / 2 for it (Hendrycks
    and Gimpel, "Gaussian error linear units", 2016).
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(
            "no such approximation",
            op="gelu",
            expect="'none' or 'tanh'",
            actual=repr(approximate),
            hint="leave approximate out for the exact formula",
        )
    return _gelu(x) if approximate == "none" else _gelu_tanh(x)


@composite
def _mish(x: Any) -> Any:
    return x * tanh(-log_sigmoid(-x))


def mish(x: Any) -> Any:
    """Return x tanh(softplus(x))."""
    return _mish(x)


@composite
def _elu(x: Any, alpha: Any) -> Any:
    return where(x > 0, x, alpha * expm1(where(x > 0, 0, x)))


def elu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (e**x - 1); the gradient at 0 is alpha."""
    return _elu(x, alpha)


@composite
def _selu(x: Any) -> Any:
    return SELU_SCALE * where(x > 0, x, SELU_ALPHA * expm1(where(x > 0, 0, x)))


def selu(x: Any) -> Any:
    """Return 1.0507 times `elu` with alpha 1.6733: the self-normalizing unit."""
    return _selu(x)


@composite
def _celu(x: Any, alpha: Any) -> Any:
    return where(x > 0, x, alpha * expm1(where(x > 0, 0, x) / alpha))


def celu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (e**(x / alpha) - 1); the gradient at 0 is 1."""
    return _celu(x, alpha)


@composite
def _tanhshrink(x: Any) -> Any:
    return x - tanh(x)


def tanhshrink(x: Any) -> Any:
    """Return x - tanh(x)."""
    return _tanhshrink(x)


# -- of straight lines ----------------------------------------------------------------------------


@composite
def _hardtanh(x: Any, low: Any, high: Any) -> Any:
    return where(x <= low, low, where(x >= high, high, x))


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """Return x between two bounds; at them the gradient is 0.

    Integers stay integers between bounds that are whole numbers.
    """
    check_tensors("hardtanh", x)
    if x.dtype.is_int and float(min_val).is_integer() and float(max_val).is_integer():
        min_val, max_val = int(min_val), int(max_val)
    return _hardtanh(x, min_val, max_val)


def relu6(x: Any) -> Any:
    """Return x between 0 and 6; at them the gradient is 0."""
    return _hardtanh(x, 0, 6)


@composite
def _leaky_relu(x: Any, slope: Any) -> Any:
    return where(x > 0, x, x * slope)


def leaky_relu(x: Any, negative_slope: Any = 0.01) -> Any:
    """Return x where x > 0, else x times a slope (or a tensor of them): the gradient at 0."""
    return _leaky_relu(x, negative_slope)


@composite
def _prelu(x: Any, weight: Any) -> Any:
    if x.ndim > 1 and weight.ndim:
        weight = weight.reshape(weight.shape + (1,) * (x.ndim - 2))
    weight = weight if x.ndim or not weight.ndim else weight.reshape(())
    return where(x > 0, x, weight * x)


def prelu(x: Any, weight: Any) -> Any:
    """Return x where x > 0, else x times a learnt slope.

    weight: [channels] for x [N, channels, ...], or [1] or [] for any x.  Raises ShapeError if
    they do not fit.
    """
    check_tensors("prelu", x, weight)
    channels = x.shape[1] if x.ndim > 1 else 1
    single = weight.ndim == 0 or (weight.ndim == 1 and weight.shape[0] == 1)
    if not single and (weight.ndim > 1 or not same(weight.shape[0], channels)):
        raise ShapeError(
            "there is one slope, or one per channel",
            op="prelu",
            expect=f"weight ({channels},), (1,) or ()",
            actual=f"weight {dim_text(weight.shape)}",
            hint="axis 1 of the input holds the channels",
        )
    return _prelu(x, weight)


@composite
def _hardsigmoid(x: Any) -> Any:
    return where(x <= -3, 0, where(x >= 3, 1, x / 6 + 0.5))


def hardsigmoid(x: Any) -> Any:
    """Return x / 6 + 1/2 between 0 and 1; at -3 and 3 the gradient is 0."""
    return _hardsigmoid(x)


@composite
def _hardswish(x: Any) -> Any:
    inside = where((x <= -3) | (x >= 3), 0, x)
    return where(x <= -3, 0, where(x >= 3, x, inside * (inside + 3) / 6))


def hardswish(x: Any) -> Any:
    """Return x hardsigmoid(x); the gradient at -3 is 0, at 3 it is 1."""
    return _hardswish(x)


@composite
def _hardshrink(x: Any, bound: Any) -> Any:
    return where((x >= -bound) & (x <= bound), 0, x)


def hardshrink(x: Any, lambd: float = 0.5) -> Any:
    """Return 0 where |x| <= lambd, else x."""
    return _hardshrink(x, lambd)


@composite
def _softshrink(x: Any, bound: Any) -> Any:
    inside = where(x.ne(x), x, 0)
    return where(x > bound, x - bound, where(x < -bound, x + bound, inside))


def softshrink(x: Any, lambd: float = 0.5) -> Any:
    """Return x moved by lambd towards 0, and 0 where |x| <= lambd."""
    return _softshrink(x, lambd)


@composite
def _threshold(x: Any, threshold: Any, value: Any) -> Any:
    return where(x <= threshold, value, x)


def threshold(x: Any, threshold: float, value: float) -> Any:
    """Return x where it is larger than a threshold, else a value."""
    return _threshold(x, threshold, value)


@composite
def _softsign(x: Any) -> Any:
    return x / (1 + absolute(x))


def softsign(x: Any) -> Any:
    """Return x / (1 + |x|)."""
    return _softsign(x)


# -- of two halves --------------------------------------------------------------------------------


@composite
def _glu(x: Any, *, axis: int) -> Any:
    half = x.shape[axis] // 2
    return narrow(x, axis, 0, half) * sigmoid(narrow(x, axis, half, half))


def glu(input: Any, axis: int = LAST, **dim: Any) -> Any:
    """Return a sigmoid(b) for the halves a and b of input along `axis` (also named `dim`).

    Raises ShapeError if the axis has an odd size.
    """
    check_tensors("glu", input)
    axis = axis_of("glu", axis_argument("glu", axis, dim), input.ndim)
    if not input.ndim or not same(input.shape[axis] % 2, 0):
        raise ShapeError(
            "the axis has no halves",
            op="glu",
            expect=f"an even size of axis {axis}",
            actual=dim_text(input.shape),
            hint="make the layer before it twice as wide",
        )
    return _glu(input, axis=axis)


# -- what they should give ------------------------------------------------------------------------


def _expm1_below(alpha: float) -> Any:
    return lambda np, x: np.where(x > 0, x, alpha * np.expm1(x))


@samples_of(gelu)
def _gelu_samples() -> list[Sample]:
    def exact(np: Any, x: Any) -> Any:
        below = np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2, otypes="d")
        return x * below(x).astype(x.dtype)

    def close(np: Any, x: Any) -> Any:
        return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2

    bad = Sample(lambda x: gelu(x, "erf"), (Arg((2,)),), error=ValueError, match="'none' or 'tanh'")
    return [
        Sample(gelu, (Arg((3, 7), low=-3, high=3),), exact, relative=3e-7),
        Sample(lambda x: gelu(x, "tanh"), (Arg((3, 7), low=-3, high=3),), close, relative=3e-7),
        bad,
    ]


@samples_of(prelu)
def _prelu_samples() -> list[Sample]:
    def reference(np: Any, x: Any, weight: Any) -> Any:
        return np.where(x > 0, x, x * weight.reshape(-1, *[1] * (x.ndim - 2)))

    def single(np: Any, x: Any, weight: Any) -> Any:
        return np.where(x > 0, x, x * weight)

    bad = Sample(prelu, (Arg((2, 3)), Arg((2,))), error=ValueError, match="one per channel")
    return [
        Sample(prelu, (Arg((2, 3)), Arg((3,))), reference),
        Sample(prelu, (Arg((4, 3, 2, 5)), Arg((3,))), reference),
        Sample(prelu, (Arg((4, 3)), Arg((1,))), single),
        Sample(prelu, (Arg((6,)), Arg((1,))), single),
        Sample(prelu, (Arg((4, 3)), Arg(())), single),
        Sample(prelu, (Arg(()), Arg((1,))), lambda np, x, w: np.where(x > 0, x, x * w[0])),
        bad,
    ]


@samples_of(softplus)
def _softplus_samples() -> list[Sample]:
    steep = Sample(
        lambda x: softplus(x, 2.0, 3.0),
        (Arg((9,), low=-3, high=3),),
        lambda np, x: np.where(2 * x > 3, x, np.logaddexp(0, 2 * x) / 2),
        ulps=3,
    )
    plain = unary(softplus, lambda np, x: np.logaddexp(0, x), low=-6, high=6, ulps=2, few=True)
    return [*plain, steep]


@samples_of(hardtanh)
def _hardtanh_samples() -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:
        return np.clip(x, -0.5, 1.5)

    moved = Sample(lambda x: hardtanh(x, -0.5, 1.5), (Arg((9,)),), reference)
    return [*unary(hardtanh, lambda np, x: np.clip(x, -1, 1), few=True), moved]


unary_samples_of(silu, lambda np, x: x / (1 + np.exp(-x)), ulps=3, special=False)
unary_samples_of(mish, lambda np, x: x * np.tanh(np.logaddexp(0, x)), ulps=4, special=False)
unary_samples_of(elu, _expm1_below(1.0), ulps=1.5)
unary_samples_of(
    selu, lambda np, x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x)), ulps=3
)
unary_samples_of(celu, _expm1_below(1.0), ulps=1.5)
unary_samples_of(tanhshrink, lambda np, x: x - np.tanh(x), relative=3e-7, special=False)
unary_samples_of(relu6, lambda np, x: np.where(x <= 0, 0, np.minimum(x, 6)), low=-3, high=9)
unary_samples_of(leaky_relu, lambda np, x: np.where(x > 0, x, 0.01 * x), ulps=1)
unary_samples_of(
    hardsigmoid, lambda np, x: np.clip(x / 6 + 0.5, 0, 1), relative=3e-7, special=False
)
unary_samples_of(
    hardswish, lambda np, x: x * np.clip(x + 3, 0, 6) / 6, low=-5, high=5, ulps=3, special=False
)
unary_samples_of(hardshrink, lambda np, x: np.where(np.abs(x) <= 0.5, 0, x))
unary_samples_of(
    softshrink,
    lambda np, x: np.where(x > 0.5, x - 0.5, np.where(x < -0.5, x + 0.5, np.where(x == x, 0, x))),
)
unary_samples_of(softsign, lambda np, x: x / (1 + np.abs(x)), ulps=1, special=False)


@samples_of(threshold)
def _threshold_samples() -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:
        return np.where(x <= 0.5, -7.0, x)

    return unary(lambda x: threshold(x, 0.5, -7.0), reference, few=True)


@samples_of(glu)
def _glu_samples() -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:
        a, b = np.split(x, 2, -1)
        return a / (1 + np.exp(-b))

    good = formula(glu, reference, Arg((3, 4)), relative=2e-6)
    return [good, Sample(glu, (Arg((2, 3)),), error=ValueError, match="no halves")]
