"""Tests of kernels on a device, with the memory of the host mirrored: here on the stand-in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.runtime.driver import Driver
from gpu import running
from gpu.mirror import Mirror


@pytest.fixture
def mirrors(gpu: Driver, monkeypatch: pytest.MonkeyPatch) -> list[Mirror]:
    """Programs are run by the driver."""
    made: list[Mirror] = []

    def library_of(text: str) -> Mirror:
        made.append(Mirror(gpu, text))
        return made[-1]

    monkeypatch.setattr(running, "library_of", library_of)
    return made


def rows(x: Any, y: Any) -> Any:
    return dg.softmax(x * 2.0 + y, 1), x.sum()


@pytest.mark.parametrize("shift", [0, 1])
def test_programs(mirrors: list[Mirror], shift: int) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 12), (12,)))
    running.compare(running.case(rows, x, y), shift=shift)
    assert len(mirrors) == 1


def test_errors(mirrors: list[Mirror]) -> None:
    """The error word is mirrored too."""
    x, places = np.arange(6, dtype=np.float32), np.array([1, 7, 2])
    running.compare(running.case(lambda x, k: dg.take(x, k), x, places))
    assert len(mirrors) == 1


def test_what_lies_around_the_memory_is_looked_at(mirrors: list[Mirror]) -> None:
    """A write beside an array on the device is one here."""
    case = running.case(lambda x: x + 1.0, np.ones(8, np.float32))
    (loaded,) = running.load([case.program])
    run = running.Run(loaded, [np.ones(8, np.float32)], {})
    run.addresses["o0"] += 4
    with pytest.raises(AssertionError, match="written beside o0"):
        run()
