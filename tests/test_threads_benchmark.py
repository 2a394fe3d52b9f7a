"""The benchmark of threads runs, and its loops take the time that they say.  Ratios are not looked
at."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.threads import Row, block, columns, spinner  # noqa: E402
from dualgrad.runtime.host import cpu_count  # noqa: E402

several = pytest.mark.skipif(cpu_count() < 2, reason="needs two processors")


def run(*arguments: str, cpus: set[int] | None = None) -> subprocess.CompletedProcess[str]:
    pin = f"import os; os.sched_setaffinity(0, {cpus}); " if cpus else ""
    text = f"{pin}import sys; from benchmarks.threads import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@several
def test_table(tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    done = run("--repeats", "1", "--only", "50 us", "--markdown", str(file))
    assert done.returncode == 0, done.stderr
    assert "loop of 50 us, 4 chunks" in done.stdout
    head, marks, *rows = [line for line in file.read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 1
    assert {line.count("|") for line in (head, marks, *rows)} == {8}
    assert head == f"| {' | '.join(columns(cpu_count()))} |"
    assert rows[0].count(" us |") == 4


def test_times_are_of_one_piece_of_work_without_rests() -> None:
    calls = []

    def work() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.002)

    row = Row("sleep", work, per=4, pause=0.005)
    nanoseconds = block(row, 0.03)
    assert nanoseconds >= 500_000
    assert min(b - a for a, b in pairwise(calls)) >= 0.007


def test_the_busy_process_works_only_when_it_should() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")

    def seconds(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waits_for(pid: int, growth: float) -> None:
        start, end = seconds(pid), time.monotonic() + 60
        while seconds(pid) < start + growth:
            assert time.monotonic() < end
            time.sleep(0.01)

    with spinner() as spin:
        pid = spin._process.pid
        waits_for(pid, 0.05)
        spin.run(False)
        time.sleep(0.05)
        stopped = seconds(pid)
        time.sleep(0.1)
        assert seconds(pid) == stopped
        spin.run(True)
        waits_for(pid, 0.05)
    assert spin._process.poll() is not None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_one_core_is_not_enough() -> None:
    done = run("--repeats", "1", cpus={min(os.sched_getaffinity(0))})
    assert done.returncode == 2
    assert "one core only" in done.stderr
