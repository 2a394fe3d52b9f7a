"""What layers share that normalise channels and may keep running statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dualgrad.creation import ones, zeros
from dualgrad.nn.affine import Affine
from dualgrad.nn.checks import check_counts
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ShapeError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


class RunningNorm(Affine):
    """Base of the batch and instance normalisations of `num_features` channels.

    weight, bias         [num_features], 1 and 0 at the start; None with `affine=False`
    running_mean, running_var
                         buffers [num_features], 0 and 1 at the start, and
    num_batches_tracked  buffer (), int64: how many batches they have seen; all three are None
                         with `track_running_stats=False`
    """

    dims: tuple[int, ...]  # how many dimensions an input may have
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        check_counts(type(self).__name__, 0, num_features=num_features)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        kind = {"device": device, "dtype": dtype}
        self._register_affine((num_features,), affine, affine and bias, device, dtype)
        kept = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **kind) if kept else None)
        self.register_buffer("running_var", ones(num_features, **kind) if kept else None)
        count = zeros((), dtype=int64, device=device) if kept else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the batches seen so far."""
        with no_grad():
            for buffer, start in (
                (self.running_mean, 0),
                (self.running_var, 1),
                (self.num_batches_tracked, 0),
            ):
                if buffer is not None:
                    buffer.fill_(start)

    def reset_parameters(self) -> None:
        """Let weight, bias and running statistics be as at the start."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.dims:
            raise ShapeError(
                "the input has another number of dimensions",
                op=type(self).__name__,
                expect=f"{' or '.join(map(str, self.dims))} dimensions",
                actual=f"shape {tuple(input.shape)}",
                hint="use the layer whose name ends with the number of spatial dimensions",
            )

    def _upgrade_state(
        self, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]
    ) -> None:
        """States of PyTorch before 0.4.1 have no counter: its value stays."""
        if self.num_batches_tracked is not None and (metadata.get("version") or 0) < 2:
            state.setdefault(prefix + "num_batches_tracked", self.num_batches_tracked)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )
