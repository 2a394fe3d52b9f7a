"""The workloads: names, inputs, and how closely other libraries must agree.

How a framework computes one stands under the workload's name in `benchmarks/steps`.
"""

from benchmarks.workloads.base import Workload
from benchmarks.workloads.functions import (
    BlackScholes,
    Chain,
    Dispatch,
    LayerNormGelu,
    Matmul,
    Softmax,
)
from benchmarks.workloads.training import Cnn, Lstm, Mlp, Mlp3, Tiny, Transformer

_ALL: tuple[type[Workload], ...] = (
    Mlp, Mlp3, Tiny, Cnn, Transformer, Lstm,
    BlackScholes, LayerNormGelu, Softmax, Chain, Matmul, Dispatch,
)  # fmt: skip
WORKLOADS = {workload.name: workload for workload in _ALL}
__all__ = ["WORKLOADS", "Workload"]
