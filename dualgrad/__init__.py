"""dualgrad: tensors and deep learning, eager and compiled, with the same bits.

    import dualgrad as dg

    x = dg.randn(4, 3)
    w = dg.randn(3, 2, requires_grad=True)
    (x @ w).sum().backward()

Code runs eagerly by default.  `@dg.function` compiles the same Python by tracing it.
"""

from pathlib import Path as _Path

# In a clone, compiler/ and runtime/ stand beside this folder; an installed copy has them inside.
if not (_Path(__file__).parent / "compiler").is_dir():
    __path__.append(str(_Path(__file__).parent.parent))

from dualgrad import data, functional, nn, optim, random
from dualgrad.compiler.ops.arithmetic import absolute as abs
from dualgrad.compiler.ops.arithmetic import (
    add,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    sigmoid,
    sqrt,
    square,
    sub,
    tanh,
)
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.convert import astype
from dualgrad.compiler.ops.index import one_hot
from dualgrad.compiler.ops.logical import eq, ge, gt, le, lt, ne, where
from dualgrad.compiler.ops.neural import log_softmax, relu, softmax
from dualgrad.compiler.ops.reduce import argmax, argmin, mean
from dualgrad.compiler.ops.reduce import reduce_max as max
from dualgrad.compiler.ops.reduce import reduce_min as min
from dualgrad.compiler.ops.reduce import reduce_sum as sum
from dualgrad.compiler.ops.view import (
    expand,
    flatten,
    permute,
    reshape,
    squeeze,
    transpose,
    unsqueeze,
)
from dualgrad.creation import (
    arange,
    empty,
    from_numpy,
    full,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from dualgrad.dtypes import can_cast, finfo, iinfo, isdtype, promote_types, result_type
from dualgrad.function import EagerFallback, Function, function
from dualgrad.random import Generator, initial_seed, normal, rand, randn, seed, uniform
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import (
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from dualgrad.runtime.threads import get_num_threads, set_num_threads
from dualgrad.state import enable_grad, is_grad_enabled, no_grad
from dualgrad.tensor import Tensor

__all__ = [
    "EagerFallback",
    "Function",
    "Generator",
    "Tensor",
    "abs",
    "add",
    "arange",
    "argmax",
    "argmin",
    "astype",
    "bfloat16",
    "bool_",
    "can_cast",
    "composite",
    "config",
    "data",
    "div",
    "empty",
    "enable_grad",
    "eq",
    "exp",
    "expand",
    "finfo",
    "flatten",
    "float16",
    "float32",
    "float64",
    "from_numpy",
    "full",
    "function",
    "functional",
    "ge",
    "get_num_threads",
    "gt",
    "iinfo",
    "initial_seed",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "isdtype",
    "le",
    "log",
    "log_softmax",
    "lt",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mul",
    "ne",
    "neg",
    "nn",
    "no_grad",
    "normal",
    "one_hot",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "promote_types",
    "rand",
    "randn",
    "random",
    "relu",
    "reshape",
    "result_type",
    "seed",
    "set_num_threads",
    "sigmoid",
    "softmax",
    "sqrt",
    "square",
    "squeeze",
    "sub",
    "sum",
    "tanh",
    "tensor",
    "transpose",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "uniform",
    "unsqueeze",
    "where",
    "zeros",
    "zeros_like",
]
__version__ = "0.1.0"
