"""How results are made from those of a run: the kinds that native code knows, too.

Each is called with the `Results` of a run.  Other ways to make something are plain functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dualgrad.runtime.records import dataclass

if TYPE_CHECKING:
    from dualgrad.jit.path import Results

Rebuild = Callable[["Results"], Any]


@dataclass(frozen=True)
class OfOutput:
    """A tensor that the program makes."""

    slot: int

    def __call__(self, r: Results) -> Any:
        return r.tensors[self.slot]


@dataclass(frozen=True)
class OfTensor:
    """A tensor that the survey found."""

    number: int

    def __call__(self, r: Results) -> Any:
        return r.found.tensors[self.number]


@dataclass(frozen=True)
class OfGradient:
    """The gradient that such a tensor had before."""

    number: int

    def __call__(self, r: Results) -> Any:
        return r.found.tensors[self.number]._grad


@dataclass(frozen=True, eq=False)
class Again:
    """Another handle on the memory of a tensor.

    make   makes it, whatever it is
    plain  whether it is what `detach` gives; with `own`, one that is no view
    """

    make: Callable[[Results], Any]
    behind: Rebuild
    plain: Callable[[], bool]
    own: bool

    def __call__(self, r: Results) -> Any:
        return self.make(r)


@dataclass(frozen=True)
class OfNumber:
    """A number that is computed from those of the call."""

    number: int

    def __call__(self, r: Results) -> Any:
        return r.numbers[self.number]


@dataclass(frozen=True)
class OfContainer:
    """A container that the survey found."""

    number: int

    def __call__(self, r: Results) -> Any:
        return r.found.containers[self.number]


@dataclass(frozen=True)
class Constant:
    """The same object each time."""

    x: Any

    def __call__(self, r: Results) -> Any:
        return self.x


@dataclass(frozen=True, eq=False)
class New:
    """A new list, tuple or dict, made once for each run; `keys` are those of a dict."""

    kind: type
    parts: tuple[Rebuild, ...]
    keys: tuple[Any, ...]

    def __call__(self, r: Results) -> Any:
        found = r.memo.get(self)
        if found is None:
            values = [p(r) for p in self.parts]
            found = dict(zip(self.keys, values, strict=True)) if self.kind is dict else values
            found = r.memo[self] = tuple(values) if self.kind is tuple else found
        return found
