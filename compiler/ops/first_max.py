"""The first largest element: the maximum whose gradient goes to one element, and where it lies."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim, product
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import Iota, count
from dualgrad.compiler.ops.extremum import Argmax, Max, arg_run
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.reduce import spread
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime.dtype import int64


class FirstMax(Max):
    """The largest element; its first place in the run takes the whole gradient."""

    blocked = False

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        run = x.shape[self.start : self.stop]
        place = arg_run(Argmax, Max, x, self.start, self.stop)
        here = Iota.of((product(run),), 0).on()
        here = here.reshape((*(1,) * self.start, *run, *(1,) * (x.ndim - self.stop)))
        return (where(here.eq(spread(place, self, x.shape)), spread(g, self, x.shape), 0.0),)

    @staticmethod
    def samples() -> list[Sample]:
        def case(arg: Arg, axis: int, gradient: bool = True) -> Sample:
            return Sample(
                lambda x: _first_max(x, axis=axis),
                (arg,),
                lambda np, x: x.max(axis),
                gradient=gradient,
            )

        ties = Arg((5, 6), values=(1.0, 3.0, 3.0, -1.0, float("nan")))
        return [case(Arg((3, 9, 4)), 1), case(Arg((4, 70)), 1), case(ties, 0, False)]


@composite
def _first_max(x: Any, *, axis: int) -> Any:
    return FirstMax.of(axis, axis + 1).on(x)


def flat_place(columns: Any, rows: list[tuple[Dim, Any]]) -> Any:
    """Where the largest element of each window lies in its input, seen flat.

    columns [N, C, places, windows]; rows: for each axis its size and the positions [k, windows]
    along it.
    """
    rank = len(rows)
    total: Any = None
    for axis, (n, position) in enumerate(rows):
        k, windows = position.shape
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = k, windows
        position = position.reshape(tuple(shape))
        total = position if total is None else total * count(n, int64) + position
    flat = total.reshape((1, 1, *columns.shape[2:]))
    place = arg_run(Argmax, Max, columns, 2, 3).unsqueeze(2)
    here = Iota.of((columns.shape[2],), 0).on().reshape((1, 1, columns.shape[2], 1))
    return where(here.eq(place), flat, 0).sum(2)
