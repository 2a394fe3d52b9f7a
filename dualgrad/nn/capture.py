"""Activations of inner modules as results of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dualgrad.gradients.hooks import Handle
from dualgrad.nn.module import Module
from dualgrad.runtime.errors import ArgumentError


class Capture:
    """A model that returns what some of its modules returned as well; see `capture`."""

    def __init__(self, model: Module, names: Iterable[str]) -> None:
        self.model = model
        self.names = list(names)
        self._seen: dict[str, Any] = {}
        known = dict(model.named_modules())
        for name in self.names:
            if name not in known:
                raise ArgumentError(
                    f"there is no module {name!r}",
                    op="capture",
                    expect=", ".join(n for n in known if n),
                    actual=repr(name),
                    hint="names are those of named_modules()",
                )
        self._handles: list[Handle] = [
            known[name].register_forward_hook(self._keeper(name)) for name in self.names
        ]

    def _keeper(self, name: str) -> Any:
        def keep(module: Module, args: tuple[Any, ...], output: Any) -> None:
            self._seen[name] = output

        return keep

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        out = self.model(*args, **kwargs)
        seen = {name: self._seen.pop(name) for name in self.names if name in self._seen}
        return out, seen

    def remove(self) -> None:
        """Let the model be as it was."""
        for handle in self._handles:
            handle.remove()


def capture(model: Module, names: Iterable[str]) -> Capture:
    """Return a callable like `model` that gives (output, {name: what that module returned}).

    Names are those of `model.named_modules()`.  Modules that did not run are left out; of several
    runs the last one counts.  Inside of a compiled function the activations are results of the
    same program.  `.remove()` ends it.  Raises ArgumentError for an unknown name.
    """
    return Capture(model, names)
