"""One attempt to trace a call: run the function on traced tensors, compile what it computed.

Whatever happens, Python state is afterwards what the call makes of it, or, if the attempt fails,
what it was before.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
import weakref
from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ir.dims import Atom
from dualgrad.jit.effects import recorded
from dualgrad.jit.entry import MAX_PATHS
from dualgrad.jit.finish import Outcome, finish_trace
from dualgrad.jit.kinds import ENVIRONMENT, is_foreign
from dualgrad.jit.ledger import recording
from dualgrad.jit.lifting import Lifting
from dualgrad.jit.places import ATTRIBUTE, ELEMENT, ENTRY, ROOT, SIZE, STRIDE, Place
from dualgrad.jit.scope import Scope
from dualgrad.jit.sizes import Symbols
from dualgrad.jit.snapshot import Snapshot
from dualgrad.jit.survey import Survey, survey
from dualgrad.jit.trace import Trace, Unsupported
from dualgrad.jit.watch import Stopped, Watch, uninterrupted
from dualgrad.runtime.errors import DualgradError, IndexOutOfBounds, LibraryError
from dualgrad.runtime.srcinfo import Location
from dualgrad.state import mode, state
from dualgrad.tensor import Tensor

Roots = tuple[tuple[Any, Any], ...]


class Raised(Exception):
    """The function raised this while it was traced; an eager run will raise it again."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def let_go(error: BaseException | None) -> None:
    """Free the frames that an error has come through: they hold what was traced."""
    while error is not None:
        error.__traceback__ = None
        if isinstance(error, Raised):
            let_go(error.error)
        following, error.__context__ = error.__context__ or error.__cause__, None
        error = following


class Pinned(Exception):
    """Code asked for the values of sizes that were to be symbols."""

    def __init__(self, places: set[Any]) -> None:
        super().__init__()
        self.places = places  # by identity


class Tracing:
    """A trace of one call.

    roots   where the state begins: arguments, keyword arguments, the function ...
    lifted  places of numbers and sizes that are to be inputs of the program
    arguments   whether numbers among the arguments are to be inputs as well
    """

    def __init__(self, roots: Roots, lifted: list[Place], arguments: bool) -> None:
        self.roots = roots
        self.whole = survey(roots, noting=True)
        self.before = Snapshot(self.whole)
        self.symbols = Symbols.of(lifted)
        self.trace = Trace(self.whole.tensors, Tensor.of_node, self.symbols)
        places = [p for p in lifted if p.kind not in (SIZE, STRIDE)]
        places += argument_places(self.whole) if arguments else []
        self.lifting = Lifting(self.trace.numbers, places)
        weak = weakref.proxy(self)  # no cycle: a trace holds the tensors of its call
        self.symbols.env.number = lambda *found: weak._number(*found)
        self.watch = Watch()
        self.returned: list[Any] = []
        self.seconds = 0.0

    def run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Trace the function; `returned` gets what it returns.

        Raises Unsupported or Raised, with the state as it was.
        """
        started, errors = time.perf_counter(), DualgradError.made
        mode_was = mode()
        state.trace = self.trace
        try:
            with self.symbols.scope(), recording(self.trace.numbers), recorded(), self.watch:
                self.returned.append(fn(*self.lifting.place(args), **kwargs))
            if self.watch.found is not None:
                raise self.watch.found
            if mode() != mode_was:
                raise Unsupported(
                    "set_grad_enabled or autocast holds for what comes after the function",
                    hint="use it as a context: with dg.set_grad_enabled(flag): ...",
                )
            self.trace.calls.finish()
            if self.trace.numbers.pickled:
                raise Unsupported("a number is pickled that stands for others")
            for refusal in self.trace.refusals:  # caught by the code that was traced
                raise refusal
            if self.symbols.values and DualgradError.made != errors:
                raise Unsupported("an error is handled, whose text would name symbols of sizes")
        except BaseException as error:
            try:
                self.undo()
            except KeyboardInterrupt:
                self.undo()
                raise
            if isinstance(error, KeyboardInterrupt):
                raise
            if isinstance(error, Unsupported | Stopped):
                raise self.watch.found or error from None
            raise Raised(error) from None  # SystemExit as well: what came before it is to stay
        finally:
            state.trace = None
            state.grad_enabled, state.mixed = mode_was
            try:
                self._leave()
            except KeyboardInterrupt:
                self._leave()
                raise
            self.seconds = time.perf_counter() - started

    def _number(self, atom: Atom) -> Any:
        """What stands for a symbol where Python calculates with it."""
        place = next(p for a, p in self.symbols.places if a is atom)
        numbers = self.lifting.numbers
        k = numbers.setdefault(place.identity, len(numbers))
        return self.trace.numbers.fact(k, self.symbols.values[atom])

    def check_pinned(self) -> None:
        """A program for one value of a symbol is better made without the symbol."""
        pinned = self.symbols.pinned
        if pinned:
            self.undo()
            raise Pinned({p.identity for p in pinned})

    def _leave(self) -> None:
        uninterrupted(self.watch.close, self.lifting.restore)

    def undo(self) -> None:
        """Put Python state and version counts back."""
        state.trace = None
        self.symbols.env.closed = True
        restore = (self.watch.close, self.lifting.restore, self.before.restore)
        uninterrupted(*restore, self.trace.forget_changes)

    def finish(self, scope: Scope, found: Survey | None, name: str) -> Outcome:
        """Compile; `found` is a survey from before the trace, if there is one for this scope."""
        try:
            found = found or self._earlier(scope)
            while not scope.wide and (found.computed or not found.named <= scope.names):
                scope = scope.joined((), found.named, found.computed)
                found = self._earlier(scope)
            if found.opaque is not None:
                raise opaque(found, self.roots[2][1])
            self._check_met(found)
            self.trace.renumber(found.tensors)
            self._check_containers(found)
            after = survey(self.roots, scope)
            with self.symbols.scope():
                outcome = finish_trace(
                    self.trace, found, after, self.before, self.returned, name, self.lifting
                )
        except BaseException as error:
            self.undo()
            known = isinstance(error, Unsupported | IndexOutOfBounds | LibraryError)
            if self.symbols.values and isinstance(error, Exception) and not known:
                raise Unsupported("a program with symbolic sizes cannot be made") from error
            raise
        outcome.path.seconds_tracing = self.seconds
        outcome.scope = scope
        return outcome

    def _earlier(self, scope: Scope) -> Survey:
        """A survey of the state as it was before the trace."""
        if not self.before.changed():
            return survey(self.roots, scope)
        now = Snapshot(self.whole)
        self.before.restore()
        try:
            return survey(self.roots, scope)
        finally:
            now.restore()

    def _check_containers(self, found: Survey) -> None:
        """Refuse changes of containers that the walk does not find again."""
        met = set(map(id, found.containers))
        lost = [c for c in found.containers if id(c) not in self.before.copies]
        lost += [c for c, _ in self.before.changed_containers() if id(c) not in met]
        if lost:
            raise Unsupported(
                "Python state was reached in a way that cannot be followed",
                actual=f"a {type(lost[0]).__name__}",
                hint="pass it as an argument",
            )

    def _check_met(self, found: Survey) -> None:
        """Refuse functions with state of their own that ran and were not found by the walk."""
        ran = [r for r in self.watch.ran if not is_foreign(r[1].get("__name__"))]
        inner = {c for code, _ in ran for c in code.co_consts if hasattr(c, "co_freevars")}
        for code, _ in ran:
            if not ENVIRONMENT.isdisjoint(code.co_names):
                raise Unsupported(
                    f"{code.co_name} reads the environment of the process",
                    why="a compiled program would not notice when it changes",
                    hint="read it outside of the function",
                )
            if code.co_freevars and code not in inner and code not in found.functions:
                raise Unsupported(
                    f"the function {code.co_name} was reached in a way that cannot be followed",
                    why="a compiled program would not notice when its variables change",
                    hint="pass it as an argument",
                )


def argument_places(found: Survey) -> list[Place]:
    """Where numbers stand among the arguments, in containers and dataclasses as well."""
    places = [Place.of(p) for p in found.fact_parts[: found.argument_facts]]
    return [p for p in places if p.kind not in (SIZE, STRIDE) and _is_argument(p)]


def _is_argument(place: Place) -> bool:
    if place.kind == ROOT:
        return True
    known = place.kind in (ELEMENT, ENTRY) or (
        place.kind == ATTRIBUTE and dataclasses.is_dataclass(place.owner)
    )
    return known and place.parent is not None and _is_argument(place.parent)


def opaque(found: Survey, fn: Any) -> Unsupported:
    """What a call depends on cannot be followed."""
    return Unsupported(
        f"it can reach {found.opaque}",
        why="a compiled program would not notice when that changes",
        hint="pass what is needed as an argument",
        location=definition(fn),
    )


def too_many(fn: Any) -> Unsupported:
    """Calls of one structure ask for ever more programs."""
    return Unsupported(
        f"it needs more than {MAX_PATHS} programs for its Python values",
        why="each is compiled for values that the code looks at",
        hint="f.explain() tells which; pass them as tensors",
        location=definition(fn),
    )


def definition(fn: Any) -> Location | None:
    """Where a function begins, or the one that it is around."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is None:
        return None
    return Location(code.co_filename, code.co_firstlineno, code.co_name)
