"""The benchmark of calls: its arms compute the same, kernels are timed by running them, and the
command prints its tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.dispatch.libraries import Dualgrad, Library, NumPy  # noqa: E402
from benchmarks.dispatch.rows import COMPILED, EAGER, FIRST, GROUPS, LARGE, Row  # noqa: E402

IN_NUMPY = [r for r in (*EAGER, *COMPILED, *LARGE[::2]) if "numpy" not in r.lacking]


def value(row: Row, library: Library) -> Any:
    """The result of the second call: some rows have a state."""
    call = row.make(library)
    names = dict(call.names)
    eval(call.expression, names)
    result = eval(call.expression, names)
    return np.asarray(result.detach() if hasattr(result, "detach") else result)


@pytest.mark.parametrize("row", IN_NUMPY, ids=lambda r: r.name)
def test_same_as_numpy(row: Row) -> None:
    got, want = value(row, Dualgrad("")), value(row, NumPy(""))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("row", COMPILED, ids=lambda r: r.name)
def test_compiled_is_eager(row: Row) -> None:
    got, want = value(row, Dualgrad("dualgrad.function")), value(row, Dualgrad(""))
    np.testing.assert_array_equal(got, want)


def test_first_calls_are_rows() -> None:
    for group, name in FIRST:
        assert [r.name for r in GROUPS[group]].count(name) == 1


LOOP = """
from benchmarks.dispatch.kernels import Recorder

recorder = Recorder()
import dualgrad as dg

@dg.function(strict=True)
def count(x):
    x += 1
    return x * 2

x = dg.zeros(3)
count(x)
with recorder:
    count(x)
before = x[0].item()
assert before == 2, before
nanoseconds = recorder.time(1e-4)
runs = x[0].item() - before
assert runs >= 1 and (int(runs) + 1) & int(runs) == 0, runs  # 1 + 2 + 4 + ...
assert 1e5 / nanoseconds <= (runs + 1) / 2
with recorder:
    pass
assert recorder.time(1e-4) == 0
"""


def test_kernels_are_run_as_often_as_is_said() -> None:
    """The program of the recorded call runs; its effect on memory tells how often."""
    done = subprocess.run(
        [sys.executable, "-c", LOOP],
        cwd=ROOT,
        env={**os.environ, "DG_NATIVE": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.dispatch", "--no-peers", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_command_writes_its_tables(tmp_path: Path) -> None:
    tables = tmp_path / "tables.md"
    mark = "<!-- {} of what `python -m benchmarks.dispatch --markdown` writes -->"
    tables.write_text(f"before\n{mark.format('begin')}\nold\n{mark.format('end')}\nafter\n")
    done = run(
        "--only",
        r"x \+ 1.*4 n|x \+ y`, 1M",
        "--repeats",
        "1",
        "--threads",
        "1",
        "--markdown",
        str(tables),
    )
    assert done.returncode == 0, done.stderr
    lines = tables.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    titles = [line for line in lines if line.startswith("## ")]
    assert len(titles) == 4
    for head in ("| call | dualgrad |", "| call | compiled | kernels |", "| first call |"):
        assert sum(line.startswith(head) for line in lines) == 1, head
    assert "jax: left out by --no-peers" in tables.read_text()


def test_unknown_group() -> None:
    done = run("eagre")
    assert done.returncode == 2
    assert "no group 'eagre'; there are eager, compiled, memory, first" in done.stderr
