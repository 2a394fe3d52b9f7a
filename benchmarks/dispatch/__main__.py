"""What calls cost beside their kernels: python -m benchmarks.dispatch [options] [groups].

Calls of four numbers do almost no work, so their time is the cost of the call.  Each library has
a process of its own; blocks of all of them follow each other in random order.  Times are medians
with their quartiles.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.arms import REFERENCE, STATIC, Arm, choose_arms
from benchmarks.dispatch import first
from benchmarks.dispatch.measure import (
    EAGER_OFF,
    JAX,
    JAX_JIT,
    KERNELS,
    NUMPY,
    STATIC_OFF,
    TORCH,
    TORCH_COMPILE,
    Arms,
    Effort,
    Measured,
)
from benchmarks.dispatch.rows import FIRST, GROUPS
from benchmarks.machine import Others, describe
from benchmarks.report import aligned, spread_text, time_text, write_tables
from dualgrad.runtime.host import cpu_count

Table = list[tuple[str, ...]]
# The first arm of a group has the results that are expected of the others.
GROUP_ARMS = {
    "eager": (REFERENCE, EAGER_OFF, NUMPY, TORCH, JAX),
    "compiled": (REFERENCE, STATIC, STATIC_OFF, KERNELS, TORCH_COMPILE, JAX_JIT),
    "memory": (REFERENCE, NUMPY, TORCH, JAX),
}
FIRST_ARMS: dict[str, tuple[Arm, ...]] = {
    "eager": (REFERENCE, TORCH, JAX),
    "compiled": (STATIC, TORCH_COMPILE, JAX_JIT),
}
TITLES = {
    "eager": "Eager calls",
    "compiled": "Calls of compiled functions",
    "memory": "Memory of large operands",
    "first": "First calls",
}
_QUICK_REPEATS = 3
_REPEATS = 15


def spread(result: Measured, arm: Arm) -> str:
    found = result.nanoseconds.get(arm.name)
    return spread_text(found) if found else ""


def ratio(result: Measured, own: Arm, others: Sequence[Arm]) -> str:
    found = result.ratio(own, others)
    return "" if found is None else f"{found:.2f}"


def beyond(result: Measured) -> str:
    """The time of a compiled call beyond its kernels; "" where it is lost in their noise."""
    whole, kernels = (result.nanoseconds[arm.name] for arm in (STATIC, KERNELS))
    low, high = sorted(whole)[len(whole) // 4], sorted(kernels)[3 * len(kernels) // 4]
    if low <= high:
        return ""
    return time_text((result.median(STATIC) or 0.0) - (result.median(KERNELS) or 0.0))


def eager_table(results: Sequence[Measured]) -> Table:
    arms = GROUP_ARMS["eager"]
    rows = [
        (r.row.name, *(spread(r, arm) for arm in arms), ratio(r, REFERENCE, arms[2:]))
        for r in results
    ]
    return [("call", "dualgrad", "entries off", "NumPy", "torch", "jax", "ratio"), *rows]


def compiled_table(results: Sequence[Measured]) -> Table:
    head = (
        "call", "compiled", "kernels", "beyond", "entries off", "undecorated",
        "torch.compile", "jax.jit", "ratio",
    )  # fmt: skip
    rows = []
    for r in results:
        first, others = (STATIC, KERNELS), (TORCH_COMPILE, JAX_JIT)
        rest = (STATIC_OFF, REFERENCE, *others)
        own = (*(spread(r, arm) for arm in first), beyond(r), *(spread(r, arm) for arm in rest))
        rows.append((r.row.name, *own, ratio(r, STATIC, others)))
    return [head, *rows]


def memory_table(results: Sequence[Measured]) -> Table:
    arms = GROUP_ARMS["memory"]
    rows = []
    for r in results:
        cells = [r.row.name]
        for arm in arms:
            faults = r.faults.get(arm.name)
            cells += [spread(r, arm), "" if faults is None else f"{faults:.0f}"]
        rows.append((*cells, ratio(r, REFERENCE, arms[1:])))
    names = ("dualgrad", "NumPy", "torch", "jax")
    return [("op", *(c for n in names for c in (n, "faults")), "ratio"), *rows]


TABLES = {"eager": eager_table, "compiled": compiled_table, "memory": memory_table}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dispatch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "groups", nargs="*", help=f"what to measure (default: all): {', '.join(TITLES)}"
    )
    parser.add_argument(
        "--only",
        type=re.compile,
        default=re.compile(""),
        metavar="REGEX",
        help="rows with such names",
    )
    parser.add_argument("--quick", action="store_true", help="rougher, without torch.compile")
    parser.add_argument("--no-peers", action="store_true", help="leave other frameworks out")
    parser.add_argument("--repeats", type=int, help=f"blocks of each library (default: {_REPEATS})")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file")
    arguments = parser.parse_args(argv)
    for name in arguments.groups:
        if name not in TITLES:
            parser.error(f"no group {name!r}; there are {', '.join(TITLES)}")
    arguments.repeats = arguments.repeats or (_QUICK_REPEATS if arguments.quick else _REPEATS)
    return arguments


def run_group(
    group: str, arms: Sequence[Arm], arguments: argparse.Namespace, notes: list[str]
) -> Table:
    """Measure the rows of a group."""
    results = []
    with TemporaryDirectory(prefix="dualgrad-bench-") as folder, ExitStack() as stack:
        processes = Arms(arms, arguments.threads, Path(folder), stack)
        for row in GROUPS[group]:
            if not arguments.only.search(row.name):
                continue
            result = processes.measure(group, row, Effort(arguments.repeats), group == "memory")
            results.append(result)
            times = [f"{a.name} {spread(result, a)}" for a in arms if a.name in result.nanoseconds]
            print(f"{row.name}: {', '.join(times)}", flush=True)
            notes += [f"{row.name}: without {a}: {why}" for a, why in result.left_out.items()]
            if not result.same_bits:
                notes.append(f"{row.name}: compiled and eager results have DIFFERENT bits")
    return TABLES[group](results)


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; 1 if a compiled function's result is not that of the eager one."""
    arguments = parse(argv)
    others, notes, tables = Others(), list[str](), dict[str, Table]()
    chosen: dict[str, Sequence[Arm]] = {}
    for name, arms in (*GROUP_ARMS.items(), *((f"first {n}", a) for n, a in FIRST_ARMS.items())):
        chosen[name], left_out = choose_arms(arms, arguments.quick, not arguments.no_peers)
        notes += [note for note in left_out if note not in notes]
    for group in arguments.groups or TITLES:
        if group == "first":
            firsts = [r for r in FIRST if arguments.only.search(r[1])]
            of_group = {name: chosen[f"first {name}"] for name in FIRST_ARMS}
            found = first.table(firsts, of_group, min(3, arguments.repeats), arguments.threads)
            table: Table = [first.COLUMNS, *map(tuple, found)]
        else:
            table = run_group(group, chosen[group], arguments, notes)
        tables[TITLES[group]] = table
        print(f"\n{TITLES[group]}", *aligned(table), "", sep="\n", flush=True)
    print(*notes, sep="\n")
    if arguments.markdown:
        names = [n for n in ("torch", "jax") if any(a.framework == n for a in chosen["memory"])]
        machine = describe(names, arguments.threads)
        program, share = "benchmarks.dispatch", others.share()
        write_tables(arguments.markdown, program, argv, machine, share, tables, notes)
    return 1 if any("DIFFERENT" in note for note in notes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
