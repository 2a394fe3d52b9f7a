"""Where the frameworks of a comparison are installed.

A framework that does not get along with the versions of others may have an environment of its own:
DG_BENCH_TENSORFLOW=/path/to/python names the interpreter of TensorFlow's, and so on for each.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from importlib import metadata

_VERSION = """
import sys
from importlib import metadata
name = sys.argv[1]
print(metadata.version((metadata.packages_distributions().get(name) or [name])[0]))
"""


def interpreter(framework: str) -> str:
    """The Python that runs it."""
    return os.environ.get(f"DG_BENCH_{framework.upper()}") or sys.executable


@cache
def version(framework: str) -> str | None:
    """Its version; None where it is not installed."""
    python = interpreter(framework)
    if python == sys.executable:
        if importlib.util.find_spec(framework) is None:
            return None
        names = metadata.packages_distributions().get(framework) or [framework]
        try:
            return metadata.version(names[0])
        except metadata.PackageNotFoundError:
            return "unknown"
    command = [python, "-c", _VERSION, framework]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None
