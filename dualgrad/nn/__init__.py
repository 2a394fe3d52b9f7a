"""Modules: parts of models that own their parameters."""

from dualgrad.nn import init, utils
from dualgrad.nn.attention import MultiheadAttention
from dualgrad.nn.capture import capture
from dualgrad.nn.flatten import Flatten
from dualgrad.nn.linear import Linear
from dualgrad.nn.loss import CrossEntropyLoss
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.nn.relu import ReLU
from dualgrad.nn.sequential import Sequential

__all__ = [
    "CrossEntropyLoss",
    "Flatten",
    "Linear",
    "Module",
    "MultiheadAttention",
    "Parameter",
    "ReLU",
    "Sequential",
    "capture",
    "init",
    "utils",
]
