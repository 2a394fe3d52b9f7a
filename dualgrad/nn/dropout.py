"""Dropout: elements or whole channels left out by chance while training.

N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
In evaluation mode the output is the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dualgrad import functional as F
from dualgrad.inplace import in_place
from dualgrad.nn.checks import check_probability
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.tensor import Tensor


class _Dropout(Module):
    """A function that leaves out by chance, with probability p; `inplace` overwrites the input.

    Raises ArgumentError unless 0 <= p <= 1.
    """

    _new: ClassVar[Callable[..., Tensor]]
    _over: ClassVar[Callable[..., Tensor]]

    def __init_subclass__(cls, function: Callable[..., Tensor], **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._new = staticmethod(function)
        cls._over = staticmethod(in_place(function))

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        self.p = check_probability(type(self).__name__, p)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        function = self._over if self.inplace else self._new
        return function(input, self.p, self.training)

    def extra_repr(self) -> str:
        return listed(self, "p", "inplace")


class Dropout(_Dropout, function=F.dropout):
    """Elements set to 0 with probability p, the others divided by 1 - p."""


class Dropout1d(_Dropout, function=F.dropout1d):
    """Channels of [N, C, L] or [C, L] set to 0 with probability p, the others divided by 1 - p."""


class Dropout2d(_Dropout, function=F.dropout2d):
    """Channels of [N, C, H, W] set to 0 with probability p, the others divided by 1 - p."""


class Dropout3d(_Dropout, function=F.dropout3d):
    """Channels of [N, C, D, H, W] or [C, D, H, W] set to 0 with probability p, the others divided
    by 1 - p."""


class AlphaDropout(_Dropout, function=F.alpha_dropout):
    """Elements set to SELU's lowest value with probability p, then all scaled and shifted, so
    that mean 0 and variance 1 stay; G. Klambauer et al., "Self-normalizing neural networks",
    2017."""


class FeatureAlphaDropout(_Dropout, function=F.feature_alpha_dropout):
    """`AlphaDropout` of whole channels of [N, C, ...]."""
