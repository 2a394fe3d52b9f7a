"""Pairs of features turned by an angle each."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.joining import cat, stack
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.compiler.ops.slicing import narrow, select


@composite
def _rotated(x: Any, cos: Any, sin: Any, *, interleaved: bool) -> Any:
    half = cos.shape[-1]
    if interleaved:
        pairs = x.reshape((*x.shape[:-1], half, 2))
        a, b = select(pairs, -1, 0), select(pairs, -1, 1)
        return stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)
    a, b = narrow(x, -1, 0, half), narrow(x, -1, half, half)
    return cat([a * cos - b * sin, a * sin + b * cos], -1)


def rotated(x: Any, cos: Any, sin: Any, *, interleaved: bool) -> Any:
    """Return x [..., D] with each pair of features (a, b) as (a cos - b sin, a sin + b cos).

    cos and sin [..., D / 2] broadcast.  Pairs are neighbours, or lie D / 2 apart unless
    `interleaved`.
    """
    return _rotated(x, cos, sin, interleaved=interleaved)


@samples_of(rotated)
def _rotated_samples() -> list[Sample]:
    def reference(np: Any, x: Any, cos: Any, sin: Any, steps: slice, others: slice) -> Any:
        out = np.empty_like(x)
        a, b = x[..., steps], x[..., others]
        out[..., steps] = a * cos - b * sin
        out[..., others] = a * sin + b * cos
        return out

    def case(interleaved: bool, steps: slice, others: slice) -> Sample:
        return formula(
            lambda x, cos, sin: rotated(x, cos, sin, interleaved=interleaved),
            lambda np, x, cos, sin: reference(np, x, cos, sin, steps, others),
            Arg((2, 3, 6)),
            Arg((3, 3)),
            Arg((3, 3)),
        )

    return [
        case(True, slice(None, None, 2), slice(1, None, 2)),
        case(False, slice(3), slice(3, None)),
    ]
