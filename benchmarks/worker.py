"""The process of one arm: reads requests, one JSON object per line, and answers them.

    python -m benchmarks.worker FRAMEWORK DECORATOR FINISH

`benchmarks.session` says what can be requested.  This module needs the standard library only, so
that the time to import the framework is measured from the beginning.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main() -> None:
    framework, decorator, finish = sys.argv[1:]
    # answers have the standard output to themselves: compilers and libraries print, too
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started = time.perf_counter()
    steps = importlib.import_module(f"benchmarks.steps.{framework}")
    seconds = time.perf_counter() - started
    module = importlib.import_module("benchmarks.session")
    session = module.Session(steps, decorator, finish, seconds)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(session, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
