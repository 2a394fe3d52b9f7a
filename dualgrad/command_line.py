"""The command `dualgrad`, which `python -m dualgrad` is too.

dualgrad doctor                                what there is on this machine
dualgrad cache info                            where the disk cache is, what it holds
dualgrad cache clear                           delete what it holds
dualgrad cache warm [NAME ...] [--dtypes ...]  compile everyday programs ahead
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dualgrad import diagnosis, warming
from dualgrad.runtime.cache import DiskCache, default_cache
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import ALL, as_dtype
from dualgrad.runtime.errors import ArgumentError, DualgradError
from dualgrad.runtime.host import cpu_count


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, those of the process if None; returns its status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "doctor":
            diagnosis.doctor()
            return 0
        folder = arguments.folder or config.cache_dir
        with config.scope(cache_dir=folder, cache=config.cache or arguments.folder is not None):
            run = {"info": info, "clear": clear, "warm": warm}[arguments.action]
            return run(arguments)
    except DualgradError as error:
        error.location = None  # no line of the user's is at fault
        print(f"dualgrad: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was compiled by then is in the cache", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dualgrad", description="Looks after dualgrad.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="print what there is on this machine, and what is missing")
    cache = commands.add_parser("cache", help="the disk cache of machine code")
    cache.add_argument(
        "--folder", type=_folder, metavar="DIR", help="of the cache, in place of DG_CACHE_DIR"
    )
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("info", help="print where it is and what it holds")
    actions.add_parser("clear", help="delete what it holds")
    warmer = actions.add_parser(
        "warm",
        help="compile everyday programs ahead",
        description="Compiles the eager programs of everyday calls into the disk cache: those "
        "that the samples of each op and function need, and their gradients.  Eager programs "
        "serve tensors of all sizes.",
    )
    warmer.add_argument("names", nargs="*", metavar="NAME", help="ops and functions (default: all)")
    warmer.add_argument(
        "--dtypes",
        nargs="+",
        type=_float_dtype,
        default=["float32"],
        metavar="DTYPE",
        help="of floats (default: float32)",
    )
    warmer.add_argument("--no-gradients", action="store_true", help="leave gradients out")
    warmer.add_argument(
        "--jobs", type=_count, metavar="N", help="processes (default: one for each processor)"
    )
    return parser


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _float_dtype(text: str) -> str:
    floats = [d.name for d in ALL if d.is_float]
    try:
        found = as_dtype(text).name
    except DualgradError:
        found = ""
    if found not in floats:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(floats)}")
    return found


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def info(arguments: argparse.Namespace) -> int:
    """Print the state of the disk cache."""
    cache = default_cache()
    found = cache.info()
    print(f"folder   {found.root or 'none'}")
    print(f"state    {'not used: ' + found.problem if found.problem else 'in use'}")
    print(f"entries  {found.entries}")
    print(f"size     {_size(found.bytes)} of at most {_size(cache.limit)}")
    return 0


def clear(arguments: argparse.Namespace) -> int:
    """Delete what is in the disk cache."""
    cache = _cache("clear")
    before = cache.info()
    cache.clear()
    left = cache.info().entries
    size = _size(before.bytes)
    print(f"{before.entries - left} entries ({size}) deleted from {before.root}")
    if left:
        raise ArgumentError(
            "some entries could not be deleted",
            op="cache clear",
            expect="a folder that this user can write",
            actual=f"{left} entries left in {before.root}",
            hint="look at who owns the folder; DG_CACHE_DIR names another one",
        )
    return 0


def warm(arguments: argparse.Namespace) -> int:
    """Compile everyday programs into the disk cache."""
    cache = _cache("warm")
    names = warming.units_named(arguments.names)
    jobs = min(arguments.jobs or cpu_count(), len(names))
    started, before = time.perf_counter(), cache.info()
    calls = compiled = refused = 0
    seconds = 0.0
    progress = Progress(len(names))
    for done in warming.warm(names, arguments.dtypes, not arguments.no_gradients, jobs):
        calls += done.calls
        refused += done.refused
        compiled += done.compiled
        seconds += done.seconds
        progress.show(done.name, compiled)
    progress.end()
    after = cache.info()
    taken = time.perf_counter() - started
    print(
        f"{calls - refused} calls of {len(names)} ops and functions in {taken:.1f} s, {jobs} jobs"
    )
    print(f"{compiled} programs compiled in {seconds:.1f} s, the others were there")
    grown = after.bytes - before.bytes
    print(f"{after.entries} entries, {_size(after.bytes)} ({_size(grown)} new) in {after.root}")
    if compiled and after.entries == before.entries:
        raise ArgumentError(
            "what was compiled could not be kept",
            op="cache warm",
            expect="a folder that this user can write",
            actual=str(after.root),
            hint="choose another with DG_CACHE_DIR or --folder",
        )
    return 0


class Progress:
    """One line that says how far it is, where somebody sees it."""

    def __init__(self, total: int) -> None:
        self.total, self.ready = total, 0
        self.seen = sys.stderr.isatty()

    def show(self, name: str, compiled: int) -> None:
        self.ready += 1
        if self.seen:
            text = f"{self.ready}/{self.total}  {compiled} programs compiled  {name}"
            width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
            print(f"\r{text[:width]:{width}}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.seen:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _cache(action: str) -> DiskCache:
    """The disk cache.  Raises ArgumentError if it is not used."""
    cache = default_cache()
    found = cache.info()
    if found.problem:
        raise ArgumentError(
            "the disk cache is not used",
            op=f"cache {action}",
            expect="a folder of this user's that others cannot write",
            actual=f"{found.root or 'none'}: {found.problem}",
            hint="set DG_CACHE=1, or choose a folder with DG_CACHE_DIR or --folder",
        )
    return cache


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
