"""Programs built for GPUs that are compiled and measured without one: the golden ones, which are
small, and others of the sizes and dtypes that speed is about."""

from __future__ import annotations

import functools
from typing import Any

from test_golden import SETUPS, Setup, graph_of
from test_ops import GOOD, Case, tensors

import dualgrad as dg
from dualgrad import functional, optim
from dualgrad.compiler.ir.node import Graph, Node, input_node
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.pipeline import lower


def long_chain() -> Any:
    return lambda x, y: dg.tanh(x * 2.0 + y) - x, (dg.ones(4096, 1024), dg.ones(1024))


def half_chain() -> Any:
    x = dg.ones(4096, 1024, dtype=dg.float16)
    return lambda x: dg.relu(x * 2.0 + 1.0), (x,)


def double_chain() -> Any:
    return lambda x: dg.exp(x) / (x * x + 1.0), (dg.ones(1024, 1024, dtype=dg.float64),)


def conversions() -> Any:
    return lambda x: (x > 0.5, x.to(dg.bfloat16), x.to(dg.int64)), (dg.ones(1 << 20),)


def wide_softmax() -> Any:
    return lambda x: dg.softmax(x, 1), (dg.ones(512, 4096),)


def widest_softmax() -> Any:
    return lambda x: dg.softmax(x, 1), (dg.ones(16, 100_000),)


def half_softmax() -> Any:
    return lambda x: dg.softmax(x, 1), (dg.ones(512, 4096, dtype=dg.float16),)


def layer_norm_with_gradient() -> Any:
    weight, bias = (dg.ones(1024, requires_grad=True) for _ in range(2))

    def step(x: dg.Tensor) -> Any:
        x.grad = weight.grad = bias.grad = None
        functional.layer_norm(x, (1024,), weight, bias).sum().backward()
        return x.grad, weight.grad, bias.grad

    return step, (dg.ones(64, 1024, requires_grad=True),)


def column_statistics() -> Any:
    return lambda x: (x.mean(0), x.var(0), x.amax(0)), (dg.ones(8192, 512),)


def full_sum() -> Any:
    return lambda x: (x * x).sum(), (dg.ones(1 << 22),)


def places_of_largest() -> Any:
    return lambda x: x.argmax(1), (dg.ones(128, 1000),)


def large_matmul() -> Any:
    return lambda a, b: a @ b, (dg.ones(1024, 512), dg.ones(512, 768))


def double_matmul() -> Any:
    a, b = (dg.ones(256, 256, dtype=dg.float64) for _ in range(2))
    return lambda a, b: a @ b, (a, b)


def half_matmul() -> Any:
    a, b = (dg.ones(256, 256, dtype=dg.float16) for _ in range(2))
    return lambda a, b: a @ b.T, (a, b)


def batched_matmul() -> Any:
    return lambda a, b: a.transpose(1, 2) @ b, (dg.ones(8, 100, 60), dg.ones(8, 100, 70))


def embedding_with_gradient() -> Any:
    table = dg.ones(1000, 64, requires_grad=True)

    def step(indices: dg.Tensor) -> Any:
        table.grad = None
        functional.embedding(indices, table).sum().backward()
        return table.grad

    return step, (dg.zeros(256, dtype=dg.int64),)


def random_numbers() -> Any:
    return lambda x: functional.dropout(x, 0.1) + dg.randn(256, 1024), (dg.ones(256, 1024),)


def adam_step() -> Any:
    w = dg.ones(512, 512, requires_grad=True)
    w.grad = dg.ones(512, 512)
    optimizer = optim.Adam([w])
    return lambda: optimizer.step(), ()


def large_transposed_copy() -> Any:
    return lambda x: x.transpose(0, 1).clone(), (dg.ones(2048, 1024),)


LARGE: tuple[Setup, ...] = (
    long_chain,
    half_chain,
    double_chain,
    conversions,
    wide_softmax,
    widest_softmax,
    half_softmax,
    layer_norm_with_gradient,
    column_statistics,
    full_sum,
    places_of_largest,
    large_matmul,
    double_matmul,
    half_matmul,
    batched_matmul,
    embedding_with_gradient,
    random_numbers,
    adam_step,
    large_transposed_copy,
)


@functools.cache
def programs() -> tuple[LoopProgram, ...]:
    """The golden and the large ones, each with a name of its own."""
    out = []
    for setup in (*SETUPS, *LARGE):
        graph = graph_of(setup)
        out.append(lower(graph, (None,) * len(graph.inputs), setup.__name__, 1, "cuda"))
    return tuple(out)


def graph_of_sample(sample: Case) -> tuple[Graph, list[dg.Tensor]]:
    """The graph of a sample of an op, and the tensors that it reads."""
    xs = tensors(sample.arrays())
    arrays = [x for x in xs if isinstance(x, dg.Tensor)]
    nodes = iter([input_node(k, x.type) for k, x in enumerate(arrays)])
    operands = [next(nodes) if isinstance(x, dg.Tensor) else x for x in xs]
    inputs = tuple(x for x in operands if isinstance(x, Node))
    return Graph(inputs, (), (sample.sample.function(*operands),)), arrays


def sample_programs(first: int, step: int) -> list[LoopProgram]:
    """Samples of ops with their layouts, every so many of them, each with a name of its own."""
    out = []
    for number, sample in enumerate(GOOD[first::step]):
        graph, arrays = graph_of_sample(sample)
        out.append(lower(graph, tuple(x.layout for x in arrays), f"op{number}", 1, "cuda"))
    return out
