"""Columns of products that masks hide: which these are, and that leaving out their sums changes
nothing, against the interpreter, which computes all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from machine import How, agree
from support import lowered

import dualgrad as dg
import dualgrad.functional as F
from dualgrad.compiler.kernel import striping
from dualgrad.compiler.kernel.hidden import visible_columns
from dualgrad.compiler.kernel.ir import Contract
from dualgrad.compiler.kernel.program import LoopProgram

HEADS, ROWS, KEYS, WIDTH = 2, 60, 140, 3


def causal(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> dg.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def lower(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor, diagonal: int) -> dg.Tensor:
    """Scores that are zero from a diagonal on."""
    return F.softmax(dg.tril(q @ k.transpose(-2, -1), diagonal), -1) @ v


def upper(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> dg.Tensor:
    return F.softmax(dg.triu(q @ k.transpose(-2, -1), 3), -1) @ v


def kept(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> tuple[dg.Tensor, dg.Tensor]:
    """Another one reads all sums."""
    scores = q @ k.transpose(-2, -1)
    return F.softmax(dg.tril(scores), -1) @ v, scores.sum()


MASKS: dict[str, tuple[Callable[..., object], int | None]] = {
    # and the columns that row 100 and those before it see
    "causal": (causal, 101),
    "on": (lambda *x: lower(*x, 0), 101),
    "above": (lambda *x: lower(*x, 60), 161),
    "below": (lambda *x: lower(*x, -30), 71),
    "both": (lambda q, k, v: F.softmax(dg.tril(dg.triu(q @ k.mT, -9)), -1) @ v, 101),
    "upper": (upper, None),
    "kept": (kept, None),
}


def arguments(special: tuple[float, ...] = ()) -> list[dg.Tensor]:
    rng = np.random.default_rng(0)
    sizes = (ROWS, KEYS, KEYS)
    arrays = [rng.standard_normal((HEADS, n, WIDTH)).astype(np.float32) for n in sizes]
    for x in special:
        for array in arrays[1:]:
            array[tuple(rng.integers(0, n, 3) for n in array.shape)] = x
    return [dg.tensor(x) for x in arrays]


def program_of(name: str) -> tuple[LoopProgram, list[int]]:
    """The program, and which arguments its first inputs are."""
    static = dg.function(MASKS[name][0], strict=True)
    static(*arguments())
    (path,) = static.paths
    return lowered(static), [x.number for x in path.sources[:3]]


@pytest.mark.parametrize("name", MASKS)
def test_visible_columns(name: str) -> None:
    products = [c for k in program_of(name)[0].kernels for c in k.body if isinstance(c, Contract)]
    found = [visible_columns(c, 100) for c in products if c.n == KEYS]
    assert found == [MASKS[name][1]]


@pytest.mark.parametrize("special", [(), (np.inf, -np.inf, np.nan, -0.0, 1e38)])
@pytest.mark.parametrize("name", MASKS)
def test_hidden_columns_change_nothing(
    name: str, special: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(striping, "CACHED", 1 << 9)
    monkeypatch.setattr(striping, "FEWEST_ROWS", 16)
    program, order = program_of(name)
    assert name == "kept" or any(x.cut for x in program.strips)
    args = arguments(special)
    values = [args[n].numpy().ravel() for n in order]
    values += [np.ones(1, b.dtype.numpy) for b in program.inputs[len(order) :]]
    inputs = {b.name: x for b, x in zip(program.inputs, values, strict=True)}
    hows = [How(threads=2), How(checked=True)]
    with np.errstate(all="ignore"):
        agree(program, inputs, {}, [], hows, name)
