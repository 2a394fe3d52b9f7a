"""Regions: whether what two kernels store has elements in common, by the elements themselves."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from support import lowered

import dualgrad as dg
from dualgrad.compiler.kernel.ir import Contract
from dualgrad.compiler.kernel.regions import Region, region_of


def elements(region: Region) -> set[int]:
    assert isinstance(region.start, int)
    ways = (range(0, step * int(extent), step) for step, extent in region.steps)
    return {region.start + sum(k) for k in itertools.product(*ways)}


@pytest.mark.parametrize("seed", range(200))
def test_regions_that_are_apart_have_no_element_in_common(seed: int) -> None:
    rng = random.Random(seed)
    outer = rng.choice((6, 12, 24))

    def drawn() -> Region:
        steps = [(1, rng.randint(2, 5)), (rng.choice((6, 12)), rng.randint(2, 3)), (outer, 3)]
        return Region(rng.randrange(30), tuple(rng.sample(steps, rng.randint(0, 3))))

    for _ in range(20):
        x, y = drawn(), drawn()
        assert x.is_apart(y) == y.is_apart(x)
        if x.is_apart(y):
            assert elements(x).isdisjoint(elements(y))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (Region(0, ((8, 4), (1, 8))), Region(32, ((8, 4), (1, 8)))),  # side by side
        (Region(0, ((24, 4), (1, 8))), Region(8, ((24, 4), (1, 8)))),  # parts of rows
        (Region(0, ((48, 3), (8, 2), (1, 8))), Region(16, ((48, 3), (8, 2), (1, 8)))),
        (Region(3, ()), Region(4, ())),
    ],
)
def test_parts_of_joined_tensors_are_apart(x: Region, y: Region) -> None:
    assert x.is_apart(y)
    assert not x.is_apart(x)


@pytest.mark.parametrize(
    ("join", "starts"),
    [
        (lambda *x: dg.stack(x), [0, 60]),
        (lambda *x: dg.cat(x, -1), [0, 5]),
        (lambda *x: dg.cat(x, -2), [0, 20]),
    ],
)
def test_regions_of_products(join: Callable[..., Any], starts: list[int]) -> None:
    a, b = dg.randn(3, 4, 2), dg.randn(3, 2, 5)
    static = dg.function(lambda a, b: join(a @ b, (a * 2.0) @ b), strict=True)
    static(a, b)
    program = lowered(static)
    (output,) = program.outputs
    products = [k for k in program.kernels if isinstance(k.body[0], Contract)]
    regions = [region_of(k, output.name) for k in products]
    assert [r and r.start for r in regions] == starts
    assert all(r is not None and len(elements(r)) == 60 for r in regions)
    assert [region_of(k, program.inputs[1].name) for k in products] == [None, None]
