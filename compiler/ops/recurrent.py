"""One step of recurrent layers, from the two projections to the new state.

Formulas as in PyTorch: S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997, with the
forget gate of F. Gers et al., 2000, and K. Cho et al., "Learning phrase representations using RNN
encoder-decoder", 2014, in the form of cuDNN, where the reset gate acts after the projection.

The gradients of gates are derived one by one and joined, where those of views of all gates would be
added up, each with zeros for the others.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.grad import pullback
from dualgrad.compiler.ir.node import as_node
from dualgrad.compiler.ops.composite import composite, with_gradient
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.joining import cat
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.compiler.ops.slicing import narrow
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import DType

Parts = tuple[Any, ...]


def constant(value: float, shape: Any, dtype: DType) -> Any:
    """A number in all places of a shape."""
    return expand_to(cast_node(as_node(value), dtype), shape)


def gates_of(x: Any, count: int, size: Any) -> Parts:
    """So many gates of `size` each, side by side along the last axis."""
    return tuple(narrow(x, -1, k * size, size) for k in range(count))


def _pulled(outputs: Any, cotangents: Parts, gates: Parts, last: Any) -> list[Any]:
    """The cotangents of gates, side by side, and of the last state."""
    *parts, state = pullback(outputs, cotangents, (*gates, last))
    full = [constant(0.0, last.shape, last.dtype) if g is None else g for g in parts]
    return [*full, state]


def _lstm(gates: Parts, cell: Any) -> tuple[Any, Any]:
    i, f, g, o = gates
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _lstm_gradient(cotangents: Parts, x: Any, h: Any, cell: Any) -> Parts:
    gates = gates_of(x + h, 4, cell.shape[-1])
    *parts, last = _pulled(_lstm(gates, cell), cotangents, gates, cell)
    whole = cat(parts, -1)
    return whole, whole, last


@composite
@with_gradient(_lstm_gradient)
def _lstm_step(x: Any, h: Any, cell: Any) -> Any:
    return _lstm(gates_of(x + h, 4, cell.shape[-1]), cell)


def lstm_step(x: Any, h: Any, cell: Any) -> tuple[Any, Any]:
    """Return the output and the new cell, [..., H], from the projections of the input and of the
    last output, [..., 4 H] (input, forget, cell and output gates), and the last cell."""
    out: tuple[Any, Any] = _lstm_step(x, h, cell)
    return out


def _gru(gates: Parts, last: Any) -> Any:
    xr, xz, xn, hr, hz, hn = gates
    new = (xn + (xr + hr).sigmoid() * hn).tanh()
    return new + (xz + hz).sigmoid() * (last - new)


def _gru_gates(x: Any, h: Any, last: Any) -> Parts:
    size = last.shape[-1]
    return (*gates_of(x, 3, size), *gates_of(h, 3, size))


def _gru_gradient(cotangents: Parts, x: Any, h: Any, last: Any) -> Parts:
    gates = _gru_gates(x, h, last)
    *parts, state = _pulled((_gru(gates, last),), cotangents, gates, last)
    return cat(parts[:3], -1), cat(parts[3:], -1), state


@composite
@with_gradient(_gru_gradient)
def _gru_step(x: Any, h: Any, last: Any) -> Any:
    return _gru(_gru_gates(x, h, last), last)


def gru_step(x: Any, h: Any, last: Any) -> Any:
    """Return the new state, [..., H], from the projections of the input and of the last state,
    [..., 3 H] (reset, update and new gates), and the last state."""
    return _gru_step(x, h, last)


@composite
def _rnn_step(x: Any, h: Any, *, relu: bool) -> Any:
    total = x + h
    return total.relu() if relu else total.tanh()


def rnn_step(x: Any, h: Any, nonlinearity: str) -> Any:
    """Return the new state, tanh or relu of the sum of both projections."""
    return _rnn_step(x, h, relu=nonlinearity == "relu")


def np_sigmoid(np: Any, x: Any) -> Any:
    """For references of samples."""
    return 1 / (1 + np.exp(-x))


@samples_of(lstm_step)
def _lstm_samples() -> list[Sample]:
    def cell(np: Any, x: Any, h: Any, c: Any) -> Any:
        i, f, g, _ = np.split(x + h, 4, -1)
        return np_sigmoid(np, f) * c + np_sigmoid(np, i) * np.tanh(g)

    def output(np: Any, x: Any, h: Any, c: Any) -> Any:
        return np_sigmoid(np, np.split(x + h, 4, -1)[3]) * np.tanh(cell(np, x, h, c))

    args = Arg((5, 12)), Arg((5, 12)), Arg((5, 3))
    return [
        formula(lambda *xs: lstm_step(*xs)[0], output, *args),
        formula(lambda *xs: lstm_step(*xs)[1], cell, *args),
    ]


@samples_of(gru_step)
def _gru_samples() -> list[Sample]:
    def reference(np: Any, x: Any, h: Any, last: Any) -> Any:
        (xr, xz, xn), (hr, hz, hn) = np.split(x, 3, -1), np.split(h, 3, -1)
        update = np_sigmoid(np, xz + hz)
        new = np.tanh(xn + np_sigmoid(np, xr + hr) * hn)
        return (1 - update) * new + update * last

    return [formula(gru_step, reference, Arg((5, 9)), Arg((5, 9)), Arg((5, 3)))]


@samples_of(rnn_step)
def _rnn_samples() -> list[Sample]:
    args = Arg((5, 3)), Arg((5, 3))
    return [
        formula(lambda x, h: rnn_step(x, h, "tanh"), lambda np, x, h: np.tanh(x + h), *args),
        formula(lambda x, h: rnn_step(x, h, "relu"), lambda np, x, h: np.maximum(x + h, 0), *args),
    ]
