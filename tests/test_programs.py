"""Random programs over the whole library: compiled they do what they do undecorated, bit for bit.

    pytest -m slow tests/test_programs.py              many programs
    PROGRAMS=5000:6000 pytest -m slow tests/test_programs.py

A failing program is made small and printed as a script.  What was found stands at the end, by
name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs.drawing import draw
from programs.running import difference, kind_of_difference
from programs.shrinking import shrink
from programs.text import Program
from semantics.support import compare

import dualgrad as dg

FEW = 24
FIRST, LAST = map(int, os.environ.get("PROGRAMS", "1000:1400").split(":"))
STEP = 20


def check(program: Program) -> None:
    found = difference(program)
    if found is None:
        return
    kind = kind_of_difference(found)

    def fails(other: Program) -> bool:
        new = difference(other)
        return new is not None and kind_of_difference(new) == kind

    small = shrink(program, fails)
    pytest.fail(f"{difference(small)}\n\n{small.script}", pytrace=False)


@pytest.mark.parametrize("seed", range(FEW))
def test_program(seed: int) -> None:
    check(draw(seed))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FIRST, LAST, STEP))
def test_many_programs(first: int) -> None:
    for seed in range(first, first + STEP):
        check(draw(seed))


# -- what was found -------------------------------------------------------------------------------


def agree(f: Callable[..., Any], make: Callable[[], tuple[dg.Tensor, ...]], **how: Any) -> None:
    """The same from both modes on fresh arguments, at the first call and at later ones."""
    compare(lambda: f, [lambda f: f(*make())] * 3, **how)


def leaf(*shape: int) -> dg.Tensor:
    values = np.random.default_rng(1).uniform(-2, 2, shape).round(2)
    return dg.tensor(values, dtype=dg.float32, requires_grad=True)


def test_an_index_out_of_range_is_an_error_though_nobody_reads_the_result() -> None:
    def f(x: dg.Tensor, i: dg.Tensor) -> dg.Tensor:
        x[i]
        return x * 2

    compare(lambda: f, [(dg.ones(3), dg.tensor([1])), (dg.ones(3), dg.tensor([3]))])


def test_a_singular_matrix_is_an_error_though_nobody_reads_the_result() -> None:
    def f(x: dg.Tensor) -> dg.Tensor:
        dg.linalg.cholesky(x)
        return x * 2

    compare(lambda: f, [(dg.eye(2),), (dg.zeros((2, 2)),)])


def test_a_view_whose_graph_backward_has_freed() -> None:
    def f(x: dg.Tensor) -> dg.Tensor:
        v = x.squeeze()
        (v * v).sum().backward()
        return v

    agree(f, lambda: (leaf(1),))


def test_a_detached_view_of_a_leaf_leaves_the_leaf_alone() -> None:
    def make() -> Any:
        x = leaf(2)
        return (lambda: x[1].detach()), x

    compare(make, [lambda f, x: f()] * 2)


def test_the_gradient_of_a_leaf_that_nobody_sees_with_a_graph() -> None:
    def run(f: Callable[..., dg.Tensor]) -> None:
        y = f(dg.ones(2))
        (y * y).sum().backward(create_graph=True)

    def f(x: dg.Tensor) -> dg.Tensor:
        own = (x * 0.5).detach().requires_grad_()
        return dg.tanh(own * own)

    compare(lambda: f, [run, run])


def test_a_view_op_with_nothing_to_do_gives_a_view() -> None:
    """Not the tensor itself: its history, its flags and its hooks would be shared."""

    def f(x: dg.Tensor) -> list[dg.Tensor]:
        with dg.no_grad():
            return [
                x.reshape(2, 3),
                x.permute(0, 1),
                x.expand(2, 3),
                x.squeeze(),
                x.transpose(0, 0),
                x.narrow(0, 0, 2),
            ]

    x = leaf(2, 3)
    for y in (*f(x), *dg.function(f)(x)):
        assert y is not x
        assert not y.requires_grad
        assert np.shares_memory(y.numpy(), x.detach().numpy())
    agree(lambda x: x.reshape(2, 3), lambda: (leaf(2, 3),))


@pytest.mark.parametrize(
    "part",
    [
        lambda y: y[:2],
        lambda y: y[0],
        lambda y: y[:0],
        lambda y: (y * 2)[0].sum(),
        lambda y: dg.cat([y[:1], y[:1]]),
        lambda y: y[dg.tensor([0])],
        lambda y: y[None].expand(0, *y.shape),
        lambda y: dg.zeros(y.shape[0]),
    ],
    ids=["slice", "row", "nothing", "later", "joined", "looked up", "no copies", "shape"],
)
def test_what_is_read_in_part_is_checked_in_whole(part: Callable[[Any], Any]) -> None:
    def looked_up(x: dg.Tensor, i: dg.Tensor) -> dg.Tensor:
        return part(x[i])  # type: ignore[no-any-return]

    def inverted(x: dg.Tensor, i: dg.Tensor) -> dg.Tensor:
        return part(dg.linalg.inv(x * i.float().reshape(-1, 1, 1)))  # type: ignore[no-any-return]

    def agrees(f: Callable[..., dg.Tensor], *index: int) -> None:
        x, ok = dg.eye(3).expand(3, 3, 3).contiguous(), dg.tensor([1, 2, 1])
        compare(lambda: f, [(x, ok), (x, dg.tensor(index)), (x, ok)])
        with pytest.raises((IndexError, np.linalg.LinAlgError)):
            f(x, dg.tensor(index))

    agrees(looked_up, 0, 1, 3)
    agrees(inverted, 1, 2, 0)
