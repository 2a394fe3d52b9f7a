"""`vmap`: a function of one sample as a function of many, without a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from dualgrad.compiler.ops.arguments import check_choice
from dualgrad.compiler.ops.axes import movedim
from dualgrad.creation import full
from dualgrad.jit.function import Function
from dualgrad.runtime.errors import ArgumentError, OperandError, ShapeError
from dualgrad.tensor import Tensor
from dualgrad.transforms import trees
from dualgrad.transforms.levels import Level

Fun = Callable[..., Any]


def vmap(fun: Fun, in_axes: Any = 0, out_axes: Any = 0, *, randomness: str = "error") -> Fun:
    """The function that applies `fun` to all slices of its arguments at once.

    `in_axes` says along which axis each positional argument has its slices: an int, None for an
    argument that is the same for all slices, or a tuple of these, one for each argument; for an
    argument that is a container it may be a container of the same structure.  Keyword arguments
    are mapped along axis 0.  What is no tensor is passed on as it is.  `out_axes` says in the
    same way where the slices of the results go.  All that is mapped must have equally many
    slices.

        per_sample = dg.vmap(dg.grad(loss), in_axes=(None, 0, 0))
        per_sample(weights, inputs, targets)   # one gradient for each sample

    `fun` runs once, on tensors that show the shape of one slice; results have the bits of a loop
    over the slices.  It may use gradients, other transforms, compiled functions and `vmap` again,
    and change what it is mapped over or what it makes itself in place.  It cannot ask for the
    values of a slice (`if x > 0`, `.item()`), nor change tensors that all slices share.  Random
    numbers are refused with randomness="error", differ between slices with "different" (a
    function that draws once gets what a loop would get) and are equal with "same".

    Raises ShapeError for sizes that differ or axes that are not there.
    """
    if not callable(fun):
        raise ArgumentError(
            "maps a function",
            op="vmap",
            expect="a callable",
            actual=type(fun).__name__,
            hint="pass the function itself: vmap(f)(x), not vmap(f(x))",
        )
    check_choice("vmap", "randomness", randomness, ("error", "different", "same"))
    if isinstance(fun, Function):
        return fun.like(vmap(fun.eager, in_axes, out_axes, randomness=randomness))

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        return _run(fun, args, kwargs, in_axes, out_axes, randomness)

    return mapped


def _run(
    fun: Fun,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    in_axes: Any,
    out_axes: Any,
    randomness: str,
) -> Any:
    if isinstance(in_axes, list | tuple) and len(in_axes) != len(args):
        raise ArgumentError(
            "not as many axes as arguments",
            op="vmap",
            expect=f"in_axes of {len(args)} elements",
            actual=f"{in_axes!r}",
            hint="give one axis for each positional argument, None for those that are not mapped",
        )
    axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    given = _Tree("argument", "in_axes", axes, args)
    named = _Tree("argument", "in_axes", 0, kwargs)
    level = Level(_size([*given.sizes(), *named.sizes()]), randomness)
    inputs, more = given.taken_apart(level), named.taken_apart(level)
    with level.active():
        found = fun(*inputs, **more)
        return _Tree("result", "out_axes", out_axes, found).put_together(level)


def _size(found: list[tuple[str, int, Any]]) -> Any:
    """How many slices there are."""
    if not found:
        raise ArgumentError(
            "nothing is mapped",
            op="vmap",
            expect="a tensor among the arguments whose axis in in_axes is not None",
            actual="none",
            hint="in_axes=0 maps all arguments along their first axis",
        )
    size = found[0][2]
    if any(n != size for _, _, n in found):
        raise ShapeError(
            "arguments have different numbers of slices",
            op="vmap",
            expect="equal sizes along the axes that are mapped",
            actual=", ".join(f"{name}: {n} along axis {axis}" for name, axis, n in found),
            hint="in_axes=None for an argument that is the same for all slices",
        )
    return size


class _Tree:
    """A container of values, and an axis for each: `axes` may stop where all below have one."""

    def __init__(self, what: str, name: str, axes: Any, values: Any) -> None:
        self.what, self.name = what, name
        self.values = values
        self.axes = list(self._spread(axes, values, ""))

    def _spread(self, axes: Any, values: Any, path: str) -> Iterator[int | None]:
        if axes is None or (isinstance(axes, int) and not isinstance(axes, bool)):
            for _ in trees.leaves(values):
                yield axes
            return
        fits = trees.is_container(axes) and trees.is_container(values)
        mine, theirs = (trees.children(axes), trees.children(values)) if fits else ([], [])
        if not fits or [c.key for c in mine] != [c.key for c in theirs]:
            raise ArgumentError(
                f"{self.name} does not fit",
                op="vmap",
                expect="ints, None, or containers like the values",
                actual=f"{axes!r} for {self.what}{path}, a {type(values).__name__}",
                hint=f"write {self.name}=0, or one axis for each {self.what}",
            )
        for a, v in zip(mine, theirs, strict=True):
            yield from self._spread(a.value, v.value, path + v.step)

    def sizes(self) -> list[tuple[str, int, Any]]:
        """(name, axis, number of slices) of each tensor that is mapped."""
        found = []
        for (path, x), axis in zip(trees.leaves(self.values), self.axes, strict=True):
            if axis is not None and isinstance(x, Tensor):
                place = self._place(axis, x.ndim, path, x)
                found.append((f"{self.what}{path}", axis, x.shape[place]))
        return found

    def _place(self, axis: int, ndim: int, path: str, x: Tensor) -> int:
        if not -ndim <= axis < ndim:
            raise ShapeError(
                f"{self.what}{path} has no axis {axis}",
                op="vmap",
                expect=f"-{ndim} <= axis < {ndim}" if ndim else "a tensor with dimensions",
                actual=f"{self.name} says {axis}, for {x.type!r}",
                hint="None says that it is the same for all slices"
                if self.name == "in_axes"
                else "count from 0, or from the end with -1",
            )
        return axis % ndim

    def taken_apart(self, level: Level) -> Any:
        """The values with one slice in place of each tensor that is mapped."""
        axes = iter(self.axes)

        def one(_: str, x: Any) -> Any:
            axis = next(axes)
            if axis is None or not isinstance(x, Tensor):
                return x
            return level.slices(movedim(x, axis, 0))

        return trees.mapped(one, self.values)

    def put_together(self, level: Level) -> Any:
        """The values with the slices of each tensor along its axis."""
        axes = iter(self.axes)
        return trees.mapped(lambda path, x: self._together(level, path, x, next(axes)), self.values)

    def _together(self, level: Level, path: str, x: Any, axis: int | None) -> Any:
        if isinstance(x, bool | int | float):
            with level.beneath():
                return x if axis is None else full((level.size,), x)
        if not isinstance(x, Tensor):
            raise OperandError(
                "a result is no tensor",
                op="vmap",
                expect="tensors and numbers, in containers",
                actual=f"a {type(x).__name__}",
                hint="return tensors only",
            )
        whole = level.whole(x)
        if axis is None:
            if whole.mapped:
                raise ArgumentError(
                    f"{self.what}{path} differs between slices",
                    op="vmap",
                    expect="an axis for the slices",
                    actual="None in out_axes",
                    hint="out_axes=0",
                )
            return whole.tensor
        place = self._place(axis, x.ndim + 1, path, x)
        together = level.put_together(x)
        with level.beneath():
            return movedim(together, 0, place)
