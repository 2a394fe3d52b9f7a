"""Random programs as CUDA C on the shim: the bits, the errors and the inputs of the CPU's.

The programs are those of `test_bits`, in row-major memory and with other strides.  The shim
poisons memory and runs threads in a random order, so a wait that is missing is found too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from support import Array

import dualgrad as dg
from dualgrad.compiler.ir.dims import Dim, ShapeEnv, evaluate, shape_env, sym, symbol_of
from dualgrad.compiler.ir.node import Graph, Node, input_node
from dualgrad.compiler.ir.types import Layouts, TensorType, contiguous_strides
from dualgrad.compiler.lower.cuda.module import module_of
from dualgrad.compiler.ops.region import accumulate
from dualgrad.compiler.ops.slicing import Windows
from dualgrad.runtime.dtype import float32, int64
from dualgrad.runtime.program import decode_error
from gpu import shim
from gpu.graphs import numbers, turned
from gpu.running import Arguments, Case, Loaded, Run, case, compare, load
from gpu.test_build import GRADIENTS

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

NUMBERS = {"f": 0.375, "i": 2, "b": True}


def array_of(x: Node, strides: tuple[Dim, ...] | None, rng: np.random.Generator) -> Array:
    """Random elements of an input, in memory with these strides."""
    shape = [evaluate(n, {}) for n in x.shape]
    steps = [evaluate(n, {}) for n in strides or contiguous_strides(x.shape)]
    size = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
    flat = numbers(x.dtype, size, rng)
    return as_strided(flat, shape, [s * flat.itemsize for s in steps])


def case_of(graph: Graph, layouts: Layouts, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    arrays = [array_of(x, s, rng) for x, s in zip(graph.inputs, layouts, strict=True)]
    scalars = tuple(NUMBERS[x.dtype.kind] for x in graph.scalars)
    return Case(graph, layouts, [Arguments(arrays, {}, scalars)])


def cases_of(graph: Graph, seed: int) -> list[Case]:
    layouts = (None,) * len(graph.inputs), turned(graph, seed)
    return [case_of(graph, x, seed) for x in dict.fromkeys(layouts)]


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients(seed: int) -> None:
    cases = [c for make in GRADIENTS.values() for c in cases_of(make(), seed)]
    compare(*cases, seed=seed, shift=seed)


def test_steps_of_a_team_wait_for_each_other() -> None:
    """Without the barriers of such a kernel the result is another one."""
    (case, *_) = cases_of(GRADIENTS["weighted windows"](), 0)
    (loaded,) = load([case.program])
    module = module_of(case.program)
    assert "__syncthreads();" in module.text
    text = module.text.replace("__syncthreads();", "")
    broken = Loaded(case.program, module.steps, shim.build(text))
    (args,) = case.runs

    def result(loaded: Loaded, seed: int) -> Array:
        run = Run(loaded, case.flat(args, args.arrays), args.values, args.scalars, seed=seed)
        return run().array("o0")

    want = result(loaded, 0)
    assert all(np.array_equal(result(loaded, seed), want) for seed in range(1, 6))
    assert not all(np.array_equal(result(broken, seed), want) for seed in range(6))


CHECKED: dict[str, Callable[..., Node]] = {
    "map": lambda x, i: dg.index_select(x, 0, i),
    "row": lambda x, i: dg.take(x, i).sum(),
    "check of a row": lambda x, i: dg.softmax(dg.index_select(x, 0, i), 1),
    "transposed": lambda x, i: dg.index_select(x, 0, i).transpose(0, 1) * 2.0,
    "update": lambda x, i: dg.index_add(x, 0, i, dg.index_select(x, 0, i)),
}


@pytest.mark.parametrize("name", CHECKED)
def test_the_least_of_all_errors_is_kept(name: str) -> None:
    """Whoever is first: the error is the same whatever the order of threads."""
    x, i = np.ones((40, 70), np.float32), np.arange(300) % 40
    i[[50, 120, 290]] = (9000, 7000, 8000)
    one = case(CHECKED[name], x, i)
    (loaded,) = load([one.program])
    (args,) = one.runs
    flat = one.flat(args, args.arrays)
    words = {int(Run(loaded, flat, {}, blocks=8, seed=s)().error[0]) for s in range(6)}
    assert len(words) == 1
    offset = 40 if name != "row" else 2800
    assert decode_error(words.pop())[1] in (7000, 7000 + offset)


def unknown(function: Callable[..., Node], *shapes: tuple[Any, ...], sizes: list[Any]) -> Case:
    """A function of tensors with sizes that are symbols; positions are numbers below 3."""
    kinds = (float32, int64, float32)
    pairs = zip(shapes, kinds, strict=False)
    nodes = tuple(input_node(k, TensorType(s, t)) for k, (s, t) in enumerate(pairs))
    runs = []
    for values in sizes:
        with shape_env(ShapeEnv(values)):
            rng = np.random.default_rng(1)
            arrays = [
                numbers(x.dtype, evaluate(x.type.size, values), rng).reshape(
                    [evaluate(n, values) for n in x.shape]
                )
                for x in nodes
            ]
            runs.append(Arguments(arrays, values))
    with shape_env(ShapeEnv(dict(sizes[0]))):
        graph = Graph(nodes, (), (function(*nodes),))
    return Case(graph, (None,) * len(nodes), runs)


def test_unknown_sizes() -> None:
    """Updates, scans and sums of what meets, in programs for many sizes."""
    n, m, k = (sym(name) for name in "nmk")
    atoms = [symbol_of(x) for x in (n, m, k)]
    sizes = [
        dict(zip(atoms, values, strict=True))
        for values in ((40, 5, 7), (3, 2, 2), (5, 70, 33), (1000, 3, 64))
    ]
    windows = Windows.of((0,), (n - 2,), (3,), (1,), (1,))
    cases = [
        unknown(lambda x, i, y: dg.index_add(x, 0, i, y), (n, m), (k,), (k, m), sizes=sizes),
        unknown(lambda x, i, y: dg.index_add(x, 1, i, y), (m, n), (k,), (m, k), sizes=sizes),
        unknown(lambda x, i, y: dg.index_add(x, 0, i, y), (n,), (k,), (k,), sizes=sizes),
        unknown(lambda x: dg.cumsum(x, 0), (n, m), sizes=sizes),
        unknown(lambda x: dg.cumsum(x, 1), (n, m), sizes=sizes),
        unknown(lambda x: x.sum(1).sum(), (n, m, k), sizes=sizes),
        unknown(lambda x: accumulate(x, windows, (n, m)), (n - 2, m, 3), sizes=sizes),
    ]
    compare(*cases)


def random_programs(programs: list[test_bits.Program]) -> None:
    cases: list[Case] = []
    for number, program in enumerate(programs):
        run = test_bits.Run(program, True)
        if test_bits.outcome(run, 1)[0] in test_bits.LIMITS:
            continue
        for path in run.function.paths:  # type: ignore[attr-defined]
            cases += cases_of(path.graph, number)
    cases = [c for c in cases if c.program.kernels]
    if cases:
        compare(*cases, seed=len(cases))


several = st.lists(test_bits.programs, min_size=5, max_size=5)


@settings(max_examples=3, **test_bits.COMMON)
@given(several)
def test_random_programs(programs: list[test_bits.Program]) -> None:
    random_programs(programs)


@pytest.mark.slow
@settings(max_examples=30, **test_bits.COMMON)
@given(several)
def test_many_random_programs(programs: list[test_bits.Program]) -> None:
    random_programs(programs)
