"""What is said of arguments that should have been tensors."""

from __future__ import annotations

from typing import Any

from dualgrad.runtime.errors import OperandError


def not_a_tensor(op: str, x: Any, expect: str = "Tensor") -> OperandError:
    """The error of an operand that is something else than `expect` says."""
    also = " nor a number" if "float" in expect else ""
    return OperandError(
        f"an operand is neither a tensor{also}" if also else "an operand is no tensor",
        op=op,
        expect=expect,
        actual=kind_text(x),
        hint=operand_hint(op, x),
    )


def kind_text(x: Any) -> str:
    """The class of a value, with its library where that has a class of the same name; what a
    list holds."""
    if x is None:
        return "None"
    kind = type(x)
    if isinstance(x, list | tuple) and x:
        return f"{kind.__name__} of {len(x)}, the first {kind_text(x[0])}"
    library = kind.__module__.partition(".")[0]
    return kind.__name__ if library in _PLAIN else f"{library}.{kind.__name__}"


_PLAIN = {"builtins", "__main__", "dualgrad", "numpy"}


def operand_hint(op: str, x: Any) -> str:
    """How to make a tensor of what was given."""
    if x is None:
        if op in ("eq", "ne"):
            return "ask for None with `is`: x is None, x is not None"
        return "a gradient is None before backward(), and so is a call that returns nothing"
    if op == "matmul" and isinstance(x, int | float):
        return "use * to multiply by a number"
    if isinstance(x, list | tuple) and any(hasattr(v, "ndim") for v in x):
        return "take one of its tensors, or join them with dg.stack(...) or dg.cat(...)"
    if isinstance(x, dict):
        return "take one of its values by its key"
    if isinstance(x, str):
        return "convert text with float(...), class names to numbers by a dict"
    if hasattr(x, "__array_interface__"):
        return "convert it with dg.from_numpy(...), which shares its memory"
    if hasattr(x, "__dlpack__"):
        return "convert it with dg.from_dlpack(...), which shares its memory"
    if callable(x):
        return "call it: a function or layer stands where its result should"
    return "convert it with dg.tensor(...)"
