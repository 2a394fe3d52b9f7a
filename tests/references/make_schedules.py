"""Make schedules.json: rates and momenta of PyTorch's schedules, as hexadecimal floats.

    python tests/references/make_schedules.py

For each case of tests/optim/test_lr_scheduler.py, 40 steps of two parameter groups.  Made with
PyTorch 2.13.0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "optim"))
import test_lr_scheduler as tests


def run(name: str) -> list[list[list[str]]]:
    """Return [rate, momentum] of each group at each step."""
    groups = [{"params": [torch.zeros(2)]}, {"params": [torch.zeros(3)], "lr": 0.02}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    schedule = tests.CASES[name](torch.optim.lr_scheduler, optimizer)
    found = []
    for _ in range(tests.STORED_STEPS):
        found.append([[float(r).hex(), float(m).hex()] for r, m in tests.rates(optimizer)])
        optimizer.step()
        schedule.step()
    return found


def main() -> None:
    content = {name: run(name) for name in tests.CASES}
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in content.items())
    Path(__file__).with_name("schedules.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
