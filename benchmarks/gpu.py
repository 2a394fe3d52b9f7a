"""What a GPU does with dualgrad, in about ten minutes: python -m benchmarks gpu [options].

Times of the host are those of calls that only queue work; times of the device are taken between
two events around many runs.  All are medians.  Bandwidth counts every array once, however often a
kernel reads it; matmuls are our own kernels, in full float32.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dualgrad as dg
from benchmarks.machine import describe
from benchmarks.report import aligned, markdown_table, time_text, write_markdown
from benchmarks.training import training_step
from dualgrad import functional
from dualgrad.runtime import cuda
from dualgrad.runtime.cupy_driver import CupyDriver
from dualgrad.runtime.driver import Driver
from dualgrad.runtime.errors import DeviceError
from dualgrad.runtime.host import cpu_count

BEGIN = "<!-- begin of what `python -m benchmarks gpu --markdown` writes -->"
END = "<!-- end of what `python -m benchmarks gpu --markdown` writes -->"
COLUMNS = ("what", "figure", "remark")
Rows = Iterator[tuple[str, str, str]]

_QUEUE = 500  # calls before waiting: a device's queue takes about a thousand
_ITEM = 4  # bytes of a float32
_COLUMNS = 1024  # of matrices that are not about long rows

_EMPTY = """extern "C" __global__ void one(float* a) {}
extern "C" __global__ void eight(float* a, float* b, float* c, float* d,
                                 long long n, long long m, double s, double t) {}
"""


@dataclass(frozen=True)
class Effort:
    """How large and how long.

    elements   of the large arrays, float32
    rows       lengths of rows
    matmuls    rows and columns of square matrices
    graphs     numbers of kernels
    batch, width   of the model that is trained
    seconds    of one measurement, about
    repeats    measurements of which the median is taken
    """

    elements: int = 1 << 28
    rows: tuple[int, ...] = (1024, 4096, 16384, 65536)
    matmuls: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    graphs: tuple[int, ...] = (10, 100, 1000)
    batch: int = 128
    width: int = 512
    seconds: float = 0.2
    repeats: int = 7


TINY = Effort(1 << 12, (64,), (16,), (3,), 4, 8, 0.0, 1)


class Clock:
    """Measures work on a device, in seconds of one run."""

    def __init__(self, driver: Driver, effort: Effort) -> None:
        self.driver, self.effort = driver, effort

    def host(self, work: Callable[[], object]) -> float:
        """Until a call returns; the device may still be at work."""
        return self._median(work, self._host)

    def wall(self, work: Callable[[], object]) -> float:
        """Until the work is done, host and device together, when run back to back."""
        return self._median(work, self._wall)

    def device(self, work: Callable[[], object]) -> float:
        """Of the device; of the host where that is slower in queueing."""
        return self._median(work, self._device)

    def _median(
        self, work: Callable[[], object], measure: Callable[[Callable[[], object], int], float]
    ) -> float:
        work()  # compiles, and fills the memory pool
        once = self._wall(work, 1)
        calls = min(max(int(self.effort.seconds / once), 1), _QUEUE)
        return statistics.median(measure(work, calls) for _ in range(self.effort.repeats))

    def _host(self, work: Callable[[], object], calls: int) -> float:
        self.driver.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - started) / calls

    def _wall(self, work: Callable[[], object], calls: int) -> float:
        self.driver.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            work()
        self.driver.synchronize()
        return (time.perf_counter() - started) / calls

    def _device(self, work: Callable[[], object], calls: int) -> float:
        start, end = self.driver.event(), self.driver.event()
        self.driver.record(start)
        for _ in range(calls):
            work()
        self.driver.record(end)
        return self.driver.elapsed(start, end) / 1e3 / calls


def _time(seconds: float) -> str:
    return time_text(1e9 * seconds)


def _bandwidth(nbytes: float, seconds: float) -> str:
    return f"{nbytes / seconds / 1e9:.4g} GB/s"


# -- the driver -----------------------------------------------------------------------------------


def launches(clock: Clock) -> Rows:
    """Kernels that do nothing, one block of 32 threads."""
    driver = clock.driver
    yield "compile two kernels", _time(clock.host(partial(driver.compile, _EMPTY))), "host"
    module = driver.load(driver.compile(_EMPTY))
    memory = driver.allocate(512)
    pointer = struct.pack("=Q", memory.address)
    numbers = struct.pack("=qqdd", 1, 2, 3.0, 4.0)
    for name, args in (("one", pointer), ("eight", 4 * pointer + numbers)):
        launch = partial(driver.launch, driver.function(module, name), 1, 32, args)
        yield f"launch, parameters: {name}", _time(clock.host(launch)), "host"
        yield f"launch, parameters: {name}", _time(clock.device(launch)), "device, back to back"

    def launch_and_wait() -> None:
        launch()
        driver.synchronize()

    yield "launch and wait", _time(clock.host(launch_and_wait)), "host"
    for count in clock.effort.graphs:
        with driver.capture() as graph:
            for _ in range(count):
                launch()
        replay = partial(driver.replay, graph)
        yield f"replay of a graph of {count} kernels", _time(clock.host(replay)), "host"
        each = clock.device(replay) / count
        yield f"replay of a graph of {count} kernels", _time(each), "device, of each kernel"


def memory(clock: Clock) -> Rows:
    """Allocations that the pool has ready, and copies."""
    driver, nbytes = clock.driver, _ITEM * clock.effort.elements
    for size in (1 << 10, 1 << 20, nbytes):
        took = clock.host(partial(driver.allocate, size))
        yield f"allocate and free {size} bytes", _time(took), "host"
    copy = _copy_seconds(clock, nbytes)
    yield "copy on the device", _bandwidth(2 * nbytes, copy), "read and written"
    here = driver.allocate(nbytes)
    fill = clock.device(partial(driver.fill, here.address, 0, nbytes))
    yield "fill", _bandwidth(nbytes, fill), ""
    for size in (4 << 10, min(256 << 20, nbytes)):
        data = memoryview(bytearray(size))
        up = clock.wall(partial(driver.upload, here.address, data))
        down = clock.wall(partial(driver.download, data, here.address))
        yield f"upload {size} bytes", _time(up), _bandwidth(size, up)
        yield f"download {size} bytes", _time(down), _bandwidth(size, down)


def _copy_seconds(clock: Clock, nbytes: int) -> float:
    driver = clock.driver
    here, there = driver.allocate(nbytes), driver.allocate(nbytes)
    return clock.device(partial(driver.copy, there.address, here.address, nbytes))


# -- kernels --------------------------------------------------------------------------------------


def streams(clock: Clock) -> Rows:
    """Compiled functions of large arrays, compared with the driver's copy."""
    nbytes = _ITEM * clock.effort.elements
    x, y = (dg.ones(clock.effort.elements, device="cuda") for _ in range(2))
    table, row = x.reshape(-1, _COLUMNS), dg.ones(_COLUMNS, device="cuda")
    copy = _copy_seconds(clock, nbytes) / (2 * nbytes)
    cases: list[tuple[str, Callable[..., Any], tuple[Any, ...], int]] = [
        ("x * 2 + 1", lambda x: x * 2.0 + 1.0, (x,), 2),
        ("x * 2 + y", lambda x, y: x * 2.0 + y, (x, y), 3),
        ("tanh(x * x + 1)", lambda x: dg.tanh(x * x + 1.0), (x,), 2),
        ("table + row", lambda x, y: x + y, (table, row), 2),
        ("transposed copy", lambda x: x.transpose(0, 1).clone(), (table,), 2),
        ("sum of all", lambda x: x.sum(), (x,), 1),
        ("sums of columns", lambda x: x.sum(0), (table,), 1),
        ("sums of rows", lambda x: x.sum(1), (table,), 1),
        ("running sums of rows", lambda x: x.cumsum(1), (table,), 2),
    ]
    for length in clock.effort.rows:
        rows, weight = x.reshape(-1, length), dg.ones(length, device="cuda")
        cases += [
            (f"softmax of rows of {length}", lambda x: dg.softmax(x, 1), (rows,), 2),
            (f"layer norm of rows of {length}", _layer_norm, (rows, weight), 2),
        ]
    for name, function, args, arrays in cases:
        compiled = dg.function(function, strict=True)
        took = clock.device(partial(compiled, *args))
        share = copy * arrays * nbytes / took
        yield name, _bandwidth(arrays * nbytes, took), f"{100 * share:.0f} % of copy"


def _layer_norm(x: dg.Tensor, weight: dg.Tensor) -> Any:
    return functional.layer_norm(x, (x.shape[1],), weight)


def matmuls(clock: Clock) -> Rows:
    """Square float32 matrices, ours and those of cuBLAS through CuPy."""
    for n in clock.effort.matmuls:
        a, b = (dg.ones(n, n, device="cuda") for _ in range(2))
        compiled = dg.function(lambda a, b: a @ b, strict=True)
        ours = clock.device(partial(compiled, a, b))
        theirs = _cublas(clock, n)
        remark = "" if theirs is None else f"cuBLAS: {_flops(n, theirs)}"
        yield f"matmul of {n} x {n}", _flops(n, ours), remark


def _flops(n: int, seconds: float) -> str:
    return f"{2 * n**3 / seconds / 1e12:.3g} TFLOP/s"


def _cublas(clock: Clock, n: int) -> float | None:
    """Seconds of a product by cuBLAS, where CuPy is used and has it."""
    if not isinstance(clock.driver, CupyDriver):
        return None
    import cupy

    a, b, out = (cupy.ones((n, n), cupy.float32) for _ in range(3))
    try:
        return clock.device(partial(cupy.matmul, a, b, out=out))
    except ImportError:  # CuPy without NVIDIA's libraries
        return None


# -- training -------------------------------------------------------------------------------------


def training(clock: Clock) -> Rows:
    """Small work, where calls cost more than kernels."""
    x = dg.ones(4, device="cuda")
    compiled = dg.function(lambda x: x + 1.0, strict=True)
    yield "x + 1 on 4 elements, eager", _time(clock.host(lambda: x + 1.0)), "host"
    yield "x + 1 on 4 elements, compiled", _time(clock.host(lambda: compiled(x))), "host"
    eager = training_step(clock.effort.width, clock.effort.batch, "cuda")
    yield "training step of an MLP, eager", _time(clock.wall(eager)), "host and device"
    step = dg.function(training_step(clock.effort.width, clock.effort.batch, "cuda"), strict=True)
    yield "training step of an MLP, compiled", _time(clock.wall(step)), "host and device"


# -- the report -----------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Clock], Rows]] = {
    "launches": launches,
    "memory": memory,
    "bandwidth": streams,
    "matmul": matmuls,
    "training": training,
}


def rows_of(section: Callable[[Clock], Rows], clock: Clock) -> list[tuple[str, str, str]]:
    """What a section has measured; a failure ends it, not the others."""
    rows = []
    try:
        for row in section(clock):
            rows.append(row)
            print(".", end="", file=sys.stderr, flush=True)
    except Exception as error:
        first = str(error).partition("\n")[0]
        rows.append(("failed", type(error).__name__, first))
    return rows


def fitting(effort: Effort, free: int) -> Effort:
    """Arrays of which eight fit into the free bytes of the device."""
    elements = effort.elements
    while elements > _COLUMNS and 8 * _ITEM * elements > free:
        elements //= 2
    return replace(effort, elements=elements)


def header(driver: Driver, command: str) -> list[tuple[str, str]]:
    """Hardware and versions."""
    info = driver.info(0)
    size = f"{info.memory / 2**30:.0f} GiB"
    device = f"{info.name}, {info.arch}, {info.multiprocessors} multiprocessors, {size}"
    lines = [("device", device), ("driver", driver.name), ("compiler", driver.target)]
    return [*lines, *describe(["cupy"], cpu_count()).lines(), ("command", f"`{command}`")]


def main(argv: Sequence[str]) -> int:
    """Run the probe; 2 if there is no GPU, 1 if something failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="section",
        help=f"what to measure (default: all): {', '.join(SECTIONS)}",
    )  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="try everything once, measure nothing")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE",
        help="write the tables to a file, in place of those that are there",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    for name in arguments.sections:
        if name not in SECTIONS:
            parser.error(f"no section {name!r}; there are {', '.join(SECTIONS)}")
    try:
        driver = cuda.driver()
    except DeviceError as error:
        print(f"{error.what}\n{error.hint}", file=sys.stderr)
        return 2
    effort = fitting(TINY if arguments.tiny else Effort(), driver.memory_info()[0])
    clock = Clock(driver, effort)
    head = header(driver, shlex.join(["python", "-m", "benchmarks", "gpu", *argv]))
    print("\n".join(f"{label}: {text}" for label, text in head), flush=True)
    lines = [BEGIN, "", *(f"- {label}: {text}" for label, text in head)]
    failed = False
    for title in arguments.sections or SECTIONS:
        rows = rows_of(SECTIONS[title], clock)
        failed |= rows[-1][0] == "failed"
        print(f"\n{title}\n" + "\n".join(aligned([COLUMNS, *rows])), flush=True)
        lines += ["", f"### {title}", "", *markdown_table([COLUMNS, *rows])]
    if arguments.markdown:
        write_markdown(arguments.markdown, "\n".join([*lines, "", END]), BEGIN, END)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
