"""Gradients compared with finite differences.

The comparison is made in random directions: with a direction u of the inputs and weights w of the
outputs, <w, J u> is known from central differences and <J^T w, u> from `backward`.  A wrong entry
of J shows up in either with certainty but for chance, at the cost of a few calls.  Only when they
differ are entries compared one by one, to say which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualgrad.creation import tensor
from dualgrad.runtime.dtype import float64
from dualgrad.runtime.errors import ArgumentError, DTypeError, GradientError
from dualgrad.runtime.records import dataclass
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor
from dualgrad.transforms import trees
from dualgrad.transforms.calls import check_function, is_float
from dualgrad.transforms.derivatives import vjp

Array = np.ndarray[Any, Any]
Fun = Callable[..., Any]
DIRECTIONS = 3
MOVES = 8  # how often a point is left for another one because of a kink
FARTHEST = 1e-2  # how far it is left at most, relative to the size of the inputs
DOUBTFUL = 0.01  # the part of the limit that makes one look at the entries
MOST_ENTRIES = 128  # of inputs, and of outputs, that are compared one by one


def gradcheck(
    fun: Fun,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
    raise_exception: bool = True,
) -> bool:
    """Compare the gradients of `fun(*inputs)` with finite differences, in random directions.

    fun       gives a tensor, or a nested container of some
    inputs    a tensor or a tuple of arguments, in nested containers too.  Checked are those that
              require gradients, or all float ones if none does; they are of dtype float64
    eps       the step of the differences
    atol, rtol   how far entries may be apart: atol + rtol * |finite difference|
    seed      chooses the directions

    Where the function has a kink the point is moved a little.  Returns True; raises GradientError
    with the entry that differs most, or returns False if not `raise_exception`.  DTypeError for
    other dtypes; ArgumentError if there is nothing to check.
    """
    checked = _checked("gradcheck", fun, inputs)
    return _passes(Check(checked, eps, atol, rtol, seed), raise_exception)


def gradgradcheck(
    fun: Fun,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
    raise_exception: bool = True,
) -> bool:
    """Compare the second derivatives of `fun(*inputs)` with finite differences of the first.

    `grad_outputs` are weights of the results, in their structure; random ones if None.  All else
    is as in `gradcheck`.
    """
    checked = _checked("gradgradcheck", fun, inputs)
    if grad_outputs is None:
        with no_grad():
            value = checked.call(checked.tensors)
        rng = np.random.default_rng(seed)
        grad_outputs = trees.mapped(lambda _, y: _drawn(rng, y) if is_float(y) else None, value)
    second = CheckedGradient(checked, grad_outputs)
    return _passes(Check(second, eps, atol, rtol, seed), raise_exception)


def _checked(op: str, fun: Fun, inputs: Any) -> Checked:
    check_function(op, fun)
    return Checked(op, fun, inputs if isinstance(inputs, tuple | list) else (inputs,))


def _passes(check: Check, raise_exception: bool) -> bool:
    try:
        check.run()
    except GradientError:
        if raise_exception:
            raise
        return False
    return True


class Checked:
    """A function of the tensors among its arguments that are checked."""

    about = "gradients"

    def __init__(self, op: str, fun: Fun, args: Sequence[Any]) -> None:
        self.op, self.fun, self.args = op, fun, tuple(args)
        found = [(path, x) for path, x in trees.leaves(self.args) if is_float(x)]
        chosen = [(path, x) for path, x in found if x.requires_grad] or found
        if not chosen:
            raise ArgumentError(
                "there is nothing to check",
                op=op,
                expect="float64 tensors among the inputs",
                actual=f"{len(self.args)} input(s) without any",
                hint="pass at least one float tensor with requires_grad=True",
            )
        self._paths = {path: k for k, (path, _) in enumerate(chosen)}
        self.names = [self.input_name(path) for path, _ in chosen]
        self.tensors = [x for _, x in chosen]
        self.results: list[str] = []  # names of the outputs
        for name, x in zip(self.names, self.tensors, strict=True):
            _check_double(op, name, x)

    def input_name(self, path: str) -> str:
        return f"inputs{path}"

    def output_name(self, path: str) -> str:
        return f"output{path}"

    def call(self, tensors: Sequence[Tensor]) -> Any:
        """What the function gives with other tensors in place of those that are checked."""

        def chosen(path: str, x: Any) -> Any:
            k = self._paths.get(path)
            return x if k is None else tensors[k]

        return self.fun(*trees.mapped(chosen, self.args))

    def outputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The float tensors that the function gives."""
        value = self.call(tensors)
        found = [(self.output_name(path), y) for path, y in trees.leaves(value) if is_float(y)]
        if not found:
            raise ArgumentError(
                "there is nothing to check",
                op=self.op,
                expect="a function that returns float64 tensors",
                actual="None" if value is None else f"a {type(value).__name__}",
                hint="pass at least one float tensor with requires_grad=True",
            )
        for name, y in found:
            _check_double(self.op, name, y)
        self.results = [name for name, _ in found]
        return [y for _, y in found]


class CheckedGradient(Checked):
    """The gradient of a checked function, as one of its inputs and of weights of its results."""

    about = "second derivatives"

    def __init__(self, first: Checked, grad_outputs: Any) -> None:
        self._first = first

        def pulled(tensors: list[Tensor], weights: Any) -> Any:
            return vjp(first.call, tensors)[1](weights)[0]

        args = [x.detach() for x in first.tensors], trees.mapped(_detached, grad_outputs)
        super().__init__(first.op, pulled, args)

    def input_name(self, path: str) -> str:
        names = {f"[0][{k}]": name for k, name in enumerate(self._first.names)}
        return names.get(path) or f"grad_outputs{path[3:]}"

    def output_name(self, path: str) -> str:
        return f"the gradient by {self._first.names[int(path[1:-1])]}"


@dataclass
class Point:
    """Where a function is looked at: inputs, and what it gives there, each in one row."""

    x: Array
    y: Array


@dataclass
class Check:
    """A comparison in progress."""

    checked: Checked
    eps: float
    atol: float
    rtol: float
    seed: int

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def run(self) -> None:
        """Raise GradientError where gradients are wrong."""
        start = _row(self.checked.tensors)
        self._check_repeats(start)
        for _ in range(DIRECTIONS):
            u = self.rng.standard_normal(start.size)
            point, slopes = self._smooth(start, u)
            w = self.rng.standard_normal(point.y.size)
            want, got = float(w @ slopes), float(self._backward(point, w) @ u)
            # What so many entries add up to that are at the limit, each with a sign of its own.
            limit = self.atol * np.linalg.norm(w) * np.linalg.norm(u)
            limit += self.rtol * np.linalg.norm(w) * np.linalg.norm(slopes)
            if not abs(want - got) <= DOUBTFUL * limit:
                self._compare_entries(point)
            if not abs(want - got) <= limit:
                raise self._difference(
                    want, got, "the results", "the inputs", "in a random direction"
                )

    # -- values -------------------------------------------------------------------------------

    def _at(self, x: Array) -> Array:
        with no_grad():
            return _row(self.checked.outputs(self._tensors(x)))

    def _tensors(self, x: Array) -> list[Tensor]:
        out, start = [], 0
        for t in self.checked.tensors:
            part = x[start : start + int(t.size)].reshape(t.shape)
            out.append(tensor(part, device=t.device))
            start += int(t.size)
        return out

    def _check_repeats(self, x: Array) -> None:
        first, second = self._at(x), self._at(x)
        if first.shape != second.shape or first.tobytes() != second.tobytes():
            raise GradientError(
                "the function gives another result each time",
                op=self.checked.op,
                expect="the same bits for the same inputs",
                actual="a result that differs in the second call",
                hint="call dg.manual_seed(0) inside of it, or take random parts out",
            )

    def _smooth(self, start: Array, u: Array) -> tuple[Point, Array]:
        """A point at or near the start without a kink, and the slopes of all outputs there.

        In a direction without a kink, slopes over a step and over half of it are the same, and
        second differences as 4 to 1, but for terms of higher order.
        """
        x = start
        size = max(1.0, float(np.abs(start).max(initial=0.0)))
        for move in range(MOVES):
            h = self.eps
            y = self._at(x)
            ends = [self._at(x + s * h * u) for s in (1.0, -1.0, 0.5, -0.5)]
            slopes: Array = (ends[0] - ends[1]) / (2 * h)
            change = slopes - (ends[2] - ends[3]) / h
            bend = (ends[0] + ends[1] - 2 * y) / h - 4 * (ends[2] + ends[3] - 2 * y) / h
            apart = np.maximum(np.abs(change), np.abs(bend))
            if np.all(apart <= self.atol + self.rtol * np.abs(slopes)):
                return Point(x, y), slopes
            away = FARTHEST * size * 2.0 ** (move - MOVES)
            x = start + away * self.rng.standard_normal(start.size)
        raise GradientError(
            "the function has a kink, a jump or NaN wherever one looks",
            op=self.checked.op,
            expect="a function that is smooth near the inputs",
            actual=f"slopes that depend on the step, at {MOVES} points",
            hint="choose other inputs, or a larger eps if the function is only rough",
        )

    def _backward(self, point: Point, w: Array) -> Array:
        """The weights times the Jacobian."""
        value, back = vjp(lambda *xs: self.checked.outputs(xs), *self._tensors(point.x))
        weights, start = [], 0
        for y in value:
            size = int(y.size)
            weights.append(tensor(w[start : start + size].reshape(y.shape), device=y.device))
            start += size
        return _row(back(weights))

    # -- where they differ --------------------------------------------------------------------

    def _compare_entries(self, point: Point) -> None:
        """Raise GradientError with the entry of the Jacobian that differs most, if one does."""
        columns, rows = self._some(point.x.size), self._some(point.y.size)
        want, got = np.empty((len(rows), len(columns))), np.empty((len(rows), len(columns)))
        for c, k in enumerate(columns):
            u = np.zeros(point.x.size)
            u[k] = self.eps
            want[:, c] = (self._at(point.x + u) - self._at(point.x - u))[rows] / (2 * self.eps)
        for r, k in enumerate(rows):
            w = np.zeros(point.y.size)
            w[k] = 1.0
            got[r] = self._backward(point, w)[columns]
        limit = self.atol + self.rtol * np.abs(want)
        apart = np.abs(want - got)
        wrong = ~(apart <= limit)
        if not wrong.any():
            return
        excess = np.where(np.isnan(apart), np.inf, apart / limit)
        at = np.unravel_index(np.argmax(excess), excess.shape)
        with no_grad():
            outputs = self.checked.outputs(self._tensors(point.x))
        raise self._difference(
            float(want[at]),
            float(got[at]),
            _place(self.checked.results, outputs, int(rows[at[0]])),
            _place(self.checked.names, self.checked.tensors, int(columns[at[1]])),
            f"{int(wrong.sum())} of {wrong.size} entries",
        )

    def _difference(
        self, want: float, got: float, output: str, name: str, where: str
    ) -> GradientError:
        about = self.checked.about
        return GradientError(
            f"{about} differ from finite differences",
            op=self.checked.op,
            expect=f"{want:.9g}, the derivative of {output} by {name}",
            actual=f"{got:.9g}",
            why=f"{where} differ by more than {self.atol:g} + {self.rtol:g} * |expected|",
            hint=_hint(want, got),
        )

    def _some(self, size: int) -> Array:
        """All of so many places, or some of them by chance."""
        if size <= MOST_ENTRIES:
            return np.arange(size)
        return np.sort(self.rng.choice(size, MOST_ENTRIES, replace=False))


def _place(names: list[str], tensors: list[Tensor], k: int) -> str:
    """The name of element k of the row that tensors make."""
    sizes = np.cumsum([0, *(int(t.size) for t in tensors)])
    number = int(np.searchsorted(sizes, k, side="right")) - 1
    index = np.unravel_index(k - int(sizes[number]), tensors[number].shape)
    return names[number] + (f"[{', '.join(map(str, index))}]" if index else "")


def _hint(want: float, got: float) -> str:
    if np.isnan(got):
        return "dg.detect_nan() names the op that makes it"
    if got == 0.0:
        return "is a part of the function detached, or run under dg.no_grad()?"
    if np.isclose(got, -want, rtol=1e-3):
        return "the sign is wrong"
    return ""


def _row(tensors: Sequence[Tensor]) -> Array:
    """All elements in one row."""
    parts = [np.asarray(t.detach().cpu().numpy()).ravel() for t in tensors]
    return np.concatenate(parts) if parts else np.empty(0)


def _drawn(rng: np.random.Generator, y: Tensor) -> Tensor:
    return tensor(rng.standard_normal(y.shape), device=y.device)


def _detached(_: str, x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x


def _check_double(op: str, name: str, x: Tensor) -> None:
    if x.dtype is not float64:
        raise DTypeError(
            "finite differences need float64",
            op=op,
            expect=f"{name} of dtype float64",
            actual=x.dtype.name,
            hint="convert the inputs with .astype(dg.float64)",
        )
