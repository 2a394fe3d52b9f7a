"""What layers print of themselves."""

from __future__ import annotations

from dualgrad.nn.module import Module


def listed(module: Module, *names: str) -> str:
    """Attributes as "name=value, name=value"."""
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)
