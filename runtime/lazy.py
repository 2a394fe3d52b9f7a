"""Modules that are imported when something of them is first used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """Stands for a module that takes long to import and that many processes never need.

    if TYPE_CHECKING:
        from dualgrad.compiler import codegen
    else:
        codegen = LazyModule("dualgrad.compiler.codegen")
    """

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value
