"""Single functions of arrays."""

from __future__ import annotations

import numpy as np

from benchmarks.workloads.base import Array, Work, Workload, normal

_GRID = 4 * 4096 * 1024  # bytes


class BlackScholes(Workload):
    name = "black_scholes"
    lacking = ("numpy",)  # it has no erf
    # prices of options that are worth little are differences of larger numbers
    tolerance = 1e-4

    def title(self) -> str:
        return "Black-Scholes price of 1 000 000 call options, float32"

    def work(self) -> Work:
        return Work(0, 4 * 4_000_000, "three inputs and a result, without the formulas")

    def arrays(self) -> dict[str, Array]:
        random = np.random.default_rng(0)
        ranges = {"price": (50, 150), "strike": (50, 150), "years": (0.1, 2)}
        values = {name: random.uniform(*ends, 1_000_000) for name, ends in ranges.items()}
        return {name: value.astype(np.float32) for name, value in values.items()}


class Chain(Workload):
    name = "chain"
    quick = True

    def title(self) -> str:
        return "y = tanh(x) * 2 + 1, y / sqrt(y * y + 1): 7 ops on 1 000 000 float32"

    def work(self) -> Work:
        return Work(0, 2 * 4_000_000, "x and a result")

    def arrays(self) -> dict[str, Array]:
        return {"x": normal(1_000_000)}


class Softmax(Workload):
    name = "softmax"
    quick = True

    def title(self) -> str:
        return "softmax of the rows of 4096 x 1024 float32"

    def work(self) -> Work:
        return Work(0, 2 * _GRID, "x and a result")

    def arrays(self) -> dict[str, Array]:
        return {"x": normal(4096, 1024)}


class LayerNormGelu(Workload):
    name = "layernorm_gelu"
    lacking = ("numpy",)  # it has no erf

    def title(self) -> str:
        return "r + gelu(layer_norm(x)): rows of 4096 x 1024 float32"

    def work(self) -> Work:
        return Work(0, 3 * _GRID, "x, r and a result")

    def arrays(self) -> dict[str, Array]:
        x, r = normal(2, 4096, 1024)
        scale, shift = normal(2, 1024, seed=1)
        return {"x": x, "r": r, "scale": scale, "shift": shift}


class Matmul(Workload):
    name = "matmul"
    quick = True

    def title(self) -> str:
        return "relu(x @ w + b): 512 x 512 x 512 float32"

    def work(self) -> Work:
        return Work(2 * 512**3, 3 * 4 * 512**2, "2 x 512 x 512 x 512; x, w and a result")

    def arrays(self) -> dict[str, Array]:
        x, w = normal(2, 512, 512)
        return {"x": x, "w": w, "b": normal(512)}


class Dispatch(Workload):
    name = "dispatch"
    quick = True

    def title(self) -> str:
        return "x + 1 on 4 float32: what a call costs"

    def work(self) -> Work:
        return Work(0, 2 * 16, "x and a result")

    def arrays(self) -> dict[str, Array]:
        return {"x": normal(4)}
