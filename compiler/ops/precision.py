"""In which precision a unit runs under `dg.autocast`: its precision class.

- LOW     in the 16-bit float of the context: what multiplies matrices
- SINGLE  in float32: what adds or multiplies many numbers, library routines, and functions whose
          results leave the range or the accuracy of 16-bit floats (exp, log, powers, losses)
- KEPT    in the dtypes of its operands, with the usual promotion: everything else

An op class states its class as `precision`; `Contraction`, `Sum`, `Library` ... state it for their
kind.  The body of a composite is marked with `low`, `single` or `kept`; without a mark the class
follows from the ops in it: LOW if it multiplies matrices, SINGLE if it sums.  Elementwise ops do
not count there, since nothing is rounded between them.

The classes are those of PyTorch's autocast on CUDA, on all devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

LOW, SINGLE, KEPT = "low", "single", "kept"


def low(body: F) -> F:
    """Let a composite run in 16-bit floats under autocast, whatever its body does."""
    body.precision = LOW  # type: ignore[attr-defined]
    return body


def single(body: F) -> F:
    """Let a composite run in float32 under autocast, whatever its body does."""
    body.precision = SINGLE  # type: ignore[attr-defined]
    return body


def kept(body: F) -> F:
    """Let a composite run in the dtypes of its operands under autocast, whatever its body does."""
    body.precision = KEPT  # type: ignore[attr-defined]
    return body
