"""The formula language of ops: what a class writes in `scalar(self, b, x, ...)`.

A `Builder` offers the primitives of scalar expressions as methods, for formulas that
operators (`x * y + 1.0`) cannot spell.  `mathlib.Math` adds the elementary functions.
"""

from __future__ import annotations

from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.scalar import Number, Scalar
from dualgrad.runtime.dtype import DType, bool_


class Builder:
    """Primitives; all operands of a call have one dtype, numbers take it on."""

    def const(self, value: Number, dtype: DType) -> Scalar:
        return s.const(value, dtype)

    def eq(self, x: Scalar, y: Scalar | Number) -> Scalar:
        return s.primitive("eq", x, x._coerce(y))

    def ne(self, x: Scalar, y: Scalar | Number) -> Scalar:
        return s.primitive("ne", x, x._coerce(y))

    def fma(self, x: Scalar, y: Scalar | Number, z: Scalar | Number) -> Scalar:
        """x * y + z rounded once."""
        return s.primitive("fma", x, x._coerce(y), x._coerce(z))

    def sqrt(self, x: Scalar) -> Scalar:
        return s.primitive("sqrt", x)

    def rem(self, x: Scalar, y: Scalar | Number) -> Scalar:
        """The remainder of integer division that truncates towards zero."""
        return s.primitive("rem", x, x._coerce(y))

    def abs(self, x: Scalar) -> Scalar:
        if x.dtype.is_float:
            return s.primitive("abs", x)
        return self.select(x < 0, -x, x) if x.dtype.is_signed else x

    def copysign(self, x: Scalar, sign: Scalar) -> Scalar:
        return s.primitive("copysign", x, sign)

    def floor(self, x: Scalar) -> Scalar:
        return s.primitive("floor", x)

    def rint(self, x: Scalar) -> Scalar:
        """The nearest integer, ties to even."""
        return s.primitive("rint", x)

    def select(self, condition: Scalar, yes: Scalar | Number, no: Scalar | Number) -> Scalar:
        if not isinstance(yes, Scalar):
            assert isinstance(no, Scalar)
            yes = no._coerce(yes)
        return s.select(condition, yes, yes._coerce(no))

    def cast(self, x: Scalar, dtype: DType) -> Scalar:
        """x converted as NumPy's astype does; to bool it asks for x != 0."""
        if dtype is bool_ and x.dtype is not bool_:
            return self.ne(s.cast(x, x.dtype.compute), 0)
        return s.cast(x, dtype)

    def bitcast(self, x: Scalar, dtype: DType) -> Scalar:
        return s.bitcast(x, dtype)

    def isnan(self, x: Scalar) -> Scalar:
        if x.dtype.is_float:
            return s.primitive("ne", x, x)
        return s.const(False, bool_)

    def maximum(self, x: Scalar, y: Scalar) -> Scalar:
        """The larger; NaN if either is NaN; of two equal values (+0 and -0) the first."""
        return self.select((x >= y) | self.isnan(x), x, y)

    def minimum(self, x: Scalar, y: Scalar) -> Scalar:
        """The smaller; NaN if either is NaN; of two equal values (+0 and -0) the first."""
        return self.select((x <= y) | self.isnan(x), x, y)

    def table(self, index: Scalar, numbers: tuple[float, ...], dtype: DType) -> Scalar:
        """The number at an index, of which only the low bits count."""
        return s.table(index, numbers, dtype)

    def poly(self, x: Scalar, *coefficients: float) -> Scalar:
        """A polynomial in Horner's form by fma, the highest coefficient first."""
        value = s.const(coefficients[0], x.dtype)
        for c in coefficients[1:]:
            value = self.fma(value, x, c)
        return value
