"""Running everything eagerly for a while, so that a debugger stops in the user's code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dualgrad.runtime.config import config

_lock = threading.Lock()
_open: list[bool] = []  # the setting before each context that is open


@contextmanager
def disable() -> Iterator[None]:
    """Inside of this context every decorated function runs eagerly, in all threads.

    DG_EAGER=1 in the environment does the same for a whole process.
    """
    with _lock:
        _open.append(config.eager)
        config.eager = True
    try:
        yield
    finally:
        with _lock:
            before = _open[0]
            _open.pop()
            config.eager = bool(_open) or before
