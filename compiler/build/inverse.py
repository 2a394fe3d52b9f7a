"""Inverse trigonometric functions as formulas; see `mathlib`."""

from __future__ import annotations

from dualgrad.compiler.build.doubleword import DoubleWord
from dualgrad.compiler.build.formats import FORMATS, INF
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import DType, float32


class InverseTrigonometry(DoubleWord):
    """The builder with inverse trigonometric functions."""

    def asin(self, x: Scalar) -> Scalar:
        """Arc sine, NaN beyond 1.  Error: at most 1 ulp, 1.5 ulp (float32).

        A polynomial for |x| <= 1/2, else pi/2 - 2 asin(sqrt((1 - |x|) / 2)).
        """
        near, y, tail = self._arc_sine(x)
        far = self._from_angle(x.dtype, 1.0, -2.0 * y, -2.0 * tail)
        return self.copysign(self.select(near, y + tail, far), x)

    def acos(self, x: Scalar) -> Scalar:
        """Arc cosine, NaN beyond 1.  Error: at most 1 ulp, 1.5 ulp (float32).

        With the terms of `asin`: pi/2 - asin(x), 2 asin(y) or pi - 2 asin(y).
        """
        near, y, tail = self._arc_sine(x)
        negative = x < 0.0
        turns = self.select(near, 1.0, self.select(negative, x._coerce(2.0), 0.0))
        factor = self.select(near, x._coerce(-1.0), 2.0)
        factor = self.select(negative, -factor, factor)
        return self._from_angle(x.dtype, turns, factor * y, factor * tail)

    def _arc_sine(self, x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
        """(|x| <= 1/2, y, asin(y) - y) for y = |x| or y = sqrt((1 - |x|) / 2)."""
        f = FORMATS[x.dtype]
        size = self.abs(x)
        near = size <= 0.5
        z = self.select(near, size * size, self.fma(size, -0.5, 0.5))
        if x.dtype is float32:  # where an error of half an ulp of the root does no harm
            y = self.select(near, size, self.sqrt(z))
            return near, y, y * z * self.poly(z, *f.asin)
        root, root_low = self.wide_sqrt(z)
        y, y_low = self.select(near, size, root), self.select(near, 0.0, root_low)
        return near, y, self.fma(y * z, self.poly(z, *f.asin), y_low)

    def atan(self, x: Scalar) -> Scalar:
        """Arc tangent.  Error: at most 1.5 ulp.

        A polynomial for |x| <= 1, else pi/2 - atan(1 / |x|).
        """
        size = self.abs(x)
        far = size > 1.0
        inverse = 1.0 / size
        rest = self.select(size < INF, self.fma(-inverse, size, 1.0) * inverse, 0.0)
        q, q_low = self.select(far, inverse, size), self.select(far, rest, 0.0)
        tail = self._arc_tangent_tail(q, q_low)
        turned = self._from_angle(x.dtype, 1.0, -q, -tail)
        return self.copysign(self.select(far, turned, q + tail), x)

    def atan2(self, y: Scalar, x: Scalar) -> Scalar:
        """The angle of the point (x, y), from -pi to pi; signs of zeros count.

        With q = the smaller of |x| and |y| over the larger: atan(q) or pi/2 - atan(q), and pi
        minus that where x is negative.  Error: at most 1.5 ulp.
        """
        f = FORMATS[x.dtype]
        width, height = self.abs(x), self.abs(y)
        steep = height > width
        top, divisor = self.select(steep, width, height), self.select(steep, height, width)
        # two infinities count as two equal numbers, a zero divisor as 1
        endless = self.eq(divisor, INF)
        top = self.select(endless, self.select(self.eq(top, INF), x._coerce(1.0), 0.0), top)
        divisor = self.select(endless | self.eq(divisor, 0.0), 1.0, divisor)
        small = divisor < f.smallest_normal * 2.0 ** (f.fraction_bits + 2)
        scale = self.select(small, x._coerce(2.0 ** (f.fraction_bits + 2)), 1.0)
        top, divisor = top * scale, divisor * scale
        q = top / divisor
        tail = self._arc_tangent_tail(q, self.fma(-q, divisor, top) / divisor)
        behind = self.bitcast(x, f.integer) < 0
        turns = self.select(steep, x._coerce(1.0), self.select(behind, x._coerce(2.0), 0.0))
        flip = self.ne(steep, behind)
        angle = self._from_angle(
            x.dtype, turns, self.select(flip, -q, q), self.select(flip, -tail, tail)
        )
        angle = self.select(self.isnan(x) | self.isnan(y), x + y, angle)
        return self.copysign(angle, y)

    def _arc_tangent_tail(self, q: Scalar, q_low: Scalar) -> Scalar:
        """atan(q + q_low) - q for 0 <= q <= 1; q_low, less than an ulp, is not worth a division
        by 1 + q**2."""
        z = q * q
        low = self.fma(z * -0.5, q_low, q_low)
        return self.fma(q * z, self.poly(z, *FORMATS[q.dtype].atan), low)

    def _from_angle(self, dtype: DType, turns: Scalar | float, high: Scalar, low: Scalar) -> Scalar:
        """turns * pi/2 + high + low; |high| is at most the angle, or turns = 0."""
        half_pi = FORMATS[dtype].half_pi
        angle = high._coerce(half_pi[0]) * turns
        angle_low = high._coerce(half_pi[1]) * turns
        total, error = self.fast_two_sum(angle, high)
        return total + (error + (low + angle_low))
