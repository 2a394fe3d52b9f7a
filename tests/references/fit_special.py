"""The polynomials of compiler/build/error_functions.py: see fit_mathlib.py.

Run: python fit_special.py
"""

import numpy as np
from fit_mathlib import fit
from mpmath import mp, mpf


def erf_near(z: mpf) -> mpf:
    x = mp.sqrt(z)
    return mp.erf(x) / x - 1


def erf_far(u: mpf) -> mpf:
    return mp.log(mp.erfc(1 + u))


def erfc_in_erf(u: mpf) -> mpf:
    """What an error of log(erfc) makes of erf."""
    return mp.erfc(1 + u) / mp.erf(1 + u)


def error_function() -> None:
    fit("ERF_NEAR32", erf_near, mpf(0), mpf(1), 6, np.float32, lambda z: mpf(1))
    fit("ERF_FAR32", erf_far, mpf(0), mpf(3), 6, np.float32, erfc_in_erf)
    fit("ERF_NEAR64", erf_near, mpf(0), mpf(1), 11, np.float64, lambda z: mpf(1))
    fit("ERF_FAR64", erf_far, mpf(0), mpf(5), 19, np.float64, erfc_in_erf)


if __name__ == "__main__":
    error_function()
