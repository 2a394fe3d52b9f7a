"""Convolution, pooling, interpolation and shuffles against loops, PyTorch, and differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from functions import (
    F,
    Function,
    check_gradients,
    check_modes,
    check_reference,
    check_torch,
)
from support import as_array, both, same_bits, tensors_in

import dualgrad as dg
from dualgrad import functional as nf
from dualgrad.compiler.ops.sample import Arg
from dualgrad.runtime.dtype import DType, float32, float64
from dualgrad.runtime.errors import ArgumentError, ShapeError


def function(
    name: str, args: tuple[Arg, ...], reference: Any, *rest: Any, **options: Any
) -> Function:
    """A function of `args` and then `rest`, the same in PyTorch."""
    given = ", ".join([*map(str, rest), *(f"{k}={v}" for k, v in options.items())])

    def whole(np: Any, *xs: Any) -> Any:
        if xs[0].ndim == spatial(name) + 1:
            return reference(xs[0][None], *xs[1:], *rest, **options)[0]
        return reference(*xs, *rest, **options)

    return Function(
        f"{name} {tuple(a.shape for a in args)} {given}",
        lambda *xs: getattr(nf, name)(*xs, *rest, **options),
        args,
        whole,
        lambda t, *xs: getattr(t.nn.functional, name)(*xs, *rest, **options),
    )


def spatial(name: str) -> int:
    """How many spatial axes a function has; those of any number take batches only."""
    if name[-1] == "d" and name[-2].isdigit():
        return int(name[-2])
    return 2 if name == "unfold" else -1


def each(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) * rank


# -- convolution, by loops over all products ------------------------------------------------------


def conv(
    x: Any,
    w: Any,
    b: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    rank = w.ndim - 2
    s, d = each(stride, rank), each(dilation, rank)
    spans = [d[a] * (w.shape[2 + a] - 1) for a in range(rank)]
    if padding == "same":
        pads = [(n // 2, n - n // 2) for n in spans]
    else:
        pads = [(p, p) for p in each(0 if padding == "valid" else padding, rank)]
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    counts = [(x.shape[2 + a] - spans[a] - 1) // s[a] + 1 for a in range(rank)]
    out = np.zeros((x.shape[0], w.shape[0], *counts))
    depth, share = w.shape[1], w.shape[0] // groups
    for o, c, *k in np.ndindex(w.shape):
        part = tuple(
            slice(k[a] * d[a], k[a] * d[a] + s[a] * (counts[a] - 1) + 1, s[a]) for a in range(rank)
        )
        out[:, o] += w[(o, c, *k)] * x[(slice(None), o // share * depth + c, *part)]
    return out if b is None else out + b.reshape((1, -1, *(1,) * rank))


def conv_transpose(
    x: Any, w: Any, b: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    rank = w.ndim - 2
    s, p, d, more = (each(v, rank) for v in (stride, padding, dilation, output_padding))
    sizes = [
        (x.shape[2 + a] - 1) * s[a] + d[a] * (w.shape[2 + a] - 1) + 1 + more[a] for a in range(rank)
    ]
    depth, share = w.shape[1], w.shape[0] // groups
    out = np.zeros((x.shape[0], depth * groups, *sizes))
    for i, o, *k in np.ndindex(w.shape):
        part = tuple(
            slice(k[a] * d[a], k[a] * d[a] + s[a] * (x.shape[2 + a] - 1) + 1, s[a])
            for a in range(rank)
        )
        out[(slice(None), i // share * depth + o, *part)] += w[(i, o, *k)] * x[:, i]
    out = out[(..., *(slice(p[a], sizes[a] - p[a]) for a in range(rank)))]
    return out if b is None else out + b.reshape((1, -1, *(1,) * rank))


def unfold(x: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Column by column, as the convolution with kernels of a single 1."""
    k = each(kernel, 2)
    n, c = x.shape[:2]
    rows = []
    for channel, i, j in itertools.product(range(c), range(k[0]), range(k[1])):
        one = np.zeros((1, 1, *k))
        one[0, 0, i, j] = 1
        rows.append(
            conv(x[:, channel : channel + 1], one, None, stride, padding, dilation).reshape(n, -1)
        )
    return np.stack(rows, 1)


CONVOLUTIONS = (
    function("conv1d", (F(2, 3, 9), F(4, 3, 3), F(4)), conv),
    function("conv1d", (F(3, 9), F(4, 3, 2)), conv, stride=2, padding=1),
    function("conv1d", (F(2, 4, 11), F(6, 2, 3)), conv, dilation=2, groups=2, padding="same"),
    function("conv2d", (F(2, 3, 6, 7), F(4, 3, 3, 2), F(4)), conv),
    function("conv2d", (F(2, 3, 6, 7), F(4, 3, 3, 3), F(4)), conv, padding=1),
    function("conv2d", (F(2, 3, 8, 7), F(4, 3, 2, 3)), conv, stride=(2, 1), padding=(0, 2)),
    function("conv2d", (F(2, 3, 9, 9), F(4, 3, 3, 3)), conv, dilation=(2, 3), padding="valid"),
    function("conv2d", (F(2, 3, 6, 6), F(4, 3, 2, 4)), conv, padding="same", dilation=(1, 2)),
    function("conv2d", (F(2, 4, 5, 5), F(6, 2, 3, 3), F(6)), conv, groups=2, padding=1),
    function("conv2d", (F(2, 4, 5, 5), F(8, 1, 3, 3), F(8)), conv, groups=4, padding=1),
    function("conv2d", (F(2, 4, 5, 5), F(1, 4, 3, 3)), conv),
    function("conv2d", (F(3, 5, 5), F(4, 3, 3, 3)), conv),
    function("conv2d", (F(2, 3, 5, 4), F(4, 3, 5, 4), F(4)), conv),
    function("conv2d", (F(2, 8, 3, 3), F(5, 8, 1, 1), F(5)), conv),
    function("conv3d", (F(1, 2, 4, 5, 4), F(3, 2, 2, 3, 2), F(3)), conv, padding=1, stride=(1, 2, 1)),
    function("conv_transpose1d", (F(2, 3, 5), F(3, 4, 3), F(4)), conv_transpose, stride=2),
    function("conv_transpose2d", (F(2, 3, 4, 3), F(3, 4, 3, 2), F(4)), conv_transpose),
    function("conv_transpose2d", (F(2, 4, 3, 4), F(4, 2, 3, 3), F(4)), conv_transpose,
             stride=(2, 3), padding=1, output_padding=(1, 0), groups=2),
    function("conv_transpose2d", (F(3, 4, 3), F(3, 2, 2, 2)), conv_transpose, dilation=2, padding=1),
    function("conv_transpose3d", (F(1, 2, 2, 3, 2), F(2, 2, 2, 2, 3)), conv_transpose, stride=2),
    function("unfold", (F(2, 3, 5, 6),), unfold, (2, 3)),
    function("unfold", (F(2, 3, 7, 6),), unfold, 3, 2, (1, 2), (2, 1)),
    function("unfold", (F(3, 4, 4),), unfold, 2),
)  # fmt: skip


# -- pooling, window by window --------------------------------------------------------------------


def starts(n: int, k: int, s: int, p: int, d: int, ceil: bool) -> Iterator[int]:
    """Where windows begin; in ceil mode also those that end outside, but begin inside."""
    start = -p
    while start + d * (k - 1) < n + p or (
        ceil and start < n and start - s + d * (k - 1) < n + p - 1
    ):
        yield start
        start += s


def pool(
    x: Any,
    best: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Any:
    """best(elements inside, number of places inside the padding) of each window."""
    rank = x.ndim - 2
    k, p, d = (each(v, rank) for v in (kernel, padding, dilation))
    s = each(kernel if stride is None else stride, rank)
    begins = [list(starts(x.shape[2 + a], k[a], s[a], p[a], d[a], ceil)) for a in range(rank)]
    out = np.zeros((*x.shape[:2], *map(len, begins)))
    for at in np.ndindex(*map(len, begins)):
        places = [[begins[a][at[a]] + d[a] * i for i in range(k[a])] for a in range(rank)]
        inside = [[i for i in v if 0 <= i < x.shape[2 + a]] for a, v in enumerate(places)]
        padded = [[i for i in v if i < x.shape[2 + a] + p[a]] for a, v in enumerate(places)]
        window = x[:, :, *np.ix_(*inside)].reshape(*x.shape[:2], -1)
        out[(slice(None), slice(None), *at)] = best(window, math.prod(map(len, padded)))
    return out


def max_pool(
    x: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    return pool(x, lambda v, _: v.max(-1), kernel, stride, padding, dilation, ceil_mode)


def avg_pool(
    x: Any, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: Any = None,
) -> Any:  # fmt: skip
    def mean(v: Any, places: int) -> Any:
        own = places if count_include_pad else v.shape[-1]
        return v.sum(-1) / (divisor_override or own)

    return pool(x, mean, kernel, stride, padding, 1, ceil_mode)


def lp_pool(x: Any, p: float, kernel: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
    return pool(x, lambda v, _: (v**p).sum(-1) ** (1 / p), kernel, stride, 0, 1, ceil_mode)


def adaptive(best: Any) -> Callable[..., Any]:
    def reference(x: Any, size: Any) -> Any:
        rank = x.ndim - 2
        named = each(size, rank)
        m = [x.shape[2 + a] if named[a] is None else named[a] for a in range(rank)]
        out = np.zeros((*x.shape[:2], *m))
        for at in np.ndindex(*m):
            part = [
                slice(at[a] * x.shape[2 + a] // m[a], -(-(at[a] + 1) * x.shape[2 + a] // m[a]))
                for a in range(rank)
            ]
            out[(..., *at)] = best(x[(..., *part)].reshape(*x.shape[:2], -1), -1)
        return out

    return reference


POOLS = (
    function("max_pool1d", (F(2, 3, 9),), max_pool, 3),
    function("max_pool1d", (F(3, 9),), max_pool, 2, 3, 1),
    function("max_pool2d", (F(2, 3, 6, 8),), max_pool, 2),
    function("max_pool2d", (F(2, 3, 7, 8),), max_pool, 3, 2, 1),
    function("max_pool2d", (F(2, 3, 7, 8),), max_pool, (2, 3), (1, 2), (1, 0), (2, 1)),
    function("max_pool2d", (F(2, 3, 7, 8),), max_pool, 3, 2, ceil_mode=True),
    function("max_pool2d", (F(2, 3, 6, 9),), max_pool, 2, 3, 1, ceil_mode=True),
    function("max_pool2d", (F(3, 5, 5),), max_pool, 5),
    function("max_pool3d", (F(1, 2, 4, 4, 5),), max_pool, 2, 1, 1),
    function("avg_pool1d", (F(2, 3, 9),), avg_pool, 3, 2),
    function("avg_pool2d", (F(2, 3, 6, 8),), avg_pool, 2),
    function("avg_pool2d", (F(2, 3, 7, 8),), avg_pool, 3, 2, 1),
    function("avg_pool2d", (F(2, 3, 7, 8),), avg_pool, 3, 2, 1, count_include_pad=False),
    function("avg_pool2d", (F(2, 3, 8, 8),), avg_pool, (3, 2), 3, 1, ceil_mode=True),
    function("avg_pool2d", (F(2, 3, 8, 8),), avg_pool, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    function("avg_pool2d", (F(2, 3, 8, 8),), avg_pool, 3, divisor_override=5),
    function("avg_pool3d", (F(2, 4, 4, 5),), avg_pool, 2),
    function("lp_pool1d", (F(2, 3, 9, low=0.2),), lp_pool, 2, 3),
    function("lp_pool2d", (F(2, 3, 6, 7, low=0.2),), lp_pool, 3.0, (2, 3), 2),
    function("adaptive_max_pool1d", (F(2, 3, 10),), adaptive(np.max), 4),
    function("adaptive_max_pool2d", (F(2, 3, 7, 8),), adaptive(np.max), (3, 4)),
    function("adaptive_max_pool2d", (F(3, 7, 8),), adaptive(np.max), (None, 3)),
    function("adaptive_avg_pool1d", (F(2, 3, 10),), adaptive(np.mean), 4),
    function("adaptive_avg_pool2d", (F(2, 3, 7, 8),), adaptive(np.mean), 1),
    function("adaptive_avg_pool2d", (F(2, 3, 7, 8),), adaptive(np.mean), (3, 5)),
    function("adaptive_avg_pool2d", (F(2, 3, 6, 8),), adaptive(np.mean), (3, 2)),
    function("adaptive_avg_pool2d", (F(2, 3, 3, 4),), adaptive(np.mean), (5, 6)),
    function("adaptive_avg_pool3d", (F(1, 2, 4, 5, 3),), adaptive(np.mean), (2, 3, 2)),
)  # fmt: skip


# -- interpolation, by a matrix per axis ----------------------------------------------------------


def kernel_of(mode: str) -> Callable[[float], float]:
    def cubic(d: float) -> float:
        a, d = -0.75, abs(d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    return cubic if mode == "bicubic" else lambda d: max(0.0, 1 - abs(d))


def matrix(n: int, m: int, factor: float | None, mode: str, corners: bool) -> Any:
    """The weights [m, n] of the input's elements in those of the result."""
    scale = n / m if factor is None else 1 / factor
    out = np.zeros((m, n))
    for o in range(m):
        if mode.startswith("nearest"):
            out[o, min(n - 1, math.floor((o + (mode != "nearest") / 2) * scale))] = 1
            continue
        place = o * (n - 1) / max(1, m - 1) if corners else (o + 0.5) * scale - 0.5
        place = place if mode == "bicubic" else max(0.0, place)
        for i in range(math.floor(place) - 2, math.floor(place) + 4):
            out[o, min(n - 1, max(0, i))] += kernel_of(mode)(place - i)
    return out


def interpolate(
    x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: Any = None, recompute_scale_factor: Any = None,
) -> Any:  # fmt: skip
    rank = x.ndim - 2
    factors = (None,) * rank if size is not None else each(scale_factor, rank)
    for a in range(rank):
        n = x.shape[2 + a]
        m = math.floor(n * factors[a]) if size is None else each(size, rank)[a]
        weights = matrix(
            n, m, None if recompute_scale_factor else factors[a], mode, bool(align_corners)
        )
        x = np.moveaxis(np.tensordot(weights, x, (1, 2 + a)), 0, 2 + a)
    return x


def bilinear(
    *rest: Any, shape: tuple[int, ...] = (2, 3, 4, 5), mode: str = "bilinear", **options: Any
) -> Function:
    return function("interpolate", (F(*shape),), interpolate, *rest, mode=mode, **options)


SPACES = (
    bilinear(7, shape=(2, 3, 4), mode="nearest"),
    bilinear((7, 3), mode="nearest"),
    bilinear(None, 2, mode="nearest"),
    bilinear(None, (1.5, 0.7), mode="nearest"),
    bilinear(None, (1.5, 0.7), mode="nearest", recompute_scale_factor=True),
    bilinear(None, 3, shape=(1, 2, 2, 3, 2), mode="nearest"),
    bilinear((7, 3), mode="nearest-exact"),
    bilinear(9, shape=(2, 3, 4), mode="linear"),
    bilinear(9, shape=(2, 3, 4), mode="linear", align_corners=True),
    bilinear((7, 8)),
    bilinear((3, 2)),
    bilinear((7, 8), align_corners=True),
    bilinear((1, 8), align_corners=True),
    bilinear(None, 2),
    bilinear(None, (1.7, 2.3)),
    bilinear((3, 4, 5), shape=(1, 2, 2, 3, 4), mode="trilinear"),
    bilinear((7, 8), mode="bicubic"),
    bilinear(None, 1.6, mode="bicubic"),
    bilinear((3, 9), mode="bicubic", align_corners=True),
    function("interpolate", (F(2, 3, 7, 8),),
             lambda x, size, mode: adaptive(np.mean)(x, size), (3, 5), mode="area"),
    function("pixel_shuffle", (F(2, 8, 2, 3),), lambda x, r: x.reshape(2, 2, 2, 2, 2, 3)
             .transpose(0, 1, 4, 2, 5, 3).reshape(2, 2, 4, 6), 2),
    function("pixel_unshuffle", (F(2, 3, 4, 6),), lambda x, r: np.stack(
        [x[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], 1), 2),
    function("channel_shuffle", (F(2, 6, 3, 1),), lambda x, g: x[:, [0, 2, 4, 1, 3, 5]], 3),
)  # fmt: skip

CASES = (*CONVOLUTIONS, *POOLS, *SPACES)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_reference(case: Function, dtype: DType) -> None:
    check_reference(case, dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_modes(case: Function) -> None:
    check_modes(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case: Function) -> None:
    check_gradients(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch(case: Function) -> None:
    check_torch(case, float64)


# -- corners --------------------------------------------------------------------------------------


def test_fold_undoes_unfold() -> None:
    x = dg.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 6, 7)))
    options: Any = ((2, 3), 1, 1, (2, 1))
    once = nf.fold(nf.unfold(x, *options), (6, 7), *options)
    times = nf.fold(nf.unfold(dg.ones_like(x), *options), (6, 7), *options)
    np.testing.assert_allclose(as_array(once / times), as_array(x), rtol=1e-14)


def test_fold_is_the_adjoint_of_unfold() -> None:
    rng = np.random.default_rng(2)
    x = dg.from_numpy(rng.standard_normal((2, 5, 6))).requires_grad_()
    y = dg.from_numpy(rng.standard_normal((12, 16))).requires_grad_()
    (nf.unfold(x, (2, 3)) * y).sum().backward()
    np.testing.assert_allclose(as_array(nf.fold(y, (5, 6), (2, 3))), as_array(x.grad), rtol=1e-14)
    np.testing.assert_array_equal(as_array(y.grad), as_array(nf.unfold(x, (2, 3))))
    y.grad = None
    (nf.fold(y, (5, 6), (2, 3)) * x).sum().backward()
    np.testing.assert_array_equal(as_array(y.grad), as_array(nf.unfold(x, (2, 3))))


def test_transposed_convolution_is_the_adjoint_of_convolution() -> None:
    rng = np.random.default_rng(3)
    w = dg.from_numpy(rng.standard_normal((4, 3, 3, 2)))
    x = dg.from_numpy(rng.standard_normal((2, 3, 7, 8))).requires_grad_()
    y = nf.conv2d(x, w, stride=2, padding=1)
    g = dg.from_numpy(rng.standard_normal(y.shape))
    y.backward(g)
    back = nf.conv_transpose2d(g, w, stride=2, padding=1, output_padding=(0, 0))
    found = as_array(x.grad)[:, :, : back.shape[2], : back.shape[3]]
    np.testing.assert_allclose(as_array(back), found, rtol=1e-12, atol=1e-14)


def test_ties_give_the_gradient_to_the_first() -> None:
    x = dg.ones(1, 1, 4, 4, requires_grad=True)
    nf.max_pool2d(x, 2).sum().backward()
    want = np.zeros((4, 4), np.float32)
    want[::2, ::2] = 1
    np.testing.assert_array_equal(as_array(x.grad)[0, 0], want)


def test_places_of_largest_elements() -> None:
    x = np.array([[5, 1, 1, 9], [0, 2, 9, 3], [7, 7, 0, 0], [0, 0, 0, -1]], np.float32)
    out, places = nf.max_pool2d(dg.tensor(x[None, None]), 2, return_indices=True)
    np.testing.assert_array_equal(as_array(out)[0, 0], [[5, 9], [7, 0]])
    np.testing.assert_array_equal(as_array(places)[0, 0], [[0, 3], [8, 10]])
    out, places = nf.max_pool2d(dg.tensor(x[None]), 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(as_array(out), x.flat[as_array(places)])
    out, places = nf.adaptive_max_pool2d(dg.tensor(x[None]), (3, 3), return_indices=True)
    np.testing.assert_array_equal(as_array(out), x.flat[as_array(places)])
    assert places.dtype is dg.int64


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize(("channels", "groups"), [(2, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_second_gradients_of_both_operands(
    name: str, channels: int, groups: int, stride: int
) -> None:
    """The gradients of input and kernel share windows, whatever the sizes are called."""

    def step(x: dg.Tensor, w: dg.Tensor) -> tuple[dg.Tensor, ...]:
        leaves = [t.detach().requires_grad_() for t in (x, w)]
        y = getattr(nf, name)(*leaves, stride=stride, padding=1, groups=groups)
        first = dg.autograd.grad((y * y).sum(), leaves, create_graph=True)
        return (*first, *dg.autograd.grad(sum((g * g).sum() for g in first), leaves))

    def make() -> tuple[dg.Tensor, ...]:
        rng = np.random.default_rng(0)
        shapes = (2, channels, 6, 5), (channels, channels // groups, 3, 3)
        return tuple(dg.tensor(rng.standard_normal(s).astype(np.float32)) for s in shapes)

    for x, y in zip(*both(step, make), strict=True):
        same_bits(y, x)


@pytest.mark.parametrize(
    ("k", "stride", "padding", "dilation"), [(2, 2, 1, 1), (3, 2, 1, 2), (5, 2, 2, 1)]
)
def test_places_where_all_is_as_low_as_padding(
    k: int, stride: int, padding: int, dilation: int
) -> None:
    """The first place of the window that is not padding, in windows of few and of many places."""
    x = dg.full((1, 7, 6), -math.inf)
    _, places = nf.max_pool2d(x, k, stride, padding, dilation, return_indices=True)

    def first(n: int, count: int) -> list[int]:
        steps = (range(w * stride - padding, n, dilation) for w in range(count))
        return [next(at for at in step if at >= 0) for step in steps]

    rows, columns = (first(n, m) for n, m in zip((7, 6), places.shape[1:], strict=True))
    want = [[6 * i + j for j in columns] for i in rows]
    np.testing.assert_array_equal(as_array(places)[0], want)


@pytest.mark.parametrize(
    ("k", "stride", "padding", "dilation"), [(2, 2, 1, 1), (3, 2, 1, 2), (3, 1, 1, 1), (5, 2, 2, 1)]
)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_gradients_where_all_is_as_low_as_padding(
    k: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> None:
    """No window loses its gradient to the padding, in whatever modes."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x = np.where(rng.random((2, 3, 9, 8)) < 0.9, -math.inf, 1.0)
    options = (k, stride, padding, dilation, ceil_mode)
    leaf = torch.tensor(x, requires_grad=True)
    want, places = torch.nn.functional.max_pool2d(leaf, *options, return_indices=True)
    g = rng.integers(1, 100, want.shape).astype(float)
    want.backward(torch.tensor(g))

    def step(x: Any, g: Any) -> tuple[Any, ...]:
        x = x.detach().requires_grad_()
        out, at = nf.max_pool2d(x, *options, return_indices=True)
        out.backward(g)
        return out, at, x.grad

    for f in (step, dg.function(step, strict=True)):
        for got, right in zip(
            f(dg.tensor(x), dg.tensor(g)), (want, places, leaf.grad), strict=True
        ):
            np.testing.assert_array_equal(as_array(got), right.detach().numpy())


def test_of_several_nans_the_first_counts() -> None:
    """As `argmax` has it, in windows of few and of many places."""
    for size in (3, 40):
        x = dg.tensor(np.where(np.arange(size) > 0, math.nan, 1.0)[None, None]).requires_grad_()
        out, places = nf.max_pool1d(x, size, return_indices=True)
        out.sum().backward()
        assert as_array(places).item() == np.argmax(as_array(x)) == 1
        np.testing.assert_array_equal(as_array(x.grad)[0, 0], np.arange(size) == 1)


def test_nan_wins_and_padding_never_does() -> None:
    x = dg.tensor(np.array([[[-3.0, math.nan, -5.0, -4.0]]]))
    np.testing.assert_array_equal(as_array(nf.max_pool1d(x, 2, 2))[0, 0], [math.nan, -4])
    low = dg.tensor(np.array([[[-3.0, -2.0]]]))
    np.testing.assert_array_equal(as_array(nf.max_pool1d(low, 2, 1, 1))[0, 0], [-3, -2, -2])


def test_integers() -> None:
    x = dg.tensor(np.arange(16).reshape(1, 1, 4, 4))
    np.testing.assert_array_equal(as_array(nf.max_pool2d(x, 3, 1, 1))[0, 0, 0], [5, 6, 7, 7])
    assert nf.max_pool2d(x, 2).dtype is dg.int64
    assert nf.avg_pool2d(x, 2).dtype is float32
    w = dg.tensor(np.ones((1, 1, 2, 2), np.int64))
    np.testing.assert_array_equal(as_array(nf.conv2d(x, w))[0, 0, 0], [10, 14, 18])


def test_sizes_that_change() -> None:
    def step(x: dg.Tensor, w: dg.Tensor) -> Any:
        y = nf.max_pool2d(nf.conv2d(x, w, padding=1).relu(), 2, ceil_mode=True)
        z = nf.interpolate(nf.adaptive_avg_pool2d(y, (2, 3)), scale_factor=1.5, mode="bilinear")
        z.sum().backward()
        return y.detach(), x.grad

    compiled = dg.function(step, strict=True)
    rng = np.random.default_rng(4)
    w = dg.tensor(rng.standard_normal((4, 3, 3, 3)).astype(np.float32))
    for n, h, width in ((2, 8, 8), (3, 7, 9), (2, 10, 6), (1, 9, 12), (5, 8, 7)):
        x = rng.standard_normal((n, 3, h, width)).astype(np.float32)
        found, want = (f(dg.tensor(x, requires_grad=True), w) for f in (compiled, step))
        for one, two in zip(tensors_in(found), tensors_in(want), strict=True):
            same_bits(one, two)


def test_layouts_give_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 6, 7, 8)), rng.standard_normal((4, 6, 3, 3))
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    want = nf.conv2d(dg.from_numpy(x), dg.from_numpy(w))
    same_bits(nf.conv2d(dg.from_numpy(last), dg.from_numpy(w)), want)
    eager, static = both(
        lambda a, b: nf.conv2d(a, b), lambda: (dg.from_numpy(last), dg.from_numpy(w))
    )
    same_bits(static, eager)
    same_bits(eager, want)


def test_threads_give_the_same_bits() -> None:
    rng = np.random.default_rng(6)
    x = dg.tensor(rng.standard_normal((3, 16, 20, 20)).astype(np.float32))
    w = dg.tensor(rng.standard_normal((32, 16, 3, 3)).astype(np.float32))
    results = []
    for count in (1, 2):
        dg.set_num_threads(count)
        results.append(nf.conv2d(x, w, padding=1))
    same_bits(*results)


x48 = dg.ones(2, 4, 8, 8)
w33 = dg.ones(6, 4, 3, 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nf.conv2d(dg.ones(8, 8), w33), ShapeError, r"\[N, C, H, W\] or \[C, H, W\]"),
        (lambda: nf.conv2d(x48, dg.ones(6, 3, 3, 3)), ShapeError, "input and weight do not fit"),
        (lambda: nf.conv2d(x48, w33, groups=2), ShapeError, "input and weight do not fit"),
        (lambda: nf.conv2d(x48, w33, groups=0), ArgumentError, "groups >= 1"),
        (lambda: nf.conv2d(x48, w33, dg.ones(4)), ShapeError, "bias has another shape"),
        (lambda: nf.conv2d(x48, w33, stride=0), ArgumentError, "stride does not fit"),
        (lambda: nf.conv2d(x48, w33, padding=(1, 2, 3)), ArgumentError, "padding does not fit"),
        (lambda: nf.conv2d(x48, w33, padding="full"), ArgumentError, "padding does not fit"),
        (lambda: nf.conv2d(x48, w33, padding="same", stride=2), ArgumentError, "no meaning with strides"),
        (lambda: nf.conv2d(x48, w33, dilation=4), ShapeError, "a window does not fit"),
        (lambda: nf.conv_transpose2d(x48, w33), ShapeError, "input and weight do not fit"),
        (lambda: nf.conv_transpose2d(x48, dg.ones(4, 2, 3, 3), output_padding=1), ArgumentError, "too large"),
        (lambda: nf.conv_transpose2d(x48, dg.ones(4, 2, 3, 3), padding=5), ShapeError, "nothing is left"),
        (lambda: nf.fold(dg.ones(2, 8, 5), 4, 2), ShapeError, "a multiple of 4, 9"),
        (lambda: nf.max_pool2d(x48, 2, padding=2), ArgumentError, "at most half"),
        (lambda: nf.max_pool2d(x48, 9), ShapeError, "larger than the padded input"),
        (lambda: nf.avg_pool2d(x48, 2, divisor_override=0), ArgumentError, "divide by 0"),
        (lambda: nf.lp_pool2d(x48, 0, 2), ArgumentError, "no such norm"),
        (lambda: nf.adaptive_avg_pool2d(x48, (1, 2, 3)), ArgumentError, "output_size does not fit"),
        (lambda: nf.adaptive_avg_pool2d(dg.ones(1, 2, 0, 3), 1), ShapeError, "nothing to share"),
        (lambda: nf.interpolate(x48), ArgumentError, "either size or scale_factor"),
        (lambda: nf.interpolate(x48, 4, 2), ArgumentError, "either size or scale_factor"),
        (lambda: nf.interpolate(x48, 4, mode="linear"), ShapeError, "mode does not fit"),
        (lambda: nf.interpolate(x48, 4, mode="cubic"), ArgumentError, "no such mode"),
        (lambda: nf.interpolate(x48, 4, align_corners=True), ArgumentError, "corners are aligned"),
        (lambda: nf.interpolate(x48, scale_factor=0.01), ShapeError, "sizes are positive"),
        (lambda: nf.interpolate(x48, 4, mode="bilinear", antialias=True), ArgumentError, "no smoothing"),
        (lambda: nf.pixel_shuffle(x48, 3), ShapeError, "sizes do not fit the factor"),
        (lambda: nf.pixel_unshuffle(x48, 0), ArgumentError, "no such factor"),
        (lambda: nf.channel_shuffle(x48, 3), ShapeError, "a multiple of groups"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call()
    assert "test_neural_windows.py" in str(caught.value)
