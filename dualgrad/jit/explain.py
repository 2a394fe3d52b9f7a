"""Why a function was traced again or ran eagerly: the difference, in the user's own words.

A retrace is explained by comparing the call with the nearest one that has a program: numbers and
sizes by their places ("argument x, dimension 0: 32 -> 17"), structure by the first things that
differ on a walk over arguments and state ("self.mode: 'a' -> 'b'").
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

from dualgrad.jit.entry import Entry
from dualgrad.jit.kinds import Same
from dualgrad.jit.path import Path
from dualgrad.jit.places import SIZE, Part, Place
from dualgrad.jit.scope import Scope
from dualgrad.jit.survey import TENSOR, Survey, survey
from dualgrad.runtime.errors import TraceError
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.records import dataclass, field
from dualgrad.runtime.srcinfo import Location, user_location

if TYPE_CHECKING:
    import html
else:
    html = LazyModule("html")

Key = tuple[Any, ...]
MOST_EVENTS = 256  # that are kept
MOST_DIFFERENCES = 4  # that a message names
WARN_AT = 2  # the retrace that is worth a warning

_forbidden: ContextVar[bool] = ContextVar("no retrace", default=False)


class RetraceWarning(UserWarning):
    """A function is compiled again and again; the message names what differs."""


@contextmanager
def no_retrace() -> Iterator[None]:
    """Inside of this context, a function that has a program must not need another one.

    A call that would be traced again raises TraceError, which names the difference.  The first
    trace of a function is allowed.
    """
    token = _forbidden.set(True)
    try:
        yield
    finally:
        _forbidden.reset(token)


@dataclass(frozen=True)
class Event:
    """One trace, or one reason to run eagerly."""

    kind: str  # "trace", "retrace" or "eager"
    why: tuple[str, ...]
    location: Location | None  # the call
    seconds: float = 0.0

    def __str__(self) -> str:
        where = f" at {self.location.filename}:{self.location.lineno}" if self.location else ""
        cost = f" ({1e3 * self.seconds:.1f} ms)" if self.seconds else ""
        return f"{self.kind}{where}{cost}: {'; '.join(self.why)}"


@dataclass
class History:
    """What happened to one function besides runs of its programs."""

    events: list[Event] = field(default_factory=list)
    retraces: int = 0

    def note(self, event: Event) -> None:
        del self.events[: len(self.events) + 1 - MOST_EVENTS]
        self.events.append(event)

    @contextmanager
    def tracing(self, name: str, traces: Callable[[], int], why: Sequence[str]) -> Iterator[None]:
        """Around what may trace a function; `why` is empty if it has no program yet."""
        if why and _forbidden.get():
            raise TraceError(
                f"@function {name} would be traced again",
                expect="a call that a program exists for",
                actual="; ".join(why),
                hint="make the calls alike, or leave dg.no_retrace()",
            )
        before, started = traces(), perf_counter()
        yield
        if traces() > before:
            self._traced(name, why, perf_counter() - started)

    def _traced(self, name: str, why: Sequence[str], seconds: float) -> None:
        here = user_location()
        kind = "retrace" if why else "trace"
        self.note(Event(kind, tuple(why) or ("the first call",), here, seconds))
        self.retraces += bool(why)
        if not why or self.retraces != WARN_AT:
            return
        text = (
            f"@function {name} is traced again, for the second time, which took"
            f" {1e3 * seconds:.1f} ms: {'; '.join(why)}"
        )
        file, line = (here.filename, here.lineno) if here else ("<unknown>", 0)
        warnings.warn_explicit(text, RetraceWarning, file, line)


# -- differences ----------------------------------------------------------------------------------


def reasons(
    roots: tuple[tuple[Any, Any], ...],
    scopes: Sequence[tuple[Scope, Mapping[Key, Entry]]],
    mode: tuple[Any, ...],
) -> list[str]:
    """How a call that no program serves differs from the nearest one that has a program.

    `mode` (see `state.mode`) stands at the end of keys.  Empty if there is no program at all.
    """
    nearest: tuple[tuple[int, bool], Callable[[], list[str]]] | None = None
    for scope, entries in scopes:
        found = survey(roots, scope)
        key = (*found.key, mode)
        for old, entry in entries.items():
            if not entry.paths:
                continue
            changed = _changed(found, entry)[1] if old == key else []
            far = (len(changed) if old == key else _distance(old, key), old != key)
            if nearest is None or far < nearest[0]:
                how = partial(_numbers, found, entry)
                if old != key:
                    how = partial(_structure, roots, scope, old, key)
                nearest = (far, how)
    if nearest is None:
        return []
    return nearest[1]() or ["memory or gradients of tensors look otherwise"]


def _changed(found: Survey, entry: Entry) -> tuple[Path, list[int]]:
    """The path of an entry that agrees in most facts, and the facts in which it does not."""
    keys = found.fact_keys()

    def changed(path: Path) -> list[int]:
        differing = [k for k, (a, b) in enumerate(zip(path.facts, keys, strict=True)) if a != b]
        exact = {*path.exact}
        return [k for k in differing if k in exact] or differing

    known = [(path, changed(path)) for path in reversed(entry.paths)]
    return min(known, key=lambda pair: len(pair[1]))


def _numbers(found: Survey, entry: Entry) -> list[str]:
    """Which numbers and sizes differ from those of the nearest path."""
    path, changed = _changed(found, entry)
    places = found.places
    return [
        f"{described(places[k])}: {_number(path.facts[k])} -> {found.facts[k]!r}"
        for k in changed[:MOST_DIFFERENCES]
    ]


def _number(key: Any) -> str:
    return repr(float.fromhex(key)) if isinstance(key, str) else repr(key)


def _distance(old: Key, new: Key) -> int:
    """How many entries of two keys differ; of keys of two lengths, those between equal ends."""
    if len(old) == len(new):
        return sum(a != b for a, b in zip(old, new, strict=True))
    same = _common(old, new)
    rest = min(len(old), len(new)) - same
    return max(len(old), len(new)) - same - min(rest, _common(old[::-1], new[::-1]))


def _common(a: Key, b: Key) -> int:
    """With how many equal entries two keys begin."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((k for k, (x, y) in pairs if x != y), min(len(a), len(b)))


class _Located(list[Any]):
    """The key of a survey that notes which part each entry comes from."""

    def __init__(self, of: Survey) -> None:
        super().__init__()
        self.of = of
        self.parts: list[Part | None] = []

    def append(self, entry: Any) -> None:
        super().append(entry)
        self.parts.append(self.of.part)


def located(roots: tuple[tuple[Any, Any], ...], scope: Scope) -> list[Part | None]:
    """The parts behind the entries of a survey's key."""
    out = Survey(scope)
    key = out.key = _Located(out)
    survey(roots, scope, into=out)
    return key.parts


def _structure(roots: tuple[tuple[Any, Any], ...], scope: Scope, old: Key, new: Key) -> list[str]:
    """Where two keys differ; where they are not of one length, the first place only."""
    parts = located(roots, scope)
    if old[-1] != new[-1]:
        names = ("gradients are enabled", "autocast")
        changes = zip(names, old[-1], new[-1], strict=True)
        return [f"{name}: {a} -> {b}" for name, a, b in changes if a != b]
    found: dict[str, None] = {}
    differing = (k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    for k in islice(differing, MOST_DIFFERENCES if len(old) == len(new) else 1):
        part = parts[k] if k < len(parts) else None
        where = "state" if part is None else described(Place.of(part))
        found.update(dict.fromkeys(_changes(where, old[k], new[k])))
    return [*found] or ["more or less state than before"]


def _changes(where: str, old: Any, new: Any) -> list[str]:
    """The difference of two entries of a key, in words."""
    if _is_tensor(old) and _is_tensor(new):
        return _tensor_changes(where, old, new)
    before, after = _names(old), _names(new)
    if before is not None and after is not None:
        what = "key" if len(old) == 2 and isinstance(old[0], type) else "attribute"
        out = [f"{where}: new {what} {n}" for n in after if n not in before]
        out += [f"{where}: {what} {n} is gone" for n in before if n not in after]
        return out or [f"{where}: {what}s in another order"]
    a, b = _entry(old), _entry(new)
    return [f"{where}: {a} -> {b}" if a != b else f"{where}: another {a}"]


def _is_tensor(entry: Any) -> bool:
    return isinstance(entry, tuple) and len(entry) == 5 and entry[0] == TENSOR


def _names(entry: Any) -> list[str] | None:
    """The keys or attributes that an entry stands for; None if it is of another kind."""
    if not isinstance(entry, tuple) or _is_tensor(entry):
        return None
    if all(isinstance(n, str) for n in entry) and entry[:1] != ("again",):
        return [*entry]
    if len(entry) == 2 and isinstance(entry[0], type) and issubclass(entry[0], dict):
        return [_plain(k) for k in entry[1]]
    return None


def _tensor_changes(where: str, old: Any, new: Any) -> list[str]:
    out = []
    (_, kind, form, grad, leaf), (_, kind2, form2, grad2, leaf2) = old, new
    if kind is not kind2:
        out.append(f"{where}: {kind.__name__} -> {kind2.__name__}")
    for name, a, b in zip(("dtype", "kind of number", "device"), form, form2, strict=False):
        if a != b:
            out.append(f"{where}.{name}: {a} -> {b}")
    rank, rank2 = form[3], form2[3]
    if rank != rank2:
        out.append(f"{where}.ndim: {rank} -> {rank2}")
    else:
        for d, (a, b) in enumerate(zip(form[4 : 4 + rank], form2[4 : 4 + rank], strict=True)):
            if a != b:
                out.append(f"{where}, dimension {d}: {_size(a)} -> {_size(b)}")
        if not out and form != form2:
            out.append(f"{where}: other strides")
    if grad != grad2:
        out.append(f"{where}.requires_grad: {grad} -> {grad2}")
    if leaf != leaf2:
        out.append(f"{where}: it {'has no' if leaf2 else 'has a'} graph now")
    return out


def _size(n: int) -> str:
    return "more than 1" if n < 0 else str(n)


def _entry(entry: Any) -> str:
    """What an entry of a key stands for."""
    if isinstance(entry, Same):
        return _object(entry.x)
    if isinstance(entry, type):
        return entry.__name__
    if not isinstance(entry, tuple) or not entry:
        return repr(entry)
    if _is_tensor(entry):
        return f"a tensor of {entry[2][0]}"
    if entry[0] == "again":
        return "an object that was met before"
    if not entry or not isinstance(entry[0], type):
        return f"attributes {', '.join(map(str, entry))}"
    kind, value = entry[0], entry[-1]
    if isinstance(value, types.CodeType):
        return f"function {value.co_name} ({value.co_filename}:{value.co_firstlineno})"
    if issubclass(kind, tuple | list) and isinstance(value, int):
        return f"{kind.__name__} of {value}"
    if issubclass(kind, dict):
        return f"{kind.__name__} of {len(value)}"
    return value if hasattr(kind, "__members__") else repr(value)


def _object(x: Any) -> str:
    return getattr(x, "__name__", None) or f"a {type(x).__name__}"


def _plain(key: Any) -> str:
    return _object(key.x) if isinstance(key, Same) else repr(key[1])


def described(place: Place) -> str:
    """A place in a sentence: "argument x, dimension 0", "opt.param_groups[0]['lr']"."""
    if place.kind == SIZE and place.parent is not None:
        return f"{described(place.parent)}, dimension {place.key}"
    above = place.parent
    argument = above is not None and above.parent is None and str(above.key) in ("args", "kwargs")
    return f"argument {place}" if argument and not str(place).startswith("argument") else str(place)


# -- reports --------------------------------------------------------------------------------------


def as_html(title: str, report: str, history: str) -> str:
    """The report of a function for a notebook."""
    head = f"<b>{html.escape(title)}</b>"
    body = f"<pre>{html.escape(report)}</pre>"
    if not history:
        return head + body
    more = f"<details><summary>history</summary><pre>{html.escape(history)}</pre></details>"
    return head + body + more
