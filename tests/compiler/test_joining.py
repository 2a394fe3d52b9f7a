"""Joined tensors: parts are computed where they lie, and every value stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import lowered

import dualgrad as dg
from dualgrad.compiler.kernel.ir import Contract, buffers_of
from dualgrad.compiler.pipeline import lower


def _random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


Case = tuple[Callable[..., Any], tuple[tuple[int, ...], ...], int]
CASES: dict[str, Case] = {  # what is computed, shapes of arguments, number of kernels
    "rows": (lambda x, y: dg.cat([x * 2, y + 1]), ((3, 4), (5, 4)), 2),
    "columns": (lambda x, y: dg.cat([x * 2, dg.exp(y)], 1), ((6, 3), (6, 5)), 2),
    "stack": (lambda x, y: dg.stack([x + y, x - y], 1), ((3, 4), (3, 4)), 2),
    "nested": (
        lambda x, y: dg.stack([dg.cat([x + 1, y * 2], 1), dg.cat([y - 1, x * x], 1)]),
        ((4, 3), (4, 5)),
        4,
    ),
    "twice": (lambda x: dg.cat([x * 3, x + 1, x * 3], -1), ((4, 5),), 2),
    "products": (lambda x, y: dg.stack([x @ y, (x + 1) @ y]), ((7, 5), (5, 6)), 3),
    "product twice": (lambda x, y: dg.stack([z := x @ y, z]), ((7, 5), (5, 6)), 1),
    "product beside": (lambda x, y: dg.cat([x @ y, x * 2], 1), ((7, 5), (5, 6)), 2),
    "sums": (lambda x, y: dg.stack([x.sum(1), y.sum(1)]), ((6, 40), (6, 30)), 2),
    "sums of columns": (
        lambda x, y: dg.cat([x.sum(0), y.max(0), x[0] * 2], 1),
        ((3, 4, 5), (9, 4, 6)),
        3,
    ),
    "sums of long columns": (
        lambda x, y: dg.stack([x.sum(0), y.sum(0)], 1),
        ((700, 4, 5), (2, 4, 5)),
        3,
    ),
    "sums in the middle": (
        lambda x, y: dg.stack([x.sum(1), y.sum(1)], 2),
        ((2, 3, 4, 5), (2, 6, 4, 5)),
        2,
    ),
    "inputs": (lambda x, y: dg.cat([x, y * 2]), ((3, 4), (2, 4)), 2),
    "part of a part": (lambda x, y: dg.cat([(x * 2)[1:], y * 2]), ((3, 4), (2, 4)), 3),
    "reshaped": (lambda x, y: dg.cat([(x * 2).reshape(6, 2), y * 2]), ((3, 4), (2, 2)), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_kernels(name: str) -> None:
    body, shapes, count = CASES[name]
    args = [dg.from_numpy(_random(*s, seed=k)) for k, s in enumerate(shapes)]
    step = dg.function(body, strict=True)
    expected = body(*args).numpy()
    assert np.array_equal(step(*args).numpy(), expected)
    assert np.array_equal(step(*args).numpy(), expected)
    assert len(lowered(step).kernels) == count


def _checked(body: Callable[..., Any], *arrays: Any) -> None:
    eager = [dg.from_numpy(a.copy()) for a in arrays]
    traced = [dg.from_numpy(a.copy()) for a in arrays]
    step = dg.function(body, strict=True)
    for _ in range(2):
        for x, y in zip(body(*eager), step(*traced), strict=True):
            assert np.array_equal(x.numpy(), y.numpy())
    for x, y in zip(eager, traced, strict=True):
        assert np.array_equal(x.numpy(), y.numpy())


def test_parts_that_others_read() -> None:
    def body(x: Any, y: Any) -> Any:
        a, b = x * 2, y @ x
        whole = dg.cat([a, b], 1)
        return whole, a, b.reshape(-1) + 1, a @ b, whole.sum(0)

    _checked(body, _random(6, 6), _random(6, 6, seed=1))


def test_a_joined_tensor_that_is_changed_keeps_its_parts() -> None:
    def body(x: Any, y: Any) -> Any:
        a, b = x * 2, dg.exp(y)
        whole = dg.cat([a, b])
        whole[1:3] = 7.0
        return whole * 1, a + b, whole.sum()

    _checked(body, _random(4, 5), _random(4, 5, seed=1))


def test_a_joined_tensor_is_not_overwritten_while_a_part_is_read_elsewhere() -> None:
    """The part lies in that memory: other elements of it are needed after they would change."""

    def added(x: Any, y: Any) -> Any:
        part = dg.sin(x)
        whole = dg.cat([dg.exp(x), part])
        again = part.flip(0).reshape(1, 300).expand(2, 300).reshape(600)
        return (whole + again).reshape(20, 30) @ y

    def written(x: Any, y: Any) -> Any:
        part = dg.sin(x)
        whole = dg.cat([dg.exp(x), part])
        whole[200:500] = part.flip(0)
        return whole.reshape(20, 30) @ y

    for body in (added, written):
        _checked(lambda x, y, body=body: (body(x, y),), _random(300), _random(30, 4, seed=1))


def test_a_part_that_is_changed_leaves_the_joined_tensor() -> None:
    def body(x: Any, y: Any) -> Any:
        a = x * 2
        whole = dg.cat([a, y + 1])
        a[0] = 5.0
        return whole * 1, a * 1

    _checked(body, _random(4, 5), _random(3, 5, seed=1))


def test_written_into_an_argument() -> None:
    def body(x: Any, y: Any) -> Any:
        a = x * 2
        whole = dg.cat([a, y + 1])
        x.copy_(a)
        y.copy_(whole[:3] - 1)
        return whole, a

    _checked(body, _random(4, 5), _random(3, 5, seed=1))


def test_sorted_parts_and_joined_tensors() -> None:
    def body(x: Any, y: Any) -> Any:
        a = x * 2
        whole = dg.cat([a, y.sort(1)], 1)
        return whole.sort(1), a.sort(0)

    _checked(body, _random(4, 5), _random(4, 3, seed=1))


def test_steps_of_a_recurrence_lie_in_their_stack() -> None:
    def body(x: Any, w: Any) -> Any:
        states = [x]
        for _ in range(5):
            states.append(dg.tanh(states[-1] @ w))
        return (dg.stack(states[1:]),)

    arrays = _random(4, 6), _random(6, 6, seed=1)
    _checked(body, *arrays)
    step = dg.function(body, strict=True)
    step(*map(dg.from_numpy, arrays))
    kernels = lowered(step).kernels
    assert len(kernels) == 5
    for kernel in kernels:
        assert isinstance(kernel.body[0], Contract)
        assert "o0" in {b.name for b in buffers_of(kernel.body)}


def test_gradients_of_joined_tensors() -> None:
    def body(x: Any, y: Any) -> Any:
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        gates = [dg.tanh(x[:, :4]), x[:, 4:] * y]
        (dg.cat(gates, 1) ** 3).sum().backward()
        return x.grad, y.grad

    _checked(body, _random(6, 8), _random(6, 4, seed=1))


def test_symbolic_sizes() -> None:
    def body(x: Any, y: Any) -> Any:
        return dg.cat([x * 2, dg.stack([y, y + 1], 1)], 1)

    step = dg.function(body, strict=True)
    for n in (3, 5, 1, 8):
        x, y = dg.from_numpy(_random(n, 4)), dg.from_numpy(_random(n, seed=1))
        assert np.array_equal(step(x, y).numpy(), body(x, y).numpy())


def test_steps_of_symbolic_sizes_share_their_code() -> None:
    """Where a step's results lie depends on sizes; the code of a step does not."""

    def body(x: Any, y: Any) -> Any:
        states = [x * 2]
        for _ in range(8):
            states.append(dg.tanh(states[-1] @ y))
        return dg.stack(states)

    step = dg.function(body, strict=True)
    for n in (3, 5, 300):
        x, y = dg.from_numpy(_random(n, 7)), dg.from_numpy(_random(7, 7, seed=1))
        assert np.array_equal(step(x, y).numpy(), body(x, y).numpy())
    path = next(
        p for p in step.paths if any(not isinstance(d, int) for d in p.graph.inputs[0].shape)
    )
    program = lower(path.graph, (None,) * len(path.graph.inputs), "program", threads=2)
    texts = program.common_texts
    assert len(texts) > 2
    assert len(set(texts)) <= 3


def test_a_product_beside_what_is_made_of_it() -> None:
    """Its sums pass through the memory of that, but belong in the joined tensor too."""

    def body(x: Any, y: Any) -> Any:
        z = x @ y
        t = dg.tanh(z)
        return t, dg.cat([z, t * 1.5], 1)

    _checked(body, _random(7, 5), _random(5, 6, seed=1))
