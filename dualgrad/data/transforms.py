"""Transforms of samples and batches: plain functions from tensors or NumPy arrays to tensors.

Images are [..., c, h, w] or [h, w].  What is random is so for each image of a batch by itself,
and draws from `generator`, or else from the default stream: within a `DataLoader` that is the
stream of the batch, so that neither the number of workers nor a resumed run shows.

All work on tensors inside `@dg.function`, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgrad import functional
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.slicing import flip
from dualgrad.creation import from_numpy, tensor
from dualgrad.data.checks import whole
from dualgrad.random import Generator, rand, randint, randn
from dualgrad.ranges import arange
from dualgrad.runtime.dtype import as_dtype, float32
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError
from dualgrad.tensor import Tensor

Size = int | tuple[int, int]

__all__ = [
    "center_crop",
    "crop",
    "gaussian_noise",
    "hflip",
    "normalize",
    "one_hot",
    "random_crop",
    "random_hflip",
    "random_vflip",
    "to_float",
    "vflip",
]


def to_float(x: Any, dtype: Any = float32) -> Tensor:
    """Return `x` as floats: integers divided by the largest of their dtype, others as they are.

    uint8 pixels come to lie in 0..1.
    """
    values, wanted = _tensor(x), as_dtype(dtype)
    if not wanted.is_float:
        raise DTypeError(
            "no dtype of floats", op="to_float", expect="a float dtype", actual=wanted.name,
            hint="use x.to(dtype) for others",
        )  # fmt: skip
    out: Tensor = values.to(wanted)
    return out / int(np.iinfo(values.dtype.numpy).max) if values.dtype.is_int else out


def normalize(x: Any, mean: Any, std: Any, dim: int = -3) -> Tensor:
    """Return (x - mean) / std, with one mean and one std, or one of each along `dim`.

    x     floats
    mean  a number, or as many as `x` has along `dim`; as `std`, which is nowhere zero
    """
    values = _tensor(x)
    if not values.dtype.is_float:
        raise DTypeError(
            "integers cannot be normalized", op="normalize", expect="floats",
            actual=values.dtype.name, hint="use to_float(x) first",
        )  # fmt: skip
    if any(s == 0 for s in np.ravel(std.tolist() if isinstance(std, Tensor) else std)):
        raise ArgumentError(
            "std is zero", op="normalize", expect="numbers that are not", actual=str(std),
            hint="leave out what does not vary",
        )  # fmt: skip
    out: Tensor = (values - _along(values, "mean", mean, dim)) / _along(values, "std", std, dim)
    return out


def _along(x: Tensor, name: str, numbers: Any, dim: int) -> Any:
    if isinstance(numbers, int | float):
        return numbers
    found = (numbers if isinstance(numbers, Tensor) else tensor(numbers)).to(x.dtype)
    if not -x.ndim <= dim < x.ndim or found.ndim > 1 or found.numel() not in (1, x.shape[dim]):
        raise ShapeError(
            f"{name} does not fit", op="normalize", expect="a number, or one for each of `dim`",
            actual=f"{tuple(found.shape)} for dim {dim} of {tuple(x.shape)}",
            hint="give as many numbers as there are channels",
        )  # fmt: skip
    shape = [1] * x.ndim
    shape[dim] = found.numel()
    return found.reshape(*shape)


def one_hot(labels: Any, num_classes: int, dtype: Any = float32) -> Tensor:
    """Return [..., num_classes] with 1 at each label and 0 elsewhere."""
    whole("one_hot", "num_classes", num_classes, 1)
    out: Tensor = functional.one_hot(_tensor(labels), num_classes).to(as_dtype(dtype))
    return out


def hflip(x: Any) -> Tensor:
    """Return images with left and right exchanged."""
    out: Tensor = flip(_image("hflip", x), -1)
    return out


def vflip(x: Any) -> Tensor:
    """Return images with above and below exchanged."""
    out: Tensor = flip(_image("vflip", x), -2)
    return out


def random_hflip(x: Any, p: float = 0.5, generator: Generator | None = None) -> Tensor:
    """Return images, each with left and right exchanged with probability `p`."""
    return _random_flip("random_hflip", x, p, -1, generator)


def random_vflip(x: Any, p: float = 0.5, generator: Generator | None = None) -> Tensor:
    """Return images, each with above and below exchanged with probability `p`."""
    return _random_flip("random_vflip", x, p, -2, generator)


def _random_flip(op: str, x: Any, p: float, dim: int, generator: Generator | None) -> Tensor:
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ArgumentError(
            "no probability", op=op, expect="a number in 0..1", actual=repr(p), hint="give 0.5"
        )
    images = _image(op, x)
    each = (*images.shape[:-3], *(1,) * min(images.ndim, 3))
    out: Tensor = where(rand(*each, generator=generator) < p, flip(images, dim), images)
    return out


def crop(x: Any, top: int, left: int, height: int, width: int) -> Tensor:
    """Return the part of images that begins at (top, left)."""
    images = _image("crop", x)
    h, w = images.shape[-2:]
    for name, start, size, there in (("top", top, height, h), ("left", left, width, w)):
        whole("crop", name, start)
        _check_size("crop", start + whole("crop", "size", size, 1), there)
    out: Tensor = images[..., top : top + height, left : left + width]
    return out


def center_crop(x: Any, size: Size) -> Tensor:
    """Return the middle of images; `size` is (height, width), or one number for both."""
    images = _image("center_crop", x)
    height, width = _both("center_crop", size)
    h, w = images.shape[-2:]
    _check_size("center_crop", height, h)
    _check_size("center_crop", width, w)
    return crop(images, (h - height) // 2, (w - width) // 2, height, width)


def random_crop(
    x: Any, size: Size, padding: int = 0, fill: float = 0.0, generator: Generator | None = None
) -> Tensor:
    """Return a part of each image, of `size`, from anywhere in it.

    size     (height, width), or one number for both
    padding  pixels of `fill` that are added to each side first
    """
    op = "random_crop"
    images, (height, width) = _image(op, x), _both(op, size)
    if whole(op, "padding", padding):
        images = functional.pad(images, (padding,) * 4, value=fill)
    *before, h, w = images.shape
    _check_size(op, height, h)
    _check_size(op, width, w)
    flat = images.reshape(-1, 1 if images.ndim == 2 else images.shape[-3], h, w)
    n, c = flat.shape[:2]
    top = randint(0, h - height + 1, (n, 1, 1, 1), generator=generator)
    left = randint(0, w - width + 1, (n, 1, 1, 1), generator=generator)
    out: Tensor = flat[
        arange(n).reshape(-1, 1, 1, 1),
        arange(c).reshape(1, -1, 1, 1),
        top + arange(height).reshape(-1, 1),
        left + arange(width),
    ]
    return out.reshape(*before, height, width)


def gaussian_noise(x: Any, std: float, generator: Generator | None = None) -> Tensor:
    """Return floats with normal noise of this standard deviation added."""
    values = _tensor(x)
    if not values.dtype.is_float:
        raise DTypeError(
            "integers have no room for noise", op="gaussian_noise", expect="floats",
            actual=values.dtype.name, hint="use to_float(x) first",
        )  # fmt: skip
    noise = randn(*values.shape, dtype=values.dtype, generator=generator, device=values.device)
    return values + noise * std


def _tensor(x: Any) -> Tensor:
    if isinstance(x, np.ndarray | np.generic):
        return from_numpy(np.asarray(x))
    return x if isinstance(x, Tensor) else tensor(x)


def _image(op: str, x: Any) -> Tensor:
    images = _tensor(x)
    if images.ndim < 2:
        raise ShapeError(
            "no image", op=op, expect="[..., c, h, w] or [h, w]", actual=str(tuple(images.shape)),
            hint="give the image the dimensions of height and width",
        )  # fmt: skip
    return images


def _both(op: str, size: Size) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    return whole(op, "size", height, 1), whole(op, "size", width, 1)


def _check_size(op: str, size: int, there: int) -> None:
    if size > there:
        raise ShapeError(
            "the part is larger than the image", op=op, expect=f"at most {there} pixels",
            actual=str(size), hint="give a smaller size, or padding",
        )  # fmt: skip
