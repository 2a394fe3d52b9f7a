"""Philox4x32-10 against the known answers that its authors publish with Random123."""

from __future__ import annotations

import numpy as np
import pytest

from dualgrad.compiler.build.philox import philox4x32
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.lower.reference_scalar import evaluate
from dualgrad.runtime.dtype import uint32

KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(w, 16) for w in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    c = [s.reg(f"c{i}", uint32) for i in range(4)]
    k = [s.reg(f"k{i}", uint32) for i in range(2)]
    given = dict(zip((*c, *k), (np.uint32(w) for w in words(counter) + words(key)), strict=True))
    result = philox4x32((c[0], c[1], c[2], c[3]), (k[0], k[1]))
    got = evaluate(result, lambda e: np.asarray(given[e]), {})
    assert [int(w) for w in got] == words(answer)
