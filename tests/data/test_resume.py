"""A loader that goes on where another one was gives exactly the batches that were left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from dualgrad.runtime.errors import ArgumentError


def plain(batch: Any) -> Any:
    return [plain(part) for part in batch] if isinstance(batch, list) else batch.tolist()


class Noisy(Dataset[Any]):
    """Items with random numbers of the stream that functions draw from by default."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int, /) -> Any:
        return index, dg.rand(2)


class Lines(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(11))


class Tape(IterableDataset[int]):
    """Goes on from epoch to epoch; its state is where it stands."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        for _ in range(11):
            self.at += 1
            yield self.at

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class Walk(Sampler[int]):
    """A sampler of the user with random numbers of its own."""

    def __init__(self) -> None:
        self.seed = 5

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng(self.seed).permutation(11).tolist()
        self.seed += 1
        return iter(order)

    def __len__(self) -> int:
        return 11

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seed = state["seed"]


def rows() -> TensorDataset:
    return TensorDataset(dg.arange(11), dg.arange(22).reshape(11, 2))


def kinds() -> dict[str, Any]:
    weights = [1, 0, 3, 2, 1, 5]
    return {
        "in order": lambda **a: DataLoader(rows(), 3, **a),
        "shuffled": lambda **a: DataLoader(rows(), 3, True, seed=4, **a),
        "default seed": lambda **a: DataLoader(rows(), 3, True, **a),
        "drop_last": lambda **a: DataLoader(rows(), 3, True, drop_last=True, **a),
        "generator": lambda **a: DataLoader(rows(), 3, True, generator=dg.Generator(3), **a),
        "single items": lambda **a: DataLoader(rows(), None, True, collate_fn=list, **a),
        "subset": lambda **a: DataLoader(Subset(rows(), [4, 1, 9, 0]), 3, True, **a),
        "noisy": lambda **a: DataLoader(Noisy(), 3, True, seed=1, **a),
        "replacement": lambda **a: DataLoader(rows(), 3, sampler=RandomSampler(rows(), True), **a),
        "drawn": lambda **a: DataLoader(
            rows(), 3, sampler=SubsetRandomSampler([5, 2, 3, 1], dg.Generator(7)), **a
        ),
        "weighted": lambda **a: DataLoader(
            rows(), 3, sampler=WeightedRandomSampler(weights, 7, seed=2), **a
        ),
        "batches": lambda **a: DataLoader(
            rows(), batch_sampler=BatchSampler(RandomSampler(rows(), seed=3), 4, True), **a
        ),
        "lists": lambda **a: DataLoader(rows(), batch_sampler=[[1], [2, 3], [0]], **a),
        "own sampler": lambda **a: DataLoader(rows(), 3, sampler=Walk(), **a),
        "lines": lambda **a: DataLoader(Lines(), 3, **a),
        "single lines": lambda **a: DataLoader(Lines(), None, collate_fn=dg.tensor, **a),
        "tape": lambda **a: DataLoader(Tape(), 3, **a),
    }


KINDS = kinds()


def run(loader: DataLoader, epochs: int) -> list[Any]:
    """The batches of some epochs, with None after each."""
    out = []
    for _ in range(epochs):
        out += [plain(batch) for batch in loader]
        out.append(None)
    return out


def stop_after(loader: DataLoader, count: int) -> list[Any]:
    """The first parts of that run, left in the middle of an epoch."""
    out: list[Any] = []
    while True:
        for batch in loader:
            if len(out) == count:
                raise AssertionError("a batch too many")
            out.append(plain(batch))
            if len(out) == count:
                return out
        out.append(None)
        if len(out) == count:
            return out


@pytest.mark.parametrize("workers", [(0, 0), (2, 2), (0, 3)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_goes_on(kind: str, workers: tuple[int, int]) -> None:
    dg.manual_seed(8)
    whole = run(KINDS[kind](), 3)
    for count in range(1, len(whole)):
        first = KINDS[kind](num_workers=workers[0])
        assert stop_after(first, count) == whole[:count]
        state = json.loads(json.dumps(first.state_dict()))
        second = KINDS[kind](num_workers=workers[1])
        second.load_state_dict(state)
        assert second.state_dict() == state
        left = whole[count:].count(None)
        assert run(second, left) == whole[count:]


@pytest.mark.parametrize("kind", KINDS)
def test_workers_do_not_show(kind: str) -> None:
    dg.manual_seed(8)
    alone = run(KINDS[kind](), 2)
    for count in (1, 2, 4):
        assert run(KINDS[kind](num_workers=count, prefetch_factor=count), 2) == alone


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 12),
    batch_size=st.integers(1, 5),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    workers=st.integers(0, 2),
    data=st.data(),
)
def test_goes_on_anywhere(
    n: int, batch_size: int, drop_last: bool, shuffle: bool, workers: int, data: st.DataObject
) -> None:
    def make() -> DataLoader:
        return DataLoader(
            range(n), batch_size, shuffle, drop_last=drop_last, num_workers=workers, seed=9
        )

    whole = run(make(), 2)
    assert len(make()) == whole.index(None)
    epoch = [i for batch in whole[: len(make())] for i in batch]
    assert sorted(epoch) == list(range(n)) or (drop_last and len(set(epoch)) == len(epoch))
    count = data.draw(st.integers(1, len(whole) - 1))
    first, second = make(), make()
    assert stop_after(first, count) == whole[:count]
    second.load_state_dict(first.state_dict())
    assert run(second, whole[count:].count(None)) == whole[count:]


def test_state_of_the_generator_is_brought_back() -> None:
    """Also where others have drawn from it meanwhile."""
    generator = dg.Generator(3)
    first = DataLoader(rows(), 4, True, generator=generator)
    iterator = iter(first)
    got = [plain(next(iterator))]
    dg.rand(5, generator=generator)
    state = first.state_dict()
    got += [plain(batch) for batch in iterator] + run(first, 1)

    second = DataLoader(rows(), 4, True, generator=dg.Generator(0))
    second.load_state_dict(state)
    assert run(second, 1)[:-1] + run(second, 1) == got[1:]


def test_a_state_before_the_first_epoch() -> None:
    first, second = (DataLoader(rows(), 4, True, seed=2) for _ in range(2))
    second.load_state_dict(first.state_dict())
    assert run(first, 2) == run(second, 2)


def test_set_epoch_forgets_the_position() -> None:
    first, second = (DataLoader(rows(), 4, True, seed=2) for _ in range(2))
    stop_after(first, 2)
    second.load_state_dict(first.state_dict())
    second.set_epoch(0)
    assert run(second, 1) == run(DataLoader(rows(), 4, True, seed=2), 1)


def damaged() -> dict[str, Any]:
    loader = DataLoader(rows(), 4, True, seed=2)
    stop_after(loader, 2)
    good = loader.state_dict()
    current, following = good["current"], good["next"]
    return {
        "no mapping": 7,
        "nothing": {},
        "a key more": good | {"more": 1},
        "another length": good | {"length": 12},
        "another batch_size": good | {"batch_size": 5},
        "negative epoch": good | {"next": following | {"epoch": -1}},
        "epoch of a float": good | {"next": following | {"epoch": 1.0}},
        "a generator": good | {"next": following | {"generator": [1, 2]}},
        "negative batch": good | {"current": current | {"batch": -1}},
        "a seed of text": good | {"current": current | {"seed": "2"}},
        "a list for current": good | {"current": [1, 2]},
        "a state of a sampler": good | {"source": {"seed": 3}},
    }


@pytest.mark.parametrize("state", damaged().values(), ids=damaged().keys())
def test_refuses_what_is_no_state(state: Any) -> None:
    loader = DataLoader(rows(), 4, True, seed=2)
    stop_after(loader, 4)
    before = loader.state_dict()
    with pytest.raises(ArgumentError, match=r"state|has a value it cannot have"):
        loader.load_state_dict(state)
    assert loader.state_dict() == before


@pytest.mark.parametrize("words", [None, [1], [1, -1], [1, 2**64], [1, True], "ab"])
def test_refuses_no_state_of_a_generator(words: Any) -> None:
    loader = DataLoader(rows(), 4, True, generator=dg.Generator(1))
    state = loader.state_dict()
    state["next"]["generator"] = words
    with pytest.raises(ArgumentError, match="not that of a sampler"):
        loader.load_state_dict(state)
