"""Library ops: what a function of the host computes, on whole tensors.

A class states `routine`, the name of a function in `runtime.library`.  That function is called as
`function(out, *inputs, *sizes, *params)`: arrays in row-major memory, then the op's fields that
are sizes (see `Op.dims`), known when the program runs, then all other fields.
"""

from __future__ import annotations

from typing import ClassVar

from dualgrad.compiler.ops.base import Op
from dualgrad.compiler.ops.precision import SINGLE
from dualgrad.runtime.program import Param


class Library(Op, abstract=True):
    """out = routine(inputs)."""

    precision = SINGLE

    required = (*Op.required, "routine")
    routine: ClassVar[str]
    checked = True

    @property
    def params(self) -> tuple[Param, ...]:
        """The fields that are fixed in a program."""
        fixed = (k for k, kind in self.parameters.items() if kind not in ("Dim", "Offset"))
        return tuple(getattr(self, k) for k in fixed)
