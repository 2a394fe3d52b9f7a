"""Mixed precision: in which dtype each unit runs within `autocast`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dualgrad.compiler.ir.node import input_node, scalar_node
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.elementwise import to
from dualgrad.compiler.ops.precision import KEPT, LOW
from dualgrad.runtime.dtype import DType, float32, float64
from dualgrad.state import state
from dualgrad.tensor import Tensor, settled

_MOST = 10_000


class Mixed:
    """The 16-bit float per kind of device ("cpu", "cuda"); there is one object for each choice.

    Objects are never freed: native code knows them by their addresses.
    """

    _known: ClassVar[dict[tuple[tuple[str, DType], ...], Mixed]] = {}

    def __init__(self, chosen: tuple[tuple[str, DType], ...]) -> None:
        self.chosen = dict(chosen)
        self._classes: dict[tuple[Any, ...], str] = {}

    @classmethod
    def of(cls, chosen: dict[str, DType]) -> Mixed | None:
        """The object of a choice; None where no device is named."""
        key = tuple(sorted(chosen.items(), key=lambda item: item[0]))
        return cls._known.setdefault(key, cls(key)) if key else None

    def cast(self, unit: Unit, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        """The operands, converted to the dtype in which the unit is to run.

        Numbers, integers and bools stay as they are, and so does everything beside a float64.
        """
        if state.trace is None and any(isinstance(x, np.ndarray | np.generic) for x in operands):
            operands = tuple(
                settled(x, operands) if isinstance(x, np.ndarray | np.generic) else x
                for x in operands
            )
        floats = [x for x in operands if isinstance(x, Tensor) and x.dtype.is_float]
        if not floats or not all(isinstance(x, Tensor | bool | int | float) for x in operands):
            return operands
        low = self.chosen.get(floats[0].type.device.partition(":")[0])
        if low is None or any(x.dtype is float64 for x in floats):
            return operands
        precision = self._class_of(unit, operands)
        if precision == KEPT:
            return operands
        dtype = low if precision == LOW else float32
        return tuple(
            to(x, dtype) if isinstance(x, Tensor) and x.dtype.is_float else x for x in operands
        )

    def _class_of(self, unit: Unit, operands: tuple[Any, ...]) -> str:
        key = (unit, *[x.type if isinstance(x, Tensor) else x.__class__ for x in operands])
        found = self._classes.get(key)
        if found is None:
            if len(self._classes) > _MOST:
                self._classes.clear()
            nodes = tuple(
                input_node(k, x.type) if isinstance(x, Tensor) else scalar_node(k, x.__class__)
                for k, x in enumerate(operands)
            )
            found = self._classes[key] = unit.precision_on(*nodes)
        return found

    def __repr__(self) -> str:
        return ", ".join(f"{kind} {dtype.name}" for kind, dtype in self.chosen.items())
