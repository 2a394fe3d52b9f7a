"""Transforms against NumPy's formulas, in both modes, for arrays and tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.data import DataLoader, Dataset, TensorDataset
from dualgrad.data import transforms as t
from dualgrad.errors import ArgumentError, DTypeError, ShapeError

SHAPES = pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (2, 3, 5, 7), (2, 4, 3, 5, 7)])


def images(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def in_both_modes(function: Callable[[Any], Any], x: np.ndarray[Any, Any]) -> Any:
    """The result for an array, after a look that it is the same for tensors, in both modes."""
    compiled = dg.function(strict=True)(lambda x: function(x))
    results = []
    for call, value in ((function, x), (function, dg.tensor(x)), (compiled, dg.tensor(x))):
        dg.manual_seed(5)
        results.append(call(value))
    first = results[0].numpy()
    for other in results[1:]:
        assert other.numpy().dtype == first.dtype
        assert other.numpy().tobytes() == first.tobytes()
    assert results[0].shape == results[2].shape
    return first


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_to_float(dtype: Any) -> None:
    x = np.array([0, 1, np.iinfo(dtype).max], dtype)
    got = in_both_modes(t.to_float, x)
    assert got.dtype == np.float32
    assert np.array_equal(got, x.astype(np.float32) / np.float32(np.iinfo(dtype).max))


def test_to_float_of_others() -> None:
    assert t.to_float(np.array([True, False])).tolist() == [1, 0]
    assert t.to_float(np.array([2.5], np.float64)).dtype is dg.float32
    assert t.to_float(np.array([3], np.uint8), "float64").item() == 3 / 255
    with pytest.raises(DTypeError, match="no dtype of floats"):
        t.to_float(np.zeros(2), "int32")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalize(dtype: Any) -> None:
    x, mean, std = images(2, 3, 4, 5, dtype=dtype), [1.0, 2.0, 30.0], [2.0, 4.0, 0.5]
    got = in_both_modes(lambda x: t.normalize(x, mean, std), x)
    m, s = (np.array(v, dtype)[:, None, None] for v in (mean, std))
    assert np.array_equal(got, (x - m) / s)
    assert np.array_equal(t.normalize(x, 3.0, 2.0).numpy(), (x - 3) / dtype(2))
    assert np.array_equal(t.normalize(x, dg.tensor([1.0, 2.0]), 1, dim=0)[1].numpy(), x[1] - 2)


def test_normalize_refuses() -> None:
    x = images(3, 4, 5)
    with pytest.raises(ShapeError, match="mean does not fit"):
        t.normalize(x, [1.0, 2.0], 1.0)
    with pytest.raises(ShapeError, match="std does not fit"):
        t.normalize(x[0], 1.0, [1.0, 2.0, 3.0])
    with pytest.raises(ArgumentError, match="std is zero"):
        t.normalize(x, 0.0, [1.0, 0.0, 1.0])
    with pytest.raises(DTypeError, match="integers cannot"):
        t.normalize(x.astype(np.uint8), 0.0, 1.0)


def test_one_hot() -> None:
    labels = np.array([[2, 0], [1, 2]])
    got = in_both_modes(lambda x: t.one_hot(x, 4), labels)
    assert np.array_equal(got, np.eye(4, dtype=np.float32)[labels])
    with pytest.raises(ArgumentError, match="num_classes"):
        t.one_hot(labels, 0)


@SHAPES
def test_flips(shape: tuple[int, ...]) -> None:
    x = images(*shape, dtype=np.uint8)
    assert np.array_equal(in_both_modes(t.hflip, x), x[..., ::-1])
    assert np.array_equal(in_both_modes(t.vflip, x), x[..., ::-1, :])
    for flip, one in ((t.random_hflip, x[..., ::-1]), (t.random_vflip, x[..., ::-1, :])):
        assert np.array_equal(flip(x, p=1.0).numpy(), one)
        assert np.array_equal(flip(x, p=0.0).numpy(), x)


def test_random_flips_are_for_each_image() -> None:
    x = images(400, 2, 3, 4)
    got = in_both_modes(lambda x: t.random_hflip(x, 0.25), x)
    flipped = (got == x[..., ::-1]).all((1, 2, 3))
    assert ((got == x).all((1, 2, 3)) != flipped).all()
    assert 60 < flipped.sum() < 140  # 100, with a standard deviation of 8.7


@SHAPES
def test_crops(shape: tuple[int, ...]) -> None:
    x = images(*shape)
    assert np.array_equal(in_both_modes(lambda x: t.crop(x, 1, 2, 3, 4), x), x[..., 1:4, 2:6])
    assert np.array_equal(in_both_modes(lambda x: t.center_crop(x, 3), x), x[..., 1:4, 2:5])
    assert np.array_equal(t.center_crop(x, (5, 1)).numpy(), x[..., 3:4])
    assert np.array_equal(t.random_crop(x, (5, 7)).numpy(), x)


@SHAPES
def test_random_crops_are_parts(shape: tuple[int, ...]) -> None:
    x = images(*shape)
    got = in_both_modes(lambda x: t.random_crop(x, (3, 4), padding=1, fill=-1.0), x)
    assert got.shape == (*shape[:-2], 3, 4)
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)], constant_values=-1)
    flat = padded.reshape(-1, *((1, 7, 9) if x.ndim == 2 else padded.shape[-3:]))
    for image, part in zip(flat, got.reshape(len(flat), -1, 3, 4), strict=True):
        parts = [image[:, i : i + 3, j : j + 4] for i in range(5) for j in range(6)]
        assert any(np.array_equal(part, one) for one in parts)


def test_random_crops_come_from_everywhere() -> None:
    x = np.tile(images(1, 4, 4), (600, 1, 1, 1))
    corners = t.random_crop(x, 2, generator=dg.Generator(1)).numpy()[:, 0, 0, 0]
    values, counts = np.unique(corners, return_counts=True)
    assert values.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    # chi-squared with 8 degrees of freedom exceeds 26.1 once in 1000 times
    assert ((counts - 600 / 9) ** 2 / (600 / 9)).sum() < 26.1


@pytest.mark.parametrize("size", [6, (3, 9), (6, 2)])
def test_parts_larger_than_the_image(size: Any) -> None:
    for cut in (t.center_crop, t.random_crop):
        with pytest.raises(ShapeError, match="larger than the image"):
            cut(images(3, 5, 7), size)
    with pytest.raises(ShapeError, match="larger than the image"):
        t.crop(images(5, 7), 3, 0, 3, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: t.random_hflip(x, 1.5), "no probability"),
        (lambda x: t.random_crop(x, 0), "size"),
        (lambda x: t.random_crop(x, 2, padding=-1), "padding"),
        (lambda x: t.crop(x, -1, 0, 2, 2), "top"),
        (lambda x: t.center_crop(x, (1, 2, 3)), "size"),
        (lambda x: t.hflip(x[0, 0]), "no image"),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(images(3, 5, 7))


def test_noise() -> None:
    x = np.full((200, 200), 3.0)
    got = in_both_modes(lambda x: t.gaussian_noise(x, 0.5), x)
    assert got.dtype == np.float64
    assert abs(got.mean() - 3) < 0.01
    assert abs(got.std() - 0.5) < 0.01
    with pytest.raises(DTypeError, match="no room for noise"):
        t.gaussian_noise(x.astype(int), 1.0)


class Augmented(Dataset[Any]):
    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int, /) -> Any:
        return t.random_crop(t.random_hflip(self.data[index][0]), 4, padding=1)


def test_augmented_batches_are_the_same_for_any_number_of_workers() -> None:
    data = Augmented(TensorDataset(dg.tensor(images(20, 1, 5, 5))))

    def batches(**arguments: Any) -> list[Any]:
        loader = DataLoader(data, 4, True, **arguments)
        return [b.tolist() for _ in range(2) for b in loader]

    alone = batches(seed=1)
    assert batches(seed=1, num_workers=3) == alone
    assert batches(seed=2) != alone
    assert alone[:5] != alone[5:]


def test_loading_leaves_the_default_stream_alone() -> None:
    data = Augmented(TensorDataset(dg.tensor(images(20, 1, 5, 5))))
    dg.manual_seed(3)
    expected = dg.rand(4).tolist()
    dg.manual_seed(3)
    for _ in DataLoader(data, 4, num_workers=2):
        pass
    for _ in DataLoader(data, 4):
        pass
    assert dg.rand(4).tolist() == expected
