"""Library ops: what a function of the host computes, on whole tensors.

A class states `routine`, the name of a function in `runtime.library`.  That function is called as
`function(out, *inputs, *sizes, *params)`: arrays in row-major memory, then the fields that
`measured` names (dimensions, known when the program runs), then all other fields.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ops.base import Op
from dualgrad.runtime.program import Param


@dataclass(frozen=True, eq=False)
class Library(Op, abstract=True):
    """out = routine(inputs)."""

    required = (*Op.required, "routine")
    routine: ClassVar[str]
    measured: ClassVar[tuple[str, ...]] = ()

    @property
    def sizes(self) -> tuple[Dim, ...]:
        return tuple(getattr(self, name) for name in self.measured)

    @property
    def params(self) -> tuple[Param, ...]:
        names = [f.name for f in dataclasses.fields(self)]
        return tuple(getattr(self, name) for name in names if name not in self.measured)
