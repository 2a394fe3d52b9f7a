"""Samplers, parts and sums of datasets: laws of their distributions, PyTorch's rules."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)
from dualgrad.data.shuffle import epoch_order
from dualgrad.errors import ArgumentError


class Numbers(Dataset[int]):
    def __init__(self, *values: int) -> None:
        self.values = values

    def __getitem__(self, index: int, /) -> int:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)


class Stream(IterableDataset[int]):
    def __init__(self, *values: int) -> None:
        self.values = values

    def __iter__(self) -> Iterator[int]:
        return iter(self.values)


def chi_squared(counts: Counter[int], probabilities: list[float]) -> float:
    total = sum(counts.values())
    return sum((counts[i] - total * p) ** 2 / (total * p) for i, p in enumerate(probabilities) if p)


def test_sequential() -> None:
    sampler = SequentialSampler("abcd")
    assert list(sampler) == list(sampler) == [0, 1, 2, 3]
    assert len(sampler) == 4


@given(n=st.integers(0, 60), seed=st.integers(0, 2**64 - 1))
def test_random_is_a_permutation_in_each_epoch(n: int, seed: int) -> None:
    sampler = RandomSampler(range(n), seed=seed)
    for epoch in range(3):
        order = list(sampler)
        assert sorted(order) == list(range(n))
        assert order == epoch_order(n, seed, epoch).tolist()


def test_random_with_num_samples() -> None:
    assert len(set(RandomSampler(range(10), num_samples=4))) == 4
    longer = list(RandomSampler(range(10), num_samples=25))
    assert sorted(longer[:10]) == sorted(longer[10:20]) == list(range(10))
    assert longer[:10] != longer[10:20]
    assert len(set(longer[20:])) == 5
    assert len(RandomSampler(range(10), num_samples=25)) == 25


def test_random_with_replacement() -> None:
    """Chi-squared with 7 degrees of freedom exceeds 24.3 once in 1000 times."""
    sampler = RandomSampler(range(8), replacement=True, num_samples=16000, seed=1)
    counts = Counter(sampler)
    assert set(counts) == set(range(8))
    assert chi_squared(counts, [1 / 8] * 8) < 24.3


def test_weighted_with_replacement() -> None:
    """Chi-squared with 3 degrees of freedom exceeds 16.3 once in 1000 times."""
    sampler = WeightedRandomSampler([0, 1, 4, 0, 3, 2, 0], 20000, seed=5)
    counts = Counter(sampler)
    assert set(counts) == {1, 2, 4, 5}
    assert chi_squared(counts, [0, 0.1, 0.4, 0, 0.3, 0.2, 0]) < 16.3


def test_weighted_without_replacement() -> None:
    """The first index that is drawn has the probability of its weight."""
    sampler = WeightedRandomSampler([1, 0, 3, 6], 3, replacement=False, seed=2)
    draws = [list(sampler) for _ in range(4000)]
    assert all(sorted(draw) == [0, 2, 3] for draw in draws)
    first = Counter(draw[0] for draw in draws)
    assert chi_squared(first, [0.1, 0, 0.3, 0.6]) < 13.8  # 2 degrees of freedom
    second = Counter(draw[1] for draw in draws if draw[0] == 3)
    assert chi_squared(second, [0.25, 0, 0.75]) < 10.8  # 1 degree


def test_weights_of_tensors() -> None:
    assert set(WeightedRandomSampler(dg.tensor([0.0, 2.0]), 5)) == {1}
    assert set(WeightedRandomSampler(np.array([1, 0]), 5)) == {0}


def test_subset_random() -> None:
    sampler = SubsetRandomSampler([7, 3, 9, 1], seed=0)
    orders = [list(sampler) for _ in range(20)]
    assert all(sorted(order) == [1, 3, 7, 9] for order in orders)
    assert len({tuple(order) for order in orders}) > 5


def test_the_generator_decides() -> None:
    def orders(seed: int) -> list[list[int]]:
        sampler = RandomSampler(range(20), generator=dg.Generator(seed))
        return [list(sampler), list(sampler)]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    assert orders(1)[0] != orders(1)[1]


@given(n=st.integers(0, 20), size=st.integers(1, 7), drop=st.booleans())
def test_batches(n: int, size: int, drop: bool) -> None:
    sampler = BatchSampler(SequentialSampler(range(n)), size, drop)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(len(batch) == size for batch in (batches if drop else batches[:-1]))
    assert [i for batch in batches for i in batch] == list(range(n))[: n - n % size if drop else n]


def test_batches_of_indices_in_a_loader() -> None:
    data = TensorDataset(dg.arange(10) * 10)
    assert [b.tolist() for (b,) in DataLoader(data, batch_sampler=[[3, 1], [2]])] == [
        [30, 10],
        [20],
    ]
    loader = DataLoader(data, 4, sampler=iter([9, 8, 7, 6, 5]))  # type: ignore[arg-type]
    assert [b.tolist() for (b,) in loader] == [[90, 80, 70, 60], [50]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSampler(range(3), num_samples=0), "num_samples"),
        (lambda: list(RandomSampler([], num_samples=2)), "no items to draw from"),
        (lambda: BatchSampler([1], 0, False), "batch_size"),
        (lambda: WeightedRandomSampler([], 1), "no weights"),
        (lambda: WeightedRandomSampler([0, 0], 1), "no weights"),
        (lambda: WeightedRandomSampler([1, -1], 1), "no weights"),
        (lambda: WeightedRandomSampler([1, float("nan")], 1), "no weights"),
        (lambda: WeightedRandomSampler([1, float("inf")], 1), "no weights"),
        (lambda: WeightedRandomSampler([1, 0, 1], 3, replacement=False), "not so many"),
        (lambda: RandomSampler(range(3), seed=-1), "seed"),
        (lambda: RandomSampler(range(3)).set_epoch(-1), "epoch"),
        (lambda: ConcatDataset([]), "no datasets"),
        (lambda: ChainDataset([]), "no datasets"),
    ],
)
def test_refuses(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


# -- datasets -------------------------------------------------------------------------------------


def test_subset() -> None:
    part = Subset(Numbers(5, 6, 7, 8), [3, 0, -2])
    assert [part[i] for i in range(len(part))] == [8, 5, 7]
    assert part[-1] == 7
    with pytest.raises(IndexError):
        part[3]


@pytest.mark.parametrize("depth", [1, 2])
def test_subsets_of_tensors_are_gathered(depth: int) -> None:
    data: Any = TensorDataset(dg.arange(5) * 10, dg.arange(10).reshape(5, 2))
    for _ in range(depth):
        data = Subset(data, [3, 2, 4, -1, 0])
    one_by_one = [[x.tolist() for x in data[i]] for i in range(5)]
    batches = [[x.tolist() for x in batch] for batch in DataLoader(data, 2)]
    assert [list(pair) for x, y in batches for pair in zip(x, y, strict=True)] == one_by_one


def test_concat() -> None:
    data = Numbers(1, 2) + Numbers() + Numbers(3, 4, 5)
    assert len(data) == 5
    assert [data[i] for i in range(5)] == [1, 2, 3, 4, 5]
    assert [data[i] for i in range(-5, 0)] == [1, 2, 3, 4, 5]
    for index in (5, -6):
        with pytest.raises(IndexError):
            data[index]


def test_chain() -> None:
    data = Stream(1, 2) + Stream() + Stream(3)
    assert list(data) == list(data) == [1, 2, 3]
    assert [b.tolist() for b in DataLoader(data, 2)] == [[1, 2], [3]]


def test_any_iterable_is_a_dataset() -> None:
    assert [b.tolist() for b in DataLoader({4: 0, 5: 0, 6: 0}.keys(), 2)] == [[4, 5], [6]]


def test_getitems_is_asked_once_for_a_batch() -> None:
    class Several(Numbers):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [100 * i for i in indices]

    assert [b.tolist() for b in DataLoader(Several(1, 2, 3), 2)] == [[0, 100], [200]]


@pytest.mark.parametrize(
    ("n", "lengths"),
    [
        (10, [7, 3]), (10, [10, 0]), (0, [0]), (10, [0.5, 0.5]), (11, [0.5, 0.3, 0.2]),
        (7, [0.33, 0.33, 0.34]), (3, [0.0, 1.0]), (100, [0.29, 0.71]),
    ],
)  # fmt: skip
def test_random_split(n: int, lengths: list[float]) -> None:
    parts = random_split(range(n), lengths, seed=3)
    again = random_split(range(n), lengths, seed=3)
    items = [[part[i] for i in range(len(part))] for part in parts]
    assert sorted(i for part in items for i in part) == list(range(n))
    assert [list(part.indices) for part in parts] == [list(part.indices) for part in again]
    torch_data = pytest.importorskip("torch.utils.data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty parts
        theirs = torch_data.random_split(range(n), lengths) if n else [[]]
    assert [len(part) for part in parts] == [len(part) for part in theirs]


def test_random_split_by_generator() -> None:
    def first(generator: dg.Generator | None) -> list[int]:
        return list(random_split(range(50), [25, 25], generator)[0].indices)

    assert first(dg.Generator(1)) == first(dg.Generator(1)) != first(dg.Generator(2))
    dg.manual_seed(3)
    default = first(None)
    assert first(None) != default
    dg.manual_seed(3)
    assert first(None) == default


@pytest.mark.parametrize("lengths", [[5, 4], [11, -1], [0.5, 0.4], [1.5, -0.5], [0.5, 5], []])
def test_random_split_refuses(lengths: list[float]) -> None:
    with pytest.raises(ArgumentError, match="do not make up the dataset"):
        random_split(range(10), lengths)


def test_default_convert() -> None:
    from_torch = pytest.importorskip("torch.utils.data").default_convert
    item = {"a": np.arange(3), "b": (np.float32(2), "text", [1, 2.0]), "c": None}
    ours, theirs = dg.data.default_convert(item), from_torch(item)
    assert ours["a"].tolist() == theirs["a"].tolist()
    assert ours["b"][0].item() == theirs["b"][0].item()
    assert (
        str(ours["b"][0].dtype).rpartition(".")[2] == str(theirs["b"][0].dtype).rpartition(".")[2]
    )
    assert type(ours["b"]) is type(theirs["b"])
    assert (ours["b"][1:], ours["c"]) == (theirs["b"][1:], theirs["c"])
