"""Threads that take turns in adding the sums of blocks of one matrix (`lower.llvm.turns`)."""

from __future__ import annotations

import numpy as np
import pytest

import dualgrad as dg
import dualgrad.functional as F
from dualgrad.compiler.lower.llvm import stripped
from dualgrad.compiler.lower.llvm.contract import Share
from dualgrad.compiler.lower.llvm.launches import Launches
from dualgrad.compiler.lower.llvm.together import Work
from dualgrad.runtime.config import config


def gradients(*args: dg.Tensor) -> tuple[dg.Tensor, ...]:
    xs = [x.detach().requires_grad_() for x in args]
    y = F.scaled_dot_product_attention(*xs)
    return tuple(dg.autograd.grad((y * y).sum(), xs))


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("mode", ["eager", "static"])
@pytest.mark.parametrize(("count", "rows"), [(1, 1600), (2, 1100), (3, 530)])
def test_sums_are_added_in_their_order(count: int, rows: int, mode: str, checked: bool) -> None:
    """Again and again, with more threads than matrices, the bits are those of one thread."""
    args = [dg.randn(count, rows, 4) for _ in range(3)]
    dg.set_num_threads(1)
    want = [x.numpy() for x in gradients(*args)]
    for threads in (2, 3, 8):
        dg.set_num_threads(threads)
        with config.scope(check=checked):
            run = gradients if mode == "eager" else dg.function(gradients, strict=True)
            for _ in range(1 if checked else 4):
                for x, y in zip(run(*args), want, strict=True):
                    np.testing.assert_array_equal(x.numpy().view(np.int32), y.view(np.int32))


@pytest.mark.parametrize("count", [1, 2])
def test_nobody_waits_for_a_thread_that_has_left(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where accesses are looked at, one outside of its buffer (here it is pretended, in the first
    block of each matrix) ends the program, though other threads wait for the sums of that block."""
    run = stripped._run

    def faulty(code: Launches, work: Work, share: Share) -> None:
        if share.summed is not None:
            number = code.frame.access_code(next(iter(work.kernel.starts)))
            code.stop_if(code.f.compare("eq", "%first", 0), 0, number)
        run(code, work, share)

    monkeypatch.setattr(stripped, "_run", faulty)
    dg.set_num_threads(3)
    with config.scope(check=True, cache=False):
        static = dg.function(gradients, strict=True)
        with pytest.raises(Exception, match="outside"):
            static(*(dg.randn(count, 1700, 4) for _ in range(3)))
