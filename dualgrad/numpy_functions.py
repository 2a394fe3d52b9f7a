"""NumPy's functions on tensors: `np.exp(t)`, `np.sum(t, axis=0)`, `array * t`.

Where dualgrad has the function, under the same name and with the arguments given, it is called and
the result is a tensor.  Else NumPy itself is called, on arrays of the values.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from dualgrad.tensor import Tensor

# Operators of Python: an array on the left of a tensor asks for one of these.
_OPERATORS = {
    np.add: "add", np.subtract: "sub", np.multiply: "mul", np.divide: "truediv",
    np.floor_divide: "floordiv", np.remainder: "mod", np.power: "pow", np.matmul: "matmul",
    np.bitwise_and: "and", np.bitwise_or: "or", np.bitwise_xor: "xor",
    np.left_shift: "lshift", np.right_shift: "rshift",
}  # fmt: skip
_COMPARISONS = {
    np.equal: "__eq__", np.not_equal: "__ne__", np.less: "__gt__", np.less_equal: "__ge__",
    np.greater: "__lt__", np.greater_equal: "__le__",
}  # fmt: skip
_UFUNCS = frozenset(
    {
        "absolute", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
        "bitwise_invert", "ceil", "copysign", "cos", "cosh", "deg2rad", "exp", "exp2",
        "expm1", "floor", "fmax", "fmin", "heaviside", "hypot", "invert", "isfinite", "isinf",
        "isnan", "log", "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not",
        "logical_or", "logical_xor", "maximum", "minimum", "negative", "positive", "rad2deg",
        "reciprocal", "rint", "sign", "signbit", "sin", "sinh", "sqrt", "square", "tan", "tanh",
        "trunc",
    }
)  # fmt: skip
_REDUCTIONS = (
    "all", "any", "amax", "amin", "max", "min", "argmax", "argmin", "count_nonzero",
    "mean", "prod", "sum", "nansum", "nanmax", "nanmin", "nanmean",
)  # fmt: skip
_REDUCED = {"a": "x", "axis": "axis", "keepdims": "keepdims"}
# Of NumPy's functions: its names of the arguments that dualgrad takes, and dualgrad's.
_FUNCTIONS: dict[str, dict[str, str]] = {
    **dict.fromkeys(_REDUCTIONS, _REDUCED),
    **{name: {"arrays": "tensors", "axis": "axis"} for name in ("concatenate", "stack")},
    **{name: {"tup": "tensors"} for name in ("hstack", "vstack")},
    **{name: {"a": "x", "axis": "axis"} for name in ("cumsum", "cumprod")},
    **{name: {"m": "x", "k": "k"} for name in ("tril", "triu")},
    **{name: {"a": "a", "b": "b"} for name in ("dot", "inner", "kron", "outer")},
    "broadcast_to": {"array": "x", "shape": "shape"},
    "clip": {"a": "x", "a_min": "min", "a_max": "max", "min": "min", "max": "max"},
    "diagonal": {"a": "x", "offset": "offset", "axis1": "axis1", "axis2": "axis2"},
    "expand_dims": {"a": "x", "axis": "axis"},
    "flip": {"m": "x", "axis": "axis"},
    "moveaxis": {"a": "x", "source": "source", "destination": "destination"},
    "ravel": {"a": "x"},
    "reshape": {"a": "x", "shape": "shape"},
    "roll": {"a": "x", "shift": "shifts", "axis": "axis"},
    "squeeze": {"a": "x", "axis": "axis"},
    "swapaxes": {"a": "x", "axis1": "a", "axis2": "b"},
    "take_along_axis": {"arr": "x", "indices": "indices", "axis": "axis"},
    "tensordot": {"a": "a", "b": "b", "axes": "axes"},
    "trace": {"a": "x", "offset": "offset", "axis1": "axis1", "axis2": "axis2"},
    "where": {"condition": "condition", "x": "x", "y": "y"},
    "zeros_like": {"a": "x"},
    "ones_like": {"a": "x"},
}  # fmt: skip
_VARIADIC = frozenset({"shape"})  # arguments that dualgrad takes as any number of positional ones


def _own(name: str) -> Callable[..., Any]:
    return getattr(sys.modules["dualgrad"], name)  # type: ignore[no-any-return]


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    if method == "__call__" and not options:
        left, *rest = inputs
        name = _OPERATORS.get(ufunc)
        if name is not None and isinstance(left, Tensor):
            return getattr(left, f"__{name}__")(*rest)
        if name == "matmul":
            return _own(name)(_tensors(left), *rest)
        if name is not None:
            return getattr(rest[0], f"__r{name}__")(left)
        if ufunc in _COMPARISONS and not isinstance(left, Tensor):
            return getattr(rest[0], _COMPARISONS[ufunc])(left)
        if ufunc in _COMPARISONS or ufunc.__name__ in _UFUNCS:
            return _own(ufunc.__name__)(*inputs)
    if any(isinstance(x, Tensor) for x in options.get("out", ())):
        raise TypeError("return arrays must be of ArrayType")
    return getattr(ufunc, method)(*_arrays(inputs), **_arrays(options))


def _array_function(
    self: Tensor, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    name = function.__name__
    names = _FUNCTIONS.get(name)
    if names is not None and function is getattr(np, name, None):
        given = _signature(function).bind(*args, **kwargs).arguments
        if given.keys() <= names.keys():
            return _call(name, {names[k]: _tensors(v) for k, v in given.items()})
    return function(*_arrays(args), **_arrays(kwargs))


def _call(name: str, given: dict[str, Any]) -> Any:
    function = _own(name)
    for k in _VARIADIC & given.keys():
        return function(given["x"], given[k])
    return function(**given)


@cache
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


def _arrays(x: Any) -> Any:
    """The same with arrays in place of tensors."""
    if isinstance(x, Tensor):
        return x.__array__()
    if isinstance(x, list | tuple):
        return type(x)(map(_arrays, x))
    if isinstance(x, dict):
        return {k: _arrays(v) for k, v in x.items()}
    return x


def _tensors(x: Any) -> Any:
    """The same with tensors in place of arrays."""
    if isinstance(x, np.ndarray):
        return _own("asarray")(x)
    return type(x)(map(_tensors, x)) if type(x) in (list, tuple) else x


Tensor.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
Tensor.__array_function__ = _array_function  # type: ignore[attr-defined]
