"""Random programs over tensors that may share memory, and their comparison in both modes.

A program is Python source of a function of one to three tensors: slices, views, changes in place,
copies, results that share memory, tensors kept in objects and containers from call to call.  It is
called with several patterns of inputs: one tensor twice, views of one base that overlap or do not,
tensors of their own.  A world is the memory that the inputs of all calls are views of; each mode
runs in a world of its own.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dualgrad as dg
from dualgrad import EagerFallback, Tensor
from dualgrad.runtime.errors import GradientError

SHAPES: tuple[tuple[int, ...], ...] = ((4,), (6,), (2, 3), (3, 2), (2, 2))
SIDE = 7  # a base is a square of this side
BASES = 2
Shape = tuple[int, ...]
Make = Callable[[list[Tensor]], Tensor]


# -- inputs ---------------------------------------------------------------------------------------


def view_of_base(rng: random.Random, shape: Shape) -> str:
    """An expression for a view of a base that has this shape; `b` is the base."""
    flat = "b.reshape(-1)"
    if len(shape) == 1:
        (n,) = shape
        kind = rng.randrange(5)
        if kind == 0:
            start = rng.randrange(12)
            return f"{flat}[{start}:{start + n}]"
        if kind == 1:
            step, start = rng.choice((2, 3)), rng.randrange(8)
            return f"{flat}[{start}:{start + n * step}:{step}]"
        if kind == 2:
            return f"b[:{n}, {rng.randrange(4)}]"
        if kind == 3:
            return f"b[{rng.randrange(3)}, {SIDE - n}:]"
        return f"b[{rng.randrange(3)}, :1].expand({n})" if rng.random() < 0.4 else f"b[0, :{n}]"
    m, n = shape
    kind = rng.randrange(5)
    i, j = rng.randrange(3), rng.randrange(3)
    if kind == 0:
        return f"b[{i}:{i + m}, {j}:{j + n}]"
    if kind == 1:
        return f"b[{i}:{i + n}, {j}:{j + m}].T"
    if kind == 2:
        return f"b[:{2 * m}:2, {j}:{j + n}]"
    if kind == 3:
        start = rng.randrange(12)
        return f"{flat}[{start}:{start + m * n}].reshape({m}, {n})"
    if rng.random() < 0.4:
        return f"b[{i}, {j}:{j + n}].expand({m}, {n})"
    return f"b[{i}:{i + m}, :{n}]"


def pattern_of(rng: random.Random, shapes: tuple[Shape, ...]) -> list[str]:
    """One expression per input, over the world's bases and the inputs before it."""
    style = rng.choice(("own", "one base", "one base", "mixed", "mixed"))
    out: list[str] = []
    for k, shape in enumerate(shapes):
        same = [j for j in range(k) if shapes[j] == shape]
        draw = rng.random()
        if same and style != "own" and draw < 0.25:
            j = rng.choice(same)
            out.append(f"i{j}" if rng.random() < 0.6 else f"i{j}.detach()")
        elif style == "own" or (style == "mixed" and draw > 0.7):
            n = int(np.prod(shape))
            out.append(f"own({k}, {n}).reshape{shape}")
        else:
            base = 0 if style == "one base" else rng.randrange(BASES)
            out.append(view_of_base(rng, shape).replace("b", f"b{base}", 1))
    return out


class Kept:
    """An object with state."""


# Where programs keep tensors, and of which shapes.
KEPT = {"s.h": (4,), "s.entries['m']": (2, 3), "s.items[0]": (2, 2)}


@dataclass
class World:
    """The memory that the inputs of one mode's calls are made of."""

    bases: list[Tensor] = field(default_factory=list)
    state: Any = None  # what programs keep: tensors of the shapes of KEPT
    weight: Tensor = field(default_factory=lambda: dg.tensor([0.5, 0.25], requires_grad=True))
    owned: dict[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def new() -> World:
        n = SIDE * SIDE
        values = (np.arange(BASES * n) * 37 % 101 - 50).astype(np.float32) / 16
        bases = [dg.tensor(values[k * n : (k + 1) * n].reshape(SIDE, SIDE)) for k in (0, 1)]
        state = Kept()
        state.h, state.entries, state.items = dg.ones(4), {"m": dg.ones((2, 3))}, [dg.ones((2, 2))]
        return World(bases, state)

    def kept(self) -> list[Tensor]:
        return [self.state.h, self.state.entries["m"], self.state.items[0]]

    def own(self, number: int, size: int) -> Tensor:
        if number not in self.owned:
            values = (np.arange(size) * 7 % 13 - 5).astype(np.float32) / 4
            self.owned[number] = dg.tensor(values)
        return self.owned[number]

    def inputs(self, pattern: list[str]) -> list[Tensor]:
        names: dict[str, Any] = {"b0": self.bases[0], "b1": self.bases[1], "own": self.own}
        for k, text in enumerate(pattern):
            names[f"i{k}"] = eval(text, {}, names)
        return [names[f"i{k}"] for k in range(len(pattern))]


# -- statements -----------------------------------------------------------------------------------


class Writer:
    """Writes the body of one program; knows the shape of every variable."""

    def __init__(self, rng: random.Random, shapes: tuple[Shape, ...], graph: bool) -> None:
        self.rng = rng
        self.shapes: dict[str, Shape] = {f"i{k}": s for k, s in enumerate(shapes)}
        self.lines: list[str] = []
        self.count = 0
        self.graph = graph

    def pick(self, shape: Shape | None = None, ndim: int | None = None) -> str | None:
        """A variable, the newest ones more often; of a shape or rank if that is given."""
        found = [
            v
            for v, s in self.shapes.items()
            if (shape is None or s == shape) and (ndim is None or len(s) == ndim)
        ]
        if not found:
            return None
        return found[-1] if self.rng.random() < 0.3 else self.rng.choice(found)

    def any(self) -> str:
        found = self.pick()
        assert found is not None
        return found

    def new(self, text: str, shape: Shape) -> None:
        name = f"v{self.count}"
        if self.count and self.rng.random() < 0.15:  # a name that stood for something else
            name = f"v{self.rng.randrange(self.count)}"
        else:
            self.count += 1
        self.lines.append(f"{name} = {text}")
        self.shapes.pop(name, None)
        self.shapes[name] = shape

    def operand(self, shape: Shape) -> str:
        """Something that broadcasts to a shape."""
        draw = self.rng.random()
        found = self.pick(shape) if draw < 0.6 else None
        if found is None and draw < 0.8 and len(shape) == 2:
            found = self.pick(shape[1:])
        return found or self.rng.choice(("0.5", "-1.25", "2", "0.75"))

    def statement(self) -> None:
        kinds = (
            (self.view, 6), (self.change, 6), (self.assign, 4), (self.compute, 4),
            (self.second, 2), (self.through_list, 1), (self.rows, 1), (self.keep, 2),
        )  # fmt: skip
        makers, weights = zip(*kinds, strict=True)
        self.rng.choices(makers, weights)[0]()

    def view(self) -> None:
        a = self.any()
        shape = self.shapes[a]
        if len(shape) == 0:
            self.new(f"{a}.unsqueeze(0)", (1,))
            return
        n = shape[0]
        options: list[tuple[str, Shape]] = [
            (f"{a}[1:]", (n - 1, *shape[1:])),
            (f"{a}[::2]", ((n + 1) // 2, *shape[1:])),
            (f"{a}[:{max(n - 1, 1)}]", (max(n - 1, 1) if n else 0, *shape[1:])),
            (f"{a}[None]", (1, *shape)),
            (f"{a}.unsqueeze(-1)", (*shape, 1)),
            (f"{a}.flatten()", (int(np.prod(shape)),)),
            (f"{a}.reshape(-1)", (int(np.prod(shape)),)),
            (f"{a}.view_as({a})", shape),
        ]
        if n:
            options += [(f"{a}[-1]", shape[1:]), (f"{a}[0]", shape[1:])]
        if len(shape) == 1:
            options.append((f"{a}.expand(2, {n})", (2, n)))
        if len(shape) >= 2:
            swapped = (*shape[:-2], shape[-1], shape[-2])
            options += [
                (f"{a}.transpose(-1, -2)", swapped),
                (f"{a}[..., 0]", shape[:-1]) if shape[-1] else (f"{a}[None]", (1, *shape)),
                (f"{a}[:, 1:]", (n, max(shape[1] - 1, 0), *shape[2:])),
                (f"{a}.reshape({', '.join(map(str, swapped))})", swapped),
            ]
        if shape == (2, 2):
            options.append((f"{a}.diagonal()", (2,)))
        if shape == (4,):
            options.append((f"{a}.reshape(2, 2)", (2, 2)))
        self.new(*self.rng.choice([o for o in options if len(o[1]) <= 3 and "view_as" not in o[0]]))

    def change(self) -> None:
        a = self.any()
        b = self.operand(self.shapes[a])
        self.lines.append(
            self.rng.choice(
                (
                    f"{a}.add_({b})", f"{a}.mul_({b})", f"{a}.copy_({b})", f"{a}.sub_({b})",
                    f"{a} += {b}", f"{a} *= 0.5", f"{a}.zero_()", f"{a}.fill_(0.25)",
                    f"{a}.clamp_(-2.0, 2.0)", f"{a}.tanh_()",
                )
            )
        )  # fmt: skip

    def assign(self) -> None:
        a = self.any()
        shape = self.shapes[a]
        if not shape or not shape[0]:
            self.lines.append(f"{a}.add_(1.0)")
            return
        n, rest = shape[0], shape[1:]
        options = [
            (f"{a}[1:]", (n - 1, *rest)),
            (f"{a}[0]", rest),
            (f"{a}[-1]", rest),
            (f"{a}[...]", shape),
            (f"{a}[::2]", ((n + 1) // 2, *rest)),
        ]
        if len(shape) >= 2:
            options.append((f"{a}[:, 0]", (n, *shape[2:])) if shape[1] else (f"{a}[0]", rest))
        target, inner = self.rng.choice(options)
        draw = self.rng.random()
        if draw < 0.12:
            self.lines.append(f"{a}[{a} > 0.5] = 0.125")
        elif draw < 0.3:
            self.lines.append(f"{target} {self.rng.choice('+*-')}= {self.operand(inner)}")
        elif draw < 0.45 and n > 1:
            self.lines.append(f"{a}[1:] = {a}[:-1]")
        else:
            self.lines.append(f"{target} = {self.operand(inner)}")

    def compute(self) -> None:
        a = self.any()
        shape = self.shapes[a]
        options: list[tuple[str, Shape]] = [
            (f"{a} + {self.operand(shape)}", shape),
            (f"{a} * 0.5", shape),
            (f"{a}.clone()", shape),
            (f"{a}.contiguous()", shape),
            (f"{a}.sum()", ()),
            (f"({a} - {self.operand(shape)}).tanh()", shape),
            (f"dg.zeros({shape})", shape),
        ]
        if self.graph:
            options += [(f"{a} * w.sum()", shape), (f"{a} + w[1]", shape)] * 3
        if len(shape) >= 1:
            options.append((f"{a}.sum(axis=0)", shape[1:]))
            options.append((f"dg.cat([{a}, {a}])", (2 * shape[0], *shape[1:])))
        if len(shape) == 2:
            other = self.pick((shape[1], shape[0]))
            if other:
                options.append((f"({a} @ {other}) * 0.25", (shape[0], shape[0])))
        text, new = self.rng.choice(options)
        if int(np.prod(new)) <= 24:
            self.new(text, new)

    def second(self) -> None:
        a = self.any()
        self.new(self.rng.choice((f"{a}.detach()", a, f"{a}.detach()[...]")), self.shapes[a])

    def through_list(self) -> None:
        a, b = self.any(), self.any()
        self.lines.append(f"pair = [{a}, {b}]")
        self.lines.append(f"pair[0].mul_(0.5); pair[1].add_({self.operand(self.shapes[b])})")

    def rows(self) -> None:
        a = self.pick(ndim=2)
        if a is None:
            return
        self.lines.append(f"for row in {a}: row.add_(0.5)")

    def keep(self) -> None:
        place, shape = self.rng.choice(list(KEPT.items()))
        if self.rng.random() < 0.5:
            self.new(place, shape)
        else:
            self.lines.append(f"{place} = {self.pick(shape) or place}")

    def result(self) -> str:
        names = list(self.shapes)
        count = self.rng.choice((1, 1, 2, 3, 4))
        chosen = [self.rng.choice(names) for _ in range(count)]
        style = self.rng.randrange(4)
        if style == 0:
            return chosen[0]
        if style == 1:
            return "[" + ", ".join(chosen) + "]"
        if style == 2:
            return "{" + ", ".join(f"'{k}': {v}" for k, v in enumerate(chosen)) + "}"
        return "(" + ", ".join(chosen) + ",)"


@dataclass
class Program:
    """Source of a function, and the patterns of the calls it is compared in."""

    source: str
    patterns: list[list[str]]

    @staticmethod
    def draw(seed: int) -> Program:
        rng = random.Random(seed)
        shapes = tuple(rng.choice(SHAPES) for _ in range(rng.choice((1, 2, 2, 3))))
        writer = Writer(rng, shapes, seed % 4 == 3)
        for _ in range(rng.randrange(2, 9)):
            writer.statement()
        names = ", ".join(f"i{k}" for k in range(len(shapes)))
        body = "".join(f"    {line}\n" for line in writer.lines)
        source = f"def f({names}):\n{body}    return {writer.result()}\n"
        patterns = [pattern_of(rng, shapes) for _ in range(rng.choice((2, 3)))]
        order = [0, 0, 1, 0, *range(1, len(patterns))]
        return Program(source, [patterns[k] for k in order])

    def function(self, decorate: Callable[[Any], Any], world: World) -> Any:
        names: dict[str, Any] = {"dg": dg, "s": world.state, "w": world.weight}
        exec(compile(self.source, "<program>", "exec"), names)
        return decorate(names["f"])


# -- comparing ------------------------------------------------------------------------------------


def bits(x: Tensor) -> Any:
    array = np.ascontiguousarray(x.detach().numpy())
    return (array.dtype.str, array.shape, np.where(array == array, array, np.nan).tobytes())


def parts(x: Any) -> list[Tensor]:
    """The tensors of a result, in order."""
    if isinstance(x, Tensor):
        return [x]
    items = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return [t for item in items for t in parts(item)]


def place(x: Tensor, y: Tensor) -> Any:
    """How two tensors lie to each other: identity, and the distance if they share memory."""
    if x is y:
        return "same"
    a, b = x.detach().numpy(), y.detach().numpy()
    if not a.size or not b.size or not np.shares_memory(a, b):
        return None
    return a.__array_interface__["data"][0] - b.__array_interface__["data"][0]


def strides(x: Tensor) -> Any:
    """Steps along the dimensions that have any; the others mean nothing."""
    steps = zip(x.shape, x.strides_in_elements, strict=True)
    return [s for n, s in steps if n > 1] if x.size else None


def seen(world: World, inputs: list[Tensor], outputs: list[Tensor]) -> Any:
    """Everything that a user could tell two modes apart by."""
    memory = [*inputs, *world.bases, *world.owned.values(), *world.kept()]
    layout = [(strides(t), t.requires_grad) for t in outputs]
    return (
        [bits(t) for t in (*outputs, *memory)],
        layout,
        [[place(x, y) for y in (*outputs, *memory)] for x in (*outputs, *world.kept())],
    )


def gradient(world: World, outputs: list[Tensor]) -> Any:
    """The gradient of all results with a graph; or the error."""
    world.weight.grad = None
    roots = [t for t in outputs if t.requires_grad]
    if not roots:
        return None
    total = sum((t * t).sum() for t in roots)
    try:
        total.backward()
    except GradientError as error:
        return str(error).partition("\n")[0]
    return None if world.weight.grad is None else bits(world.weight.grad)


def probe(world: World, inputs: list[Tensor], outputs: list[Tensor]) -> Any:
    """Write into each result: what else changes?"""
    out = []
    for k, t in enumerate(outputs):
        if t.is_writeable:
            with dg.no_grad():
                t.mul_(0.5).add_(0.25 * (k + 1))
            out.append(seen(world, inputs, outputs))
    return out


def history(program: Program, decorate: Callable[[Any], Any]) -> tuple[list[Any], Any]:
    """What every call of a program does, and the function that did it."""
    world = World.new()
    f = program.function(decorate, world)
    kept: list[Tensor] = []
    out: list[Any] = []
    for pattern in program.patterns:
        inputs = world.inputs(pattern)
        try:
            result = f(*inputs)
        except Exception as error:
            out.append((type(error), str(error).partition("\n")[0], seen(world, inputs, [])))
            continue
        outputs = parts(result)
        now = seen(world, inputs, outputs)
        out.append((type(result), now, gradient(world, outputs), probe(world, inputs, outputs)))
        kept += outputs
        with dg.no_grad():
            for base in world.bases:
                base.mul_(0.75)
    out.append([bits(t) for t in kept])
    return out, f


def difference(program: Program, ignore: bool = True) -> str | None:
    """A description of the first difference between the modes; None if there is none."""
    expected, _ = history(program, lambda f: f)
    with warnings.catch_warnings():
        if ignore:
            warnings.simplefilter("ignore", EagerFallback)
        actual, _ = history(program, dg.function)
    for k, (e, a) in enumerate(zip(expected, actual, strict=True)):
        if e != a:
            pattern = program.patterns[k] if k < len(program.patterns) else "kept results"
            return f"{program.source}call {k} of {program.patterns}\n  with {pattern}\n{e}\n{a}"
    return None
