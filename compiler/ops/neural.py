"""Composites for neural networks: relu, softmax, linear maps."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import product, same
from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.value import Value, dim_text, public
from dualgrad.compiler.ops.arguments import as_float, check_shape, equal, given
from dualgrad.compiler.ops.base import LAST, axis_argument, axis_of
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.elementwise import copy, stop_gradient
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import low, single
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of, unary
from dualgrad.runtime.errors import ShapeError


@composite
def _relu(x: Any) -> Any:
    return where((x > 0) | x.ne(x), x, 0)


@public("relu")
def relu(x: Any) -> Any:
    """Return x where x > 0, else 0; NaN stays.  The gradient at 0 is 0."""
    return _relu(x)


@samples_of(relu)
def _relu_samples() -> list[Sample]:
    return unary(relu, lambda np, x: np.maximum(x, 0), low=0.5)


@composite
@single
def _softmax(x: Any, *, axis: int) -> Any:
    x = as_float(x)
    if x.ndim and x.shape[axis] == 0:
        return copy(x)
    e = (x - stop_gradient(x.max(axis, keepdims=True))).exp()
    return e * (1.0 / e.sum(axis, keepdims=True))


@public("softmax")
def softmax(x: Any, axis: int = LAST, **dim: Any) -> Any:
    """Return exp(x - max x) times the reciprocal of its sum along `axis` (empty if that is)."""
    axis = axis_argument("softmax", axis, dim)
    try:
        rank = x.ndim
    except AttributeError:
        raise not_a_tensor("softmax", x) from None
    axis = axis_of("softmax", axis, rank)
    return _softmax(x, axis=axis)


@composite
@single
def _log_softmax(x: Any, *, axis: int) -> Any:
    x = as_float(x)
    if x.ndim and x.shape[axis] == 0:
        return copy(x)
    shifted = x - stop_gradient(x.max(axis, keepdims=True))
    return shifted - shifted.exp().sum(axis, keepdims=True).log()


@public("log_softmax")
def log_softmax(x: Any, axis: int = LAST, **dim: Any) -> Any:
    """Return x - max x - log(sum of exp(x - max x)) along `axis`."""
    axis = axis_argument("log_softmax", axis, dim)
    try:
        rank = x.ndim
    except AttributeError:
        raise not_a_tensor("log_softmax", x) from None
    axis = axis_of("log_softmax", axis, rank)
    return _log_softmax(x, axis=axis)


@composite
@single
def _softmin(x: Any, *, axis: int) -> Any:
    return softmax(-x, axis)


def softmin(input: Any, axis: int = LAST, **dim: Any) -> Any:
    """Return softmax(-input) along `axis` (also named `dim`)."""
    check_tensors("softmin", input)
    axis = axis_of("softmin", axis_argument("softmin", axis, dim), input.ndim)
    return _softmin(input, axis=axis)


@composite
@low
def _linear(x: Any, weight: Any, *bias: Any) -> Any:
    # all rows are one matrix: the gradient of the weight is one product, too
    rows = x.reshape((product(x.shape[:-1]), x.shape[-1])) if x.ndim > 2 else x
    y = matmul(rows, weight.transpose(0, 1)).reshape((*x.shape[:-1], weight.shape[0]))
    return y + bias[0] if bias else y


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """Return input @ weight.T + bias for input [..., in], weight [out, in], bias [out]."""
    try:
        ranks = weight.ndim, input.ndim
    except AttributeError:
        raise not_a_tensor("linear", weight if isinstance(input, Value) else input) from None
    if ranks[0] != 2 or ranks[1] == 0 or not same(input.shape[-1], weight.shape[1]):
        raise ShapeError(
            "input and weight do not fit",
            op="linear",
            expect="input [..., in] and weight [out, in]",
            actual=f"input {dim_text(input.shape)}, weight {dim_text(weight.shape)}",
            hint=f"the last size of the input must be {weight.shape[-1]}"
            if weight.ndim == 2
            else "give a weight of two dimensions",
        )
    check_shape("linear", "bias", bias, (weight.shape[0],))
    biases, _ = given(bias)
    return _linear(input, weight, *biases)


@composite
@low
def _bilinear(x: Any, y: Any, weight: Any, *bias: Any) -> Any:
    outputs, left, right = weight.shape
    rows, columns = x.reshape((-1, 1, left)), y.reshape((-1, right, 1))
    # [out, in1, in2] by [N, in2, 1] is [N, out, in1]; then every row with its own x
    partial = matmul(weight.reshape((1, outputs * left, right)), columns)
    products = partial.reshape((columns.shape[0], outputs, left)) * rows
    out = products.sum(-1).reshape((*x.shape[:-1], outputs))
    return out + bias[0] if bias else out


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """Return x A_k y + bias[k] for x = input1 [..., in1], y = input2 [..., in2], A = weight
    [out, in1, in2], bias [out]."""
    check_tensors("bilinear", input1, input2, weight)
    fits = weight.ndim == 3 and input1.ndim and input2.ndim
    fits = fits and equal(input1.shape[:-1], input2.shape[:-1])
    if not fits or not equal((input1.shape[-1], input2.shape[-1]), weight.shape[1:]):
        raise ShapeError(
            "inputs and weight do not fit",
            op="bilinear",
            expect="input1 [..., in1], input2 [..., in2] and weight [out, in1, in2]",
            actual=f"input1 {dim_text(input1.shape)}, input2 {dim_text(input2.shape)}, "
            f"weight {dim_text(weight.shape)}",
            hint="the inputs share all sizes but the last",
        )
    check_shape("bilinear", "bias", bias, (weight.shape[0],))
    biases, _ = given(bias)
    return _bilinear(input1, input2, weight, *biases)


def _np_softmax(np: Any, x: Any, axis: int) -> Any:
    e = np.exp(x)
    return e / e.sum(axis, keepdims=True)


def _along(function: Any, reference: Any) -> list[Sample]:
    """Samples of a function along an axis, and an axis that is refused."""
    good = [
        formula(lambda x, k=k: function(x, k), lambda np, x, k=k: reference(np, x, k), Arg((3, 5)))
        for k in (-1, 0)
    ]
    empty = formula(function, lambda np, x: x, Arg((3, 0)))
    bad = Sample(lambda x: function(x, 2), (Arg((3, 5)),), error=ValueError, match="out of range")
    return [*good, empty, bad]


@samples_of(softmax)
def _softmax_samples() -> list[Sample]:
    return _along(softmax, _np_softmax)


@samples_of(log_softmax)
def _log_softmax_samples() -> list[Sample]:
    return _along(log_softmax, lambda np, x, k: np.log(_np_softmax(np, x, k)))


@samples_of(softmin)
def _softmin_samples() -> list[Sample]:
    return _along(softmin, lambda np, x, k: _np_softmax(np, -x, k))


@samples_of(linear)
def _linear_samples() -> list[Sample]:
    x, w = Arg((4, 3)), Arg((2, 3))
    return [
        formula(linear, lambda np, x, w, b: x @ w.T + b, x, w, Arg((2,))),
        formula(linear, lambda np, x, w: x @ w.T, Arg((3,)), w),
        Sample(linear, (Arg((4, 2)), w), error=ValueError, match="do not fit"),
    ]


@samples_of(bilinear)
def _bilinear_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, a: Any, b: Any = 0.0) -> Any:
        return np.einsum("...i,kij,...j->...k", x, a, y) + b

    x, y, a = Arg((3, 2)), Arg((3, 4)), Arg((2, 2, 4))
    return [
        formula(bilinear, reference, x, y, a, Arg((2,))),
        formula(bilinear, reference, Arg((2,)), Arg((4,)), a),
        Sample(bilinear, (y, x, a), error=ValueError, match="do not fit"),
    ]
