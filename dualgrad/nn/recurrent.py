"""Recurrent layers: RNN, LSTM and GRU over whole sequences.

A layer projects all steps of its input in one product; then each step is one product and one
elementwise kernel.  Weights get their gradients from many steps at once.  Compiled programs hold
the steps one after another, so time to compile grows with the length of the sequence, and another
length is another trace.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

from dualgrad.compiler.ops.joining import cat, stack, unbind
from dualgrad.compiler.ops.neural import linear
from dualgrad.compiler.ops.sequences import run
from dualgrad.creation import empty, zeros
from dualgrad.functional import dropout as drop
from dualgrad.nn.cells import NONLINEARITIES, draw_weights
from dualgrad.nn.checks import check_choice, check_counts, check_probability
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.runtime.srcinfo import warn_user
from dualgrad.tensor import Tensor

GATES: Final = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
States = tuple[Tensor, ...]  # of one step: the output, and the cell of an LSTM


class RNNBase(Module):
    """What RNN, LSTM and GRU have in common: weights, shapes, layers and directions.

    weight_ih_l{k}  [gates hidden_size, input size of layer k]
    weight_hh_l{k}  [gates hidden_size, size of its output]
    bias_ih_l{k}, bias_hh_l{k}  [gates hidden_size], unless `bias=False`
    weight_hr_l{k}  [proj_size, hidden_size], with `proj_size`

    Those of the direction from the end to the start have "_reverse" at the end of their names.
    All start uniform in +-1 / sqrt(hidden_size).
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(check_probability(type(self).__name__, dropout))
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._check_arguments()
        self._names = [
            self._make_weights(layer, reverse, {"device": device, "dtype": dtype})
            for layer in range(num_layers)
            for reverse in ((False, True) if bidirectional else (False,))
        ]
        self.reset_parameters()

    def _make_weights(self, layer: int, reverse: bool, kind: dict[str, Any]) -> dict[str, str]:
        """Register the weights of one layer and direction; their names by what they are."""
        gates = GATES[self.mode] * self.hidden_size
        below = self._output_size * (1 + self.bidirectional)
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (gates, below if layer else self.input_size),
            "weight_hh": (gates, self._output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        names = {role: f"{role}_l{layer}{'_reverse' if reverse else ''}" for role in shapes}
        for role, shape in shapes.items():
            self.register_parameter(names[role], Parameter(empty(*shape, **kind)))
        return names

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction."""
        return [[getattr(self, name) for name in names.values()] for names in self._names]

    def reset_parameters(self) -> None:
        """Draw new values for all weights."""
        draw_weights(self, self.hidden_size)

    def flatten_parameters(self) -> None:
        """Nothing: weights lie as they are needed.  PyTorch has this for cuDNN."""

    def extra_repr(self) -> str:
        shown = (
            ("proj_size", self.proj_size, 0),
            ("num_layers", self.num_layers, 1),
            ("bias", self.bias, True),
            ("batch_first", self.batch_first, False),
            ("dropout", self.dropout, 0),
            ("bidirectional", self.bidirectional, False),
        )
        given = (f", {name}={value}" for name, value, usual in shown if value != usual)
        return f"{self.input_size}, {self.hidden_size}" + "".join(given)

    # -- running

    @property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The sizes of the states: of the output, and of an LSTM's cell."""
        return (self._output_size, self.hidden_size)[: 1 + (self.mode == "LSTM")]

    def _direction(
        self, sequence: Tensor, number: int, states: States, reverse: bool
    ) -> tuple[Tensor, States]:
        """Outputs in the order of the sequence [T, N, ...], and the states after the last step."""
        weights = {role: getattr(self, name) for role, name in self._names[number].items()}
        if self.bias and self.mode != "GRU":  # both biases are added to the same gates, once
            weights["bias_ih"] = weights["bias_ih"] + weights.pop("bias_hh")
        projected = linear(sequence, weights["weight_ih"], weights.get("bias_ih"))
        rest = weights["weight_hh"], weights.get("bias_hh"), weights.get("weight_hr")
        return run(self.mode, projected, states, *rest, reverse)

    def _run(self, input: Tensor, given: tuple[Tensor, ...] | None) -> tuple[Tensor, States]:
        """The output and the last states of all layers and directions."""
        batched = input.ndim == 3
        self._check_input(input)
        sequence = input if batched else input.unsqueeze(1)
        sequence = sequence.transpose(0, 1) if batched and self.batch_first else sequence
        starts = self._starts(sequence, given, batched)
        count = 1 + self.bidirectional
        ends: list[States] = []
        for layer in range(self.num_layers):
            if layer:
                sequence = drop(sequence, self.dropout, self.training)
            runs = [
                self._direction(sequence, k, starts[k], reverse=k > layer * count)
                for k in range(layer * count, (layer + 1) * count)
            ]
            ends += [states for _, states in runs]
            outputs = [whole for whole, _ in runs]
            sequence = outputs[0] if count == 1 else cat(outputs, -1)
        if batched and self.batch_first:
            sequence = sequence.transpose(0, 1).contiguous()
        states = tuple(stack(parts) for parts in zip(*ends, strict=True))
        if batched:
            return sequence, states
        return sequence.squeeze(1), tuple(s.squeeze(1) for s in states)

    def _starts(
        self, sequence: Tensor, given: tuple[Tensor, ...] | None, batched: bool
    ) -> list[States]:
        """The states before the first step, for each layer and direction."""
        count, batch = len(self._names), sequence.shape[1]
        if given is None:
            dtype, device = sequence.dtype, sequence.device
            zero = [zeros(batch, size, dtype=dtype, device=device) for size in self._sizes]
            return [tuple(zero)] * count
        for state, size in itertools.zip_longest(given, self._sizes):
            expected = (count, *((batch,) if batched else ()), size)
            if state is None or size is None or tuple(state.shape) != expected:
                raise ShapeError(
                    "the states do not fit",
                    op=type(self).__name__,
                    expect=f"{len(self._sizes)} of them: {expected}",
                    actual=", ".join(str(tuple(s.shape)) for s in given),
                    hint="[num_layers * directions, batch, size]; leave them out to start from 0",
                )
        wide = given if batched else tuple(s.unsqueeze(1) for s in given)
        return list(zip(*(unbind(s) for s in wide), strict=True))

    # -- checks

    def _check_arguments(self) -> None:
        name = type(self).__name__
        check_counts(
            name,
            1,
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
        )
        if not 0 <= self.proj_size < self.hidden_size:
            raise ArgumentError(
                "a projection makes the output smaller",
                op=name,
                expect=f"0 <= proj_size < {self.hidden_size}",
                actual=str(self.proj_size),
                hint="leave it out for outputs of hidden_size",
            )
        if self.dropout and self.num_layers == 1:
            warn_user(f"{name}: dropout acts between layers, and there is one layer")

    def _check_input(self, input: Tensor) -> None:
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            order = "batch, length" if self.batch_first else "length, batch"
            raise ShapeError(
                "the input does not fit",
                op=type(self).__name__,
                expect=f"[{order}, {self.input_size}] or [length, {self.input_size}]",
                actual=str(tuple(input.shape)),
                hint="the last size is input_size",
            )
        if input.shape[1 if self.batch_first and input.ndim == 3 else 0] == 0:
            raise ShapeError(
                "the sequence is empty",
                op=type(self).__name__,
                expect="one step or more",
                actual=str(tuple(input.shape)),
                hint="batch_first says which size is the length",
            )


class RNN(RNNBase):
    """Layers of h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or relu.

    input   [T, N, input_size], [N, T, input_size] with `batch_first`, or [T, input_size]
    hx      [num_layers D, N, hidden_size], without N for one sequence; zeros by default
    output  [T, N, D hidden_size] in the order of the input, and the last states, shaped as hx

    D is 2 with `bidirectional`, else 1.  `nonlinearity` is "tanh" or "relu".  `dropout` acts on
    the outputs of all layers but the last, in training.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.nonlinearity = check_choice("RNN", "nonlinearity", nonlinearity, NONLINEARITIES)
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, (hidden,) = self._run(input, None if hx is None else (hx,))
        return output, hidden


class LSTM(RNNBase):
    """Layers of long short-term memory: what LSTMCell computes, for each step.

    input   [T, N, input_size], [N, T, input_size] with `batch_first`, or [T, input_size]
    hx      (h, c): [num_layers D, N, proj_size or hidden_size] and [num_layers D, N, hidden_size],
            without N for one sequence; zeros by default
    output  [T, N, D (proj_size or hidden_size)], and (h, c) after the last step

    D is 2 with `bidirectional`, else 1.  `dropout` acts on the outputs of all layers but the last,
    in training.  With `proj_size` the output of a step is W_hr h.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype,
        )  # fmt: skip

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, (hidden, cell) = self._run(input, None if hx is None else tuple(hx))
        return output, (hidden, cell)


class GRU(RNNBase):
    """Layers of gated recurrent units: what GRUCell computes, for each step.

    Shapes and arguments are those of RNN, without `nonlinearity`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, (hidden,) = self._run(input, None if hx is None else (hx,))
        return output, hidden
