"""Constants of the float formats, and polynomials fitted for them.

Their source is tests/references/fit_mathlib.py, which prints them with their errors.
"""

from __future__ import annotations

from dualgrad.runtime.dtype import DType, float32, float64, int32, int64
from dualgrad.runtime.records import dataclass

INF = float("inf")
NAN = float("nan")


@dataclass(frozen=True)
class Format:
    """Constants of one float format, and the polynomials fitted for it, highest power first."""

    integer: DType  # of the same width
    fraction_bits: int
    bias: int
    smallest_normal: float
    ln2: tuple[float, float]  # the first with zeros at its end: times any exponent it is exact
    whole_ln2: tuple[float, float]
    log2_e: tuple[float, float]
    log10_e: tuple[float, float]
    log10_2: tuple[float, float]  # as ln2
    half_pi: tuple[float, float]
    overflow: float  # exp is infinite from here on
    underflow: float  # exp is zero up to here
    hyperbolic_overflow: float  # sinh and cosh are infinite from here on
    minus_one: float  # expm1 is -1 up to here
    mantissa_low: int  # bits of the low end of the interval of mantissas for log
    exp: tuple[float, ...]  # (exp(x) - 1 - x) / x**2 on |x| <= ln(2)/2
    log: tuple[float, ...]  # see log
    sinh: tuple[float, ...]  # (sinh(x)/x - 1) / x**2 in x**2 on |x| <= ln(2)/2
    cosh: tuple[float, ...]  # (cosh(x) - 1) / x**2 in x**2 on |x| <= ln(2)/2
    asin: tuple[float, ...]  # (asin(x)/x - 1) / x**2 in x**2 on |x| <= 1/2
    atan: tuple[float, ...]  # (atan(x)/x - 1) / x**2 in x**2 on |x| <= 1


FORMATS = {
    float32: Format(
        integer=int32,
        fraction_bits=23,
        bias=127,
        smallest_normal=2.0**-126,
        ln2=(0.69314575, 1.4286068e-06),
        whole_ln2=(0.6931472, -1.9046542e-09),
        log2_e=(1.442695, 1.925963e-08),
        log10_e=(0.4342945, -1.010305e-08),
        log10_2=(0.3010254, 4.605039e-06),
        half_pi=(1.5707964, -4.371139e-08),
        overflow=89.0,
        underflow=-104.0,
        hyperbolic_overflow=89.5,
        minus_one=-18.0,
        mantissa_low=0x3F2AAAAB,  # 2/3
        exp=(0.0013935775, 0.008369243, 0.041666456, 0.16666515, 0.5),
        log=(
            -0.12647147,
            0.14008816,
            -0.122408405,
            0.14000104,
            -0.16676389,
            0.20010835,
            -0.24999888,
            0.33333206,
        ),
        sinh=(
            0.00019958454,
            0.008333192,
            0.16666667,
        ),
        cosh=(
            0.0013935775,
            0.041666456,
            0.5,
        ),
        asin=(
            0.0421625,
            0.024178796,
            0.045471452,
            0.07495277,
            0.16666754,
        ),
        atan=(
            -0.0017704167,
            0.010808225,
            -0.030974017,
            0.057746187,
            -0.08390611,
            0.10947579,
            -0.14263308,
            0.19998454,
            -0.33333296,
        ),
    ),
    float64: Format(
        integer=int64,
        fraction_bits=52,
        bias=1023,
        smallest_normal=2.0**-1022,
        ln2=(0.6931471805601177, -1.7239444525614835e-13),
        whole_ln2=(0.6931471805599453, 2.3190468138462996e-17),
        log2_e=(1.4426950408889634, 2.0355273740931033e-17),
        log10_e=(0.4342944819032518, 1.098319650216765e-17),
        log10_2=(0.3010299956640665, -8.532344317057107e-14),
        half_pi=(1.5707963267948966, 6.123233995736766e-17),
        overflow=710.0,
        underflow=-746.0,
        hyperbolic_overflow=710.5,
        minus_one=-40.0,
        mantissa_low=0x3FE6A09E667F3BCD,  # sqrt(1/2)
        exp=(
            2.5112716818963076e-08,
            2.7631608497480306e-07,
            2.7557232721531858e-06,
            2.48014889797183e-05,
            0.00019841269898777635,
            0.0013888888948007572,
            0.008333333333315925,
            0.041666666666511254,
            0.16666666666666685,
            0.5000000000000013,
        ),
        log=(
            0.1479736350587642,
            0.15313895728652202,
            0.18183571057432849,
            0.22222198426151224,
            0.28571428744061894,
            0.39999999999405483,
            0.6666666666666736,
        ),
        sinh=(
            1.6912635914284074e-10,
            2.5048965548932947e-08,
            2.755732366271509e-06,
            0.00019841269838341677,
            0.008333333333334213,
            0.16666666666666666,
        ),
        cosh=(
            2.0921746128555634e-09,
            2.7557251880530763e-07,
            2.4801587349152193e-05,
            0.0013888888888873296,
            0.041666666666666685,
            0.5,
        ),
        asin=(
            0.03256583927490458,
            -0.020898809490814328,
            0.021636856974466507,
            0.0037352343200085705,
            0.01077270078341017,
            0.011400238094136402,
            0.013980662389073067,
            0.017351624732641444,
            0.022372214318213676,
            0.03038194272950777,
            0.044642857174224136,
            0.07499999999971095,
            0.1666666666666676,
        ),
        atan=(
            1.3106194468563715e-05,
            -0.0001509669088532969,
            0.00082577409857579,
            -0.0028690958167492484,
            0.007165514589975707,
            -0.013856385748353765,
            0.02193745271999353,
            -0.029864802868332926,
            0.036616927426597876,
            -0.042179326019381215,
            0.047218377827638054,
            -0.05253372740204917,
            0.05880494215121533,
            -0.06666398235336478,
            0.07692279100140803,
            -0.09090906936789253,
            0.11111111003070195,
            -0.14285714282430603,
            0.19999999999948692,
            -0.3333333333333305,
        ),
    ),
}
