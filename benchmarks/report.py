"""Results as a text table and as Markdown."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.machine import Machine
from benchmarks.results import ArmResult, Run, WorkloadResult, percentile


def _marks(program: str) -> tuple[str, str]:
    """The lines between which a program's tables stand in a file."""
    what = f"of what `python -m {program} --markdown` writes"
    return f"<!-- begin {what} -->", f"<!-- end {what} -->"


BEGIN, END = _marks("benchmarks")
_COLUMNS = (
    "arm", "step", "p10-p90", "faster", "floor", "runs", "memory", "cold", "warm", "result",
)  # fmt: skip
LEGEND = (
    ("step", "median time of one step, with the 10th and 90th percentile of all measurements"),
    ("faster", "how many times faster than dualgrad eager"),
    ("floor", "how much of the time the machine needs at best, for the work that the table names"),
    ("runs", "programs that dualgrad runs per step / kernels inside of them"),
    ("memory", "most that dualgrad's memory pool had in use"),
    ("cold, warm", "first call in a fresh process after imports: empty and filled disk cache"),
    ("result", "against dualgrad eager: same bits, or the largest relative difference"),
)
_QUIET = 0.05
_WIDTH = 100

_Units = Sequence[tuple[str, float]]
_TIMES = (("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0))
_SIZES = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))


def _three(number: float) -> str:
    """Three significant digits, without an exponent for numbers below 1000."""
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"


def _unit(number: float, units: _Units) -> tuple[str, float]:
    return next((unit for unit in units if number >= unit[1]), units[-1])


def _with_unit(number: float, units: _Units) -> str:
    name, size = _unit(number, units)
    return f"{_three(number / size)} {name}"


def time_text(nanoseconds: float) -> str:
    """A time with its unit: 4.12 ms."""
    return _with_unit(nanoseconds, _TIMES)


def _range_text(low: float, high: float, middle: float) -> str:
    _, size = _unit(middle, _TIMES)
    return f"{_three(low / size)}-{_three(high / size)}"


def spread_text(nanoseconds: list[float]) -> str:
    """The median of some times with their quartiles: 4.12 us (4.03-4.35)."""
    low, middle, high = (percentile(nanoseconds, p) for p in (25, 50, 75))
    name, size = _unit(middle, _TIMES)
    numbers = f"({_three(low / size)}-{_three(high / size)})"
    return f"{_three(middle / size)} {name} {numbers}"


def percent_text(part: float) -> str:
    """A part of a whole: 83 %."""
    return f"{100 * part:.0f} %"


def _cells(arm: ArmResult, result: WorkloadResult) -> list[str]:
    reference, floor = result.arms[0], result.floor
    low, high = arm.spread
    launches, kernels, peak = arm.launches, arm.kernels, arm.peak_bytes
    return [
        arm.arm,
        time_text(arm.median),
        _range_text(low, high, arm.median),
        _three(reference.median / arm.median),
        "" if floor is None else percent_text(floor / arm.median),
        "" if launches is None or kernels is None else f"{launches:.0f}/{kernels:.0f}",
        "" if peak is None else _with_unit(peak, _SIZES),
        time_text(1e9 * arm.cold_seconds),
        "" if arm.warm_seconds is None else time_text(1e9 * arm.warm_seconds),
        _verdict(arm, reference),
    ]


def _verdict(arm: ArmResult, reference: ArmResult) -> str:
    if arm is reference:
        return ""
    if arm.same_bits:
        return "same bits"
    return f"{arm.difference:.1e}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of one width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _rows(result: WorkloadResult) -> list[list[str]]:
    return [_cells(arm, result) for arm in result.arms]


def _floor_text(result: WorkloadResult) -> str:
    """What the floor is made of."""
    floor, work = result.floor, result.work
    if floor is None:
        return "floor: none, for the work is less than the cost of a call"
    amount = f"{_three(1e-6 * work.flops)} MFLOP, " if work.flops else ""
    return f"floor {time_text(floor)}: {amount}{_with_unit(work.bytes, _SIZES)} ({work.formula})"


def header_text(run: Run) -> str:
    """What stands above the tables."""
    lines = [*run.machine.lines(), *(("without", reason) for reason in run.left_out)]
    indent = " " * 10
    return "\n".join(
        textwrap.fill(f"{label + ':':<10}{text}", _WIDTH, subsequent_indent=indent)
        for label, text in lines
    )


def workload_text(result: WorkloadResult) -> str:
    """The table of one workload."""
    lines = [f"{result.name}: {result.title}", *_wrapped(_floor_text(result))]
    lines += [f"  {line}" for line in aligned([_COLUMNS, *_rows(result)])]
    lines += [f"  left out: {reason}" for reason in result.left_out]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def slower_text(results: Mapping[str, WorkloadResult]) -> str:
    """The workloads, by the names that a table has for them, where compiling does not pay.

    Those that looked so when the arms were compared are measured again, in turns in one process.
    """
    ratios = {name: r.arms[1].over_eager for name, r in results.items() if r.slower}
    names = [f"{name} ({ratio:.2f})" for name, ratio in ratios.items()]
    again = sum(result.arms[1].over_eager is not None for result in results.values())
    note = f" ({again} measured again, side by side in one process)" if again else ""
    return f"static slower than eager: {'; '.join(names) or 'none'}{note}"


def _slower_text(run: Run) -> str:
    return slower_text({result.name: result for result in run.results})


def summary(run: Run) -> list[tuple[str, ...]]:
    """One row per workload: static against eager, against the best other arm, and the floor."""
    rows: list[tuple[str, ...]] = [
        ("workload", "eager", "static", "faster", "best other", "", "faster", "floor", "bits")
    ]
    for r in run.results:
        eager, static, other, floor = r.arms[0].median, r.arms[1].median, r.best_other, r.floor
        rows.append((
            r.name,
            time_text(eager),
            time_text(static),
            _three(eager / static),
            "" if other is None else time_text(other.median),
            "" if other is None else other.arm,
            "" if other is None else _three(other.median / static),
            "" if floor is None else percent_text(floor / static),
            "same" if r.same_bits else "DIFFERENT",
        ))  # fmt: skip
    return rows


def summary_text(run: Run) -> str:
    """The summary, and what the columns mean."""
    notes = (*LEGEND, ("others", others_text(run.others_share)))
    texts = [f"{label:<12}{text}" for label, text in notes]
    return "\n".join([*aligned(summary(run)), _slower_text(run), "", *texts])


def others_text(share: float | None) -> str:
    """How busy other processes were."""
    if share is None:
        return "what other processes did during the run is unknown"
    text = f"other processes used {100 * share:.0f} % of all processor time during the run"
    return text if share <= _QUIET else f"{text}: too much"


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as the lines of a table, the first as its head."""
    head, *body = rows
    marks = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, marks, *body)]


def markdown(run: Run) -> str:
    """All tables, between the marks."""
    lines = [BEGIN, ""]
    lines += [f"- {label}: {text}" for label, text in run.machine.lines()]
    lines += [f"- without: {reason}" for reason in run.left_out]
    lines += [f"- {others_text(run.others_share)}", f"- {_slower_text(run)}"]
    lines += [f"- command: `{run.command}`", "", "## Static dualgrad", ""]
    lines += ["Against eager dualgrad and the fastest other arm; floor as below.", ""]
    lines += markdown_table(summary(run))
    for result in run.results:
        lines += ["", f"## {result.name}", "", result.title, "", _floor_text(result), ""]
        lines += markdown_table([_COLUMNS, *_rows(result)])
        lines += [""] * bool(result.left_out) + [f"- left out: {r}" for r in result.left_out]
    lines += ["", "## The columns", ""]
    lines += [f"- **{label}**: {text}" for label, text in LEGEND]
    return "\n".join([*lines, "", END])


def write_markdown(path: Path, tables: str, first: str = BEGIN, last: str = END) -> None:
    """Put the tables into a file; what stands there outside of the marks stays."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"{first}\n{last}\n"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SystemExit(f"{path} exists and does not have the lines\n{first}\n{last}")
    path.write_text(f"{before}{tables}{after}", encoding="utf-8")


def write_section(
    path: Path,
    program: str,
    argv: Sequence[str],
    machine: Machine,
    others_share: float | None,
    table: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
) -> None:
    """Put one table, with how it came about, into a file, between the marks of its program."""
    write_tables(path, program, argv, machine, others_share, {"": table}, notes)


def write_tables(
    path: Path,
    program: str,
    argv: Sequence[str],
    machine: Machine,
    others_share: float | None,
    tables: Mapping[str, Sequence[Sequence[str]]],
    notes: Sequence[str] = (),
) -> None:
    """Put tables, by their titles, into a file as `write_section` does."""
    first, last = _marks(program)
    heads = [f"{label}: {text}" for label, text in machine.lines()]
    heads += [
        others_text(others_share),
        f"command: `{shlex.join(['python', '-m', program, *argv])}`",
    ]
    lines = [first, "", *(f"- {text}" for text in (*heads, *notes))]
    for title, table in tables.items():
        lines += ["", *([f"## {title}", ""] if title else []), *markdown_table(table)]
    write_markdown(path, "\n".join([*lines, "", last]), first, last)
