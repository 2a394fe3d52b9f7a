"""Elementary functions as formulas.

Each is a scalar expression without branches, for float32 or float64 arguments: the argument is
reduced, a polynomial is evaluated, special cases are selected.  NaN gives NaN, the results for
infinities, zeros and arguments outside of the domain are those of IEEE 754-2019, section 9.2.1;
small arguments and results below the normal range are right as well.

The polynomials and their errors come from fit_mathlib.py and fit_special.py in tests/references.
The bounds stated in the docstrings are asserted by test_mathlib.py and test_special.py in
tests/compiler on random and special arguments.
"""

from __future__ import annotations

from dualgrad.compiler.build import trigonometry
from dualgrad.compiler.build.error_functions import ErrorFunctions
from dualgrad.compiler.build.gamma import GammaFunctions
from dualgrad.compiler.build.inverse import InverseTrigonometry
from dualgrad.compiler.build.power import Power
from dualgrad.compiler.kernel.scalar import Scalar


class Math(Power, InverseTrigonometry, ErrorFunctions, GammaFunctions):
    """The builder with elementary functions."""

    def sin(self, x: Scalar) -> Scalar:
        """Sine, for finite arguments of any size.  Error: at most 1 ulp, 1.5 ulp (float32)."""
        return trigonometry.sin(self, x)

    def cos(self, x: Scalar) -> Scalar:
        """Cosine, for finite arguments of any size.  Error: at most 1 ulp, 1.5 ulp (float32)."""
        return trigonometry.cos(self, x)

    def tan(self, x: Scalar) -> Scalar:
        """Tangent, for finite arguments of any size.  Error: at most 1.5 ulp."""
        return trigonometry.tan(self, x)

    def eighth(self, x: Scalar) -> tuple[Scalar, Scalar]:
        """Sine and cosine of |x| <= pi/4."""
        return trigonometry.eighth(self, x)
