"""Discrete Fourier transforms.

There are no complex tensors: a complex number is a pair (real, imaginary), a complex tensor of
shape S a real one of shape [*S, 2].  Axes are those of S.

Transforms are linear, so gradients are transforms again: with F the forward transform of length
n, the adjoint of F is n times the inverse one, and the adjoint of cutting or padding to n is
padding or cutting back.  Of a real transform's half spectrum every element but the first and, for
even n, the last stands for two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arguments import as_float
from dualgrad.compiler.ops.base import LAST, LAST_TWO, axis_argument, normalize_axis
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import Iota
from dualgrad.compiler.ops.joining import roll, stack
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.linalg_base import as_floats, case, refused
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.padding import pad
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, samples_of
from dualgrad.compiler.ops.slicing import select
from dualgrad.runtime.errors import ArgumentError, ShapeError

ADJOINT = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _resized(shape: tuple[Dim, ...], axis: int, size: Dim) -> tuple[Dim, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


class Fft(Library):
    """The transform (0) or its inverse (1) of pairs along an axis, cut or padded with zeros to
    `size` before (0) or after (1) it."""

    axis: int
    size: Dim
    inverse: int
    norm: str
    after: int
    checked = False
    routine = "fft"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(_resized(types[0].shape, self.axis, self.size))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        norm = ADJOINT[self.norm]
        op = Fft.of(self.axis, x.shape[self.axis], 1 - self.inverse, norm, 1 - self.after)
        return (op.on(g),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(name: str, shape: tuple[int, ...], **more: Any) -> Sample:
            return transform_case(fft if name == "fft" else ifft, name, shape, **more)

        return [
            good("fft", (8, 2)),
            good("ifft", (7, 2)),
            good("fft", (3, 5, 2), axis=0, norm="ortho"),
            good("fft", (2, 5, 2), n=3, norm="forward"),
            good("ifft", (5, 2), n=8),
            good("ifft", (2, 4, 2), axis=0, n=3, norm="forward"),
            good("fft", (0, 4, 2)),
            good("fft", (1, 2)),
            refused(fft, r"\[fft\] takes pairs", (4, 3)),
            refused(lambda x: fft(x, norm="no"), "no such norm", (4, 2)),
            refused(lambda x: fft(x, n=0), "a transform needs elements", (4, 2)),
        ]


class Rfft(Library):
    """Pairs of the first half of the spectrum of reals, which are cut or padded to n first; then
    the inner pairs doubled (1) and the result cut or padded to `size`."""

    axis: int
    n: Dim
    size: Dim
    norm: str
    doubled: int
    checked = False
    routine = "rfft"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape((*_resized(types[0].shape, self.axis, self.size), 2))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        norm = ADJOINT[self.norm]
        return (Irfft.of(self.axis, self.n, x.shape[self.axis], norm, 1 - self.doubled).on(g),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(shape: tuple[int, ...], **more: Any) -> Sample:
            return transform_case(rfft, "rfft", shape, real=True, **more)

        return [
            good((8,)),
            good((7,), norm="ortho"),
            good((3, 4), axis=0, norm="forward"),
            good((2, 5), n=3),
            good((2, 5), n=8, layout="transposed"),
            good((1,)),
            refused(lambda x: rfft(x, axis=1), "axis out of range", (4,)),
        ]


class Irfft(Library):
    """n reals from pairs of the first half of their spectrum, which is cut or padded, its inner
    pairs halved (1); then the result cut or padded to `size`."""

    axis: int
    n: Dim
    size: Dim
    norm: str
    halved: int
    checked = False
    routine = "irfft"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(_resized(types[0].shape[:-1], self.axis, self.size))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        norm = ADJOINT[self.norm]
        return (Rfft.of(self.axis, self.n, x.shape[self.axis], norm, 1 - self.halved).on(g),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(shape: tuple[int, ...], **more: Any) -> Sample:
            return transform_case(irfft, "irfft", shape, back=True, **more)

        return [
            good((5, 2)),
            good((5, 2), n=9, norm="ortho"),
            good((3, 4, 2), axis=0, norm="forward"),
            good((2, 5, 2), n=5),
            good((2, 3, 2), n=9),
            good((2, 3, 2), n=1),
            refused(irfft, "takes pairs", (5,)),
        ]


# -- functions ------------------------------------------------------------------------------------


@composite
@single
def _fftn(
    x: Any, *, axes: tuple[int, ...], sizes: tuple[Dim, ...], inverse: bool, norm: str
) -> Any:
    (x,) = as_floats("fft", x)
    for axis, size in reversed(list(zip(axes, sizes, strict=True))):
        x = Fft.of(axis, size, int(inverse), norm, 0).on(x)
    return x


@composite
@single
def _rfftn(x: Any, *, axes: tuple[int, ...], sizes: tuple[Dim, ...], norm: str) -> Any:
    (x,) = as_floats("rfft", x)
    n = sizes[-1]
    x = Rfft.of(axes[-1], n, n // 2 + 1, norm, 0).on(x)
    for axis, size in reversed(list(zip(axes[:-1], sizes[:-1], strict=True))):
        x = Fft.of(axis, size, 0, norm, 0).on(x)
    return x


@composite
@single
def _irfftn(x: Any, *, axes: tuple[int, ...], sizes: tuple[Dim, ...], norm: str) -> Any:
    (x,) = as_floats("irfft", x)
    for axis, size in zip(axes[:-1], sizes[:-1], strict=True):
        x = Fft.of(axis, size, 1, norm, 0).on(x)
    return Irfft.of(axes[-1], sizes[-1], sizes[-1], norm, 0).on(x)


@composite
def _conj(x: Any) -> Any:
    return where(Iota.of(x.shape, x.ndim - 1).on().eq(1), -x, x)


def need_pairs(op: str, x: Any) -> None:
    """Refuse what is no tensor of (real, imaginary) pairs."""
    check_tensors(op, x)
    if x.ndim < 1 or x.shape[-1] != 2:
        raise ShapeError(
            "takes pairs (real, imaginary)",
            op=op,
            expect="[..., 2]",
            actual=dim_text(x.shape),
            why="there are no complex tensors; the parts of a number stand side by side",
            hint="use rfft for a real tensor, or dg.fft.as_pairs(x)",
        )


def _check_norm(op: str, norm: str | None) -> str:
    if norm is None:
        return "backward"
    if norm not in ADJOINT:
        raise ArgumentError(
            "no such norm",
            op=op,
            expect=" or ".join(map(repr, ADJOINT)),
            actual=repr(norm),
            hint="leave norm out for 'backward'",
        )
    return norm


def _plan(
    op: str, shape: tuple[Dim, ...], s: Any, axes: Any, half: bool = False
) -> tuple[tuple[int, ...], tuple[Dim, ...]]:
    """Axes and lengths of the transforms; `half`: the last of `shape` is of a half spectrum."""
    s, axes = ((v,) if isinstance(v, int) else v for v in (s, axes))
    if axes is None:
        count = len(shape) if s is None else len(s)
        axes = range(len(shape) - count, len(shape))
    axes = tuple(normalize_axis(op, a, len(shape)) for a in axes)
    given = (None,) * len(axes) if s is None else tuple(s)
    if len(given) != len(axes) or len(set(axes)) != len(axes) or not axes:
        raise ArgumentError(
            "one length per axis, and each axis once",
            op=op,
            actual=f"s={s}, axes={axes}",
            hint="give s and axes equal lengths, or one of them",
        )
    sizes = [shape[a] if n in (None, -1) else n for a, n in zip(axes, given, strict=True)]
    if half and given[-1] in (None, -1):
        sizes[-1] = 2 * (shape[axes[-1]] - 1)
    if any(isinstance(n, int) and n < 1 for n in sizes):
        raise ShapeError(
            "a transform needs elements",
            op=op,
            expect="lengths of 1 or more",
            actual=f"{sizes}",
            hint="leave n out for the size of the axis",
        )
    return axes, tuple(sizes)


def _one(n: Any) -> Any:
    return None if n is None else (n,)


def _complex(op: str, x: Any, s: Any, axes: Any, norm: Any, inverse: bool) -> Any:
    need_pairs(op, x)
    places, sizes = _plan(op, x.shape[:-1], s, axes)
    return _fftn(x, axes=places, sizes=sizes, inverse=inverse, norm=_check_norm(op, norm))


def _half(op: str, x: Any, s: Any, axes: Any, norm: Any) -> Any:
    check_tensors(op, x)
    places, sizes = _plan(op, x.shape, s, axes)
    return _rfftn(x, axes=places, sizes=sizes, norm=_check_norm(op, norm))


def _from_half(op: str, x: Any, s: Any, axes: Any, norm: Any) -> Any:
    need_pairs(op, x)
    places, sizes = _plan(op, x.shape[:-1], s, axes, half=True)
    return _irfftn(x, axes=places, sizes=sizes, norm=_check_norm(op, norm))


def fft(x: Any, n: Any = None, axis: int = LAST, norm: str | None = None, **dim: Any) -> Any:
    """Return the transform of pairs x [..., m, ..., 2] along `axis`: [..., n, ..., 2].

    x is cut or padded with zeros to n (None: m).  norm "backward": unscaled, "forward": divided
    by n, "ortho": by sqrt(n).
    """
    return _complex("fft", x, _one(n), (axis_argument("fft", axis, dim),), norm, False)


def ifft(x: Any, n: Any = None, axis: int = LAST, norm: str | None = None, **dim: Any) -> Any:
    """Return the inverse of `fft`; norm "backward": divided by n, "forward": unscaled."""
    return _complex("ifft", x, _one(n), (axis_argument("fft", axis, dim),), norm, True)


def fftn(x: Any, s: Any = None, axes: Any = None, norm: str | None = None, **dim: Any) -> Any:
    """Return the transform of pairs x [..., 2] along several axes (None: all, or the last
    len(s)), of lengths s; see `fft`."""
    return _complex("fftn", x, s, axis_argument("fft", axes, dim), norm, False)


def ifftn(x: Any, s: Any = None, axes: Any = None, norm: str | None = None, **dim: Any) -> Any:
    """Return the inverse of `fftn`."""
    return _complex("ifftn", x, s, axis_argument("fft", axes, dim), norm, True)


def fft2(x: Any, s: Any = None, axes: Any = LAST_TWO, norm: str | None = None, **dim: Any) -> Any:
    """Return `fftn` along two axes."""
    return _complex("fft2", x, s, axis_argument("fft", axes, dim), norm, False)


def ifft2(x: Any, s: Any = None, axes: Any = LAST_TWO, norm: str | None = None, **dim: Any) -> Any:
    """Return `ifftn` along two axes."""
    return _complex("ifft2", x, s, axis_argument("fft", axes, dim), norm, True)


def rfft(x: Any, n: Any = None, axis: int = LAST, norm: str | None = None, **dim: Any) -> Any:
    """Return the first half of the spectrum of real x [..., m, ...]: [..., n // 2 + 1, ..., 2].

    The other half is its conjugate.  See `fft` for n and norm.
    """
    return _half("rfft", x, _one(n), (axis_argument("fft", axis, dim),), norm)


def irfft(x: Any, n: Any = None, axis: int = LAST, norm: str | None = None, **dim: Any) -> Any:
    """Return the n reals whose half spectrum is x [..., m, ..., 2]: [..., n, ...].

    n is 2 * (m - 1) unless it is given: an odd length must be.  The imaginary parts of the first
    and, for even n, the last element count as zero.
    """
    return _from_half("irfft", x, _one(n), (axis_argument("fft", axis, dim),), norm)


def rfftn(x: Any, s: Any = None, axes: Any = None, norm: str | None = None, **dim: Any) -> Any:
    """Return the transform of a real tensor along several axes; of the last axis, half."""
    return _half("rfftn", x, s, axis_argument("fft", axes, dim), norm)


def irfftn(x: Any, s: Any = None, axes: Any = None, norm: str | None = None, **dim: Any) -> Any:
    """Return the inverse of `rfftn`, a real tensor; see `irfft` for the last length."""
    return _from_half("irfftn", x, s, axis_argument("fft", axes, dim), norm)


def rfft2(x: Any, s: Any = None, axes: Any = LAST_TWO, norm: str | None = None, **dim: Any) -> Any:
    """Return `rfftn` along two axes."""
    return _half("rfft2", x, s, axis_argument("fft", axes, dim), norm)


def irfft2(x: Any, s: Any = None, axes: Any = LAST_TWO, norm: str | None = None, **dim: Any) -> Any:
    """Return `irfftn` along two axes."""
    return _from_half("irfft2", x, s, axis_argument("fft", axes, dim), norm)


def hfft(x: Any, n: Any = None, axis: int = LAST, norm: str | None = None, **dim: Any) -> Any:
    """Return the real spectrum [..., n, ...] of a signal whose first half is x [..., m, ..., 2],
    the other half being its conjugate."""
    need_pairs("hfft", x)
    norm = ADJOINT[_check_norm("hfft", norm)]
    return irfft(_conj(as_float(x)), n, axis_argument("fft", axis, dim), norm)


def ihfft(x: Any, n: Any = None, axis: int = LAST, norm: str | None = None, **dim: Any) -> Any:
    """Return the inverse of `hfft`: half of a signal, as pairs, from its real spectrum."""
    norm = ADJOINT[_check_norm("ihfft", norm)]
    return _conj(rfft(x, n, axis_argument("fft", axis, dim), norm))


def as_pairs(re: Any, im: Any = None) -> Any:
    """Return real and imaginary parts [...] (None: zeros) as pairs [..., 2]."""
    return pad(re.unsqueeze(-1), (0, 1)) if im is None else stack([re, im], -1)


def real(x: Any) -> Any:
    """Return the real parts [...] of pairs [..., 2], sharing memory."""
    need_pairs("real", x)
    return select(x, -1, 0)


def imag(x: Any) -> Any:
    """Return the imaginary parts [...] of pairs [..., 2], sharing memory."""
    need_pairs("imag", x)
    return select(x, -1, 1)


def conj(x: Any) -> Any:
    """Return the complex conjugates of pairs."""
    need_pairs("conj", x)
    return _conj(x)


@composite
def _multiply(x: Any, y: Any) -> Any:
    a, b, c, d = select(x, -1, 0), select(x, -1, 1), select(y, -1, 0), select(y, -1, 1)
    return stack([a * c - b * d, a * d + b * c], -1)


def multiply(x: Any, y: Any) -> Any:
    """Return the complex products of pairs, which broadcast."""
    need_pairs("multiply", x)
    need_pairs("multiply", y)
    return _multiply(x, y)


def _shifts(x: Any, axes: Any, dim: dict[str, Any], sign: int) -> tuple[list[Any], list[int]]:
    axes = axis_argument("fft", axes, dim)
    axes = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
    places = [normalize_axis("fftshift", a, x.ndim) for a in axes]
    return [x.shape[a] // 2 if sign > 0 else -(x.shape[a] // 2) for a in places], places


def fftshift(x: Any, axes: Any = None, **dim: Any) -> Any:
    """Return x rolled so that the element of frequency zero stands in the middle of `axes`.

    The axes are those of x itself (None: all), so name them where the last one holds pairs.
    """
    check_tensors("fftshift", x)
    shifts, places = _shifts(x, axes, dim, 1)
    return roll(x, tuple(shifts), tuple(places)) if places else x


def ifftshift(x: Any, axes: Any = None, **dim: Any) -> Any:
    """Return the inverse of `fftshift`."""
    check_tensors("ifftshift", x)
    shifts, places = _shifts(x, axes, dim, -1)
    return roll(x, tuple(shifts), tuple(places)) if places else x


# -- samples --------------------------------------------------------------------------------------


def transform_case(
    function: Callable[..., Any],
    name: str,
    shape: tuple[int, ...],
    real: bool = False,
    back: bool = False,
    layout: str = "contiguous",
    **how: Any,
) -> Sample:
    """A sample of a transform against NumPy's: of reals (`real`), to reals (`back`)."""

    def reference(np: Any, x: Any) -> Any:
        y = getattr(np.fft, name)(x if real else x[..., 0] + 1j * x[..., 1], **how)
        return y if back else np.stack([y.real, y.imag], -1)

    return case(lambda x: function(x, **how), reference, shape, relative=2e-6, layout=layout)


def _several(*cases: tuple[Any, str, tuple[int, ...], dict[str, Any]]) -> list[Sample]:
    return [
        transform_case(
            function,
            name,
            shape,
            real=name.startswith(("r", "ih")),
            back=name.startswith(("ir", "hf")),
            **how,
        )
        for function, name, shape, how in cases
    ]


@samples_of(fftn)
def _fftn_samples() -> list[Sample]:
    return [
        *_several(
            (fftn, "fftn", (3, 4, 2), {}),
            (ifftn, "ifftn", (3, 4, 2), {"norm": "ortho"}),
            (fftn, "fftn", (2, 3, 4, 2), {"axes": (2, 0), "s": (5, 2)}),
            (fft2, "fft2", (2, 3, 4, 2), {}),
            (ifft2, "ifft2", (2, 3, 4, 2), {"s": (4, 3)}),
        ),
        refused(lambda x: fftn(x, (2,), (0, 1)), "one length per axis", (3, 4, 2)),
    ]


@samples_of(rfftn)
def _rfftn_samples() -> list[Sample]:
    return _several(
        (rfftn, "rfftn", (3, 4), {}),
        (rfftn, "rfftn", (2, 3, 5), {"axes": (2, 0), "s": (3, 4), "norm": "forward"}),
        (rfft2, "rfft2", (2, 3, 4), {"norm": "ortho"}),
    )


@samples_of(irfftn)
def _irfftn_samples() -> list[Sample]:
    return _several(
        (irfftn, "irfftn", (3, 4, 2), {}),
        (irfftn, "irfftn", (2, 3, 5, 2), {"axes": (2, 0), "s": (3, 5), "norm": "forward"}),
        (irfft2, "irfft2", (2, 3, 4, 2), {"norm": "ortho"}),
    )


@samples_of(hfft)
def _hfft_samples() -> list[Sample]:
    return _several(
        (hfft, "hfft", (5, 2), {}),
        (hfft, "hfft", (2, 4, 2), {"n": 7, "norm": "ortho"}),
        (ihfft, "ihfft", (8,), {}),
        (ihfft, "ihfft", (3, 5), {"axis": 0, "norm": "forward"}),
    )


@samples_of(multiply)
def _multiply_samples() -> list[Sample]:
    def product(np: Any, x: Any, y: Any) -> Any:
        z = (x[..., 0] + 1j * x[..., 1]) * (y[..., 0] - 1j * y[..., 1])
        return np.stack([z.real, z.imag], -1)

    def rebuilt(np: Any, x: Any) -> Any:
        return x[..., ::-1] * np.array([1, -1])

    return [
        case(lambda x, y: multiply(x, conj(y)), product, (3, 4, 2), (4, 2)),
        case(lambda x: as_pairs(imag(x), -real(x)), rebuilt, (3, 2)),
        case(as_pairs, lambda np, x: np.stack([x, 0 * x], -1), (3,)),
    ]


@samples_of(fftshift)
def _fftshift_samples() -> list[Sample]:
    def good(function: Any, name: str, shape: tuple[int, ...], axes: Any = None) -> Sample:
        return case(
            lambda x: function(x, axes), lambda np, x: getattr(np.fft, name)(x, axes), shape
        )

    return [
        good(fftshift, "fftshift", (5,)),
        good(fftshift, "fftshift", (4, 3)),
        good(ifftshift, "ifftshift", (5, 4)),
        good(ifftshift, "ifftshift", (5, 4), 0),
        good(fftshift, "fftshift", (5, 4, 2), (0, 1)),
    ]


@samples_of(as_pairs)
def _as_pairs_samples() -> list[Sample]:
    x = Arg((2, 3))
    return [
        Sample(as_pairs, (x, x), lambda np, x, y: np.stack([x, y], -1)),
        *(
            Sample(as_pairs, (a,), lambda np, x: np.stack([x, np.zeros_like(x)], -1), gradient=g)
            for a, g in ((x, True), (Arg((10,), values=SPECIAL), False))
        ),
    ]


@samples_of(real)
def _real_samples() -> list[Sample]:
    good = Sample(real, (Arg((3, 2)),), lambda np, x: x[..., 0])
    return [good, refused(real, "takes pairs", (2, 3))]


@samples_of(imag)
def _imag_samples() -> list[Sample]:
    good = Sample(imag, (Arg((3, 2)),), lambda np, x: x[..., 1])
    return [good, refused(imag, "takes pairs", (2, 3))]


@samples_of(conj)
def _conj_samples() -> list[Sample]:
    good = Sample(conj, (Arg((3, 2)),), lambda np, x: np.stack([x[..., 0], -x[..., 1]], -1))
    return [good, refused(conj, "takes pairs", (2, 3))]
