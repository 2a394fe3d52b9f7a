"""Runs a program in several ways and says where they differ."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dualgrad as dg
from dualgrad.runtime.errors import GradientError
from programs.text import Program

OWN = (dg.EagerFallback, dg.RetraceWarning)


@dataclass
class History:
    """What the calls of a program did, and what could not be compiled."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)


def run(program: Program, decorate: Callable[[Any], Any], threads: int = 1) -> History:
    """All calls of a program in one mode."""
    out = History()
    dg.set_num_threads(threads)
    dg.seed(0)
    call, seen = program.make(dg, decorate)
    for seed, n in program.calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            error = attempt(call, seed, n, seen)
        out.fallbacks += [str(w.message) for w in caught if w.category is dg.EagerFallback]
        out.calls.append({"error": error} | observed(seen))
        seen = {k: v for k, v in seen.items() if k.startswith("c")}
    return out


def attempt(call: Any, seed: int, n: int, seen: dict[str, Any]) -> str:
    try:
        call(seed, n, seen)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def observed(seen: dict[str, Any]) -> dict[str, Any]:
    """Everything that a user can tell two modes apart by."""
    out: dict[str, Any] = {}
    for name, x in seen.items():
        if isinstance(x, dg.Tensor):
            out[name] = facts(x)
            if name[0] in "xc":  # what the caller holds
                out[f"{name} is changed"] = x.version > 0
            out[f"{name}.grad"] = None if x.grad is None else facts(x.grad)
        elif isinstance(x, int | float | str):
            out[name] = repr(x)
    tensors = {k: x for k, x in seen.items() if isinstance(x, dg.Tensor)}
    out["memory"] = {f"{a} {b}": where for a, b, where in places(tensors)}
    return out


def facts(x: dg.Tensor) -> tuple[Any, ...]:
    array = x.detach().numpy()
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return (x.dtype.name, x.shape, array.tobytes(), x.requires_grad, leafness(x))


def leafness(x: dg.Tensor) -> bool | str:
    """Whether a tensor is a leaf, or why nobody knows."""
    try:
        return x.is_leaf
    except GradientError as error:
        return error.what


def places(tensors: dict[str, dg.Tensor]) -> Iterator[tuple[str, str, Any]]:
    """Which variables are one tensor, or share memory, and at which distance."""
    known = [(k, x, x.detach().numpy()) for k, x in tensors.items()]
    for i, (name, x, a) in enumerate(known):
        for other, y, b in known[:i]:
            if x is y:
                yield name, other, "same"
            elif a.size and b.size and np.may_share_memory(a, b):
                yield name, other, address(a) - address(b)


def address(x: Any) -> int:
    return int(x.__array_interface__["data"][0])


def differences(want: History, got: History) -> Iterator[str]:
    for k, (a, b) in enumerate(zip(want.calls, got.calls, strict=True)):
        for name in dict.fromkeys((*a, *b)):
            x, y = a.get(name), b.get(name)
            if x != y:
                yield f"call {k}, {name}:\n  eager    {shown(x)}\n  compiled {shown(y)}"


def shown(x: Any) -> str:
    """A fact in a readable form."""
    if isinstance(x, tuple) and len(x) == 5:
        dtype, shape, memory, *rest = x
        kind = np.dtype(numpy_of(dtype))
        values = np.frombuffer(memory, kind).reshape(shape)
        flags = dict(zip(("requires_grad", "is_leaf"), rest, strict=True))
        return f"{dtype}{shape} {np.array2string(values, threshold=20)} {flags}"
    return str(x)


def numpy_of(name: str) -> Any:
    return getattr(dg, "bool_" if name == "bool" else name).numpy


def kind_of_difference(text: str) -> str:
    """What differs, without numbers and names: a smaller program has to fail in the same way."""
    where, *rest = text.splitlines()
    what = where.rpartition(", ")[2]
    if what.startswith("error"):
        lines = [x for x in rest if x.startswith(("  eager", "  compiled"))]
        return " ".join(re.sub(r"[\d.]+", "", x)[:60] for x in lines)
    return "memory" if what.startswith("memory") else "value"


def difference(program: Program) -> str | None:
    """The first difference between the modes; None if there is none."""
    want = run(program, lambda f: f)
    for threads in (1, 2):
        got = run(program, dg.function, threads)
        found = next(differences(want, got), None)
        if found is not None:
            return found if threads == 1 else f"with {threads} threads, {found}"
    return None
