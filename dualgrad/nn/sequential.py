"""Modules in a row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Any, Self, overload

from dualgrad.nn.module import Module
from dualgrad.nn.numbered import Numbered
from dualgrad.runtime.errors import ArgumentError


class Sequential(Numbered):
    """Calls modules one after the other, each on the output of the one before.

    Built from modules, which are named "0", "1", ..., or from one OrderedDict of named modules.
    `seq[i]` is a module, `seq[a:b]` a Sequential of the same modules under the same names; `+`
    and `*` make new ones of the same modules.  Modules can be set, deleted, inserted and appended
    as in a list; those that stay are counted anew when one is deleted or inserted.
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

    def __iter__(self) -> Iterator[Module]:
        return super().__iter__()

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            names = list(self._modules)[index]
            return type(self)(OrderedDict((name, getattr(self, name)) for name in names))
        module: Module = getattr(self, self._named(index))
        return module

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            return NotImplemented
        return Sequential(*chain(self, other))

    def __mul__(self, times: int) -> Sequential:
        return Sequential(*list(self) * _checked(times))

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Self:
        return self.extend(list(self) * (_checked(times) - 1))


def _checked(times: int) -> int:
    if not isinstance(times, int) or times < 1:
        raise ArgumentError(
            "modules cannot be repeated so often",
            op="Sequential",
            expect="an int >= 1",
            actual=repr(times),
            hint="the same modules come again, with the same parameters",
        )
    return times
