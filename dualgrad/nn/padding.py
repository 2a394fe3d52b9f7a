"""Elements added at the ends of the last axes; negative amounts of constants cut off.

Inputs are [N, C, L1, ...] or, without a batch, [C, L1, ...].
"""

from __future__ import annotations

from typing import Any, ClassVar

from dualgrad import functional as F
from dualgrad.nn.checks import check_number
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor


class _Pad(Module):
    """Padding of the last `rank` axes.

    padding  an int, or (before, after) of each axis, the last axis first
    """

    rank: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        amounts = tuple(padding) if isinstance(padding, tuple | list) else (padding,)
        amounts = amounts * 2 * self.rank if len(amounts) == 1 else amounts
        if len(amounts) != 2 * self.rank or not all(type(n) is int for n in amounts):
            raise ArgumentError(
                "padding does not fit",
                op=type(self).__name__,
                expect=f"an int or {2 * self.rank} ints",
                actual=repr(padding),
                hint="give two amounts per axis, those of the last axis first",
            )
        self.padding = amounts

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class _ConstantPad(_Pad):
    __doc__ = "\n".join(("Padding with `value`.", *(_Pad.__doc__ or "").split("\n")[1:]))
    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = check_number(type(self).__name__, "value", value)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return listed(self, "padding", "value")


class ConstantPad1d(_ConstantPad):
    rank = 1


class ConstantPad2d(_ConstantPad):
    rank = 2


class ConstantPad3d(_ConstantPad):
    rank = 3


class _ZeroPad(_ConstantPad):
    """Padding with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return str(self.padding)


class ZeroPad1d(_ZeroPad):
    rank = 1


class ZeroPad2d(_ZeroPad):
    rank = 2


class ZeroPad3d(_ZeroPad):
    rank = 3


class _ReflectionPad(_Pad):
    """Padding with the elements mirrored, the edge itself left out."""

    mode = "reflect"


class ReflectionPad1d(_ReflectionPad):
    rank = 1


class ReflectionPad2d(_ReflectionPad):
    rank = 2


class ReflectionPad3d(_ReflectionPad):
    rank = 3


class _ReplicationPad(_Pad):
    """Padding with the element at the edge."""

    mode = "replicate"


class ReplicationPad1d(_ReplicationPad):
    rank = 1


class ReplicationPad2d(_ReplicationPad):
    rank = 2


class ReplicationPad3d(_ReplicationPad):
    rank = 3


class _CircularPad(_Pad):
    """Padding with the elements of the other end."""

    mode = "circular"


class CircularPad1d(_CircularPad):
    rank = 1


class CircularPad2d(_CircularPad):
    rank = 2


class CircularPad3d(_CircularPad):
    rank = 3
