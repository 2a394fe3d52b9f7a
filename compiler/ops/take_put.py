"""Elements at computed positions: the two ops that all indexing by tensors is made of.

Both work along the middle axis of a tensor [outer, n, inner]; the functions of `gather`,
`scatter` and `dualgrad.indexing` bring their arguments into this form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.node import Node, as_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.kernel.scalar import Scalar, index
from dualgrad.compiler.ops.create import Iota
from dualgrad.compiler.ops.elementwise import cast_node, to
from dualgrad.compiler.ops.index import Index, Loads, Update, within
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import DType, int8, int32, int64, uint8, uint64

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

LARGEST = (1 << 46) - 1  # of a position that an error can name
HOW = ("set", "add", "mul", "max", "min")


def position_of(
    b: Builder, loads: Loads, at: tuple[Dim, ...], axis: int, size: Dim, operand: int = 1
) -> Scalar:
    """The checked position that an operand holds at `at`; negative ones count from the end."""
    raw = loads(operand, at)
    if raw.dtype is uint64:  # what int64 cannot hold is out of bounds, and must not wrap
        raw = b.select(raw > LARGEST, LARGEST, raw)
    position = b.cast(raw, int64)
    loads.check(position, size, f"index along axis {axis}", -1 * size)
    if not raw.dtype.is_signed:
        return position
    return b.select(position < 0, position + index(size), position)


class Take(Index):
    """out[o, k, i] = x[o, idx[o, k, i], i] for x [o, n, i] and integers idx, of which outer and
    inner size may be 1 for all of x's.  Negative positions count from the end; others outside of
    [-n, n) stop with IndexOutOfBounds.  `axis` is the user's number of the axis."""

    axis: int
    checked = True
    gathers: ClassVar[dict[int, tuple[int, ...]]] = {0: (1,)}

    def infer(self, *types: TensorType) -> TensorType:
        x, idx = types
        return TensorType((x.shape[0], idx.shape[1], x.shape[2]), x.dtype, False, x.device)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        n = loads.shape(0)[1]
        position = position_of(b, loads, within(at, loads.shape(1)), self.axis, n)
        return loads.gather(0, (at[0], position, at[2]))

    def vjp(self, g: Any, out: Any, x: Any, idx: Any) -> tuple[Any, ...]:
        return (Put.of(self.axis, "add").on(constant_like(x, 0), idx, g), None)

    @staticmethod
    def samples() -> list[Sample]:
        x = Arg((2, 5, 3))
        good = [
            (x, _positions((1, 4, 1), (0, -1, 3, 3))),
            (x, _positions((2, 4, 3), (0, -5, 4, 1, 2))),
            (Arg((1, 70, 1)), _positions((1, 131, 1), range(-70, 70), int32)),
            (Arg((1, 7, 67), layout="transposed"), _positions((1, 9, 1), range(7), uint8)),
            (Arg((3, 4, 5), layout="strided"), _positions((3, 2, 1), (1, -1, 0), int8)),
            (Arg((4, 5, 6), layout="broadcast"), _positions((1, 2, 6), (3, 4))),
            (Arg((2, 3, 0)), _positions((1, 2, 1), (1,))),
            (Arg((2, 3, 4)), _positions((1, 0, 1), (1,))),
            (Arg((3, 1, 4)), _positions((3, 5, 4), (0, -1))),
        ]
        bad = [((1, 2, 1), (0, 5), int64, 5), ((2, 2, 3), (0, -6), int32, -6)]
        huge = [((1, 1, 1), (2.0**64 - 2048,), uint64, 2**46 - 1)]
        return [
            *(Sample(_take, args, _take_reference) for args in good),
            *(
                Sample(
                    _take,
                    (x, _positions(shape, values, dtype)),
                    error=IndexError,
                    match=rf"\[take\] index along axis 1 out of range\n"
                    rf"  expect: -5 <= index along axis 1 < 5\n  actual: {found}\n",
                )
                for shape, values, dtype, found in (*bad, *huge)
            ),
            Sample(
                _take,
                (Arg((2, 0, 3)), _positions((1, 1, 1), (0,))),
                error=IndexError,
                match="actual: 0",
            ),
        ]


def _positions(shape: tuple[int, ...], values: Any, dtype: DType = int64) -> Arg:
    return Arg(shape, dtype, values=tuple(values))


def _take(x: Any, idx: Any) -> Any:
    return apply(Take.of(1), x, idx)[0]


def _take_reference(np: Any, x: Any, idx: Any) -> Any:
    idx = np.broadcast_to(idx.astype(np.int64), (x.shape[0], idx.shape[1], x.shape[2]))
    return np.take_along_axis(x, idx, 1)


class Put(Update):
    """base [o, n, i] in which out[o, p, i] = how(out[o, p, i], updates[o, k, i]) with
    p = idx[o, k, i], for k in ascending order; idx as in `Take`.  `how` is one of HOW.

    Gradient: "set" gives base none where something was written, and of several updates of one
    element the last gets all; "max" and "min" share it evenly among equals; "mul" gives each
    the product of all others, also where there are zeros.
    """

    axis: int
    how: str

    def position(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return position_of(b, loads, at, self.axis, loads.shape(0)[1])

    def combine(self, b: Builder, old: Scalar, new: Scalar) -> Scalar:
        if self.how == "set":
            return new
        if self.how == "add":
            return old + new
        if self.how == "mul":
            return old * new
        return b.maximum(old, new) if self.how == "max" else b.minimum(old, new)

    def vjp(self, g: Any, out: Any, base: Any, idx: Any, updates: Any) -> tuple[Any, ...]:
        rules = {"set": self._vjp_set, "add": self._vjp_add, "mul": self._vjp_mul}
        to_base, to_updates = rules.get(self.how, self._vjp_extremum)(g, out, base, idx, updates)
        return (to_base, None, to_updates)

    def _take(self, x: Any, idx: Any) -> Any:
        return Take.of(self.axis).on(x, idx)

    def _put(self, how: str, base: Any, idx: Any, updates: Any) -> Any:
        return Put.of(self.axis, how).on(base, idx, updates)

    def _vjp_add(self, g: Any, out: Any, base: Any, idx: Any, updates: Any) -> tuple[Any, Any]:
        return g, self._take(g, idx)

    def _vjp_set(self, g: Any, out: Any, base: Any, idx: Any, updates: Any) -> tuple[Any, Any]:
        to_base = self._put("set", g, idx, constant_like(updates, 0))
        count = updates.shape[1]
        number = expand_to(Iota.of((count,), 0).on().reshape((1, count, 1)), updates.shape)
        last = self._put("set", constant_like(base, 0, int64), idx, number)
        return to_base, where(self._take(last, idx).eq(number), self._take(g, idx), 0.0)

    def _vjp_mul(self, g: Any, out: Any, base: Any, idx: Any, updates: Any) -> tuple[Any, Any]:
        none, zero = base.eq(0), updates.eq(0)
        zeros = self._put("add", to(none, base.dtype), idx, to(zero, base.dtype))
        rest = self._put("mul", where(none, 1.0, base), idx, where(zero, 1.0, updates))

        def share(x: Any, is_zero: Any, zeros: Any, rest: Any, g: Any) -> Any:
            others = where(
                is_zero, where(zeros.eq(1), rest, 0.0), where(zeros.eq(0), rest / x, 0.0)
            )
            return g * others

        to_base = share(where(none, 1.0, base), none, zeros, rest, g)
        each = (self._take(x, idx) for x in (zeros, rest, g))
        return to_base, share(where(zero, 1.0, updates), zero, *each)

    def _vjp_extremum(self, g: Any, out: Any, base: Any, idx: Any, updates: Any) -> tuple[Any, Any]:
        hit, hits = base.eq(out), updates.eq(self._take(out, idx))
        count = self._put("add", to(hit, base.dtype), idx, to(hits, base.dtype))
        shared = g / count
        return where(hit, shared, 0.0), where(hits, self._take(shared, idx), 0.0)

    @staticmethod
    def samples() -> list[Sample]:
        base = Arg((2, 5, 3))
        cases = [
            (base, _positions((1, 4, 1), (0, -1, 3, 3)), Arg((2, 4, 3))),
            (base, _positions((2, 6, 3), (0, -5, 4, 1, 2, 2, 4)), Arg((2, 6, 3))),
            (Arg((1, 30, 1)), _positions((1, 97, 1), range(-30, 30), int32), Arg((1, 97, 1))),
            (
                Arg((1, 4, 300), layout="transposed"),
                _positions((1, 3, 1), (1, 2, 1), uint8),
                Arg((1, 3, 300), layout="strided"),
            ),
            (Arg((3, 2, 1)), _positions((1, 0, 1), (1,)), Arg((3, 0, 1))),
        ]
        numbers = [Arg((1, n, 3), int64, -9, 9) for n in (4, 6)]
        whole = (numbers[0], _positions((1, 6, 1), (0, 3)), numbers[1])
        with_zeros = (
            Arg((1, 4, 1), values=(1.0, 0.0, 3.0, 0.0)),
            _positions((1, 6, 1), (0, 1, 2)),
            Arg((1, 6, 1), values=(2.0, 3.0, 0.0, 0.5, 1.5, 2.5)),
        )
        out = []
        for how in HOW:
            out += [_put_sample(how, args) for args in cases]
            out += [_put_sample(how, args, False) for args in (whole, with_zeros)]
        bad = Sample(
            _put_function("add"),
            (base, _positions((1, 2, 1), (0, 7)), Arg((2, 2, 3))),
            error=IndexError,
            match=r"\[put\] index along axis 1 out of range\n"
            r"  expect: -5 <= index along axis 1 < 5\n  actual: 7\n",
        )
        return [*out, bad]


def _put_function(how: str) -> Any:
    return lambda base, idx, updates: apply(Put.of(1, how), base, idx, updates)[0]


def _put_sample(how: str, args: Any, gradient: bool = True) -> Sample:
    def reference(np: Any, base: Any, idx: Any, updates: Any) -> Any:
        out = base.copy()
        idx = np.broadcast_to(idx.astype(np.int64) % base.shape[1], updates.shape)
        steps = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
        for o, k, i in np.ndindex(*updates.shape):
            place, new = (o, idx[o, k, i], i), updates[o, k, i]
            out[place] = steps[how](out[place], new) if how != "set" else new
        return out

    rounds = how in ("add", "mul")
    return Sample(_put_function(how), args, reference, relative=1e-6 * rounds, gradient=gradient)


def constant_like(x: Any, value: float, dtype: DType | None = None) -> Node:
    """One number in the shape of x."""
    return filled(value, dtype or x.dtype, x.shape)


def filled(value: float, dtype: DType, shape: tuple[Dim, ...]) -> Node:
    """One number in every element."""
    return expand_to(cast_node(as_node(value), dtype), shape)
