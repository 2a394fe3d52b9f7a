"""Modules in a row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, overload

from dualgrad.nn.module import Module
from dualgrad.runtime.errors import IndexOutOfBounds


class Sequential(Module):
    """Calls modules one after the other, each on the output of the one before.

    Built from modules, which are named "0", "1", ..., or from one OrderedDict of named modules.
    `seq[i]` is a module, `seq[a:b]` a Sequential of the same modules under the same names.
    """

    def __init__(self, *modules: Module | OrderedDict[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            named = list(modules[0].items())
        else:
            named = [(str(i), module) for i, module in enumerate(modules)]  # type: ignore[misc]
        for name, module in named:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return (getattr(self, name) for name in self._modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Module:
        names = list(self._modules)
        if isinstance(index, slice):
            chosen = OrderedDict((name, getattr(self, name)) for name in names[index])
            return type(self)(chosen)
        if not -len(names) <= index < len(names):
            raise IndexOutOfBounds(
                "no such module",
                op="Sequential",
                actual=f"index {index} of {len(names)} modules",
                hint="count from 0; negative indices count from the end",
            )
        module: Module = getattr(self, names[index])
        return module
