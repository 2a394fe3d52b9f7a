"""Modules that count their parts: what Sequential and ModuleList have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from dualgrad.nn.module import Module
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds


class Numbered(Module):
    """Modules under the names "0", "1", ..., which change in place as a list does."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._modules)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    def _named(self, index: int) -> str:
        """The name at a place, which may be counted from the end."""
        return list(self._modules)[position(type(self).__name__, index, len(self))]

    def _set_all(self, modules: Iterable[Any]) -> None:
        """Have these modules alone, numbered from 0."""
        modules = list(modules)
        for name in list(self._modules):
            delattr(self, name)
        for k, module in enumerate(modules):
            self.add_module(str(k), module)

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(self._named(index), module)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        if isinstance(index, slice):
            del modules[index]
        else:
            del modules[position(type(self).__name__, index, len(modules))]
        self._set_all(modules)

    def append(self, module: Module) -> Self:
        """Put a module at the end; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Put several modules at the end; returns self."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before the one at a place; returns self.

        Raises IndexOutOfBounds for a place outside, ArgumentError where names are no numbers.
        """
        if list(self._modules) != [str(k) for k in range(len(self))]:
            raise ArgumentError(
                "modules have names of their own",
                op=type(self).__name__,
                expect="modules that are counted",
                actual=", ".join(self._modules),
                hint="append it, or make a new Sequential of an OrderedDict",
            )
        modules = list(self)
        modules.insert(position(type(self).__name__, index, len(self), ends=1), module)
        self._set_all(modules)
        return self

    def pop(self, index: int | slice) -> Any:
        """Take out a module, or those of a slice, and return it."""
        found = self[index]  # type: ignore[index]
        del self[index]
        return found

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)


def position(op: str, index: Any, count: int, ends: int = 0, what: str = "module") -> int:
    """The place of one of `count` things as a number >= 0; negative ones count from the end.

    `ends` counts as places too: 1 for that behind the last one.  Raises IndexOutOfBounds for a
    place outside.
    """
    if not isinstance(index, int) or not -count <= index < count + ends:
        raise IndexOutOfBounds(
            f"no such {what}",
            op=op,
            actual=f"index {index} of {count} {what}s",
            hint="count from 0; negative indices count from the end",
        )
    return index + count if index < 0 else index
