"""Modules: parts of models that own their parameters."""

from dualgrad.nn import init, utils
from dualgrad.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from dualgrad.nn.capture import capture
from dualgrad.nn.flatten import Flatten
from dualgrad.nn.group_norm import GroupNorm
from dualgrad.nn.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from dualgrad.nn.layer_norm import LayerNorm
from dualgrad.nn.linear import Linear
from dualgrad.nn.local_response_norm import LocalResponseNorm
from dualgrad.nn.loss import CrossEntropyLoss
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.nn.relu import ReLU
from dualgrad.nn.rms_norm import RMSNorm
from dualgrad.nn.sequential import Sequential

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CrossEntropyLoss",
    "Flatten",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "Linear",
    "LocalResponseNorm",
    "Module",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "capture",
    "init",
    "utils",
]
