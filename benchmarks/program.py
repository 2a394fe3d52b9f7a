"""What a framework is asked to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Arrays = Mapping[str, Any]  # NumPy arrays by name
Decorator = Callable[..., Callable[..., Any]]  # of a step, perhaps with options
PARAMETER = "parameter "  # begins the name of an array that holds a parameter's first value
RATE, VOLATILITY = 0.02, 0.3  # of the Black-Scholes formula, per year


def parameters(arrays: Arrays) -> dict[str, Any]:
    """First values of a model's parameters by their names, in the order of its layers."""
    names = [name for name in arrays if name.startswith(PARAMETER)]
    return {name.removeprefix(PARAMETER): arrays[name] for name in names}


def _nothing() -> None:
    return None


def _no_state() -> Sequence[Any]:
    return ()


@dataclass(frozen=True)
class Program:
    """A workload in one framework, ready to run.

    step    one step; what it returns is compared between frameworks
    inputs  arguments of the steps, used in turn
    state   tensors that steps change
    reset   gives the state its first values again
    """

    step: Callable[..., Any]
    inputs: Sequence[tuple[Any, ...]]
    state: Callable[[], Sequence[Any]] = _no_state
    reset: Callable[[], None] = _nothing
