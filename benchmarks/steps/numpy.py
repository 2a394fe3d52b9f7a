"""The workloads that are natural in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.program import Arrays, Decorator, Program

Array = np.ndarray[Any, Any]


def chain(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Array) -> Any:
        y = np.tanh(x) * 2 + 1
        return y / np.sqrt(y * y + 1)

    return Program(compiled(step), [(arrays["x"],)])


def softmax(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Array) -> Any:
        powers = np.exp(x - x.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    return Program(compiled(step), [(arrays["x"],)])


def matmul(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Array, w: Array, b: Array) -> Any:
        return np.maximum(x @ w + b, 0)

    return Program(compiled(step), [(arrays["x"], arrays["w"], arrays["b"])])


def dispatch(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: Array) -> Any:
        return x + 1

    return Program(compiled(step), [(arrays["x"],)])
