"""The reference interpreter: every primitive against exact arithmetic, loops against loops."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from dualgrad.compiler.ir.dims import Dim, Expr, minimum, sym, symbol_of
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.ir import (
    Accumulator,
    Buffer,
    Check,
    Contract,
    Kernel,
    Loop,
    Operand,
    Reduce,
    Store,
)
from dualgrad.compiler.lower.reference import run
from dualgrad.compiler.lower.reference_scalar import evaluate, fma
from dualgrad.runtime.dtype import (
    ALL,
    DType,
    bool_,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
    uint32,
    uint64,
)
from dualgrad.runtime.errors import CompileError

INTS = [t for t in ALL if t.is_int]
RNG = np.random.default_rng(7)


def compute(e: s.Scalar, **values: np.ndarray) -> np.ndarray:
    """e with its registers bound to arrays."""
    known = {r: values[r.attr] for r in s.children_first((e,)) if r.op == "reg"}
    return evaluate((e,), lambda x: known[x], {})[0]


def binary(name: str, dtype: DType) -> s.Scalar:
    return s.primitive(name, s.reg("x", dtype), s.reg("y", dtype))


def any_bits(dtype: DType, count: int) -> np.ndarray:
    """Numbers of `dtype` with random bits, among them the corners."""
    raw = RNG.integers(0, 256, count * dtype.itemsize, dtype=np.uint8)
    out = raw.view(dtype.numpy).copy()
    info = np.finfo(dtype.numpy) if dtype.is_float else np.iinfo(dtype.numpy)
    corners = [0, 1, info.max, info.min]
    if dtype.is_float:
        corners += [-0.0, -1, np.inf, -np.inf, np.nan, info.tiny, info.smallest_subnormal]
    out[: len(corners)] = np.array(corners, dtype.numpy)
    RNG.shuffle(out)
    return out


# -- fma ---------------------------------------------------------------------------------------


def rounded(x: Fraction, dtype: np.dtype) -> float:
    """x rounded to nearest, ties to even, by integer arithmetic."""
    digits, lowest, top = (24, -149, 128) if dtype == np.float32 else (53, -1074, 1024)
    if x == 0:
        return 0.0
    size = abs(x)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - digits + 1, lowest)
    result = round(size / unit) * unit
    value = math.inf if result >= Fraction(2) ** top else float(result)
    return -value if x < 0 else value


def exact_fma(a: float, b: float, c: float, dtype: np.dtype) -> float:
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        sign = math.copysign(1, a) * math.copysign(1, b)
        zero_product = a == 0 or b == 0
        return -0.0 if zero_product and sign < 0 and math.copysign(1, c) < 0 else 0.0
    return rounded(exact, dtype)


def fma_cases(dtype: DType) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random bits, moderate numbers, cancelling sums, ties, and results below the normal range."""
    t = dtype.numpy
    a, b, c = (any_bits(dtype, 1500) for _ in range(3))
    x, y = (RNG.standard_normal(3000).astype(t) for _ in range(2))
    with np.errstate(all="ignore"):
        near = (-x * y * (1 + RNG.integers(-3, 4, 3000) * np.finfo(t).eps)).astype(t)
        halves = (x * y * np.finfo(t).eps * RNG.choice([0.5, 0.25, 1.5, 3], 3000)).astype(t)
        small = np.finfo(t).tiny * RNG.standard_normal(3000).astype(t)
        root = np.sqrt(np.finfo(t).tiny) * RNG.standard_normal(3000)
    ones = 1 + RNG.integers(0, 8, 3000).astype(t) * np.finfo(t).eps
    groups = [(a, b, c), (x, y, near), (ones, ones, halves), (root.astype(t), y, small)]
    groups += [(root.astype(t), root.astype(t), small), (x, np.finfo(t).max * y, -near)]
    groups += [(x, np.sqrt(np.finfo(t).max) * y, (root * 1e-3).astype(t))]
    zeros = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan], t)
    grid = [g.ravel() for g in np.meshgrid(zeros, zeros, zeros)]
    merged = [np.concatenate(parts) for parts in zip(*groups, grid, strict=True)]
    return merged[0], merged[1], merged[2]


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_fma_is_rounded_once(dtype: DType) -> None:
    a, b, c = fma_cases(dtype)
    got = fma(a, b, c)
    assert got.dtype == dtype.numpy
    for x, y, z, r in zip(*(v.tolist() for v in (a, b, c, got)), strict=True):
        want = exact_fma(x, y, z, dtype.numpy)
        same = r == want and math.copysign(1, r) == math.copysign(1, want)
        assert same or (r != r and want != want), (x, y, z, r, want)


# -- other primitives --------------------------------------------------------------------------


def wrapped(x: int, dtype: DType) -> int:
    x &= (1 << dtype.bits) - 1
    return x - (1 << dtype.bits) if dtype.kind == "i" and x >> (dtype.bits - 1) else x


def truncated(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


INT_ORACLES = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": truncated,
    "rem": lambda a, b: a - b * truncated(a, b),
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


@pytest.mark.parametrize("dtype", INTS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", sorted(INT_ORACLES))
def test_integers_wrap(name: str, dtype: DType) -> None:
    x, y = any_bits(dtype, 300), any_bits(dtype, 300)
    if name in ("div", "rem"):
        y[y == 0] = 3
    got = compute(binary(name, dtype), x=x, y=y)
    oracle = INT_ORACLES[name]
    assert got.dtype == dtype.numpy
    assert got.tolist() == [
        wrapped(oracle(a, b), dtype) for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]


@pytest.mark.parametrize("dtype", INTS, ids=lambda t: t.name)
def test_shifts(dtype: DType) -> None:
    x = any_bits(dtype, 300)
    count = RNG.integers(0, dtype.bits, 300).astype(dtype.numpy)
    pairs = list(zip(x.tolist(), count.tolist(), strict=True))
    left = compute(binary("shl", dtype), x=x, y=count)
    right = compute(binary("shr", dtype), x=x, y=count)
    assert left.tolist() == [wrapped(a << n, dtype) for a, n in pairs]
    assert right.tolist() == [a >> n for a, n in pairs]
    with pytest.raises(CompileError, match=r"shift count is outside \[0, "):
        compute(binary("shl", dtype), x=x, y=np.full(300, dtype.bits, dtype.numpy))


def test_division_by_zero_is_refused() -> None:
    with pytest.raises(CompileError, match="divided by zero"):
        compute(binary("rem", int32), x=np.ones(2, np.int32), y=np.array([1, 0], np.int32))


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "sqrt"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_floats_round_to_nearest(name: str, dtype: DType) -> None:
    x, y = any_bits(dtype, 400), any_bits(dtype, 400)
    finite = np.isfinite(x) & np.isfinite(y) & (y != 0)
    x, y = x[finite], y[finite]
    if name == "sqrt":
        got = compute(s.primitive("sqrt", s.reg("x", dtype)), x=abs(x))
        for a, r in zip(abs(x).tolist(), got.tolist(), strict=True):
            near = (np.nextafter(dtype.numpy.type(r), e) for e in (0, np.inf))
            low, high = ((Fraction(r) + Fraction(float(v))) / 2 for v in near)
            assert low * low <= Fraction(a) <= high * high
        return
    got = compute(binary(name, dtype), x=x, y=y)
    for a, b, r in zip(x.tolist(), y.tolist(), got.tolist(), strict=True):
        p, q = Fraction(a), Fraction(b)
        exact = {"add": p + q, "sub": p - q, "mul": p * q, "div": p / q}[name]
        assert r == rounded(exact, dtype.numpy)


def test_unary_float_primitives() -> None:
    x = np.array([-2.5, -0.5, -0.0, 0.5, 1.5, 2.5, np.inf, np.nan], np.float32)
    reg = s.reg("x", float32)
    for name, oracle in (("floor", math.floor), ("rint", round), ("abs", abs)):
        got = compute(s.primitive(name, reg), x=x).tolist()
        assert got[:6] == [float(oracle(v)) for v in x[:6].tolist()]
        assert got[6] == math.inf
        assert got[7] != got[7]
    signed = compute(s.primitive("copysign", reg, s.const(-0.0, float32)), x=x)
    assert np.signbit(signed).all()
    assert np.signbit(compute(s.primitive("rint", reg), x=x)[1])
    assert np.signbit(compute(-reg, x=np.zeros(1, np.float32))[0])


WIDE = [t for t in ALL if not t.is_low]  # for the others see test_low_floats.py


@pytest.mark.parametrize("source", WIDE, ids=lambda t: t.name)
@pytest.mark.parametrize("target", [t for t in WIDE if t is not bool_], ids=lambda t: t.name)
def test_casts(source: DType, target: DType) -> None:
    if source is bool_:
        x = np.array([True, False])
    elif source.is_float:
        low, high = (-100, 100) if target.is_signed else (0, 200)
        x = RNG.uniform(low, high, 50).astype(source.numpy)
    else:
        x = any_bits(source, 50)
    got = compute(s.cast(s.reg("x", source), target), x=x)
    exact = [Fraction(v) if not isinstance(v, bool) else Fraction(int(v)) for v in x.tolist()]
    if target.is_float:
        want = [rounded(v, target.numpy) for v in exact]
    else:
        want = [wrapped(int(v), target) for v in exact]
    assert got.dtype == target.numpy
    assert got.tolist() == want


def test_tables_take_the_low_bits_of_an_index() -> None:
    k = np.array([0, 1, 3, 4, -1, 2**31 - 2], np.int32)
    numbers = (-0.0, 0.1, 2.5, np.inf)
    got = compute(s.table(s.reg("k", int32), numbers, float32), k=k)
    want = np.array(numbers, np.float32)[[0, 1, 3, 0, 3, 2]]
    assert got.tobytes() == want.tobytes()
    other = s.table(s.reg("k", int32), (0.0, *numbers[1:]), float32)
    assert not np.signbit(compute(other, k=k)[0])


def test_a_detour_is_a_choice() -> None:
    x, y = (s.reg(name, float32) for name in "xy")
    doubled = s.Formula("doubled", (y,), y + y)
    got = compute(doubled.where(x > 2.0, x, x), x=np.array([1, 2, 3, np.nan], np.float32))
    np.testing.assert_array_equal(got, np.array([1, 2, 6, np.nan], np.float32))


def test_bitcast_compare_select_and_constants() -> None:
    x = np.array([1.0, -0.0, np.nan], np.float32)
    reg = s.reg("x", float32)
    assert compute(s.bitcast(reg, uint32), x=x)[:2].tolist() == [0x3F800000, 0x80000000]
    assert compute(s.primitive("ne", reg, reg), x=x).tolist() == [False, False, True]
    assert compute(s.primitive("eq", reg, s.const(0.0, float32)), x=x).tolist() == [0, 1, 0]
    chosen = s.select(reg > 0.0, reg, s.const(0.1, float32))
    assert compute(chosen, x=x).tolist() == [1.0, float(np.float32(0.1)), float(np.float32(0.1))]
    flags = s.reg("x", bool_)
    assert compute(~flags, x=np.array([True, False])).tolist() == [False, True]
    assert compute(s.const(300, uint8)).tolist() == 44
    assert compute(s.const(-1, uint64)).tolist() == 2**64 - 1


# -- loops -------------------------------------------------------------------------------------

N = sym("N")
I = sym("i", 5)  # noqa: E741


def vector(var: Expr, extent: Dim, *body: Store | Check) -> Loop:
    return Loop("vector", var, extent, body)


def kernel(*body: object) -> Kernel:
    return Kernel("k", tuple(body))  # type: ignore[arg-type]


def test_map_with_views_and_a_symbolic_size() -> None:
    i, j = sym("i", N), sym("j", N)
    x, y = Buffer("x", float32, N * N), Buffer("y", float32, N * N)
    value = s.load(x, j * N + i) * 2.0
    stmt = Loop("parallel", i, N, (vector(j, N, Store(y, i * N + j, value)),))
    data = np.arange(36, dtype=np.float32)
    out = np.zeros(36, np.float32)
    sizes = {symbol_of(N): 6}
    assert run([kernel(stmt)], {"x": data, "y": out}, {}, sizes, seed=3) == 0
    np.testing.assert_array_equal(out.reshape(6, 6), 2 * data.reshape(6, 6).T)


def test_division_remainder_and_minimum_in_indices() -> None:
    i = sym("i", 60)
    x, y = Buffer("x", int64, 12), Buffer("y", int64, 60)
    at = minimum((i // 7) * 2 + i % 5, 11)
    out = np.zeros(60, np.int64)
    body = vector(i, 60, Store(y, i, s.load(x, at) + s.index(i)))
    assert run([kernel(body)], {"x": np.arange(12) * 100, "y": out}, {}, {}) == 0
    assert out.tolist() == [min(k // 7 * 2 + k % 5, 11) * 100 + k for k in range(60)]


def sum_of(order: str, lanes: int, extent: Dim, element: s.Scalar, j: Expr) -> Reduce:
    dtype = element.dtype
    carry, left, right = (s.reg(n, dtype) for n in ("sum", "l", "r"))
    zero = s.const(0, dtype)
    total = Accumulator((carry,), (zero,), (carry + element,), (left,), (right,), (left + right,))
    return Reduce(j, extent, order, lanes, (total,))  # type: ignore[arg-type]


def ordered_sum(values: np.ndarray, lanes: int) -> np.ndarray:
    """The documented order, one element at a time."""
    carry = [values.dtype.type(0)] * lanes
    for i, v in enumerate(values):
        carry[i % lanes] = carry[i % lanes] + v
    while lanes > 1:
        lanes //= 2
        carry = [carry[k] + carry[k + lanes] for k in range(lanes)]
    return carry[0]


@pytest.mark.parametrize("extent", [0, 1, 5, 8, 23, 100])
@pytest.mark.parametrize(("order", "lanes"), [("chain", 1), ("lanes", 8), ("lanes", 16)])
def test_reductions_keep_their_order(order: str, lanes: int, extent: int) -> None:
    j = sym("j", extent)
    i = sym("i", 3)
    x, y = Buffer("x", float32, max(1, 3 * extent)), Buffer("y", float32, 3)
    data = (RNG.standard_normal(max(1, 3 * extent)) * 10.0 ** RNG.integers(-6, 6)).astype("f4")
    element = s.load(x, i * extent + j) * s.load(x, i * extent + j)
    total = Store(y, i, s.reg("sum", float32))
    body = Loop("parallel", i, 3, (sum_of(order, lanes, extent, element, j), total))
    out = np.full(3, np.nan, np.float32)
    assert run([kernel(body)], {"x": data, "y": out}, {}, {}, seed=1) == 0
    rows = data[: 3 * extent].reshape(3, extent)
    want = np.array([ordered_sum(row * row, lanes) for row in rows], np.float32)
    np.testing.assert_array_equal(out.view(np.uint32), want.view(np.uint32))


def test_several_carries_and_stores_in_a_reduction() -> None:
    """The largest element and its first position, while the row is copied."""
    j = sym("j", 29)
    x, y, place = Buffer("x", float32, 29), Buffer("y", float32, 29), Buffer("p", int64, 1)
    names = [(s.reg(f"{p}v", float32), s.reg(f"{p}i", int64)) for p in ("c", "l", "r")]
    carry, left, right = names
    element = (s.load(x, j), s.index(j))

    def better(a: tuple[s.Scalar, ...], b: tuple[s.Scalar, ...]) -> tuple[s.Scalar, ...]:
        same = s.primitive("eq", b[0], a[0])
        wins = (b[0] > a[0]) | (same & (b[1] < a[1]))
        return tuple(s.select(wins, q, p) for p, q in zip(a, b, strict=True))

    init = (s.const(-math.inf, float32), s.const(99, int64))
    arg = Accumulator(carry, init, better(carry, element), left, right, better(left, right))
    reduce = Reduce(j, 29, "lanes", 8, (arg,), (Store(y, j, element[0] + 1.0),))
    data = np.round(RNG.standard_normal(29) * 2).astype(np.float32)
    memory = {"x": data, "y": np.zeros(29, np.float32), "p": np.zeros(1, np.int64)}
    assert run([kernel(reduce, Store(place, 0, carry[1]))], memory, {}, {}) == 0
    assert memory["p"][0] == data.argmax()
    np.testing.assert_array_equal(memory["y"], data + 1)


def test_chain_inside_a_vector_loop() -> None:
    i, j = sym("i", 6), sym("j", 10)
    x, y = Buffer("x", float64, 60), Buffer("y", float64, 6)
    reduce = sum_of("chain", 1, 10, s.load(x, j * 6 + i), j)
    loop = Loop("vector", i, 6, (reduce, Store(y, i, s.reg("sum", float64))))
    data = RNG.standard_normal(60)
    out = np.zeros(6)
    assert run([kernel(loop)], {"x": data, "y": out}, {}, {}) == 0
    assert out.tolist() == [float(ordered_sum(c, 1)) for c in data.reshape(10, 6).T]


def test_a_chain_stores_its_steps_and_what_it_carried() -> None:
    i, j = sym("i", 4), sym("j", 9)
    x, y, z = (Buffer(n, float64, 36) for n in "xyz")
    carry, at = s.reg("sum", float64), j * 4 + i
    step = carry + s.load(x, at)
    scan = Reduce(
        *(j, 9, "chain", 1),
        (Accumulator((carry,), (s.const(1.0, float64),), (step,)),),
        (Store(y, at, step), Store(z, at, carry)),
    )
    data = RNG.standard_normal(36)
    memory = {"x": data, "y": np.zeros(36), "z": np.zeros(36)}
    assert run([kernel(Loop("vector", i, 4, (scan,)))], memory, {}, {}) == 0
    sums = np.add.accumulate(np.concatenate([np.ones((1, 4)), data.reshape(9, 4)]))
    np.testing.assert_array_equal(memory["y"].reshape(9, 4), sums[1:])
    np.testing.assert_array_equal(memory["z"].reshape(9, 4), sums[:-1])


def test_consecutive_stores_are_one_assignment() -> None:
    x, y = Buffer("x", int32, 5), Buffer("y", int32, 5)
    swap = vector(I, 5, Store(x, I, s.load(y, I)), Store(y, I, s.load(x, I)))
    a, b = np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int32) * 10
    assert run([kernel(swap)], {"x": a, "y": b}, {}, {}) == 0
    assert (a.tolist(), b.tolist()) == ([0, 10, 20, 30, 40], [0, 1, 2, 3, 4])


def test_serial_iterations_see_each_other() -> None:
    i = sym("i", 9)
    x = Buffer("x", int32, 10)
    loop = Loop("serial", i, 9, (Store(x, i + 1, s.load(x, i) * 2),))
    data = np.ones(10, np.int32)
    assert run([kernel(loop)], {"x": data}, {}, {}) == 0
    assert data.tolist() == [2**k for k in range(10)]


@pytest.mark.parametrize("k", [0, 1, 511, 512, 513, 1300])
def test_contract_order_and_epilogue(k: int) -> None:
    b, m, n = 2, 3, 4
    A, B = Buffer("a", float32, max(1, b * m * k)), Buffer("b", float32, max(1, b * n * k))
    C, D = Buffer("c", float32, b * m * n), Buffer("d", float32, b * m * n)
    v = [sym(name, extent) for name, extent in (("b", b), ("r", m), ("q", n))]
    at = v[0] * (m * n) + v[1] * n + v[2]
    result = s.reg("sum", float32)
    stmt = Contract(
        Operand(A, 0, m * k, k, 1),
        Operand(B, 0, n * k, 1, k),  # stored transposed
        Operand(C, 0, m * n, n, 1),
        *(b, m, n, k),
        Buffer("w", float32, 1),
        *v,
        result,
        (Store(D, at, result * 2.0 + s.load(C, at)),),
    )
    x = RNG.standard_normal(max(1, b * m * k)).astype(np.float32)
    y = RNG.standard_normal(max(1, b * n * k)).astype(np.float32)
    memory = {"a": x, "b": y, "c": np.zeros(24, "f4"), "d": np.zeros(24, "f4")}
    assert run([kernel(stmt)], memory, {}, {}) == 0
    p, q = x[: b * m * k].reshape(b, m, k), y[: b * n * k].reshape(b, n, k)
    for z, r, c in np.ndindex(b, m, n):
        want = contracted(p[z, r].tolist(), q[z, c].tolist())
        assert memory["c"][z * 12 + r * 4 + c] == want
        assert memory["d"][z * 12 + r * 4 + c] == np.float32(want) * 3


def contracted(p: list[float], q: list[float]) -> float:
    """The order along K that `Contract` documents, in exact steps."""
    k = len(p)
    blocks = math.ceil(k / 512)
    length = math.ceil(k / blocks) if blocks else 1
    total = np.float32(0)
    for start in range(0, k, length):
        part = 0.0
        for u, v in zip(p[start : start + length], q[start : start + length], strict=True):
            part = exact_fma(u, v, part, np.dtype("f4"))
        total = np.float32(part) if start == 0 else total + np.float32(part)
    return float(total)


# -- checks and faults ---------------------------------------------------------------------------


def test_a_failing_check_stops_and_says_where() -> None:
    i = sym("i", 4)
    x, y = Buffer("x", int64, 4), Buffer("y", int64, 4)
    body = vector(i, 4, Check(s.load(x, i), 10, 6), Store(y, i, s.load(x, i)))
    memory = {"x": np.array([1, 2, -5, 77]), "y": np.zeros(4, np.int64)}
    word = run([kernel(body), kernel(body)], memory, {}, {})
    assert (word & 0xFFFF, word >> 16) == (7, -5)
    assert memory["y"].tolist() == [0, 0, 0, 0]
    assert run([kernel(body)], {**memory, "x": np.array([0, 9, 3, 4])}, {}, {}) == 0


def test_parameters_are_rounded_to_their_dtype() -> None:
    y = Buffer("y", float32, 1)
    value = s.cast(s.param("p", float64), float32) + s.cast(s.param("q", bool_), float32)
    memory = {"y": np.zeros(1, np.float32)}
    assert run([kernel(Store(y, 0, value))], memory, {"p": 0.1, "q": True}, {}) == 0
    assert memory["y"][0] == np.float32(0.1) + np.float32(1)


X = Buffer("x", int8, 8)


@pytest.mark.parametrize(
    ("stmt", "message"),
    [
        (vector(I, 5, Store(X, I + 4, s.const(1, int8))), r"index 8 of x\[4 \+ i\] is out"),
        (vector(I, 5, Store(X, I, s.load(X, I - 1))), r"index -1 of x"),
        (vector(I, 5, Store(X, I, s.load(X, I + 1))), r"x\[\d\] is stored to and touched again"),
        (vector(I, 5, Store(X, 3, s.const(1, int8))), r"x\[3\] is stored to"),
        (Loop("parallel", I, 5, (Store(X, I, s.load(X, 0)),)), "x.0. is stored to .* parallel i"),
        (Store(X, 0, s.reg("r", int8)), "register r has no value"),
        (Store(Buffer("z", int8, 8), 0, s.const(1, int8)), r"buffer z is not i8\[8\]: missing"),
        (Store(Buffer("x", int8, 9), 0, s.const(1, int8)), r"buffer x is not i8\[9\]: int8\[8\]"),
    ],
)
def test_faults_are_named(stmt: object, message: str) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        run([kernel(stmt)], {"x": np.zeros(8, np.int8)}, {}, {})
    assert "kernel k" in str(caught.value)
