"""Running a function undecorated and decorated, and comparing everything that a user can see.

    def make():
        model = nn.Linear(2, 2)
        def f(x):
            ...
        return f, model            # the function, then the state that it works on

    f = compare(make, [(x,), lambda f, model: f(x * 2)])
    assert f.n_traces == 1

`make()` is called once for each mode.  With a parameter, `make(decorate)`, it decorates by itself
(methods, several functions).  A call is a tuple of arguments, copied for each mode, or a function
of what `make` returned.  After every call these must agree: the result with its bits, the
exception with its type and text, everything printed, the warnings, the state handed back by `make`
and the arguments, with which of all these objects are one.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import inspect
import io
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dualgrad as dg
from dualgrad.jit import programs
from dualgrad.jit.function import EagerFallback, Function

ATOMS = (bool, int, str, bytes, type(None), type(Ellipsis), range, types.CodeType)
OWN_WARNINGS = ("EagerFallback", "RetraceWarning")


@dataclass
class Snapshot:
    """Objects in a form that can be compared: values, structure, and which of them are one."""

    seen: dict[int, int] = field(default_factory=dict)
    alive: list[object] = field(default_factory=list)

    def of(self, x: Any) -> Any:
        if isinstance(x, type):
            return x.__qualname__
        if isinstance(x, ATOMS):
            return x
        if isinstance(x, float):
            return (kind_of(x), x.hex())
        if isinstance(x, complex):
            return (kind_of(x), x.real.hex(), x.imag.hex())
        if isinstance(x, tuple):
            return (kind_of(x), *map(self.of, x))
        if isinstance(x, types.FunctionType | types.BuiltinFunctionType | types.ModuleType):
            return x.__name__
        if isinstance(x, Function):
            return x.__name__
        if id(x) in self.seen:
            return ("again", self.seen[id(x)])
        self.seen[id(x)] = len(self.seen)
        self.alive.append(x)
        return self.new(x)

    def new(self, x: Any) -> Any:
        """An object met for the first time."""
        if isinstance(x, dg.Tensor):
            flags = (x.requires_grad, x.grad_fn is not None and not x.grad_fn.released)
            return (kind_of(x), *bits(x), *flags, self.of(x.grad))
        if isinstance(x, np.ndarray):
            return (kind_of(x), *array_bits(x))
        if isinstance(x, dict):
            return (kind_of(x), [(self.of(k), self.of(v)) for k, v in x.items()])
        if isinstance(x, list | collections.deque):
            return (kind_of(x), [self.of(e) for e in x])
        if isinstance(x, set | frozenset):
            return (kind_of(x), sorted(map(repr, x)))
        if isinstance(x, BaseException):
            return (kind_of(x), str(x), self.of(x.args))
        if isinstance(x, types.MethodType):
            return (x.__func__.__name__, self.of(x.__self__))
        names = [*getattr(x, "__dict__", ())]
        for c in type(x).__mro__:
            own = c.__dict__.get("__slots__", ())
            names += [n for n in ((own,) if isinstance(own, str) else own) if hasattr(x, n)]
        if not names and type(x).__module__ != "builtins" and type(x).__eq__ is not object.__eq__:
            return (kind_of(x), repr(x))
        names = [n for n in names if n not in ("__weakref__", "__dict__")]
        return (kind_of(x), [(n, self.of(getattr(x, n))) for n in names])


def kind_of(x: object) -> str:
    """The class by name: `make` may define it anew for each mode."""
    return f"{type(x).__module__}.{type(x).__qualname__}"


def bits(x: dg.Tensor) -> tuple[Any, ...]:
    return (x.dtype.name, *array_bits(x.detach().cpu().numpy()))


def array_bits(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    """dtype, shape and bytes; NaNs are equal whatever their payload."""
    if array.dtype.kind in "fc":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return (array.dtype.str, array.shape, array.tobytes())


@dataclass
class Step:
    """What one call did, as far as a user can see."""

    result: Any  # or the exception; with state and arguments
    printed: str
    warned: list[tuple[str, str]]


@dataclass
class Run:
    """All calls in one mode."""

    steps: list[Step]
    position: Any  # of the random stream
    functions: list[Function[..., Any]]
    fallbacks: list[str]


Call = tuple[Any, ...] | Callable[..., Any]


def run(make: Callable[..., Any], calls: Sequence[Call], decorate: Callable[..., Any]) -> Run:
    """Make fresh state and go through the calls in one mode."""
    dg.seed(0)
    programs.forget()
    functions: list[Function[..., Any]] = []

    def noted(f: Any = None, **options: Any) -> Any:
        if f is None:
            return lambda g: noted(g, **options)
        made = decorate(f, **options)
        if isinstance(made, Function):
            functions.append(made)
        return made

    takes = len(inspect.signature(make).parameters)
    made = make(noted) if takes else make()
    f, *state = made if isinstance(made, tuple) else (made,)
    if not takes:
        f = noted(f)
    elif isinstance(f, Function) and f not in functions:
        functions.append(f)
    mine = [c if callable(c) else copy.deepcopy(c) for c in calls]
    out = Run([], None, functions, [])
    for call in mine:
        out.steps.append(one(call, f, state, out.fallbacks))
    out.position = Snapshot().of(dg.random.default_generator)
    return out


def one(call: Call, f: Any, state: list[Any], fallbacks: list[str]) -> Step:
    text = io.StringIO()
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(text),
        contextlib.redirect_stderr(text),
    ):
        warnings.simplefilter("always")
        try:
            result = call(f, *state) if callable(call) else f(*call)
        except Exception as error:
            result = error.with_traceback(None)
    warned = [(w.category.__name__, str(w.message)) for w in caught]
    fallbacks += [t for n, t in warned if n == "EagerFallback"]
    shown = Snapshot().of((result, state, () if callable(call) else call))
    return Step(shown, text.getvalue(), [w for w in warned if w[0] not in OWN_WARNINGS])


def differences(want: Run, got: Run) -> Iterator[str]:
    for k, (a, b) in enumerate(zip(want.steps, got.steps, strict=True)):
        for name in ("result", "printed", "warned"):
            x, y = getattr(a, name), getattr(b, name)
            if x != y:
                yield f"call {k}, {name}:\n  eager    {x!r}\n  compiled {y!r}"
    if want.position != got.position:
        yield "the random stream is at another position"


def compare(
    make: Callable[..., Any],
    calls: Sequence[Call],
    *,
    eager: bool | None = False,
    traces: int | None = None,
    **options: Any,
) -> Function[..., Any]:
    """Assert that both modes do the same; returns the compiled function, the first if several.

    eager    False: nothing may fall back; True: something has to; None: either will do
    traces   how many traces the function takes; None: any number
    options  of `dg.function`
    """

    def decorate(f: Any, **more: Any) -> Any:
        return dg.function(f, **options, **more)

    want = run(make, calls, lambda f, **_: f)
    got = run(make, calls, decorate)
    found = list(differences(want, got))
    assert not found, "\n".join(found)
    if eager is not None:
        assert bool(got.fallbacks) is eager, got.fallbacks or "nothing has fallen back"
    f = got.functions[0]
    if traces is not None:
        assert f.n_traces == traces, f"{f.n_traces} traces, not {traces}\n{f.report()}"
    return f


__all__ = ["EagerFallback", "Function", "Snapshot", "bits", "compare"]
