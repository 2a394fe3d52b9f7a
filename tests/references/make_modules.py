"""Stores small calls of PyTorch's modules and losses, with gradients, in modules.json.

    python tests/references/make_modules.py

Needs torch and expecttest; tests/test_module_references.py replays the file without them.
Made with PyTorch 2.13.0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from module_records import Record  # noqa: E402
from torch_modules import common_modules, is_different, records  # noqa: E402

LONGEST = 7_000  # characters of a record, unless it is the only one of its module
STORED = 2  # records per module with, and without, changes of its state; no two alike
CANDIDATES = 60  # samples looked at, per module and mode
DIGITS = 10


def shortened(x: Any) -> Any:
    """Floats with so many digits."""
    if isinstance(x, float):
        return float(f"{x:.{DIGITS}g}")
    if isinstance(x, dict):
        return {k: shortened(v) for k, v in x.items()}
    return [shortened(v) for v in x] if isinstance(x, list) else x


def elements(record: Record) -> int:
    return sum(len(x["tensor"]) for x in record["inputs"] if isinstance(x, dict))


def chosen(name: str, dtype: torch.dtype) -> Iterator[str]:
    """Short calls with more than three numbers, as JSON."""
    found = [
        (json.dumps(shortened(record)), record)
        for record in records(name, dtype, CANDIDATES)
        if elements(record) > 3 and not is_different(record)
    ]
    changing: set[str] = set()
    other: set[str] = set()
    for text, record in sorted(found, key=lambda pair: len(pair[0])):
        key = json.dumps([record["args"], record["kwargs"]])
        seen = changing if record["after"] else other
        short = len(text) <= LONGEST or not (changing or other)
        if short and key not in seen and len(seen) < STORED:
            seen.add(key)
            yield text


def main() -> None:
    lines = []
    for name in common_modules():
        stored = list(chosen(name, torch.float64)) or list(chosen(name, torch.float32))
        lines.append(f"{json.dumps(name)}: [{', '.join(stored)}]")
    (HERE / "modules.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
