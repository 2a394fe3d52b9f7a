"""Random numbers: known answers, the same bits in both modes, ranges, frequencies, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, same_bits, tensors_in

import dualgrad as dg
from dualgrad import functional as F
from dualgrad.runtime.errors import ArgumentError, DTypeError, GradientError, ShapeError
from dualgrad.runtime.library import order_of_keys

N = 20_000  # numbers of a statistical test; bounds are 5 standard deviations wide

# -- the stream -----------------------------------------------------------------------------------


def philox(seed: int, block: int) -> list[int]:
    """Philox4x32-10 as its authors' paper states it, in Python's integers."""
    c = [block & 0xFFFFFFFF, block >> 32, 0, 0]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def stream(seed: int, first: int, words: int) -> Array:
    """Words from the beginning of block `first` on."""
    blocks = range(first, first + -(-words // 4))
    return np.array([w for k in blocks for w in philox(seed, k)][:words], np.uint32)


SEEDS = [0, 1, 0xA4093822299F31D0, 2**64 - 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_stream_is_philox(seed: int) -> None:
    g = dg.Generator(seed)
    want = ((stream(seed, 0, 15) >> 8) * 2.0**-24).astype(np.float32).reshape(3, 5)
    same_bits(dg.rand(3, 5, generator=g), want)
    wide = stream(seed, 4, 14).view(np.uint64)  # the first call took four blocks
    same_bits(dg.rand(7, dtype=dg.float64, generator=g), (wide >> 11) * 2.0**-53)
    state = as_array(g.get_state()).tolist()
    assert state == [seed, 8]
    bits = stream(seed, 8, 8).astype(object)
    numbers = [
        sum(int(w) << (32 * k) for k, w in enumerate(bits[4 * j : 4 * j + 4])) for j in (0, 1)
    ]
    want = [-3 + (n * 1000 >> 128) for n in numbers]
    assert dg.randint(-3, 997, (2,), generator=g).tolist() == want


def test_floats_of_64_bits() -> None:
    first, second = stream(17, 0, 40).view(np.uint64).reshape(-1, 2).T
    u = first / 2.0**64 + 0.5**65
    t = ((second >> 11) / 2.0**53 - 0.5) * (np.pi / 2)
    wave = np.where(second & 1, np.sin(t), np.cos(t)) * np.where(second & 2, -1, 1)
    got = dg.randn(10, dtype=dg.float64, generator=dg.Generator(17))
    np.testing.assert_allclose(as_array(got), np.sqrt(-2 * np.log(u)) * wave, rtol=1e-14)
    bits = stream(17, 0, 20).view(np.uint64)
    got = dg.exponential((10,), 4.0, dtype=dg.float64, generator=dg.Generator(17))
    np.testing.assert_allclose(as_array(got), -np.log(bits / 2.0**64) / 4, rtol=1e-14)


def test_position_beyond_32_bits() -> None:
    g = dg.Generator(9)
    g.set_state(dg.tensor([9, 2**32 - 1], dtype=dg.uint64))
    bits = as_array(dg.rand(8, generator=g)) * 2**24
    assert bits.tolist() == (stream(9, 2**32 - 1, 8) >> 8).tolist()


def test_state() -> None:
    g = dg.Generator(3)
    dg.rand(5, generator=g)
    state = g.get_state()
    one = dg.randn(7, generator=g)
    same_bits(dg.randn(7, generator=g.set_state(state)), one)
    assert g.initial_seed() == 3
    other = dg.Generator().set_state(state)
    same_bits(dg.randn(7, generator=other), one)
    dg.seed(5)
    dg.rand(3)
    state = dg.get_rng_state()
    two = dg.rand(2)
    dg.set_rng_state(state)
    same_bits(dg.rand(2), two)
    with pytest.raises(ArgumentError, match="no state of a generator"):
        g.set_state(dg.zeros(2))


# -- both modes -----------------------------------------------------------------------------------


def fill(name: str, *parameters: Any, dtype: Any = dg.float32) -> Callable[[], Any]:
    def draw() -> Any:
        x = dg.zeros(5, 7, dtype=dtype)
        return getattr(x, name)(*parameters)

    return draw


WEIGHTS = [[1.0, 0.0, 3.0, 2.0], [0.5, 0.5, 0.0, 9.0]]
DRAWS: dict[str, Callable[[], Any]] = {
    "rand": lambda: dg.rand(3, 7),
    "rand float64": lambda: dg.rand(1000, dtype=dg.float64),
    "randn": lambda: dg.randn(2, 501),
    "randn float64": lambda: dg.randn(33, dtype=dg.float64),
    "uniform": lambda: dg.uniform((4, 3), dg.zeros(3), dg.ones(4, 1)),
    "normal": lambda: dg.normal((4, 3), dg.ones(3), dg.ones(4, 1) * 2),
    "exponential": lambda: dg.exponential((65,), 2.0),
    "exponential float64": lambda: dg.exponential((65,), dtype=dg.float64),
    "rand_like": lambda: dg.rand_like(dg.zeros(3, 2)),
    "randn_like": lambda: dg.randn_like(dg.zeros(3, 2, dtype=dg.float64)),
    "bernoulli": lambda: dg.bernoulli(dg.ones(9) * 0.5),
    "bernoulli of a number": lambda: dg.bernoulli(0.25, (9, 3)),
    "randint": lambda: dg.randint(-7, 1000, (8, 8)),
    "randint int8": lambda: dg.randint(100, (30,), dtype=dg.int8),
    "randperm": lambda: dg.randperm(50),
    "multinomial": lambda: dg.multinomial(dg.tensor(WEIGHTS), 10, replacement=True),
    "multinomial without replacement": lambda: dg.multinomial(dg.tensor(WEIGHTS), 3),
    "dropout": lambda: F.dropout(dg.ones(40, 3), 0.3),
    "attention": lambda: F.scaled_dot_product_attention(
        dg.ones(2, 3), dg.ones(5, 3), dg.eye(5), dropout_p=0.5
    ),
    "uniform_": fill("uniform_", -1.0, 3.0),
    "normal_": fill("normal_", 1.0, 0.5, dtype=dg.float64),
    "exponential_": fill("exponential_", 3.0),
    "bernoulli_": fill("bernoulli_", 0.3, dtype=dg.int32),
    "random_": fill("random_", 3, 9, dtype=dg.uint8),
}


@pytest.mark.parametrize("name", DRAWS)
def test_same_numbers_in_both_modes(name: str) -> None:
    draw = DRAWS[name]
    compiled = dg.function(draw, strict=True)
    results = []
    for function in (draw, compiled):
        dg.seed(42)
        results.append([function(), function(), dg.rand(3)])
    for eager, static in zip(*map(tensors_in, results), strict=True):
        same_bits(static, eager, name)
    first, second = (as_array(t) for t in results[1][:2])
    assert (first != second).any()
    assert compiled.n_traces == 1


@pytest.mark.parametrize("name", ["rand", "randn float64", "randint", "bernoulli_"])
def test_same_numbers_with_any_number_of_threads(name: str) -> None:
    threads = dg.get_num_threads()
    large = {
        "rand": lambda: dg.rand(300_001),
        "randn float64": lambda: dg.randn(300, 1001, dtype=dg.float64),
        "randint": lambda: dg.randint(0, 2**40, (300_001,)),
        "bernoulli_": lambda: dg.zeros(300_001).bernoulli_(0.3),
    }
    results = []
    try:
        for count in (1, 2, 3):
            dg.set_num_threads(count)
            dg.seed(1)
            results.append(large[name]())
    finally:
        dg.set_num_threads(threads)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


def test_shapes_share_prefixes() -> None:
    """Elements take the words of the stream in row-major order."""
    a, b = (dg.rand(n, generator=dg.Generator(4)) for n in (6, 11))
    same_bits(as_array(b)[:6], as_array(a))
    same_bits(dg.rand(2, 3, generator=dg.Generator(4)).reshape(6), a)


def test_state_inside_of_a_function() -> None:
    def again(state: dg.Tensor, g: dg.Generator) -> Any:
        first = g.get_state()
        g.set_state(state)
        return first, dg.rand(3, generator=g), g.get_state()

    compiled = dg.function(again, strict=True)
    state = dg.tensor([5, 7], dtype=dg.uint64)
    generators = [dg.Generator(1), dg.Generator(1)]
    for _ in range(2):
        eager, static = (f(state, g) for f, g in zip((again, compiled), generators, strict=True))
        for one, two in zip(tensors_in(eager), tensors_in(static), strict=True):
            same_bits(two, one)
    assert as_array(static[2]).tolist() == [5, 8]
    assert compiled.n_traces == 1


# -- distributions --------------------------------------------------------------------------------


def moments(x: Any) -> tuple[float, float]:
    values = as_array(x).astype(np.float64)
    return float(values.mean()), float(values.var())


def assert_distribution(x: Any, distribution: Callable[[Array], Array]) -> None:
    """Kolmogorov and Smirnov's test: the largest distance of the distribution functions."""
    values = np.sort(as_array(x).astype(np.float64).ravel())
    n = len(values)
    want = distribution(values)
    distance = max(np.abs(want - np.arange(k, n + k) / n).max() for k in (0, 1))
    assert distance < 1.95 / math.sqrt(n)  # a chance of 0.1 %; seeds are fixed


def assert_frequencies(x: Any, weights: Any) -> None:
    """Chi squared within five standard deviations of its mean."""
    want = np.asarray(weights, np.float64) / np.sum(weights)
    values = as_array(x).ravel()
    counts = np.bincount(values, minlength=len(want))
    assert len(counts) == len(want)
    assert not counts[want == 0].any()
    expected = values.size * want[want > 0]
    chi = ((counts[want > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert abs(chi - freedom) <= 5 * math.sqrt(2 * freedom)


FLOATS = pytest.mark.parametrize("dtype", [dg.float32, dg.float64], ids=lambda t: t.name)
gauss = np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))


@FLOATS
def test_distributions(dtype: Any) -> None:
    dg.seed(7)
    assert_distribution(dg.rand(N, dtype=dtype), lambda v: v)
    assert_distribution(dg.uniform((N,), -3.0, 5.0, dtype=dtype), lambda v: (v + 3) / 8)
    assert_distribution(dg.randn(N, dtype=dtype), gauss)
    assert_distribution(dg.normal((N,), 2.0, 3.0, dtype=dtype), lambda v: gauss((v - 2) / 3))
    assert_distribution(dg.exponential((N,), 2.0, dtype=dtype), lambda v: 1 - np.exp(-2 * v))
    x = dg.zeros(N, dtype=dtype)
    assert_distribution(x.uniform_(1.0, 2.0), lambda v: v - 1)
    assert_distribution(x.normal_(-1.0, 0.5), lambda v: gauss((v + 1) * 2))
    assert_distribution(x.exponential_(0.5), lambda v: 1 - np.exp(-v / 2))


@FLOATS
def test_numbers_are_not_correlated(dtype: Any) -> None:
    x = as_array(dg.randn(N, dtype=dtype, generator=dg.Generator(8))).astype(np.float64)
    for lag in (1, 2, 3, 4, 8):
        assert abs(np.mean(x[lag:] * x[:-lag])) < 5 / math.sqrt(N)


def test_wide_numbers_use_their_low_bits() -> None:
    x = as_array(dg.rand(1000, dtype=dg.float64)) * 2.0**53
    low = x.astype(np.int64) & 0xFFFF
    assert len(np.unique(low)) > 900


def test_uniform_stays_below_its_end() -> None:
    x = as_array(dg.uniform((N,), 1.0, 1.0 + 2**-22))
    assert set(np.unique(x).tolist()) == {1 + k * 2**-23 for k in range(2)}


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 4), (5, 105), (-100, -90)])
def test_integers_are_uniform(low: int, high: int) -> None:
    dg.seed(9)
    x = as_array(dg.randint(low, high, (N,)))
    assert_frequencies(x - low, np.ones(high - low))
    assert x.dtype == np.int64


def test_extreme_intervals_of_integers() -> None:
    dg.seed(10)
    whole = as_array(dg.randint(-(2**63), 2**63, (N,))).astype(np.float64) / 2.0**63
    assert_distribution(whole, lambda v: (v + 1) / 2)
    top = as_array(dg.randint(0, 2**64, (N,), dtype=dg.uint64)).astype(np.float64) / 2.0**64
    assert_distribution(top, lambda v: v)
    near = as_array(dg.randint(2**64 - 3, 2**64, (300,), dtype=dg.uint64))
    assert sorted(set(near.tolist())) == [2**64 - 3, 2**64 - 2, 2**64 - 1]
    assert dg.randint(2**63 - 1, 2**63, (2,)).tolist() == [2**63 - 1] * 2


def test_random_fills_the_range_of_the_dtype() -> None:
    dg.seed(11)
    assert_frequencies(dg.zeros(N, dtype=dg.uint8).random_(), np.ones(256))
    assert_frequencies(dg.zeros(N, dtype=dg.int8).random_(), np.ones(128))
    assert_frequencies(dg.zeros(N, dtype=dg.bool_).random_(), np.ones(2))
    x = as_array(dg.zeros(N).random_()).astype(np.float64)
    assert_distribution(x / 2**24, lambda v: v)
    assert_frequencies(dg.zeros(N, dtype=dg.int32).random_(2, 5), [0, 0, 1, 1, 1])


def test_bernoulli() -> None:
    dg.seed(12)
    p = dg.tensor([0.0, 1.0, 0.25, 0.9])
    x = as_array(dg.bernoulli(dg.zeros(N, 4) + p))
    assert set(np.unique(x)) == {0.0, 1.0}
    assert x[:, 0].sum() == 0
    assert x[:, 1].sum() == N
    for k in (2, 3):
        q = float(as_array(p)[k])
        assert abs(x[:, k].mean() - q) < 5 * math.sqrt(q * (1 - q) / N)
    assert dg.bernoulli(0.5, (3,), dtype=dg.bool_).dtype is dg.bool_
    mean, _ = moments(dg.zeros(N, dtype=dg.int64).bernoulli_(dg.full((N,), 0.75)))
    assert abs(mean - 0.75) < 5 * math.sqrt(0.75 * 0.25 / N)


def test_permutations() -> None:
    dg.seed(13)
    x = dg.randperm(1000)
    assert sorted(x.tolist()) == list(range(1000))
    assert x.tolist() != list(range(1000))
    assert dg.randperm(0).shape == (0,)
    assert dg.randperm(5, dtype=dg.int32).dtype is dg.int32
    orders = [tuple(dg.randperm(3).tolist()) for _ in range(1200)]
    kinds = sorted(set(orders))
    assert len(kinds) == 6
    assert_frequencies(np.array([kinds.index(o) for o in orders]), np.ones(6))


@pytest.mark.parametrize("bits", [1, 20, 45, 64])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 1000, 20_000])
def test_order_of_keys_is_that_of_a_stable_sort(n: int, bits: int, rng: Any) -> None:
    keys = rng.integers(0, 2**64, n, dtype=np.uint64) >> np.uint64(64 - bits)
    keys <<= np.uint64(64 - bits)  # few bits: many equal keys
    out = np.empty(n, np.int64)
    order_of_keys(out, keys)
    np.testing.assert_array_equal(out, np.argsort(keys, kind="stable"))


def test_keys_that_differ_in_low_bits_only(rng: Any) -> None:
    keys = rng.integers(0, 2**64, 5000, dtype=np.uint64)
    keys[::2] = keys[1::2] ^ np.uint64(3)
    rng.shuffle(keys)
    out = np.empty(5000, np.int64)
    order_of_keys(out, keys)
    np.testing.assert_array_equal(out, np.argsort(keys))


def test_multinomial_with_replacement() -> None:
    dg.seed(14)
    weights = [0.0, 1.0, 5.0, 0.0, 2.0, 0.0]
    x = dg.multinomial(dg.tensor(weights), N, replacement=True)
    assert x.shape == (N,)
    assert_frequencies(x, weights)
    rows = as_array(dg.multinomial(dg.tensor([weights, weights[::-1]]), N, replacement=True))
    assert_frequencies(rows[0], weights)
    assert_frequencies(rows[1], weights[::-1])


def test_multinomial_without_replacement() -> None:
    dg.seed(15)
    weights = [1.0, 5.0, 0.0, 2.0]
    rows = as_array(dg.multinomial(dg.tensor([weights] * N), 3))
    assert rows.shape == (N, 3)
    assert (np.sort(rows, axis=1) == [0, 1, 3]).all()
    assert_frequencies(rows[:, 0], weights)
    after = rows[rows[:, 0] == 1][:, 1]  # the second draw once 1 is gone
    assert_frequencies(after, [1, 0, 0, 2])
    same = as_array(dg.multinomial(dg.tensor([weights] * 50), 4))
    assert (same[:, 3] == 2).all()


# -- gradients ------------------------------------------------------------------------------------


def test_gradients_reach_mean_and_deviation() -> None:
    mean, std = dg.zeros(3, requires_grad=True), dg.ones(4, 1, requires_grad=True)
    x = dg.normal((4, 3), mean, std, generator=dg.Generator(1))
    x.sum().backward()
    z = as_array(dg.randn(4, 3, generator=dg.Generator(1)))
    same_bits(mean.grad, np.full(3, 4, np.float32))
    np.testing.assert_allclose(as_array(std.grad), z.sum(1, keepdims=True), rtol=1e-6)


def test_dropout() -> None:
    dg.seed(16)
    x = dg.ones(N, requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    values = as_array(y.detach())
    scale = np.float32(1 / 0.75)
    assert set(np.unique(values).tolist()) == {0.0, float(scale)}
    assert abs((values == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / N)
    same_bits(x.grad, values)
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    gone = F.dropout(x, 1.0)
    gone.sum().backward()
    assert not as_array(gone.detach()).any()
    infinite = F.dropout(dg.full((100,), math.inf), 0.5)
    assert set(np.unique(as_array(infinite)).tolist()) == {0.0, math.inf}


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: dg.rand(3, dtype=dg.int64), DTypeError, "a float dtype"),
        (lambda: dg.zeros(3, dtype=dg.int64).normal_(), DTypeError, "a float dtype"),
        (lambda: dg.normal((3,), dg.zeros(4, 3)), ShapeError, "broadcast to"),
        (lambda: dg.normal((3,), dg.zeros(4)), ShapeError, "broadcast"),
        (lambda: dg.randint(5, 5, (2,)), ArgumentError, "low < high"),
        (lambda: dg.randint(0, 300, (2,), dtype=dg.uint8), ArgumentError, "<= 256 for uint8"),
        (lambda: dg.randint(-1, 3, (2,), dtype=dg.uint64), ArgumentError, "0 <= low"),
        (lambda: dg.bernoulli(0.5), ArgumentError, "shape="),
        (lambda: dg.bernoulli(1.5, (2,)), ArgumentError, "0 <= p <= 1"),
        (lambda: F.dropout(dg.ones(2), -0.1), ArgumentError, "0 <= p <= 1"),
        (lambda: dg.randperm(-1), ArgumentError, "ints >= 0"),
        (lambda: dg.multinomial(dg.ones(3), 4), ArgumentError, "1 <= n <= 3"),
        (lambda: dg.multinomial(dg.ones(3), 0, True), ArgumentError, "1 <= n"),
        (lambda: dg.multinomial(dg.ones(3, dtype=dg.int64), 1), ShapeError, "floats"),
        (lambda: dg.multinomial(dg.ones(2, 2, 2), 1), ShapeError, "floats"),
        (lambda: dg.ones(2, requires_grad=True).uniform_(), GradientError, "no_grad"),
        (lambda: dg.Generator(-1), ArgumentError, "no seed"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
