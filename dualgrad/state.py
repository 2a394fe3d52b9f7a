"""What holds for the code that runs right now, per thread: gradients on or off, a trace or none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dualgrad.jit.trace import Trace

F = TypeVar("F", bound=Callable[..., Any])


class State(threading.local):
    """Read on the path of every op: plain attributes."""

    grad_enabled = True
    trace: Trace | None = None


state = State()


class _GradMode:
    """Context manager and decorator that sets whether ops are recorded."""

    enabled: bool

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(state.grad_enabled)
        state.grad_enabled = self.enabled

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        state.grad_enabled = self._before.pop()

    def __call__(self, function: F) -> F:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


class no_grad(_GradMode):
    """Inside this context (or a function decorated with it) nothing is recorded for gradients."""

    enabled = False


class enable_grad(_GradMode):
    """Inside this context gradients are recorded again, also within `no_grad`."""

    enabled = True


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require gradients are being recorded."""
    return state.grad_enabled
