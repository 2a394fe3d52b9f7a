"""Attributes of modules that are computed from parameters each time that they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from dualgrad.nn.module import Module
from dualgrad.tensor import Tensor


class Rule(Protocol):
    """How one attribute is computed."""

    def value(self, module: Module) -> Tensor:
        """The attribute of the module as it is by now."""

    def assign(self, module: Module, value: Any) -> None:
        """Change what it is computed from, so that it has this value."""


class Computing(Module):
    """What a class of modules gets with computed attributes: their rules, by name.

    Such a class is made for each base and names, never changed, and shared by all modules of its
    kind, so that copies of a module, also by pickle, do not depend on each other.
    """

    _computed: dict[str, Rule]

    def __setattr__(self, name: str, value: Any) -> None:
        rule = vars(self).get("_computed", {}).get(name)
        if rule is None:
            super().__setattr__(name, value)
        else:
            rule.assign(self, value)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        base = type(self).__bases__[-1]
        return _blank, (base, tuple(self._computed), type(self).__name__), vars(self).copy()


_classes: dict[tuple[object, ...], type[Computing]] = {}


def _class(base: type[Module], names: tuple[str, ...], title: str) -> type[Computing]:
    """The subclass of a base with these computed attributes."""
    key = (base, names, title)
    if key in _classes:
        return _classes[key]
    properties = {name: property(_reader(name)) for name in names}
    about = {"__module__": base.__module__, "__doc__": base.__doc__, "__qualname__": title}
    return _classes.setdefault(key, type(title, (Computing, base), {**about, **properties}))


def _reader(name: str) -> Callable[[Computing], Tensor]:
    return lambda module: module._computed[name].value(module)


def _blank(base: type[Module], names: tuple[str, ...], title: str) -> Module:
    """An empty module for copies, whose attributes follow."""
    made = _class(base, names, title)
    return made.__new__(made)


def base_of(module: Module) -> type[Module]:
    """The class of a module, without what computed attributes add."""
    kind = type(module)
    return kind.__bases__[-1] if isinstance(module, Computing) else kind


def compute(module: Module, name: str, rule: Rule, title: str) -> None:
    """Let an attribute be computed by a rule; `title` names the class from now on."""
    rules = {**vars(module).get("_computed", {}), name: rule}
    _set(module, rules, title)


def stop_computing(module: Module, name: str) -> None:
    """The attribute is computed no more, and is not there."""
    rules = {n: rule for n, rule in vars(module)["_computed"].items() if n != name}
    _set(module, rules, type(module).__name__)


def rule_of(module: Module, name: str) -> Rule | None:
    """The rule of an attribute; None if it is not computed."""
    rules: dict[str, Rule] = vars(module).get("_computed", {})
    return rules.get(name)


def _set(module: Module, rules: dict[str, Rule], title: str) -> None:
    base = base_of(module)
    object.__setattr__(module, "_computed", rules)
    kind = _class(base, tuple(rules), title) if rules else base
    if not rules:
        object.__delattr__(module, "_computed")
    object.__setattr__(module, "__class__", kind)
