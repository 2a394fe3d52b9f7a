"""The state of a whole run in one file, from which it goes on as if it had not stopped."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from dualgrad.random import get_rng_state, set_rng_state
from dualgrad.runtime.errors import ArgumentError, DataError
from dualgrad.saving.store import load, save
from dualgrad.tensor import Tensor

_RANDOM: Final = "rng_state"
_Restore = Callable[[Any], Any]


def save_checkpoint(path: str | os.PathLike[str], /, **parts: Any) -> None:
    """Write the state of a run: of each part, and of the default stream of random numbers.

    A part is an object with `state_dict` and `load_state_dict` (modules, optimizers, schedules,
    loaders, scalers, averages, or a class of yours), a stream of random numbers (`dg.Generator`,
    `random`, `random.Random`, `numpy.random`, `numpy.random.Generator`), or a value that `dg.save`
    takes, such as the number of the step.  Gradients are no part of the state: save between steps.

    Written as by `dg.save`: as a whole or not at all.  Raises ArgumentError for other values,
    OSError.

        >>> dg.save_checkpoint("run.ckpt", model=model, optimizer=optimizer, loader=loader, step=9)
    """
    if _RANDOM in parts:
        raise ArgumentError(
            f"{_RANDOM} is the name of the default stream's state",
            op="save_checkpoint",
            expect="other names for parts",
            actual=f"{_RANDOM}=...",
            hint="leave it out: it is saved always",
        )
    states = {name: _state(part) for name, part in parts.items()}
    save({**states, _RANDOM: get_rng_state()}, path)


def load_checkpoint(
    path: str | os.PathLike[str], /, *, restore_rng: bool = True, **parts: Any
) -> dict[str, Any]:
    """Put the parts of a run back to where they were, in place, and return what is left.

    parts         the objects, under the names that they were saved with; others may be left out
    restore_rng   put the default stream of random numbers back, too

    Returns the values of all parts that are not given here: numbers as they were saved, the states
    of objects.  If a part cannot take its state, for whatever reason, all parts keep the state
    they had; for that, a copy of it is held meanwhile.

    Raises DataError for a damaged file and OSError as `dg.load` does, also if the file has no such
    part; ArgumentError if tensors have other dtypes or a part's state does not fit.

        >>> step = dg.load_checkpoint("run.ckpt", model=model, optimizer=optimizer)["step"]
    """
    saved = load(path)
    if not isinstance(saved, dict):
        raise _refuse(path, "is no checkpoint", "a dict of parts", type(saved).__name__)
    targets = {name: (part, _restorer(name, part)) for name, part in parts.items()}
    for name in targets:
        if name not in saved:
            known = ", ".join(map(str, saved))
            raise _refuse(path, "has no such part", f"one of {known}", name)
    restores = [(put, _state(part), saved.pop(name)) for name, (part, put) in targets.items()]
    stream = saved.pop(_RANDOM, None)
    if restore_rng:
        if stream is None:
            raise _refuse(path, "has no state of the random numbers", _RANDOM, "none",
                          "load with restore_rng=False")  # fmt: skip
        restores.append((set_rng_state, get_rng_state(), stream))
    _check_dtypes(targets, restores)
    _restore_all(restores)
    return saved


def _check_dtypes(names: Iterable[str], restores: list[tuple[_Restore, Any, Any]]) -> None:
    """Refuse tensors whose values a part would convert: it would not go on with the same bits."""
    lines = [
        line
        for name, (_, own, given) in zip(names, restores, strict=False)
        for line in _other_dtypes(own, given, name)
    ]
    if lines:
        raise ArgumentError(
            "the file has tensors of other dtypes",
            op="load_checkpoint",
            actual="".join(f"\n    {line}" for line in lines),
            hint="make the parts with the dtypes that they were saved with; "
            "load_state_dict(dg.load(path)[name]) converts",
        )


def _other_dtypes(own: Any, given: Any, path: str) -> Iterator[str]:
    if isinstance(own, Tensor) and isinstance(given, Tensor):
        if own.dtype is not given.dtype:
            yield f"{path}: {given.dtype.name} instead of {own.dtype.name}"
    elif isinstance(own, dict) and isinstance(given, dict):
        for key in own.keys() & given.keys():
            yield from _other_dtypes(own[key], given[key], f"{path}.{key}")


def _restore_all(restores: list[tuple[_Restore, Any, Any]]) -> None:
    """Call each (restore, state before, state to have), or undo what was done."""
    before = [copy.deepcopy(state) for _, state, _ in restores]
    done = 0
    try:
        for restore, _, state in restores:
            done += 1
            restore(state)
    except BaseException:
        for (restore, _, _), state in zip(restores[:done], before, strict=False):
            restore(state)
        raise


def _state(part: Any) -> Any:
    """The state of a part, or the part itself if it is a value."""
    if hasattr(part, "load_state_dict"):
        return part.state_dict()
    if hasattr(part, "setstate"):  # random
        return part.getstate()
    if hasattr(part, "set_state"):  # dg.Generator, numpy.random
        return part.get_state()
    return part.bit_generator.state if hasattr(part, "bit_generator") else part


def _restorer(name: str, part: Any) -> _Restore:
    """What gives a part its state."""
    for method in ("load_state_dict", "setstate", "set_state"):
        if hasattr(part, method):
            found: _Restore = getattr(part, method)
            return found
    if hasattr(part, "bit_generator"):
        return lambda state: setattr(part.bit_generator, "state", state)
    raise ArgumentError(
        f"{name} cannot take a state",
        op="load_checkpoint",
        expect="an object with load_state_dict, or a stream of random numbers",
        actual=type(part).__name__,
        hint=f"leave it out: its value is returned, as ...[{name!r}]",
    )


def _refuse(
    path: str | os.PathLike[str], what: str, expect: str, actual: str, hint: str = ""
) -> DataError:
    return DataError(
        f"{os.fspath(path)} {what}",
        op="load_checkpoint",
        expect=expect,
        actual=actual,
        hint=hint or "give the parts the names that they were saved with",
    )
