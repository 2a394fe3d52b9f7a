"""Datasets and loaders: orders, epochs, batch shapes, and PyTorch's collate rules."""

from __future__ import annotations

from collections import Counter, namedtuple
from typing import Any

import numpy as np
import pytest

from dualgrad.creation import from_numpy
from dualgrad.data import DataLoader, Dataset, TensorDataset, default_collate
from dualgrad.data.shuffle import epoch_order
from dualgrad.random import seed
from dualgrad.runtime.errors import ArgumentError, DataError, ShapeError
from dualgrad.tensor import Tensor

Pair = namedtuple("Pair", ["left", "right"])


class Squares(Dataset[tuple[int, float]]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __getitem__(self, index: int, /) -> tuple[int, float]:
        return index, float(index * index)

    def __len__(self) -> int:
        return self.n


def rows(n: int) -> TensorDataset:
    images = np.arange(n * 6, dtype=np.float32).reshape(n, 2, 3)
    return TensorDataset(from_numpy(images), from_numpy(np.arange(n)))


def numbers(loader: DataLoader) -> list[list[int]]:
    return [batch[1].numpy().tolist() for batch in loader]


def plain(value: Any) -> Any:
    """A batch with (dtype, shape, values) in the place of tensors, ours or torch's."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(*map(plain, value)) if hasattr(value, "_fields") else [
            plain(item) for item in value
        ]  # fmt: skip
    if isinstance(value, (str, bytes)):
        return value
    array = value.numpy()
    return str(array.dtype), array.shape, array.tolist()


def test_tensor_dataset_items() -> None:
    data = rows(5)
    image, label = data[3]
    assert len(data) == 5
    assert image.numpy().tolist() == [[18, 19, 20], [21, 22, 23]]
    assert label.item() == 3
    assert data[-1][1].item() == 4
    with pytest.raises(IndexError):
        data[5]


def test_tensor_dataset_refuses() -> None:
    with pytest.raises(ArgumentError, match="no tensors"):
        TensorDataset()
    with pytest.raises(ShapeError, match=r"\(3, 2\), \(4,\)"):
        TensorDataset(from_numpy(np.zeros((3, 2))), from_numpy(np.zeros(4)))
    with pytest.raises(ShapeError, match=r"\(\)"):
        TensorDataset(from_numpy(np.zeros(())))


def test_in_order() -> None:
    loader = DataLoader(rows(7), batch_size=3)
    assert len(loader) == 3
    assert numbers(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    images, labels = next(iter(loader))
    assert images.shape == (3, 2, 3)
    assert images.numpy().dtype == np.float32
    assert labels.numpy().dtype == np.int64


def test_drop_last() -> None:
    loader = DataLoader(rows(7), batch_size=3, drop_last=True)
    assert len(loader) == 2
    assert numbers(loader) == [[0, 1, 2], [3, 4, 5]]
    assert len(DataLoader(rows(6), batch_size=3, drop_last=True)) == 2
    assert numbers(DataLoader(rows(2), batch_size=3, drop_last=True)) == []


def test_empty() -> None:
    assert numbers(DataLoader(rows(0), batch_size=3, shuffle=True)) == []


@pytest.mark.parametrize("strided", [False, True])
def test_batches_are_new_memory(strided: bool) -> None:
    base = np.arange(24.0).reshape(6, 4)
    source = base[:, ::2] if strided else base
    before = base.copy()
    for (batch,) in DataLoader(TensorDataset(from_numpy(source)), batch_size=2, shuffle=True):
        batch.numpy()[...] = -1
    assert np.array_equal(base, before)


def test_rows_stay_together_when_shuffled() -> None:
    for images, labels in DataLoader(rows(50), batch_size=8, shuffle=True, seed=2):
        assert np.array_equal(images.numpy()[:, 0, 0], 6 * labels.numpy())


def test_each_epoch_is_another_permutation() -> None:
    loader = DataLoader(rows(100), batch_size=100, shuffle=True, seed=0)
    first, second = numbers(loader)[0], numbers(loader)[0]
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second != list(range(100))


def test_order_is_pinned() -> None:
    """The order belongs to the interface: stored results stay reproducible."""
    assert epoch_order(10, 0, 0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    assert epoch_order(10, 7, 3).tolist() == [2, 4, 7, 3, 5, 1, 8, 9, 0, 6]


def test_set_epoch_resumes() -> None:
    one, two = (DataLoader(rows(20), batch_size=6, shuffle=True, seed=9) for _ in range(2))
    epochs = [numbers(one) for _ in range(4)]
    two.set_epoch(2)
    assert [numbers(two), numbers(two)] == epochs[2:]


def test_a_loop_that_is_left_early_counts_as_an_epoch() -> None:
    one, two = (DataLoader(rows(20), batch_size=6, shuffle=True, seed=9) for _ in range(2))
    next(iter(one))
    numbers(two)
    assert numbers(one) == numbers(two)


def test_global_seed_decides_without_own_seed() -> None:
    def order() -> list[list[int]]:
        return numbers(DataLoader(rows(30), batch_size=30, shuffle=True))

    seed(1)
    first, again = order(), order()
    seed(2)
    other = order()
    seed(1)
    assert first == again == order()
    assert first != other


def test_all_orders_are_equally_likely() -> None:
    """Chi-squared over the 24 orders of 4: 49.7 is exceeded once in 1000 times."""
    counts = Counter(tuple(epoch_order(4, 11, epoch).tolist()) for epoch in range(2400))
    assert len(counts) == 24
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7


def test_other_datasets_are_collated() -> None:
    batches = list(DataLoader(Squares(5), batch_size=2))
    assert [plain(batch) for batch in batches] == [
        [("int64", (2,), [0, 1]), ("float64", (2,), [0.0, 1.0])],
        [("int64", (2,), [2, 3]), ("float64", (2,), [4.0, 9.0])],
        [("int64", (1,), [4]), ("float64", (1,), [16.0])],
    ]
    assert plain(list(DataLoader([3, 1, 2], batch_size=2))) == [
        ("int64", (2,), [3, 1]),
        ("int64", (1,), [2]),
    ]


def test_own_collate_gets_the_items() -> None:
    loader = DataLoader(rows(4), batch_size=2, collate_fn=len)
    assert list(loader) == [2, 2]


@pytest.mark.parametrize(
    "arguments",
    [{"batch_size": 0}, {"batch_size": 2.0}, {"batch_size": True}, {"seed": -1}],
)
def test_impossible_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="has a value it cannot have"):
        DataLoader(rows(3), **arguments)


def test_impossible_epoch() -> None:
    with pytest.raises(ArgumentError, match="epoch"):
        DataLoader(rows(3)).set_epoch(-1)


SAMPLES: dict[str, list[Any]] = {
    "ints": [1, 2, 3],
    "floats": [0.5, 1.5],
    "bools": [True, False],
    "strings": ["a", "b"],
    "arrays": [np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)],
    "numpy scalars": [np.float32(1), np.float32(2)],
    "tuples": [(1, 2.0), (3, 4.0)],
    "lists": [[1, 2], [3, 4]],
    "dicts": [{"x": 1, "y": (2.0, "s")}, {"x": 3, "y": (4.0, "t")}],
    "named tuples": [Pair(1, 2.0), Pair(3, 4.0)],
}


@pytest.mark.parametrize("items", SAMPLES.values(), ids=SAMPLES.keys())
def test_collate_as_pytorch(items: list[Any]) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    ours, theirs = default_collate(items), torch_data.default_collate(items)
    assert type(ours) is type(theirs) or isinstance(ours, Tensor)
    assert plain(ours) == plain(theirs)


def test_collate_of_tensors() -> None:
    batch = default_collate([from_numpy(np.full((2, 3), i, np.int16)) for i in range(4)])
    assert batch.shape == (4, 2, 3)
    assert batch.numpy().dtype == np.int16
    assert batch.numpy()[:, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([np.zeros(2), np.zeros(3)], "different shapes"),
        ([(1, 2), (1,)], "different lengths"),
        ([{"a": 1}, {"b": 1}], "different keys"),
        ([None, None], "no rule to make a batch of NoneType"),
    ],
)
def test_collate_refuses(items: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        default_collate(items)
