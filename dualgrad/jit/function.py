"""`@function`: compile a Python function by tracing it.

The first call with a new signature runs the function once on traced tensors, compiles what it
computed and runs the program; later calls run the program.  What cannot be compiled faithfully
makes the function run eagerly, with one warning that names the line (an error under `strict`).
"""

from __future__ import annotations

import copy
import functools
import gc
import types
import warnings
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

from dualgrad import random
from dualgrad.compiler.ir.printer import graph_text
from dualgrad.entries import calls
from dualgrad.entries.guards import Words
from dualgrad.gradients.hooks import of_all_modules
from dualgrad.jit.arguments import Binder
from dualgrad.jit.attempts import Attempts
from dualgrad.jit.checked import Checked
from dualgrad.jit.declared import Declared
from dualgrad.jit.decorated import check_decorated
from dualgrad.jit.entry import Entry
from dualgrad.jit.explain import Event, as_html, reasons
from dualgrad.jit.path import Path
from dualgrad.jit.places import Arguments, Place
from dualgrad.jit.programs import Entries, programs_of
from dualgrad.jit.scope import Scope
from dualgrad.jit.survey import Survey, possible, survey
from dualgrad.jit.trace import Unsupported
from dualgrad.jit.tracing import (
    Pinned,
    Raised,
    Roots,
    Tracing,
    definition,
    let_go,
    opaque,
    too_many,
)
from dualgrad.runtime import cuda
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds, LibraryError, TraceError
from dualgrad.runtime.native import callables, layout, library
from dualgrad.runtime.native.library import pending
from dualgrad.runtime.srcinfo import user_location
from dualgrad.runtime.tracebacks import hide_own_frames
from dualgrad.state import mode, state

P = ParamSpec("P")
Q = ParamSpec("Q")  # of a method: its parameters after self
R = TypeVar("R")
S = TypeVar("S")
MAX_SCOPES = 4
MAX_CHECKS = 16  # paths that are found without a survey
MAX_EAGER = 8  # calls without any path after which a function is given up
MAX_RESTRUCTURED = 16  # traces that leave state of another structure; no more are made
MAX_UNCACHEABLE = 3  # traces whose effects on Python objects cannot be replayed


FUNCTIONS: WeakSet[Function[..., Any]] = WeakSet()  # all that exist


def forget_all() -> None:
    """Let go of the programs of all functions."""
    for f in tuple(FUNCTIONS):
        f.forget()


cuda.forgetful.append(forget_all)


class EagerFallback(UserWarning):
    """A decorated function runs eagerly because a compiled one would not do the same."""


class Function(Generic[P, R]):
    """A function and the programs it has been compiled to; made by `dualgrad.function`."""

    # What is left for `__dict__` are attributes that users have given it.
    __slots__ = (
        "__dict__", "__weakref__", "__wrapped_function__", "_arguments", "_binder", "_checks",
        "_count", "_eager", "_eager_calls", "_entry", "_lock", "_options", "_programs", "_reasons",
        "_restructured", "_uncacheable", "declared", "history", "scopes", "strict",
    )  # fmt: skip

    def __init__(
        self, fn: Callable[P, R], strict: bool = False, dynamic: Any = None, static: Any = None
    ) -> None:
        functools.update_wrapper(self, fn)
        self.declared = Declared.of(fn, dynamic, static)
        self._options = (strict, dynamic, static)
        self.__wrapped_function__ = fn
        self.strict = strict
        self._programs = programs_of(fn, self._options)
        self.scopes: list[tuple[Scope, Entries]] = self._programs.scopes  # newest first
        self._reasons: dict[str, None] = {}  # why calls ran eagerly
        self._eager = False  # every call runs eagerly from now on
        self._eager_calls = 0
        self._uncacheable = 0
        self._checks: list[Checked] = []  # the latest first
        self._entry: Words | None = None  # what native code serves of them
        self._restructured = 0
        self._lock = self._programs.lock
        self.history = self._programs.history
        FUNCTIONS.add(self)
        self._binder = Binder(fn)
        self._count = self._binder.count
        self._arguments = Arguments(self._binder.names)

    @property
    def eager_reason(self) -> str | None:
        """Why calls ran eagerly, for the first time that one did; None if none did."""
        return next(iter(self._reasons), None)

    @property
    def n_traces(self) -> int:
        """How often the function was traced, or others that are made of its code."""
        return self._programs.n_traces

    @property
    def eager(self) -> Callable[P, R]:
        """The function itself, undecorated."""
        return self.__wrapped_function__

    @property
    def compiled_function(self) -> Callable[P, R]:
        """The function itself; surveys know compiled functions by this name."""
        return self.__wrapped_function__

    def like(self, fn: Callable[..., Any]) -> Function[..., Any]:
        """Another function, compiled with the same options."""
        return Function(fn, *self._options)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(
        self: Function[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> Callable[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            if pending:
                library.begin()
            if state.trace is not None or self._eager or config.eager:
                return self.__wrapped_function__(*args, **kwargs)
            if kwargs or len(args) != self._count:
                call = self._binder.bind(args, kwargs)
                if call is None:  # Python says what is wrong
                    return self.__wrapped_function__(*args, **kwargs)
                args, kwargs = call  # type: ignore[assignment]
            if not kwargs:
                for checked in self._checks:
                    known = checked.check(args)
                    if known is None:
                        continue
                    path = checked.path
                    sizes = path.sizes_of(known)
                    if sizes is None:
                        continue
                    try:
                        if sizes.single is not None:
                            return path.run_quick(known.tensors, sizes, known.numbers)  # type: ignore[return-value]
                        if path.holds(known):
                            return path.run(known, sizes)  # type: ignore[no-any-return]
                    except (IndexOutOfBounds, LibraryError):
                        break  # comes again below, and is left to the user's code
            return self._call(args, kwargs)  # type: ignore[no-any-return]
        except Exception as error:
            hide_own_frames(error)
            raise

    def __reduce__(self) -> Any:
        """Functions are pickled by name, as Python's are; other callables by value."""
        if isinstance(self.__wrapped_function__, types.FunctionType):
            return self.__wrapped_function__.__qualname__
        return Function, (self.__wrapped_function__, *self._options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        fn = copy.deepcopy(self.__wrapped_function__, memo)
        return self if fn is self.__wrapped_function__ else Function(fn, *self._options)

    def _roots(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Roots:
        return (
            (self._arguments, args),
            ("kwargs", kwargs),
            (self.name, self.__wrapped_function__),
            ("the default generator", random.default_generator),
            *of_all_modules.items(),
        )

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call whose path has to be searched for, or traced."""
        fn: Callable[..., Any] = self.__wrapped_function__
        roots, programs = self._roots(args, kwargs), self._programs
        attempts = programs.attempts
        found = None
        basis: tuple[Survey, Entry] | None = None  # what this call can be compared with
        for scope, entries in self.scopes:
            seen = survey(roots, scope)
            if seen.opaque is not None:
                self._fall_back(opaque(seen, fn))
                self._note_eager_call()
                return fn(*args, **kwargs)
            if seen.stand_ins:  # another thread is tracing a function of the same state
                return fn(*args, **kwargs)
            known = entries.get((*seen.key, mode()))
            found = found or seen
            if known is None:
                continue
            basis = basis or (seen, known)
            facts = seen.fact_keys()
            path = known.find(seen, facts)
            if path is not None:
                self._remember(args, kwargs, path, scope, seen)
                return self._run(path, seen, args, kwargs)
            if known.is_eager(seen, facts):
                if known.is_full and known.paths:
                    self._fall_back(too_many(fn))
                self._note_eager_call()
                return fn(*args, **kwargs)
        if not self.scopes and (blocked := possible(roots)).opaque is not None:
            self._fall_back(opaque(blocked, fn))
            self._note_eager_call()
            return fn(*args, **kwargs)
        with self._lock:
            if programs.attempts == attempts:
                why = reasons(roots, self.scopes, mode())
                try:
                    with self.history.tracing(self.name, lambda: self.n_traces, why):
                        return self._trace(roots, found, basis, args, kwargs)
                finally:
                    programs.attempts += 1
        return self._call(args, kwargs)  # another thread may have made the program

    def _run(self, path: Path, found: Survey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return path.run(found, path.sized(found.facts))
        except (IndexOutOfBounds, LibraryError):
            pass  # nothing has been changed; the user's code raises, or handles, the same error
        fn: Callable[..., Any] = self.__wrapped_function__
        return fn(*args, **kwargs)

    def _remember(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        path: Path,
        scope: Scope,
        found: Survey,
    ) -> None:
        """Let later calls like this one find their path without a survey."""
        if kwargs:
            return
        checked = next((c for c in self._checks if c.path is path), None)
        if checked is not None:
            checked.learn(found)
        if checked is None or checked.check(args) is None:
            full = checked is None and len(self._checks) == MAX_CHECKS
            made = 0 if checked is None else checked.made
            if path.runs < made**3 or (full and path.runs % MAX_CHECKS):
                return  # what it depends on changes too often
            noted = survey(self._roots(args, kwargs), scope, noting=True)
            checked = Checked(path, noted, args, made + 1)
        others = [c for c in self._checks if c.path is not path]
        self._checks = [checked, *others[: MAX_CHECKS - 1]]
        count = self._binder.count  # tables look at so many arguments, and there may be no more
        served = (c.words for c in self._checks if c.count == count)
        self._entry = self._binder.entry([words for words in served if words is not None])

    # -- tracing ------------------------------------------------------------------------------

    def _trace(
        self,
        roots: Roots,
        found: Survey | None,
        basis: tuple[Survey, Entry] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A call that no path serves: trace it, or run it eagerly where that fails."""
        fn: Callable[..., Any] = self.__wrapped_function__
        if self._restructured >= MAX_RESTRUCTURED:
            self._fall_back(
                Unsupported(
                    "a list or dict that it reads grows from call to call",
                    hint="keep such a record outside of the function, or only append to it",
                )
            )
            return fn(*args, **kwargs)
        attempts = Attempts(self._lifted(roots, basis), basis)
        while (inputs := attempts.next()) is not None:
            tracing = Tracing(roots, *inputs)
            try:
                result = self._attempt(tracing, found, args, kwargs)
            except Pinned as error:
                attempts.pinned(error.places)
            except (Unsupported, Raised, IndexOutOfBounds, LibraryError) as error:
                failure = error
                let_go(failure)
                attempts.failed(bool(tracing.lifting.numbers))
            else:
                attempts.succeeded()
                return result
        self._note_failure(failure, tracing)
        raised = failure.error if isinstance(failure, Raised) else None
        del failure, tracing
        result = fn(*args, **kwargs)
        if raised is not None:  # no error of the user's: the function has just run without it
            told = f"{type(raised).__name__}: {raised}"
            what = "it raised an error while it was traced, and none when it ran"
            self._fall_back(Unsupported(what, actual=told))
        return result

    def _lifted(self, roots: Roots, basis: tuple[Survey, Entry] | None) -> list[Place]:
        """Places of numbers and sizes that a new path is to have as inputs."""
        places: list[Place] = []
        if basis is not None:
            found, entry = basis
            entry.note_change(found.fact_keys())
            places = [found.places[k] for k in sorted(entry.lifted - entry.refused)]
        places = self.declared.allowed(places)
        known = {p.identity for p in places}
        return places + [p for p in self.declared.chosen(roots) if p.identity not in known]

    def _attempt(
        self,
        tracing: Tracing,
        found: Survey | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Trace and compile, run for this call, keep the path."""
        collecting = gc.isenabled()
        try:
            # The collector may call anything, at any time: that is not the function's.  And new
            # objects are told from older ones by their generation.
            gc.disable()
            gc.collect(0)
            tracing.run(self.__wrapped_function__, args, kwargs)
            tracing.check_pinned()
            self._programs.n_traces += 1
            scope = self._scope_with(tracing)
            known = bool(self.scopes) and scope is self.scopes[0][0]
            outcome = tracing.finish(scope, found if known else None, self.name)
        finally:  # of no manager in Python: an interrupt may come before its __exit__ begins
            if collecting:
                gc.enable()
        self._restructured += outcome.restructured
        if outcome.cacheable:
            assert outcome.scope is not None
            self._entry_of(outcome.scope, outcome.found).paths.append(outcome.path)
        else:
            self._uncacheable += 1
            if self._uncacheable > MAX_UNCACHEABLE:
                self._fall_back(Unsupported("it makes new Python objects at each call"))
                self._eager = True
        return outcome.result

    def _scope_with(self, tracing: Tracing) -> Scope:
        """The newest scope, wider if the trace ran code that it does not know."""
        old = self.scopes[0][0] if self.scopes else Scope()
        watch = tracing.watch
        return old.joined(watch.ran, watch.names, watch.computed)

    def _entry_of(self, scope: Scope, found: Survey) -> Entry:
        """Where paths of this structure are kept."""
        if not self.scopes or scope is not self.scopes[0][0]:
            self.scopes.insert(0, (scope, {}))
            del self.scopes[MAX_SCOPES:]
        return self.scopes[0][1].setdefault((*found.key, mode()), Entry())

    def _note_failure(self, error: Exception, tracing: Tracing) -> None:
        """A call could not be traced: it runs eagerly, and so do others like it."""
        scope = self._scope_with(tracing)
        found = survey(tracing.roots, scope)
        self._entry_of(scope, found).note_unfit(found, tracing.trace.sharing.decides)
        if isinstance(error, Unsupported):
            self._note_eager_call()
            self._fall_back(error)

    def _note_eager_call(self) -> None:
        """A function that has never been compiled is not looked at any more after some calls."""
        self._eager_calls += 1
        self._eager = self._eager_calls >= MAX_EAGER and not self.paths

    def _fall_back(self, error: Unsupported) -> None:
        """Say, once for each reason, that a call runs eagerly."""
        error.location = error.location or definition(self.__wrapped_function__)
        where = f"{error.location.filename}:{error.location.lineno}" if error.location else "?"
        reason = f"{error.what} ({where})"
        known = reason in self._reasons
        if not known:
            self.history.note(Event("eager", (error.what,), error.location))
        self._reasons[reason] = None
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
        if known:
            return
        here = user_location()
        text = f"@function {self.name} runs eagerly: {reason}"
        file, line = ("<unknown>", 0) if here is None else (here.filename, here.lineno)
        warnings.warn_explicit(text, EagerFallback, file, line)

    def forget(self) -> None:
        """Let go of all programs; later calls trace again."""
        with self._lock:
            self._programs.attempts += 1
            self.scopes.clear()
            self._checks, self._entry = [], None

    # -- explaining ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return getattr(self.__wrapped_function__, "__name__", "function")

    @property
    def paths(self) -> list[Path]:
        """All compiled paths."""
        entries = [e for _, entries in self.scopes for e in entries.values()]
        return [p for e in entries for p in e.paths]

    def _only(self) -> list[Path]:
        found = self.paths
        if not found:
            raise ArgumentError(
                f"@function {self.name} has not been compiled",
                expect="a call before",
                actual=self.eager_reason or "no call yet",
                hint="call it once, with arguments like those of later calls",
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

    def cuda(self) -> str:
        """The programs in CUDA C++."""
        return "\n".join(p.executable.cuda() for p in self._only())

    def report(self) -> str:
        """What has been compiled: signatures, state, kernels with their lines, times."""
        head = [f"@function {self.name}: {self.n_traces} trace(s)"]
        head += [f"  runs eagerly: {reason}" for reason in self._reasons]
        for k, path in enumerate(self.paths):
            head.append(path.report(k))
        return "\n".join(head)

    def explain(self) -> str:
        """Each trace and each reason to run eagerly, in order: where, how long, and what differed
        from the nearest call that had a program."""
        head = f"@function {self.name}: {self.n_traces} trace(s)"
        return "\n".join([head, *(f"  {event}" for event in self.history.events)])

    def __repr__(self) -> str:
        place = definition(self.__wrapped_function__)
        where = f" at {place.filename}:{place.lineno}" if place else ""
        done = f"{len(self.paths)} program(s), {self.n_traces} trace(s)"
        return f"<@function {self.name}{where}: {'eager' if self._eager else done}>"

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.report(), self.explain())


@overload
def function(
    fn: Callable[P, R], *, strict: bool = False, dynamic: Any = None, static: Any = None
) -> Function[P, R]: ...
@overload
def function(
    fn: None = None, *, strict: bool = False, dynamic: Any = None, static: Any = None
) -> Callable[[Callable[P, R]], Function[P, R]]: ...
def function(
    fn: Any = None, *, strict: bool = False, dynamic: Any = None, static: Any = None
) -> Any:
    """Compile a function by tracing it; use as `@function` or `@function(strict=True)`.

    A decorated function does what the undecorated one does, with the same bits.  Tensors that it
    reaches (arguments in nested containers, parameters, optimizer state, closures) are inputs of
    the program, read anew at each call; changes in place and rebound tensors are its effects.
    Numbers among the arguments are inputs, too.  A new dtype, rank or text is traced anew; so is
    the second size of a dimension, after which one program serves all sizes of at least 2, and the
    second value of a number that it reaches, which is an input from then on.  Numbers that code
    looks at are compiled for their values.  Where behaviour cannot be kept, a call runs eagerly,
    with an `EagerFallback` warning that names the line; `strict=True` raises TraceError.

    dynamic   dimensions of arguments that vary from the first call on: {"x": 0, "y": (0, 1)},
              or "x" for all of x
    static    dimensions that get a program for each size

    `.report()`, `.explain()`, `.n_traces`, `.ir()`, `.llvm()`, `.asm()` and `.cuda()` say what
    happened.
    """
    if fn is None:
        return functools.partial(function, strict=strict, dynamic=dynamic, static=static)
    check_decorated(fn)
    return Function(fn, strict, dynamic, static)


_python_call: Any = Function.__call__


def _bind() -> None:
    """Tell native code where things are; the library is loaded."""
    entry, eager = (layout.slot(Function, name) for name in ("_entry", "_eager"))
    calls.serve(_python_call, entry, eager)


def _serve_natively() -> None:
    """Let native code make the calls that it can."""
    call = callables.method(Function, "__call__", calls.call_function)
    Function.__call__ = call  # type: ignore[method-assign]
    for f in tuple(FUNCTIONS):
        f._checks = []  # made anew, for native code too, by the next call of each path


library.when_loaded(_bind)
library.when_filled(_serve_natively)
