"""The benchmark runs, and what it says about results is true.  Times are not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MARK = "<!-- {} of what `python -m benchmarks --markdown` writes -->"
ARMS = ["dualgrad eager", "dualgrad static", "NumPy"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Text, JSON and Markdown of one small run."""
    folder = tmp_path_factory.mktemp("benchmarks")
    tables = folder / "tables.md"
    tables.write_text(f"before\n{MARK.format('begin')}\nold\n{MARK.format('end')}\nafter\n")
    done = run(
        "--quick", "--no-peers", "--repeats", "1", "--threads", "1", "chain", "dispatch",
        "--json", str(folder / "numbers.json"), "--markdown", str(tables),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "numbers.json").read_text()), tables.read_text()


def test_numbers(files):
    _, numbers, _ = files
    assert [w["name"] for w in numbers["workloads"]] == ["chain", "dispatch"]
    assert numbers["machine"]["threads"] == 1
    for workload in numbers["workloads"]:
        assert workload["same_bits"] is True
        assert [arm["arm"] for arm in workload["arms"]] == ARMS
        for arm in workload["arms"]:
            assert arm["nanoseconds"]
            assert 0 < arm["p10_ns"] <= arm["median_ns"] <= arm["p90_ns"]
            assert arm["cold_seconds"] > 0
            assert arm["difference"] < 1e-5


def test_launches_show_the_fusion(files):
    _, numbers, _ = files
    eager, static, other = numbers["workloads"][0]["arms"]
    assert (eager["launches"], static["launches"], other["launches"]) == (7, 1, None)
    assert static["kernels"] == 1
    assert eager["peak_bytes"] > static["peak_bytes"] >= 4_000_000
    assert "chain" not in static["report"]
    assert "1 trace(s)" in static["report"]


def test_other_libraries_are_said_to_be_left_out(files):
    text, numbers, _ = files
    for name in ("torch eager", "torch.compile", "jax.jit"):
        assert f"{name}: left out by --no-peers" in numbers["left_out"]
        assert f"without:  {name}: left out by --no-peers" in text


def test_text_is_readable(files):
    text, _, _ = files
    assert max(map(len, text.splitlines())) <= 100
    for name in ("machine:", "versions:", "threads:", *ARMS):
        assert name in text
    assert "same bits" in text


def test_markdown_keeps_what_is_around_it(files):
    _, _, tables = files
    lines = tables.splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert sum(line.startswith("| dualgrad static |") for line in lines) == 2
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert widths == {11}


def test_unknown_workload():
    done = run("--quick", "mlpp")
    assert done.returncode == 2
    assert "no workload 'mlpp'; there are mlp, mlp3" in done.stderr


NUDGE = """
def nudge(step):
    changed = lambda x: step(x) * (1 + 2**-23)
    changed.report = lambda: "nudged"
    return changed
"""

WITH_NUDGE = """
from dataclasses import replace
from benchmarks import measure, report
from benchmarks.arms import REFERENCE, STATIC, Arm
from benchmarks.workloads.kernels import Dispatch

measure.STATIC = replace(STATIC, decorator="nudge.nudge")
arms = [REFERENCE, measure.STATIC, Arm("other", "missing")]
result = measure.measure(Dispatch(), arms, measure.Effort(1), 1)
static = result.arms[1]
assert not static.same_bits
assert 2**-25 < static.difference < 2**-22
assert result.left_out == ["other: ModuleNotFoundError: No module named 'benchmarks.steps.missing'"]
print(report.workload_text(result))
"""


def test_different_bits_are_seen(tmp_path):
    """A decorator that changes last bits is found out; an arm that cannot run is left out."""
    (tmp_path / "nudge.py").write_text(NUDGE)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", WITH_NUDGE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "left out: other: ModuleNotFoundError" in done.stdout
