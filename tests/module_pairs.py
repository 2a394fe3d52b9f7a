"""A module of ours beside torch's: one state, the same call, outputs and gradients compared, and
the same bits eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from support import same_bits

import dualgrad as dg

Array = np.ndarray[Any, Any]
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}  # relative to the largest element


def random(*shape: int, seed: int = 3) -> Array:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def flat(value: Any) -> list[Any]:
    """The tensors in nested tuples, without None."""
    if isinstance(value, tuple | list):
        return [x for part in value for x in flat(part)]
    return [] if value is None else [value]


def plainly(module: Any, *args: Any, **options: Any) -> Any:
    return module(*args, **options)


def load_from_torch(ours: Any, theirs: Any) -> None:
    """Copy the state, which has to have the same names, order and shapes, as has the text."""
    assert repr(ours) == repr(theirs)
    state = theirs.state_dict()
    own = [(k, tuple(v.shape)) for k, v in ours.state_dict().items()]
    assert own == [(k, tuple(v.shape)) for k, v in state.items()]
    names = [k for k, _ in theirs.named_parameters()]
    assert [k for k, _ in ours.named_parameters()] == names
    ours.load_state_dict({k: v.detach().numpy() for k, v in state.items()})


def gradients(module: Any, inputs: list[Any]) -> list[Any]:
    """Of inputs and parameters; None where there is none."""
    return [*(x.grad for x in inputs), *(p.grad for p in module.parameters())]


def ours_of(
    module: Any, arrays: list[Array], options: dict[str, Any], call: Any, weights: Any
) -> Callable[[Any], list[Any]]:
    """What runs one training step of our module, decorated or not: outputs, then gradients."""

    def step(*xs: Any, **options: Any) -> Any:
        outputs = flat(call(module, *xs, **options))
        sum((y * w).sum() for y, w in zip(outputs, weights, strict=True)).backward()
        return outputs

    def run(decorate: Any) -> list[Any]:
        inputs = [dg.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        for p in module.parameters():
            p.grad = None
        outputs = decorate(step)(*inputs, **options)
        return [*outputs, *gradients(module, inputs)]

    return run


def theirs_of(
    torch: Any, module: Any, arrays: list[Array], options: dict[str, Any], call: Any
) -> tuple[list[Array], list[Any]]:
    """Weights for the outputs of torch's module, and its outputs and gradients as arrays."""
    inputs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    for p in module.parameters():
        p.grad = None
    outputs = flat(call(module, *inputs, **options))
    weights = [random(*y.shape, seed=k).astype(str(y.dtype)[6:]) for k, y in enumerate(outputs)]
    sum((y * torch.tensor(w)).sum() for y, w in zip(outputs, weights, strict=True)).backward()
    found = [*outputs, *gradients(module, inputs)]
    return weights, [None if x is None else x.detach().numpy() for x in found]


def check_pair(
    torch: Any,
    ours: Any,
    theirs: Any,
    arrays: list[Array],
    call: Callable[..., Any] = plainly,
    dtype: str = "float32",
    **options: Any,
) -> None:
    """Compare both modules, whose floats have `dtype`; `call(module, *tensors, **options)` runs
    either, with tensors in place of the arrays in `arrays` and `options`."""

    def cast(value: Any) -> Any:
        floats = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        return value.astype(dtype) if floats else value

    def converted(make: Any) -> dict[str, Any]:
        return {k: make(cast(v)) if isinstance(v, np.ndarray) else v for k, v in options.items()}

    load_from_torch(ours, theirs)
    arrays = [cast(a) for a in arrays]
    weights, wanted = theirs_of(torch, theirs, arrays, converted(torch.tensor), call)
    step = ours_of(ours, arrays, converted(dg.tensor), call, [dg.tensor(w) for w in weights])
    eager = step(lambda f: f)
    static = step(lambda f: dg.function(f, strict=True))
    assert len(eager) == len(static) == len(wanted)
    for k, (x, y, z) in enumerate(zip(eager, static, wanted, strict=True)):
        assert (x is None) == (y is None) == (z is None), k
        if z is not None:
            assert tuple(x.shape) == z.shape, k
            bound = TOLERANCE[dtype] * max(1.0, float(np.abs(z).max(initial=0)))
            np.testing.assert_allclose(x.detach().numpy(), z, rtol=0, atol=bound, err_msg=str(k))
            same_bits(x.detach(), y.detach(), k)
