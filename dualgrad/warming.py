"""Filling the disk cache ahead: the programs of everyday calls, in several processes.

Which calls these are is not written down anywhere: every op, and every function made of several
ops, states samples of its arguments, by which it is tested.  What counts here are those with
sound arguments, in row-major order and without empty tensors; each is called eagerly in the
dtypes that are asked for and with its gradient, elementwise ops in up to four dimensions.  Since
sizes are no part of eager programs, these serve calls of all sizes.

    for done in warm(units_named(["add", "softmax"]), ("float32",), gradients=True, jobs=2):
        print(done.name, done.compiled)
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import multiprocessing
import pkgutil
import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dualgrad.compiler import ops
from dualgrad.compiler.ops.base import OPS, Op
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.sample import SAMPLED, Arg, Sample
from dualgrad.creation import from_numpy
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import as_dtype
from dualgrad.runtime.errors import ArgumentError, DualgradError
from dualgrad.runtime.profile import counters
from dualgrad.runtime.records import dataclass
from dualgrad.tensor import Tensor

_DEEPEST = 4  # dimensions


@dataclass(frozen=True)
class Done:
    """What the calls of one op or function came to.

    calls      that were made
    refused    of them, for dtypes that it does not take
    compiled   programs that were not in the cache
    seconds    spent on compiling these
    """

    name: str
    calls: int
    refused: int
    compiled: int
    seconds: float


@cache
def units() -> dict[str, list[Sample]]:
    """The everyday samples of all ops and functions, by name."""
    for module in pkgutil.iter_modules(ops.__path__):  # some are imported by their first user
        importlib.import_module(f"{ops.__name__}.{module.name}")
    found: dict[str, list[Sample]] = {}
    for op in OPS:
        found.setdefault(_name_of(op), []).extend(_samples_of(op))
    for function, make in SAMPLED.items():
        found.setdefault(function.__name__, []).extend(filter(_is_everyday, make()))
    return {name: samples for name, samples in found.items() if samples}


def _name_of(op: type[Op]) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in op.__name__).lstrip("_")


def _samples_of(op: type[Op]) -> Iterator[Sample]:
    for sample in filter(_is_everyday, op.samples()):
        yield sample
        shapes = {a.shape for a in sample.args if isinstance(a, Arg)}
        if issubclass(op, Elementwise) and len(shapes) == 1:
            (shape,) = shapes
            for more in range(1, _DEEPEST + 1 - len(shape)) if len(shape) > 1 else ():
                deeper = (*[2] * more, *shape)
                args = (
                    dataclasses.replace(a, shape=deeper) if isinstance(a, Arg) else a
                    for a in sample.args
                )
                yield dataclasses.replace(sample, args=tuple(args))


def _is_everyday(sample: Sample) -> bool:
    plain = (
        a.layout == "contiguous" and 0 not in a.shape for a in sample.args if isinstance(a, Arg)
    )
    return sample.error is None and all(plain)


def units_named(names: Iterable[str]) -> list[str]:
    """The units with these names, all if there are none.  Raises ArgumentError for other names."""
    known = {name.replace("_", ""): name for name in units()}
    found = []
    for name in names:
        key = name.lower().replace("_", "")
        if key not in known:
            near = [known[k] for k in difflib.get_close_matches(key, known)]
            raise ArgumentError(
                "there is no such op or function with samples",
                op="warm",
                expect="names as in docs/ops.md, or none for all",
                actual=name,
                hint=f"did you mean {' or '.join(near)}?" if near else "give no names to warm all",
            )
        found.append(known[key])
    return found or list(units())


def warm(names: Sequence[str], dtypes: Sequence[str], gradients: bool, jobs: int) -> Iterator[Done]:
    """Compile what these units' samples need into the disk cache, in `jobs` processes.

    Sampled floats are drawn in each of `dtypes`.  Yields what came of a unit as it is ready.
    """
    if jobs == 1:
        for name in names:
            yield warm_unit(name, dtypes, gradients)
        return
    context = multiprocessing.get_context("spawn")
    setting = (config.cache_dir, config.num_threads)
    with ProcessPoolExecutor(jobs, context, _start, setting) as pool:
        futures = [pool.submit(warm_unit, name, dtypes, gradients) for name in names]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start(folder: Path | None, threads: int | None) -> None:
    """Set a new process up as the one that has started it, which also sees to interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config.cache_dir, config.num_threads = folder, threads


def warm_unit(name: str, dtypes: Sequence[str], gradients: bool) -> Done:
    """Make the calls of one unit."""
    before, calls, refused = counters.snapshot(), 0, 0
    for dtype in dtypes:
        for sample in units()[name]:
            calls += 1
            try:
                _call(sample, dtype, gradients)
            except DualgradError:
                refused += 1
    grown = counters.since(before)
    return Done(name, calls, refused, grown.compiled, grown.compile_seconds)


def _call(sample: Sample, dtype: str, gradients: bool) -> None:
    rng = np.random.default_rng(0)
    args = [_tensor(a, rng, dtype) if isinstance(a, Arg) else a for a in sample.args]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample.function(*args)
        if not gradients or not sample.gradient:
            return
        for x, a in zip(args, sample.args, strict=True):
            if isinstance(x, Tensor) and x.dtype.is_float and a.differentiable:
                x.requires_grad = True
        for y in _tensors_in(sample.function(*args)):
            if y.requires_grad:
                y.backward(y.detach(), retain_graph=True)


def _tensor(arg: Arg, rng: np.random.Generator, dtype: str) -> Tensor:
    """A tensor as `arg` describes it, its floats in another dtype."""
    kind = as_dtype(dtype).numpy if arg.dtype.is_float else arg.dtype.numpy
    if arg.values is not None:
        numbers = np.resize(np.array(arg.values, np.float64), arg.shape)
    elif arg.dtype.is_float:
        numbers = rng.uniform(arg.low, arg.high, arg.shape)
    else:
        low = max(0, int(arg.low)) if arg.dtype.kind in "bu" else int(arg.low)
        high = 2 if arg.dtype.kind == "b" else int(arg.high)
        numbers = rng.integers(low, high, arg.shape).astype(np.float64)
    with np.errstate(all="ignore"):
        return from_numpy(np.asarray(numbers).astype(kind))


def _tensors_in(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, list | tuple):
        for part in x:
            yield from _tensors_in(part)
