"""Index ops: each element of the result is computed from its own index.

A class states `value(b, loads, at)`: the scalar at index `at`, where `loads(k, index)` reads
input k and `loads.check(position, bound)` stops the program with an IndexError unless
0 <= position < bound.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.kernel.scalar import Scalar, cast, index
from dualgrad.compiler.ops.base import Op
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime.dtype import bool_, int64
from dualgrad.runtime.errors import ArgumentError, DTypeError


class Loads(Protocol):
    """What an index op may do with its inputs."""

    def __call__(self, k: int, at: tuple[Dim, ...]) -> Scalar: ...

    def check(self, position: Scalar, bound: Dim, what: str) -> None: ...


@dataclass(frozen=True, eq=False)
class Index(Op, abstract=True):
    """out[at] = value(at)."""

    required = (*Op.required, "value")
    checked: ClassVar[bool] = False  # whether `value` may call `loads.check`

    @abstractmethod
    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        """The element of the result at this index."""


@dataclass(frozen=True, eq=False)
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
    if not x.dtype.is_int:
        raise DTypeError(
            "classes are integers", op="one_hot", expect="an integer dtype", actual=x.dtype.name
        )
    if isinstance(classes, int) and classes < 1:
        raise ArgumentError(
            "there must be a class", op="one_hot", expect="classes >= 1", actual=str(classes)
        )
    return apply(OneHot.of(classes), x)[0]
