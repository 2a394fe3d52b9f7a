"""PyTorch's own list of modules with sample inputs, as records of calls (module_records.py).

What `module_db` lacks is in MORE.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from module_records import Record, packed_array, weights_of
from torch.testing._internal.common_modules import module_db

from dualgrad import nn

# modules that module_db has no samples of: arguments, and shapes of inputs
MORE: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], list[tuple[int, ...]]]]] = {
    "AdaptiveMaxPool3d": [(((2, 1, 2),), {}, [(1, 2, 3, 2, 3)])],
    "BatchNorm2d": [((2,), {}, [(2, 2, 2, 3)]), ((2, 0.1, None), {}, [(2, 2, 2, 1)])],
    "BatchNorm3d": [((2,), {}, [(2, 2, 2, 1, 2)]), ((2, 0.1, 0.3, False), {}, [(2, 2, 2, 1, 1)])],
    "ChannelShuffle": [((2,), {}, [(1, 4, 2, 2)])],
    "Conv2d": [
        ((2, 4, (2, 1), 1, "same"), {"groups": 2, "padding_mode": "circular"}, [(1, 2, 3, 4)])
    ],
    "Conv3d": [((2, 1, 2), {}, [(1, 2, 2, 3, 2)])],
    "ConvTranspose2d": [((2, 2, 2, 2), {"output_padding": 1}, [(1, 2, 2, 3)])],
    "ConvTranspose3d": [((2, 1, 2), {}, [(1, 2, 2, 1, 2)])],
    "CosineSimilarity": [((), {}, [(3, 4), (3, 4)]), ((0, 1e-6), {}, [(3, 4), (3, 4)])],
    **{name: [((0.0,), {}, [(2, 3, 4)])] for name in ("Dropout", "Dropout1d", "AlphaDropout")},
    **{name: [((0.0,), {}, [(2, 3, 1, 2)])] for name in ("Dropout2d", "FeatureAlphaDropout")},
    "Dropout3d": [((0.0,), {}, [(2, 3, 1, 2, 1)])],
    "Flatten": [((), {}, [(2, 3, 4)]), ((0, 1), {}, [(2, 3, 4)])],
    "Fold": [(((2, 3), (2, 2)), {"padding": 1}, [(1, 4, 12)])],
    "Hardsigmoid": [((), {}, [(3, 4)])],
    "Identity": [((), {}, [(3, 4)])],
    "GRUCell": [((2, 3), {}, [(4, 2), (4, 3)])],
    "InstanceNorm3d": [((2, 0.1, 0.3, True, True), {}, [(2, 2, 1, 2, 2)])],
    "LPPool3d": [((3, 2), {}, [(1, 2, 2, 3, 4)])],
    "LSTMCell": [((2, 3), {}, [(4, 2)])],
    "MaxPool3d": [((2, 1), {"return_indices": True}, [(1, 2, 2, 3, 2)])],
    "PairwiseDistance": [((), {}, [(3, 4), (3, 4)]), ((1.0,), {"keepdim": True}, [(3, 4), (3, 4)])],
    "PixelShuffle": [((2,), {}, [(1, 8, 2, 3)])],
    "PixelUnshuffle": [((2,), {}, [(1, 2, 4, 6)])],
    "RReLU": [((0.25, 0.25), {}, [(3, 4)])],
    "ReflectionPad3d": [((1,), {}, [(1, 1, 2, 2, 2)])],
    "ReplicationPad3d": [((1,), {}, [(1, 1, 1, 2, 2)])],
    "RNNCell": [((2, 3), {}, [(4, 2), (4, 3)])],
    "TransformerDecoder": [
        ((torch.nn.TransformerDecoderLayer(4, 2, 3, 0.0), 2), {}, [(3, 1, 4), (2, 1, 4)])
    ],
    "TripletMarginLoss": [
        ((), {}, [(3, 4)] * 3),
        ((), {"margin": 0.5, "p": 1.0, "swap": True, "reduction": "sum"}, [(3, 4)] * 3),
    ],
    "TripletMarginWithDistanceLoss": [((), {"margin": 0.5, "swap": True}, [(3, 4)] * 3)],
    "Unflatten": [((1, (2, 3)), {}, [(2, 6, 2)])],
    "Unfold": [(((2, 3),), {"padding": 1, "stride": (1, 2)}, [(1, 2, 4, 5)])],
    "Upsample": [
        ((), {"scale_factor": 2, "mode": mode, **more}, [shape])
        for mode, more, shape in [
            ("nearest", {}, (1, 2, 3)),
            ("linear", {}, (1, 2, 3)),
            ("bilinear", {"align_corners": True}, (1, 2, 3, 2)),
            ("bicubic", {}, (1, 1, 4, 4)),
        ]
    ],
    "UpsamplingBilinear2d": [((), {"scale_factor": 2}, [(1, 2, 3, 2)])],
    "UpsamplingNearest2d": [(((6, 5),), {}, [(1, 2, 3, 2)])],
    "ZeroPad3d": [((1,), {}, [(1, 1, 1, 2, 2)])],
}
# module -> (a part of how `told` describes the calls that differ, the reason)
DIFFERENT: dict[str, tuple[str, str]] = {
    "Hardsigmoid": ("float64", "PyTorch's gradient has 1 / 6 in float32"),
    "KLDivLoss": ("'batchmean'} [[], []]", "a number is no batch"),
    **dict.fromkeys(
        ("LPPool1d", "LPPool2d", "LPPool3d"),
        ("[1.5, 2] {}", "roots of negative numbers: NaN also outside of windows in PyTorch"),
    ),
}
INFOS = {info.module_cls.__name__: info for info in module_db}


def common_modules() -> list[str]:
    """Names of the modules that have samples and a namesake here."""
    return sorted(name for name in INFOS.keys() | MORE.keys() if hasattr(nn, name))


def packed(x: Any) -> Any:
    """An argument as JSON; raises TypeError for what has no such form."""
    if isinstance(x, torch.Tensor):
        return packed_array(x.detach().numpy(), x.requires_grad)
    if isinstance(x, list | tuple):
        return [packed(v) for v in x]
    if isinstance(x, torch.nn.TransformerEncoderLayer | torch.nn.TransformerDecoderLayer):
        return {"name": type(x).__name__, "args": [], "kwargs": _layer_arguments(x)}
    if inspect.isbuiltin(x) or inspect.isfunction(x):
        return {"function": x.__name__}
    if isinstance(x, torch.dtype):
        return str(x).removeprefix("torch.")
    if x is None or isinstance(x, bool | int | float | str):
        return x
    raise TypeError(type(x).__name__)


def _layer_arguments(x: Any) -> Record:
    """The arguments that make a transformer's layer like this one."""
    return {
        "d_model": x.linear1.in_features,
        "nhead": x.self_attn.num_heads,
        "dim_feedforward": x.linear1.out_features,
        "dropout": x.dropout.p,
        "batch_first": x.self_attn.batch_first,
        "norm_first": x.norm_first,
        "bias": x.linear1.bias is not None,
    }


def _samples(name: str, dtype: torch.dtype, training: bool) -> Iterator[tuple[Any, ...]]:
    """(arguments of the module, arguments of the call), each as (args, kwargs)."""
    if name in INFOS:
        info = INFOS[name]
        for sample in info.module_inputs_func(
            info, device="cpu", dtype=dtype, requires_grad=True, training=training
        ):
            made, called = sample.constructor_input, sample.forward_input
            if called is not None:
                yield (made.args, made.kwargs), (called.args, called.kwargs)
    for args, kwargs, shapes in MORE.get(name, ()):
        inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
        yield (args, kwargs), (inputs, {})


def _round(x: Any, digits: int) -> Any:
    """Tensors of floats in nested tuples, rounded to so many digits; copies."""
    if isinstance(x, torch.Tensor):
        new = x.detach().clone()
        if new.is_floating_point():
            new = (new * 10**digits).round() / 10**digits
        return new.requires_grad_(x.requires_grad)
    return type(x)(_round(v, digits) for v in x) if isinstance(x, list | tuple) else copy.copy(x)


def _tensors(x: Any) -> Iterator[torch.Tensor]:
    if isinstance(x, list | tuple):
        for v in x:
            yield from _tensors(v)
    elif isinstance(x, torch.Tensor):
        yield x


def _prepare(module: torch.nn.Module) -> None:
    """Give all weights and statistics values that no default would have, with few digits."""
    for value in module.state_dict().values():
        if value.is_floating_point():
            moved = value + 0.25 * torch.rand(value.shape, dtype=value.dtype)
            value.copy_((moved * 1000).round() / 1000)


def record(name: str, made: Any, called: Any, dtype: torch.dtype, training: bool) -> Record:
    """Make a module, call it, go backward, and tell."""
    args, kwargs = _round(made[0], 3), {k: _round(v, 3) for k, v in made[1].items()}
    inputs, named = _round(list(called[0]), 3), {k: _round(v, 3) for k, v in called[1].items()}
    out: Record = {"name": name, "args": packed(args), "training": training}
    out["kwargs"] = {k: packed(v) for k, v in kwargs.items() if k not in ("device", "dtype")}
    out["dtype"] = str(dtype).removeprefix("torch.")
    out["inputs"] = packed(inputs)
    out["named"] = {k: packed(v) for k, v in named.items()}
    module = getattr(torch.nn, name)(*args, **kwargs).to(dtype).train(training)
    if name.startswith("Lazy"):
        module(*inputs, **named)
    _prepare(module)
    state = {k: v.detach().clone() for k, v in module.state_dict().items()}
    out["repr"], out["state"] = repr(module), {k: packed(v) for k, v in state.items()}
    results = list(_tensors(module(*inputs, **named)))
    out["results"] = [packed(r.detach()) for r in results]
    parameters = dict(module.named_parameters())
    leaves = [t for t in _tensors([*inputs, *named.values()]) if t.requires_grad]
    total = sum(
        (r * torch.from_numpy(weights_of(tuple(r.shape))).to(r.dtype)).sum()
        for r in results
        if r.requires_grad
    )
    if isinstance(total, torch.Tensor):
        sources = [*leaves, *parameters.values()]
        found = torch.autograd.grad(total, sources, allow_unused=True)
        gradients = [None if g is None else packed(g) for g in found]
        by_name = dict(zip(parameters, gradients[len(leaves) :], strict=True))
        out["gradients"] = {"inputs": gradients[: len(leaves)], "parameters": by_name}
    after = module.state_dict()
    out["after"] = {k: packed(v) for k, v in after.items() if not torch.equal(v, state[k])}
    return out


def records(name: str, dtype: torch.dtype, most: int) -> Iterator[Record]:
    """Calls of one module in training and evaluation, at most so many of each, evenly taken."""
    for training in (True, False):
        torch.manual_seed(0)
        found = list(_samples(name, dtype, training))
        for made, called in found[:: max(1, -(-len(found) // most))]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield record(name, made, called, dtype, training)


def told(record: Record) -> str:
    shapes = [x.get("shape") if isinstance(x, dict) else x for x in record["inputs"]]
    mode = "training" if record["training"] else "evaluation"
    return f"{record['dtype']} {mode} {record['args']} {record['kwargs']} {shapes}"


def is_different(record: Record) -> bool:
    """Whether a call is among those that mean something else here."""
    name = record["name"]
    return name in DIFFERENT and DIFFERENT[name][0] in told(record)
