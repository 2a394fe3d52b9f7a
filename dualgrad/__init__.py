"""dualgrad: tensors and deep learning, eager and compiled, with the same bits.

    import dualgrad as dg

    x = dg.randn(4, 3)
    w = dg.randn(3, 2, requires_grad=True)
    (x @ w).sum().backward()

Code runs eagerly by default.  `@dg.function` compiles the same Python by tracing it.
"""

from importlib import import_module as _import_module
from pathlib import Path as _Path
from sys import modules as _modules
from typing import TYPE_CHECKING

# In a clone, compiler/ and runtime/ stand beside this folder; an installed copy has them inside.
if not (_Path(__file__).parent / "compiler").is_dir():
    __path__.append(str(_Path(__file__).parent.parent))

from dualgrad import cuda, errors, fft, functional, linalg, random
from dualgrad import elementwise as _elementwise
from dualgrad import numpy_functions as _numpy_functions  # noqa: F401
from dualgrad import positions as _positions
from dualgrad import reductions as _reductions
from dualgrad.compiler.ir.value import METHODS as _methods
from dualgrad.compiler.ops.axes import broadcast_shape as broadcast_shapes
from dualgrad.compiler.ops.axes import (
    broadcast_tensors,
    diag,
    diag_embed,
    matrix_transpose,
    movedim,
    ravel,
    rot90,
    unflatten,
)
from dualgrad.compiler.ops.axes import broadcast_tensors as broadcast_arrays
from dualgrad.compiler.ops.axes import movedim as moveaxis
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.convert import astype
from dualgrad.compiler.ops.einsum import einsum
from dualgrad.compiler.ops.grid import meshgrid, tril, triu
from dualgrad.compiler.ops.joining import (
    cat,
    chunk,
    hstack,
    repeat_interleave,
    roll,
    split,
    stack,
    tensor_split,
    tile,
    unbind,
    vstack,
)
from dualgrad.compiler.ops.joining import cat as concat
from dualgrad.compiler.ops.joining import cat as concatenate
from dualgrad.compiler.ops.joining import unbind as unstack
from dualgrad.compiler.ops.linalg_more import cross
from dualgrad.compiler.ops.linalg_solve import det, logdet, matrix_power, slogdet
from dualgrad.compiler.ops.linalg_solve import inv as inverse
from dualgrad.compiler.ops.neural import log_softmax, relu, softmax
from dualgrad.compiler.ops.padding import pad
from dualgrad.compiler.ops.products import (
    addbmm,
    addmm,
    addmv,
    addr,
    baddbmm,
    bmm,
    dot,
    inner,
    kron,
    mm,
    mv,
    outer,
    tensordot,
    trace,
    vdot,
    vecdot,
)
from dualgrad.compiler.ops.slicing import diagonal, flip, narrow, select, unfold
from dualgrad.compiler.ops.sort import argsort, msort, sort, topk
from dualgrad.compiler.ops.special import digamma, erf, erfc, erfinv, lgamma, polygamma
from dualgrad.compiler.ops.view import (
    expand,
    flatten,
    permute,
    reshape,
    squeeze,
    transpose,
    unsqueeze,
)
from dualgrad.compiler.ops.view import expand as broadcast_to
from dualgrad.compiler.ops.view import permute as permute_dims
from dualgrad.compiler.ops.view import transpose as swapaxes
from dualgrad.compiler.ops.view import unsqueeze as expand_dims
from dualgrad.creation import (
    asarray,
    empty,
    empty_like,
    from_numpy,
    full,
    full_like,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from dualgrad.dtypes import can_cast, finfo, iinfo, isdtype, promote_types, result_type
from dualgrad.elementwise import *  # noqa: F403
from dualgrad.entries import loading as _loading  # noqa: F401
from dualgrad.jit.caches import clear_caches
from dualgrad.jit.effects import debug
from dualgrad.jit.explain import RetraceWarning, no_retrace
from dualgrad.jit.function import EagerFallback, Function, function
from dualgrad.jit.modes import disable
from dualgrad.positions import *  # noqa: F403
from dualgrad.random import (
    Generator,
    bernoulli,
    exponential,
    get_rng_state,
    initial_seed,
    manual_seed,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
    uniform,
)
from dualgrad.ranges import arange, eye, linspace, logspace, tri
from dualgrad.reductions import *  # noqa: F403
from dualgrad.runtime import errors as _errors
from dualgrad.runtime import tracebacks as _tracebacks
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
from dualgrad.state import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from dualgrad.tensor import Tensor

if TYPE_CHECKING:
    from dualgrad import amp, array_api, autograd, data, nn, optim
    from dualgrad.amp.autocast_mode import autocast
    from dualgrad.host_memory import (
        memory_stats,
        release_memory,
        reset_peak_memory_stats,
        set_memory_limit,
    )
    from dualgrad.interop import from_dlpack, frombuffer
    from dualgrad.saving import load, load_checkpoint, save, save_checkpoint
    from dualgrad.transforms.derivatives import (
        grad,
        hessian,
        hvp,
        jacobian,
        jvp,
        value_and_grad,
        vjp,
    )
    from dualgrad.transforms.gradient_check import gradcheck, gradgradcheck

__all__ = [
    "EagerFallback",
    "Function",
    "Generator",
    "RetraceWarning",
    "Tensor",
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "amp",
    "arange",
    "argsort",
    "array_api",
    "asarray",
    "astype",
    "autocast",
    "autograd",
    "baddbmm",
    "bernoulli",
    "bfloat16",
    "bmm",
    "bool_",
    "broadcast_arrays",
    "broadcast_shapes",
    "broadcast_tensors",
    "broadcast_to",
    "can_cast",
    "cat",
    "chunk",
    "clear_caches",
    "composite",
    "concat",
    "concatenate",
    "config",
    "cross",
    "cuda",
    "data",
    "debug",
    "det",
    "diag",
    "diag_embed",
    "diagonal",
    "digamma",
    "disable",
    "dot",
    "einsum",
    "empty",
    "empty_like",
    "enable_grad",
    "erf",
    "erfc",
    "erfinv",
    "errors",
    "expand",
    "expand_dims",
    "exponential",
    "eye",
    "fft",
    "finfo",
    "flatten",
    "flip",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "from_numpy",
    "frombuffer",
    "full",
    "full_like",
    "function",
    "functional",
    "get_num_threads",
    "get_rng_state",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "hessian",
    "hstack",
    "hvp",
    "iinfo",
    "initial_seed",
    "inner",
    "int8",
    "int16",
    "int32",
    "int64",
    "inverse",
    "is_grad_enabled",
    "isdtype",
    "jacobian",
    "jvp",
    "kron",
    "lgamma",
    "linalg",
    "linspace",
    "load",
    "load_checkpoint",
    "log_softmax",
    "logdet",
    "logspace",
    "manual_seed",
    "matmul",
    "matrix_power",
    "matrix_transpose",
    "memory_stats",
    "meshgrid",
    "mm",
    "moveaxis",
    "movedim",
    "msort",
    "multinomial",
    "mv",
    "narrow",
    "nn",
    "no_grad",
    "no_retrace",
    "normal",
    "ones",
    "ones_like",
    "optim",
    "outer",
    "pad",
    "permute",
    "permute_dims",
    "polygamma",
    "promote_types",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "random",
    "randperm",
    "ravel",
    "release_memory",
    "relu",
    "repeat_interleave",
    "reset_peak_memory_stats",
    "reshape",
    "result_type",
    "roll",
    "rot90",
    "save",
    "save_checkpoint",
    "seed",
    "select",
    "set_grad_enabled",
    "set_memory_limit",
    "set_num_threads",
    "set_rng_state",
    "slogdet",
    "softmax",
    "sort",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "tensor",
    "tensor_split",
    "tensordot",
    "tile",
    "topk",
    "trace",
    "transpose",
    "tri",
    "tril",
    "triu",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "unbind",
    "unflatten",
    "unfold",
    "uniform",
    "unsqueeze",
    "unstack",
    "value_and_grad",
    "vdot",
    "vecdot",
    "vjp",
    "vstack",
    "zeros",
    "zeros_like",
]
__all__ += _elementwise.__all__ + _positions.__all__ + _reductions.__all__
__version__ = "0.1.0"
_errors.public_names.update(__all__, functional.__all__, linalg.__all__, fft.__all__, _methods)
_errors.public_names.update(
    n.strip("_") if n[:2] == "__" else n for n in dir(Tensor) if n[-1] == "_"
)


# Imported when first used: many programs need none of them.
_LATER = ("amp", "array_api", "autograd", "data", "nn", "optim")
_LATER_FROM = {  # name: the module of dualgrad that has it
    "autocast": "amp.autocast_mode",
    "cache_info": "diagnosis",
    "checkpoint": "gradients.checkpointing",
    "detect_nan": "gradients.anomaly",
    "doctor": "diagnosis",
    "from_dlpack": "interop",
    "frombuffer": "interop",
    "grad": "transforms.derivatives",
    "gradcheck": "transforms.gradient_check",
    "gradgradcheck": "transforms.gradient_check",
    "hessian": "transforms.derivatives",
    "hvp": "transforms.derivatives",
    "jacobian": "transforms.derivatives",
    "jvp": "transforms.derivatives",
    "load": "saving.store",
    "load_checkpoint": "saving.checkpoint",
    "memory_stats": "host_memory",
    "release_memory": "host_memory",
    "reset_peak_memory_stats": "host_memory",
    "save": "saving.store",
    "save_checkpoint": "saving.checkpoint",
    "set_memory_limit": "host_memory",
    "value_and_grad": "transforms.derivatives",
    "vjp": "transforms.derivatives",
    "vmap": "transforms.mapping",
}


def __getattr__(name: str) -> object:
    if name in _LATER_FROM:
        value = getattr(_import_module(f"dualgrad.{_LATER_FROM[name]}"), name)
        globals()[name] = value
        _tracebacks.install_marks()
        return value
    if name in _LATER:
        module = _import_module(f"dualgrad.{name}")
        _tracebacks.install_marks()
        return module
    if name in ("complex64", "complex128", "cfloat", "cdouble"):
        raise AttributeError(
            f"module 'dualgrad' has no attribute {name!r}: there are no complex tensors; "
            "dg.fft keeps (real, imaginary) in a last dimension of size 2"
        )
    text = f"module 'dualgrad' has no attribute {name!r}"
    raise AttributeError(text, name=name, obj=_modules[__name__])  # Python looks for a near name


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_LATER_FROM})


_tracebacks.passes_on(__getattr__)
_tracebacks.install()
