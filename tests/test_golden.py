"""The traced graph and the loop IR of representative functions, as texts to be read in reviews,
and their loop IR for a GPU.

`pytest tests/test_golden.py --update-golden` rewrites tests/golden/*.txt; the difference then
shows what a change of the compiler does to programs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dualgrad as dg
from dualgrad import functional, optim
from dualgrad.compiler.ir.node import Graph
from dualgrad.compiler.ir.printer import graph_text
from dualgrad.compiler.kernel.ir import Device
from dualgrad.compiler.lower.cuda.module import kernels_text
from dualgrad.compiler.pipeline import lower

GOLDEN = Path(__file__).parent / "golden"
ENDINGS: dict[Device, str] = {"cpu": ".txt", "cuda": ".cuda.txt"}
Setup = Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]


def map_chain() -> Any:
    return lambda x, y: dg.tanh(x * 2.0 + y) - x, (dg.ones(100, 30), dg.ones(30))


def softmax_rows() -> Any:
    return dg.softmax, (dg.ones(64, 10),)


def normalised_rows() -> Any:
    def normalise(x: dg.Tensor) -> Any:
        centred = x - x.mean(1, keepdims=True)
        return centred / dg.sqrt((centred * centred).mean(1, keepdims=True) + 1e-5)

    return normalise, (dg.ones(2000, 100),)


def column_sum() -> Any:
    return lambda x: x.sum(axis=0), (dg.ones(60, 40),)


def blocked_sum() -> Any:
    return lambda x: x.sum(), (dg.ones(20_000),)


def matmul_epilogue() -> Any:
    operands = (dg.ones(32, 48), dg.ones(24, 48), dg.ones(24))
    return lambda x, w, b: dg.relu(functional.linear(x, w, b)), operands


def cross_entropy_with_gradient() -> Any:
    def loss_and_gradient(logits: dg.Tensor, target: dg.Tensor) -> Any:
        logits.grad = None
        loss = functional.cross_entropy(logits, target)
        loss.backward()
        return loss, logits.grad

    return loss_and_gradient, (dg.ones(32, 10, requires_grad=True), dg.zeros(32, dtype=dg.int64))


def sgd_step() -> Any:
    w = dg.ones(20, 10, requires_grad=True)
    w.grad = dg.ones(20, 10)
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9)
    return lambda: optimizer.step(), ()


def transposed_copy() -> Any:
    return lambda x: x.transpose(0, 1).clone(), (dg.ones(50, 70),)


def row_scan() -> Any:
    return lambda x: (x * 2.0).cumsum(1, reverse=True), (dg.ones(60, 40),)


def column_scans() -> Any:
    return lambda x: x.cummax(0), (dg.ones(60, 40),)


def call_between_maps() -> Any:
    return lambda a, b: dg.linalg.solve(a + 1.0, b) * 2.0, (
        dg.tensor([[0.0, -1.0, -1.0], [-1.0, 0.0, -1.0], [-1.0, -1.0, 0.0]]),
        dg.ones(3, 4),
    )


SETUPS: tuple[Setup, ...] = (
    map_chain,
    softmax_rows,
    normalised_rows,
    column_sum,
    blocked_sum,
    matmul_epilogue,
    cross_entropy_with_gradient,
    sgd_step,
    transposed_copy,
    call_between_maps,
    row_scan,
    column_scans,
)


def graph_of(setup: Setup) -> Graph:
    function, args = setup()
    compiled = dg.function(function, strict=True)
    compiled(*args)
    (path,) = compiled.paths
    return path.graph


def text_of(setup: Setup, device: Device) -> str:
    graph = graph_of(setup)
    layouts = (None,) * len(graph.inputs)
    program = lower(graph, layouts, setup.__name__, 1, device)
    return f"{graph_text(graph)}\n{program.text}" if device == "cpu" else program.text


def file_of(setup: Setup, device: Device) -> Path:
    return GOLDEN / (setup.__name__ + ENDINGS[device])


@pytest.mark.parametrize("device", ENDINGS)
@pytest.mark.parametrize("setup", SETUPS, ids=lambda s: s.__name__)
def test_golden(setup: Setup, device: Device, update_golden: bool) -> None:
    file = file_of(setup, device)
    text = text_of(setup, device)
    if update_golden:
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("setup", SETUPS, ids=lambda s: s.__name__)
def test_golden_cuda(setup: Setup, update_golden: bool) -> None:
    """The CUDA C of the kernels, without what all texts start with."""
    graph = graph_of(setup)
    program = lower(graph, (None,) * len(graph.inputs), setup.__name__, 1, "cuda")
    file, text = GOLDEN / f"{setup.__name__}.cu", kernels_text(program)
    if update_golden:
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def test_every_golden_file_has_a_test() -> None:
    texts = {file_of(s, d) for s in SETUPS for d in ENDINGS}
    assert set(GOLDEN.iterdir()) == texts | {GOLDEN / f"{s.__name__}.cu" for s in SETUPS}
