"""Random structures as arguments and state, changed between calls: need 20.

Containers, dataclasses, objects with slots, named tuples, tensors (some of them in two places),
numbers, texts and None are nested at random, passed again, copied, changed in place, and found in
the state as well.  What a function makes of them must be what the undecorated one makes.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

import dualgrad as dg
from semantics.support import bits


@dataclasses.dataclass
class Record:
    a: Any
    b: Any


class Slots:
    __slots__ = ("p", "q")

    def __init__(self, p: Any, q: Any) -> None:
        self.p, self.q = p, q


Pair = collections.namedtuple("Pair", "u v")


def leaf(r: random.Random, pool: list[dg.Tensor]) -> Any:
    kind = r.choice("tttfisbn")
    if kind == "t" and pool and r.random() < 0.3:
        return r.choice(pool)
    if kind == "t":
        pool.append(dg.arange(r.choice([2, 3])).to(dg.float32) + r.randint(0, 3))
        return pool[-1]
    numbers = {"f": r.choice([0.5, -0.0, 0.0, 2.0]), "i": r.randint(-1, 3)}
    return {**numbers, "s": r.choice("ab"), "b": r.random() < 0.5, "n": None}[kind]


def structure(r: random.Random, depth: int, pool: list[dg.Tensor]) -> Any:
    if depth == 0 or r.random() < 0.25:
        return leaf(r, pool)
    parts = [structure(r, depth - 1, pool) for _ in range(r.randint(1, 3))]
    kind = r.choice([list, tuple, dict, Record, Slots, Pair])
    if kind is dict:
        return {f"{r.choice('xyz')}{k}": v for k, v in enumerate(parts)}
    return kind(parts) if kind in (list, tuple) else kind(*(parts * 2)[:2])


def change(r: random.Random, x: Any) -> None:
    """Another value somewhere in a container or record."""
    if isinstance(x, list) and x:
        x[r.randrange(len(x))] = structure(r, 1, [])
    elif isinstance(x, dict) and x:
        x[r.choice([*x])] = structure(r, 1, [])
    elif isinstance(x, Record):
        x.a = structure(r, 1, [])


def value(x: Any, weights: Iterator[float]) -> Any:
    """A number or tensor that tells where everything stands."""
    w = next(weights)
    if isinstance(x, dg.Tensor):
        return (x * w).sum()
    if isinstance(x, bool) or x is None:
        return 1.0 if x else 0.25
    if isinstance(x, int | float):
        return x * w
    if isinstance(x, str):
        return w if x == "a" else 2 * w
    if isinstance(x, dict):
        signs = [1 if k[0] == "x" else 2 for k in x]
        return sum(value(v, weights) * s for v, s in zip(x.values(), signs, strict=True))
    if isinstance(x, Record):
        return value(x.a, weights) * 3 + value(x.b, weights)
    if isinstance(x, Slots):
        return value(x.p, weights) * 5 + value(x.q, weights)
    return sum(value(v, weights) for v in x)


def shown(x: Any) -> Any:
    return bits(x) if isinstance(x, dg.Tensor) else (type(x), math.copysign(1, x), x)


@pytest.mark.parametrize("seed", range(25))
def test_need20_random_structures(seed: int) -> None:
    r, pool = random.Random(seed), list[dg.Tensor]()
    state = {"held": structure(r, 2, pool)}
    known = [structure(r, 2, pool) for _ in range(2)]

    def f(a: Any, b: Any) -> Any:
        one = a is b and isinstance(a, list | dict | Record | Slots | dg.Tensor)
        weights = iter([float(k + 1) for k in range(200)])
        parts = [value(x, weights) for x in (a, b, state["held"])]
        return parts[0] * (3 if one else 1) + parts[1] + parts[2]

    g = dg.function(f)
    for _ in range(14):
        a, b = r.choice(known), r.choice(known)
        act = r.choice(["again", "copy", "change", "state", "rebind"])
        if act == "copy":
            a = copy.deepcopy(a)
        elif act == "change":
            change(r, a)
        elif act == "state":
            a = state["held"]
        elif act == "rebind":
            state["held"] = r.choice([structure(r, 2, pool), known[0]])
        assert shown(g(a, b)) == shown(f(a, b)), (act, a, b, state)
