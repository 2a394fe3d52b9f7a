"""Averages of a model's parameters over the steps of its training: exponential, or of all alike.

    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    for inputs, targets in loader:
        ...                               # a step of the optimizer
        ema.update_parameters(model)
    outputs = ema(inputs)

Names and formulas are PyTorch's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dualgrad.compiler.ops.arguments import check_choice
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.logical import where
from dualgrad.creation import zeros
from dualgrad.jit.ledger import on_numbers
from dualgrad.nn.batch_norm import BatchNorm
from dualgrad.nn.module import Module
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.schedule import LRScheduler, check_optimizer, per_group, within
from dualgrad.runtime.dtype import float64, int64
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor

One = Callable[[Tensor, Tensor, Tensor], Tensor]
Many = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]


class AveragedModel(Module):
    """A copy of a model, whose parameters `update_parameters` makes an average.

    device        where the copy is kept; None: where the model is
    avg_fn        average, parameter, number of averaged -> new average
    multi_avg_fn  lists of averages and of parameters, number of averaged: changes the averages in
                  place; such as `get_ema_multi_avg_fn(decay)`.  Neither: the mean of all steps
    use_buffers   averages buffers too; else they are those of the model

    module      the copy
    n_averaged  buffer (), int64: how many steps it has seen; the first one is copied

    Raises ArgumentError if both functions are given.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: One | None = None,
        multi_avg_fn: Many | None = None,
        use_buffers: bool = False,
    ) -> None:
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError(
                "there are two functions for the average",
                op="AveragedModel",
                expect="avg_fn or multi_avg_fn",
                actual="both",
                hint="leave one out",
            )
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module.to(device)
        self.register_buffer("n_averaged", zeros((), dtype=int64, device=device))
        self.avg_fn, self.multi_avg_fn = avg_fn, multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the parameters of `model` into the average."""
        with no_grad():
            parameters = zip(self.module.parameters(), model.parameters(), strict=True)
            pairs: list[tuple[Tensor, Tensor]] = list(parameters)
            buffers = list(zip(self.module.buffers(), model.buffers(), strict=True))
            if self.use_buffers:
                pairs, buffers = [*pairs, *buffers], []
            for kept, buffer in buffers:
                kept.copy_(buffer)
            averages = [average.detach() for average, _ in pairs]
            values = [value.detach().to(average.device) for average, value in pairs]
            self._average(averages, values)
            self.n_averaged.add_(1)

    def _average(self, averages: list[Tensor], values: list[Tensor]) -> None:
        seen = self.n_averaged
        if self.avg_fn is not None:
            for average, value in zip(averages, values, strict=True):
                average.copy_(self.avg_fn(average, value, seen))
        else:
            (self.multi_avg_fn or _swa_update)(averages, values, seen)
        if self.avg_fn is None and isinstance(self.multi_avg_fn, _Ema | None):
            return  # they copy the first step themselves, in the same pass
        for average, value in zip(averages, values, strict=True):
            average.copy_(where(seen.eq(0), value, average))


@composite
def _ema(average: Any, value: Any, seen: Any, share: float) -> Any:
    return where(seen.eq(0), value, average + (value - average) * share)


@composite
def _swa(average: Any, value: Any, seen: Any) -> Any:
    moved = average + (value - average) * (1.0 / (seen.to(float64) + 1.0)).to(average.dtype)
    return where(seen.eq(0), value, moved)


def _swa_update(averages: Sequence[Tensor], values: Sequence[Tensor], seen: Tensor) -> None:
    for average, value in zip(averages, values, strict=True):
        if average.dtype.is_float:
            average.copy_(_swa(average, value, seen))
        else:
            average.copy_(average + (value - average) / (seen + 1))


class _Ema:
    """average + (1 - decay) * (value - average); of no steps so far, the value."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, averages: Sequence[Tensor], values: Sequence[Tensor], seen: Tensor) -> None:
        for average, value in zip(averages, values, strict=True):
            average.copy_(_ema(average, value, seen, 1.0 - self.decay))


def get_ema_multi_avg_fn(decay: float = 0.999) -> Many:
    """For AveragedModel: average = decay * average + (1 - decay) * parameter.

    Raises ArgumentError unless 0 <= decay <= 1.
    """
    within("get_ema_multi_avg_fn", "decay", decay, 0.0, 1.0)
    return _Ema(decay)


def get_swa_multi_avg_fn() -> Many:
    """For AveragedModel: the mean of all steps."""
    return _swa_update


def get_ema_avg_fn(decay: float = 0.999) -> One:
    """As `get_ema_multi_avg_fn`, for one parameter.

    Raises ArgumentError unless 0 <= decay <= 1.
    """
    within("get_ema_avg_fn", "decay", decay, 0.0, 1.0)

    def ema(average: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        return average * decay + value * (1.0 - decay)

    return ema


def get_swa_avg_fn() -> One:
    """As `get_swa_multi_avg_fn`, for one parameter."""

    def swa(average: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        return average + (value - average) / (seen + 1)

    return swa


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Give the batch normalisations of a model the statistics of all batches of a loader.

    Batches are inputs, or tuples and lists that begin with them; with `device` they are moved
    there.
    """
    layers = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if not layers:
        return
    momenta, training = [layer.momentum for layer in layers], model.training
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
    model.train()
    with no_grad():
        for batch in loader:
            inputs = batch[0] if isinstance(batch, list | tuple) else batch
            model(inputs if device is None else inputs.to(device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(training)


@on_numbers
def _swa_lr(rate: float, target: float, step: int, epochs: int, linear: bool) -> float:
    def alpha(step: int) -> float:
        t = max(0, min(1, step / max(1, epochs)))
        return t if linear else (1 - math.cos(math.pi * t)) / 2

    step = max(1, step) if epochs == 0 else step
    before, now = alpha(step - 1), alpha(step)
    start = target if before == 1 else (rate - before * target) / (1 - before)
    return target * now + start * (1 - now)


class SWALR(LRScheduler):
    """From the rate that the groups have to `swa_lr` (one, or one per group) in `anneal_epochs`
    steps, along half a cosine ("cos") or a line ("linear"); from there on constant.

    Source: P. Izmailov et al., "Averaging weights leads to wider optima and better
    generalization", 2018.

    Raises ArgumentError for impossible arguments.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Any,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        groups = check_optimizer("SWALR", optimizer).param_groups
        for group, rate in zip(groups, per_group("SWALR", "swa_lr", swa_lr, groups), strict=True):
            group["swa_lr"] = rate
        check_choice("SWALR", "anneal_strategy", anneal_strategy, ("cos", "linear"))
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ArgumentError(
                "anneal_epochs is no count",
                op="SWALR",
                expect="an int >= 0",
                actual=repr(anneal_epochs),
                hint="0 sets swa_lr with the first step",
            )
        self.anneal_epochs, self._anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        numbers = (self._step_count - 1, self.anneal_epochs, self._anneal_strategy == "linear")
        groups = self.optimizer.param_groups
        return [_swa_lr(group["lr"], group["swa_lr"], *numbers) for group in groups]

    def go_on(self) -> list[float]:
        return self.get_lr()
