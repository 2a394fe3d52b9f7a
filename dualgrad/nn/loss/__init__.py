"""Losses as modules, with PyTorch's names and defaults.

PyTorch's `size_average` and `reduce`, long deprecated there, do not exist: what follows them there
is given by name.
"""

from dualgrad.nn.loss.base import Loss
from dualgrad.nn.loss.binary import (
    BCELoss,
    BCEWithLogitsLoss,
    HingeEmbeddingLoss,
    SoftMarginLoss,
)
from dualgrad.nn.loss.classes import (
    CrossEntropyLoss,
    KLDivLoss,
    MultiLabelSoftMarginLoss,
    MultiMarginLoss,
    NLLLoss,
)
from dualgrad.nn.loss.embeddings import (
    CosineEmbeddingLoss,
    MarginRankingLoss,
    TripletMarginLoss,
    TripletMarginWithDistanceLoss,
)
from dualgrad.nn.loss.regression import (
    GaussianNLLLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    PoissonNLLLoss,
    SmoothL1Loss,
)

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]
