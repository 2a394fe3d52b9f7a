"""Every barrier of the generated kernels is needed: without any one of them, results are wrong.

A text with one `__syncthreads` taken out runs with many orders of threads; in at least one of
them the bits must differ, or the shim must object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.compiler import pipeline
from dualgrad.compiler.lower.cuda.module import module_of
from gpu import shim
from gpu.running import Case, Loaded, Run, case

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

BARRIER = re.compile(r"__syncthreads\(\);")
SEEDS = 12


def mutants(text: str) -> Iterator[tuple[int, str]]:
    """The text without its first barrier, without its second, ..."""
    for k, place in enumerate(BARRIER.finditer(text)):
        yield k, text[: place.start()] + text[place.end() :]


def result(one: Case, text: str, seed: int) -> bytes | None:
    """The bits of the first output, or None if the shim objects."""
    (args,) = one.runs
    module = module_of(one.program)
    loaded = Loaded(one.program, module.steps, shim.build(text))
    run = Run(loaded, one.flat(args, args.arrays), args.values, args.scalars, seed=seed, blocks=1)
    try:
        run()
    except shim.ShimError:
        return None
    return run.array("o0").tobytes()


@pytest.mark.parametrize("apart", [False, True])
def test_matrix_products(apart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiles, two blocks of K, several panels, several passes of the epilogue."""
    monkeypatch.setattr(pipeline, "sums_apart", lambda _: apart)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((40, 530), (530, 9)))
    one = case(dg.matmul, a, b)
    text = module_of(one.program).text
    want = result(one, text, 0)
    assert want is not None
    assert all(result(one, text, seed) == want for seed in range(SEEDS))
    unneeded = [
        k
        for k, mutant in mutants(text)
        if all(result(one, mutant, seed) == want for seed in range(SEEDS))
    ]
    assert len(list(mutants(text))) == 4
    assert not unneeded
