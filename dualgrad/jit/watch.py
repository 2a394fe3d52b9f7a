"""What happens during a trace: which code runs, and calls that a replay could not repeat."""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterable
from typing import Any

from dualgrad.jit.scope import Ran
from dualgrad.jit.trace import Unsupported
from dualgrad.runtime.srcinfo import user_location

_IMPURE_MODULES = frozenset(
    {"time", "random", "_random", "secrets", "posix", "nt", "_io", "select"}
)
_IMPURE_NAMES = frozenset({"print", "input", "open", "breakpoint", "id"})
# Functions that reach attributes by names that do not occur in code.
_COMPUTED_NAMES = frozenset({"getattr", "setattr", "delattr", "hasattr", "vars", "dir"})


class Watch:
    """A profile hook: notes the code objects that run, and finds calls that are not repeatable."""

    def __init__(self) -> None:
        self.found: Unsupported | None = None
        self.names: set[str] = set()  # of attributes that were given as text
        self.computed = False  # attributes were reached by computed names
        self._codes: dict[tuple[types.CodeType, int], dict[str, Any]] = {}

    @property
    def ran(self) -> Iterable[Ran]:
        """Code objects that ran, with their globals."""
        return [(code, space) for (code, _), space in self._codes.items()]

    def __enter__(self) -> None:
        self._before = sys.getprofile()
        # The collector may call anything, at any time: its callbacks are not the function's.
        self._collecting = gc.isenabled()
        gc.disable()
        sys.setprofile(self._event)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)
        if self._collecting:
            gc.enable()

    def _event(self, frame: types.FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self._codes[frame.f_code, id(frame.f_globals)] = frame.f_globals
            return
        if event != "c_call" or self.found is not None:
            return
        own = frame.f_globals.get("__name__", "").startswith(("dualgrad.", "linecache"))
        if own:
            return
        if arg.__name__ in _COMPUTED_NAMES and arg.__module__ == "builtins":
            self.computed = True
        name = impurity(arg)
        if name is not None:
            self.found = Unsupported(
                f"{name} is called, which a compiled program would not repeat",
                hint="call it outside of the function",
                location=user_location(),
            )


def impurity(function: Any) -> str | None:
    """The name of a C function whose effect or result differs from call to call, else None."""
    name = getattr(function, "__name__", "")
    module = getattr(function, "__module__", None) or ""
    owner = getattr(function, "__self__", None)
    origin = type(owner).__module__ if owner is not None else ""
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    if (module in _IMPURE_MODULES or origin in _IMPURE_MODULES) and name not in (
        "fspath",
        "getpid",
    ):
        return f"{module or origin}.{name}"
    if origin.startswith("numpy.random") or module.startswith("numpy.random"):
        return f"numpy.random.{name}"
    if module == "builtins" and name in _IMPURE_NAMES:
        return f"{name}()"
    return None
