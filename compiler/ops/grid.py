"""What depends on where an element stands: triangles of matrices, and grids of coordinates."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.value import dim_text, public
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import Iota
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.view import expand, reshape
from dualgrad.runtime.dtype import bool_, int64
from dualgrad.runtime.errors import ArgumentError, ShapeError


def _places(x: Any) -> tuple[Any, Any]:
    """Numbers of the rows [rows, 1] and of the columns [1, columns]."""
    rows, columns = x.shape[-2:]
    return Iota.of((rows, 1), 0).on(), Iota.of((1, columns), 1).on()


@composite
def _tril(x: Any, k: Any) -> Any:
    row, column = _places(x)
    return where(column - row <= k, x, False)


@composite
def _triu(x: Any, k: Any) -> Any:
    row, column = _places(x)
    return where(column - row >= k, x, False)


@public("tril")
def tril(x: Any, k: int = 0) -> Any:
    """Return x with zeros above diagonal k of its matrices [..., rows, columns].

    Raises ShapeError for less than two dimensions.
    """
    _check_matrix("tril", x, k)
    return _tril(x, k)


@public("triu")
def triu(x: Any, k: int = 0) -> Any:
    """Return x with zeros below diagonal k of its matrices [..., rows, columns].

    Raises ShapeError for less than two dimensions.
    """
    _check_matrix("triu", x, k)
    return _triu(x, k)


def _check_matrix(op: str, x: Any, k: int) -> None:
    check_tensors(op, x)
    if x.ndim < 2:
        raise ShapeError(
            "a triangle is part of a matrix",
            op=op,
            expect="two dimensions or more",
            actual=f"shape {dim_text(x.shape)}",
            hint="make a matrix first: dg.diag(x), or x.unsqueeze(0)",
        )
    if not isinstance(k, int):
        raise ArgumentError(
            "no number of a diagonal",
            op=op,
            expect="an int",
            actual=repr(k),
            hint="0 is the main diagonal, 1 the one above it",
        )


def meshgrid(*tensors: Any, indexing: str = "xy") -> tuple[Any, ...]:
    """Return the coordinates of a grid from those of its axes, as views of one shape.

    tensors: one dimension each (or none), also as one list.  With `indexing` "ij" tensor k runs
    along dimension k; with "xy" the first two dimensions are exchanged.
    """
    check_tensors("meshgrid", *tensors)
    if indexing not in ("xy", "ij"):
        raise ArgumentError(
            "no such order",
            op="meshgrid",
            expect="'xy' or 'ij'",
            actual=repr(indexing),
            hint="'ij' puts the first tensor along the first axis",
        )
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if any(x.ndim > 1 for x in tensors):
        raise ShapeError(
            "coordinates of an axis have one dimension",
            op="meshgrid",
            expect="tensors of at most one dimension",
            actual=" and ".join(dim_text(x.shape) for x in tensors),
            hint="flatten them with .reshape(-1)",
        )
    order = list(range(len(tensors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = 1, 0
    lengths = [x.shape[0] if x.ndim else 1 for x in tensors]
    full = tuple(lengths[k] for k in order)
    return tuple(
        expand(reshape(x, tuple(lengths[k] if j == k else 1 for j in order)), full)
        for k, x in enumerate(tensors)
    )


def _triangle_samples(function: Any, name: str) -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:
        return getattr(np, name)(x)

    def moved(k: int) -> Sample:
        return Sample(
            lambda x: function(x, k), (Arg((4, 5)),), lambda np, x: getattr(np, name)(x, k)
        )

    shapes = ((3, 3), (2, 3, 4), (0, 3), (1, 1))
    bad = Sample(function, (Arg((3,)),), error=ValueError, match="part of a matrix")
    return [
        *(Sample(function, (Arg(shape),), reference) for shape in shapes),
        *map(moved, (-2, 1, 9)),
        Sample(function, (Arg((3, 4), int64, -9, 9),), reference),
        Sample(function, (Arg((3, 4), bool_),), reference),
        Sample(function, (Arg((4, 5), layout="transposed"),), reference),
        bad,
    ]


@samples_of(tril)
def _tril_samples() -> list[Sample]:
    return _triangle_samples(tril, "tril")


@samples_of(triu)
def _triu_samples() -> list[Sample]:
    return _triangle_samples(triu, "triu")


@samples_of(meshgrid)
def _meshgrid_samples() -> list[Sample]:
    def part(number: int, indexing: str) -> Sample:
        return Sample(
            lambda *xs: meshgrid(*xs, indexing=indexing)[number],
            tuple(Arg((n,), differentiable=k == number) for k, n in enumerate((3, 4, 2))),
            lambda np, *xs: np.meshgrid(*xs, indexing=indexing)[number],
        )

    def single(x: Any) -> Any:
        return meshgrid(x)[0]

    bad = Sample(meshgrid, (Arg((3, 1)), Arg((2,))), error=ValueError, match="one dimension")
    unknown = Sample(
        lambda x: meshgrid(x, indexing="yx"), (Arg((2,)),), error=ValueError, match="no such order"
    )
    parts = [part(k, way) for k in range(3) for way in ("xy", "ij")]
    return [*parts, Sample(single, (Arg((3,)),), lambda np, x: x), bad, unknown]
