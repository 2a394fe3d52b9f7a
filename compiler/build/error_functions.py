"""The error function as a formula; see `mathlib` for what holds of all formulas.

The polynomials and their errors come from tests/references/fit_special.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import float32, float64


@dataclass(frozen=True)
class _Erf:
    """Polynomials of `erf`, highest power first."""

    near: tuple[float, ...]  # erf(x)/x - 1 in x**2 on |x| <= 1
    far: tuple[float, ...]  # log(1 - erf(x)) in x - 1 on [1, top]
    top: float  # erf is 1 from here on


_ERF = {
    float32: _Erf(
        near=(
            7.919902e-05,
            -0.0008030654,
            0.005190726,
            -0.026855124,
            0.11283618,
            -0.3761263,
            0.12837917,
        ),
        far=(
            0.00017646054,
            -0.0017879994,
            0.009833017,
            -0.041461296,
            -0.8431304,
            -2.6389654,
            -1.8496056,
        ),
        top=4.0,
    ),
    float64: _Erf(
        near=(
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
        far=(
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
        ),
        top=6.0,
    ),
}


class ErrorFunctions(Builder):
    """erf, for `Math`."""

    if TYPE_CHECKING:  # of `Math`

        def exp_to_normal(self, x: Scalar) -> Scalar: ...

    def erf(self, x: Scalar) -> Scalar:
        """The error function, 2 / sqrt(pi) times the integral of e**-t**2 from 0 to x.

        Error: at most 1 ulp.

        A polynomial for |x| <= 1, else 1 - e**p with a polynomial p.
        """
        f = _ERF[x.dtype]
        size, z = self.abs(x), x * x
        near = self.fma(self.poly(z, *f.near), x, x)
        bounded = self.select(size > f.top, f.top, size)
        far = 1.0 - self.exp_to_normal(self.poly(bounded - 1.0, *f.far))
        return self.select(size <= 1.0, near, self.copysign(far, x))
