"""The rows of `benchmarks.dispatch`: calls that do almost no work, in each library.

`EAGER` are single ops and chains of ops, `COMPILED` calls of compiled functions, `LARGE` ops
whose cost is memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.dispatch.libraries import Array, Library

SIZES = (4, 1000, 1_000_000)
LARGE_SIZES = (1_000_000, 10_000_000)
_ROUNDS = 10  # of the chain, four ops each


@dataclass(frozen=True)
class Call:
    """An expression to be timed, and the names in it."""

    expression: str
    names: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One call.

    make       what is called in a library
    lacking    libraries that have no natural way to say it
    tolerance  largest difference between results, relative to the largest number
    """

    name: str
    make: Callable[[Library], Call]
    lacking: tuple[str, ...] = ()
    tolerance: float = 1e-5


def uniform(*shape: int, seed: int = 0) -> Array:
    """Numbers in [0.5, 1): sums and products of some of them stay normal numbers."""
    return np.random.default_rng(seed).uniform(0.5, 1, shape).astype(np.float32)


def elements(n: int) -> str:
    return {4: "4", 1000: "1k", 1_000_000: "1M", 10_000_000: "10M"}[n]


# -- eager ------------------------------------------------------------------------------------


def op(expression: str, n: int, lacking: tuple[str, ...] = ()) -> Row:
    """An expression of vectors x and y; `L` has functions."""

    def make(library: Library) -> Call:
        x, y = (library.tensor(uniform(n, seed=k)) for k in (0, 1))
        return Call(expression, {"L": library.module, "x": x, "y": y})

    return Row(f"`{expression.replace('L.', '')}`, {elements(n)} numbers", make, lacking)


def product(n: int) -> Row:
    def make(library: Library) -> Call:
        return Call("x @ y", {k: library.tensor(uniform(n, n)) for k in "xy"})

    return Row(f"`x @ y`, {n}x{n}", make)


def recorded(expression: str) -> Row:
    """An op on 4 numbers whose operand wants a gradient."""

    def make(library: Library) -> Call:
        x, y = library.leaf(uniform(4)), library.tensor(uniform(4, seed=1))
        return Call(expression, {"L": library.module, "x": x, "y": y})

    return Row(f"`{expression.replace('L.', '')}` with tape", make, ("numpy", "jax"))


def chain(L: Any) -> Callable[[Any, Any], Any]:
    """40 ops."""

    def run(x: Any, w: Any) -> Any:
        h = x
        for _ in range(_ROUNDS):
            h = h - L.tanh(h * w + x)
        return h

    return run


def chain_forward(library: Library) -> Call:
    x, w = library.tensor(uniform(4)), library.tensor(uniform(4, seed=1))
    return Call("f(x, w)", {"f": library.compiled(chain(library.module)), "x": x, "w": w})


def chain_recorded(library: Library) -> Call:
    x, w = library.leaf(uniform(4)), library.leaf(uniform(4, seed=1))
    return Call("f(x, w)", {"f": library.compiled(chain(library.module)), "x": x, "w": w})


def chain_backward(library: Library) -> Call:
    run = chain(library.module)

    def loss(x: Any, w: Any) -> Any:
        return run(x, w).sum()

    leaves = [library.leaf(uniform(4, seed=k)) for k in (0, 1)]
    return Call("f()", {"f": library.gradient(loss, leaves)})


def weights() -> list[Array]:
    """Of linear layers 4-8-1; all units are active."""
    shapes = ((8, 4), (8,), (1, 8), (1,))
    return [uniform(*shape, seed=k) for k, shape in enumerate(shapes)]


def model(library: Library) -> Call:
    return Call("f(x)", {"f": library.model(weights()), "x": library.tensor(uniform(8, 4))})


def training(decay: float = 1.0, shared: bool = False) -> Callable[[Library], Call]:
    """A training step; with `shared` on inputs that lie in NumPy's memory."""

    def make(library: Library) -> Call:
        place = library.shared if shared else library.tensor
        x, target = (place(uniform(8, n, seed=n)) for n in (4, 1))
        names = {"f": library.training(weights(), decay), "x": x, "target": target}
        return Call("f(x, target)", names)

    return make


MODELS = (
    Row("a model of two layers", model, ("numpy",)),
    Row("its training step with Adam, 12 tensors", training(), ("numpy",)),
)
CHAINS = (
    Row("40 ops", chain_forward),
    Row("40 ops with tape", chain_recorded, ("numpy", "jax")),
    Row("40 ops forward and backward", chain_backward, ("numpy",)),
)
EAGER: tuple[Row, ...] = (
    *(op(e, n) for e in ("x + 1", "x + y", "L.exp(x)", "x.sum()") for n in SIZES),
    op("x[1:]", 4),
    op("x.__iadd__(1)", 4, ("jax",)),
    product(4),
    recorded("x + y"),
    recorded("L.exp(x)"),
    *CHAINS,
    *MODELS,
)
LARGE: tuple[Row, ...] = tuple(
    op(expression, n)
    for expression in ("x + y", "L.exp(x)", "(x + y) * x - y")
    for n in LARGE_SIZES
)


# -- compiled ---------------------------------------------------------------------------------

scale = 1.5


class Settings:
    """State that a function reads."""

    shift = 0.25

    def __init__(self) -> None:
        self.power, self.offset, self.factors = 2, 0.5, [1.0, 2.0]
        self.names = {"a": 3.0, "b": 4.0}


def plus_one(n: int) -> Row:
    def make(library: Library) -> Call:
        f = library.compiled(lambda x: x + 1)
        return Call("f(x)", {"f": f, "x": library.tensor(uniform(n))})

    return Row(f"x + 1, {elements(n)} numbers", make)


def arguments(count: int) -> Row:
    """The sum of some arguments."""
    # *args would be another kind of call
    functions: dict[int, Callable[..., Any]] = {
        2: lambda a, b: a + b,
        4: lambda a, b, c, d: a + b + c + d,
        8: lambda a, b, c, d, e, f, g, h: a + b + c + d + e + f + g + h,
    }

    def make(library: Library) -> Call:
        names = "abcdefgh"[:count]
        tensors = {f"{n}_": library.tensor(uniform(4, seed=k)) for k, n in enumerate(names)}
        run = library.compiled(functions[count])
        return Call(f"run({', '.join(tensors)})", {"run": run, **tensors})

    return Row(f"{count} arguments", make)


def containers(library: Library) -> Call:
    """Four arrays in a dict, a list and a tuple."""

    def run(batch: Any) -> Any:
        y, (z, inner) = batch["more"]
        return batch["x"] * y + z * inner["w"]

    x, y, z, w = (library.tensor(uniform(4, seed=k)) for k in range(4))
    batch = {"x": x, "more": [y, (z, {"w": w})]}
    return Call("f(batch)", {"f": library.compiled(run), "batch": batch})


def keyword(library: Library) -> Call:
    def run(x: Any, factor: float = 2.0) -> Any:
        return x * factor

    f = library.compiled(run)
    return Call("f(x, factor=3.0)", {"f": f, "x": library.tensor(uniform(4))})


def number(library: Library) -> Call:
    def run(x: Any, factor: float) -> Any:
        return x * factor

    rates = iter(range(1, 10**9))
    names = {"f": library.compiled(run), "x": library.tensor(uniform(4)), "rates": rates}
    return Call("f(x, float(next(rates)))", names)


def lengths(library: Library) -> Call:
    rates = iter(range(10**9))
    arrays = [library.tensor(uniform(n)) for n in range(2, 14)]
    names = {"f": library.compiled(lambda x: x * 2.0), "xs": arrays, "rates": rates}
    return Call("f(xs[next(rates) % 12])", names)


def captured(library: Library) -> Call:
    """A cell, a global, attributes of an instance and of its class, elements of containers."""
    settings, cell = Settings(), 0.75

    def run(x: Any) -> Any:
        s = settings
        x = x * scale + s.shift + s.power * s.offset
        x = x * s.factors[0] + s.factors[1] * s.names["a"]
        return x * s.names["b"] + cell

    return Call("f(x)", {"f": library.compiled(run), "x": library.tensor(uniform(4))})


def rebound(library: Library) -> Call:
    class Memory:
        h = library.tensor(uniform(4))

    def run(x: Any) -> Any:
        Memory.h = Memory.h * 0.5 + x
        return Memory.h

    return Call("f(x)", {"f": library.compiled(run), "x": library.tensor(uniform(4))})


def three(library: Library) -> Call:
    """The function whose first call is measured by stage."""
    L = library.module
    f = library.compiled(lambda x: L.tanh(x) * 2 + 1)
    return Call("f(x)", {"f": f, "x": library.tensor(uniform(1000))})


# What jax does not look at again (captured state) is no call of the same kind there.
COMPILED: tuple[Row, ...] = (
    *(plus_one(n) for n in SIZES),
    *(arguments(n) for n in (2, 4, 8)),
    Row("nested containers", containers),
    Row("a keyword argument", keyword),
    Row("a number that changes", number),
    Row("lengths that change", lengths),
    Row("ten captured values", captured, ("jax",)),
    Row("a tensor that is rebound", rebound, ("jax",)),
    Row("three ops, 1k numbers", three),
    *CHAINS,
    *MODELS,
    Row("the same on NumPy's memory", training(shared=True), ("numpy", "jax")),
    Row("the same with a schedule", training(0.999999), ("numpy", "torch")),
)
GROUPS: dict[str, tuple[Row, ...]] = {
    "eager": EAGER,
    "compiled": COMPILED,
    "memory": LARGE,
}
# what is called first in processes of their own: a group and the name of a row
FIRST = (
    ("eager", EAGER[0].name),
    ("compiled", "three ops, 1k numbers"),
    ("compiled", MODELS[1].name),
)
