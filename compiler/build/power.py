"""Powers and roots as formulas; see `mathlib`."""

from __future__ import annotations

from dualgrad.compiler.build.exponential import Exponential
from dualgrad.compiler.build.formats import FORMATS, INF, NAN, Format
from dualgrad.compiler.build.logarithm import Logarithm
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import float32, float64

# log2(1 + m) / m on sqrt(1/2) <= 1 + m < sqrt(2), and (2**r - 1) / r on |r| <= 1/2, in float64
# but only as exact as a power in float32 needs it
_LOG2 = (
    0.07539635293377538,
    -0.14134210139643918,
    0.14496738268258716,
    -0.14351601723375548,
    0.15878436197239848,
    -0.18026873052486128,
    0.206172657816688,
    -0.24045442908654507,
    0.28853740150843865,
    -0.36067365375872096,
    0.4808983600897154,
    -0.7213475209708017,
    1.4426950408710328,
)
_EXP2 = (
    0.0001546736497289471,
    0.0013400432165377564,
    0.009618035958600904,
    0.055503272142092296,
    0.24022651084149668,
    0.6931472067106199,
)
# (log((1 + s) / (1 - s)) / s - 2 - 2/3 s**2) / s**4 in s**2
_AREA_TANGENT = (
    0.1320062266357733,
    0.1325631622878917,
    0.15386780897865104,
    0.18181783800570817,
    0.22222222527208363,
    0.2857142857005262,
    0.4000000000000237,
)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
_SQRT_HALF = 0x3F3504F3  # bits of sqrt(1/2) in float32
_CUBE_ROOT = {float32: 0x54A2FA8C, float64: 0x553EF0FF289DD796}  # see cbrt
_SCALES = {float32: (2.0**24, 2.0**-8), float64: (2.0**54, 2.0**-18)}


class Power(Exponential, Logarithm):
    """The builder with powers and roots."""

    def pow(self, x: Scalar, y: Scalar) -> Scalar:
        """x**y; NaN for negative x with a finite y that is no integer.  Error: at most 1.5 ulp.

        x**0 and 1**y are 1 even where the other operand is NaN.
        """
        size = self.abs(x)
        power = self._pow32(size, y) if x.dtype is float32 else self._pow64(size, y)
        zero = self.eq(size, 0.0)
        limit = self.select(self.eq(zero, y < 0.0), x._coerce(INF), 0.0)
        power = self.select(zero | self.eq(size, INF), limit, power)
        whole = self.eq(self.floor(y), y)
        half = y * 0.5
        odd = whole & self.ne(self.floor(half), half)
        power = self.select(odd, self.copysign(power, x), power)
        power = self.select((x < 0.0) & (x > -INF) & ~whole, NAN, power)
        power = self.select(self.isnan(x) | self.isnan(y), x + y, power)
        return self.select(self.eq(y, 0.0) | self.eq(x, 1.0), 1.0, power)

    def _pow32(self, x: Scalar, y: Scalar) -> Scalar:
        """x**y for 0 < x < inf in float32, by logarithm and exponential in float64."""
        f = FORMATS[float32]
        small = x < f.smallest_normal
        bits = self.bitcast(self.select(small, x * 2.0**f.fraction_bits, x), f.integer)
        exponent = (bits - _SQRT_HALF) & -(1 << f.fraction_bits)
        m = self.cast(self.bitcast(bits - exponent, float32) - 1.0, float64)
        shift = self.select(small, x._coerce(-f.fraction_bits), 0.0)
        n = self.cast(self.cast(exponent >> f.fraction_bits, float32) + shift, float64)
        log = self.fma(m, self.poly(m, *_LOG2), n)
        wide = self.cast(self._clamp(y, -(2.0**40), 2.0**40), float64)
        z = self._clamp(wide * log, -200.0, 200.0)
        magic = 1.5 * 2.0**52
        shifted = z + magic
        r = z - (shifted - magic)
        power = self.fma(r, self.poly(r, *_EXP2), 1.0)
        scaled = self.bitcast(power, FORMATS[float64].integer) + (
            self.bitcast(shifted, FORMATS[float64].integer) << 52
        )
        result = self.cast(self.bitcast(scaled, float64), float32)
        return self.select(self.isnan(z), self.cast(z, float32), result)

    def _pow64(self, x: Scalar, y: Scalar) -> Scalar:
        """x**y for 0 < x < inf in float64: e**(y log(x)), the logarithm in two words."""
        f = FORMATS[float64]
        log, log_low = self._wide_log(x, f)
        y = self._clamp(y, -(2.0**70), 2.0**70)
        z, z_low = self.two_product(y, log)
        z_low = self.fma(y, log_low, z_low)
        inside = self.abs(z) < 1024.0
        z_low = self.select(inside, z_low, 0.0)
        _, count, r, r_low = self._reduce_exp(self._clamp(z, f.underflow, f.overflow), f)
        r, r_low = self.fast_two_sum(r, r_low + z_low)
        power = 1.0 + (r + self.fma(r * r, self.poly(r, *f.exp), r_low))
        return self.scale(power, count, f)

    def _wide_log(self, x: Scalar, f: Format) -> tuple[Scalar, Scalar]:
        """log(x) in two words, for positive finite x in float64.

        With s = m / (2 + m): log(1 + m) = 2 s + 2/3 s**3 + s**5 * polynomial; the first two
        terms are computed in two words.
        """
        n, m = self._split_any(x, f)
        divisor = m + 2.0
        inverse = 1.0 / divisor
        s = m * inverse
        rest = self.fma(-s, divisor, m) - s * (m - (divisor - 2.0))
        s_low = rest * inverse
        z, z_low = self.two_product(s, s)
        z_low = self.fma(s + s, s_low, z_low)
        cube, cube_low = self.two_product(z, s)
        cube_low = self.fma(z, s_low, self.fma(z_low, s, cube_low))
        third, third_low = self.two_product(cube, _TWO_THIRDS[0])
        third_low = third_low + self.fma(cube_low, _TWO_THIRDS[0], cube * _TWO_THIRDS[1])
        tail = self.fma(cube * z, self.poly(z, *_AREA_TANGENT), third_low)
        first, first_low = self.fast_two_sum(n * f.ln2[0], s + s)
        second, second_low = self.fast_two_sum(first, third)
        low = self.fma(n, f.ln2[1], s_low + s_low) + tail
        return self.fast_two_sum(second, first_low + second_low + low)

    def ipow(self, x: Scalar, y: Scalar | int) -> Scalar:
        """x**y for integers by repeated squaring; wraps.

        A negative y gives the quotient 1 / x**-y truncated, and 0 for x = 0.
        """
        if isinstance(y, int):
            return self._ipow_constant(x, y)
        result, square = x._coerce(1), x
        for bit in range(x.dtype.bits - x.dtype.is_signed):
            wanted = self.ne(y & (1 << bit), 0)
            result = self.select(wanted, result * square, result)
            square = square * square
        return self.select(y < 0, self._inverse(x, self.ne(y & 1, 0)), result)

    def _ipow_constant(self, x: Scalar, y: int) -> Scalar:
        if y < 0:
            return self._inverse(x, self.eq(x, x) if y % 2 else self.ne(x, x))
        result, square = x._coerce(1), x
        while y:
            if y % 2:
                result = result * square
            square, y = square * square, y // 2
        return result

    def _inverse(self, x: Scalar, odd: Scalar) -> Scalar:
        """1 / x**y truncated, for y > 0."""
        if not x.dtype.is_signed:
            return self.select(self.eq(x, 1), x, 0)
        unit = self.select(odd, x, 1)
        return self.select(self.eq(x, 1) | self.eq(x, -1), unit, 0)

    def cbrt(self, x: Scalar) -> Scalar:
        """Cube root.  Error: at most 1 ulp.

        The bits of x, over 3, are subtracted from a constant: that is x**(-1/3) within 4 per
        cent.  Newton-like steps of third order follow, and one on the cube root at last.
        """
        f = FORMATS[x.dtype]
        size = self.abs(x)
        small = size < f.smallest_normal
        up, down = _SCALES[x.dtype]
        v = self.select(small, size * up, size)
        drop = f.fraction_bits - 7
        third = ((self.bitcast(v, f.integer) >> drop) * 21845) << (drop - 16)
        y = self.bitcast(-third + _CUBE_ROOT[x.dtype], x.dtype)
        for _ in range(2 if x.dtype is float32 else 3):
            rest = self.fma(-(v * y), y * y, 1.0)
            y = self.fma(y * rest, self.fma(rest, 2 / 9, 1 / 3), y)
        root = (v * y) * y
        square, square_low = self.two_product(root, root)
        rest = self.fma(-root, square, v) - root * square_low
        root = self.fma(rest, (y * y) * (1 / 3), root) * self.select(small, x._coerce(down), 1.0)
        regular = (size > 0.0) & (size < INF)
        return self.select(regular, self.copysign(root, x), x + x)

    def hypot(self, x: Scalar, y: Scalar) -> Scalar:
        """sqrt(x**2 + y**2) without overflow on the way; infinite if either operand is.

        Error: at most 1 ulp.
        """
        x, y = self.abs(x), self.abs(y)
        if x.dtype is float32:
            u, v = self.cast(x, float64), self.cast(y, float64)
            length = self.cast(self.sqrt(self.fma(u, u, v * v)), float32)
        else:
            length = self._hypot64(x, y)
        return self.select(self.eq(x, INF) | self.eq(y, INF), INF, length)

    def _hypot64(self, x: Scalar, y: Scalar) -> Scalar:
        """The larger operand is scaled so that its square is exact in two words."""
        large, small = self.maximum(x, y), self.minimum(x, y)
        up, down = large < 2.0**-400, large > 2.0**400
        scale = self.select(up, 2.0**700, self.select(down, large._coerce(2.0**-700), 1.0))
        back = self.select(up, 2.0**-700, self.select(down, large._coerce(2.0**700), 1.0))
        large, small = large * scale, small * scale
        a, a_low = self.two_product(large, large)
        b, b_low = self.two_product(small, small)
        total, low = self.fast_two_sum(a, b)
        root, root_low = self.wide_sqrt(total, low + (a_low + b_low))
        return (root + root_low) * back
