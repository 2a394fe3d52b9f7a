"""Elementwise functions where samples do not reach: Python's division, edges, names, kinks."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import as_array, both, same_bits, values

import dualgrad as dg
from dualgrad import functional as F
from dualgrad.changes import Changes
from dualgrad.compiler.ir.node import input_node, scalar_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ops.arithmetic import Add
from dualgrad.compiler.ops.logical import Where
from dualgrad.runtime.dtype import ALL, DType, bool_, promote, promote_scalar
from dualgrad.runtime.errors import DTypeError

INTEGERS = [t for t in ALL if t.is_int]

# -- division as Python does it -------------------------------------------------------------------

doubles = st.floats(allow_nan=False, width=64)
singles = st.floats(allow_nan=False, width=32)


def equal_floats(got: Any, want: float) -> None:
    same_bits(np.asarray(got.item()), np.asarray(want))


@settings(deadline=None)
@given(doubles, doubles)
def test_float_division_is_that_of_python(a: float, b: float) -> None:
    assume(b != 0)
    x, y = dg.tensor(a, dtype=dg.float64), dg.tensor(b, dtype=dg.float64)
    equal_floats(x // y, a // b)
    equal_floats(x % y, a % b)
    equal_floats(dg.fmod(x, y), math.fmod(a, b) if math.isfinite(a) else math.nan)


@settings(deadline=None)
@given(singles, singles)
def test_float32_division_is_that_of_numpy(a: float, b: float) -> None:
    arrays = np.array([a], np.float32), np.array([b], np.float32)
    x, y = map(dg.from_numpy, arrays)
    with np.errstate(all="ignore"):
        for ours, theirs in (
            (operator.floordiv, np.floor_divide),
            (operator.mod, np.remainder),
            (dg.fmod, np.fmod),
        ):
            same_bits(ours(x, y), theirs(*arrays))


@st.composite
def integer_pairs(draw: Any) -> tuple[DType, int, int]:
    dtype = draw(st.sampled_from(INTEGERS))
    limits = np.iinfo(dtype.numpy)
    number = st.integers(int(limits.min), int(limits.max)) | st.integers(
        max(-3, int(limits.min)), 3
    )
    return dtype, draw(number), draw(number)


@settings(deadline=None)
@given(integer_pairs())
def test_integer_division_is_that_of_python(pair: tuple[DType, int, int]) -> None:
    dtype, a, b = pair
    x, y = dg.tensor(a, dtype=dtype), dg.tensor(b, dtype=dtype)

    def wrapped(n: int) -> int:
        return int(np.array(n % 2**dtype.bits, np.uint64).astype(dtype.numpy))

    whole, rest = divmod(a, b) if b else (0, 0)
    assert [v.item() for v in divmod(x, y)] == [wrapped(whole), rest]
    short = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else 0
    assert dg.div(x, y, rounding_mode="trunc").item() == wrapped(short)
    assert dg.fmod(x, y).item() == (a - short * b if b else 0)


def test_a_division_by_zero_does_not_stop_vectors() -> None:
    x, y = np.arange(-40, 40, dtype=np.int32), np.zeros(80, np.int32)
    x[0], y[1] = np.iinfo(np.int32).min, -1
    y[0] = -1

    def parts(x: Any, y: Any) -> Any:
        return x // y, x % y

    eager, static = both(parts, lambda: (dg.tensor(x), dg.tensor(y)))
    with np.errstate(all="ignore"):
        for found in (eager, static):
            same_bits(found[0], np.floor_divide(x, y))
            same_bits(found[1], np.remainder(x, y))


@pytest.mark.parametrize("towards", [np.inf, -np.inf, 0.0, -0.0, 1.0, np.nan])
def test_floats_beside_every_half_float(towards: float) -> None:
    x, y = np.arange(2**16, dtype=np.uint16).view(np.float16), np.float16(towards)
    with np.errstate(all="ignore"):
        want = np.where(x == y, y, np.nextafter(x, y))  # of two zeros the second, as in C
    same_bits(dg.nextafter(dg.from_numpy(x), dg.tensor(np.asarray(y))), want)


# -- operators ------------------------------------------------------------------------------------

BINARY = [
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.pow,
    operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift, divmod,
]  # fmt: skip


@pytest.mark.parametrize("op", BINARY, ids=lambda f: f.__name__)
def test_operators_with_numbers_on_either_side(op: Callable[..., Any]) -> None:
    array = np.array([1, 2, 5, 7])
    x = dg.tensor(array)
    for ours, theirs in ((op(x, 3), op(array, 3)), (op(3, x), op(3, array))):
        pairs = zip(ours, theirs, strict=True) if op is divmod else ((ours, theirs),)
        for found, wanted in pairs:
            same_bits(found, wanted)


def test_floating_operators_with_numbers_on_the_left() -> None:
    x = dg.tensor([0.5, 2.0], dtype=dg.float64)
    assert values(3.0 / x) == [6.0, 1.5]
    assert values(3.0 // x) == [6.0, 1.0]
    assert values(-3.0 % x) == [0.0, 1.0]
    assert values(4.0**x) == [2.0, 16.0]
    assert values(+x) == [0.5, 2.0]
    assert values(round(x * 2.6)) == [1.0, 5.0]
    assert values(True & dg.tensor([True, False])) == [True, False]


@pytest.mark.parametrize("exponent", [2, 3, 0.5, -1, 2.5, 4])
def test_powers_to_numbers_in_both_modes(exponent: float) -> None:
    eager, static = both(
        lambda x: x**exponent, lambda: (dg.tensor([0.5, 2.0, 3.0], dtype=dg.float64),)
    )
    same_bits(static, eager)
    np.testing.assert_allclose(as_array(eager), np.array([0.5, 2.0, 3.0]) ** exponent, rtol=4e-16)


def test_an_exponent_may_be_an_argument() -> None:
    power = dg.function(lambda x, n: x**n)
    for n in (2, 3, 2, 0.5):
        np.testing.assert_allclose(as_array(power(dg.tensor([4.0]), n)), [4.0**n])


# -- gradients at kinks and poles, as PyTorch has them ---------------------------------------------

EDGES = [-1e30, -30.0, -6.0, -3.5, -3.0, -2.0, -1.0, -0.5, -0.25, -1e-3, -0.0, 0.0, 1e-3, 0.25]
EDGES += [0.5, 1.0, 2.0, 3.0, 3.5, 6.0, 7.0, 25.0, 1e4, 1e30]
ACTIVATIONS = [
    ("celu", {"alpha": 0.7}),
    ("elu", {"alpha": 0.7}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("hardshrink", {}),
    ("hardsigmoid", {}),
    ("hardswish", {}),
    ("hardtanh", {}),
    ("leaky_relu", {}),
    ("logsigmoid", {}),
    ("mish", {}),
    ("relu", {}),
    ("relu6", {}),
    ("selu", {}),
    ("silu", {}),
    ("softplus", {}),
    ("softplus", {"beta": 2.0, "threshold": 5.0}),
    ("softshrink", {}),
    ("softsign", {}),
    ("tanhshrink", {}),
    ("threshold", {"threshold": 0.5, "value": 2.0}),
]


def agree_with_torch(ours: Callable[..., Any], theirs: Callable[..., Any], *xs: Any) -> None:
    """Values and gradients of a function of float32 arrays, against PyTorch in float64."""
    torch = pytest.importorskip("torch")
    mine = [dg.tensor(np.asarray(x, np.float32), requires_grad=True) for x in xs]
    exact = [
        torch.tensor(np.asarray(x, np.float32), dtype=torch.float64, requires_grad=True) for x in xs
    ]
    y, z = ours(*mine), theirs(torch, *exact)
    y.sum().backward()
    z.sum().backward()
    pairs = [(y, z), *((a.grad, b.grad) for a, b in zip(mine, exact, strict=True))]
    for got, want in pairs:
        wanted = want.detach().numpy().astype(np.float32)
        np.testing.assert_allclose(as_array(got), wanted, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
def test_activations_at_edges(name: str, options: dict[str, Any]) -> None:
    agree_with_torch(
        lambda x: getattr(F, name)(x, **options),
        lambda torch, x: getattr(torch.nn.functional, name)(x, **options),
        EDGES,
    )


@pytest.mark.parametrize(
    "name", ["fmax", "fmin", "maximum", "minimum", "remainder", "fmod", "copysign", "logaddexp"]
)
def test_functions_of_two_at_edges(name: str) -> None:
    x = np.array([-2.0, -1.0, 0.5, 1.0, 2.0, 3.0])
    agree_with_torch(
        getattr(dg, name), lambda torch, *xs: getattr(torch, name)(*xs), *np.meshgrid(x, x + 0.0)
    )


def test_random_slopes() -> None:
    numbers = np.linspace(-1, 1, 101, dtype=np.float32)

    def slopes(x: Any) -> Any:
        y = F.rrelu(x, 0.25, 0.5, training=True)
        return y, F.rrelu(x, 0.25, 0.5)

    found = []
    for function in (slopes, dg.function(slopes)):
        dg.seed(3)
        found.append([as_array(y) for y in function(dg.tensor(numbers))])
    for eager, static in zip(*found, strict=True):
        same_bits(static, eager)
    below = numbers < 0
    ratios = found[0][0][below] / numbers[below]
    assert (ratios >= 0.25).all()
    assert (ratios < 0.5 + 1e-6).all()
    assert len(np.unique(ratios)) > 40
    same_bits(found[0][0][~below], numbers[~below])
    same_bits(found[0][1], np.where(below, numbers * np.float32(0.375), numbers))


def test_clip_at_its_bounds() -> None:
    x = [-2.0, -1.0, 0.0, 1.0, 2.0]
    agree_with_torch(lambda x: dg.clip(x, -1, 1), lambda torch, x: torch.clamp(x, -1, 1), x)
    low, high = [-1.0, -1.0, 0.5, 3.0, 1.0], [1.0, 0.5, 0.25, 1.0, 2.0]
    agree_with_torch(dg.clamp, lambda torch, *xs: torch.clamp(*xs), x, low, high)


def test_powers_of_zero_have_no_nan_in_their_gradients() -> None:
    x, y = np.meshgrid([0.0, 0.5, 1.0, 2.0], [0.0, 1.0, 1.5, 2.0, 3.0])
    agree_with_torch(dg.pow, lambda torch, x, y: torch.pow(x, y), x, y)
    a, b = (dg.tensor(v, requires_grad=True) for v in (x, y))
    (a**b).sum().backward(create_graph=True)
    (a.grad.sum() + b.grad.sum()).backward()
    assert not np.isnan(as_array(a.grad)).any()
    assert not np.isnan(as_array(b.grad)).any()


@pytest.mark.parametrize("name", ["hypot", "atan2"])
def test_no_gradient_at_the_origin(name: str) -> None:
    x, y = (dg.tensor([0.0, 1e30], requires_grad=True) for _ in range(2))
    getattr(dg, name)(x, y).sum().backward()
    assert values(x.grad)[0] == values(y.grad)[0] == 0.0
    assert np.isfinite(as_array(x.grad)).all()
    assert values(x.grad)[1] > 0


def test_steps_have_no_slope() -> None:
    for name in ("floor", "ceil", "trunc", "round", "sign"):
        x = dg.tensor([-1.5, 0.25], requires_grad=True)
        getattr(dg, name)(x).sum().backward()
        assert values(x.grad) == [0.0, 0.0], name


# -- names ----------------------------------------------------------------------------------------

ARRAY_API = """
abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert
bitwise_or bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp
expm1 floor floor_divide greater greater_equal hypot imag isfinite isinf isnan less less_equal
log log1p log2 log10 logaddexp logical_and logical_not logical_or logical_xor maximum minimum
multiply negative nextafter not_equal positive pow real reciprocal remainder round sign signbit
sin sinh square sqrt subtract tan tanh trunc
"""


def test_every_function_of_the_array_api_is_there() -> None:
    assert [n for n in re.findall(r"\w+", ARRAY_API) if not callable(getattr(dg, n, None))] == []
    assert [n for n in re.findall(r"\w+", ARRAY_API) if n not in dg.__all__] == []


@pytest.mark.parametrize(
    "names",
    [
        "div divide true_divide", "mul multiply", "sub subtract", "neg negative", "eq equal",
        "ne not_equal", "lt less", "le less_equal", "gt greater", "ge greater_equal",
        "asin arcsin", "acos arccos", "atan arctan", "atan2 arctan2", "asinh arcsinh",
        "acosh arccosh", "atanh arctanh", "clip clamp", "abs absolute", "pow power", "trunc fix",
        "round rint", "bitwise_not bitwise_invert invert", "bitwise_left_shift left_shift",
        "bitwise_right_shift right_shift", "deg2rad radians", "rad2deg degrees", "remainder mod",
    ],
)  # fmt: skip
def test_other_names_are_the_same_function(names: str) -> None:
    first, *others = (getattr(dg, n) for n in names.split())
    assert all(f is first for f in others)


def test_there_are_no_complex_numbers() -> None:
    x = dg.ones(2)
    assert dg.real(x) is x
    assert dg.conj(x) is x
    with pytest.raises(DTypeError, match="no complex numbers"):
        dg.imag(x)


# -- one table of promotion -----------------------------------------------------------------------


def result(a: DType, b: DType) -> DType:
    left, right = (input_node(k, TensorType((2,), t)) for k, t in enumerate((a, b)))
    condition = input_node(2, TensorType((2,), bool_))
    return Where.of().trace(condition, left, right)[0].dtype


@pytest.mark.parametrize("a", ALL, ids=str)
def test_promotion_in_ops_is_the_table(a: DType) -> None:
    for b in ALL:
        try:
            wanted = promote(a, b)
        except DTypeError:
            with pytest.raises(DTypeError, match="no common dtype"):
                result(a, b)
            continue
        assert result(a, b) is result(b, a) is wanted


@pytest.mark.parametrize("a", ALL, ids=str)
def test_python_numbers_are_weak(a: DType) -> None:
    x = input_node(0, TensorType((2,), a))
    for kind, name in ((bool, "b"), (int, "i"), (float, "f")):
        wanted = promote_scalar(a, name)
        if wanted is bool_:
            continue  # there is no sum of bools
        assert Add.of().trace(x, scalar_node(1, kind))[0].dtype is wanted
        assert Add.of().trace(scalar_node(0, kind), x)[0].dtype is wanted


# -- in place -------------------------------------------------------------------------------------

BINARY_NAMES = re.findall(
    r"\w+",
    """add sub mul div atan2 copysign floor_divide fmod hypot maximum minimum pow remainder xlogy
    bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor""",
)
OF_INDICES = ("index", "masked", "scatter")  # tested with their functions
IN_PLACE = sorted(
    n for n in vars(Changes) if n.endswith("_") and not n.startswith(("_", *OF_INDICES))
)
MORE = {"addcdiv": (0.5, 0.5), "addcmul": (0.5, 0.5), "lerp": (0.5, 0.25), "clamp": (0.25, 0.5)}


@pytest.mark.parametrize("name", IN_PLACE)
def test_changes_in_place(name: str) -> None:
    plain = name.rstrip("_")
    whole = plain.startswith("bitwise")
    two = plain in BINARY_NAMES or plain in ("clamp_min", "clamp_max")
    others = MORE.get(plain, (2 if whole else 0.75,) if two else ())

    def change(x: Any) -> Any:
        y = x + 0
        before = y
        out = getattr(y, name)(*others)
        return out, before, getattr(x, plain)(*others)

    def make() -> tuple[Any]:
        x = dg.tensor([[1, 2, 3], [4, 5, 6]])
        return (x if whole else x.to(dg.float64) / 7,)

    for found in both(change, make):
        same_bits(found[0], found[1])
        same_bits(found[0], found[2])


def test_operators_that_assign_change_the_tensor() -> None:
    x = dg.tensor([7, 8, 9])
    alias = x
    x //= 2
    x **= 2
    x %= 7
    x <<= 2
    x |= 1
    assert x is alias
    assert values(alias) == [(((n // 2) ** 2) % 7 << 2) | 1 for n in (7, 8, 9)]
    flags = other = dg.tensor([True, False])
    flags &= dg.tensor([True, True])
    assert flags is other
    with pytest.raises(DTypeError, match="does not fit in place"):
        dg.tensor([1, 2]).sqrt_()
