"""Moving values between devices."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.ops.base import Op
from dualgrad.compiler.ops.sample import Arg, Sample


class Transfer(Op):
    """The same values in new, row-major memory of a device, given by its canonical name.  The
    gradient comes back to where the values came from."""

    device: str

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(types[0].shape, types[0].dtype, False, self.device)

    def output_type(self, *types: TensorType) -> TensorType:
        return self.infer(*types)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (transfer(g, x.device),)

    @staticmethod
    def samples() -> list[Sample]:
        return [Sample(lambda x: transfer(x, "cpu"), (Arg((2, 3)),), lambda np, x: x)]


def transfer(x: Any, device: str) -> Any:
    """Return x on a device, x itself if it is there; for canonical names."""
    return x if x.device == device else apply(Transfer.of(device), x)[0]
