"""Schedules that go up and down: warm restarts, and one cycle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ops.arguments import check_choice
from dualgrad.jit.ledger import on_numbers
from dualgrad.optim.loading import Group
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.schedule import LRScheduler, check_optimizer, count, per_group, within
from dualgrad.runtime.errors import ArgumentError


@on_numbers
def _warm_restarts_lr(base: float, current: float, period: float, least: float) -> float:
    return least + (base - least) * (1 + math.cos(math.pi * current / period)) / 2


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine over T_0 steps, then over T_0 * T_mult, and so on; see CosineAnnealingLR."""

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        count("CosineAnnealingWarmRestarts", "T_0", T_0)
        count("CosineAnnealingWarmRestarts", "T_mult", T_mult)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        self.T_cur, self.T_i = last_epoch + 1, T_0
        while self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= T_mult
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        numbers = (self.T_cur, self.T_i, self.eta_min)
        return [_warm_restarts_lr(base, *numbers) for base in self.base_lrs]

    def go_on(self) -> list[float]:
        return self.get_lr()

    def step(self) -> None:
        self.T_cur += 1
        if self.T_cur >= self.T_i:
            self.T_cur, self.T_i = self.T_cur - self.T_i, self.T_i * self.T_mult
        super().step()

    def begin(self) -> None:
        self.T_cur, self.T_i = 0, self.T_0
        super().begin()


@on_numbers
def _one_cycle(step: int, linear: bool, *rest: float) -> float:
    """The value at a step; `rest` is the last step of each phase, then the values between which
    the phases go."""
    phases = len(rest) // 2
    ends, values = rest[:phases], rest[phases:]
    if step > ends[-1] + 1:
        raise ArgumentError(
            "the cycle is over",
            op="OneCycleLR",
            expect=f"at most {ends[-1] + 1} steps",
            actual=f"step {step}",
            hint="make total_steps as large as the number of calls of step()",
        )
    k = next((k for k in range(phases - 1) if step <= ends[k]), phases - 1)
    start = 0.0 if k == 0 else ends[k - 1]
    part = (step - start) / (ends[k] - start)
    first, last = values[k], values[k + 1]
    if linear:
        return (last - first) * part + first
    return last + (first - last) / 2.0 * (math.cos(math.pi * part) + 1)


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr, then down to max_lr / div_factor / final_div_factor;
    momentum (or beta1) goes the other way.

    total_steps (or epochs * steps_per_epoch) is the length, pct_start the part that goes up.
    three_phase: down to the initial rate in the same time first.  Rates, momenta: one or a list
    with one per group.

    Source: L. Smith, N. Topin, "Super-convergence", 2018.

    Raises ArgumentError for impossible arguments, and in a step after the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        op = "OneCycleLR"
        groups = check_optimizer(op, optimizer).param_groups
        if total_steps is None:
            count(op, "epochs", epochs)
            count(op, "steps_per_epoch", steps_per_epoch)
            total_steps = (epochs or 0) * (steps_per_epoch or 0)
        count(op, "total_steps", total_steps)
        within(op, "pct_start", pct_start, 0.0, 1.0)
        check_choice(op, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.total_steps, self.three_phase = total_steps, three_phase
        self.linear, self.cycle_momentum = anneal_strategy == "linear", cycle_momentum
        up = float(pct_start * total_steps) - 1
        self.ends = [up, 2 * up] if three_phase else [up]
        self.ends.append(total_steps - 1)
        if last_epoch == -1:
            for group, rate in zip(groups, per_group(op, "max_lr", max_lr, groups), strict=True):
                group["max_lr"], group["initial_lr"] = rate, rate / div_factor
                group["min_lr"] = group["initial_lr"] / final_div_factor
            if cycle_momentum:
                start_momentum(op, groups, max_momentum, base_momentum)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        rates = []
        for group in self.optimizer.param_groups:
            middle = ["initial_lr"] if self.three_phase else []
            names = ["initial_lr", "max_lr", *middle, "min_lr"]
            rates.append(self._value(group, names))
            if self.cycle_momentum:
                middle = ["max_momentum"] if self.three_phase else []
                names = ["max_momentum", "base_momentum", *middle, "max_momentum"]
                _set_momentum(group, self._value(group, names))
        return rates

    def go_on(self) -> list[float]:
        return self.get_lr()

    def _value(self, group: Group, names: list[str]) -> float:
        values = (group[name] for name in names)
        return _one_cycle(self.last_epoch, self.linear, *self.ends, *values)


@on_numbers
def _cycle_part(step: int, total: float, ratio: float) -> float:
    """How far from the base a step is: 0 to 1 in the part `ratio` of a cycle, then back to 0."""
    x = 1.0 + step / total - math.floor(1 + step / total)
    return x / ratio if x <= ratio else (x - 1) / (ratio - 1)


@on_numbers
def _cycle_number(step: int, total: float) -> float:
    return math.floor(1 + step / total)


@on_numbers
def _power(gamma: float, step: float) -> float:
    power: float = gamma**step
    return power


@on_numbers
def _halved(cycle: float) -> float:
    share: float = 1 / (2.0 ** (cycle - 1))
    return share


class CyclicLR(LRScheduler):
    """Up and down along straight lines, from base_lr to max_lr in step_size_up steps and back in
    step_size_down (as many unless given); momentum (or beta1) goes the other way.

    mode      "triangular"; "triangular2": half as high from cycle to cycle; "exp_range": gamma^n
              as high at step n
    scale_fn  a height of one's own in the place of the mode's, of the number of the cycle (from 1)
              or of the step, by scale_mode "cycle" or "iterations"

    Rates, momenta: one or a list with one per group.

    Source: L. Smith, "Cyclical learning rates for training neural networks", 2017.

    Raises ArgumentError for impossible arguments.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Any,
        max_lr: Any,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.8,
        max_momentum: Any = 0.9,
        last_epoch: int = -1,
    ) -> None:
        op = "CyclicLR"
        groups = check_optimizer(op, optimizer).param_groups
        down = step_size_up if step_size_down is None else step_size_down
        count(op, "step_size_up", step_size_up)
        count(op, "step_size_down", down)
        check_choice(op, "mode", mode, ("triangular", "triangular2", "exp_range"))
        check_choice(op, "scale_mode", scale_mode, ("cycle", "iterations"))
        self.total_size = float(step_size_up) + float(down)
        self.step_ratio = step_size_up / self.total_size
        self.mode, self.gamma, self.cycle_momentum = mode, gamma, cycle_momentum
        by_step = mode == "exp_range" if scale_fn is None else scale_mode == "iterations"
        self.scale_fn, self.scale_mode = scale_fn, "iterations" if by_step else "cycle"
        base_lrs = per_group(op, "base_lr", base_lr, groups)
        self.max_lrs = per_group(op, "max_lr", max_lr, groups)
        if last_epoch == -1:
            for group, rate in zip(groups, base_lrs, strict=True):
                group["lr"] = rate
            if cycle_momentum:
                start_momentum(op, groups, max_momentum, base_momentum)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def go_on(self) -> list[float]:
        return self.get_lr()

    def get_lr(self) -> list[float]:
        part = _cycle_part(self.last_epoch, self.total_size, self.step_ratio)
        scale = self._scale()
        if self.cycle_momentum:
            for group in self.optimizer.param_groups:
                high, low = group["max_momentum"], group["base_momentum"]
                _set_momentum(group, high - (high - low) * part * scale)
        rates = zip(self.base_lrs, self.max_lrs, strict=True)
        return [low + (high - low) * part * scale for low, high in rates]

    def _scale(self) -> float:
        by_cycle = self.scale_mode == "cycle"
        x = _cycle_number(self.last_epoch, self.total_size) if by_cycle else self.last_epoch
        if self.scale_fn is not None:
            return self.scale_fn(x)
        if self.mode == "exp_range":
            return _power(self.gamma, x)
        return _halved(x) if self.mode == "triangular2" else 1.0


def start_momentum(op: str, groups: list[Group], most: Any, least: Any) -> None:
    """Note in each group between which momenta it goes.

    Raises ArgumentError if there is no momentum to go.
    """
    if "momentum" not in groups[0] and "betas" not in groups[0]:
        raise ArgumentError(
            "there is no momentum to cycle",
            op=op,
            expect="an optimizer with momentum or betas, or cycle_momentum=False",
            actual=f"hyper-parameters {', '.join(k for k in groups[0] if k != 'params')}",
            hint="pass cycle_momentum=False",
        )
    highs = per_group(op, "max_momentum", most, groups)
    lows = per_group(op, "base_momentum", least, groups)
    for group, high, low in zip(groups, highs, lows, strict=True):
        group["max_momentum"], group["base_momentum"] = high, low


def _set_momentum(group: Group, value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value
