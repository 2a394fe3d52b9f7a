"""Programs that PyTorch understands too, and their comparison with it (needs torch).

The same source runs with either library under the name `dg`.  A statement that one of the two
refuses, or that has results of another structure, is dropped; so what is compared is what both do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch_names import ORDER

import dualgrad as dg
from programs.drawing import Outside, Writer, quiet
from programs.running import attempt
from programs.text import Program
from programs.vocabulary import CALLEES, Callee

RTOL = {"float64": 1e-7, "float32": 2e-4}


class Library:
    """PyTorch under our names."""

    bool_ = torch.bool
    functional = torch.nn.functional

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


LIBRARY = Library()


def namesake(callee: Callee) -> Any:
    """What bears a callee's name in PyTorch."""
    found: Any = torch.Tensor if callee.is_method else LIBRARY
    for name in callee.text.split(".")[1:]:
        found = getattr(found, name, None)
    return found


def shared(different: dict[str, str]) -> tuple[Callee, ...]:
    """The callees that mean the same in PyTorch."""
    gone = {name.rpartition(".")[2] for name in (*different, *ORDER)}
    return tuple(
        c
        for c in CALLEES
        if c.text.rpartition(".")[2].rstrip("_") not in gone and namesake(c) is not None
    )


class Twin(Writer):
    """A writer whose statements are tried in both libraries."""

    dtypes = ("float64",) * 6 + ("int64", "bool_")
    kind = "float64"
    own: tuple[Callee, ...] = ()

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.asks = False
        self.callees = self.own
        self.twin: dict[str, Any] = {**self.space, "dg": LIBRARY}

    def inputs(self) -> None:
        super().inputs()
        self.twin["n"] = self.space["n"]
        for p in (*self.arguments, *self.captured):
            self.twin[p.name] = eval(p.text, self.twin)

    def attempt(self, text: str) -> bool:
        before = dict(self.twin)
        try:
            with quiet():
                exec(compile(text, "<trial>", "exec"), self.twin)
        except Exception:
            self.twin = before
            return False
        kept = super().attempt(text) and not self.error
        if kept and not all(alike(self.space.get(k), x) for k, x in self.twin.items()):
            raise Unlike(text)
        if not kept:
            self.twin = before
        return kept

    def kinds(self) -> list[tuple[Callable[[], str], float]]:
        return [(make, weight) for make, weight in super().kinds() if make != self.random]


class Unlike(Exception):
    """A statement whose results have another structure in PyTorch."""


class OutsideTwin(Twin, Outside):
    def __init__(self, inside: Twin, results: list[str], names: list[str]) -> None:
        Outside.__init__(self, inside, results, names)
        self.callees = self.own
        self.twin = {k: v for k, v in inside.twin.items() if k[0] not in "_v"}
        self.twin |= {f"r{k}": inside.twin[v] for k, v in enumerate(results)}

    def kinds(self) -> list[tuple[Callable[[], str], float]]:
        return [(make, weight) for make, weight in Outside.kinds(self) if make != self.again]


def alike(x: Any, y: Any) -> bool:
    """Whether a value of ours and one of PyTorch's have the same structure."""
    if not isinstance(y, torch.Tensor):
        return not isinstance(x, dg.Tensor)
    return isinstance(x, dg.Tensor) and x.shape == tuple(y.shape)


def facts(x: Any) -> dict[str, Any]:
    """What both libraries say of a tensor."""
    array = x.detach().numpy()
    return {"dtype": array.dtype, "values": array}


def history(program: Program, library: Any, kind: type) -> list[dict[str, Any]]:
    """The tensors after each call, their gradients, and how they share memory."""
    out = []
    call, seen = program.make(library, lambda f: f)
    for seed, n in program.calls[:1]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = attempt(call, seed, n, seen)
        tensors = {k: x for k, x in seen.items() if isinstance(x, kind)}
        grads = {f"{k}.grad": x.grad for k, x in tensors.items() if x.is_leaf}
        found = {k: x for k, x in {**tensors, **grads}.items() if x is not None}
        facts_of = {k: facts(x) for k, x in found.items()}
        out.append({"error": error, "memory": dict(shared_memory(tensors)), **facts_of})
    return out


def shared_memory(tensors: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    arrays = {k: x.detach().numpy() for k, x in tensors.items()}
    names = sorted(arrays)
    for i, a in enumerate(names):
        for b in names[:i]:
            if arrays[a].size and arrays[b].size and np.may_share_memory(arrays[a], arrays[b]):
                yield f"{a} {b}", True


def difference_with_torch(program: Program) -> str | None:
    """The first difference from PyTorch."""
    want = history(program, LIBRARY, torch.Tensor)
    got = history(program, dg, dg.Tensor)
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        for name in dict.fromkeys((*b, *a)):
            found = compared(name, a.get(name), b.get(name))
            if found:
                return f"call {k}, {name}: {found}"
    return None


def compared(name: str, x: Any, y: Any) -> str:
    if name == "error":
        return "" if bool(x) == bool(y) else f"\n  ours    {x}\n  PyTorch {y}"
    if name == "memory" or x is None or y is None:
        return "" if x == y else f"\n  ours    {x}\n  PyTorch {y}"
    if x["dtype"] != y["dtype"]:
        return f"dtype\n  ours    {x['dtype']}\n  PyTorch {y['dtype']}"
    a, b = x["values"], y["values"]
    if a.shape == b.shape:
        rtol = RTOL.get(str(a.dtype), 0.0)
        scale = np.abs(np.where(np.isfinite(b), b, 0)).max(initial=1.0)
        if np.allclose(a, b, rtol, rtol * scale, equal_nan=True):
            return ""
    return f"values\n  ours    {a}\n  PyTorch {b}"
