"""Modules: parts of models that own their parameters."""

from dualgrad.nn import init, utils
from dualgrad.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from dualgrad.nn.capture import capture
from dualgrad.nn.distance import CosineSimilarity, PairwiseDistance
from dualgrad.nn.flatten import Flatten
from dualgrad.nn.group_norm import GroupNorm
from dualgrad.nn.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from dualgrad.nn.layer_norm import LayerNorm
from dualgrad.nn.linear import Linear
from dualgrad.nn.local_response_norm import LocalResponseNorm
from dualgrad.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    GaussianNLLLoss,
    HingeEmbeddingLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MarginRankingLoss,
    MSELoss,
    MultiLabelSoftMarginLoss,
    MultiMarginLoss,
    NLLLoss,
    PoissonNLLLoss,
    SmoothL1Loss,
    SoftMarginLoss,
    TripletMarginLoss,
    TripletMarginWithDistanceLoss,
)
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.nn.relu import ReLU
from dualgrad.nn.rms_norm import RMSNorm
from dualgrad.nn.sequential import Sequential

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "Flatten",
    "GaussianNLLLoss",
    "GroupNorm",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "KLDivLoss",
    "L1Loss",
    "LayerNorm",
    "Linear",
    "LocalResponseNorm",
    "MSELoss",
    "MarginRankingLoss",
    "Module",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PairwiseDistance",
    "Parameter",
    "PoissonNLLLoss",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "capture",
    "init",
    "utils",
]
