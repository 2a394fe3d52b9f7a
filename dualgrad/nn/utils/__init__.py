"""Functions of parameters and of their gradients."""

from dualgrad.nn.utils import parametrizations, parametrize
from dualgrad.nn.utils.clipping import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from dualgrad.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from dualgrad.nn.utils.vectors import parameters_to_vector, vector_to_parameters
from dualgrad.nn.utils.weight_norm import remove_weight_norm, weight_norm

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "fuse_conv_bn_eval",
    "fuse_linear_bn_eval",
    "get_total_norm",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "remove_weight_norm",
    "vector_to_parameters",
    "weight_norm",
]
