"""Functions of tensors for neural networks, under PyTorch's names."""

from dualgrad.compiler.ops.neural import (
    cross_entropy,
    linear,
    log_softmax,
    mse_loss,
    relu,
    softmax,
)

__all__ = ["cross_entropy", "linear", "log_softmax", "mse_loss", "relu", "softmax"]
