"""A test of the tests: every barrier of the generated kernels is needed, and the shim notices when
it is missing.

A text with one barrier taken out runs with many orders of threads; in at least one of them the
bits must differ, or the shim must object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from support import Array

import dualgrad as dg
from dualgrad.compiler import pipeline
from dualgrad.compiler.lower.cuda.module import module_of
from gpu import shim
from gpu.running import Arguments, Case, Loaded, Run, case

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

BARRIER = re.compile(r"__sync(threads|warp)\([^()]*\);")
SEEDS = 12


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def wide_softmax() -> Case:
    """Two reductions by two warps: a barrier for each."""
    return case(lambda x: dg.softmax(x, 1), numbers(9, 3000))


def wide_sum() -> Case:
    """One reduction: another barrier from row to row."""
    return case(lambda x: x.sum(1), numbers(9, 3000))


def wide_row_with_checks() -> Case:
    """Threads agree on whether a check has failed; a row of which an element fails is left before
    its reduction."""
    x = numbers(40, 600)
    places = np.random.default_rng(3).integers(0, 600, x.shape)
    bad = places.copy()
    bad[4::5, 3] = bad[::5, 40] = 7777
    one = case(lambda x, t: (x * dg.take_along_axis(x, t, 1)).sum(1), x, places)
    one.runs.append(Arguments([x, bad]))
    return one


def transposing_copy() -> Case:
    return case(lambda x: x * 2.0, numbers(70, 100).T)


def matrix_product() -> Case:
    """Two tiles, two blocks of K one after another, several panels and passes of the epilogue."""
    return _product(apart=False)


def matrix_product_in_parts() -> Case:
    """The same, blocks of K side by side."""
    return _product(apart=True)


def _product(apart: bool) -> Case:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "sums_apart", lambda _: apart)
        return case(dg.matmul, numbers(40, 530), numbers(530, 9))


# how many barriers each of them has
CASES: dict[Callable[[], Case], int] = {
    wide_softmax: 2,
    wide_sum: 2,
    wide_row_with_checks: 3,
    transposing_copy: 2,
    matrix_product: 4,
    matrix_product_in_parts: 4,
}


def mutants(text: str) -> Iterator[tuple[int, str]]:
    """The text without its first barrier, without its second, ..."""
    for k, place in enumerate(BARRIER.finditer(text)):
        yield k, text[: place.start()] + text[place.end() :]


def results(one: Case, text: str, seed: int) -> list[bytes] | None:
    """Outcomes of all runs: the error, or the bits of the output; None if the shim objects."""
    loaded = Loaded(one.program, module_of(one.program).steps, shim.build(text))
    out = []
    for args in one.runs:
        arrays = one.flat(args, args.arrays)
        try:
            run = Run(loaded, arrays, args.values, args.scalars, seed=seed, blocks=2)()
        except shim.ShimError:
            return None
        failed = (~run.error).any()
        out.append(run.error.tobytes() if failed else run.array("o0").tobytes())
    return out


@pytest.mark.parametrize("make", CASES, ids=lambda f: f.__name__)
def test_every_barrier_is_needed(make: Callable[[], Case]) -> None:
    one = make()
    text = module_of(one.program).text
    want = results(one, text, 0)
    assert want is not None
    assert all(results(one, text, seed) == want for seed in range(SEEDS))
    unneeded = [
        k
        for k, mutant in mutants(text)
        if all(results(one, mutant, seed) == want for seed in range(SEEDS))
    ]
    assert len(list(mutants(text))) == CASES[make]
    assert not unneeded
