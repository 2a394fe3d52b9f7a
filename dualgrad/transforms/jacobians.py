"""Whole Jacobians: products with all unit vectors, at once where that can be.

A Jacobian is built by rows, unit vectors of the value sent back, or, if the value is much larger
than the variables, by columns, unit vectors of these sent forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ops.axes import movedim
from dualgrad.compiler.ops.joining import stack
from dualgrad.compiler.ops.view import reshape
from dualgrad.creation import zeros, zeros_like
from dualgrad.ranges import arange, eye
from dualgrad.state import enable_grad, no_grad
from dualgrad.tensor import Tensor
from dualgrad.transforms.calls import Call, Slots, gradients
from dualgrad.transforms.levels import Level

FORWARD_COST = 2  # of a product forward, in products backward
Send = Callable[[Tensor], list[Tensor]]


def jacobian(call: Call) -> Any:
    """The Jacobian of each tensor of the value of a call by each of its variables."""
    sizes = [sum(x.size for x in xs) for xs in (call.outputs, call.variables.tensors)]
    by_columns = sizes[0] > FORWARD_COST * sizes[1]
    blocks = _columns(call) if by_columns else _rows(call)
    with enable_grad() if call.connected else no_grad():
        shaped = [
            [
                reshape(block, (*y.shape, *x.shape))
                for block, x in zip(row, call.variables.tensors, strict=True)
            ]
            for row, y in zip(blocks, call.outputs, strict=True)
        ]
    found = [call.by_arguments([*row]) for row in shaped]
    call.let_go()
    return call.by_outputs(found)


def _rows(call: Call) -> list[list[Tensor]]:
    """For each tensor of the value, its elements along axis 0, before those of each variable."""
    many = call.takes_many(call.outputs)

    def send(k: int, seed: Tensor) -> list[Tensor]:
        seeds: Slots = [None] * len(call.outputs)
        seeds[k] = seed
        return _filled(call.pull(seeds, call.connected, True), call.variables.tensors)

    return [
        _products(call, y, call.variables.tensors, many, lambda seed, k=k: send(k, seed))  # type: ignore[misc]
        for k, y in enumerate(call.outputs)
    ]


def _columns(call: Call) -> list[list[Tensor]]:
    """The same from products with unit vectors of the variables."""
    seeds, rows = call.linear()
    many = call.takes_many([r for r in rows if r is not None])

    def send(k: int, tangent: Tensor) -> list[Tensor]:
        tangents: Slots = [None] * len(rows)
        tangents[k] = tangent
        found = gradients(rows, seeds, tangents, call.connected, True)
        return _filled(found, call.outputs)

    columns = [
        _products(call, x, call.outputs, many, lambda tangent, k=k: send(k, tangent))  # type: ignore[misc]
        for k, x in enumerate(call.variables.tensors)
    ]
    with enable_grad() if call.connected else no_grad():
        return [[movedim(column[k], 0, -1) for column in columns] for k in range(len(call.outputs))]


def _products(call: Call, x: Tensor, results: list[Tensor], many: bool, send: Send) -> list[Tensor]:
    """What `send` makes of unit vectors of the shape of x, along a new axis 0 of each result."""
    n = x.size
    if n == 0:
        return [zeros((0, *r.shape), dtype=r.dtype, device=r.device) for r in results]
    if not many:
        places = arange(n, device=x.device)
        found = [send(reshape((places == k).to(x.dtype), x.shape)) for k in range(int(n))]
        with enable_grad() if call.connected else no_grad():
            return [stack(parts) for parts in zip(*found, strict=True)]
    level = Level(n, "error")
    basis = reshape(eye(n, dtype=x.dtype, device=x.device), (n, *x.shape))
    with level.active():
        return [level.put_together(g) for g in send(level.slices(basis))]


def _filled(found: Slots, like: list[Tensor]) -> list[Tensor]:
    return [zeros_like(x) if g is None else g for g, x in zip(found, like, strict=True)]
