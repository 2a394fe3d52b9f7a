"""What several test files share: arrays from `Arg`s, comparison of bits and of modes, memory that a
call takes."""

from __future__ import annotations

import functools
import gc
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import dualgrad as dg
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.ops.sample import Arg
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime import memory
from dualgrad.runtime.dtype import DType

Array = np.ndarray[Any, Any]


def peak(run: Callable[[], Any]) -> int:
    """Bytes of the memory pool that a call takes at most, beside what is in use before it."""
    gc.collect()
    before = memory.stats().live_bytes
    memory.reset_peak()
    run()
    return memory.stats().peak_bytes - before


def draw(arg: Arg, rng: np.random.Generator, dtype: DType | None = None) -> Array:
    """An array as `arg` describes it, in its dtype or another one."""
    target = (dtype or arg.dtype).numpy
    shape = stored_shape(arg)
    size = int(np.prod(shape))
    if arg.values is not None:
        values = np.resize(np.array(arg.values, np.float64), size)
    elif target.kind == "b":
        values = rng.integers(0, 2, size)
    elif target.kind in "iu":
        low = max(0, arg.low) if target.kind == "u" else arg.low
        values = rng.integers(int(low), int(arg.high), size)
    else:
        values = rng.uniform(arg.low, arg.high, size)
    with np.errstate(over="ignore"):
        array = values.astype(target).reshape(shape)
    return laid_out(arg, array)


def stored_shape(arg: Arg) -> tuple[int, ...]:
    if arg.layout == "transposed":
        return arg.shape[::-1]
    if arg.layout == "broadcast" and arg.shape:
        return (1, *arg.shape[1:])
    return arg.shape


def laid_out(arg: Arg, array: Array) -> Array:
    """The array of shape `arg.shape` in the memory layout that `arg` asks for."""
    if arg.layout == "transposed":
        return array.T
    if arg.layout == "broadcast":
        return np.broadcast_to(array, arg.shape)
    if arg.layout == "strided" and arg.shape:
        room = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
        view = room[tuple(slice(None, None, 2) for _ in array.shape)]
        view[...] = array
        return view
    return array


def same_bits(got: Any, want: Any, what: object = "") -> None:
    """Assert equal dtypes, shapes and bits; NaNs are equal whatever their payload."""
    x, y = (as_array(v) for v in (got, want))
    assert x.dtype == y.dtype, f"{x.dtype} is not {y.dtype}: {what}"
    assert x.shape == y.shape, f"{x.shape} is not {y.shape}: {what}"
    if x.dtype.kind == "f":
        nan = np.isnan(x)
        np.testing.assert_array_equal(nan, np.isnan(y), err_msg=str(what))
        x, y = (np.where(nan, v.dtype.type(0), v) for v in (x, y))
        whole = np.dtype(f"u{x.dtype.itemsize}")
        if not np.array_equal(bits(x, whole), bits(y, whole)):
            np.testing.assert_array_equal(x, y, err_msg=f"bits differ: {what}")
            raise AssertionError(f"signs of zeros differ: {what}")
    else:
        np.testing.assert_array_equal(x, y, err_msg=str(what))


def bits(x: Array, whole: np.dtype[Any]) -> Array:
    return np.ascontiguousarray(x).view(whole)


def as_array(x: Any) -> Array:
    return x.detach().numpy() if isinstance(x, dg.Tensor) else np.asarray(x)


def tensors_in(x: Any) -> list[dg.Tensor]:
    """The tensors of nested containers, in order."""
    if isinstance(x, dg.Tensor):
        return [x]
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return [t for part in parts for t in tensors_in(part)]


def both(function: Callable[..., Any], make: Callable[[], tuple[Any, ...]]) -> tuple[Any, Any]:
    """Results of a function on fresh arguments, eager and compiled."""
    eager = function(*make())
    compiled = dg.function(function, strict=True)
    static = compiled(*make())
    again = compiled(*make())
    assert compiled.n_traces == 1
    for first, second in zip(tensors_in(static), tensors_in(again), strict=True):
        same_bits(second, first, "the second call")
    return eager, static


def lowered(compiled: Any, threads: int = 2) -> LoopProgram:
    """The loop program of a compiled function that has been traced once, for inputs without
    gaps."""
    (path,) = compiled.paths
    return lower(path.graph, (None,) * len(path.graph.inputs), "program", threads)


def values(x: Any) -> Any:
    """A tensor as nested lists, whether it requires gradients or not."""
    return as_array(x).tolist()


@functools.cache
def docs_module() -> ModuleType:
    """docs/generate.py as a module."""
    folder = Path(__file__).parent.parent / "docs"
    spec = importlib.util.spec_from_file_location("generate_docs", folder / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module
