"""Stored calls of PyTorch's modules and losses: printed form, state, values and gradients.

tests/references/make_modules.py made the file; nothing here needs PyTorch.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from module_records import Record, check

FILE = Path(__file__).parent / "references" / "modules.json"
STORED: dict[str, list[Record]] = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", STORED)
def test_as_stored(name: str) -> None:
    assert STORED[name]
    for record in STORED[name]:
        check(record)


@pytest.mark.parametrize("place", ["results", "gradients", "after", "repr", "state"])
def test_a_difference_is_found(place: str) -> None:
    found = (r for r in STORED["BatchNorm1d"] if r["after"] and r["gradients"]["parameters"])
    record = copy.deepcopy(next(found))
    if place == "repr":
        record["repr"] += "?"
    elif place == "state":
        record["state"]["more"] = record["state"]["weight"]
    elif place == "results":
        record["results"][0]["tensor"][0] += 1e-6
    elif place == "gradients":
        record["gradients"]["parameters"]["weight"]["tensor"][0] += 1e-6
    else:
        record["after"]["running_mean"]["tensor"][0] += 1e-6
    with pytest.raises(AssertionError):
        check(record)
