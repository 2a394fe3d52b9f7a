"""Schedules: learning rates that change from step to step, with PyTorch's names and formulas.

A schedule is a formula of Python numbers, evaluated in float64 as PyTorch does.  Inside of a
compiled function it is evaluated at each call, and the learning rate is an input of the program:
a step with a schedule is one program.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.jit.ledger import on_numbers
from dualgrad.optim.cycles import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.schedule import LRScheduler, check_optimizer, count, per_group, within
from dualgrad.optim.steered import ChainedScheduler, ReduceLROnPlateau, SequentialLR

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


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


class MultiplicativeLR(LambdaLR):
    """rate = rate * lr_lambda(step), from step 1 on."""

    def get_lr(self) -> list[float]:
        groups = zip(self.lr_lambdas, self.optimizer.param_groups, strict=True)
        return [group["lr"] * function(self.last_epoch) for function, group in groups]

    def start(self) -> list[float]:
        return LRScheduler.go_on(self)

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
        count("StepLR", "step_size", step_size)
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

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if isinstance(self.milestones, Mapping):  # PyTorch keeps a Counter
            self.milestones = [m for m, n in self.milestones.items() for _ in range(n)]


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
        within("ConstantLR", "factor", factor, 0.0, 1.0)
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
        within("LinearLR", "start_factor", start_factor, math.ulp(0.0), 1.0)
        within("LinearLR", "end_factor", end_factor, 0.0, 1.0)
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
        return LRScheduler.go_on(self)


@on_numbers
def _polynomial_lr(rate: float, base: float, step: int, total: int, power: float) -> float:
    if step == 0 or step > total:
        return rate
    factor: float = ((1.0 - step / total) / (1.0 - (step - 1) / total)) ** power
    return rate * factor


class PolynomialLR(LRScheduler):
    """rate = base rate * (1 - step / total_iters) ** power."""

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        count("PolynomialLR", "total_iters", total_iters)
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
        count("CosineAnnealingLR", "T_max", T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._each(_cosine_lr, self.T_max, self.eta_min)
