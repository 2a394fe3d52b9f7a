"""All settings that come from the environment, typed, in one place.

| variable       | attribute     | meaning                                                  |
|----------------|---------------|----------------------------------------------------------|
| DG_CHECK       | `check`       | compile bounds checks into every load and store          |
| DG_VERIFY      | `verify`      | run the IR verifiers                                     |
| DG_EAGER       | `eager`       | run @function eagerly                                    |
| DG_NUM_THREADS | `num_threads` | threads of the pool; None: as many as the process has    |
| DG_CACHE_DIR   | `cache_dir`   | folder of the disk cache; None: the user's cache folder  |
| DG_CACHE       | `cache`       | use the disk cache (default on)                          |
| DG_NATIVE      | `native`      | enter programs by native code where that can be (on)     |
| DG_TRACEBACK   | `traceback`   | "user": tracebacks end at the user's line (default);     |
|                |               | "full": with the frames of dualgrad                      |

The environment is read once, when this module is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, Unpack

from dualgrad.runtime.errors import ArgumentError

_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


TRACEBACKS = ("user", "full")


class Settings(TypedDict, total=False):
    """What `config.scope` takes."""

    check: bool
    verify: bool
    eager: bool
    num_threads: int | None
    cache_dir: Path | None
    cache: bool
    native: bool
    traceback: str


def _refuse(name: str, accepted: str, value: object, op: str = "") -> ArgumentError:
    what = f"{name} has a value it cannot have"
    return ArgumentError(
        what,
        op=op,
        expect=accepted,
        actual=repr(value),
        hint="see dualgrad.runtime.config for the settings and what each takes",
    )


def _flag(environ: Mapping[str, str], variable: str, default: bool) -> bool:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    value = _WORDS.get(text.lower())
    if value is None:
        raise _refuse(variable, "one of " + ", ".join(_WORDS), text)
    return value


def _choice(environ: Mapping[str, str], variable: str, choices: tuple[str, ...]) -> str:
    text = environ.get(variable, "").strip().lower() or choices[0]
    if text not in choices:
        raise _refuse(variable, " or ".join(choices), text)
    return text


def _count(environ: Mapping[str, str], variable: str) -> int | None:
    text = environ.get(variable, "").strip()
    if not text:
        return None
    if re.fullmatch("0*[1-9][0-9]{0,5}", text) is None:
        raise _refuse(variable, "a whole number from 1 to 999999", text)
    return int(text)


def _folder(environ: Mapping[str, str], variable: str) -> Path | None:
    text = environ.get(variable, "")
    if not text:
        return None
    if "\0" in text:
        raise _refuse(variable, "the path of a folder", text)
    return Path(text).expanduser().absolute()


def user_cache_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """$XDG_CACHE_HOME/dualgrad or ~/.cache/dualgrad; None for a user without a home.

    As the XDG base directory specification asks, a relative $XDG_CACHE_HOME is ignored.
    """
    base = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "dualgrad"
    try:
        return Path.home() / ".cache" / "dualgrad"
    except RuntimeError:
        return None


class Config:
    """The settings of this process; change them for a while with `scope`."""

    __slots__ = (
        "cache", "cache_dir", "check", "eager", "native", "num_threads", "traceback", "verify",
    )  # fmt: skip

    check: bool
    verify: bool
    eager: bool
    num_threads: int | None
    cache_dir: Path | None
    cache: bool
    native: bool
    traceback: str

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.check = _flag(environ, "DG_CHECK", False)
        self.verify = _flag(environ, "DG_VERIFY", False)
        self.eager = _flag(environ, "DG_EAGER", False)
        self.num_threads = _count(environ, "DG_NUM_THREADS")
        self.cache_dir = _folder(environ, "DG_CACHE_DIR")
        self.cache = _flag(environ, "DG_CACHE", True)
        self.native = _flag(environ, "DG_NATIVE", True)
        self.traceback = _choice(environ, "DG_TRACEBACK", TRACEBACKS)

    @contextmanager
    def scope(self, **changes: Unpack[Settings]) -> Iterator[Config]:
        """Set some attributes; all are as before when the `with` block ends."""
        for name, value in changes.items():
            _check_setting(name, value)
        before = {name: getattr(self, name) for name in self.__slots__}
        try:
            for name, value in changes.items():
                setattr(self, name, value)
            yield self
        finally:
            for name, value in before.items():
                setattr(self, name, value)


def _check_setting(name: str, value: object) -> None:
    if name not in Config.__slots__:
        raise ArgumentError(
            "unknown setting",
            op="config.scope",
            expect=", ".join(Config.__slots__),
            actual=name,
            hint="check the spelling; dg.config has the settings as attributes",
        )
    if name == "num_threads":
        accepted = "None or an int of at least 1"
        ok = value is None or (type(value) is int and value >= 1)
    elif name == "traceback":
        accepted, ok = " or ".join(map(repr, TRACEBACKS)), value in TRACEBACKS
    elif name == "cache_dir":
        accepted, ok = "None or a pathlib.Path", value is None or isinstance(value, Path)
    else:
        accepted, ok = "True or False", isinstance(value, bool)
    if not ok:
        raise _refuse(name, accepted, value, "config.scope")


config = Config(os.environ)
