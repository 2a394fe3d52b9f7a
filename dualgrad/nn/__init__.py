"""Modules: parts of models that own their parameters."""

from dualgrad.nn import init, utils
from dualgrad.nn.attention import MultiheadAttention
from dualgrad.nn.capture import capture
from dualgrad.nn.cells import GRUCell, LSTMCell, RNNCell
from dualgrad.nn.flatten import Flatten
from dualgrad.nn.linear import Linear
from dualgrad.nn.loss import CrossEntropyLoss
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.nn.recurrent import GRU, LSTM, RNN
from dualgrad.nn.relu import ReLU
from dualgrad.nn.sequential import Sequential

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "CrossEntropyLoss",
    "Flatten",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "Module",
    "MultiheadAttention",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Sequential",
    "capture",
    "init",
    "utils",
]
