"""A layer that does nothing, in place of one that does."""

from __future__ import annotations

from typing import Any

from dualgrad.nn.module import Module


class Identity(Module):
    """The input itself; arguments of the constructor are ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, input: Any) -> Any:
        return input
