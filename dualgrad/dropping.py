"""Dropout and its relatives: elements or whole channels left out by chance.

N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops import random as ops
from dualgrad.compiler.ops.activation import leaky_relu
from dualgrad.random import Generator, probability, uniform, words_for
from dualgrad.runtime.errors import ShapeError
from dualgrad.tensor import Tensor


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    """x with elements set to 0 with probability p, the others divided by 1 - p.

    x itself unless `training`.
    """
    p = probability("dropout", p)
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0.0
    out: Tensor = ops.dropout(x, *words_for(generator, 1, x.shape, x.device), p)
    return out


def _features(
    op: str,
    unit: Callable[..., Any],
    axes: dict[int, int] | None,
    x: Tensor,
    p: float,
    training: bool,
    generator: Generator | None,
) -> Tensor:
    """x with elements left out together that share the first axes: how many, by x's dimensions."""
    p = probability(op, p)
    if axes is not None and x.ndim not in axes:
        raise ShapeError(
            "input has a wrong number of dimensions",
            op=op,
            expect=f"{' or '.join(map(str, axes))} dimensions",
            actual=dim_text(x.shape),
            hint="add missing dimensions with unsqueeze; dropout takes any shape",
        )
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0.0
    drawn = x.ndim if axes is None else axes[x.ndim]
    out: Tensor = unit(x, *words_for(generator, 1, x.shape[:drawn], x.device), p, axes=drawn)
    return out


def dropout1d(
    x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    """x [N, C, L] or [C, L] with channels set to 0 with probability p; see `dropout`."""
    axes = {2: 1, 3: 2}
    return _features("dropout1d", ops.feature_dropout, axes, x, p, training, generator)


def dropout2d(
    x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    """x [N, C, H, W] with channels set to 0 with probability p; see `dropout`.

    Three dimensions are taken for [N, C, L], as in PyTorch.
    """
    axes = {3: 2, 4: 2}
    return _features("dropout2d", ops.feature_dropout, axes, x, p, training, generator)


def dropout3d(
    x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    """x [N, C, D, H, W] or [C, D, H, W] with channels set to 0 with probability p; see
    `dropout`."""
    axes = {4: 1, 5: 2}
    return _features("dropout3d", ops.feature_dropout, axes, x, p, training, generator)


def alpha_dropout(
    x: Tensor, p: float = 0.5, training: bool = False, generator: Generator | None = None
) -> Tensor:
    """x with elements set to SELU's lowest value with probability p, then all scaled and shifted
    so that mean 0 and variance 1 stay.

    x itself unless `training`; zeros for p = 1.
    """
    return _features("alpha_dropout", ops.alpha_dropout, None, x, p, training, generator)


def feature_alpha_dropout(
    x: Tensor, p: float = 0.5, training: bool = False, generator: Generator | None = None
) -> Tensor:
    """`alpha_dropout` of the channels of x [N, C, ...]."""
    op, axes = "feature_alpha_dropout", dict.fromkeys(range(2, 7), 2)
    return _features(op, ops.alpha_dropout, axes, x, p, training, generator)


def rrelu(
    x: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """x where x > 0, else x times a slope: uniform in [lower, upper) for each element while
    `training`, else their mean."""
    if not training:
        return leaky_relu(x, (lower + upper) / 2)  # type: ignore[no-any-return]
    slope = uniform(x.shape, lower, upper, x.dtype, generator, x.device)
    return leaky_relu(x, slope)  # type: ignore[no-any-return]
