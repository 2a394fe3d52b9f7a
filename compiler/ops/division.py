"""Division and its remainders, for integers with the signs and zeros that Python and NumPy have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.build import division
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import Elementwise, FloatFunction, operator_reference
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.rounding import trunc
from dualgrad.compiler.ops.sample import Arg, Sample, binary, samples_of, unary_samples_of
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ArgumentError

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math


class Div(FloatFunction):
    """x / y of floats; integers are converted to the default float."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x / y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g / y, -g * out / y)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(div, operator_reference("divide"), low=0.5, high=2.0, few=True)


class FloorDivide(Elementwise):
    """The quotient rounded down; see `compiler.build.division`."""

    vjp = None

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return division.floor_divide(b, x, y)

    @staticmethod
    def samples() -> list[Sample]:
        return quotient_samples(floor_divide, "floor_divide")


class TruncDivide(Elementwise):
    """The quotient of integers rounded towards zero."""

    accepts = "iu"
    vjp = None

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return division.trunc_divide(b, x, y)

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any, y: Any) -> Any:
            return np.floor_divide(np.subtract(x, np.fmod(x, y)), y)

        return binary(_trunc_divide, reference, dtype=int64, low=-9, high=9, few=True)


class Remainder(Elementwise):
    """x - floor(x / y) * y, with the sign of y; see `compiler.build.division`."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return division.remainder(b, x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g, -g * floor_divide(x, y))

    @staticmethod
    def samples() -> list[Sample]:
        return quotient_samples(remainder, "remainder")


class Fmod(Elementwise):
    """x - trunc(x / y) * y, with the sign of x; see `compiler.build.division`."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return division.fmod(b, x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g, -g * trunc(x / y))

    @staticmethod
    def samples() -> list[Sample]:
        return quotient_samples(fmod, "fmod")


def quotient_samples(function: Any, name: str) -> list[Sample]:
    """Floats away from zero, integers with it."""
    floats = binary(function, operator_reference(name), low=0.5, high=2.0, special=False, few=True)
    whole = binary(function, operator_reference(name), dtype=int64, low=-9, high=9, few=True)
    return [*floats, *whole]


# Ops without parameters, made once: the functions below are on the path of every eager call.
_DIV = Div.of()
_FLOOR_DIVIDE = FloorDivide.of()
_TRUNC_DIVIDE = TruncDivide.of()
_REMAINDER = Remainder.of()
_FMOD = Fmod.of()


@public("__truediv__", "div", "divide", "true_divide")
def div(x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Any:
    """Return x / y element by element; integers become the default float first.

    `rounding_mode` "floor" is `floor_divide`, "trunc" rounds towards zero; both keep integers.
    """
    if rounding_mode is None:
        return apply(_DIV, x, y)[0]
    if rounding_mode == "floor":
        return apply(_FLOOR_DIVIDE, x, y)[0]
    if rounding_mode == "trunc":
        return _truncated(x, y)
    raise ArgumentError(
        "no such rounding mode",
        op="div",
        expect="None, 'floor' or 'trunc'",
        actual=repr(rounding_mode),
        hint="leave rounding_mode out for true division",
    )


@public("__rtruediv__")
def rdiv(x: Operand, y: Operand) -> Any:
    """Return y / x."""
    return apply(_DIV, y, x)[0]


@public("__floordiv__", "floor_divide")
def floor_divide(x: Operand, y: Operand) -> Any:
    """Return the largest integer up to x / y, in the dtype of the operands.

    As Python has it: floats are `(x - x % y) / y`, so x // y * y + x % y is x but for rounding.
    Integers by zero give 0, the smallest integer by -1 itself; floats by zero give x / y.  The
    gradient is 0.
    """
    return apply(_FLOOR_DIVIDE, x, y)[0]


@public("__rfloordiv__")
def rfloor_divide(x: Operand, y: Operand) -> Any:
    """Return y // x."""
    return apply(_FLOOR_DIVIDE, y, x)[0]


@public("__mod__", "remainder")
def remainder(x: Operand, y: Operand) -> Any:
    """Return x - floor(x / y) * y with the sign of y, as Python's %; exact for equal signs.

    Integers by zero give 0, floats by zero NaN.  The gradient takes floor(x / y) for constant.
    """
    return apply(_REMAINDER, x, y)[0]


@public("__rmod__")
def rremainder(x: Operand, y: Operand) -> Any:
    """Return y % x."""
    return apply(_REMAINDER, y, x)[0]


@public("fmod")
def fmod(x: Operand, y: Operand) -> Any:
    """Return x - trunc(x / y) * y with the sign of x, as C's fmod; exact.

    Integers by zero give 0, floats by zero NaN.  The gradient takes trunc(x / y) for constant.
    """
    return apply(_FMOD, x, y)[0]


@public("__divmod__", "divmod")
def floor_divmod(x: Operand, y: Operand) -> tuple[Any, Any]:
    """Return (x // y, x % y)."""
    return floor_divide(x, y), remainder(x, y)


@public("__rdivmod__")
def rfloor_divmod(x: Operand, y: Operand) -> tuple[Any, Any]:
    """Return (y // x, y % x)."""
    return floor_divide(y, x), remainder(y, x)


def _trunc_divide(x: Operand, y: Operand) -> Any:
    return apply(_TRUNC_DIVIDE, x, y)[0]


@composite
def _truncated(x: Any, y: Any) -> Any:
    if x.dtype.is_float or y.dtype.is_float:
        return trunc(x / y)
    return _trunc_divide(x, y)


@composite
@single
def _reciprocal(x: Any) -> Any:
    return 1.0 / x


@public("reciprocal")
def reciprocal(x: Any) -> Any:
    """Return 1 / x; integers become the default float first."""
    return _reciprocal(x)


divide = true_divide = div
mod = remainder

unary_samples_of(reciprocal, lambda np, x: 1 / x, low=0.5)


@samples_of(div)
def _rounding_mode_samples() -> list[Sample]:
    def sample(mode: str, whole: bool, name: str) -> Sample:
        args = (Arg((9, 1), low=-9, high=9), Arg((5,), values=(-3.0, -1.5, 0.7, 2.0, 5.0)))
        if whole:
            args = (Arg((9, 1), int64, -9, 9), Arg((5,), int64, values=(-3, -1, 1, 2, 5)))

        def reference(np: Any, x: Any, y: Any) -> Any:
            return getattr(np, name)(x / y).astype(x.dtype)

        return Sample(lambda x, y: div(x, y, rounding_mode=mode), args, reference)

    bad = Sample(
        lambda x: div(x, 2, rounding_mode="up"), (Arg((2,)),), error=ValueError, match="no such"
    )
    modes = (("floor", "floor"), ("trunc", "trunc"))
    return [*(sample(m, whole, name) for m, name in modes for whole in (True, False)), bad]


@samples_of(floor_divmod)
def _floor_divmod_samples() -> list[Sample]:
    return [
        Sample(
            lambda x, y, k=k: floor_divmod(x, y)[k],
            (Arg((5,)), Arg((5,), low=0.5)),
            lambda np, x, y, k=k: np.divmod(x, y)[k],
            gradient=k == 1,
        )
        for k in (0, 1)
    ]
