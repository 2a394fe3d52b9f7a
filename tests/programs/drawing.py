"""Draws programs: statements are tried out, eagerly, while they are written.

A statement that fails, or gives something too large or not finite, is dropped; so the rules of ops
need not be known here.  Some that fail are kept as the last statement of a program.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np

import dualgrad as dg
from dualgrad.runtime.errors import GradientError
from programs.text import Parameter, Program, numbers
from programs.vocabulary import CALLEES, Callee, kind_of, plain

LARGEST = 5000  # elements of a value
BOUND = 64.0  # larger values are scaled down, so that there is something to compare
SIDES = (1, 2, 2, 3, 3, 4, 4, 5, 6, 8)
LONG = (0, 7, 16, 17, 33, 67, 130)
DTYPES = ("float32",) * 8 + ("float64",) * 4 + ("int64", "int32", "bool_", "float16", "bfloat16")
TRIES = 8
# how much a program is about the library, about memory and about gradients
FLAVOURS = ((1.0, 1.0, 1.0), (1.5, 0.4, 0.4), (0.3, 2.0, 0.7), (0.3, 0.6, 3.0))
Shape = tuple[int, ...]


class Writer:
    """Writes one program; `space` holds the values of its variables."""

    dtypes: tuple[str, ...] = DTYPES
    kind = ""  # of most inputs; "": drawn

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.space: dict[str, Any] = {"dg": dg, "np": np, "numbers": numbers}
        self.space |= {"inf": np.inf, "nan": np.nan, "seed": seed * 100, "n": 0}
        self.seed = seed
        self.captured: list[Parameter] = []
        self.arguments: list[Parameter] = []
        self.statements: list[str] = []
        self.count = 0
        self.callees = CALLEES
        self.error = False  # the last statement raises
        self.asks = self.rng.random() < 0.12  # values are asked for while it runs

    # -- inputs -------------------------------------------------------------------------------

    def inputs(self) -> None:
        rng = self.rng
        self.space["n"] = rng.choice((2, 3, 4, 5))
        base: Shape = tuple(rng.choice(SIDES) for _ in range(rng.choice((1, 2, 2, 2, 3, 4))))
        if rng.random() < 0.15:
            base = (*base[:1], rng.choice(LONG)) if rng.random() < 0.5 else (rng.choice(LONG),)
        sized = rng.random() < 0.3
        kind = self.kind or rng.choice(("float32", "float32", "float64"))
        for k in range(rng.choice((1, 2, 2, 3))):
            self.input(f"x{k}", self.shape_like(base), kind, sized)
        for k in range(rng.choice((0, 1, 1, 2))):
            self.input(f"c{k}", self.shape_like(base), kind, False)

    def shape_like(self, base: Shape) -> Shape:
        """A shape that often broadcasts or multiplies with another."""
        draw = self.rng.random()
        if draw < 0.45:
            return base
        if draw < 0.6:
            return base[1:]
        if draw < 0.75:
            return tuple(1 if self.rng.random() < 0.5 else d for d in base)
        if draw < 0.9 and len(base) > 1:
            return (*base[:-2], base[-1], base[-2])
        return tuple(self.rng.choice(SIDES) for _ in range(self.rng.randrange(4)))

    def input(self, name: str, shape: Shape, kind: str, sized: bool) -> None:
        rng = self.rng
        dtype = kind if rng.random() < 0.7 else rng.choice(self.dtypes)
        number = len(self.captured) + len(self.arguments)
        is_argument = name.startswith("x")
        seed = f"seed + {number}" if is_argument else str(self.seed * 100 + number)
        layout = rng.choice(("", "", "", "transposed", "strided"))
        stored = list(shape[::-1] if layout == "transposed" else shape)
        if layout == "strided" and stored:
            stored[-1] = 2 * stored[-1]
        sides = [str(d) for d in stored]
        if sized and is_argument and stored and layout != "strided":
            at = -1 if layout == "transposed" else 0
            sides[at] = "n"
        scale = ", -9, 9" if "float" not in dtype else ""
        text = f"dg.tensor(numbers({seed}, ({', '.join(sides)}{',' * bool(sides)}){scale})"
        text += " > 0)" if dtype == "bool_" else f", dtype=dg.{dtype})"
        if layout == "transposed":
            text += f".permute({', '.join(map(str, reversed(range(len(shape)))))})" * bool(shape)
        elif layout == "strided" and stored:
            text += "[..., ::2]"
        if "float" in dtype and rng.random() < 0.6:
            text += ".requires_grad_()"
        self.space[name] = eval(text, self.space)
        (self.arguments if is_argument else self.captured).append(Parameter(name, text))

    # -- the pool -----------------------------------------------------------------------------

    def pick(self, fit: Callable[[dg.Tensor], bool] = lambda x: True) -> str:
        """A variable, the newest ones more often."""
        found = [v for v, x in self.space.items() if isinstance(x, dg.Tensor) and holds(fit, x)]
        if not found:
            raise LookupError
        return found[int(len(found) * self.rng.random() ** 0.6)]

    def floating(self) -> str:
        return self.pick(lambda x: x.dtype.is_float)

    def beside(self, name: str) -> str:
        """A variable that broadcasts with another, or a number."""
        shape = self.space[name].shape
        if self.rng.random() < 0.15:
            return self.rng.choice(("0.5", "2", "-1.25", "3", "-0.0", "True"))
        return self.pick(lambda x: fits(x.shape, shape))

    def new(self) -> str:
        if self.count and self.rng.random() < 0.08:  # a name that stood for something else
            name = f"v{self.rng.randrange(self.count)}"
            if isinstance(self.space.get(name), dg.Tensor):
                return name
        self.count += 1
        return f"v{self.count - 1}"

    # -- trying statements --------------------------------------------------------------------

    def attempt(self, text: str) -> bool:
        """Run a statement; whether it is kept."""
        before = dict(self.space)
        try:
            with quiet():
                exec(compile(text, "<trial>", "exec"), self.space)
        except Exception:
            self.space = before
            if self.rng.random() < 0.004:
                self.statements.append(text)
                self.error = True
            return self.error
        fresh = [v for v, x in self.space.items() if x is not before.get(v) and v[0] != "_"]
        if not all(is_fine(self.space[v]) for v in fresh):
            self.space = before
            return False
        self.statements.append(text)
        for v in fresh:
            x = self.space[v]
            if isinstance(x, dg.Tensor) and x.dtype.is_float and magnitude(x) > BOUND:
                self.attempt(f"{v} = {v} * {2.0**-7}")
        return True

    def statement(self) -> None:
        makers, weights = zip(*self.kinds(), strict=True)
        for _ in range(TRIES):
            maker = self.rng.choices(makers, weights)[0]
            try:
                text = maker()
            except LookupError:
                continue
            if self.attempt(text):
                return

    def kinds(self) -> list[tuple[Callable[[], str], float]]:
        asks = 1.5 if self.asks else 0.0
        library, memory, history = FLAVOURS[self.seed % len(FLAVOURS)]
        return [
            (self.call, 14 * library), (self.operator, 5), (self.product, 1.5), (self.loop, 0.8),
            (self.view, 5 * memory), (self.read, 4 * memory), (self.change, 4 * memory),
            (self.assign, 4 * memory), (self.region, 2), (self.detach, 1.5 * history),
            (self.leaf, 0.7 * history), (self.hook, history), (self.backward, 1.2 * history),
            (self.gradient, 0.8 * history), (self.derivative, history), (self.branch, asks),
            (self.number, asks), (self.random, 0.6), (self.container, 0.6),
        ]  # fmt: skip

    # -- statements ---------------------------------------------------------------------------

    def call(self) -> str:
        callee = self.rng.choice(self.callees)
        x = self.floating() if self.rng.random() < 0.8 else self.pick()
        text = self.call_text(callee, x)
        if callee.writes:
            return text
        name = self.new()
        try:
            with quiet():
                value = eval(text, self.space)
        except Exception:
            return f"{name} = {text}"
        if isinstance(value, tuple | list) and 0 < len(value) <= 6:
            names = [self.new() for _ in value]
            return f"[{', '.join(names)}] = {text}"
        return f"{name} = {text}"

    def call_text(self, callee: Callee, x: str) -> str:
        parts: list[str] = []
        first = not callee.is_method
        named = False
        for p in callee.parameters:
            optional = p.default is not p.empty or p.kind is p.KEYWORD_ONLY
            if optional and self.rng.random() < 0.7:
                named = True
                continue
            value = x if first and kind_of(p) in ("tensor", "operand", "") else None
            value = value or self.argument(p, x)
            first = False
            if value is None:
                named = True
                continue
            parts.append(f"{p.name}={value}" if named or p.kind is p.KEYWORD_ONLY else value)
        body = f"({', '.join(parts)})"
        return f"{x}{callee.text}{body}" if callee.is_method else f"{callee.text}{body}"

    def argument(self, p: Any, x: str) -> str | None:
        rng, kind, tensor = self.rng, kind_of(p), self.space[x]
        rank = tensor.ndim
        if kind == "tensor":
            return self.pick() if rng.random() < 0.3 else self.beside(x)
        if kind == "operand":
            return self.beside(x)
        if kind == "mask":
            return f"({self.beside(x)} > {rng.choice((0, 0.5))})"
        if kind == "list":
            inner = f"{x}, {self.beside(x)}"
            return inner if p.kind is p.VAR_POSITIONAL else f"[{inner}]"
        if kind == "axis":
            return str(rng.randrange(-rank, rank)) if rank else "0"
        if kind == "axes":
            axes = rng.sample(range(rank), rng.randrange(rank + 1))
            return ", ".join(map(str, axes)) if p.kind is p.VAR_POSITIONAL else str(tuple(axes))
        if kind == "index":
            shape = tensor.shape if rng.random() < 0.6 else tensor.shape[:1]
            top = min((d for d in tensor.shape), default=1)
            values = np.random.default_rng(rng.randrange(99)).integers(0, max(top, 1), shape)
            return f"dg.tensor({values.tolist()})" if values.size <= 40 else None
        if p.name == "shape":
            return str(tuple(rng.choice(((2, *tensor.shape), tensor.shape, (-1,)))))
        return plain(p, rng)

    def operator(self) -> str:
        rng = self.rng
        a = self.pick()
        draw = rng.random()
        if draw < 0.15:
            text = rng.choice(("-{a}", "~{a}", "abs({a})", "{a} ** 2", "{a} ** 3")).format(a=a)
        elif draw < 0.3:
            sign = rng.choice(("<", "<=", ">", ">=", "==", "!="))
            text = f"dg.where({a} {sign} {self.beside(a)}, {a}, {self.beside(a)})"
        else:
            sign = rng.choice(("+", "-", "*", "*", "/", "//", "%", "&", "|", "^"))
            a, b = (a, self.beside(a)) if draw < 0.8 else (self.beside(a), a)
            text = f"{a} {sign} {b}"
        return f"{self.new()} = {text}"

    def product(self) -> str:
        a = self.pick(lambda x: x.dtype.is_float and x.ndim > 0)
        inner = self.space[a].shape[-1]
        b = self.pick(lambda x: x.ndim > 0 and x.shape[-2 if x.ndim > 1 else 0] == inner)
        return f"{self.new()} = {a} @ {b}"

    def view(self) -> str:
        return f"{self.new()} = {self.view_of(self.pick())}"

    def view_of(self, a: str) -> str:
        rng, shape = self.rng, self.space[a].shape
        rank = len(shape)
        options = [f"{a}.unsqueeze({rng.randrange(rank + 1)})", f"{a}.reshape(-1)", f"{a}[...]"]
        options += [f"{a}.view({', '.join(map(str, shape[::-1]))})", f"{a}.flatten()", f"{a}[None]"]
        options += [f"{a}.squeeze()", f"{a}.unsqueeze(0).expand(3, {', '.join(['-1'] * rank)})"]
        if rank:
            i, j = rng.randrange(-rank, rank), rng.randrange(-rank, rank)
            options += [f"{a}.transpose({i}, {j})", f"{a}.narrow({i}, 0, {max(1, shape[i] - 1)})"]
            options += [f"{a}.select({i}, 0)", f"{a}.unfold({i}, {rng.choice((1, 2))}, 1)"]
            options += [f"{a}[{self.key(shape)}]"] * 4
        if rank > 1:
            order = ", ".join(map(str, rng.sample(range(rank), rank)))
            options += [
                f"{a}.permute({order})",
                f"{a}.mT",
                f"{a}.diagonal()",
                f"{a}.swapaxes(0, 1)",
            ]
        return rng.choice(options)

    def key(self, shape: Shape) -> str:
        """Slices, numbers, None and an ellipsis."""
        rng = self.rng
        parts = []
        for d in shape[: rng.randrange(1, len(shape) + 1)]:
            kinds = [":", "1:", ":-1", "::2", f":{max(1, d // 2)}", "-1:"]
            parts.append(rng.choice([*kinds, "0", "-1", *(["1"] if d > 1 else [])]))
        if rng.random() < 0.15:
            parts.insert(rng.randrange(len(parts) + 1), "None")
        if rng.random() < 0.15:
            parts.insert(0, "...")
        return ", ".join(parts)

    def index(self, a: str) -> str:
        """A key of any kind: also masks, index tensors and lists."""
        rng, shape = self.rng, self.space[a].shape
        draw = rng.random()
        if not shape:
            return "..."
        top = max(1, shape[0])
        some = [rng.randrange(-top, top) for _ in range(rng.choice((1, 2, 3)))]
        if draw < 0.4:
            return self.key(shape)
        if draw < 0.55 and self.asks:
            return f"{a} > {rng.choice((0, 0.5, -1))}"
        if draw < 0.7:
            return f"dg.tensor({some})"
        if draw < 0.8:
            return str(some)
        if draw < 0.9 and len(shape) > 1:
            last = max(1, shape[-1])
            return f"dg.tensor({some}), ..., dg.tensor({[k % last for k in some]})"
        return (
            f"dg.tensor({[[k] for k in some]}), " + self.key(shape[1:]) if shape[1:] else str(some)
        )

    def read(self) -> str:
        a = self.pick()
        return f"{self.new()} = {a}[{self.index(a)}]"

    def assign(self) -> str:
        a = self.pick()
        key = self.index(a)
        value = self.rng.choice(("0.5", "-1", "2.0", ""))
        if not value:
            with quiet():
                try:
                    shape = eval(f"{a}[{key}]", self.space).shape
                except Exception:
                    raise LookupError from None
            value = self.pick(lambda x: fits(x.shape, shape) and x.ndim <= len(shape))
        sign = self.rng.choice(("=", "=", "=", "+=", "*=", "-="))
        return f"{a}[{key}] {sign} {value}"

    def change(self) -> str:
        """Something in place."""
        a = self.pick()
        b = self.beside(a)
        draw = self.rng.random()
        if draw < 0.35:
            return f"{a} {self.rng.choice(('+=', '-=', '*=', '/='))} {b}"
        if draw < 0.6:
            method = self.rng.choice(("add_", "mul_", "sub_", "copy_", "div_", "maximum_"))
            return f"{a}.{method}({b})"
        callee = self.rng.choice([c for c in self.callees if c.writes])
        if self.rng.random() < 0.2:
            return f"{self.new()} = {self.call_text(callee, a)}"
        return self.call_text(callee, a)

    def simple(self) -> str:
        makers = (self.operator, self.call, self.change, self.assign, self.view)
        return self.rng.choices(makers, (4, 4, 4, 2, 2))[0]()

    def region(self) -> str:
        how = self.rng.choice(("dg.no_grad()", "dg.no_grad()", "dg.enable_grad()"))
        body = "\n".join(f"    {self.simple()}" for _ in range(self.rng.choice((1, 1, 2))))
        return f"with {how}:\n{body}"

    def detach(self) -> str:
        a = self.pick()
        return f"{self.new()} = {a}.{self.rng.choice(('detach()', 'clone()', 'detach().clone()'))}"

    def leaf(self) -> str:
        return f"{self.new()} = {self.floating()}.detach().clone().requires_grad_()"

    def hook(self) -> str:
        a = self.pick(lambda x: x.requires_grad and not x.is_leaf)
        action = self.rng.choice(("g * 0.5", "g + 1", "None", "g.clone()", f"g * {a}.detach()"))
        how = self.rng.choice(("retain_graph=True", "create_graph=True"))
        return f"{a}.register_hook(lambda g: {action})\n({a} * {a}).sum().backward({how})"

    def derivative(self) -> str:
        """The gradient of one tensor by another, or of a function."""
        a, b = self.pick(lambda x: x.requires_grad), self.floating()
        inner = self.rng.choice(
            ("{t} * {t}", "dg.tanh({t})", "{t} * {a}", "{t}.sum(0)", "dg.exp({t})")
        )
        if self.rng.random() < 0.5:
            loss = f"({a} * {a}).sum()"
            how = self.rng.choice(("retain_graph=True", "create_graph=True"))
            leaf = self.pick(lambda x: x.requires_grad)
            return f"[{self.new()}] = dg.autograd.grad({loss}, [{leaf}], {how})"
        body = inner.format(t="t", a=a)
        return f"{self.new()} = {self.transform(body, b)}"

    def transform(self, body: str, b: str) -> str:
        function = f"lambda t: ({body}).sum()"
        forms = (
            f"dg.grad({function})({b})",
            f"dg.value_and_grad({function})({b})[1]",
            f"dg.grad(lambda s: dg.grad({function})(s).sum())({b})",
            f"dg.hvp({function}, [{b}], [{b}.detach()])[1]",
            f"dg.jvp(lambda t: {body}, [{b}], [{b}.detach()])[1]",
        )
        return self.rng.choice(forms)

    def backward(self) -> str:
        a = self.pick(lambda x: x.requires_grad)
        loss = self.rng.choice((f"({a} * {a}).sum()", f"{a}.mean()", f"{a}.sum()"))
        if self.rng.random() < 0.2:
            return f"{a}.backward({a}.detach(), retain_graph=True)"
        how = self.rng.choice(("", "retain_graph=True", "retain_graph=True", "create_graph=True"))
        return f"{loss}.backward({how})"

    def gradient(self) -> str:
        a = self.pick(lambda x: x.grad is not None)
        return self.rng.choice((f"{self.new()} = {a}.grad", f"{a}.grad = None",
                                f"{a}.grad *= 0.5", f"{self.new()} = {a}.grad * {a}"))  # fmt: skip

    def branch(self) -> str:
        a = self.floating()
        test = self.rng.choice((f"{a}.sum() > 0", f"float({a}.mean()) > 0.1", f"({a} > 0).any()"))
        name = self.new()
        return (
            f"if {test}:\n    {name} = {self.expression()}\nelse:\n    {name} = {self.expression()}"
        )

    def expression(self) -> str:
        a = self.pick()
        makers = (f"{a} * {self.beside(a)}", f"{a} - {self.beside(a)}", self.view_of(a))
        return self.rng.choice((*makers, f"dg.tanh({a})", f"{a}.sum()", f"{a}.mean(0)"))

    def loop(self) -> str:
        a = self.floating()
        if self.rng.random() < 0.3:
            return f"for row in {a}:\n    row {self.rng.choice(('+=', '*='))} 0.5"
        b = self.beside(a)
        name = self.new()
        step = self.rng.choice((f"{name} = {name} * 0.5 + {b}", f"{name} = dg.tanh({name} * {b})"))
        return f"{name} = {a}\nfor k in range({self.rng.choice((2, 3))}):\n    {step}"

    def number(self) -> str:
        a, b = self.pick(), self.pick()
        how = self.rng.choice(
            (f"{a}.sum().item()", f"float({a}.max())", f"{a}.reshape(-1)[0].item()")
        )
        return f"{self.new()} = {b} * {how}"

    def random(self) -> str:
        a = self.floating()
        makes = ("dg.rand_like({a})", "dg.randn(*{a}.shape)", "dg.randint(0, 5, (3,))")
        noise = ("dg.functional.dropout({a}, 0.5)", "dg.bernoulli(dg.sigmoid({a}))")
        make = self.rng.choice((*makes, *noise, "dg.randperm(4)"))
        return f"{self.new()} = {make.format(a=a)}"

    def container(self) -> str:
        a, b = self.pick(), self.pick()
        name = self.new()
        change = self.rng.choice((f"pair[0] = {self.expression()}", "pair.reverse()",
                                  f"pair[1] = pair[1] * {b}"))  # fmt: skip
        return f"pair = [{a}, {b}]\n{change}\n{name} = pair[0]"


def holds(fit: Callable[[dg.Tensor], bool], x: dg.Tensor) -> bool:
    """Whether a tensor fits; not if it has lost its history."""
    try:
        return fit(x)
    except GradientError:
        return False


def fits(a: Shape, b: Shape) -> bool:
    """Whether two shapes broadcast to one that is not too large."""
    try:
        return int(np.prod(np.broadcast_shapes(a, b), dtype=np.int64)) <= LARGEST
    except ValueError:
        return False


def is_fine(x: Any) -> bool:
    """Whether a value may stay in a program."""
    if isinstance(x, dg.Tensor):
        return x.size <= LARGEST and (not x.dtype.is_float or magnitude(x) < 1e6)
    if isinstance(x, list | tuple):
        return all(map(is_fine, x))
    return not isinstance(x, float) or abs(x) < 1e6


def magnitude(x: dg.Tensor) -> float:
    with np.errstate(all="ignore"):
        found = float(np.abs(x.detach().numpy().astype(np.float64)).max(initial=0))
    return found if np.isfinite(found) else np.inf


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield


class Outside(Writer):
    """Writes the statements after the call; few ops, many gradients."""

    def __init__(self, inside: Writer, results: list[str], names: list[str]) -> None:
        super().__init__(inside.seed)
        self.rng = inside.rng
        self.space = {k: v for k, v in inside.space.items() if k[0] not in "_v"}
        self.space |= {f"r{k}": inside.space[v] for k, v in enumerate(results)}
        self.names = names

    def kinds(self) -> list[tuple[Callable[[], str], float]]:
        return [
            (self.operator, 2), (self.call, 1), (self.view, 1), (self.change, 1.5),
            (self.hook, 0.7), (self.backward, 4), (self.gradient, 2), (self.again, 1),
            (self.second, 1.5), (self.detach, 0.5), (self.region, 0.7), (self.derivative, 1),
        ]  # fmt: skip

    def new(self) -> str:
        self.count += 1
        return f"w{self.count - 1}"

    def again(self) -> str:
        """The function called once more, on arguments or what fits in their place."""
        args = [a if self.rng.random() < 0.7 else self.pick() for a in self.names]
        return f"{self.new()} = f({', '.join(args)})[0]"

    def second(self) -> str:
        """The gradient of a gradient."""
        leaf = self.pick(lambda x: x.requires_grad and x.is_leaf)
        a = self.pick(lambda x: x.requires_grad and not x.is_leaf)
        return (
            f"{leaf}.grad = None\n({a} * {a}).sum().backward(create_graph=True)\n"
            f"g = {leaf}.grad\n{leaf}.grad = None\n(g * g).sum().backward()"
        )


def draw(
    seed: int,
    make: Callable[[int], Writer] = Writer,
    after: Callable[[Any, list[str], list[str]], Outside] | None = None,
) -> Program:
    """The program of a number."""
    writer = make(seed)
    rng = writer.rng
    dg.seed(0)
    writer.inputs()
    for _ in range(rng.randrange(2, 10)):
        if not writer.error:
            writer.statement()
    names = [v for v, x in writer.space.items() if isinstance(x, dg.Tensor)]
    values = [v for v in names if v.startswith("v")] or names
    results = [rng.choice(values[-4:]) for _ in range(rng.choice((1, 2, 2, 3)))]
    arguments = [a.name for a in writer.arguments]
    outside = (after or Outside)(writer, results, arguments)
    function = source_function(writer, results)
    outside.space["f"] = function
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        if not writer.error and not outside.error:
            outside.statement()
    n = writer.space["n"]
    calls = [(seed * 100, n), (seed * 100, n), (seed * 100 + 50, n + rng.choice((0, 1, -1)))]
    return Program(
        tuple(writer.captured),
        tuple(writer.arguments),
        tuple(writer.statements),
        tuple(results),
        tuple(outside.statements),
        tuple(calls[: rng.choice((2, 3, 3))]),
    )


def source_function(writer: Writer, results: list[str]) -> Any:
    """The function of what has been written so far, for trials of the statements after it."""
    program = Program((), tuple(writer.arguments), tuple(writer.statements), tuple(results), (), ())
    space = {k: v for k, v in writer.space.items() if k[0] != "v"}
    source = program.source.split("    @decorate\n")[1].partition("    def call")[0]
    exec("import numpy\n" + "\n".join(line[4:] for line in source.splitlines()), space)
    return space["f"]
