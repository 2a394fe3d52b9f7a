"""What holds for the code that runs right now, per thread: gradients on or off, a trace or none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import partial, wraps
from inspect import CO_GENERATOR
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

if TYPE_CHECKING:
    from dualgrad.amp.precision import Mixed
    from dualgrad.jit.trace import Trace

F = TypeVar("F", bound=Callable[..., Any])


class State(threading.local):
    """Read on the path of every op: plain attributes."""

    def __init__(self) -> None:
        self.grad_enabled = True
        self.trace: Trace | None = None
        self.mixed: Mixed | None = None  # within `autocast`
        self.looks_for = ""  # "nan" or "inf" within `detect_nan`
        self.stream: Callable[[], Any] | None = None  # instead of the default generator, if any


state = State()


def mode() -> tuple[Any, ...]:
    """What compiled functions are kept by, besides the state that they read."""
    return (state.grad_enabled, state.mixed)


class _GradMode:
    """Context manager and decorator that sets whether ops are recorded."""

    enabled: bool

    @overload
    def __new__(cls, function: None = None) -> Self: ...
    @overload
    def __new__(cls, function: F) -> F: ...  # type: ignore[misc]
    def __new__(cls, function: Any = None) -> Any:
        """The context, or, as a decorator without parentheses, the decorated function."""
        self = object.__new__(cls)
        if not callable(function):
            return self
        self.__init__()  # type: ignore[misc]
        return self(function)

    def __init__(self, function: Any = None) -> None:
        self._before: list[bool] = []

    def again(self) -> _GradMode:
        """A context of the same kind."""
        return type(self)()

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
        return within(self.again, function)


def within(context: Callable[[], AbstractContextManager[Any, bool | None]], function: F) -> F:
    """A function, or a generator function, whose code runs in a context of its own."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    @wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Any:
        return _generated(function(*args, **kwargs), context)

    code = getattr(function, "__code__", None)
    steps = code is not None and code.co_flags & CO_GENERATOR
    return generate if steps else call  # type: ignore[return-value]


def _generated(
    steps: Generator[Any, Any, Any], mode: Callable[[], AbstractContextManager[Any, bool | None]]
) -> Any:
    """A generator whose own code runs in a mode, and nothing between its values does."""
    act: Callable[[], Any] = partial(next, steps)
    while True:
        try:
            with mode():
                value = act()
        except StopIteration as end:
            return end.value
        try:
            given = yield value
        except GeneratorExit:
            with mode():
                steps.close()
            raise
        except BaseException as error:
            act = partial(steps.throw, error)
        else:
            act = partial(steps.send, given)


class no_grad(_GradMode):
    """Inside this context (or a function decorated with it) nothing is recorded for gradients."""

    enabled = False


class enable_grad(_GradMode):
    """Inside this context gradients are recorded again, also within `no_grad`."""

    enabled = True


class set_grad_enabled(_GradMode):
    """Whether gradients are recorded from now on: as a statement until the next one, as a context
    manager (`with set_grad_enabled(flag): ...`) or decorator for as long as that runs."""

    def __new__(cls, mode: bool) -> Self:
        return object.__new__(cls)

    def __init__(self, mode: bool) -> None:
        self.enabled = bool(mode)
        self._before = [state.grad_enabled]
        self._entered = False
        state.grad_enabled = self.enabled

    def again(self) -> _GradMode:
        return set_grad_enabled(self.enabled)

    def __enter__(self) -> None:
        if self._entered:
            self._before.append(state.grad_enabled)
        self._entered = True
        state.grad_enabled = self.enabled

    def __call__(self, function: F) -> F:
        if not self._entered:
            state.grad_enabled = self._before.pop()
            self._entered = True
        return super().__call__(function)


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require gradients are being recorded."""
    return state.grad_enabled
