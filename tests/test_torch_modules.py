"""Modules, losses and optimizers on PyTorch's own samples (optional: needs torch, expecttest).

    pytest -m slow tests/test_torch_modules.py -s

prints how many calls of each module agree.  What does not agree has its reason in DIFFERENT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

pytest.importorskip("torch", reason="PyTorch lists the samples")
pytest.importorskip("expecttest", reason="PyTorch's lists need it")

import torch
from module_records import Record, check
from torch_modules import common_modules, records

SAMPLES = 24  # per module, mode and dtype
COMPILED = 2  # of these under @function, too

# module -> why some or all samples mean something else here
DIFFERENT: dict[str, str] = {}


@dataclass
class Outcome:
    """What came of one module."""

    name: str
    passed: int = 0
    failures: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    found: list[Outcome] = []
    yield found
    for one in found:
        note = f"  ({DIFFERENT.get(one.name, '?')})" if one.failures else ""
        print(f"{one.name:45} {one.passed:4} of {one.passed + len(one.failures):4}{note}")
    passed, failed = sum(o.passed for o in found), sum(len(o.failures) for o in found)
    print(f"{len(found)} modules, {passed} of {passed + failed} calls agree")


def told(record: Record) -> str:
    shapes = [x.get("shape") if isinstance(x, dict) else x for x in record["inputs"]]
    mode = "training" if record["training"] else "evaluation"
    return f"{record['args']} {record['kwargs']} {shapes} {mode}"[:200]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", common_modules())
def test_modules(name: str, dtype: str, outcomes: list[Outcome]) -> None:
    outcome = Outcome(f"{name} {dtype}")
    outcomes.append(outcome)
    for k, record in enumerate(records(name, getattr(torch, dtype), SAMPLES)):
        try:
            check(record, compiled=k % SAMPLES < COMPILED and dtype == "float32")
            outcome.passed += 1
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            text = " / ".join(lines[:8])[:400]
            outcome.failures.append(f"{type(error).__name__}: {text} | {told(record)}")
    if outcome.failures and name not in DIFFERENT:
        pytest.fail("\n".join(outcome.failures[:5]))
