"""Rows of a learnt table by number."""

from __future__ import annotations

from typing import Any

from dualgrad import functional as F
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import stop_gradient
from dualgrad.compiler.ops.logical import where
from dualgrad.creation import empty, ones, zeros
from dualgrad.nn.checks import check_counts, check_number
from dualgrad.nn.init import normal_
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


class Embedding(Module):
    """The rows of `weight` with the numbers of the input [...], as [..., embedding_dim].

    weight  [num_embeddings, embedding_dim], normally distributed at the start

    padding_idx         a row that gets no gradient, and starts with zeros
    max_norm            rows that are shown are first scaled, in place, to at most this norm
    norm_type           which norm, 2 by default
    scale_grad_by_freq  the gradient of a row is divided by how often the input shows it

    Gradients are dense: `sparse=True` raises ArgumentError, as do sizes that do not fit.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_counts("Embedding", 0, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = _row(padding_idx, num_embeddings)
        if max_norm is not None:
            check_number("Embedding", "max_norm", max_norm, 0)
        self.max_norm = max_norm
        self.norm_type = check_number("Embedding", "norm_type", norm_type)
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = _dense(sparse)
        shape = (num_embeddings, embedding_dim)
        if _weight is None:
            values = empty(shape, device=device, dtype=dtype)
            self.weight = Parameter(values, requires_grad=not _freeze)
            self.reset_parameters()
        else:
            _check_table(_weight, shape)
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """A layer over an existing table [num_embeddings, embedding_dim], not learnt if `freeze`.

        Raises ShapeError for another number of dimensions.
        """
        if embeddings.ndim != 2:
            raise ShapeError(
                "the table has rows and columns",
                op="from_pretrained",
                expect="embeddings [num_embeddings, embedding_dim]",
                actual=str(tuple(embeddings.shape)),
                hint="give the table first a size for numbers, then one for features",
            )
        rows, columns = embeddings.shape
        return cls(
            rows, columns, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
            _weight=embeddings, _freeze=freeze,
        )  # fmt: skip

    def reset_parameters(self) -> None:
        """Draw a new table; the row `padding_idx` is 0."""
        normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.detach()[self.padding_idx].fill_(0.0)

    def forward(self, input: Tensor) -> Tensor:
        if self.max_norm is not None:
            _shorten(self.weight, input, float(self.max_norm), float(self.norm_type))
        rows: Tensor = F.embedding(input, self.weight, self.padding_idx)
        if self.scale_grad_by_freq and rows.requires_grad:
            rows = _weighted(rows, _share(input, self.num_embeddings, rows))
        return rows

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        text += f", padding_idx={self.padding_idx}" if self.padding_idx is not None else ""
        text += f", max_norm={self.max_norm}" if self.max_norm is not None else ""
        text += f", norm_type={self.norm_type}" if self.norm_type != 2 else ""
        text += ", scale_grad_by_freq=True" if self.scale_grad_by_freq else ""
        return text


@composite
def _weighted(rows: Any, share: Any) -> Any:
    """The rows as they are; their gradients times a share."""
    weighted = rows * share
    nothing = weighted - stop_gradient(weighted)
    return stop_gradient(rows) + where(nothing.eq(0), nothing, 0.0)


def _share(input: Tensor, rows: int, like: Tensor) -> Tensor:
    """1 / how often each number is in the input, [..., 1]."""
    kind: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    flat = input.reshape(-1)
    counts = zeros(rows, **kind).index_add(0, flat, ones(flat.shape[0], **kind))
    share: Tensor = (1.0 / counts[flat]).reshape(*input.shape, 1)
    return share


def _shorten(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale rows of weight that the input shows and that are longer than max_norm, in place."""
    with no_grad():
        flat = input.reshape(-1)
        rows = weight[flat]
        norms = rows.vector_norm(norm_type, axis=1, keepdims=True)
        # the small number is PyTorch's: rows end a little below max_norm
        factor = where(norms > max_norm, max_norm / (norms + 1e-7), 1.0)
        weight.index_copy_(0, flat, rows * factor)


def _row(padding_idx: int | None, rows: int) -> int | None:
    """The row as a number >= 0."""
    if padding_idx is None:
        return None
    if not isinstance(padding_idx, int) or not -rows <= padding_idx < rows:
        raise ArgumentError(
            "padding_idx names no row",
            op="Embedding",
            expect=f"-{rows} <= padding_idx < {rows}",
            actual=repr(padding_idx),
            hint="make the table larger, or leave padding_idx out",
        )
    return padding_idx + rows if padding_idx < 0 else padding_idx


def _dense(sparse: bool) -> bool:
    if sparse:
        raise ArgumentError(
            "there are no sparse gradients",
            op="Embedding",
            expect="sparse=False",
            actual="True",
            hint="leave sparse out: the gradient is a dense table",
        )
    return False


def _check_table(weight: Tensor, shape: tuple[int, int]) -> None:
    if tuple(weight.shape) != shape:
        raise ShapeError(
            "the table has another size",
            op="Embedding",
            expect=f"_weight {shape}",
            actual=str(tuple(weight.shape)),
            hint="use Embedding.from_pretrained(table)",
        )
