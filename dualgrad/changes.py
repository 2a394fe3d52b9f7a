"""Methods that overwrite a tensor: functions in place, under PyTorch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ops.arithmetic import (
    Add,
    Mul,
    Sub,
    absolute,
    addcdiv,
    addcmul,
    clamp_max,
    clamp_min,
    clip,
    lerp,
    maximum,
    minimum,
    neg,
    sign,
    square,
)
from dualgrad.compiler.ops.bitwise import (
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
)
from dualgrad.compiler.ops.classify import (
    copysign,
    nan_to_num,
)
from dualgrad.compiler.ops.division import (
    Div,
    floor_divide,
    fmod,
    reciprocal,
    remainder,
)
from dualgrad.compiler.ops.exponential import (
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log2,
    log10,
    logit,
    sigmoid,
    xlogy,
)
from dualgrad.compiler.ops.grid import (
    tril,
    triu,
)
from dualgrad.compiler.ops.hyperbolic import (
    acosh,
    asinh,
    atanh,
    cosh,
    sinh,
    tanh,
)
from dualgrad.compiler.ops.masked import masked_fill, masked_scatter
from dualgrad.compiler.ops.neural import (
    relu,
)
from dualgrad.compiler.ops.powers import (
    cbrt,
    hypot,
    pow_,
    rsqrt,
    sqrt,
)
from dualgrad.compiler.ops.rounding import (
    ceil,
    floor,
    frac,
    round_,
    trunc,
)
from dualgrad.compiler.ops.scatter import (
    index_add,
    index_copy,
    index_fill,
    scatter,
    scatter_add,
    scatter_reduce,
)
from dualgrad.compiler.ops.trigonometric import (
    acos,
    asin,
    atan,
    atan2,
    cos,
    deg2rad,
    rad2deg,
    sin,
    sinc,
    tan,
)
from dualgrad.inplace import in_place

if TYPE_CHECKING:
    from dualgrad.compiler.ir.value import Unit
    from dualgrad.tensor import Tensor


class Changes:
    """A part of `Tensor`: each method does what the function of its name does, into the tensor.

    The result must have the tensor's shape and dtype (ShapeError, DTypeError), and leaves that
    require gradients may be changed in `no_grad` only (GradientError).
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def _write(self, unit: Unit, *others: Any) -> Tensor: ...

    def add_(self, other: Any) -> Tensor:
        """self += other in place."""
        return self._write(Add.of(), other)

    def sub_(self, other: Any) -> Tensor:
        """self -= other in place."""
        return self._write(Sub.of(), other)

    def mul_(self, other: Any) -> Tensor:
        """self *= other in place."""
        return self._write(Mul.of(), other)

    def div_(self, other: Any) -> Tensor:
        """self /= other in place."""
        return self._write(Div.of(), other)

    abs_ = in_place(absolute)
    acos_ = in_place(acos)
    acosh_ = in_place(acosh)
    addcdiv_ = in_place(addcdiv)
    addcmul_ = in_place(addcmul)
    asin_ = in_place(asin)
    asinh_ = in_place(asinh)
    atan_ = in_place(atan)
    atan2_ = in_place(atan2)
    atanh_ = in_place(atanh)
    bitwise_and_ = in_place(bitwise_and)
    bitwise_left_shift_ = in_place(bitwise_left_shift)
    bitwise_not_ = in_place(bitwise_not)
    bitwise_or_ = in_place(bitwise_or)
    bitwise_right_shift_ = in_place(bitwise_right_shift)
    bitwise_xor_ = in_place(bitwise_xor)
    cbrt_ = in_place(cbrt)
    ceil_ = in_place(ceil)
    clamp_ = in_place(clip)
    clamp_max_ = in_place(clamp_max)
    clamp_min_ = in_place(clamp_min)
    clip_ = in_place(clip)
    copysign_ = in_place(copysign)
    cos_ = in_place(cos)
    cosh_ = in_place(cosh)
    deg2rad_ = in_place(deg2rad)
    exp_ = in_place(exp)
    exp2_ = in_place(exp2)
    expm1_ = in_place(expm1)
    floor_ = in_place(floor)
    floor_divide_ = in_place(floor_divide)
    fmod_ = in_place(fmod)
    frac_ = in_place(frac)
    hypot_ = in_place(hypot)
    lerp_ = in_place(lerp)
    log_ = in_place(log)
    log10_ = in_place(log10)
    log1p_ = in_place(log1p)
    log2_ = in_place(log2)
    logit_ = in_place(logit)
    maximum_ = in_place(maximum)
    minimum_ = in_place(minimum)
    nan_to_num_ = in_place(nan_to_num)
    neg_ = in_place(neg)
    negative_ = in_place(neg)
    pow_ = in_place(pow_)
    rad2deg_ = in_place(rad2deg)
    reciprocal_ = in_place(reciprocal)
    relu_ = in_place(relu)
    remainder_ = in_place(remainder)
    round_ = in_place(round_)
    rsqrt_ = in_place(rsqrt)
    sigmoid_ = in_place(sigmoid)
    sign_ = in_place(sign)
    sin_ = in_place(sin)
    sinc_ = in_place(sinc)
    sinh_ = in_place(sinh)
    sqrt_ = in_place(sqrt)
    square_ = in_place(square)
    tan_ = in_place(tan)
    tanh_ = in_place(tanh)
    tril_ = in_place(tril)
    triu_ = in_place(triu)
    trunc_ = in_place(trunc)
    xlogy_ = in_place(xlogy)
    index_add_ = in_place(index_add)
    index_copy_ = in_place(index_copy)
    index_fill_ = in_place(index_fill)
    masked_fill_ = in_place(masked_fill)
    masked_scatter_ = in_place(masked_scatter)
    scatter_ = in_place(scatter)
    scatter_add_ = in_place(scatter_add)
    scatter_reduce_ = in_place(scatter_reduce)
    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_
    __ifloordiv__ = floor_divide_
    __imod__ = remainder_
    __ipow__ = pow_
    __iand__ = bitwise_and_
    __ior__ = bitwise_or_
    __ixor__ = bitwise_xor_
    __ilshift__ = bitwise_left_shift_
    __irshift__ = bitwise_right_shift_
