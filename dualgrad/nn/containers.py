"""Lists and dicts of modules, whose parts are registered."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import chain, groupby
from typing import Any, overload

from dualgrad.nn.module import Module
from dualgrad.nn.numbered import Numbered
from dualgrad.runtime.errors import ArgumentError


class ModuleList(Numbered):
    """A list of modules, named "0", "1", ...; it has no `forward`."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        self.extend(modules or ())

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, self._named(index))

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList(chain(self, other))

    def __repr__(self) -> str:
        """Equal neighbours are printed once, with their number."""
        lines, start = [], 0
        for text, group in groupby(map(repr, self)):
            count = len(list(group))
            names = f"({start})" if count == 1 else f"({start}-{start + count - 1})"
            times = "" if count == 1 else f"{count} x "
            lines.append(f"{names}: {times}{text}".replace("\n", "\n  "))
            start += count
        body = "\n  ".join(("", *lines))
        return f"{type(self).__name__}({body}\n)" if lines else f"{type(self).__name__}()"


class ModuleDict(Module):
    """Modules by name, in the order of their registration; it has no `forward`.

    Built from a mapping or from pairs (name, module).
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        if modules is not None:
            self.update(modules)

    def _dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._modules}

    def __getitem__(self, key: str) -> Any:
        if key not in self._modules:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        if key not in self._modules:
            raise KeyError(key)
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Take out all modules."""
        for name in list(self._modules):
            delattr(self, name)

    def pop(self, key: str) -> Any:
        """Take out a module and return it."""
        module = self[key]
        del self[key]
        return module

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._dict().keys()

    def items(self) -> ItemsView[str, Any]:
        """Names and modules."""
        return self._dict().items()

    def values(self) -> ValuesView[Any]:
        """The modules."""
        return self._dict().values()

    def update(self, modules: Any) -> None:
        """Take over the modules of a mapping or of pairs (name, module), in their order."""
        for name, module in pairs("ModuleDict", modules):
            self[name] = module


def pairs(op: str, given: Any) -> list[tuple[Any, Any]]:
    """The items of a mapping, or of something iterable of pairs; ArgumentError for other things."""
    if hasattr(given, "items"):
        return list(given.items())
    try:
        return [(key, value) for key, value in given]
    except (TypeError, ValueError):
        raise ArgumentError(
            "there are no names",
            op=op,
            expect="a mapping, or pairs (name, value)",
            actual=type(given).__name__,
            hint="pass a dict",
        ) from None
