"""What a framework is asked to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Arrays = Mapping[str, Any]  # NumPy arrays by name
Decorator = Callable[..., Callable[..., Any]]  # of a step, perhaps with options


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
