"""Random programs that PyTorch understands too: the same values, gradients and shared memory.

pytest -m slow tests/test_programs_torch.py        (optional: needs torch, expecttest)
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch", reason="PyTorch is what the programs are compared with")
pytest.importorskip("expecttest", reason="PyTorch's list of ops needs it")

from programs import peers
from programs.drawing import draw
from programs.shrinking import shrink
from programs.text import Program
from test_torch_samples import DIFFERENT

FEW = 12
FIRST, LAST = map(int, os.environ.get("PROGRAMS", "1000:1200").split(":"))
STEP = 20


@pytest.fixture(autouse=True)
def _callees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.Twin, "own", peers.shared(DIFFERENT))


def check(seed: int) -> None:
    try:
        program = draw(seed, peers.Twin, peers.OutsideTwin)
    except peers.Unlike:  # of another structure by design; nothing to compare
        return
    found = peers.difference_with_torch(program)
    if found is None:
        return
    kind = found.splitlines()[0].rpartition(":")[2]

    def fails(other: Program) -> bool:
        new = peers.difference_with_torch(other)
        return new is not None and new.splitlines()[0].rpartition(":")[2] == kind

    small = shrink(program, fails, 150)
    pytest.fail(f"{peers.difference_with_torch(small)}\n\n{small.script}", pytrace=False)


@pytest.mark.parametrize("seed", range(FEW))
def test_program(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FIRST, LAST, STEP))
def test_many_programs(first: int) -> None:
    for seed in range(first, first + STEP):
        check(seed)
