"""PyTorch's names of ops, and the functions here that bear them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dualgrad as dg

# transforms of complex tensors, which are given real ones too
COMPLEX = ("fft", "ifft", "fft2", "ifft2", "fftn", "ifftn", "irfft", "irfft2", "irfftn", "hfft")


def _of_pairs(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *args, **how: function(dg.fft.as_pairs(x), *args, **how)


# ops whose samples pass their arguments in another order than the function takes them
ORDER: dict[str, Callable[..., Any]] = {
    "where": lambda x, condition, y: dg.where(condition, x, y),
    "einsum": lambda tensors, equation: dg.einsum(equation, *tensors),
    "nn.functional.embedding": lambda weight, x, **how: dg.functional.embedding(x, weight, **how),
    # PyTorch's op changes a copy, too
    "zero_": lambda x: x.clone().zero_(),
    # complex tensors are pairs here
    **{f"fft.{name}": _of_pairs(getattr(dg.fft, name)) for name in COMPLEX},
}


def function_for(name: str) -> Callable[..., Any] | None:
    """The function here that bears the name of an op of PyTorch's."""
    last = name.rsplit(".", 1)[-1]
    if name in ORDER:
        return ORDER[name]
    if name.startswith(("nn.functional.", "linalg.", "fft.")):
        space = getattr(dg, name.split(".")[-2], None)
    else:
        space = dg if name == last or name.startswith("special.") else None
    found = getattr(space, last, None)
    if found is None and space is dg.functional:
        found = getattr(dg, last, None)
    if found is None and space is dg and not last.startswith("_"):
        found = getattr(dg.functional, last, None) or getattr(dg.Tensor, last, None)
    return found if callable(found) and not isinstance(found, type) else None
