"""Calls of modules as records, which can be kept as JSON, and their replay with modules here.

A record of a call of PyTorch's says

    name, args, kwargs        the module
    training                  its mode
    repr                      its printed form
    state                     its state dict before the call
    inputs, named             arguments of the call
    results                   tensors that it returned, in order
    gradients                 of `objective(results)`: {"inputs": [...], "parameters": {...}}
    after                     what the call changed in the state dict

Tensors are dicts (`packed_array`), tensors among the inputs that want gradients say so; a module
as an argument is a dict with name, args and kwargs, a function is {"function": name}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from support import as_array, bits

import dualgrad as dg
from dualgrad import nn

Array = np.ndarray[Any, Any]
Record = dict[str, Any]
# (relative, absolute): sums of a few hundred terms, in another order
TOLERANCES: Final = {"float64": (1e-8, 1e-10), "float32": (1e-4, 2e-5)}


def packed_array(x: Array, grad: bool = False) -> Record:
    """An array as JSON, exactly."""
    flat = x.ravel().tolist()
    return {"tensor": flat, "shape": list(x.shape), "dtype": str(x.dtype), "grad": grad}


def array_of(x: Record) -> Array:
    """What `packed_array` has packed."""
    return np.array(x["tensor"], dtype=x["dtype"]).reshape(x["shape"])


def weights_of(shape: tuple[int, ...]) -> Array:
    """Different weights between 0.2 and 1.2 for the elements of a result."""
    return (np.arange(np.prod(shape, dtype=int)) * 7 % 11 / 11 + 0.2).reshape(shape)


def unpacked(x: Any) -> Any:
    """An argument of a module or of its call, with tensors of ours."""
    if isinstance(x, list):
        return tuple(unpacked(v) for v in x)
    if not isinstance(x, dict):
        return x
    if "function" in x:
        return getattr(dg.functional, x["function"])
    if "name" in x:
        return module_of(x)
    out = dg.tensor(array_of(x))
    return out.requires_grad_() if x["grad"] else out


def module_of(x: Record) -> Any:
    """A module here with the name and the arguments of a record."""
    named = {k: unpacked(v) for k, v in x["kwargs"].items()}
    return getattr(nn, x["name"])(*map(unpacked, x["args"]), **named)


def tensors(x: Any) -> Iterator[dg.Tensor]:
    """The tensors of nested tuples, in order."""
    if isinstance(x, list | tuple):
        for v in x:
            yield from tensors(v)
    elif isinstance(x, dg.Tensor):
        yield x


class Replay:
    """A module made and called as a record says."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.dtype = record["dtype"]
        self.module = module_of(record)
        self.inputs = [unpacked(v) for v in record["inputs"]]
        self.named = {k: unpacked(v) for k, v in record["named"].items()}
        if record["name"].startswith("Lazy"):
            self.module(*self.inputs, **self.named)
        self.module.to(getattr(dg, self.dtype)).train(record["training"])
        assert list(self.module.state_dict()) == list(record["state"]), "keys of the state dict"
        state = {k: dg.tensor(array_of(v)) for k, v in record["state"].items()}
        self.module.load_state_dict(state)
        leaves = [*tensors(self.inputs), *tensors(list(self.named.values()))]
        self.leaves = [t for t in leaves if t.requires_grad]
        self.weights: list[dg.Tensor] = []

    def run(self, decorate: Callable[..., Any] = lambda function: function) -> dict[str, Array]:
        """Call the module and go backward; return all tensors that come of it, by name."""
        wanted = "gradients" in self.record
        parameters = dict(self.module.named_parameters())
        places = [f"gradient of input {i}" for i, _ in enumerate(self.leaves)]
        places += [f"gradient of {name}" for name in parameters]
        self.weights = [
            dg.tensor(weights_of(tuple(r["shape"])), dtype=self.dtype)
            for r in self.record["results"]
        ]

        def call(*inputs: Any, **named: Any) -> Any:
            results = list(tensors(self.module(*inputs, **named)))
            if not wanted:
                return results, []
            total = sum(
                (r * w).sum() for r, w in zip(results, self.weights, strict=True) if r.requires_grad
            )
            sources = [*self.leaves, *parameters.values()]
            return results, dg.autograd.grad(total, sources, allow_unused=True)

        results, gradients = decorate(call)(*self.inputs, **self.named)
        out = {f"result {i}": as_array(r) for i, r in enumerate(results)}
        for place, gradient in zip(places, gradients, strict=wanted):
            if gradient is not None:
                out[place] = as_array(gradient)
        changed = self.module.state_dict()
        return out | {f"{k} afterwards": as_array(changed[k]).copy() for k in self.record["after"]}

    def expected(self) -> dict[str, Array]:
        """What `run` should return."""
        record = self.record
        out = {f"result {i}": array_of(r) for i, r in enumerate(record["results"])}
        found = record.get("gradients", {"inputs": [], "parameters": {}})
        by_place = {f"gradient of input {i}": g for i, g in enumerate(found["inputs"])}
        by_place |= {f"gradient of {name}": g for name, g in found["parameters"].items()}
        out |= {place: array_of(g) for place, g in by_place.items() if g is not None}
        return out | {f"{k} afterwards": array_of(v) for k, v in record["after"].items()}


def check(record: Record, compiled: bool = False) -> None:
    """Raise AssertionError unless a module here does what the record says.

    compiled  also under `@dg.function`, with the same bits
    """
    replay = Replay(record)
    assert repr(replay.module) == record["repr"], "printed form"
    got, want = replay.run(), replay.expected()
    rtol, atol = TOLERANCES[record["dtype"]]
    for name, expected in want.items():
        # what never got a gradient counts as zero
        found = got.get(name, np.zeros(expected.shape, expected.dtype))
        assert found.shape == expected.shape, f"{name}: {found.shape}, PyTorch {expected.shape}"
        assert found.dtype == expected.dtype, f"{name}: {found.dtype}, PyTorch {expected.dtype}"
        np.testing.assert_allclose(found, expected, rtol, atol, equal_nan=True, err_msg=name)
    for name in got.keys() - want.keys():
        assert not got[name].any(), f"{name} is not zero"
    if compiled:
        static = Replay(record).run(lambda function: dg.function(function, strict=True))
        assert static.keys() == got.keys()
        for name, x in got.items():
            same = np.array_equal(
                bits(x, np.dtype(f"u{x.itemsize}")), bits(static[name], np.dtype(f"u{x.itemsize}"))
            )
            assert same, f"{name}: bits differ under @function"
