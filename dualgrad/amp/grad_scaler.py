"""`GradScaler`: losses are scaled up, so that gradients in float16 do not vanish."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dualgrad.compiler.ops.classify import isfinite
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import to
from dualgrad.compiler.ops.logical import logical_not, where
from dualgrad.creation import full, zeros
from dualgrad.cuda import is_available
from dualgrad.jit.errors import Unsupported
from dualgrad.runtime.dtype import float16, float32, float64, int32
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad, state
from dualgrad.tensor import Tensor

READY, UNSCALED, STEPPED = "ready", "unscaled", "stepped"


class GradScaler:
    """Multiplies losses by a scale, and leaves out steps whose gradients are not finite.

        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)      # only where gradients are clipped or looked at
        scaler.step(optimizer)
        scaler.update()

    device            where the scale is kept, by default CUDA where there is one
    init_scale        the first scale
    growth_factor     the scale grows by it after `growth_interval` steps with finite gradients
    backoff_factor    the scale shrinks by it after a step whose gradients were not finite
    enabled           False: nothing is scaled, and `step` is the optimizer's

    Eagerly `step` looks whether the gradients are finite and calls the optimizer or does not.  In
    a compiled function, where no value is known, the optimizer makes its step, and parameters and
    state get their old values back if one was not: the same bits.  In both, a compiled training
    step stays one program: neither `step` nor `update` has it wait for a value.

    Rules of P. Micikevicius et al., "Mixed precision training", 2018, in PyTorch's form, so that
    its state dicts load.  Raises ArgumentError for impossible factors, and for calls out of order.
    """

    def __init__(
        self,
        device: str | None = None,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        _require("init_scale", init_scale, "a finite number > 0", 0.0 < init_scale < math.inf)
        _require("growth_factor", growth_factor, "a number > 1", growth_factor > 1.0)
        _require("backoff_factor", backoff_factor, "0 < number < 1", 0.0 < backoff_factor < 1.0)
        _require("growth_interval", growth_interval, "an int >= 1", growth_interval >= 1)
        self._enabled = bool(enabled)
        device = device or ("cuda" if is_available() else "cpu")
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = growth_interval
        self._scale = full((), init_scale, dtype=float32, device=device if enabled else "cpu")
        self._growth_tracker = zeros((), dtype=int32, device=self._scale.device)
        # by the optimizer's id, until `update`: how far it is, and 1.0 if a gradient is not finite
        self._stages: dict[int, str] = {}
        self._found: dict[int, Tensor] = {}

    # -- a training step ----------------------------------------------------------------------

    def scale(self, outputs: Any) -> Any:
        """A tensor times the scale; or all those in a list, a tuple or another iterable."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._scale.to(outputs.device)
        if not isinstance(outputs, Iterable) or isinstance(outputs, str | bytes):
            raise ArgumentError(
                "only tensors can be scaled",
                op="GradScaler.scale",
                expect="a tensor, or an iterable of tensors",
                actual=type(outputs).__name__,
                hint="pass the loss",
            )
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, list | tuple) else scaled

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, in place.

        `step` does it where it has not been done.  Raises ArgumentError if it has been done since
        the last `update`, if there is no gradient, or if one is in float16: its dtype cannot hold
        what the division leaves.
        """
        if not self._enabled:
            return
        stage = self._stages.get(id(optimizer), READY)
        if stage != READY:
            raise _out_of_order("unscale_", stage)
        with no_grad():
            self._found[id(optimizer)] = self._unscale(optimizer)
        self._stages[id(optimizer)] = UNSCALED

    def _unscale(self, optimizer: Any) -> Tensor:
        inverse = _inverse(self._scale)
        found = zeros((), dtype=float32, device=self._scale.device)
        seen = False
        for param in _parameters(optimizer):
            grad = param.grad
            if grad is None:
                continue
            if grad.dtype is float16:
                raise ArgumentError(
                    "a gradient is in float16",
                    op="GradScaler.unscale_",
                    expect="parameters in float32, which autocast converts at each use",
                    actual=f"{grad.type!r}",
                    hint="keep the model in float32 and run its forward pass in dg.autocast",
                )
            seen = True
            place = grad.device
            new, found = _unscaled(grad, inverse.to(place), found.to(place))
            grad.copy_(new)
        if not seen:
            raise ArgumentError(
                "no parameter of the optimizer has a gradient",
                op="GradScaler.unscale_",
                expect="gradients of the scaled loss",
                hint="call scaler.scale(loss).backward() before",
            )
        return found.to(self._scale.device)

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Unscale the gradients, if that has not been done, and call `optimizer.step` with the
        arguments unless one of them is infinite or NaN.  Returns what it returns, else None."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or any(callable(x) for x in args):
            raise ArgumentError(
                "a closure computes the loss again, which would not be scaled",
                op="GradScaler.step",
                expect="an optimizer whose step takes no closure",
                hint="call backward() yourself, then scaler.step(optimizer)",
            )
        if self._stages.get(id(optimizer), READY) == STEPPED:
            raise _out_of_order("step", STEPPED)
        if self._stages.get(id(optimizer), READY) == READY:
            self.unscale_(optimizer)
        found = self._found[id(optimizer)]
        self._stages[id(optimizer)] = STEPPED
        if state.trace is not None:
            return _step_unless(found, optimizer, args, kwargs)
        return None if found.item() else optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        """Adjust the scale to what the steps since the last time have found, or set it.

        Raises ArgumentError if there has been no step and no scale is given.
        """
        if not self._enabled:
            return
        with no_grad():
            if new_scale is not None:
                self._scale.copy_(
                    to(new_scale, float32)
                    if isinstance(new_scale, Tensor)
                    else full((), new_scale, dtype=float32)
                )
            else:
                self._adjust()
        self._stages.clear()
        self._found.clear()

    def _adjust(self) -> None:
        found = list(self._found.values())
        if not found:
            raise ArgumentError(
                "no gradients have been looked at since the last update",
                op="GradScaler.update",
                expect="scaler.step(optimizer) before",
                hint="call update() once for each training step, after all optimizers",
            )
        total = found[0]
        for other in found[1:]:
            total = total.maximum(other)
        numbers = (self._growth_factor, self._backoff_factor, self._growth_interval)
        new = _adjusted(self._scale, self._growth_tracker, total, *numbers)
        self._scale.copy_(new[0])
        self._growth_tracker.copy_(new[1])

    # -- facts --------------------------------------------------------------------------------

    def is_enabled(self) -> bool:
        """Whether anything is scaled."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale; 1.0 if nothing is scaled."""
        return float(self._scale.item()) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        _require("growth_factor", new_factor, "a number > 1", new_factor > 1.0)
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        _require("backoff_factor", new_factor, "0 < number < 1", 0.0 < new_factor < 1.0)
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        _require("growth_interval", new_interval, "an int >= 1", new_interval >= 1)
        self._growth_interval = new_interval

    def state_dict(self) -> dict[str, Any]:
        """The scale and what governs it, as numbers; empty if nothing is scaled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": int(self._growth_tracker.item()),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` has given.  Raises ArgumentError if something is missing or
        impossible; nothing is changed then."""
        if not self._enabled:
            return
        own = self.state_dict()
        if own.keys() != dict(state_dict).keys():
            raise ArgumentError(
                "the state is not that of a scaler",
                op="GradScaler.load_state_dict",
                expect=", ".join(own),
                actual=", ".join(map(str, state_dict)) or "nothing",
                hint="the state of a scaler that was not enabled is empty"
                if not state_dict
                else "give what state_dict() has returned",
            )
        given = dict(state_dict)
        loaded = GradScaler(
            self._scale.device,
            float(given["scale"]),
            given["growth_factor"],
            given["backoff_factor"],
            given["growth_interval"],
        )
        self._growth_factor, self._backoff_factor = loaded._growth_factor, loaded._backoff_factor
        self._growth_interval = loaded._growth_interval
        with no_grad():
            self._scale.copy_(loaded._scale)
            self._growth_tracker.fill_(int(given["_growth_tracker"]))


def _require(name: str, value: Any, expect: str, holds: bool) -> None:
    if not holds:
        raise ArgumentError(
            f"{name} has a value it cannot have",
            op="GradScaler",
            expect=expect,
            actual=repr(value),
            hint=f"give {name} a number of this range",
        )


def _out_of_order(what: str, stage: str) -> ArgumentError:
    return ArgumentError(
        f"{what} is called too late: the gradients of this optimizer have been {stage}"
        if stage == UNSCALED
        else f"{what} is called after the optimizer's step",
        op=f"GradScaler.{what}",
        expect="unscale_, then step, each once between two updates",
        hint="call scaler.update() at the end of each training step",
    )


def _parameters(optimizer: Any) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _states(optimizer: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The state of each parameter of an optimizer, with its key."""
    every = optimizer.state
    return iter(every.items() if isinstance(every, Mapping) else enumerate(every))


def _step_unless(found: Tensor, optimizer: Any, args: Any, kwargs: Any) -> Any:
    """Make a step; where `found` is not 0, parameters and state keep the values they have."""
    with no_grad():
        skips = found > 0
        params = [(p, p.detach().clone()) for p in _parameters(optimizer) if p.grad is not None]
        before = {
            (key, name): value.clone() if isinstance(value, Tensor) else value
            for key, values in _states(optimizer)
            for name, value in values.items()
        }
        result = optimizer.step(*args, **kwargs)
        for param, old in params:
            param.copy_(where(skips.to(param.device), old, param))
        for key, values in _states(optimizer):
            for name, value in values.items():
                kept = before.get((key, name))
                if isinstance(value, Tensor) and isinstance(kept, Tensor):
                    value.copy_(where(skips.to(value.device), kept, value))
                elif value is not kept:
                    raise _cannot_skip(type(optimizer).__name__, name)
    return result


def _cannot_skip(op: str, name: str) -> Unsupported:
    return Unsupported(
        f"a step that may be skipped makes or changes {name}",
        op=op,
        expect="state in tensors that are made in the optimizer's constructor",
        why="whether the gradients are finite is not known while the function is traced",
        hint="keep numbers in tensors of shape ()",
    )


@composite
def _inverse(scale: Any) -> Any:
    return to(1.0 / to(scale, float64), float32)


@composite
def _unscaled(grad: Any, inverse: Any, found: Any) -> Any:
    """The gradient divided by the scale; 1 if it or one before was not finite."""
    bad = to(logical_not(isfinite(grad)).any(), float32)
    return grad * inverse, found.maximum(bad)


@composite
def _adjusted(
    scale: Any, tracker: Any, found: Any, growth: Any, backoff: Any, interval: Any
) -> Any:
    """The next scale, and how many steps in a row have had finite gradients."""
    bad = found > 0
    steps = tracker + 1
    due = steps >= interval
    wide = to(scale, float64)
    grown = to(wide * growth, float32)
    larger = where(isfinite(grown), grown, scale)
    good = where(due, larger, scale)
    return where(bad, to(wide * backoff, float32), good), where(bad | due, 0, steps)
