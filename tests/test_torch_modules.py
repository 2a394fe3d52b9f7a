"""Modules, losses and optimizers on PyTorch's own samples (optional: needs torch, expecttest).

    pytest -m slow tests/test_torch_modules.py -s

prints how many calls of each module agree.  What does not agree has its reason in
torch_modules.DIFFERENT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

pytest.importorskip("torch", reason="PyTorch lists the samples")
pytest.importorskip("expecttest", reason="PyTorch's lists need it")

import torch
from module_records import check
from torch_modules import DIFFERENT, common_modules, is_different, records, told

SAMPLES = 24  # per module, mode and dtype
COMPILED = 2  # of these under @function, too


@dataclass
class Outcome:
    """What came of one module."""

    name: str
    dtype: str
    passed: int = 0
    different: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.passed + self.different + len(self.failures)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    found: list[Outcome] = []
    yield found
    for one in found:
        note = f"  ({DIFFERENT[one.name][1]})" if one.different else ""
        print(f"{one.name:30} {one.dtype} {one.passed:4} of {one.total:4}{note}")
    passed, total = sum(o.passed for o in found), sum(o.total for o in found)
    print(f"{len(found)} modules and dtypes, {passed} of {total} calls agree")


@pytest.mark.parametrize("name", ["BatchNorm2d", "Conv2d", "CrossEntropyLoss", "LSTM", "PReLU"])
def test_a_share(name: str) -> None:
    """One call in training and one in evaluation, also compiled."""
    for record in records(name, torch.float32, 1):
        check(record, compiled=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", common_modules())
def test_modules(name: str, dtype: str, outcomes: list[Outcome]) -> None:
    outcome = Outcome(name, dtype)
    outcomes.append(outcome)
    for k, record in enumerate(records(name, getattr(torch, dtype), SAMPLES)):
        try:
            check(record, compiled=k % SAMPLES < COMPILED and dtype == "float32")
            outcome.passed += 1
        except Exception as error:
            if is_different(record):
                outcome.different += 1
                continue
            lines = [line for line in str(error).splitlines() if line.strip()]
            text = " / ".join(lines[:8])[:400]
            outcome.failures.append(f"{type(error).__name__}: {text} | {told(record)[:200]}")
    if outcome.failures:
        pytest.fail("\n".join(outcome.failures[:5]))
