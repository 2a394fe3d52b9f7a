"""The scoreboard, a plugin of pytest: what tests say about each row of the table of features."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from semantics.rows import OPEN, ROWS

_ROW = re.compile(r"::test_row(\d+)_")
_NEED = re.compile(r"::test_need(\d+)_")
_FULL = 26  # so many rows met are a run of the table, not of a few tests

_rows: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
_needs: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.outcome == "passed":
        return
    for pattern, counts in ((_ROW, _rows), (_NEED, _needs)):
        found = pattern.search(report.nodeid)
        if found is not None:
            counts[int(found[1])][report.outcome] += 1


def row_line(number: int, counts: dict[str, int]) -> str:
    """One line of the scoreboard: number, state, how many tests, title."""
    if counts["failed"]:
        state = "FAILED"
    elif number in OPEN:
        state = "open"
    elif counts["passed"]:
        state = "passed"
    else:
        state = "no test"
    tests = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n)
    remark = f"; {OPEN[number]}" if number in OPEN else ""
    return f"{number:>3}  {state:<8}{ROWS[number]}  [{tests or '-'}{remark}]"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows and not _needs:
        return
    numbers = ROWS if len(_rows) >= _FULL else sorted(_rows)
    terminalreporter.section("rows of the acceptance table")
    lines = [row_line(n, _rows[n]) for n in numbers]
    for line in lines:
        terminalreporter.write_line(line)
    states = ("passed", "FAILED", "open", "no test")
    counts = (f"{sum(line[5:].startswith(s) for line in lines)} {s}" for s in states)
    terminalreporter.write_line(", ".join(counts))
    if _needs:
        found = (f"{n}: {c['passed']}/{sum(c.values())}" for n, c in sorted(_needs.items()))
        terminalreporter.write_line("needs (passed/run): " + ", ".join(found))
