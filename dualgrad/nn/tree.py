"""Walks over a module and all below it, and looks up its parts by dotted names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from dualgrad.nn.parameter import Parameter
from dualgrad.tensor import Tensor

if TYPE_CHECKING:
    from dualgrad.nn.module import Module


class Tree:
    """The part of `Module` that knows what it is made of."""

    _parameters: dict[str, None]
    _buffers: dict[str, bool]
    _modules: dict[str, None]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct sub-modules with their names; one that has two names comes once."""
        seen: set[int] = set()
        for name in self._modules:
            module = getattr(self, name)
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """Direct sub-modules."""
        for _, module in self.named_children():
            yield module

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module (named `prefix`) and all below it, parents first."""
        memo = set() if memo is None else memo
        this = cast("Module", self)
        if remove_duplicate and this in memo:
            return
        memo.add(this)
        yield prefix, this
        for name in self._modules:
            module = getattr(self, name)
            if module is not None:
                yield from module.named_modules(memo, join(prefix, name), remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it, parents first, each once unless told otherwise."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their dotted names; a shared one comes once, under its first name."""
        return self._named_tensors("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, each once, in the order of their names."""
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers with their dotted names; a shared one comes once, under its first name."""
        return self._named_tensors("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers, each once, in the order of their names."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def _named_tensors(
        self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        owners = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else iter([(prefix, self)])
        )
        seen: set[int] = set()
        for path, owner in owners:
            for name in getattr(owner, registry):
                value = getattr(owner, name)
                if value is None or (remove_duplicate and id(value) in seen):
                    continue
                seen.add(id(value))
                yield join(path, name), value

    # -- by name

    def get_submodule(self, target: str) -> Module:
        """The module with this dotted name; "" is this one.

        Raises AttributeError, as do its sisters, if there is none.
        """
        module: Tree = self
        for name in target.split(".") if target else ():
            module = module._part(target, name, "_modules", "module")
        return cast("Module", module)

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module at a dotted name; with `strict` it must take the place of another.

        Raises AttributeError if the module that should hold it, or the one it should replace, is
        not there.
        """
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict or hasattr(parent, name):
            parent._part(target, name, "_modules", "module")
        parent.add_module(name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with this dotted name."""
        path, _, name = target.rpartition(".")
        return cast(
            Parameter, self.get_submodule(path)._part(target, name, "_parameters", "parameter")
        )

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with this dotted name."""
        path, _, name = target.rpartition(".")
        return cast(Tensor, self.get_submodule(path)._part(target, name, "_buffers", "buffer"))

    def _part(self, target: str, name: str, registry: str, kind: str) -> Any:
        known = getattr(self, registry)
        value = getattr(self, name, None) if name in known else None
        if value is None:
            where = "" if name == target else f" (looking for {target!r})"
            raise AttributeError(
                f"{type(self).__name__} has no {kind} {name!r}{where}; it has "
                + (", ".join(map(repr, known)) or "none")
            )
        return value


def join(prefix: str, name: str) -> str:
    """A dotted name below another one."""
    return f"{prefix}.{name}" if prefix else name
