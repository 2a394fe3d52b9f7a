"""What the first call of a compiled function costs: python -m benchmarks.compile_time [options].

Each measurement is the first call in a process of its own: with a cache folder that has only the
code of the runtime itself, which is made once per machine (cold), or with one that an earlier
process has filled (cached).  The row "runtime" is the first call of all, of a program that needs
that code: a product and a sum.  Loading llvmlite is a cost of the process and is reported apart:
before a cold call it is loaded already.  Modules are there as bytecode, as pip leaves them.  Times
are the least of several processes.  CPU times are those of the whole call; they say more on a
busy machine.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import dualgrad as dg
from benchmarks.compile_programs import PROGRAMS, RUNTIME
from benchmarks.machine import Others, describe
from benchmarks.process import ROOT
from benchmarks.report import aligned, time_text, write_section
from dualgrad.runtime.host import cpu_count

COLUMNS = ("program", "n", "cold", "trace", "passes", "machine code", "cold CPU", "cached", "ratio")
SIZES = (100, 200, 400)
_STAGES = ("trace", "passes", "machine code", "load")
Times = dict[str, float]  # seconds, by stage


def first_call(name: str, n: int, train: bool, warm: bool) -> Times:
    """Seconds of the first call in this process, by stage."""
    step, arguments = PROGRAMS[name](n, train)
    started = time.perf_counter()
    if not warm:
        binding = importlib.import_module("llvmlite.binding")
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
    loading = time.perf_counter() - started
    function = dg.function(step, strict=True)
    cpu, started = time.process_time(), time.perf_counter()
    function(*arguments)
    times = {"total": time.perf_counter() - started, "CPU": time.process_time() - cpu}
    for stage in _STAGES:
        found = re.search(rf"{stage} ([\d.]+) ms", function.report())
        assert found is not None
        times[stage] = 1e-3 * float(found[1])
    return {**times, "llvmlite": loading}


def measured(name: str, n: int, train: bool, repeats: int) -> tuple[Times, Times]:
    """The least times of cold and of cached calls."""
    cold, cached = [], []
    for _ in range(repeats):
        with TemporaryDirectory(prefix="dualgrad-compile-") as folder:
            if name != RUNTIME:
                _ask(folder, RUNTIME, 1, False, "cold")
            cold.append(_ask(folder, name, n, train, "cold"))
            cached += [_ask(folder, name, n, train, "warm") for _ in range(2)]
    return min(cold, key=_cpu), min(cached, key=_cpu)


@cache
def _bytecode() -> str:
    """A folder for the bytecode of modules, which the first process fills."""
    folder = TemporaryDirectory(prefix="dualgrad-bytecode-")
    atexit.register(folder.cleanup)
    return folder.name


def _cpu(times: Times) -> float:
    return times["CPU"]


def _ask(folder: str, name: str, n: int, train: bool, state: str) -> Times:
    command = [sys.executable, "-m", "benchmarks.compile_time", "--once", name, str(n)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"DG_CACHE_DIR": folder, "PYTHONPYCACHEPREFIX": _bytecode()}
    done = subprocess.run(
        [*command, str(int(train)), state],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    out: Times = json.loads(done.stdout)
    return out


def rows(names: Sequence[str], sizes: Sequence[int], repeats: int) -> list[list[str]]:
    """One row per program, size and kind; the ratio is that of cold CPU times to the first size."""
    out = []
    for name in names:
        single = name in (RUNTIME, "three", "mlp")
        for train in (False,) if single else (False, True):
            title = f"{name}, {'training step' if train else 'forward'}" if not single else name
            base: float | None = None
            for n in (1,) if single else sizes:
                cold, cached = measured(name, n, train, repeats)
                base = base or cold["CPU"]
                stages = [time_text(1e9 * cold[s]) for s in ("total", *_STAGES[:3], "CPU")]
                ratio = "" if single else f"{cold['CPU'] / base:.1f}"
                both = f"{time_text(1e9 * cached['total'])} (CPU {time_text(1e9 * cached['CPU'])})"
                out.append([title, "" if single else str(n), *stages, both, ratio])
                print("  ".join(out[-1]), flush=True)
    return out


def main(argv: Sequence[str]) -> int:
    if argv[:1] == ["--once"]:
        name, n, train, state = argv[1:]
        print(json.dumps(first_call(name, int(n), train == "1", state == "warm")))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_time", description=__doc__)
    parser.add_argument("programs", nargs="*", help=f"default: all of {', '.join(PROGRAMS)}")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=2, help="caches that are filled")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    arguments = parser.parse_args(argv)
    for name in arguments.programs:
        if name not in PROGRAMS:
            parser.error(f"no program {name!r}; there are {', '.join(PROGRAMS)}")
    others = Others()
    found = rows(arguments.programs or list(PROGRAMS), arguments.sizes, arguments.repeats)
    table = [COLUMNS, *found]
    print("\n".join(aligned(table)))
    if arguments.markdown:
        machine = describe([], cpu_count())
        program, share = "benchmarks.compile_time", others.share()
        write_section(arguments.markdown, program, argv, machine, share, table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
