"""Parametrizations of weights: weight norm and spectral norm.

Sources: T. Salimans, D. Kingma, "Weight normalization: a simple reparameterization to accelerate
training of deep neural networks", 2016; T. Miyato et al., "Spectral normalization for generative
adversarial networks", 2018.
"""

from __future__ import annotations

from typing import Any, TypeVar

from dualgrad.compiler.ops.distance import normalize
from dualgrad.nn.checks import check_counts
from dualgrad.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from dualgrad.nn.module import Module
from dualgrad.nn.utils.parametrize import register_parametrization
from dualgrad.nn.utils.weight_norm import norm_except, weight_of
from dualgrad.random import normal
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor

M = TypeVar("M", bound=Module)


class _WeightNorm(Module):
    """The weight g v / |v| of lengths g (original0) and directions v (original1)."""

    def __init__(self, dim: int | None = 0) -> None:
        self.dim = dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_of(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except(weight, self.dim), weight


class _Renaming:
    """A hook before loading: states of `nn.utils.weight_norm` have other names."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        keys = f"{prefix}{self.name}_g", f"{prefix}{self.name}_v"
        if all(key in state for key in keys):
            for k, key in enumerate(keys):
                state[f"{prefix}parametrizations.{self.name}.original{k}"] = state.pop(key)


class _SpectralNorm(Module):
    """The weight divided by its largest singular value, which the power method finds.

    A step of the method is made each time that the weight is read in training.
    """

    _u: Tensor
    _v: Tensor

    def __init__(
        self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        check_counts("spectral_norm", 1, n_power_iterations=n_power_iterations)
        if not -weight.ndim <= dim < weight.ndim:
            raise ArgumentError(
                "the weight has no such dimension",
                op="spectral_norm",
                expect=f"{-weight.ndim} <= dim < {weight.ndim}",
                actual=f"dim={dim}",
                hint="dim is that of the outputs",
            )
        self.dim = dim % weight.ndim
        self.eps = eps
        self.n_power_iterations = n_power_iterations
        if weight.ndim > 1:
            matrix = self._matrix(weight.detach())
            for name, n in (("_u", matrix.shape[0]), ("_v", matrix.shape[1])):
                start = normal((n,), device=weight.device).to(weight.dtype)
                self.register_buffer(name, normalize(start, dim=0, eps=eps))
            self._improve(matrix, 15)

    def _matrix(self, weight: Tensor) -> Tensor:
        """The weight as [size of dim, all others]."""
        rows = weight.shape[self.dim]
        others = (d for d in range(weight.ndim) if d != self.dim)
        moved: Tensor = weight.permute(self.dim, *others) if self.dim else weight
        return moved.reshape(rows, -1)

    def _improve(self, matrix: Tensor, steps: int) -> None:
        with no_grad():
            for _ in range(steps):
                self._u.copy_(normalize(matrix @ self._v, dim=0, eps=self.eps))
                self._v.copy_(normalize(matrix.T @ self._u, dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)  # type: ignore[no-any-return]
        matrix = self._matrix(weight)
        if self.training:
            self._improve(matrix.detach(), self.n_power_iterations)
        # later steps change u and v in place, and the gradient needs these
        u, v = self._u.clone(), self._v.clone()
        return weight / (u * (matrix @ v)).sum()

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Let a parameter be g v / |v|, with g and v learnt in its place; returns the module.

    Lengths g, `parametrizations.NAME.original0`, are those of each index of `dim`, or of the whole
    with None; v is `original1`.  States of `nn.utils.weight_norm` load as well.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    module.register_load_state_dict_pre_hook(_Renaming(name))
    return module


def spectral_norm(
    module: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> M:
    """Let a parameter be divided by its largest singular value; returns the module.

    The weight is a matrix of rows `dim` (the outputs: by default 1 for transposed convolutions,
    else 0).  The value is estimated by `n_power_iterations` steps each time that the weight is read
    in training, from singular vectors that are buffers.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ArgumentError(
            "there is no such parameter or buffer",
            op="spectral_norm",
            expect="the name of a parameter",
            actual=f"{name!r} of {type(module).__name__}",
            hint="named_parameters() lists them",
        )
    if dim is None:
        turned = isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d)
        dim = 1 if turned else 0
    made = _SpectralNorm(weight, n_power_iterations, dim, eps)
    return register_parametrization(module, name, made)
