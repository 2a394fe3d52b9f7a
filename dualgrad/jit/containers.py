"""Changes that a function makes to lists, dicts and deques that existed before: found and replayed.

They are made with the methods of the builtin class, whatever a subclass does: what that did was
seen in the trace.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from operator import is_
from typing import Any

from dualgrad.jit.errors import Unsupported
from dualgrad.jit.lifting import settled
from dualgrad.runtime.records import dataclass

Value = Callable[[Any], Any]  # makes a value from the results of a run
Spec = Callable[[Any], Value]


@dataclass(frozen=True)
class Effect:
    """An assignment that the function makes: container[key] = value."""

    container: int  # its number in a survey
    key: Any
    value: Value

    def make(self, container: Any, value: Any) -> None:
        _base_of(container).__setitem__(container, self.key, value)

    def settle(self, container: Any) -> None:
        """Put plain numbers in place of those of a trace."""
        self.make(container, settled(container[self.key]))


class Refill(Effect):
    """All that the container holds; `value` makes a list of it, of pairs for a dict."""

    def make(self, container: Any, value: Any) -> None:
        base = _base_of(container)
        base.clear(container)
        if isinstance(container, dict):
            for k, v in value:
                base.__setitem__(container, k, v)
        else:
            base.extend(container, value)

    def settle(self, container: Any) -> None:
        if isinstance(container, dict):
            self.make(container, [(k, settled(v)) for k, v in container.items()])
        else:
            self.make(container, [settled(v) for v in container])


class Extend(Effect):
    """Elements put at the end of a list that the function does not look at; `key` is how many."""

    def make(self, container: Any, value: Any) -> None:
        list.extend(container, value)

    def settle(self, container: Any) -> None:
        container[-self.key :] = [settled(v) for v in container[-self.key :]]


def changes(
    containers: list[Any],
    before: list[Any],
    unread: set[int],
    written: set[tuple[int, Any]],
    spec: Spec,
) -> list[Effect]:
    """What a trace has changed.

    before   copies of the containers as they were
    unread   numbers of lists that the function only appends to
    written  storage that was written, whether or not it holds something else by now
    """
    out: list[Effect] = []
    for k, (container, old) in enumerate(zip(containers, before, strict=True)):
        if k in unread:
            out += _appended(k, container, old, spec)
        elif isinstance(container, dict):
            out += _dict_changes(k, container, old, written, spec)
        elif len(container) != len(old):
            parts = [spec(v) for v in container]
            out.append(Refill(k, None, lambda r, parts=parts: [p(r) for p in parts]))  # type: ignore[misc]
        else:
            out += [
                Effect(k, n, spec(v))
                for n, v in enumerate(container)
                if v is not old[n] or (id(container), n) in written
            ]
    return out


def _appended(k: int, container: Any, old: Any, spec: Spec) -> list[Effect]:
    if len(container) < len(old) or not all(map(is_, container, old)):
        raise Unsupported("a list is changed in a way that its name does not tell")
    parts = [spec(v) for v in container[len(old) :]]
    return [Extend(k, len(parts), lambda r: [p(r) for p in parts])] if parts else []


def _dict_changes(
    k: int, container: Any, old: Any, written: set[tuple[int, Any]], spec: Spec
) -> list[Effect]:
    if len(container) < len(old) or not all(map(is_, container, old)):
        items = [(key, spec(v)) for key, v in container.items()]
        return [Refill(k, None, lambda r: [(key, p(r)) for key, p in items])]
    return [
        Effect(k, key, spec(v))
        for key, v in container.items()
        if key not in old or old[key] is not v or (id(container), key) in written
    ]


def _base_of(container: Any) -> Any:
    """The builtin class whose methods change a container as it is."""
    for base in (collections.OrderedDict, dict, list):
        if isinstance(container, base):
            return base
    return collections.deque
