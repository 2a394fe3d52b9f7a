"""Index ops: each element of the result is computed from its own index.

A class states `value(b, loads, at)`: the scalar at index `at`, where `loads(k, index)` reads
input k, `loads.gather(k, index)` reads it at a place of which some parts are scalars, and
`loads.check(position, bound)` stops the program with an IndexError unless
0 <= position < bound.  What is gathered must have been checked.

Updates change elements of a tensor one after another: a class states `position(b, loads, at)`,
where along the middle axis update `at` goes, and `combine(b, old, new)`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.kernel.scalar import Scalar, cast, index
from dualgrad.compiler.ops.base import Op
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime.dtype import bool_, int64
from dualgrad.runtime.errors import ArgumentError, DTypeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder


class Loads(Protocol):
    """What an index op may do with its inputs."""

    def __call__(self, k: int, at: tuple[Dim, ...]) -> Scalar: ...

    def shape(self, k: int) -> tuple[Dim, ...]: ...

    def gather(self, k: int, at: tuple[Dim | Scalar, ...]) -> Scalar: ...

    def check(self, position: Scalar, bound: Dim, what: str, low: Dim = 0) -> None: ...


class Index(Op, abstract=True):
    """out[at] = value(at)."""

    required = (*Op.required, "value")
    gathers: ClassVar[dict[int, tuple[int, ...]]] = {}  # axes of operands with computed places

    @abstractmethod
    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        """The element of the result at this index."""


class Update(Op, abstract=True):
    """out = base [o, n, i]; then, for k in ascending order and all o and i at once, out[o, p, i]
    becomes combine(out[o, p, i], updates[o, k, i]) with p = position(o, k, i).

    Operands: base, what `position` reads, updates.  Update k of an element comes after update
    k - 1, whatever the number of threads.
    """

    required = (*Op.required, "position", "combine")
    checked = True

    @abstractmethod
    def position(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        """Where update (o, k, i) goes, an int64; `at` is an index into operand 1."""

    @abstractmethod
    def combine(self, b: Builder, old: Scalar, new: Scalar) -> Scalar:
        """What stands there afterwards."""

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(types[0].shape, types[0].dtype, False, types[0].device)


def within(at: tuple[Dim, ...], shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """An index into a tensor of `shape` that is broadcast."""
    return tuple(0 if n == 1 else i for i, n in zip(at, shape, strict=True))


class OneHot(Index):
    """out[..., c] = (x[...] == c) for c < classes; every x must lie in [0, classes)."""

    classes: Dim
    vjp = None
    checked = True

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType((*types[0].shape, self.classes), bool_, False, types[0].device)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        label = cast(loads(0, at[:-1]), int64)
        loads.check(label, self.classes, "class")
        return b.eq(label, index(at[-1]))

    @staticmethod
    def samples() -> list[Sample]:
        labels = Arg((2, 3), int64, values=(0, 4, 2, 1))
        bad = Arg((3,), int64, values=(0, 5, 1))
        return [
            Sample(
                lambda x: one_hot(x, 5),
                (labels,),
                lambda np, x: np.arange(5) == np.asarray(x)[..., None],
                gradient=False,
            ),
            Sample(
                lambda x: one_hot(x, 5),
                (bad,),
                error=IndexError,
                match=r"\[one_hot\] class out of range\n  expect: 0 <= class < 5\n  actual: 5",
            ),
            Sample(lambda x: one_hot(x, 5), (Arg((3,)),), error=TypeError, match="float32"),
        ]


def one_hot(x: Any, classes: int) -> Any:
    """Return bools [..., classes] that are true where the class equals x (integers [...]).

    Raises DTypeError unless x holds integers, IndexOutOfBounds if one lies outside of
    [0, classes).
    """
    check_tensors("one_hot", x)
    if not x.dtype.is_int:
        raise DTypeError(
            "classes are integers",
            op="one_hot",
            expect="an integer dtype",
            actual=x.dtype.name,
            hint="convert them with .astype(dg.int64)",
        )
    if isinstance(classes, int) and classes < 1:
        raise ArgumentError(
            "there must be a class",
            op="one_hot",
            expect="classes >= 1",
            actual=str(classes),
            hint="give the number of classes, or leave it out",
        )
    return apply(OneHot.of(classes), x)[0]
