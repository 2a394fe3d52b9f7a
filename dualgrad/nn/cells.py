"""Cells: one step of recurrent layers."""

from __future__ import annotations

import math
from typing import Any, Final

from dualgrad.compiler.ops.neural import linear
from dualgrad.compiler.ops.recurrent import gru_step, lstm_step, rnn_step
from dualgrad.creation import empty, zeros
from dualgrad.nn.checks import check_choice, check_counts
from dualgrad.nn.init import uniform_
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ShapeError
from dualgrad.tensor import Tensor

NONLINEARITIES: Final = ("tanh", "relu")


class RNNCellBase(Module):
    """The weights of a cell, for `num_chunks` gates.

    weight_ih [num_chunks hidden_size, input_size], weight_hh [num_chunks hidden_size, hidden_size],
    bias_ih, bias_hh [num_chunks hidden_size]; all start uniform in +-1 / sqrt(hidden_size).
    """

    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_counts(type(self).__name__, 1, input_size=input_size, hidden_size=hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        kind = {"device": device, "dtype": dtype}
        gates = num_chunks * hidden_size
        self.weight_ih = Parameter(empty(gates, input_size, **kind))
        self.weight_hh = Parameter(empty(gates, hidden_size, **kind))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(gates, **kind)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for weights and biases."""
        draw_weights(self, self.hidden_size)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")

    def _projected(self, input: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return (
            linear(input, self.weight_ih, self.bias_ih),
            linear(hidden, self.weight_hh, self.bias_hh),
        )

    def _states(self, input: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """The states [N, hidden_size] or [hidden_size] before the step; zeros unless given."""
        name = type(self).__name__
        shape = (*input.shape[:-1], self.hidden_size)
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                "the input does not fit",
                op=name,
                expect=f"[batch, {self.input_size}] or [{self.input_size}]",
                actual=str(tuple(input.shape)),
                hint="a cell takes one step of a sequence",
            )
        for state in given:
            if state is not None and tuple(state.shape) != tuple(shape):
                raise ShapeError(
                    "the state does not fit the input",
                    op=name,
                    expect=str(tuple(shape)),
                    actual=str(tuple(state.shape)),
                    hint="leave it out to start from zeros",
                )
        return tuple(
            zeros(*shape, dtype=input.dtype, device=input.device) if s is None else s for s in given
        )


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu with `nonlinearity="relu"`.

    input [N, input_size] or [input_size]; hx and the result [N, hidden_size] or [hidden_size],
    hx zeros by default.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = check_choice("RNNCell", "nonlinearity", nonlinearity, NONLINEARITIES)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (last,) = self._states(input, (hx,))
        new: Tensor = rnn_step(*self._projected(input, last), self.nonlinearity)
        return new

    def extra_repr(self) -> str:
        other = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + other


class LSTMCell(RNNCellBase):
    """i, f, o = sigmoid, g = tanh of W_ih x + b_ih + W_hh h + b_hh; c' = f c + i g;
    h' = o tanh(c').

    input [N, input_size] or [input_size]; hx = (h, c), each [N, hidden_size] or [hidden_size],
    zeros by default.  Returns (h', c').  The weights hold the gates i, f, g, o in this order.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        hidden, cell = self._states(input, (None, None) if hx is None else tuple(hx))
        return lstm_step(*self._projected(input, hidden), cell)


class GRUCell(RNNCellBase):
    """r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh); n = tanh(W_in x + b_in + r (W_hn h + b_hn));
    h' = (1 - z) n + z h.

    input [N, input_size] or [input_size]; hx and the result [N, hidden_size] or [hidden_size],
    hx zeros by default.  The weights hold the gates r, z, n in this order.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (last,) = self._states(input, (hx,))
        new: Tensor = gru_step(*self._projected(input, last), last)
        return new


def draw_weights(module: Module, hidden_size: int) -> None:
    """All parameters uniform in +-1 / sqrt(hidden_size)."""
    bound = 1 / math.sqrt(hidden_size)
    for weight in module.parameters():
        uniform_(weight, -bound, bound)
