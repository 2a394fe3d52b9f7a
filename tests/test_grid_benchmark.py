"""The grids of sizes run, and their rows are what their names say.  Times are not looked at."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import bandwidth, gemm, grid, kernels  # noqa: E402
from benchmarks.steps import dualgrad as steps  # noqa: E402
from benchmarks.workloads.grids import Attention, Convolution, Product  # noqa: E402

HAS_TORCH = importlib.util.find_spec("torch") is not None


def test_table(tmp_path):
    file = tmp_path / "table.md"
    command = [sys.executable, "-m", "benchmarks.gemm", "tiny", "64x64x64", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--markdown", str(file)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in file.read_text().splitlines() if line[:1] == "|"]
    assert [row[0].strip() for row in rows[2:]] == [
        "square: 64x64x64, a b",
        "tiny: 16x16x16, a b",
    ]
    assert all(row[7].strip() == "same" for row in rows[2:])
    assert ("2 rows compared" in done.stdout) == HAS_TORCH
    assert "static slower than eager:" in done.stdout


def test_names_are_different():
    for rows in (gemm.GRID, kernels.GRID, bandwidth.GRID):
        names = [row.title() for row in rows]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", gemm.GRID, ids=lambda row: row.title())
def test_products_have_the_shapes_of_their_names(row):
    """Operands as the program gets them, and whether their rows or columns are consecutive."""
    program = steps.product(row.arrays(), lambda step: step)
    a, b, *rest = program.inputs[0]
    sizes = re.search(r"(?:(\d+) of )?(\d+)x(\d+)x(\d+)", row.title())
    batch, m, k, n = (int(x) if x else None for x in sizes.groups())
    lead = () if batch is None else (batch,)
    assert (a.shape, b.shape) == ((*lead, m, k), (*lead, k, n))
    assert len(rest) == ("relu" in row.title())
    assert [x.numpy().strides[-1] != 4 for x in (a, b)] == [f"{x}^T" in row.title() for x in "ab"]


SMALL = (
    [
        Convolution(part, 2, 4, (7,) * rank, 6, 3, stride=stride, padding=1, groups=groups)
        for part in ("forward", "weight", "input")
        for rank, stride, groups in ((1, 1, 1), (2, 2, 2))
    ]
    + [
        Attention(part, 1, 2, 5, 4, causal=causal)
        for part, causal in (("forward", True), ("forward and backward", False))
    ]
    + [replace(row, rows=3) for row in bandwidth.GRID]
)


@pytest.mark.parametrize("row", bandwidth.GRID, ids=lambda row: row.title())
def test_no_cache_holds_what_streams(row):
    small = replace(row, rows=2)
    program = steps.streaming(small.arrays(), lambda step: step)
    result = program.step(*program.inputs[0])
    moved = sum(x.numel() for x in program.inputs[0]) + (result.numel() if row.results else 0)
    assert small.work().bytes == 4 * moved
    assert row.work().bytes >= 256 << 20


@pytest.mark.parametrize("row", SMALL, ids=lambda row: row.title())
def test_both_libraries_compute_the_same(row):
    pytest.importorskip("torch")
    torch_steps = pytest.importorskip("benchmarks.steps.torch")
    own, other = (
        getattr(module, row.name)(row.arrays(), lambda step: step)
        for module in (steps, torch_steps)
    )
    got = own.step(*own.inputs[0]).detach().numpy()
    expected = other.step(*other.inputs[0]).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_an_unknown_row_is_an_error(capsys):
    with pytest.raises(SystemExit):
        grid.main("benchmarks.gemm", "", [Product("square", 2, 2, 2)], ["triangle"])
    assert "there are square: 2x2x2, a b" in capsys.readouterr().err
