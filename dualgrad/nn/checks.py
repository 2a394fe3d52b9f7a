"""Checks of arguments that several layers take alike.

Each names the layer that refuses, and returns the checked value so that it can be assigned at
once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from dualgrad.compiler.ops.arguments import REDUCTIONS
from dualgrad.compiler.ops.convolution import sizes
from dualgrad.runtime.errors import ArgumentError


def check_counts(op: str, least: int, **counts: Any) -> None:
    """Raise ArgumentError unless all are ints and none is below `least`."""
    if not all(_is_int(n) and n >= least for n in counts.values()):
        raise ArgumentError(
            "a size does not fit",
            op=op,
            expect=f"ints >= {least}",
            actual=_listed(counts),
            hint="compute sizes with // and check that they are not too small",
        )


def check_choice(op: str, what: str, value: Any, choices: Iterable[Any]) -> Any:
    """The value; ArgumentError unless it is one of the choices."""
    known = tuple(choices)
    if value not in known:
        raise ArgumentError(
            f"no such {what}",
            op=op,
            expect=" or ".join(map(repr, known)),
            actual=repr(value),
            hint="use one of these names",
        )
    return value


def check_reduction(op: str, reduction: Any, others: Iterable[str] = ()) -> str:
    """The reduction of a loss: "mean", "sum", "none", or one of the others."""
    name: str = check_choice(op, "reduction", reduction, (*REDUCTIONS, *others))
    return name


def check_number(
    op: str,
    what: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
) -> Any:
    """The number; ArgumentError unless above < value, and least <= value <= most."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not (least <= value <= most and (value > above or above == -math.inf)):
        raise ArgumentError(
            f"{what} does not fit",
            op=op,
            expect=_interval(what, least, most, above),
            actual=repr(value),
            hint=f"give {what} as a number in that range",
        )
    return value


def check_probability(op: str, p: Any) -> float:
    """The probability; ArgumentError unless 0 <= p <= 1."""
    share: float = check_number(op, "p", p, 0, 1)
    return share


def check_divides(op: str, divisor: str, by: int, **counts: int) -> None:
    """Raise ArgumentError unless `by`, the argument `divisor`, is above 0 and divides all."""
    check_counts(op, 1, **{divisor: by})
    if any(n % by for n in counts.values()):
        raise ArgumentError(
            f"{divisor} does not divide all of {', '.join(counts)}",
            op=op,
            expect=f"multiples of {divisor}={by}",
            actual=_listed(counts),
            hint=f"choose another {divisor}",
        )


def tuple_of(op: str, what: str, value: Any, rank: int, least: int) -> tuple[int, ...]:
    """An int, or one int per axis, as `rank` ints; ArgumentError for one below `least`."""
    return sizes(op, what, value, rank, least)


def shape_of(op: str, what: str, value: Any) -> tuple[int, ...]:
    """An int or ints as a shape; ArgumentError for one below 0."""
    shape = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    check_counts(op, 0, **{f"{what}[{i}]": n for i, n in enumerate(shape)})
    return shape


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _interval(what: str, least: float, most: float, above: float) -> str:
    low = f"{above} < " if above > -math.inf else f"{least} <= " if least > -math.inf else ""
    return f"{low}{what}" + (f" <= {most}" if most < math.inf else "")
