"""The process of one library for `benchmarks.eager`: times expressions that it reads.

    python -m benchmarks.opworker LIBRARY

Each line is `once EXPRESSION` or `block EXPRESSION`; the answer is nanoseconds per call, or "-".
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Any

import numpy as np

from benchmarks.oprows import operands

BLOCK_SECONDS = 0.03
WARM_SECONDS = 0.01


def namespace(library: str) -> dict[str, Any]:
    """The names that expressions use."""
    module = importlib.import_module(library)
    functions = {"dualgrad": "functional", "torch": "nn.functional"}.get(library)
    names: dict[str, Any] = {"L": module, "RNG": np.random.default_rng(1)}
    if functions is not None:
        names["F"] = importlib.import_module(f"{library}.{functions}")
    make = module.array if library == "numpy" else module.from_numpy
    names.update({name: make(array) for name, array in operands().items()})
    if library == "dualgrad":
        names["x"] + 1  # loads the code generator
    return names


def block(code: Any, names: dict[str, Any]) -> float:
    """Median nanoseconds of calls, after some that do not count."""
    clock = time.perf_counter_ns
    end = clock() + int(1e9 * WARM_SECONDS)
    while True:
        eval(code, names)
        if clock() >= end:
            break
    times = []
    end = clock() + int(1e9 * BLOCK_SECONDS)
    while True:
        start = clock()
        eval(code, names)
        now = clock()
        times.append(now - start)
        if now >= end and len(times) >= 3:
            return float(np.median(times))


def main() -> None:
    # answers have the standard output to themselves
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    names = namespace(sys.argv[1])
    for line in sys.stdin:
        do, _, expression = line.strip().partition(" ")
        code = compile(expression, "<row>", "eval")
        try:
            start = time.perf_counter_ns()
            eval(code, names)
            once = time.perf_counter_ns() - start
            print(once if do == "once" else block(code, names), file=answers)
        except (AttributeError, TypeError, NameError) as error:
            print(f"{expression}: {error}", file=sys.stderr)
            print("-", file=answers)


if __name__ == "__main__":
    main()
