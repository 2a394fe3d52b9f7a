"""Models of the training steps, for the frameworks whose `nn` has the layers of PyTorch's, and
formulas for all that have its functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any

from benchmarks.program import RATE, VOLATILITY


def dense(nn: ModuleType, *widths: int) -> Any:
    """Dense layers with ReLU between each two."""
    layers: list[Any] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.ReLU()] if layers else []
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def mlp(nn: ModuleType) -> Any:
    return dense(nn, 784, 512, 10)


def mlp3(nn: ModuleType) -> Any:
    return dense(nn, 784, 512, 512, 10)


def tiny(nn: ModuleType) -> Any:
    return dense(nn, 10, 5, 1)


def cnn(nn: ModuleType) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1600, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def transformer(nn: ModuleType) -> Any:
    return nn.TransformerEncoderLayer(
        256, 8, 1024, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def lstm(nn: ModuleType) -> Any:
    return nn.LSTM(128, 128)


def black_scholes(maths: ModuleType, price: Any, strike: Any, years: Any) -> Any:
    """Prices of call options; `maths` has sqrt, log, exp and erf."""

    def normal(x: Any) -> Any:
        return 0.5 * (1 + maths.erf(x * 0.5**0.5))

    spread = VOLATILITY * maths.sqrt(years)
    drift = (RATE + VOLATILITY**2 / 2) * years
    d1 = (maths.log(price / strike) + drift) / spread
    return price * normal(d1) - strike * maths.exp(-RATE * years) * normal(d1 - spread)


# of what memory bounds: (functions, operands) to a result
STREAMING: Mapping[str, Callable[..., Any]] = {
    "relu(x)": lambda functional, x: functional.relu(x),
    "x + y": lambda functional, x, y: x + y,
    "x + y / 2": lambda functional, x, y: x + y * 0.5,
    "sum of rows": lambda functional, x: x.sum(1),
    "sum of columns": lambda functional, x: x.sum(0),
    "softmax": lambda functional, x: functional.softmax(x, 1),
    "layer_norm": lambda functional, x: functional.layer_norm(x, x.shape[1:]),
}
