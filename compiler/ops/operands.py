"""Checks that arguments are tensors."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.value import Value


def check_tensors(op: str, *operands: Any) -> None:
    """Raise OperandError unless all operands are tensors or NumPy arrays."""
    for x in operands:
        if not isinstance(x, Value) and not hasattr(x, "__array_interface__"):
            raise not_a_tensor(op, x)
