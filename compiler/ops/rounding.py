"""Rounding to integers, which stay floats; integers are what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import Elementwise, operator_reference
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of, unary
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ArgumentError, DTypeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math


class Rounding(Elementwise, abstract=True):
    """A step function: its gradient is 0."""

    vjp = None

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return self.rounded(b, x) if x.dtype.is_float else x

    def rounded(self, b: Math, x: Scalar) -> Scalar:
        """The formula on floats."""
        raise NotImplementedError


class Floor(Rounding):
    """The largest integer up to x."""

    def rounded(self, b: Math, x: Scalar) -> Scalar:
        return b.floor(x)

    @staticmethod
    def samples() -> list[Sample]:
        return rounding_samples(floor, "floor")


class Ceil(Rounding):
    """The smallest integer from x."""

    def rounded(self, b: Math, x: Scalar) -> Scalar:
        return -b.floor(-x)

    @staticmethod
    def samples() -> list[Sample]:
        return rounding_samples(ceil, "ceil")


class Trunc(Rounding):
    """x without its fraction."""

    def rounded(self, b: Math, x: Scalar) -> Scalar:
        return b.copysign(b.floor(b.abs(x)), x)

    @staticmethod
    def samples() -> list[Sample]:
        return rounding_samples(trunc, "trunc")


class Round(Rounding):
    """The nearest integer, ties to even."""

    def rounded(self, b: Math, x: Scalar) -> Scalar:
        return b.rint(x)

    @staticmethod
    def samples() -> list[Sample]:
        halves = Sample(
            round_, (Arg((6,), values=(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)),), lambda np, x: np.rint(x)
        )
        return [*rounding_samples(round_, "round"), halves]


def rounding_samples(function: Any, name: str) -> list[Sample]:
    reference = operator_reference(name)
    whole = Sample(function, (Arg((7,), int64, -9, 9),), lambda np, x: x)
    return [*unary(function, reference, low=-9, high=9, few=True), whole]


_FLOOR = Floor.of()
_CEIL = Ceil.of()
_TRUNC = Trunc.of()
_ROUND = Round.of()


@public("floor")
def floor(x: Operand) -> Any:
    """Return the largest integer up to x, in x's dtype; the gradient is 0."""
    return apply(_FLOOR, x)[0]


@public("ceil")
def ceil(x: Operand) -> Any:
    """Return the smallest integer from x, in x's dtype; the gradient is 0."""
    return apply(_CEIL, x)[0]


@public("trunc")
def trunc(x: Operand) -> Any:
    """Return x rounded towards zero, in x's dtype; the gradient is 0."""
    return apply(_TRUNC, x)[0]


@composite
def _round_decimals(x: Any, *, decimals: int) -> Any:
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return round_(x * scale) / scale
    return round_(x / scale) * scale


@public("round")
def round_(x: Any, decimals: int = 0) -> Any:
    """Return x rounded to a number of decimals, ties to even; the gradient is 0.

    Other decimals than 0 scale by a power of ten, round and scale back, as NumPy does; integers
    have none to round, and DTypeError is raised for places in front of the point.
    """
    if not isinstance(decimals, int):
        raise ArgumentError(
            "no number of decimals",
            op="round",
            expect="an int",
            actual=repr(decimals),
            hint="decimals=2 rounds to hundredths, -2 to hundreds",
        )
    if decimals == 0 or (decimals > 0 and not x.dtype.is_float):
        return apply(_ROUND, x)[0]
    if not x.dtype.is_float:
        raise DTypeError(
            "integers are not rounded",
            op="round",
            expect="floats",
            actual=x.dtype.name,
            hint="leave decimals out, or convert with .astype(dg.float32)",
        )
    return _round_decimals(x, decimals=decimals)


@public("__round__")
def rounded(x: Any, ndigits: int | None = None) -> Any:
    """Return round(x, ndigits) as a tensor."""
    return round_(x, ndigits or 0)


@composite
def _frac(x: Any) -> Any:
    return x - trunc(x)


@public("frac")
def frac(x: Any) -> Any:
    """Return x - trunc(x), with the sign of x; the gradient is 1."""
    return _frac(x)


rint = round_
fix = trunc


@samples_of(rounded)
def _round_samples() -> list[Sample]:
    def to(n: int) -> Sample:
        return Sample(lambda x: round(x, n), (Arg((9,), low=-99, high=99),), _to(n), ulps=1)

    def _to(n: int) -> Any:
        return lambda np, x: np.round(x, n)

    whole = Arg((7,), int64, -9, 9)
    bad = Sample(lambda x: round(x, -1), (whole,), error=TypeError, match="integers are not")
    return [*map(to, (0, 1, -1)), Sample(lambda x: round(x, 2), (whole,), lambda np, x: x), bad]


@samples_of(frac)
def _frac_samples() -> list[Sample]:
    return unary(frac, lambda np, x: np.fmod(x, 1), low=-9, high=9, special=False, few=True)
