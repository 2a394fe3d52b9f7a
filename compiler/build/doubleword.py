"""Sums and products with their rounding errors, for formulas that need more than one word."""

from __future__ import annotations

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.kernel.scalar import Number, Scalar


class DoubleWord(Builder):
    """The builder with exact sums and products: (rounded result, its error)."""

    def two_sum(self, x: Scalar, y: Scalar | Number) -> tuple[Scalar, Scalar]:
        """x + y (D. Knuth, TAOCP volume 2, section 4.2.2)."""
        total = x + y
        part = total - x
        return total, (x - (total - part)) + (y - part)

    def fast_two_sum(self, x: Scalar, y: Scalar) -> tuple[Scalar, Scalar]:
        """x + y where |x| >= |y| or x = 0 (T. Dekker, Numerische Mathematik 18, 1971)."""
        total = x + y
        return total, y - (total - x)

    def two_product(self, x: Scalar, y: Scalar | Number) -> tuple[Scalar, Scalar]:
        """x * y."""
        product = x * y
        return product, self.fma(x, y, -product)

    def wide_sqrt(self, x: Scalar, x_low: Scalar | None = None) -> tuple[Scalar, Scalar]:
        """The square root of x + x_low in two words."""
        root = self.sqrt(x)
        rest = self.fma(-root, root, x)
        twice = self.select(self.eq(root, 0.0), 1.0, root + root)
        return root, (rest if x_low is None else rest + x_low) / twice
