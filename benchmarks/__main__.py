"""The command line: python -m benchmarks [options] [workloads], or python -m benchmarks gpu."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import gpu
from benchmarks.arms import ARMS, choose_arms
from benchmarks.floor import machine_text
from benchmarks.machine import Others, describe
from benchmarks.measure import Effort, measure
from benchmarks.report import (
    header_text,
    markdown,
    summary_text,
    workload_text,
    write_markdown,
)
from benchmarks.results import Run
from benchmarks.workloads import WORKLOADS
from dualgrad.runtime.host import cpu_count

_REPEATS = 30
_QUICK_REPEATS = 6
_SECONDS = 40.0  # of each workload's blocks
_QUICK_SECONDS = 4.0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare dualgrad's two modes, and other libraries where they are installed.",
        epilog="DG_BENCH_TENSORFLOW=/path/to/python takes TensorFlow from the environment of that "
        "interpreter, and so on for each library (DG_BENCH_TORCH, DG_BENCH_JAX); python -m "
        "benchmarks gpu --help: figures of a GPU",
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="workload",
        help=f"what to run (default: all, with --quick {', '.join(_quick())}): "
        f"{', '.join(WORKLOADS)}",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="less than a minute; rougher numbers")
    parser.add_argument("--no-peers", action="store_true", help="leave other frameworks out")
    parser.add_argument("--threads", type=_positive, help="threads of each arm (default: all)")
    parser.add_argument(
        "--repeats", type=_positive,
        help=f"blocks of each arm (default: {_REPEATS}, with --quick {_QUICK_REPEATS})",
    )  # fmt: skip
    parser.add_argument("--explain", action="store_true", help="print the reports of @function")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE",
        help="write the tables to a file, in place of those that are there",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    for name in arguments.workloads:
        if name not in WORKLOADS:
            parser.error(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
    return arguments


def _quick() -> list[str]:
    return [name for name, workload in WORKLOADS.items() if workload.quick]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a number of at least 1")
    return number


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; 1 if static and eager results differ, else 0."""
    if argv[:1] == ["gpu"]:
        return gpu.main(argv[1:])
    arguments = _arguments(argv)
    others = Others()
    threads = arguments.threads or cpu_count()
    arms, left_out = choose_arms(ARMS, arguments.quick, not arguments.no_peers)
    machine = replace(
        describe([arm.framework for arm in arms], threads), best=machine_text(threads)
    )
    run = Run(machine, shlex.join(["python", "-m", "benchmarks", *argv]), left_out)
    print(header_text(run), flush=True)
    if arguments.quick:
        effort = Effort(arguments.repeats or _QUICK_REPEATS, _QUICK_SECONDS)
    else:
        effort = Effort(arguments.repeats or _REPEATS, _SECONDS)
    for name in arguments.workloads or (_quick() if arguments.quick else WORKLOADS):
        result = measure(WORKLOADS[name](), arms, effort, threads)
        run.results.append(result)
        print(f"\n{workload_text(result)}", flush=True)
        if arguments.explain:
            print(result.arms[1].report)
    run.others_share = others.share()
    print(f"\n{summary_text(run)}")

    if arguments.json:
        arguments.json.write_text(json.dumps(run.as_json(), indent=1) + "\n", encoding="utf-8")
    if arguments.markdown:
        write_markdown(arguments.markdown, markdown(run))
    return 0 if all(result.same_bits for result in run.results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
