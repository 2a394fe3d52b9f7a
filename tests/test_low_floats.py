"""float16 and bfloat16: conversions of all their values, and every op on them.

Oracles: exact rational numbers rounded by definition, NumPy's float16, and each op's own
reference in float64, rounded once.
"""

from __future__ import annotations

import copy
import pickle
from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, both, draw, same_bits
from test_ops import FIRST, SMOOTH, Case, differentiable, first_of_each, reference

import dualgrad as dg
from dualgrad import functional as F
from dualgrad.compiler.build.float16 import conversion
from dualgrad.compiler.ir.dims import evaluate as dim_value
from dualgrad.compiler.ir.node import Graph, input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.scalar import Scalar, cast, primitive, reg
from dualgrad.compiler.lower.llvm.module import module_of
from dualgrad.compiler.lower.llvm.target import object_code
from dualgrad.compiler.lower.reference import run
from dualgrad.compiler.lower.reference_scalar import evaluate
from dualgrad.compiler.ops.sample import Arg
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.config import config
from dualgrad.runtime.cpu import handles, host_target, load
from dualgrad.runtime.dtype import (
    ALL,
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int64,
    uint64,
)
from dualgrad.runtime.errors import ArgumentError, CompileError, DTypeError
from dualgrad.runtime.floats import decode, encode
from dualgrad.runtime.library import FUNCTIONS
from dualgrad.runtime.program import ENTRY, Program, Target

LOW = (float16, bfloat16)
NAMES = [d.name for d in LOW]
EVERY = np.arange(2**16, dtype=np.uint16)
DIGITS = {float16: 11, bfloat16: 8}  # bits of a significand
LEAST = {float16: -14, bfloat16: -126}  # exponent of the smallest normal number
INFINITY = {float16: 0x7C00, bfloat16: 0x7F80}
low = pytest.mark.parametrize("dtype", LOW, ids=NAMES)


def value_of(bits: int, dtype: DType) -> Fraction | float:
    """What 16 bits stand for, by the definition of IEEE 754."""
    digits, least = DIGITS[dtype] - 1, LEAST[dtype]
    sign = -1 if bits >> 15 else 1
    exponent = bits >> digits & ((1 << (15 - digits)) - 1)
    fraction = bits & ((1 << digits) - 1)
    if exponent == (1 << (15 - digits)) - 1:
        return float("nan") if fraction else sign * float("inf")
    if exponent:
        return (
            sign
            * Fraction(fraction + (1 << digits))
            * Fraction(2) ** (least - 1 + exponent - digits)
        )
    return sign * Fraction(fraction) * Fraction(2) ** (least - digits)


@cache
def magnitudes(dtype: DType) -> list[Fraction]:
    """All values from 0 up; after the largest the next power of two, where infinity begins."""
    values = [Fraction(value_of(b, dtype)) for b in range(INFINITY[dtype])]
    return [*values, 2 * values[-1] - values[-2]]


def nearest(x: Fraction, dtype: DType) -> int:
    """The bits of the value nearest to |x|, ties to even."""
    values, size = magnitudes(dtype), abs(x)
    below = bisect_right(values, size, hi=len(values) - 1) - 1
    middle = (values[below] + values[below + 1]) / 2
    return below + (size > middle or (size == middle and below & 1 == 1))


def tensor_of_bits(bits: Array, dtype: DType) -> dg.Tensor:
    stored = bits if dtype is bfloat16 else bits.view(np.float16)
    return dg.Tensor.of_numpy(stored, dtype)


def canonical(bits: Array, dtype: DType) -> Array:
    """Bits with one NaN only."""
    return np.where((bits & 0x7FFF) > INFINITY[dtype], np.uint16(0x7FFF), bits)


# -- conversions: three implementations against the definition -------------------------------------


def by_program(x: Array, source: DType, target: DType) -> Array:
    """Conversion by compiled code."""
    out = dg.Tensor.of_numpy(x, source).to(target)
    return out.storage()


def by_host(x: Array, source: DType, target: DType) -> Array:
    """Conversion by NumPy, as the interpreter and the constructors do it."""
    return evaluate((cast(reg("x", source), target),), lambda _: x, {})[0]


def by_formula(x: Array, source: DType, target: DType) -> Array:
    """Conversion by the formula for targets without an instruction, in the interpreter."""
    return evaluate((expanded(cast(reg("x", source), target)),), lambda _: x, {})[0]


def expanded(e: Scalar) -> Scalar:
    """An expression without conversions of 16-bit floats."""
    args = tuple(expanded(a) for a in e.args)
    if e.op == "cast":
        formula = conversion(args[0], e.dtype, native=False)
        if formula is not None:
            return expanded(formula)
    return e if args == e.args else Scalar.make(e.op, args, e.dtype, e.attr)


WAYS = (by_program, by_host, by_formula)
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda w: w.__name__)


@low
@every_way
def test_every_value_as_float32(way: Callable[..., Array], dtype: DType) -> None:
    stored = EVERY if dtype is bfloat16 else EVERY.view(np.float16)
    want = np.array([float(value_of(int(b), dtype)) for b in EVERY], np.float32)
    want[0x8000] = -0.0
    same_bits(way(stored, dtype, float32), want)


@low
@every_way
def test_every_value_and_back(way: Callable[..., Array], dtype: DType) -> None:
    stored = EVERY if dtype is bfloat16 else EVERY.view(np.float16)
    wide = way(stored, dtype, float32)
    back = way(wide, float32, dtype).view(np.uint16)
    np.testing.assert_array_equal(canonical(back, dtype), canonical(EVERY, dtype))


def test_every_float16_agrees_with_numpy() -> None:
    same_bits(by_program(EVERY.view(np.float16), float16, float32), EVERY.view("f2").astype("f4"))


@low
@every_way
@pytest.mark.parametrize("source", [float32, float64], ids=["float32", "float64"])
def test_rounding_at_and_beside_midpoints(
    way: Callable[..., Array], source: DType, dtype: DType
) -> None:
    values = decode(EVERY if dtype is bfloat16 else EVERY.view(np.float16), dtype)
    last = 0x7BFF if dtype is float16 else 0x7F7F
    ends = values[: last + 1].astype(np.float64)
    beyond = ends[-1] + (ends[-1] - ends[-2])
    middle = (ends + np.append(ends[1:], beyond)) / 2
    middle = middle[middle == middle.astype(source.numpy)].astype(source.numpy)
    points = np.concatenate(
        [middle, np.nextafter(middle, middle.dtype.type(0)), np.nextafter(middle, np.inf)]
    )
    below = np.arange(len(middle)) + (last + 1 - len(middle))
    even = below + (below & 1)
    want = np.concatenate([even, below, below + 1]).astype(np.uint16)
    got = way(points, source, dtype).view(np.uint16)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(way(-points, source, dtype).view(np.uint16), want | 0x8000)


def awkward(source: DType) -> Array:
    """Random numbers of all sizes, and numbers that rounding twice gets wrong."""
    rng = np.random.default_rng(3)
    whole = rng.integers(0, 2**63, 3000, dtype=np.int64).view(np.uint64)
    if source.is_float:
        bits = (whole * np.uint64(3)).view(np.float64) if source is float64 else None
        plain = rng.standard_normal(2000) * 2.0 ** rng.integers(-140, 130, 2000)
        twice = np.array([1 + 2**-8 + 2**-40, 1 + 2**-11 + 2**-30, 2**-25 * (1 + 2**-40), 65520])
        x = np.concatenate([plain, twice, -twice, [] if bits is None else bits])
        with np.errstate(all="ignore"):
            x = x.astype(source.numpy)
        return x[np.isfinite(x)]
    shifts = rng.integers(0, 64, 3000).astype(np.uint64)
    twice = np.array([(1 << 60) + (1 << 52) + 1, (1 << 62) - 1, 2**24 + 2**16 + 1, 65519, 65520])
    mixed = np.concatenate([whole >> shifts, twice.astype(np.uint64)])
    with np.errstate(all="ignore"):
        signed = np.where(rng.integers(0, 2, len(mixed)) == 1, mixed, 0 - mixed)
        return signed.astype(source.numpy)


@low
@every_way
@pytest.mark.parametrize("source", [d for d in ALL if d not in LOW], ids=lambda d: d.name)
def test_rounds_once_from_any_dtype(way: Callable[..., Array], source: DType, dtype: DType) -> None:
    x = np.array([False, True]) if source is bool_ else awkward(source)[::7]
    got = way(x, source, dtype).view(np.uint16)
    want = [nearest(Fraction(v), dtype) | (0x8000 if v < 0 else 0) for v in x.tolist()]
    zeros = np.signbit(x) & (x == 0) if source.is_float else np.zeros(len(x), bool)
    np.testing.assert_array_equal(got, np.where(zeros, 0x8000, want))


@low
@every_way
def test_special_values(way: Callable[..., Array], dtype: DType) -> None:
    x = np.array([np.inf, -np.inf, np.nan, -np.nan, 0.0, -0.0, 1e300, -1e300, 1e-300, -1e-300])
    infinity = INFINITY[dtype]
    want = [infinity, infinity | 0x8000, 0x7FFF, 0x7FFF, 0, 0x8000]
    want += [infinity, infinity | 0x8000, 0, 0x8000]
    got = canonical(way(x, float64, dtype).view(np.uint16), dtype)
    np.testing.assert_array_equal(got, want)
    single = canonical(way(x[:6].astype("f4"), float32, dtype).view(np.uint16), dtype)
    np.testing.assert_array_equal(single, want[:6])


@low
@every_way
@pytest.mark.parametrize("target", [d for d in ALL if d is not bool_], ids=lambda d: d.name)
def test_to_any_dtype(way: Callable[..., Array], target: DType, dtype: DType) -> None:
    """All values: exact in floats; truncated, saturating, NaN to 0 in integers."""
    stored = EVERY if dtype is bfloat16 else EVERY.view(np.float16)
    with np.errstate(invalid="ignore"):  # of NaNs that signal
        values = decode(stored, dtype).astype(np.float32)
    got = way(stored, dtype, target)
    if target.is_low:
        want = way(values, float32, target)
        same = canonical(got.view(np.uint16), target) == canonical(want.view(np.uint16), target)
        assert same.all()
    elif target.is_float:
        with np.errstate(invalid="ignore"):  # of NaNs that signal
            same_bits(got, values.astype(target.numpy))
    else:
        limits = np.iinfo(target.numpy)
        for v, g in zip(values[::5].tolist(), got[::5].tolist(), strict=True):
            if v != v:
                assert g == 0
            else:
                big = limits.max if v > 0 else limits.min
                assert g == (big if abs(v) == float("inf") else clamp(int(v), limits))


def clamp(n: int, limits: Any) -> int:
    return int(min(max(n, limits.min), limits.max))


@low
def test_to_bool_asks_for_nonzero(dtype: DType) -> None:
    x = tensor_of_bits(EVERY, dtype)
    np.testing.assert_array_equal(as_array(x.bool()), (EVERY & 0x7FFF) != 0)
    np.testing.assert_array_equal(as_array(dg.tensor([True, False]).to(dtype)), [1, 0])


def test_numbers_of_a_program_are_rounded_once() -> None:
    # 1 + 2**-8 + 2**-40 is above a midpoint of bfloat16, its float32 is the midpoint itself
    number = 1 + 2**-8 + 2**-40
    zero = dg.zeros(1, dtype=bfloat16)
    for function in (lambda x: x + number, dg.function(lambda x: x + number, strict=True)):
        assert function(zero).tolist() == [1 + 2**-7]
    assert dg.full((1,), number, dtype=bfloat16).tolist() == [1 + 2**-7]
    assert dg.tensor([number], dtype=bfloat16).tolist() == [1 + 2**-7]


@pytest.mark.skipif(not host_target().triple.startswith("x86_64"), reason="names x86 features")
def test_code_for_processors_without_an_instruction() -> None:
    plain = Target(host_target().triple, "x86-64", "", 128, 16)
    to_single = lowered(lambda x: x.to(float32), float16)
    back = lowered(lambda x: x.to(float16), float32)
    wide, narrow = np.zeros(2**16, np.float32), np.zeros(2**16, np.float16)
    launch(to_single, plain, [EVERY.view(np.float16), wide])
    same_bits(wide, by_host(EVERY.view(np.float16), float16, float32))
    launch(back, plain, [wide, narrow])
    same = canonical(narrow.view(np.uint16), float16) == canonical(EVERY, float16)
    assert same.all()
    assert "half" not in module_of(back, plain, False).text


def lowered(function: Callable[..., Any], dtype: DType) -> LoopProgram:
    """The program of a function of 65536 numbers."""
    x = input_node(0, TensorType((2**16,), dtype))
    return lower(Graph((x,), (), (function(x),)), (None,), "conversion", 1)


def launch(program: LoopProgram, target: Target, arrays: list[Array]) -> None:
    """Run machine code for a target on arrays of inputs and outputs."""
    code = object_code(module_of(program, target, False).text, target)
    loaded = load(Program(ENTRY, code, (), ()), {})
    assert loaded(handles(arrays), bytes(8)) == 0


def test_no_arithmetic_in_16_bits() -> None:
    x = reg("x", bfloat16)
    with pytest.raises(CompileError, match="add"):
        primitive("add", x, x)


# -- ops ------------------------------------------------------------------------------------------


def takes_floats(case: Case) -> bool:
    floats = [a for a in case.sample.args if isinstance(a, Arg) and a.dtype is float32]
    return bool(floats) and case.name not in ("Cast", "astype")  # they name a dtype


OPS = [c for c in FIRST.values() if takes_floats(c) and c.sample.reference]


def in_turn(cases: list[Case]) -> list[tuple[Case, DType]]:
    """Every case with one of the dtypes."""
    return [(c, LOW[k % 2]) for k, c in enumerate(cases)]


def is_of_several_ops(case: Case) -> bool:
    """Whether the sample's function makes a matrix out of its arguments first, or hands a state
    from one op to the next."""
    return "linalg" in case.sample.function.__module__ or case.name == "run"


def arguments(case: Case, dtype: DType) -> tuple[list[Any], list[Any]]:
    """The arguments of a sample as low floats, and as float64 arrays of the same values."""
    rng = np.random.default_rng(7)
    tensors, exact = [], []
    for a in case.sample.args:
        if not isinstance(a, Arg):
            tensors.append(a)
            exact.append(a)
            continue
        array = np.array(draw(a, rng))
        x = dg.from_numpy(array)
        if a.dtype is float32:
            x = x.to(dtype)
            array = as_array(x).astype(np.float64)
        tensors.append(x)
        exact.append(array)
    return tensors, exact


def spacing(x: Array, dtype: DType) -> Array:
    """The distance to the next larger number of a dtype."""
    exponent = np.frexp(x)[1] - 1
    return 2.0 ** (np.maximum(exponent, LEAST[dtype]) - (DIGITS[dtype] - 1))


@low
@pytest.mark.parametrize("case", OPS, ids=str)
def test_op_computes_in_float32_and_rounds_once(case: Case, dtype: DType) -> None:
    tensors, arrays = arguments(case, dtype)
    got = case.sample.function(*tensors)
    exact = reference(case, arrays)
    if not got.dtype.is_float:
        np.testing.assert_array_equal(as_array(got), exact)
        return
    assert got.dtype is dtype
    want = decode(encode(np.asarray(exact, np.float64), dtype), dtype)
    sample = case.sample
    if not (sample.ulps or sample.relative):
        np.testing.assert_array_equal(as_array(got), want)
        return
    largest = np.abs(reference(case, [np.abs(a) for a in arrays])).max(initial=0)
    single = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    allowed = 0.5 * spacing(exact, dtype) + sample.ulps * single + sample.relative * largest
    if is_of_several_ops(case):
        allowed = allowed + 16 * spacing(np.max(np.abs(exact)), dtype)
    error = np.abs(as_array(got).astype(np.float64) - exact)
    assert (error <= allowed).all(), f"{error.max()} > {np.max(allowed)}"


@pytest.mark.parametrize(("case", "dtype"), in_turn(OPS), ids=str)
def test_op_has_the_same_bits_everywhere(case: Case, dtype: DType) -> None:
    tensors, _ = arguments(case, dtype)
    want = case.sample.function(*tensors)
    compiled = dg.function(case.sample.function, strict=True)
    static = compiled(*tensors)
    assert static.dtype is want.dtype
    same_bits(static, want, case)
    with config.scope(check=True):
        same_bits(dg.function(case.sample.function, strict=True)(*tensors), want, case)
    same_bits(interpreted(case.sample.function, tensors), want.storage(), case)


def interpreted(function: Callable[..., Any], xs: list[Any]) -> Array:
    """The stored result of a function of contiguous tensors, by the interpreter."""
    arrays = [x for x in xs if isinstance(x, dg.Tensor)]
    nodes = iter(input_node(k, x.type) for k, x in enumerate(arrays))
    operands = [next(nodes) if isinstance(x, dg.Tensor) else x for x in xs]
    result = function(*operands)
    inputs = tuple(x for x in operands if hasattr(x, "op"))
    program = lower(Graph(inputs, (), (result,)), tuple(x.layout for x in arrays), "low", 1)
    memory = {
        b.name: x.storage().reshape(-1).copy() for b, x in zip(program.inputs, arrays, strict=True)
    }
    for b in program.buffers[len(program.inputs) :]:
        memory[b.name] = np.zeros(dim_value(b.size, {}), b.dtype.numpy)
    assert run(program.kernels, memory, {}, {}, 1, FUNCTIONS) == 0
    return memory["o0"].reshape(result.shape)


GRADIENTS = [c for c in first_of_each(SMOOTH, 1) if takes_floats(c)]


@pytest.mark.parametrize(("case", "dtype"), in_turn(GRADIENTS), ids=str)
def test_gradients(case: Case, dtype: DType) -> None:
    """In the operand's dtype, a few roundings from the float64 gradient, equal in both modes."""
    places = differentiable(case)
    op = case.sample.function

    def gradients(w: dg.Tensor, *xs: Any) -> list[Any]:
        (op(*xs) * w).sum().backward()
        return [xs[k].grad for k in places]

    def make(kind: DType) -> tuple[Any, ...]:
        tensors, arrays = arguments(case, dtype)
        shape = op(*tensors).shape
        weight = dg.tensor(np.random.default_rng(4).uniform(0.5, 1.5, shape), dtype=dtype)
        if kind is float64:
            tensors = [dg.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays]
        for k in places:
            tensors[k].requires_grad_()
        return weight.to(kind), *tensors

    found = both(gradients, lambda: make(dtype))
    exact = gradients(*make(float64))
    for eager, static, want in zip(*found, exact, strict=True):
        assert eager.dtype is dtype
        assert static.dtype is dtype
        same_bits(static, eager, case)
        scale = max(1e-3, np.abs(as_array(want)).max(initial=0))
        error = np.abs(as_array(eager) - as_array(want)).max(initial=0)
        roundings = 16 if is_of_several_ops(case) else 4
        assert error <= roundings * scale * 2.0 ** -DIGITS[dtype], f"{error} at {scale}"


@low
def test_fused_code_rounds_as_each_op_does(dtype: DType) -> None:
    def chain(x: Any, y: Any) -> Any:
        z = dg.exp(x * 0.3) + y
        return dg.tanh(z / 3 - x) * z, (z * z).sum(0), dg.softmax(x * y, 1).max(1)

    def make() -> tuple[Any, ...]:
        generator = np.random.default_rng(2)
        return tuple(dg.tensor(generator.uniform(-2, 2, (37, 70)), dtype=dtype) for _ in range(2))

    eager, static = both(chain, make)
    for e, s in zip(eager, static, strict=True):
        assert e.dtype is s.dtype is dtype
        same_bits(s, e)
    x, y = make()
    same_bits(interpreted(lambda x, y: chain(x, y)[0], [x, y]), eager[0].storage())
    one_by_one = dg.exp(dg.tensor(as_array(x * 0.3))).to(dtype) + y
    same_bits(one_by_one, dg.exp(x * 0.3) + y)


# -- composites -----------------------------------------------------------------------------------


@low
def test_composites_round_once(dtype: DType) -> None:
    rng = np.random.default_rng(8)
    a = dg.tensor(rng.uniform(-1, 1, (33, 700)), dtype=dtype)
    b = dg.tensor(rng.uniform(-1, 1, (700, 20)), dtype=dtype)
    x, y = as_array(a).astype(np.float64), as_array(b).astype(np.float64)
    cases = [(a @ b, x @ y, 1e-5), (a.sum(1), x.sum(1), 1e-4), (a.mean(0), x.mean(0), 1e-6)]
    cases += [(a.sum(), x.sum(), 1e-3), (a.max(1), x.max(1), 0.0)]
    for got, exact, slack in cases:
        assert got.dtype is dtype
        error = np.abs(as_array(got) - exact)
        assert (error <= 0.5 * spacing(exact, dtype) + slack).all()
    assert a.argmax(1).dtype is int64
    np.testing.assert_array_equal(as_array(a.argmax(1)), x.argmax(1))


def test_a_sum_does_not_saturate_on_its_way() -> None:
    ones = dg.ones(5000, dtype=bfloat16)
    assert ones.sum().item() == 4992  # the nearest bfloat16; step by step it would stick at 256
    assert dg.full((300,), 300.0, dtype=float16).mean().item() == 300  # the sum is out of range


def test_mixed_operands_of_composites_give_the_promoted_dtype() -> None:
    half, brain, single = (dg.ones(3, 3, dtype=d) for d in (float16, bfloat16, float32))
    assert (half @ brain).dtype is float32
    assert (half @ single).dtype is float32
    assert (half @ half).dtype is float16
    assert (brain @ dg.ones(3, 3, dtype=int64)).dtype is bfloat16
    assert F.mse_loss(brain, brain * 2).dtype is bfloat16
    double = dg.ones(3, 3, dtype=float64)
    assert (brain @ double).dtype is float64
    assert (brain + half).dtype is float32


def test_gradients_of_mixed_operands_have_the_dtypes_of_the_operands() -> None:
    def step(x: Any, w: Any, v: Any) -> Any:
        (dg.relu(x @ w) + v).sum().backward()
        return [x.grad, w.grad, v.grad]

    def make() -> tuple[Any, ...]:
        rng = np.random.default_rng(1)
        shapes = ((5, 6), bfloat16), ((6, 4), float32), ((4,), float16)
        return tuple(
            dg.tensor(rng.uniform(-1, 1, s), dtype=d, requires_grad=True) for s, d in shapes
        )

    eager, static = both(step, make)
    assert [g.dtype for g in eager] == [bfloat16, float32, float16]
    for e, s in zip(eager, static, strict=True):
        same_bits(s, e)


@low
def test_against_torch(dtype: DType) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype.name)
    rng = np.random.default_rng(12)
    numbers = rng.uniform(-3, 3, 500).astype(np.float32)
    other = rng.uniform(0.5, 3, 500).astype(np.float32)
    x, y = dg.tensor(numbers, dtype=dtype), dg.tensor(other, dtype=dtype)
    a, b = torch.tensor(numbers).to(kind), torch.tensor(other).to(kind)
    pairs = [(x, a), (x + y, a + b), (x * y, a * b), (x / y, a / b), (dg.sqrt(y), b.sqrt())]
    pairs += [(x.float(), a.float()), (x.long(), a.long()), (x.double(), a.double())]
    for mine, theirs in pairs:
        assert mine.dtype.name == str(theirs.dtype).removeprefix("torch.")
        wide = theirs.double() if theirs.is_floating_point() else theirs
        np.testing.assert_array_equal(as_array(mine).astype(wide.numpy().dtype), wide.numpy())


# -- tensors --------------------------------------------------------------------------------------


@low
def test_making_and_reading(dtype: DType) -> None:
    x = dg.tensor([[1.5, -2.0], [0.1, 3.0]], dtype=dtype, requires_grad=True)
    near = float(decode(encode(0.1, dtype), dtype))
    assert x.dtype is dtype
    assert x.tolist() == [[1.5, -2.0], [near, 3.0]]
    assert dg.tensor(2.5, dtype=dtype).item() == 2.5
    assert float(dg.tensor(2.5, dtype=dtype)) == 2.5
    assert f"dtype=dualgrad.{dtype.name}" in repr(x)
    assert "1.5" in repr(x)
    for made in (dg.zeros(2, dtype=dtype), dg.zeros_like(dg.ones(2, dtype=dtype))):
        assert made.tolist() == [0, 0]
        assert made.dtype is dtype
    assert dg.ones(2, dtype=dtype).tolist() == [1, 1]
    assert dg.arange(4, dtype=dtype).tolist() == [0, 1, 2, 3]
    assert dg.full((1,), True, dtype=dtype).tolist() == [1]
    assert dg.randn(5, dtype=dtype).dtype is dtype
    assert dg.tensor(x.detach()).dtype is dtype
    assert dg.tensor(x.detach(), dtype=float32).tolist() == x.tolist()


def test_numpy_arrays() -> None:
    half = np.array([1.0, 2.5], np.float16)
    x = dg.from_numpy(half)
    assert x.dtype is float16
    assert x.numpy() is half or np.shares_memory(x.numpy(), half)
    brain = x.bfloat16()
    array = brain.numpy()
    assert array.dtype == np.float32
    assert array.tolist() == [1.0, 2.5]
    array[0] = 9
    assert brain.tolist() == [1.0, 2.5]
    assert np.asarray(brain).dtype == np.float32
    with pytest.raises(ValueError, match="no bfloat16"):
        np.asarray(brain, copy=False)
    assert dg.from_numpy(np.array([1, 2], np.uint16)).dtype is dg.uint16
    assert dg.tensor(half).dtype is float16


@low
def test_copies(dtype: DType) -> None:
    x = dg.tensor([1.5, 0.1], dtype=dtype, requires_grad=True)
    x.square().sum().backward()
    for y in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.clone().detach()):
        same_bits(y, x)
        assert y.dtype is dtype
    grad = pickle.loads(pickle.dumps(x)).grad
    assert grad.dtype is dtype
    same_bits(grad, x.grad)


@low
def test_selection_goes_by_the_values(dtype: DType) -> None:
    x = dg.tensor([0.5, -0.0, -3.0, 0.0, 2.0, -3.0, 0.5], dtype=dtype)
    assert dg.nonzero(x).tolist() == [[0], [2], [4], [5], [6]]
    found, places, counts = dg.unique(x, return_inverse=True, return_counts=True)
    assert found.dtype is dtype
    assert found.tolist() == [-3.0, 0.0, 0.5, 2.0]
    assert places.tolist() == [2, 1, 0, 1, 3, 0, 2]
    assert counts.tolist() == [2, 2, 2, 1]
    assert dg.masked_select(x, x > 0.4).tolist() == [0.5, 2.0, 0.5]
    assert x[x < 0].dtype is dtype
    assert dg.sort(x).tolist() == [-3.0, -3.0, 0.0, 0.0, 0.5, 0.5, 2.0]


@low
def test_changes_in_place(dtype: DType) -> None:
    def step(x: Any, y: Any) -> Any:
        x.add_(y)
        x.mul_(0.3)
        y.copy_(dg.full((3,), 0.1))
        y.zero_()
        y.fill_(0.7)
        return x + y

    def make() -> tuple[Any, ...]:
        return tuple(dg.tensor(v, dtype=dtype) for v in ([1.0, 2.0, 0.1], [0.5, 0.25, 3.0]))

    eager, static = both(step, make)
    assert eager.dtype is static.dtype is dtype
    same_bits(static, eager)
    x = dg.zeros(2, dtype=dtype)
    x.copy_(dg.tensor([1.0, 1e6]))
    assert x.tolist()[0] == 1.0
    with pytest.raises(DTypeError):
        x.add_(dg.ones(2))


def test_conversion_methods() -> None:
    x = dg.tensor([0.0, 1.7, -2.5])
    want = {
        "half": float16, "bfloat16": bfloat16, "float": float32, "double": float64,
        "int": dg.int32, "long": int64, "bool": bool_,
    }  # fmt: skip
    for name, dtype in want.items():
        y = getattr(x, name)()
        assert y.dtype is dtype
        same_bits(y, x.to(dtype))
    assert x.float() is x
    assert x.astype(float32) is not x
    assert x.astype(float32, copy=False) is x
    assert x.astype("bfloat16").dtype is bfloat16
    assert x.type_as(dg.ones(1, dtype=float16)).dtype is float16
    leaf = dg.tensor([1.5], requires_grad=True)
    leaf.half().double().sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype is float32


@low
@pytest.mark.parametrize("make", [
    lambda p: dg.optim.SGD(p, lr=0.1), lambda p: dg.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: dg.optim.Adam(p, lr=0.1), lambda p: dg.optim.RMSprop(p, lr=0.01),
], ids=["sgd", "momentum", "adam", "rmsprop"])  # fmt: skip
def test_optimizers(make: Callable[..., Any], dtype: DType) -> None:
    def train(compiled: bool) -> tuple[list[float], dg.Tensor]:
        rng = np.random.default_rng(0)
        w = dg.tensor(rng.uniform(-1, 1, (6, 3)), dtype=dtype, requires_grad=True)
        x = dg.tensor(rng.uniform(-1, 1, (20, 6)), dtype=dtype)
        y = dg.tensor(rng.uniform(-1, 1, (20, 3)), dtype=dtype)
        optimizer = make([w])

        def step(x: Any, y: Any) -> Any:
            loss = F.mse_loss(x @ w, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run_step = dg.function(step, strict=True) if compiled else step
        return [run_step(x, y).item() for _ in range(12)], w.detach()

    eager, static = train(False), train(True)
    assert eager[0] == static[0]
    same_bits(static[1], eager[1])
    assert eager[1].dtype is dtype
    assert eager[0][-1] < eager[0][0]


@low
def test_data_keeps_the_dtype(dtype: DType) -> None:
    x = dg.tensor(np.arange(12.0).reshape(6, 2), dtype=dtype)
    data = dg.data.TensorDataset(x, dg.arange(6))
    assert data[1][0].dtype is dtype
    assert data[1][0].tolist() == [2.0, 3.0]
    for rows, _ in dg.data.DataLoader(data, batch_size=3):
        assert rows.dtype is dtype
    batch = dg.data.default_collate([data[0][0], data[5][0]])
    assert batch.dtype is dtype
    assert batch.tolist() == [[0.0, 1.0], [10.0, 11.0]]


@low
def test_module_in_low_precision(dtype: DType) -> None:
    layer = dg.nn.Linear(4, 3)
    for p in layer.parameters():
        assert p.dtype is float32
    x = dg.randn(5, 4)
    out = F.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))
    assert out.dtype is dtype
    out.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype is float32


# -- questions about dtypes -----------------------------------------------------------------------


def test_limits_agree_with_numpy() -> None:
    for dtype in (float16, float32, float64):
        mine, theirs = dg.finfo(dtype), np.finfo(dtype.numpy)
        for name in ("bits", "eps", "max", "min", "smallest_normal", "tiny"):
            assert getattr(mine, name) == float(getattr(theirs, name))
    brain = dg.finfo(dg.ones(1, dtype=bfloat16))
    values = decode(EVERY, bfloat16)
    assert brain.max == values[0x7F7F]
    assert brain.min == values[0xFF7F]
    assert brain.smallest_normal == values[0x0080]
    assert brain.eps == values[0x3F81] - 1
    for dtype in ALL:
        if dtype.is_int:
            whole = dg.iinfo(dtype)
            limits = np.iinfo(dtype.numpy)
            assert (whole.max, whole.min, whole.bits) == (limits.max, limits.min, limits.bits)
    with pytest.raises(DTypeError, match="no float"):
        dg.finfo(int64)
    with pytest.raises(DTypeError, match="no integer"):
        dg.iinfo(float32)


def test_promotion_functions() -> None:
    assert dg.promote_types(float16, bfloat16) is float32
    assert dg.result_type(dg.ones(1, dtype=bfloat16), 2.5) is bfloat16
    assert dg.result_type(dg.int8, dg.uint8, 1) is dg.int16
    assert dg.result_type(int64, 1.0) is float32
    assert dg.result_type(1, 2.0) is float32
    assert dg.result_type(True, 1) is int64
    with pytest.raises(ArgumentError, match="nothing to promote"):
        dg.result_type()
    assert dg.can_cast(bfloat16, float32)
    assert not dg.can_cast(float32, bfloat16)
    assert not dg.can_cast(float16, bfloat16)
    assert not dg.can_cast(uint64, int64)
    assert dg.can_cast(dg.ones(1, dtype=dg.int8), int64)


def test_kinds() -> None:
    assert dg.isdtype(bfloat16, "real floating")
    assert dg.isdtype(float16, ("bool", "numeric"))
    assert dg.isdtype(dg.uint8, "unsigned integer")
    assert dg.isdtype(dg.uint8, "integral")
    assert not dg.isdtype(dg.uint8, "signed integer")
    assert not dg.isdtype(float32, "complex floating")
    assert dg.isdtype(float32, float32)
    assert dg.isdtype(float32, (int64, float32))
    assert not dg.isdtype(bool_, "numeric")
    with pytest.raises(ArgumentError, match="no kind"):
        dg.isdtype(float32, "float")
