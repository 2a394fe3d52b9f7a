"""What schedules of learning rates have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Final

from dualgrad.optim.loading import Group
from dualgrad.optim.optimizer import Optimizer
from dualgrad.runtime.errors import ArgumentError

_PER_GROUP: Final = ("base_lrs", "_last_lr", "min_lrs")


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
                    hint="load the state of the optimizer first, or leave last_epoch out",
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        self._step_count = 1
        self._last_lr: list[float] = [0.0] * len(self.base_lrs)
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
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base
        self.begin()

    def begin(self) -> None:
        """Go to step 0, from the rates that the groups have."""
        self.last_epoch = 0
        self._set(self.start())

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        # In the same list each time: a compiled step looks for it where it was.
        self._last_lr[:] = rates

    def get_last_lr(self) -> list[float]:
        """The rates set last, one per group."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """All that is not the optimizer's, nor a function."""
        return state_of(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the schedule was that gave this state; PyTorch's states will do.

        Raises ArgumentError for what is no state of a schedule.
        """
        load_state(self, state_dict)

    def _each(self, formula: Callable[..., float], *numbers: float) -> list[float]:
        """formula(rate, base rate, step, *numbers) of each group."""
        groups = zip(self.optimizer.param_groups, self.base_lrs, strict=True)
        return [formula(g["lr"], base, self.last_epoch, *numbers) for g, base in groups]


def state_of(schedule: Any) -> dict[str, Any]:
    """The attributes of a schedule that are data, lists as copies."""
    state: dict[str, Any] = {}
    for name, value in vars(schedule).items():
        if type(value) is list:
            if all(isinstance(v, int | float) for v in value):
                state[name] = list(value)
        elif value is None or isinstance(value, int | float | str):
            state[name] = value
    return state


def check_state(schedule: Any, given: Any) -> None:
    """Raise ArgumentError for what is no state of such a schedule."""
    if not isinstance(given, Mapping) or "last_epoch" not in given:
        raise ArgumentError(
            "this is no state of a schedule",
            op=type(schedule).__name__,
            expect="a dict with the key 'last_epoch'",
            actual=f"keys {list(given)}" if isinstance(given, Mapping) else type(given).__name__,
            hint="pass what its state_dict() returned",
        )
    check_values(schedule, given)


def check_values(schedule: Any, given: Mapping[str, Any]) -> None:
    """Raise ArgumentError for values that cannot be those of the schedule's attributes."""
    own = state_of(schedule)
    lines = [
        f"{name}: {given[name]!r} instead of {value!r}"
        for name, value in own.items()
        if name in given and not _is_alike(name, value, given[name])
    ]
    if lines:
        raise ArgumentError(
            "this is no state of such a schedule",
            op=type(schedule).__name__,
            expect="values of the same kinds, rates for as many groups",
            actual="".join(f"\n    {line}" for line in lines),
            hint="make the schedule with the arguments that it was saved with",
        )


def _is_alike(name: str, own: Any, given: Any) -> bool:
    """Whether a value of a state can take the place of an attribute."""
    if isinstance(own, list):
        numbers = isinstance(given, list | tuple | Mapping) and all(map(_is_number, given))
        return numbers and (name not in _PER_GROUP or len(given) == len(own))
    if own is None or given is None:
        return own is None and (given is None or _is_number(given) or isinstance(given, str))
    if isinstance(own, bool | str):
        return isinstance(given, type(own))
    return _is_number(given)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def load_state(schedule: Any, given: Any) -> None:
    """Go on where a schedule was; raises ArgumentError for what is no state of one."""
    check_state(schedule, given)
    take_state(schedule, given)


def take_state(schedule: Any, given: Mapping[str, Any]) -> None:
    """Set the attributes of a schedule that both sides have."""
    for name in state_of(schedule).keys() & given.keys():
        value = given[name]
        schedule.__dict__[name] = list(value) if type(value) is list else value


def check_optimizer(op: str, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(
            "the first argument is no optimizer",
            op=op,
            expect="an Optimizer",
            actual=type(optimizer).__name__,
            hint="pass the optimizer whose rates it sets",
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
            hint="give one value for all groups, or a list with one for each",
        )
    return values


def within(op: str, name: str, value: Any, low: float, high: float) -> None:
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ArgumentError(
            f"{name} has a value it cannot have",
            op=op,
            expect=f"{low:g} <= {name} <= {high:g}",
            actual=repr(value),
            hint=f"give {name} a number of this range",
        )


def count(op: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ArgumentError(
            f"{name} is no count",
            op=op,
            expect="an int >= 1",
            actual=repr(value),
            hint=f"give {name} a natural number",
        )
