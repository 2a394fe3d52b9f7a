"""Schedules: learning rates that change from step to step, with PyTorch's names and formulas.

A schedule is a formula of Python numbers, evaluated in float64 as PyTorch does.  Inside of a
compiled function it is evaluated at each call, and the learning rate is an input of the program:
a step with a schedule is one program.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dualgrad.jit.ledger import on_numbers
from dualgrad.optim.optimizer import Group, Optimizer
from dualgrad.runtime.errors import ArgumentError


class LRScheduler(ABC):
    """Base class: `step()` after each step (or epoch) of the optimizer sets its learning rates.

    optimizer   its groups get a key "initial_lr", the rate before the schedule
    last_epoch  -1 to begin; to go on, the number of steps made, with "initial_lr" in all groups

    Raises ArgumentError for impossible arguments.
    """

    optimizer: Optimizer
    base_lrs: list[float]
    last_epoch: int

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(type(self).__name__, optimizer)
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(
                    "a schedule cannot go on without its first rate",
                    op=type(self).__name__,
                    expect='"initial_lr" in each group, or last_epoch=-1',
                    actual=f"none in group {number}",
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        self._step_count = 1
        self._last_lr: list[float] = []
        self._set(self.start() if last_epoch == -1 else self.go_on())

    @abstractmethod
    def get_lr(self) -> list[float]:
        """The rates of all groups at `last_epoch`, from those of the step before."""

    def start(self) -> list[float]:
        """The rates at step 0."""
        return self.get_lr()

    def go_on(self) -> list[float]:
        """The rates when a schedule is taken up again."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Set the rates of the next step."""
        self._step_count += 1
        self.last_epoch += 1
        self._set(self.get_lr())

    def restart(self) -> None:
        """Set the rates of step 0."""
        self.last_epoch = 0
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base
        self._set(self.start())

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    def get_last_lr(self) -> list[float]:
        """The rates set last, one per group."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """All that is not the optimizer's."""
        return {name: value for name, value in self.__dict__.items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the schedule was that gave this state."""
        self.__dict__.update(state_dict)

    def _each(self, formula: Callable[..., float], *numbers: float) -> list[float]:
        """formula(rate, base rate, step, *numbers) of each group."""
        groups = zip(self.optimizer.param_groups, self.base_lrs, strict=True)
        return [formula(g["lr"], base, self.last_epoch, *numbers) for g, base in groups]


def check_optimizer(op: str, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(
            "the first argument is no optimizer",
            op=op,
            expect="an Optimizer",
            actual=type(optimizer).__name__,
        )
    return optimizer


def per_group(op: str, name: str, value: Any, groups: Sequence[Group]) -> list[Any]:
    """One value for each group: a list of them, or one for all."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(groups)
    if len(values) != len(groups):
        raise ArgumentError(
            f"{name} does not fit the parameter groups",
            op=op,
            expect=f"one value, or {len(groups)}",
            actual=f"{len(values)}",
        )
    return values


def _within(op: str, name: str, value: Any, low: float, high: float) -> None:
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ArgumentError(
            f"{name} has a value it cannot have",
            op=op,
            expect=f"{low:g} <= {name} <= {high:g}",
            actual=repr(value),
        )


def _count(op: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{name} is no count", op=op, expect="an int >= 1", actual=repr(value))


class LambdaLR(LRScheduler):
    """rate = base rate * lr_lambda(step); one function, or one for each group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        groups = check_optimizer("LambdaLR", optimizer).param_groups
        self.lr_lambdas = per_group("LambdaLR", "lr_lambda", lr_lambda, groups)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        functions = zip(self.lr_lambdas, self.base_lrs, strict=True)
        return [base * function(self.last_epoch) for function, base in functions]

    def go_on(self) -> list[float]:
        return self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """All that is not the optimizer's, nor a function."""
        return {name: v for name, v in super().state_dict().items() if name != "lr_lambdas"}


class MultiplicativeLR(LambdaLR):
    """rate = rate * lr_lambda(step), from step 1 on."""

    def get_lr(self) -> list[float]:
        groups = zip(self.lr_lambdas, self.optimizer.param_groups, strict=True)
        return [group["lr"] * function(self.last_epoch) for function, group in groups]

    def start(self) -> list[float]:
        return list(self.base_lrs)

    def go_on(self) -> list[float]:
        return LRScheduler.go_on(self)


@on_numbers
def _step_lr(rate: float, base: float, step: int, size: int, gamma: float) -> float:
    return rate if step == 0 or step % size != 0 else rate * gamma


class StepLR(LRScheduler):
    """rate = rate * gamma every `step_size` steps."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        _count("StepLR", "step_size", step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._each(_step_lr, self.step_size, self.gamma)


@on_numbers
def _multi_step_lr(rate: float, base: float, step: int, gamma: float, *milestones: int) -> float:
    return rate * gamma ** milestones.count(step) if step in milestones else rate


class MultiStepLR(LRScheduler):
    """rate = rate * gamma at each milestone."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma = list(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._each(_multi_step_lr, self.gamma, *self.milestones)


@on_numbers
def _constant_lr(rate: float, base: float, step: int, factor: float, total: int) -> float:
    if step == 0:
        return rate * factor
    return rate * (1.0 / factor) if step == total else rate


class ConstantLR(LRScheduler):
    """rate = base rate * factor before step `total_iters`."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        _within("ConstantLR", "factor", factor, 0.0, 1.0)
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._each(_constant_lr, self.factor, self.total_iters)


@on_numbers
def _linear_lr(rate: float, base: float, step: int, first: float, last: float, total: int) -> float:
    if step == 0:
        return rate * first
    if step > total:
        return rate
    return rate * (1.0 + (last - first) / (total * first + (step - 1) * (last - first)))


class LinearLR(LRScheduler):
    """rate = base rate * a factor that goes from start_factor to end_factor in total_iters."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        _within("LinearLR", "start_factor", start_factor, math.ulp(0.0), 1.0)
        _within("LinearLR", "end_factor", end_factor, 0.0, 1.0)
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._each(_linear_lr, self.start_factor, self.end_factor, self.total_iters)


class ExponentialLR(LRScheduler):
    """rate = rate * gamma at each step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [group["lr"] * self.gamma for group in self.optimizer.param_groups]

    def start(self) -> list[float]:
        return list(self.base_lrs)


@on_numbers
def _polynomial_lr(rate: float, base: float, step: int, total: int, power: float) -> float:
    if step == 0 or step > total:
        return rate
    factor = ((1.0 - step / total) / (1.0 - (step - 1) / total)) ** power
    return rate * factor


class PolynomialLR(LRScheduler):
    """rate = base rate * (1 - step / total_iters) ** power."""

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        _count("PolynomialLR", "total_iters", total_iters)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._each(_polynomial_lr, self.total_iters, self.power)


@on_numbers
def _cosine_lr(rate: float, base: float, step: int, half: int, least: float) -> float:
    if step == 0:
        return rate
    if (step - 1 - half) % (2 * half) == 0:
        return rate + (base - least) * (1 - math.cos(math.pi / half)) / 2
    before = 1 + math.cos(math.pi * (step - 1) / half)
    return (1 + math.cos(math.pi * step / half)) / before * (rate - least) + least


class CosineAnnealingLR(LRScheduler):
    """rate = eta_min + (base rate - eta_min) * (1 + cos(pi step / T_max)) / 2, as a recursion.

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        _count("CosineAnnealingLR", "T_max", T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._each(_cosine_lr, self.T_max, self.eta_min)


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
        _count("CosineAnnealingWarmRestarts", "T_0", T_0)
        _count("CosineAnnealingWarmRestarts", "T_mult", T_mult)
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

    def restart(self) -> None:
        self.T_cur, self.T_i = 0, self.T_0
        super().restart()


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
            _count(op, "epochs", epochs)
            _count(op, "steps_per_epoch", steps_per_epoch)
            total_steps = (epochs or 0) * (steps_per_epoch or 0)
        _count(op, "total_steps", total_steps)
        _within(op, "pct_start", pct_start, 0.0, 1.0)
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(
                "unknown strategy", op=op, expect="'cos' or 'linear'", actual=repr(anneal_strategy)
            )
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
                self._start_momentum(groups, max_momentum, base_momentum)
        super().__init__(optimizer, last_epoch)

    def _start_momentum(self, groups: list[Group], most: Any, least: Any) -> None:
        if "momentum" not in groups[0] and "betas" not in groups[0]:
            raise ArgumentError(
                "there is no momentum to cycle",
                op="OneCycleLR",
                expect="an optimizer with momentum or betas, or cycle_momentum=False",
                actual=f"hyper-parameters {', '.join(k for k in groups[0] if k != 'params')}",
            )
        highs = per_group("OneCycleLR", "max_momentum", most, groups)
        lows = per_group("OneCycleLR", "base_momentum", least, groups)
        for group, high, low in zip(groups, highs, lows, strict=True):
            group["max_momentum"], group["base_momentum"] = high, low

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


def _set_momentum(group: Group, value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


class SequentialLR:
    """One schedule after the other: the k-th from milestone k - 1 on, each from its step 0.

    Raises ArgumentError unless all are of this optimizer, with one milestone less than schedules.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Iterable[LRScheduler], milestones: Iterable[int]
    ) -> None:
        self.optimizer = check_optimizer("SequentialLR", optimizer)
        self._schedulers, self._milestones = list(schedulers), list(milestones)
        if len(self._schedulers) != len(self._milestones) + 1:
            raise ArgumentError(
                "milestones do not fit the schedules",
                op="SequentialLR",
                expect=f"{len(self._schedulers) - 1} milestones",
                actual=f"{len(self._milestones)}",
            )
        if any(s.optimizer is not optimizer for s in self._schedulers):
            raise ArgumentError(
                "a schedule belongs to another optimizer",
                op="SequentialLR",
                expect="schedules of the one optimizer",
                actual=", ".join(type(s).__name__ for s in self._schedulers),
            )
        self.last_epoch = 0
        for scheduler in self._schedulers[1:]:
            scheduler.last_epoch = -1
        self._schedulers[0].restart()

    def step(self) -> None:
        """Set the rates of the next step."""
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        if number > 0 and self._milestones[number - 1] == self.last_epoch:
            self._schedulers[number].restart()
        else:
            self._schedulers[number].step()

    def get_last_lr(self) -> list[float]:
        """The rates set last, one per group."""
        number = bisect_right(self._milestones, self.last_epoch)
        return self._schedulers[number].get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The step, and the states of the schedules."""
        states = [s.state_dict() for s in self._schedulers]
        return {"last_epoch": self.last_epoch, "_schedulers": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the schedules were that gave this state."""
        self.last_epoch = state_dict["last_epoch"]
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class ReduceLROnPlateau:
    """rate = rate * factor when `step(metric)` has not become better `patience` times in a row.

    mode            "min" or "max": what is better
    threshold       how much better: a factor ("rel") or a difference ("abs"), by threshold_mode
    cooldown        steps after a reduction that are not counted
    min_lr          least rate, one or a list with one per group
    eps             smaller changes of a rate are not made

    A step asks for the metric's value: call it outside of compiled functions.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Any = 0,
        eps: float = 1e-8,
    ) -> None:
        op = "ReduceLROnPlateau"
        groups = check_optimizer(op, optimizer).param_groups
        _within(op, "factor", factor, 0.0, math.nextafter(1.0, 0.0))
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ArgumentError(
                "unknown mode",
                op=op,
                expect="mode 'min' or 'max', threshold_mode 'rel' or 'abs'",
                actual=f"mode {mode!r}, threshold_mode {threshold_mode!r}",
            )
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self.min_lrs, self.eps = per_group(op, "min_lr", min_lr, groups), eps
        self.best = math.inf if mode == "min" else -math.inf
        self.last_epoch = self.num_bad_epochs = self.cooldown_counter = 0

    def step(self, metrics: Any) -> None:
        """Note a metric, a number or tensor of one element, and reduce the rates if it is time."""
        current = float(metrics)
        self.last_epoch += 1
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                rate = max(group["lr"] * self.factor, least)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, current: float) -> bool:
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            limit = self.best * (1.0 + sign * self.threshold)
        else:
            limit = self.best + sign * self.threshold
        return sign * current > sign * limit

    def get_last_lr(self) -> list[float]:
        """The rates of all groups."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All that is not the optimizer's."""
        return {name: value for name, value in self.__dict__.items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the schedule was that gave this state."""
        self.__dict__.update(state_dict)
