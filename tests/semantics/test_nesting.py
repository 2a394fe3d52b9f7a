"""Decorated functions inside of others, recursion, generators, functions without source."""

from __future__ import annotations

import os
from typing import Any

import pytest

import dualgrad as dg
from semantics.support import compare


def test_row33_a_decorated_function_inside_of_another_is_inlined() -> None:
    inner_calls = []

    def make(decorate: Any) -> Any:
        @decorate
        def inner(x: dg.Tensor) -> dg.Tensor:
            return x.exp() * 2

        @decorate
        def outer(x: dg.Tensor) -> dg.Tensor:
            return inner(x + 1) + inner(x)

        inner_calls.append(inner)
        return outer, inner

    x = dg.tensor([0.5, 1.5])
    compare(make, [(x,), (x,), lambda f, inner: inner(x), lambda f, inner: f(x)])
    outer_only = inner_calls[1]
    assert outer_only.n_traces == 1  # by its own call alone


def test_row45_recursion_on_a_python_int() -> None:
    def make(decorate: Any) -> Any:
        @decorate
        def power(x: dg.Tensor, n: int) -> dg.Tensor:
            return x if n == 1 else x * power(x, n - 1)

        return power

    x = dg.tensor([0.5, 1.5])
    compare(make, [(x, 1), (x, 3), (x, 5), (x, 3)])


def test_row47_generators_and_comprehensions_inside() -> None:
    def make() -> Any:
        def powers(x: dg.Tensor, n: int) -> Any:
            y = x
            for _ in range(n):
                yield y
                y = y * x

        def f(x: dg.Tensor) -> Any:
            table = {k + 1: p for k, p in enumerate(powers(x, 3))}
            parts = [p + k for k, p in table.items() if k > 1]
            return sum(parts), [*map(dg.exp, parts)], [*table]

        return f

    x = dg.tensor([0.5, 1.5])
    compare(make, [(x,), (x,)], traces=1)


def test_row51_functions_without_source() -> None:
    def make() -> Any:
        space: dict[str, Any] = {"dg": dg}
        exec("def f(x):\n    return dg.exp(x) + 1", space)
        return space["f"]

    x = dg.tensor([0.5, 1.5])
    f = compare(make, [(x,), (x,)], traces=1)
    assert f.name == "f"
    compare(lambda: eval("lambda x: x * 2"), [(x,), (x,)], traces=1)


def test_row17_the_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Any:
        return lambda x: x * float(os.environ["DUALGRAD_TEST"]) + float(os.getenv("UNSET", 1.0))

    def put(value: str) -> Any:
        return lambda f: monkeypatch.setenv("DUALGRAD_TEST", value)

    x = dg.tensor([0.5, 1.5])
    compare(make, [put("2"), (x,), (x,), put("3"), (x,), (x,)], eager=True)


def test_row03_rows_of_a_tensor() -> None:
    def make() -> Any:
        def f(x: dg.Tensor) -> Any:
            total, rows = x[0] * 0, []
            for k, row in enumerate(x):
                total = total * 0.5 + row * k
                rows.append(row)
            first, *rest = x
            return total, rows, first + len(rest)

        return f

    compare(make, [(dg.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),) for _ in range(2)], traces=1)
    x = dg.arange(12).reshape(6, 2) * 1.0
    compare(make, [(x,), (x[:4],), (x[:1],), (x,)])
