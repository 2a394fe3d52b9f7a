"""The benchmark runs, and what it says about results is true.  Times are not looked at."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import llvmlite
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import frameworks, session  # noqa: E402
from benchmarks.arms import REFERENCE, Arm, choose_arms  # noqa: E402
from benchmarks.program import Program  # noqa: E402
from benchmarks.report import slower_text  # noqa: E402
from benchmarks.results import ArmResult, WorkloadResult, looks_slower  # noqa: E402
from benchmarks.steps import dualgrad as own_steps  # noqa: E402
from benchmarks.workloads import WORKLOADS  # noqa: E402
from benchmarks.workloads.base import Work  # noqa: E402

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
    for name in ("torch eager", "torch.compile", "jax.jit", "TF function", "TF XLA"):
        assert f"{name}: left out by --no-peers" in numbers["left_out"]
        assert f"without:  {name}: left out by --no-peers" in text


def test_text_is_readable(files):
    text, _, _ = files
    assert max(map(len, text.splitlines())) <= 100
    for name in ("machine:", "versions:", "threads:", *ARMS):
        assert name in text
    assert "same bits" in text


def test_the_summary_is_that_of_the_numbers(files):
    text, numbers, tables = files
    for workload in numbers["workloads"]:
        eager, static, other = (arm["median_ns"] for arm in workload["arms"])
        (line,) = (x for x in tables.splitlines() if x.startswith(f"| {workload['name']} |"))
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert float(cells[3]) == pytest.approx(eager / static, rel=0.02)
        assert cells[5] == "NumPy"
        assert float(cells[6]) == pytest.approx(other / static, rel=0.02)
        floor = workload["floor_ns"]
        expected = "" if floor is None else f"{100 * floor / static:.0f} %"
        assert cells[7] == expected
    (line,) = (x for x in text.splitlines() if x.startswith("static slower than eager: "))
    assert ("none" in line) == (not any(w["slower"] for w in numbers["workloads"]))


def test_markdown_keeps_what_is_around_it(files):
    _, _, tables = files
    lines = tables.splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert sum(line.startswith("| dualgrad static |") for line in lines) == 2
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert widths == 4 * [10] + 2 * 5 * [11]


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
from benchmarks.workloads.functions import Dispatch

measure.STATIC = replace(STATIC, decorator="nudge.nudge")
others = [Arm("other", "missing"), Arm("TF XLA", "missing")]
arms = [REFERENCE, measure.STATIC, *others]
class Few(Dispatch):
    lacking = ("TF XLA",)
result = measure.measure(Few(), arms, measure.Effort(1), 1)
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


def test_a_step_beside_itself(monkeypatch, tmp_path):
    """Compiled and plain steps are timed in turns: here one is to take 1.5 times the other."""
    clock = SimpleNamespace(now=0)

    def plain(x):
        clock.now += 1_000_000
        return x

    def slowed(step, more):
        def longer(x):
            clock.now += more
            return step(x)

        return longer

    monkeypatch.setitem(sys.modules, "slowed", SimpleNamespace(slowed=slowed))
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock.now)
    steps = SimpleNamespace(
        work=lambda arrays, compiled: Program(compiled(plain, more=500_000), [(1.0,)])
    )
    measured = session.Session(steps, "slowed.slowed", "", 0.0)
    np.savez(tmp_path / "arrays.npz")
    measured.start("work", str(tmp_path / "arrays.npz"), 1, 1, str(tmp_path / "results.npz"))
    assert measured.block(0.0, 0.002) == 5 * [1_500_000]
    assert measured.over_plain() == 1.5


def test_rows_where_compiling_does_not_pay():
    """A row counts as slower by what was measured side by side, not by the arms' processes."""
    results = {}
    for name, ratio in (("level", None), ("noise", 1.02), ("slow", 1.1)):
        arms = [ArmResult("eager", 0.0, None, 0.0), ArmResult("static", 0.0, None, 0.0)]
        arms[0].nanoseconds, arms[1].nanoseconds = [100.0], [101.0 if ratio is None else 120.0]
        assert looks_slower(arms[1], arms[0]) == (ratio is not None)
        arms[1].over_eager = ratio
        results[name] = WorkloadResult(name, name, arms, [], Work(0, 0, ""), [1.0])
    assert slower_text(results) == (
        "static slower than eager: slow (1.10) (2 measured again, side by side in one process)"
    )


def test_frameworks_in_environments_of_their_own(monkeypatch):
    """Another interpreter is asked, and runs the arm; one that does not exist has nothing."""
    monkeypatch.setenv("DG_BENCH_OTHER", "/no/such/python")
    assert frameworks.interpreter("other") == "/no/such/python"
    assert frameworks.version("other") is None
    assert frameworks.interpreter("llvmlite") == sys.executable
    assert frameworks.version("llvmlite") == llvmlite.__version__
    chosen, left_out = choose_arms([REFERENCE, Arm("other", "other")], False, True)
    assert chosen == [REFERENCE]
    assert left_out == ["other: other is not installed in /no/such/python"]


def uncompiled(step, **options):
    return step


FRAMEWORKS = ["dualgrad", "torch", "jax", "numpy", "tensorflow"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_have_the_workloads_that_they_do_not_lack(framework):
    """The source is asked, for a framework need not be installed."""
    tree = ast.parse((ROOT / "benchmarks" / "steps" / f"{framework}.py").read_text())
    made = {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}
    for name, workload in WORKLOADS.items():
        assert (name in made) == (framework not in workload.lacking), name


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("name", ["mlp3", "tiny", "black_scholes", "layernorm_gelu", "matmul"])
def test_frameworks_compute_the_same(framework, name):
    """Some steps, from one state; after a reset, the same steps again."""
    pytest.importorskip(framework)
    arrays = WORKLOADS[name]().arrays()
    results = []
    for module in (own_steps, importlib.import_module(f"benchmarks.steps.{framework}")):
        program = getattr(module, name)(dict(arrays), uncompiled)
        for _ in range(2):
            steps = [program.step(*inputs) for inputs in program.inputs[:4]]
            results.append([np.asarray(getattr(x, "detach", lambda x=x: x)()) for x in steps])
            program.reset()
    first, again, *others = results
    np.testing.assert_array_equal(first, again)
    for other in others:
        for x, y in zip(first, other, strict=True):
            np.testing.assert_allclose(y, x, rtol=0, atol=1e-5 * np.abs(x).max())
