"""What a user declares about sizes: `@function(dynamic={"x": 0}, static="y")`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from dualgrad.jit.places import ENTRY, ROOT, SIZE, Arguments, Place
from dualgrad.jit.survey import survey
from dualgrad.runtime.errors import ArgumentError
from dualgrad.runtime.records import dataclass, field

Dims = tuple[int, ...] | None  # of an argument; None: all
Roots = tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Declared:
    """Which dimensions of arguments are symbols from the first call on, and which never are."""

    dynamic: dict[str, Dims] = field(default_factory=dict)
    static: dict[str, Dims] = field(default_factory=dict)

    @classmethod
    def of(cls, fn: Callable[..., Any], dynamic: Any, static: Any) -> Declared:
        """Checked declarations; raises ArgumentError for names and dimensions that cannot be."""
        if dynamic is None and static is None:
            return cls()
        names = list(inspect.signature(fn).parameters)
        out = cls(_read("dynamic", dynamic, names), _read("static", static, names))
        for name in out.dynamic.keys() & out.static.keys():
            both = _common(out.dynamic[name], out.static[name])
            if both != ():
                raise ArgumentError(
                    "a dimension is both dynamic and static",
                    op="function",
                    expect="each dimension in one of dynamic= and static=",
                    actual=f"{name}: {'all' if both is None else both}",
                    hint="leave it out of one of them",
                )
        return out

    def chosen(self, roots: Roots) -> list[Place]:
        """Places of the sizes in this call that are dynamic.

        Raises ArgumentError if an argument holds no tensor, or one without such a dimension.
        """
        if not self.dynamic:
            return []
        found = survey(roots[:2])
        names = [argument_of(found.place_of_tensor(k)) for k in range(len(found.tensors))]
        for name, dims in self.dynamic.items():
            held = [t for t, n in zip(found.tensors, names, strict=True) if n == name]
            _check_dims(name, dims, held)
        return [p for p in found.places if _names(self.dynamic, p)]

    def allowed(self, places: Iterable[Place]) -> list[Place]:
        """Those of the places that may be symbols."""
        return [p for p in places if not _names(self.static, p)]


def argument_of(place: Place) -> str | None:
    """The name of the argument in which a place lies; None for state."""
    while place.parent is not None and place.parent.kind != ROOT:
        place = place.parent
    above = place.parent
    if above is None:
        return None
    if isinstance(above.key, Arguments):
        return place.argument(place.key)
    return str(place.key) if above.key == "kwargs" and place.kind == ENTRY else None


def _names(declared: dict[str, Dims], place: Place) -> bool:
    """Whether a declaration names the dimension that a place is the size of."""
    name = argument_of(place) if declared and place.kind == SIZE else None
    if name not in declared:
        return False
    dims = declared[name]
    ndim = place.owner.ndim
    return dims is None or place.key in [d % ndim for d in dims if -ndim <= d < ndim]


def _common(a: Dims, b: Dims) -> Dims:
    if a is None or b is None:
        return b if a is None else a
    return tuple(d for d in a if d in b)


def _check_dims(name: str, dims: Dims, tensors: list[Any]) -> None:
    if not tensors:
        raise ArgumentError(
            f"the argument {name} has no sizes",
            op="function",
            expect=f"a tensor as {name}, for dynamic={{{name!r}: ...}}",
            actual="none",
            hint="leave it out of dynamic=",
        )
    for x in tensors:
        for d in dims or ():
            if not -x.ndim <= d < x.ndim:
                raise ArgumentError(
                    f"the argument {name} has no dimension {d}",
                    op="function",
                    expect=f"dimensions of {name} in dynamic= that it has",
                    actual=f"{x.type!r}",
                    hint="name other dimensions, or none for all of them",
                )


def _read(option: str, given: Any, names: list[str]) -> dict[str, Dims]:
    """A declaration as a dict: a name, several names, or a dict from names to dimensions."""
    if given is None:
        return {}
    if isinstance(given, str):
        given = {given: None}
    elif isinstance(given, list | tuple | set | frozenset):
        given = dict.fromkeys(given)
    if not isinstance(given, dict):
        raise ArgumentError(
            f"{option}= names no arguments",
            op="function",
            expect='"x", ["x", "y"] or {"x": 0, "y": (0, 1)}',
            actual=repr(given),
            hint=f'for example {option}={{"x": 0}}',
        )
    out: dict[str, Dims] = {}
    for name, dims in given.items():
        if name not in names:
            raise ArgumentError(
                f"{option}= names an argument that the function does not have",
                op="function",
                expect=" or ".join(map(repr, names)) or "a function with arguments",
                actual=repr(name),
                hint="spell it as in the function's definition",
            )
        out[name] = None if dims is None else _dims(option, name, dims)
    return out


def _dims(option: str, name: str, dims: Any) -> tuple[int, ...]:
    listed = tuple(dims) if isinstance(dims, list | tuple | set | frozenset) else (dims,)
    if not all(type(d) is int for d in listed):
        raise ArgumentError(
            f"{option}= names no dimensions",
            op="function",
            expect=f"{option}={{{name!r}: 0}} or {{{name!r}: (0, 1)}}",
            actual=repr(dims),
            hint="dimensions are ints; -1 is the last",
        )
    return listed
