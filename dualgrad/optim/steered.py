"""Schedules that follow others, or what happens in training."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.arguments import check_choice
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.schedule import (
    LRScheduler,
    check_optimizer,
    check_state,
    check_values,
    load_state,
    per_group,
    state_of,
    take_state,
    within,
)
from dualgrad.runtime.errors import ArgumentError


class Schedules:
    """Several schedules of one optimizer.

    Raises ArgumentError for none, for those of another optimizer, and for ReduceLROnPlateau.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Iterable[Any]) -> None:
        op = type(self).__name__
        self.optimizer = check_optimizer(op, optimizer)
        self._schedulers = list(schedulers)
        for schedule in self._schedulers:
            if not isinstance(schedule, LRScheduler | Schedules):
                raise ArgumentError(
                    "not a schedule that goes by steps",
                    op=op,
                    expect="schedules whose step() takes no metric",
                    actual=type(schedule).__name__,
                    hint="step it on its own",
                )
        if any(s.optimizer is not optimizer for s in self._schedulers):
            raise ArgumentError(
                "a schedule belongs to another optimizer",
                op=op,
                expect="schedules of the one optimizer",
                actual=", ".join(type(s).__name__ for s in self._schedulers),
                hint="make all schedules with the optimizer that is given here",
            )

    def state_dict(self) -> dict[str, Any]:
        """All that is not the optimizer's, and the states of the schedules."""
        states = [s.state_dict() for s in self._schedulers]
        return {**state_of(self), "_schedulers": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the schedules were that gave this state.

        Raises ArgumentError for what is no state of so many schedules.
        """
        states = state_dict.get("_schedulers") if isinstance(state_dict, Mapping) else None
        if not isinstance(states, list) or len(states) != len(self._schedulers):
            raise ArgumentError(
                "the state has other schedules",
                op=type(self).__name__,
                expect=f"a state of {len(self._schedulers)} schedules",
                actual=f"{len(states)}" if isinstance(states, list) else "none",
                hint="make the same schedules that it was saved with",
            )
        check_values(self, state_dict)
        pairs = list(zip(self._schedulers, states, strict=True))
        for scheduler, state in pairs:
            check_state(scheduler, state)
        take_state(self, state_dict)
        for scheduler, state in pairs:
            scheduler.load_state_dict(state)


class SequentialLR(Schedules):
    """One schedule after the other: the k-th from milestone k - 1 on, each from its step 0.

    Raises ArgumentError unless all are of this optimizer, with one milestone less than schedules.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Iterable[LRScheduler],
        milestones: Iterable[int],
        last_epoch: int = -1,
    ) -> None:
        super().__init__(optimizer, schedulers)
        self._milestones = list(milestones)
        if len(self._schedulers) != len(self._milestones) + 1:
            raise ArgumentError(
                "milestones do not fit the schedules",
                op="SequentialLR",
                expect=f"{len(self._schedulers) - 1} milestones",
                actual=f"{len(self._milestones)}",
                hint="a milestone stands between two schedules",
            )
        self.restart()
        self.last_epoch = last_epoch + 1

    def restart(self) -> None:
        """Set the rates of step 0."""
        self.last_epoch = 0
        for scheduler in self._schedulers[1:]:
            scheduler.last_epoch = -1
        self._schedulers[0].restart()

    def begin(self) -> None:
        """Go to step 0, from the rates that the groups have."""
        self.last_epoch = 0
        self._schedulers[0].begin()

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
        last: list[float] = self._schedulers[number].get_last_lr()
        return last


class ChainedScheduler(Schedules):
    """Several schedules at once: each changes the rates that those before it have set.

    optimizer  that of the first schedule unless given

    Raises ArgumentError unless all are of one optimizer.
    """

    def __init__(self, schedulers: Iterable[LRScheduler], optimizer: Any = None) -> None:
        schedulers = list(schedulers)
        if optimizer is None and schedulers:
            optimizer = getattr(schedulers[0], "optimizer", None)
        super().__init__(optimizer, schedulers)

    def restart(self) -> None:
        """Set the rates of step 0."""
        self._schedulers[0].restart()
        for scheduler in self._schedulers[1:]:
            scheduler.begin()

    def begin(self) -> None:
        """Go to step 0, from the rates that the groups have."""
        for scheduler in self._schedulers:
            scheduler.begin()

    def step(self) -> None:
        """Set the rates of the next step."""
        for scheduler in self._schedulers:
            scheduler.step()

    def get_last_lr(self) -> list[float]:
        """The rates set last, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]


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
        within(op, "factor", factor, 0.0, math.nextafter(1.0, 0.0))
        check_choice(op, "mode", mode, ("min", "max"))
        check_choice(op, "threshold_mode", threshold_mode, ("rel", "abs"))
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
        return state_of(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the schedule was that gave this state; PyTorch's states will do.

        Raises ArgumentError for what is no state of a schedule.
        """
        load_state(self, state_dict)
