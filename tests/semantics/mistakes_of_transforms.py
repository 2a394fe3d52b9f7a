"""Mistakes with gradients of functions, functions over slices and gradients by hand; see
`mistakes`."""

from __future__ import annotations

from typing import Any

import dualgrad as dg
from semantics.mistakes import Case, Decorate, integers, leaf, mistake

# -- functions of functions -----------------------------------------------------------------------


@mistake
def gradient_of_a_vector(decorate: Decorate) -> Case:
    @decorate
    def slope(x: dg.Tensor) -> dg.Tensor:
        return dg.grad(lambda a: a * a)(x)  # raises

    return slope, (dg.tensor(2.0),), (dg.ones(3),)


@mistake
def gradient_of_a_function_of_integers(decorate: Decorate) -> Case:
    @decorate
    def slope(x: dg.Tensor) -> dg.Tensor:
        return dg.grad(lambda a: (a * a).sum())(x)  # raises

    return slope, (dg.ones(2),), (integers(1, 2),)


@mistake
def gradient_of_a_missing_argument(decorate: Decorate) -> Case:
    @decorate
    def slope(x: dg.Tensor) -> Any:
        return dg.grad(lambda a: (a * a).sum(), argnums=1)(x)  # raises

    return slope, None, (dg.ones(2),)


@mistake
def gradient_of_a_value(decorate: Decorate) -> Case:
    @decorate
    def slope(x: dg.Tensor) -> Any:
        return dg.grad((x * x).sum())(x)  # type: ignore[arg-type]  # raises

    return slope, None, (dg.ones(2),)


@mistake
def tangent_of_wrong_shape(decorate: Decorate) -> Case:
    @decorate
    def push(x: dg.Tensor, t: dg.Tensor) -> Any:
        return dg.jvp(lambda a: a * a, (x,), (t,))  # raises

    return push, (dg.ones(3), dg.ones(3)), (dg.ones(3), dg.ones(4))


@mistake
def primal_without_a_tuple(decorate: Decorate) -> Case:
    @decorate
    def push(x: Any, t: Any) -> Any:
        return dg.jvp(lambda a: a * a, x, t)  # raises

    return push, None, (dg.ones(3), dg.ones(3))


@mistake
def cotangent_of_wrong_shape(decorate: Decorate) -> Case:
    @decorate
    def pull(x: dg.Tensor, g: dg.Tensor) -> Any:
        _, back = dg.vjp(lambda a: a * a, x)
        return back(g)  # raises

    return pull, (dg.ones(3), dg.ones(3)), (dg.ones(3), dg.ones(4))


@mistake
def slices_of_a_number(decorate: Decorate) -> Case:
    @decorate
    def each(x: dg.Tensor) -> Any:
        return dg.vmap(lambda a: a * 2.0)(x)  # raises

    return each, (dg.ones(3),), (dg.tensor(1.0),)


@mistake
def different_numbers_of_slices(decorate: Decorate) -> Case:
    @decorate
    def each(x: dg.Tensor, y: dg.Tensor) -> Any:
        return dg.vmap(lambda a, b: a * b)(x, y)  # raises

    return each, (dg.ones(3), dg.ones(3)), (dg.ones(3), dg.ones(4))


@mistake
def slices_along_a_missing_axis(decorate: Decorate) -> Case:
    @decorate
    def each(x: dg.Tensor) -> Any:
        return dg.vmap(lambda a: a * 2.0, in_axes=2)(x)  # raises

    return each, (dg.ones(3, 2, 4),), (dg.ones(3, 2),)


@mistake
def value_of_a_slice(decorate: Decorate) -> Case:
    def positive(a: dg.Tensor) -> dg.Tensor:
        return a if a.sum() > 0.0 else -a  # raises

    @decorate
    def each(x: dg.Tensor) -> Any:
        return dg.vmap(positive)(x)

    return each, None, (dg.ones(3, 2),)


@mistake
def product_of_wrong_sizes_in_a_slice(decorate: Decorate) -> Case:
    w = dg.ones(5)

    def project(a: dg.Tensor) -> dg.Tensor:
        return a @ w  # raises

    @decorate
    def each(x: dg.Tensor) -> Any:
        return dg.vmap(project)(x)

    return each, (dg.ones(3, 5),), (dg.ones(3, 2),)


@mistake
def vmap_of_a_value(decorate: Decorate) -> Case:
    @decorate
    def each(x: dg.Tensor) -> Any:
        return dg.vmap(x * 2.0)(x)  # type: ignore[arg-type]  # raises

    return each, None, (dg.ones(3),)


@mistake
def finite_differences_of_float32(decorate: Decorate) -> Case:
    @decorate
    def check(x: dg.Tensor) -> bool:
        return dg.gradcheck(lambda a: a * a, (x,))  # raises

    return check, None, (leaf(3),)


@mistake
def checkpoint_of_a_value(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor) -> Any:
        return dg.checkpoint(x * 2.0, x)  # type: ignore[arg-type]  # raises

    return forward, None, (dg.ones(3),)


# -- gradients by hand ----------------------------------------------------------------------------


class Twice(dg.autograd.Function):
    """2 x, with a backward that returns what it was told to."""

    @staticmethod
    def forward(ctx: Any, x: dg.Tensor, how: str) -> dg.Tensor:
        ctx.how = how
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, g: dg.Tensor) -> Any:
        given: dict[str, Any] = {
            "good": (g * 2.0, None),
            "three": (g, g, g),
            "a number": (2.0, None),
            "an element": (g[0], None),
            "one of a word": (g, g),
        }
        return given[ctx.how]


@mistake
def backward_returns_too_many_gradients(decorate: Decorate) -> Case:
    w = leaf(2)

    @decorate
    def train(how: str) -> None:
        Twice.apply(w, how).sum().backward()  # raises

    return train, ("good",), ("three",)


@mistake
def backward_returns_a_number(decorate: Decorate) -> Case:
    w = leaf(2)

    @decorate
    def train(how: str) -> None:
        Twice.apply(w, how).sum().backward()  # raises

    return train, ("good",), ("a number",)


@mistake
def backward_returns_a_wrong_shape(decorate: Decorate) -> Case:
    w = leaf(2)

    @decorate
    def train(how: str) -> None:
        Twice.apply(w, how).sum().backward()  # raises

    return train, ("good",), ("an element",)


@mistake
def backward_returns_a_gradient_of_a_word(decorate: Decorate) -> Case:
    w = leaf(2)

    @decorate
    def train(how: str) -> None:
        Twice.apply(w, how).sum().backward()  # raises

    return train, ("good",), ("one of a word",)


@mistake
def gradient_by_a_tensor_that_wants_none(decorate: Decorate) -> Case:
    w = leaf(2)

    @decorate
    def slope(x: dg.Tensor) -> Any:
        return dg.autograd.grad((w * x).sum(), x)  # raises

    return slope, (leaf(2),), (dg.ones(2),)


@mistake
def first_nan_forward(decorate: Decorate) -> Case:
    @decorate
    def entropy(p: dg.Tensor) -> dg.Tensor:
        with dg.detect_nan():
            return (p * p.log()).sum()  # raises

    return entropy, (dg.ones(2),), (-dg.ones(2),)


@mistake
def hook_on_a_tensor_without_gradient(decorate: Decorate) -> Case:
    @decorate
    def watch(x: dg.Tensor) -> None:
        (x * 2.0).register_hook(lambda g: g * 2.0)  # raises

    return watch, (leaf(2),), (dg.ones(2),)


@mistake
def one_of_several_views_changed(decorate: Decorate) -> Case:
    w = leaf(4)

    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        a, b = (w * x).split(2)
        a += b  # raises
        return a

    return forward, None, (dg.ones(4),)


@mistake
def memory_of_a_list(decorate: Decorate) -> Case:
    @decorate
    def build(values: Any) -> dg.Tensor:
        return dg.from_dlpack(values)  # raises

    return build, None, ([1.0, 2.0],)
