"""Interpolation: an input at other sizes of its spatial axes, and channels turned into space.

Element o of the result lies at (o + 1/2) * scale - 1/2 of the input, scale being the size of the
input over that of the result (or 1 / scale_factor, where that is given); with `align_corners`
at o * (n - 1) / (m - 1).  Axes are interpolated one after another, the last one first.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim, product, same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
)
from dualgrad.compiler.ops.arguments import check_choice
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import Iota, count
from dualgrad.compiler.ops.elementwise import copy, to
from dualgrad.compiler.ops.gather import take
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.rounding import floor
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.runtime.dtype import DEFAULT_FLOAT, DType, int64
from dualgrad.runtime.errors import ArgumentError, ShapeError

MODES = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic", "area")
LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
CUBIC = -0.75  # the parameter of the cubic kernel, as in PyTorch
AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


def _scale(n: Dim, m: Dim, factor: float | None, dtype: DType) -> Any:
    """How far neighbours of the result lie apart in the input."""
    if factor is not None:
        return 1.0 / factor
    return count(n, dtype) / count(m, dtype)


def _places(n: Dim, m: Dim, factor: float | None, corners: bool, dtype: DType) -> Any:
    """Where the elements of the result lie in the input."""
    each = to(Iota.of((m,), 0).on(), dtype)
    if corners:
        return each * (count(n - 1, dtype) / (count(m, dtype) - 1.0).maximum(1.0))
    return (each + 0.5) * _scale(n, m, factor, dtype) - 0.5


def _nearest(x: Any, axis: int, m: Dim, factor: float | None, exact: bool) -> Any:
    n = x.shape[axis]
    if factor is None and not exact:
        positions = (Iota.of((m,), 0).on() * count(n, int64)) // count(m, int64)
    else:
        dtype = x.dtype if x.dtype.is_float else DEFAULT_FLOAT
        each = to(Iota.of((m,), 0).on(), dtype) + (0.5 if exact else 0.0)
        positions = to(floor(each * _scale(n, m, factor, dtype)), int64)
    return take(x, positions.minimum(count(n, int64) - 1), axis)


def _repeated(x: Any, axis: int, times: Dim) -> Any:
    """Each element `times` times along an axis."""
    before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    full = x.reshape((*before, n, 1, *after)).expand((*before, n, times, *after))
    return full.reshape((*before, n * times, *after))


def _weighted(x: Any, axis: int, taps: list[tuple[Any, Any]]) -> Any:
    """The sum over taps (positions, weights) of x at positions times weights."""
    shape = tuple(taps[0][1].shape[0] if k == axis else 1 for k in range(x.ndim))
    last = count(x.shape[axis], int64) - 1
    total: Any = None
    for positions, weight in taps:
        inside = to(positions, int64).maximum(0).minimum(last)
        term = take(x, inside, axis) * weight.reshape(shape)
        total = term if total is None else total + term
    return total


def _linear(x: Any, axis: int, m: Dim, factor: float | None, corners: bool) -> Any:
    place = _places(x.shape[axis], m, factor, corners, x.dtype).maximum(0.0)
    below = floor(place)
    share = place - below
    return _weighted(x, axis, [(below, 1.0 - share), (below + 1.0, share)])


def _cubic(x: Any, axis: int, m: Dim, factor: float | None, corners: bool) -> Any:
    place = _places(x.shape[axis], m, factor, corners, x.dtype)
    below = floor(place)
    t = place - below

    def near(d: Any) -> Any:  # for distances up to 1
        return ((CUBIC + 2.0) * d - (CUBIC + 3.0)) * d * d + 1.0

    def far(d: Any) -> Any:  # up to 2
        return ((CUBIC * d - 5.0 * CUBIC) * d + 8.0 * CUBIC) * d - 4.0 * CUBIC

    weights = (far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t))
    return _weighted(x, axis, [(below + (k - 1.0), w) for k, w in enumerate(weights)])


Factors = tuple[float, ...] | None


@composite
@single
def _interpolate(
    x: Any, *, size: tuple[Dim, ...], factors: Factors, mode: str, corners: bool
) -> Any:
    for k in reversed(range(len(size))):
        axis, m = 2 + k, size[k]
        factor = None if factors is None else factors[k]
        if mode.startswith("nearest"):
            x = _nearest(x, axis, m, factor, mode == "nearest-exact")
        elif mode == "bicubic":
            x = _cubic(x, axis, m, factor, corners)
        else:
            x = _linear(x, axis, m, factor, corners)
    return x


@composite
@single
def _enlarged(x: Any, *, times: tuple[int, ...]) -> Any:
    for k, m in enumerate(times):
        x = _repeated(x, 2 + k, m)
    return copy(x)


def _check_mode(input: Any, mode: str, align_corners: Any, antialias: bool) -> int:
    """The number of spatial axes."""
    op = "interpolate"
    check_choice(op, "mode", mode, MODES)
    rank = int(input.ndim) - 2
    if rank not in (1, 2, 3) or LINEAR.get(mode, rank) != rank:
        raise ShapeError(
            "the mode does not fit the input",
            op=op,
            expect="input [N, C, L] for linear, [N, C, H, W] for bilinear and bicubic, "
            "[N, C, D, H, W] for trilinear",
            actual=f"mode={mode!r}, input {dim_text(input.shape)}",
            hint="add missing dimensions with unsqueeze, for the batch and for the channels",
        )
    if align_corners is not None and mode not in LINEAR:
        raise ArgumentError(
            "corners are aligned by linear and cubic modes only",
            op=op,
            expect="align_corners=None",
            actual=f"mode={mode!r}, align_corners={align_corners}",
            hint="leave align_corners out, or choose mode='bilinear'",
        )
    if antialias:
        raise ArgumentError(
            "there is no smoothing filter",
            op=op,
            expect="antialias=False",
            actual="True",
            hint="leave antialias out",
        )
    return rank


def _target(input: Any, rank: int, size: Any, scale_factor: Any) -> tuple[Any, Factors]:
    """The sizes of the result, and the scale factors that were given."""
    given = size if size is not None else scale_factor
    listed = tuple(given) if isinstance(given, (tuple, list)) else (given,) * rank
    if (size is None) == (scale_factor is None) or len(listed) != rank:
        raise ArgumentError(
            "sizes or scale factors do not fit",
            op="interpolate",
            expect=f"either size or scale_factor, one number or {rank}",
            actual=f"size={size}, scale_factor={scale_factor}",
            hint="give one of them, for the axes behind the channels",
        )
    if size is None:
        exact = [float(f).as_integer_ratio() for f in listed]
        pairs = zip(input.shape[2:], exact, strict=True)
        target = tuple((n * p) // q for n, (p, q) in pairs)
        factors: Factors = tuple(float(f) for f in listed)
    else:
        target, factors = listed, None
    if any(isinstance(n, int) and n < 1 for n in (*target, *input.shape[2:])):
        raise ShapeError(
            "sizes are positive",
            op="interpolate",
            expect="at least 1 along each axis",
            actual=f"input {dim_text(input.shape)}, result {dim_text(target)}",
            hint="make the scale factor larger",
        )
    return target, factors


def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Return input [N, C, L1, ...] interpolated at other sizes.

    Either `size` (an int or one per axis) or `scale_factor` (the size is rounded down).  Modes:
    "nearest" (of positions o * scale, rounded down), "nearest-exact" (o + 1/2), "linear" for one
    axis, "bilinear" for two, "trilinear" for three, "bicubic", "area" (`adaptive_avg_pool`).
    Positions outside count as the edge.  `recompute_scale_factor` takes the scale from the sizes.
    """
    check_tensors("interpolate", input)
    rank = _check_mode(input, mode, align_corners, antialias)
    target, factors = _target(input, rank, size, scale_factor)
    if recompute_scale_factor and size is not None:
        raise ArgumentError(
            "there is no scale factor",
            op="interpolate",
            expect="scale_factor",
            actual="size",
            hint="give scale_factor= in place of size=",
        )
    if recompute_scale_factor:
        factors = None
    if mode == "area":
        return AREA[rank](input, target)
    if mode == "nearest" and factors is not None and all(f >= 1 and f % 1 == 0 for f in factors):
        return _enlarged(input, times=tuple(int(f) for f in factors))
    return _interpolate(input, size=target, factors=factors, mode=mode, corners=bool(align_corners))


# -- channels and space ---------------------------------------------------------------------------


def _check_factor(op: str, factor: Any) -> int:
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise ArgumentError(
            "no such factor",
            op=op,
            expect="an int >= 1",
            actual=repr(factor),
            hint="give the factor by which height and width change",
        )
    return factor


def _check_blocks(op: str, x: Any, fits: bool, expect: str, factor: int) -> None:
    if not fits:
        raise ShapeError(
            "sizes do not fit the factor",
            op=op,
            expect=expect,
            actual=f"{dim_text(x.shape)}, factor {factor}",
            hint="choose a factor that divides the sizes",
        )


@composite
def _pixel_shuffle(x: Any, *, r: int) -> Any:
    *lead, c, h, w = x.shape
    k = len(lead)
    blocks = x.reshape((*lead, c // (r * r), r, r, h, w))
    order = (*range(k), k, k + 3, k + 1, k + 4, k + 2)
    return copy(blocks.permute(order)).reshape((*lead, c // (r * r), h * r, w * r))


def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """Return [..., C, H * r, W * r] of input [..., C * r**2, H, W]: channel c * r**2 + i * r + j
    becomes row i, column j of the r x r block of each pixel."""
    check_tensors("pixel_shuffle", input)
    r = _check_factor("pixel_shuffle", upscale_factor)
    fits = input.ndim >= 3 and same(input.shape[-3] % (r * r), 0)
    _check_blocks("pixel_shuffle", input, fits, "[..., C * r**2, H, W]", r)
    return _pixel_shuffle(input, r=r)


@composite
def _pixel_unshuffle(x: Any, *, r: int) -> Any:
    *lead, c, h, w = x.shape
    k = len(lead)
    blocks = x.reshape((*lead, c, h // r, r, w // r, r))
    order = (*range(k), k, k + 2, k + 4, k + 1, k + 3)
    return copy(blocks.permute(order)).reshape((*lead, c * r * r, h // r, w // r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """Return [..., C * r**2, H, W] of input [..., C, H * r, W * r]; undoes `pixel_shuffle`."""
    check_tensors("pixel_unshuffle", input)
    r = _check_factor("pixel_unshuffle", downscale_factor)
    fits = input.ndim >= 3 and all(same(n % r, 0) for n in input.shape[-2:])
    _check_blocks("pixel_unshuffle", input, fits, "[..., C, H * r, W * r]", r)
    return _pixel_unshuffle(input, r=r)


@composite
def _channel_shuffle(x: Any, *, groups: int) -> Any:
    n, c, *space = x.shape
    parts = x.reshape((n, groups, c // groups, product(space)))
    return copy(parts.transpose(1, 2)).reshape(x.shape)


def channel_shuffle(input: Any, groups: int) -> Any:
    """Return input [N, C, ...] with the channels of its groups taken in turn."""
    check_tensors("channel_shuffle", input)
    groups = _check_factor("channel_shuffle", groups)
    fits = input.ndim >= 3 and same(input.shape[1] % groups, 0)
    _check_blocks("channel_shuffle", input, fits, "[N, a multiple of groups, ...]", groups)
    return _channel_shuffle(input, groups=groups)


# -- samples --------------------------------------------------------------------------------------


def _np_linear(np: Any, x: Any, axis: int, m: int, corners: bool) -> Any:
    n = x.shape[axis]
    places = np.linspace(0, n - 1, m) if corners else (np.arange(m) + 0.5) * n / m - 0.5
    return np.apply_along_axis(lambda row: np.interp(places, np.arange(n), row), axis, x)


@samples_of(interpolate)
def _interpolate_samples() -> list[Sample]:
    def linear(corners: bool) -> Sample:
        return formula(
            lambda x: interpolate(x, 5, mode="linear", align_corners=corners),
            lambda np, x: _np_linear(np, x, 2, 5, corners),
            Arg((2, 1, 3)),
        )

    def nearest(np: Any, x: Any) -> Any:
        return x[:, :, np.arange(5) * 2 // 5][..., np.arange(2) * 3 // 2]

    def bilinear(np: Any, x: Any) -> Any:
        return _np_linear(np, _np_linear(np, x, 2, 3, False), 3, 4, False)

    image = Arg((1, 2, 2, 3))
    return [
        Sample(lambda x: interpolate(x, (5, 2)), (image,), nearest),
        Sample(
            lambda x: interpolate(x, scale_factor=2),
            (image,),
            lambda np, x: x.repeat(2, 2).repeat(2, 3),
        ),
        linear(False),
        linear(True),
        formula(lambda x: interpolate(x, (3, 4), mode="bilinear"), bilinear, image),
        Sample(
            lambda x: interpolate(x, 5, mode="bilinear"),
            (Arg((2, 1, 3)),),
            error=ValueError,
            match="interpolate",
        ),
    ]


@samples_of(pixel_shuffle)
def _pixel_shuffle_samples() -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:
        out = np.empty((1, 4, 6), x.dtype)
        for i, j in np.ndindex(2, 2):
            out[0, i::2, j::2] = x[2 * i + j]
        return out

    bad = Sample(
        lambda x: pixel_shuffle(x, 2), (Arg((3, 2, 2)),), error=ValueError, match="pixel_shuffle"
    )
    return [Sample(lambda x: pixel_shuffle(x, 2), (Arg((4, 2, 3)),), reference), bad]


@samples_of(pixel_unshuffle)
def _pixel_unshuffle_samples() -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:
        return np.concatenate([x[:, i::2, j::2] for i in range(2) for j in range(2)])

    bad = Sample(
        lambda x: pixel_unshuffle(x, 2),
        (Arg((1, 3, 2)),),
        error=ValueError,
        match="pixel_unshuffle",
    )
    return [Sample(lambda x: pixel_unshuffle(x, 2), (Arg((1, 4, 6)),), reference), bad]


@samples_of(channel_shuffle)
def _channel_shuffle_samples() -> list[Sample]:
    bad = Sample(
        lambda x: channel_shuffle(x, 4),
        (Arg((2, 6, 2)),),
        error=ValueError,
        match="channel_shuffle",
    )
    good = Sample(
        lambda x: channel_shuffle(x, 3),
        (Arg((2, 6, 2)),),
        lambda np, x: x[:, [0, 2, 4, 1, 3, 5]],
    )
    return [good, bad]
