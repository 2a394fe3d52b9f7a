"""Programs built for a GPU mean what those for a CPU mean: the interpreter gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_bits
import test_golden
import test_ops
from hypothesis import given, settings
from support import same_bits

import dualgrad as dg
from dualgrad import functional
from dualgrad.compiler.ir.node import Graph, input_node
from dualgrad.compiler.lower.reference import run
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.library import FUNCTIONS
from dualgrad.runtime.program import decode_error
from gpu.graphs import compare, lowered, memory_of, turned

SEED = 7
SOME = test_ops.first_of_each(test_ops.GOOD, 1)


@pytest.mark.parametrize("setup", test_golden.SETUPS, ids=lambda s: s.__name__)
def test_golden_programs(setup: test_golden.Setup) -> None:
    graph = test_golden.graph_of(setup)
    compare(graph, (None,) * len(graph.inputs), SEED)
    compare(graph, turned(graph, SEED), SEED)


def op_sample(case: test_ops.Case) -> None:
    """The interpreted program for a GPU gives what the machine code of the CPU's gives."""
    xs = test_ops.tensors(case.arrays())
    arrays = [x for x in xs if isinstance(x, dg.Tensor)]
    nodes = iter(input_node(k, x.type) for k, x in enumerate(arrays))
    operands = [next(nodes) if isinstance(x, dg.Tensor) else x for x in xs]
    result = case.sample.function(*operands)
    inputs = tuple(x for x in operands if hasattr(x, "op"))
    layouts = tuple(x.layout for x in arrays)
    program = lower(Graph(inputs, (), (result,)), layouts, "sample", 1, "cuda")
    memory = {b.name: test_ops.flat(b, x) for b, x in zip(program.inputs, arrays, strict=True)}
    for b in program.buffers[len(program.inputs) :]:
        memory[b.name] = np.zeros(b.size, b.dtype.numpy)
    assert run(program.kernels, memory, {}, {}, SEED, FUNCTIONS, "cuda") == 0
    same_bits(memory["o0"].reshape(result.shape), test_ops.eager(case), case)


@pytest.mark.parametrize("case", SOME[:: len(SOME) // 40], ids=str)
def test_op_samples(case: test_ops.Case) -> None:
    op_sample(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", test_ops.GOOD, ids=str)
def test_all_op_samples(case: test_ops.Case) -> None:
    op_sample(case)


def gradient_of(function: Callable[..., Any], *args: dg.Tensor) -> Graph:
    """The graph of the sum of squares of what a function returns, and of its gradient."""
    leaves = [x for x in args if x.dtype.is_float]

    def step(*args: dg.Tensor) -> Any:
        for x in leaves:
            x.grad = None
        (function(*args) ** 2).sum().backward()
        return [x.grad for x in leaves]

    for x in leaves:
        x.requires_grad_()
    compiled = dg.function(step, strict=True)
    compiled(*args)
    (path,) = compiled.paths
    return path.graph


GRADIENTS: dict[str, Callable[[], Graph]] = {
    "windows": lambda: gradient_of(lambda x: dg.unfold(x, 1, 5, 2), dg.ones(3, 20)),
    "weighted windows": lambda: gradient_of(
        lambda x, w: dg.unfold(x, 1, 9, 1) * w, dg.ones(3, 140), dg.ones(3, 132, 9)
    ),
    "windows of the first axis": lambda: gradient_of(
        lambda x: dg.unfold(x, 0, 3, 1), dg.ones(9, 4)
    ),
    "two axes of windows": lambda: gradient_of(
        lambda x: functional.unfold(x, (3, 2)), dg.ones(2, 3, 6, 7)
    ),
    "max_pool2d": lambda: gradient_of(
        lambda x: functional.max_pool2d(x, 3, 2), dg.ones(2, 3, 9, 8)
    ),
    "conv2d": lambda: gradient_of(functional.conv2d, dg.ones(2, 3, 6, 7), dg.ones(4, 3, 3, 3)),
    "slice": lambda: gradient_of(lambda x: x[1:9:2, None, ::3], dg.ones(10, 7)),
    "take": lambda: gradient_of(
        lambda x, i: dg.take(x, i), dg.ones(30), dg.zeros(40, dtype=dg.int64)
    ),
    "embedding": lambda: gradient_of(
        lambda i, w: functional.embedding(i, w), dg.zeros(5, 4, dtype=dg.int64), dg.ones(9, 6)
    ),
    "gather": lambda: gradient_of(
        lambda x, i: dg.gather(x, 1, i), dg.ones(5, 6), dg.zeros(5, 9, dtype=dg.int64)
    ),
    "index_add": lambda: gradient_of(
        lambda x, i, y: dg.index_add(x, 0, i, y),
        dg.ones(6, 5),
        dg.zeros(8, dtype=dg.int64),
        dg.ones(8, 5),
    ),
    "cumprod": lambda: gradient_of(lambda x: x.cumprod(1), dg.ones(6, 9)),
    "layer_norm": lambda: gradient_of(
        lambda x, w: functional.layer_norm(x, (70,), w), dg.ones(5, 70), dg.ones(70)
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    graph = GRADIENTS[name]()
    for seed in (1, 2):
        compare(graph, (None,) * len(graph.inputs), seed)
        compare(graph, turned(graph, seed), seed)


@pytest.mark.parametrize("shape", [(50, 0), (50, 4), (50, 4, 0)], ids=str)
def test_checks_of_empty_results(shape: tuple[int, ...]) -> None:
    """An index out of range is an error whatever the size of what it selects."""
    x, i = input_node(0, dg.zeros(*shape).type), input_node(1, dg.zeros(7, dtype=dg.int64).type)
    graph = Graph((x, i), (), (dg.index_select(x, 0, i),))
    programs = [lowered(graph, (None, None), device) for device in ("cpu", "cuda")]
    for program in programs:
        memory = memory_of(program, SEED)
        assert run(program.kernels, memory, {}, {}, SEED, device=program.device) == 0
        memory["i1"][3] = 50
        word = run(program.kernels, memory, {}, {}, SEED, device=program.device)
        assert decode_error(word)[0] == 0


def random_program(program: test_bits.Program) -> None:
    run = test_bits.Run(program, True)
    if test_bits.outcome(run, 1)[0] in test_bits.LIMITS:
        return
    for path in run.function.paths:  # type: ignore[attr-defined]
        compare(path.graph, (None,) * len(path.graph.inputs), SEED)
        compare(path.graph, turned(path.graph, SEED), SEED)


@settings(max_examples=8, **test_bits.COMMON)
@given(test_bits.programs)
def test_random_programs(program: test_bits.Program) -> None:
    random_program(program)


@pytest.mark.slow
@settings(max_examples=150, **test_bits.COMMON)
@given(test_bits.programs)
def test_many_random_programs(program: test_bits.Program) -> None:
    random_program(program)
