"""Integer expressions: quotients and remainders keep their values, and simplify where they can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.compiler.ir.certain import is_natural
from dualgrad.compiler.ir.dims import (
    Dim,
    evaluate,
    maximum,
    rejoined,
    sym,
    symbol_of,
)

N, M = sym("n"), sym("m")
U, V = sym("i", N), sym("j", M)
SIZES = [symbol_of(v) for v in (N, M)]
LOOPS = [symbol_of(v) for v in (U, V)]


def rows(n: Dim, m: Dim) -> tuple[Any, Any]:
    return sym("i", n), sym("j", m)


@pytest.mark.parametrize("n", [N, N + 1, N // 2 + 1, 3 * N + M])
@pytest.mark.parametrize("m", [M, M + 2, (M + 1) // 3 + 1, N * M, N * M + N + 1])
def test_rows_and_columns_come_apart(n: Dim, m: Dim) -> None:
    i, j = rows(n, m)
    flat = i * m + j
    assert flat // m == i
    assert flat % m == j
    assert flat // (n * m) == 0
    assert flat % (n * m) == flat


def test_what_is_not_certain_stays() -> None:
    i, j = rows(N, M + 1)
    assert (i * M + j) // M == i + j // M
    assert (i * (M + 1) - j) % (M + 1) != 0
    assert (N * M) // (M + 1) != N


def test_reversed_axes_come_apart() -> None:
    i, j = sym("i", 3), sym("j", 3)
    assert (8 - i) // 3 == 2
    assert (8 - i) % 3 == 2 - i
    assert (8 - 3 * i - j + 9 * N) // 3 == 2 - i + 3 * N
    assert (7 - i) // 3 != 2  # 2 or 1


atoms = st.sampled_from([1, N, M, U, V, N // 2, (N + M) // 3, N * M])
terms = st.tuples(st.integers(-3, 3), atoms, atoms)


def polynomial(parts: list[tuple[int, Any, Any]]) -> Dim:
    return sum((c * x * y for c, x, y in parts), 0)


@settings(max_examples=300, deadline=None)
@given(st.lists(terms, max_size=5), st.lists(terms, min_size=1, max_size=3), st.data())
def test_division_keeps_its_value(a: list[Any], b: list[Any], data: Any) -> None:
    dividend, divisor = polynomial(a), polynomial(b)
    sizes = [data.draw(st.integers(2, 9)) for _ in SIZES]
    places = [data.draw(st.integers(0, n - 1)) for n in sizes]
    values = dict(zip([*SIZES, *LOOPS], [*sizes, *places], strict=True))
    x, y = evaluate(dividend, values), evaluate(divisor, values)
    if x >= 0 and y > 0:
        assert evaluate(dividend // divisor, values) == x // y
        assert evaluate(dividend % divisor, values) == x % y


def test_quotient_and_remainder_come_together() -> None:
    i, j = rows(12, 5)
    assert rejoined(512 * (64 * (i // 4) + j) + 128 * 512 * 3) == 512 * (64 * (i // 4) + j + 384)
    assert rejoined(32 * (i // 4) + 8 * (i % 4) + j + 7) == 8 * i + j + 7
    assert rejoined(N * M * (i // N) + M * (i % N)) != i * M  # known sizes only
    assert rejoined(32 * (i // 4) + 9 * (i % 4)) == 32 * (i // 4) + 9 * (i % 4)
    assert rejoined(32 * (i // 4) + 8 * (i % 5)) == 32 * (i // 4) + 8 * (i % 5)


@settings(max_examples=300, deadline=None)
@given(st.lists(terms, max_size=5), st.integers(-4, 9), st.data())
def test_what_is_certainly_natural_is(a: list[Any], more: int, data: Any) -> None:
    d = polynomial(a) + more
    sizes = [data.draw(st.integers(2, 9)) for _ in SIZES]
    places = [data.draw(st.integers(0, n - 1)) for n in sizes]
    value = evaluate(d, dict(zip([*SIZES, *LOOPS], [*sizes, *places], strict=True)))
    assert not is_natural(d) or value >= 0


def test_the_last_place_of_a_loop_counts() -> None:
    i, j = rows(N, M)
    assert is_natural(N * M - 1 - i * M - j)
    assert is_natural(N - 1 - i)
    assert not is_natural(N - 2 - i)
    assert not is_natural(N * M - 1 - i * M - j * 2)
    assert not is_natural(N - M)
    assert is_natural(N - 2)


def test_the_larger_of_two() -> None:
    for n in range(2, 9):
        assert evaluate(maximum(N, 5), {SIZES[0]: n}) == max(n, 5)


@settings(max_examples=300, deadline=None)
@given(st.integers(-20, 20), st.lists(st.integers(-9, 9), min_size=3, max_size=3), st.data())
def test_division_by_a_number_keeps_its_value(start: int, steps: list[int], data: Any) -> None:
    extents = [data.draw(st.integers(1, 5)) for _ in steps]
    axes = [sym(f"v{k}", n) for k, n in enumerate(extents)]
    by = data.draw(st.integers(1, 12))
    place: Dim = start + sum(c * v for c, v in zip(steps, axes, strict=True))
    places = [data.draw(st.integers(0, n - 1)) for n in extents]
    values = {symbol_of(v): at for v, at in zip(axes, places, strict=True)}
    x = evaluate(place, values)
    assert evaluate(place // by, values) == x // by
    assert evaluate(place % by, values) == x % by
