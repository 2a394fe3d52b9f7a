"""The rows of the benchmark of eager ops: libraries that are compared compute the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.oprows import ROWS, Row  # noqa: E402
from benchmarks.opworker import namespace  # noqa: E402

RANDOM = {"rand", "randn"}


@pytest.fixture(scope="module")
def names() -> dict[str, dict[str, Any]]:
    return {library: namespace(library) for library in ("dualgrad", "numpy")}


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.numpy is not None and r.name not in RANDOM], ids=lambda r: r.name
)
def test_same_as_numpy(row: Row, names: dict[str, dict[str, Any]]) -> None:
    assert row.numpy is not None
    with np.errstate(all="ignore"):
        want = np.asarray(eval(row.numpy, names["numpy"]))
    got = np.asarray(eval(row.dualgrad, names["dualgrad"]).numpy())
    assert got.shape == want.shape
    np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=2e-5, atol=2e-3)


def test_command_prints_a_table() -> None:
    command = [sys.executable, "-m", "benchmarks.eager", "--repeats", "1", "abs", "relu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "ratio" in done.stdout
    assert "relu" in done.stdout
