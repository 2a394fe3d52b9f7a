"""One op over many sizes, against PyTorch: what `benchmarks.gemm`, `benchmarks.kernels` and
`benchmarks.bandwidth` print.

The processes of the libraries take turns in blocks, in random order, after their results have been
compared; see `benchmarks.measure`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

import dualgrad as dg
from benchmarks.arms import REFERENCE, STATIC, TORCH, choose_arms
from benchmarks.floor import machine_text
from benchmarks.machine import Others, describe
from benchmarks.measure import Effort, measure_grid
from benchmarks.report import aligned, percent_text, slower_text, time_text, write_section
from benchmarks.results import WorkloadResult
from benchmarks.workloads import Workload
from dualgrad.runtime.host import cpu_count

_COLUMNS = ("work", "eager", "static", "torch", "faster", "GFLOP/s", "floor", "bits", "torch's")
_LEGEND = (
    "times: 10th percentiles; faster: static against PyTorch (its eager mode); floor: how much of "
    "the time the machine needs at best; bits: of static against eager; torch's: largest relative "
    "difference"
)


def main(program: str, about: str, workloads: Sequence[Workload], argv: Sequence[str]) -> int:
    """The command line of a grid; 1 if static and eager results differ, else 0."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument(
        "only", nargs="*", metavar="TEXT", help="rows whose name has one of these texts"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave PyTorch out")
    parser.add_argument("--repeats", type=int, default=15, help="blocks of each library")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    arguments = parser.parse_args(argv)
    texts = arguments.only or [""]
    chosen = [w for w in workloads if any(text in w.title() for text in texts)]
    if not chosen:
        parser.error(f"no row has this text; there are {'; '.join(w.title() for w in workloads)}")
    others, threads = Others(), arguments.threads
    dg.set_num_threads(threads)
    arms, _ = choose_arms((REFERENCE, STATIC, TORCH), False, not arguments.no_peers)
    results = []
    for result in measure_grid(chosen, arms, Effort(arguments.repeats, settle=0.01), threads):
        results.append(result)
        print("  ".join(_cells(result)), file=sys.stderr, flush=True)
    table = [_COLUMNS, *map(_cells, results)]
    notes = [f"best: {machine_text(threads)}", *_summary(results), _LEGEND]
    print("\n".join([*aligned(table), *notes]))
    if arguments.markdown:
        machine = describe([arm.framework for arm in arms], threads)
        write_section(arguments.markdown, program, argv, machine, others.share(), table, notes)
    return 0 if all(result.same_bits for result in results) else 1


def _cells(result: WorkloadResult) -> tuple[str, ...]:
    eager, static = result.arms[:2]
    faster, floor, flops = _faster(result), result.undisturbed_floor, result.work.flops
    peer = result.arms[2] if len(result.arms) > 2 else None
    return (
        result.title,
        time_text(eager.undisturbed),
        time_text(static.undisturbed),
        "" if peer is None or faster is None else time_text(peer.undisturbed),
        "" if faster is None else f"{faster:.2f}",
        f"{flops / static.undisturbed:.0f}" if flops else "",
        "" if floor is None else percent_text(floor / static.undisturbed),
        "same" if result.same_bits else "DIFFERENT",
        "" if peer is None else f"{peer.difference:.1e}",
    )


def _faster(result: WorkloadResult) -> float | None:
    """How many times faster than PyTorch."""
    return result.arms[2].undisturbed / result.arms[1].undisturbed if len(result.arms) > 2 else None


def _summary(results: Sequence[WorkloadResult]) -> list[str]:
    ratios = {r.title: ratio for r in results if (ratio := _faster(r)) is not None}
    lines = []
    if ratios:
        least = min(ratios, key=lambda name: ratios[name])
        mean = geometric_mean(ratios.values())
        lines.append(
            f"{len(ratios)} rows compared: geometric mean {mean:.2f} times as fast as PyTorch, "
            f"least {ratios[least]:.2f} ({least})"
        )
    lines += [f"{result.title}: {reason}" for result in results for reason in result.left_out]
    return [*lines, slower_text({result.title: result for result in results})]
