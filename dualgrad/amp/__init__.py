"""Automatic mixed precision: `autocast` and what goes with it, under PyTorch's names."""

from dualgrad.amp.autocast_mode import autocast, get_autocast_dtype, is_autocast_enabled
from dualgrad.amp.custom import custom_bwd, custom_fwd
from dualgrad.amp.grad_scaler import GradScaler

__all__ = [
    "GradScaler",
    "autocast",
    "custom_bwd",
    "custom_fwd",
    "get_autocast_dtype",
    "is_autocast_enabled",
]
