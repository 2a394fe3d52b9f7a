"""The error function, its complement and its inverse as formulas; see `mathlib`.

The polynomials and their errors come from tests/references/fit_special.py.
"""

from __future__ import annotations

from dualgrad.compiler.build.exponential import Exponential
from dualgrad.compiler.build.formats import INF
from dualgrad.compiler.build.logarithm import Logarithm
from dualgrad.compiler.build.tables import ERF, odd
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import float32, float64
from dualgrad.runtime.records import dataclass

# polynomials, highest power first: erf(x)/x - 1 in x**2 on |x| <= 1
_NEAR = {
    float32: (
        7.919902e-05,
        -0.0008030654,
        0.005190726,
        -0.026855124,
        0.11283618,
        -0.3761263,
        0.12837917,
    ),
    float64: (
        -7.783072047256754e-10,
        1.3712628814674872e-08,
        -1.6206608356867929e-07,
        1.6447154868122808e-06,
        -1.4924712509522804e-05,
        0.0001205529346521502,
        -0.000854832591965114,
        0.005223977605729029,
        -0.026866170643026575,
        0.11283791670943219,
        -0.3761263890318347,
        0.12837916709551256,
    ),
}
# log(1 - erf(x)) in x - 1 on [1, top], for float64
_FAR = (
    -1.919012161279315e-13,
    5.894081731039385e-12,
    -8.454520087954067e-11,
    7.529571437747562e-10,
    -4.6487745863615404e-09,
    2.0801834141396573e-08,
    -6.632036843091045e-08,
    1.2345591107745196e-07,
    1.0739832418722839e-07,
    -2.0230288316067454e-06,
    9.580234427160375e-06,
    -2.7142433731096142e-05,
    2.6270757868765426e-05,
    0.00023732465429047658,
    -0.001977903025709019,
    0.010033825437570004,
    -0.0415610980470789,
    -0.8431072563584431,
    -2.6389675142347926,
    -1.8496055099332482,
)
_TOP = 6.0  # erf is 1 from here on


@dataclass(frozen=True)
class _Erfc:
    """The polynomial of `erfc`, highest power first."""

    scaled: tuple[float, ...]  # (x + shift) e**(x**2) erfc(x) in 1 / (x + shift) - center
    shift: float
    center: float
    top: float  # erfc is 0 from here on


_ERFC = {
    float32: _Erfc(
        scaled=(
            -31.86895,
            13.034295,
            12.333246,
            -6.62141,
            -5.5029087,
            2.3322096,
            4.4715366,
            2.748643,
            1.0215827,
        ),
        shift=2.0,
        center=0.25,
        top=11.0,
    ),
    float64: _Erfc(
        scaled=(
            -38245078.18603066,
            -9575536.08973154,
            10915542.126951903,
            1344189.1956441319,
            -1847106.2236381937,
            -104680.43494907673,
            281650.817123404,
            10632.667689472091,
            -45002.40551076151,
            -3754.188530387268,
            7684.200909820697,
            1759.477942152109,
            -1215.9527164433457,
            -725.6455188909896,
            22.670771302626452,
            209.97603497656058,
            139.87893032302168,
            58.61605045153319,
            18.551214326886413,
            4.731188951168763,
            1.0022585313623755,
        ),
        shift=3.0,
        center=0.15234375,
        top=28.0,
    ),
}


@dataclass(frozen=True)
class _Inverse:
    """Polynomials of `erfinv`, highest power first; w = -log(1 - x**2)."""

    near: tuple[float, ...]  # erfinv(x)/x in w - split/2 on [0, split]
    far: tuple[float, ...]  # erfinv(x)/x in sqrt(w) - 4 from w = split to the end
    split: float


_INVERSE = {
    float32: _Inverse(
        near=(
            -8.643e-09,
            2.4252822e-08,
            4.6406169e-07,
            -3.476942e-06,
            -4.9532982e-06,
            0.00021841053,
            -0.0012527597,
            -0.0041775,
            0.2466403,
            1.5014094,
        ),
        far=(
            0.00013639344,
            0.00090374594,
            0.0022326957,
            0.003282742,
            0.0026521527,
            0.0017684615,
            -0.00042482137,
            0.0013329524,
            1.0094986,
            3.839784,
        ),
        split=5.0,
    ),
    float64: _Inverse(
        near=(
            3.440955715013713e-21,
            -1.0109854233663464e-21,
            -3.612347477884082e-19,
            1.1444712658559928e-18,
            1.5850399053073775e-17,
            -1.300392580703753e-16,
            -4.4137346741556965e-17,
            6.594683038694945e-15,
            -3.9978556272304313e-14,
            -8.116974857411452e-14,
            2.630289887462002e-12,
            -1.2976961425727277e-11,
            -5.414214494947727e-11,
            1.0512184152681094e-09,
            -4.112662575985488e-09,
            -2.9070382829218505e-08,
            4.234788199749804e-07,
            -1.3654691843319093e-06,
            -1.3882523396546929e-05,
            0.00018673420802415075,
            -0.0007407025341536554,
            -0.006033670871427705,
            0.24015818242558823,
            1.6536545626831027,
        ),
        far=(
            -3.740334145136737e-15,
            5.977000714786671e-14,
            -3.749316662679257e-13,
            9.858229655205579e-13,
            8.288141899176456e-13,
            -1.5600468369406817e-11,
            5.7895423596141063e-11,
            -9.215814440788776e-11,
            -1.6276606890900698e-10,
            1.5218053475414163e-09,
            -4.652415936352717e-09,
            5.477200902938242e-09,
            1.4928893812773015e-08,
            -9.358588459920215e-08,
            2.391340779492993e-07,
            -2.748554505640967e-07,
            -4.158251458914232e-07,
            3.014860180618167e-06,
            -8.87960276637377e-06,
            1.8672083429911383e-05,
            -3.2549188021352485e-05,
            5.56749512756869e-05,
            -0.00011786479028970016,
            0.0003209550439260612,
            -0.0008689918051793019,
            0.0012598472671037759,
            1.0094932532454242,
            3.8397837974115534,
        ),
        split=6.25,
    ),
}


class ErrorFunctions(Exponential, Logarithm):
    """The builder with erf, erfc and erfinv."""

    def erf(self, x: Scalar) -> Scalar:
        """The error function, 2 / sqrt(pi) times the integral of e**-t**2 from 0 to x.

        Error: at most 1 ulp.

        Polynomials on segments for float32; for float64 one for |x| <= 1, else 1 - e**p with a
        polynomial p.
        """
        if x.dtype is float32:
            return odd(self, x, ERF)
        size, z = self.abs(x), x * x
        near = self.fma(self.poly(z, *_NEAR[x.dtype]), x, x)
        bounded = self.select(size > _TOP, _TOP, size)
        far = 1.0 - self.exp_to_normal(self.poly(bounded - 1.0, *_FAR))
        return self.select(size <= 1.0, near, self.copysign(far, x))

    def erfc(self, x: Scalar) -> Scalar:
        """1 - erf(x), of full accuracy also where it is small.  Error: at most 3.5 ulp.

        1 - erf(x) for |x| <= 1/2; else e**(-x**2) times a polynomial in w = 1 / (|x| + shift)
        times w, and 2 minus that for negative x.  The rounding errors of x**2 and w are known.
        """
        f, dtype = _ERFC[x.dtype], x.dtype
        size, z = self.abs(x), x * x
        near = 1.0 - self.fma(self.poly(z, *_NEAR[dtype]), x, x)
        size = self.select(size > f.top, f.top, size)
        square = size * size
        d = size + f.shift
        d_low = size - (d - f.shift)
        w = 1.0 / d
        w_low = w * (self.fma(-d, w, 1.0) - d_low * w)
        v = self.poly((w - f.center) + w_low, *f.scaled)
        far = self.exp_times(-square, -self.fma(size, size, -square), self.fma(w, v, w_low * v))
        far = self.select(x < 0.0, 2.0 - far, far)
        return self.select(self.abs(x) <= 0.5, near, far)

    def erfinv(self, x: Scalar) -> Scalar:
        """The inverse of erf: NaN outside of [-1, 1].  Error: at most 2.5 ulp.

        x times a polynomial in w = -log(1 - x**2), or in its root where it is large (M. Giles,
        "Approximating the erfinv function", GPU Computing Gems, Jade Edition, 2011).
        """
        f = _INVERSE[x.dtype]
        w = -self.log(self.fma(-x, x, 1.0))
        near = self.poly(w - f.split / 2, *f.near)
        far = self.poly(self.sqrt(w) - 4.0, *f.far)
        result = self.select(w < f.split, near, far) * x
        return self.select(self.eq(self.abs(x), 1.0), self.copysign(x._coerce(INF), x), result)
