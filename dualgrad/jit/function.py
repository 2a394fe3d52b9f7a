"""`@function`: compile a Python function by tracing it.

The first call with a new signature runs the function once on traced tensors, compiles what it
computed and runs the program; later calls run the program.  What cannot be compiled faithfully
makes the function run eagerly, with one warning that names the line (an error under `strict`).
"""

from __future__ import annotations

import functools
import threading
import time
import types
import warnings
from collections.abc import Callable
from operator import is_
from typing import Any, Generic, ParamSpec, TypeVar, overload

from dualgrad import random
from dualgrad.compiler.ir.printer import graph_text
from dualgrad.jit.finish import finish_trace
from dualgrad.jit.guards import Standing
from dualgrad.jit.path import Path
from dualgrad.jit.survey import Survey, survey
from dualgrad.jit.trace import Trace, Unsupported
from dualgrad.jit.watch import Watch
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds, LibraryError, TraceError
from dualgrad.runtime.srcinfo import Location, user_location
from dualgrad.state import state
from dualgrad.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")
MAX_UNCACHEABLE = 3  # traces whose effects on Python objects cannot be replayed


class EagerFallback(UserWarning):
    """A decorated function runs eagerly because a compiled one would not do the same."""


class Function(Generic[P, R]):
    """A function and the programs it has been compiled to; made by `dualgrad.function`."""

    def __init__(self, fn: Callable[P, R], strict: bool = False) -> None:
        functools.update_wrapper(self, fn)
        self.__wrapped_function__ = fn
        self.strict = strict
        self.paths: dict[tuple[object, ...], list[Path]] = {}
        self.n_traces = 0
        self.eager_reason: str | None = None
        self._uncacheable = 0
        self._raising: set[tuple[object, ...]] = set()  # keys of calls that raise while traced
        self._standing: Standing | None = None
        self._lock = threading.RLock()

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        fn = self.__wrapped_function__
        if state.trace is not None or self.eager_reason is not None or config.eager:
            return fn(*args, **kwargs)
        standing = self._standing
        if standing is not None and not kwargs:
            quick = standing.key(args) if standing.unchanged() else None
            path = None if quick is None else standing.paths.get(quick)
            if path is not None:
                if path.single is not None:
                    try:
                        return path.run_quick(args)  # type: ignore[no-any-return]
                    except (IndexOutOfBounds, LibraryError):
                        return fn(*args, **kwargs)
                same = standing.found(args, kwargs)
                if path.holds(same):
                    return self._run(path, same, args, kwargs)  # type: ignore[no-any-return]
        return self._call(args, kwargs)  # type: ignore[no-any-return]

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call whose path has to be searched for, or traced."""
        fn: Callable[..., Any] = self.__wrapped_function__
        found = survey((args, kwargs, fn, random.default_generator))
        if found.opaque is not None:
            self._fall_back(
                Unsupported(
                    f"it can reach {found.opaque}",
                    why="a compiled program would not notice when that changes",
                    hint="pass what is needed as an argument",
                    location=self._definition(),
                )
            )
            return fn(*args, **kwargs)
        key = (*found.key, state.grad_enabled)
        if key in self._raising:
            return fn(*args, **kwargs)
        for path in self.paths.get(key, ()):
            if path.holds(found):
                self._remember(args, kwargs, path)
                return self._run(path, found, args, kwargs)
        with self._lock:
            return self._trace(found, key, args, kwargs)

    def _run(self, path: Path, found: Survey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return path.run(found)
        except (IndexOutOfBounds, LibraryError):
            # Nothing has been changed; the user's code raises, or handles, the same error.
            fn: Callable[..., Any] = self.__wrapped_function__
            return fn(*args, **kwargs)

    def _remember(self, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path) -> None:
        """Let later calls with the same state find this path without a survey."""
        if kwargs or path.effects:
            return
        standing = self._standing
        if standing is None or not standing.unchanged():
            standing = Standing(self.__wrapped_function__, (random.default_generator,))
            self._standing = standing
        quick = standing.key(args)
        if quick is not None:
            standing.paths[quick] = path

    # -- tracing ------------------------------------------------------------------------------

    def _trace(
        self, found: Survey, key: tuple[object, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        fn: Callable[..., Any] = self.__wrapped_function__
        before = [c.copy() for c in found.containers]
        trace = Trace(found.tensors, Tensor.of_node)
        watch = Watch()
        started = time.perf_counter()
        state.trace = trace
        try:
            with watch:
                result = fn(*args, **kwargs)
        except KeyboardInterrupt:
            state.trace = None
            _roll_back(trace, found, before)
            raise
        except BaseException as error:
            # What the user's code raised comes again below, from an eager run, with its effects.
            state.trace = None
            _roll_back(trace, found, before)
            if watch.found is not None or isinstance(error, Unsupported):
                self._fall_back(watch.found or error)  # type: ignore[arg-type]
            elif not watch.stopped:
                self._raising.add(key)
            return fn(*args, **kwargs)
        finally:
            state.trace = None
        if watch.found is not None or watch.stopped:
            del result
            _roll_back(trace, found, before)
            if watch.found is not None:
                self._fall_back(watch.found)
            return fn(*args, **kwargs)
        self.n_traces += 1
        seconds = time.perf_counter() - started
        try:
            after = survey((args, kwargs, fn, random.default_generator))
            outcome = finish_trace(trace, found, after, before, result, self.name)
        except (Unsupported, IndexOutOfBounds, LibraryError) as error:
            del result
            _roll_back(trace, found, before)
            if isinstance(error, Unsupported):
                self._fall_back(error)
            return fn(*args, **kwargs)
        except BaseException:
            _roll_back(trace, found, before)
            raise
        outcome.path.seconds_tracing = seconds
        if outcome.cacheable:
            self.paths.setdefault(key, []).append(outcome.path)
        else:
            self._uncacheable += 1
            if self._uncacheable > MAX_UNCACHEABLE:
                self._fall_back(Unsupported("it makes new Python objects at each call"))
        return outcome.result

    def _definition(self) -> Location | None:
        code = getattr(self.__wrapped_function__, "__code__", None)
        if code is None:
            return None
        return Location(code.co_filename, code.co_firstlineno, self.name)

    def _fall_back(self, error: Unsupported) -> None:
        """Run eagerly from now on; say so once."""
        where = f"{error.location.filename}:{error.location.lineno}" if error.location else "?"
        self.eager_reason = f"{error.what} ({where})"
        if self.strict:
            raise TraceError(
                f"@function {self.name} cannot be compiled: {error.what}",
                op=error.op,
                expect=error.expect,
                actual=error.actual,
                why=error.why,
                hint=error.hint,
                location=error.location,
            ) from None
        here = user_location()
        text = f"@function {self.name} runs eagerly: {self.eager_reason}"
        file, line = ("<unknown>", 0) if here is None else (here.filename, here.lineno)
        warnings.warn_explicit(text, EagerFallback, file, line)

    # -- explaining ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return getattr(self.__wrapped_function__, "__name__", "function")

    def _only(self) -> list[Path]:
        found = [p for paths in self.paths.values() for p in paths]
        if not found:
            raise ArgumentError(
                f"@function {self.name} has not been compiled",
                expect="a call before",
                actual=self.eager_reason or "no call yet",
            )
        return found

    def ir(self) -> str:
        """The programs in loop IR, as text: buffers, kernels, loops."""
        return "\n".join(p.executable.program.text for p in self._only())

    def graph(self) -> str:
        """The traced graphs, one line per op."""
        return "\n".join(graph_text(p.graph) for p in self._only())

    def llvm(self) -> str:
        """The programs in LLVM IR."""
        return "\n".join(p.executable.llvm() for p in self._only())

    def asm(self) -> str:
        """The programs in assembly language."""
        return "\n".join(p.executable.asm() for p in self._only())

    def report(self) -> str:
        """What has been compiled: signatures, state, kernels with their lines, times."""
        head = [f"@function {self.name}: {self.n_traces} trace(s)"]
        if self.eager_reason is not None:
            head.append(f"  runs eagerly: {self.eager_reason}")
        for k, path in enumerate(p for paths in self.paths.values() for p in paths):
            head.append(path.report(k))
        return "\n".join(head)


def _roll_back(trace: Trace, found: Survey, before: list[Any]) -> None:
    """Undo what tracing did to Python state and version counts."""
    for container, old in zip(found.containers, before, strict=True):
        if isinstance(container, dict):
            same = len(container) == len(old) and all(map(is_, container.values(), old.values()))
            if not same or not all(map(is_, container, old)):
                container.clear()
                container.update(old)
        elif len(container) != len(old) or not all(map(is_, container, old)):
            container.clear()
            container.extend(old)
    for watch in found.watched:
        if watch.restore is not None and not watch.unchanged():
            watch.restore(watch.held)
    for t in trace.changed:
        t.changed(-1)


@overload
def function(fn: Callable[P, R], *, strict: bool = False) -> Function[P, R]: ...
@overload
def function(
    fn: None = None, *, strict: bool = False
) -> Callable[[Callable[P, R]], Function[P, R]]: ...
def function(fn: Any = None, *, strict: bool = False) -> Any:
    """Compile a function by tracing it; use as `@function` or `@function(strict=True)`.

    A decorated function does what the undecorated one does, with the same bits.  Tensors that it
    reaches (arguments in nested containers, parameters, optimizer state, closures) are inputs of
    the program, read anew at each call; changes in place and rebound tensors are its effects.
    A new shape, dtype or Python value among what it can reach is traced anew.  Where that cannot
    be kept, it runs eagerly, with one `EagerFallback` warning; `strict=True` raises TraceError.

    `.ir()`, `.llvm()`, `.asm()`, `.report()` and `.n_traces` explain what happened.
    """
    if fn is None:
        return functools.partial(function, strict=strict)
    if not callable(fn) or isinstance(fn, type):
        raise ArgumentError(
            "only functions can be compiled",
            op="function",
            expect="a function",
            actual=type(fn).__name__,
        )
    if getattr(fn, "__code__", None) is not None and fn.__code__.co_flags & 0x20:
        raise ArgumentError(
            "a generator cannot be compiled",
            op="function",
            expect="a function that returns",
            actual="one that yields",
            hint="decorate the function that makes one step",
        )
    return Function(fn, strict)
