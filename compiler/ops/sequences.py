"""Recurrent layers over whole sequences, from the projections of their inputs.

Steps run in order, several to a composite: 16 at a time, then 8, 4, 2 and 1 of what is left, so
that programs of five lengths serve all sequences.  A composite returns besides its outputs what
its gradient reads, so no step runs again for that.  A weight gets its gradient from all steps of a
composite at once: in one product over steps and rows of the batch, where one for each step would
be added up.

Formulas as in `ops.recurrent`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dualgrad.compiler.ops.arguments import Given, given, restored
from dualgrad.compiler.ops.composite import composite, raw, with_gradient
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.joining import cat, stack
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.recurrent import Parts, constant, gates_of, np_sigmoid
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.compiler.ops.slicing import narrow, select
from dualgrad.runtime.records import dataclass

LONGEST: Final = 16  # steps of a composite


@dataclass(frozen=True)
class Cell:
    """A kind of step.

    forward   from the projections of the input and of the last output, that output and the last
              cell state (None but for an LSTM): the output, the cell state, and values to keep
    backward  from the kept values and their cotangents (None where there is none), the last output
              and cell state, the new ones, and their cotangents: the cotangents of both
              projections, of the last output, as far as it is not through its projection, and of
              the last cell state
    kept      number of the values to keep
    """

    forward: Callable[[Any, Any, Any, Any], tuple[Any, Any, Parts]]
    backward: Callable[[Parts, Parts, Parts, Parts, Parts], tuple[Any, Any, Any, Any]]
    kept: int


def _sum(x: Any, y: Any) -> Any:
    """x + y; None is nothing."""
    return y if x is None else x if y is None else x + y


def _lstm(x: Any, h: Any, last: Any, cell: Any) -> tuple[Any, Any, Parts]:
    gates = gates_of(x + h, 4, cell.shape[-1])
    i, f, g, o = gates[0].sigmoid(), gates[1].sigmoid(), gates[2].tanh(), gates[3].sigmoid()
    cell = f * cell + i * g
    return o * cell.tanh(), cell, (i, f, g, o)


def _lstm_back(
    kept: Parts, asked: Parts, before: Parts, after: Parts, cotangents: Parts
) -> tuple[Any, Any, Any, Any]:
    (i, f, g, o), tanh, h = kept, after[1].tanh(), cotangents[0]
    cell = _sum(cotangents[1], h * o * (1.0 - tanh * tanh))
    found = cell * g, cell * before[1], cell * i, h * tanh
    di, df, dg, do = (_sum(d, e) for d, e in zip(found, asked, strict=True))
    slopes = i * (1.0 - i), f * (1.0 - f), 1.0 - g * g, o * (1.0 - o)
    both = cat([d * s for d, s in zip((di, df, dg, do), slopes, strict=True)], -1)
    return both, both, None, cell * f


def _gru(x: Any, h: Any, last: Any, cell: Any) -> tuple[Any, Any, Parts]:
    (xr, xz, xn), (hr, hz, hn) = (gates_of(v, 3, last.shape[-1]) for v in (x, h))
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return n + z * (last - n), None, (r, z, n, hn)


def _gru_back(
    kept: Parts, asked: Parts, before: Parts, after: Parts, cotangents: Parts
) -> tuple[Any, Any, Any, Any]:
    (r, z, n, hn), h = kept, cotangents[0]
    dn = _sum(h * (1.0 - z), asked[2]) * (1.0 - n * n)
    dz = _sum(h * (before[0] - n), asked[1]) * (z * (1.0 - z))
    dr = _sum(dn * hn, asked[0]) * (r * (1.0 - r))
    return cat([dr, dz, dn], -1), cat([dr, dz, _sum(dn * r, asked[3])], -1), h * z, None


def _tanh(x: Any, h: Any, last: Any, cell: Any) -> tuple[Any, Any, Parts]:
    return (x + h).tanh(), None, ()


def _tanh_back(
    kept: Parts, asked: Parts, before: Parts, after: Parts, cotangents: Parts
) -> tuple[Any, Any, Any, Any]:
    both = cotangents[0] * (1.0 - after[0] * after[0])
    return both, both, None, None


def _relu(x: Any, h: Any, last: Any, cell: Any) -> tuple[Any, Any, Parts]:
    return (x + h).relu(), None, ()


def _relu_back(
    kept: Parts, asked: Parts, before: Parts, after: Parts, cotangents: Parts
) -> tuple[Any, Any, Any, Any]:
    new = after[0]
    both = where((new > 0) | new.ne(new), cotangents[0], 0.0)
    return both, both, None, None


CELLS: Final = {
    "LSTM": Cell(_lstm, _lstm_back, 4),
    "GRU": Cell(_gru, _gru_back, 4),
    "RNN_TANH": Cell(_tanh, _tanh_back, 0),
    "RNN_RELU": Cell(_relu, _relu_back, 0),
}


@dataclass(frozen=True)
class _Results:
    """What a run returns: outputs [T, N, P], cell states [T, N, H] and kept values [T, N, ...] of
    all steps, the last output and cell state; None where there is no such thing."""

    outputs: Any
    cells: Any
    kept: Any
    output: Any
    cell: Any

    @property
    def there(self) -> Parts:
        found, _ = given(self.outputs, self.cells, self.kept, self.output, self.cell)
        return found

    def states(self, step: int | None, output: Any, cell: Any) -> tuple[Any, Any]:
        """Output and cell state after a step; those given after none."""
        if step is None:
            return output, cell
        return _step(self.outputs, step), _step(self.cells, step)

    def values(self, step: int, count: int, size: Any) -> Parts:
        """The values that a step has kept; without any, so many times None."""
        kept = _step(self.kept, step)
        return (None,) * count if kept is None else gates_of(kept, count, size)


def _step(values: Any, step: int) -> Any:
    return None if values is None else select(values, 0, step)


@dataclass(frozen=True)
class _Run:
    """Static parameters of a composite: kind of cell, which operands there are besides the
    projections of the inputs and the last output, number of steps, direction."""

    mode: str
    which: Given
    count: int
    reverse: bool

    @property
    def kind(self) -> Cell:
        return CELLS[self.mode]

    @property
    def order(self) -> list[int]:
        """The steps in the order in which they run."""
        steps = [*range(self.count)]
        return steps[::-1] if self.reverse else steps

    def stacked(self, values: list[Any], backward: bool = False) -> Any:
        """Values of steps, which have run in order or backward; None if there are none."""
        at = dict(zip(self.order[::-1] if backward else self.order, values, strict=True))
        return None if None in at.values() else stack([at[k] for k in range(self.count)])

    def results(self, found: Parts) -> _Results:
        """What a run returns, from the results that are there."""
        has_cell, keeps = self.mode == "LSTM", self.kind.kept > 0 or self.which[-1]
        return _Results(*restored(found, (True, has_cell, keeps, True, has_cell)))

    def forward(self, x: Any, last: Any, *more: Any) -> _Results:
        """All steps, from the projections of the inputs and the states before."""
        cell, weight, bias, projection = restored(more, self.which)
        outputs, cells, kept = [], [], []
        for k in self.order:
            h = matmul(last, weight.transpose(0, 1))
            h = h if bias is None else h + bias
            last, cell, values = self.kind.forward(select(x, 0, k), h, last, cell)
            if projection is not None:
                values, last = (*values, last), matmul(last, projection.transpose(0, 1))
            outputs.append(last)
            cells.append(cell)
            kept.append(cat(values, -1) if values else None)
        whole = self.stacked(outputs), self.stacked(cells), self.stacked(kept)
        return _Results(*whole, last, cell)

    def backward(self, cotangents: Parts, x: Any, last: Any, *more: Any) -> Parts:
        """The cotangents of the operands from those of the results."""
        cell, weight, _, projection = restored(more, self.which)
        run, asked = self.forward(x, last, *more), self.results(cotangents)
        size, own = (last if cell is None else cell).shape[-1], self.kind.kept
        kept = own + (projection is not None)
        h, c = asked.output, asked.cell
        of_inputs, of_hidden, of_outputs = [], [], []
        for k, before in zip(self.order[::-1], [*self.order[-2::-1], None], strict=True):
            values, wanted = run.values(k, kept, size), asked.values(k, kept, size)
            h, c = _sum(_step(asked.outputs, k), h), _sum(_step(asked.cells, k), c)
            h = constant(0.0, last.shape, last.dtype) if h is None else h
            of_outputs.append(h)
            if projection is not None:
                h = _sum(matmul(h, projection), wanted[own])
            states = run.states(before, last, cell), run.states(k, None, None)
            of_input, of_h, direct, c = self.kind.backward(
                values[:own], wanted[:own], *states, (h, c)
            )
            of_inputs.append(of_input)
            of_hidden.append(of_h)
            h = _sum(matmul(of_h, weight), direct)
        hidden, of_projection = self.stacked(of_hidden, True), None
        if projection is not None:
            unprojected = narrow(run.kept, -1, own * size, size)
            of_projection = _product(self.stacked(of_outputs, True), unprojected)
        of_weight = self.of_weight(hidden, run.outputs, last)
        rest = c, of_weight, hidden.sum((0, 1)), of_projection
        asked_for = (g for g, there in zip(rest, self.which, strict=True) if there)
        return self.stacked(of_inputs, True), h, *asked_for

    def of_weight(self, hidden: Any, outputs: Any, first: Any) -> Any:
        """The gradient of the weight: with the output before each step, the first of which is
        none of these outputs."""
        found = matmul(select(hidden, 0, self.order[0]).transpose(0, 1), first)
        if self.count == 1:
            return found
        rest, late = self.count - 1, int(self.reverse)
        return _product(narrow(hidden, 0, 1 - late, rest), narrow(outputs, 0, late, rest)) + found


def _product(x: Any, y: Any) -> Any:
    """The sum over steps and rows of x[t, n, i] y[t, n, j], as one product."""
    rows = x.shape[0] * x.shape[1]
    return matmul(x.reshape((rows, x.shape[2])).transpose(0, 1), y.reshape((rows, y.shape[2])))


def _run_gradient(
    cotangents: Parts,
    *operands: Any,
    mode: str,
    which: Given,
    count: int,
    reverse: bool,
) -> Parts:
    return _Run(mode, which, count, reverse).backward(cotangents, *operands)


@composite
@with_gradient(_run_gradient)
def _run(*operands: Any, mode: str, which: Given, count: int, reverse: bool) -> Any:
    return _Run(mode, which, count, reverse).forward(*operands).there


def _lengths(count: int) -> list[int]:
    """How many steps each composite makes."""
    rest = count % LONGEST
    return [LONGEST] * (count // LONGEST) + [s for s in (8, 4, 2, 1) if rest & s]


def _joined(cotangents: Parts, x: Any, *, sizes: tuple[int, ...]) -> Parts:
    zeros = [constant(0.0, (n, *x.shape[1:]), x.dtype) for n in sizes]
    return (cat([z if g is None else g for g, z in zip(cotangents, zeros, strict=True)]),)


@composite
@raw
@with_gradient(_joined)
def _pieces(x: Any, *, sizes: tuple[int, ...]) -> Any:
    return tuple(narrow(x, 0, sum(sizes[:k]), n) for k, n in enumerate(sizes))


def run(
    mode: str, x: Any, states: Parts, weight: Any, bias: Any, projection: Any, reverse: bool
) -> tuple[Any, Parts]:
    """Return the outputs [T, N, P] of all steps, in the order of the sequence, and the states
    after the last one.

    mode        "LSTM", "GRU", "RNN_TANH" or "RNN_RELU"
    x           projections of the inputs [T, N, gates H], T >= 1, in the order of the gates
    states      before the first step: output [N, P], of an LSTM also cell state [N, H]
    weight      of the projection of the last output [gates H, P], and `bias` [gates H] or None
    projection  of an LSTM's outputs [P, H], or None: then P is H
    reverse     from the last step to the first
    """
    sizes = _lengths(len(range(x.shape[0])))
    sizes = sizes[::-1] if reverse else sizes
    pieces = (x,) if len(sizes) == 1 else _pieces(x, sizes=tuple(sizes))
    last, cell = (*states, None)[:2]
    outputs = []
    work = list(zip(pieces, sizes, strict=True))
    for piece, count in work[::-1] if reverse else work:
        more, which = given(cell, weight, bias, projection)
        found = _run(piece, last, *more, mode=mode, which=which, count=count, reverse=reverse)
        results = _Run(mode, which, count, reverse).results(found)
        outputs.append(results.outputs)
        last, cell = results.output, results.cell
    if reverse:
        outputs.reverse()
    whole = outputs[0] if len(outputs) == 1 else cat(outputs)
    return whole, ((last,) if cell is None else (last, cell))


def _reference(np: Any, mode: str, x: Any, h: Any, states: Parts) -> tuple[Any, Any]:
    """The output and cell state of a step."""
    if mode == "LSTM":
        i, f, g, o = np.split(x + h, 4, -1)
        cell = np_sigmoid(np, f) * states[1] + np_sigmoid(np, i) * np.tanh(g)
        return np_sigmoid(np, o) * np.tanh(cell), cell
    if mode == "GRU":
        (xr, xz, xn), (hr, hz, hn) = np.split(x, 3, -1), np.split(h, 3, -1)
        new, z = np.tanh(xn + np_sigmoid(np, xr + hr) * hn), np_sigmoid(np, xz + hz)
        return (1 - z) * new + z * states[0], None
    return (np.tanh(x + h) if mode == "RNN_TANH" else np.maximum(x + h, 0)), None


@samples_of(run)
def _samples() -> list[Sample]:
    def case(mode: str, steps: int, reverse: bool, projected: bool = False) -> Sample:
        gates = {"LSTM": 4, "GRU": 3}.get(mode, 1)
        out, cells = 2 if projected else 3, mode == "LSTM"
        shapes = [(steps, 4, gates * 3), (gates * 3, out), (gates * 3,), (4, out)]
        shapes += [(4, 3)] * cells + [(out, 3)] * projected

        def operands(xs: Parts) -> tuple[Any, Parts, Any, Any, Any]:
            x, weight, bias, last, *others = xs
            states = (last, *others[:cells])
            return x, states, weight, bias, others[-1] if projected else None

        def outputs(np: Any, *xs: Any) -> Any:
            x, states, weight, bias, projection = operands(xs)
            found = {}
            for k in range(steps)[:: -1 if reverse else 1]:
                h, cell = _reference(np, mode, x[k], states[0] @ weight.T + bias, states)
                states = (h if projection is None else h @ projection.T, cell)
                found[k] = states[0]
            return np.stack([found[k] for k in range(steps)])

        return formula(lambda *xs: run(mode, *operands(xs), reverse)[0], outputs, *map(Arg, shapes))

    return [
        case("LSTM", 3, False),
        case("LSTM", 2, True, projected=True),
        case("GRU", 3, True),
        case("RNN_TANH", 19, False),
        case("RNN_RELU", 2, True),
    ]
