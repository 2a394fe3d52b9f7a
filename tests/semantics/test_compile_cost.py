"""Compile cost: linear in the number of ops, and little from the disk cache.

What is counted stands in for time: instructions, kernels, what a process loads.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.compiler.ir.node import Graph, input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.launch import Space, plan_arena
from dualgrad.compiler.ops.stated import stated_graph
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import float32

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.compile_programs import PROGRAMS  # noqa: E402


def compiled(name: str, n: int, train: bool) -> Any:
    step, arguments = PROGRAMS[name](n, train)
    function = dg.function(step, strict=True)
    function(*arguments)
    return function


def counts(function: Any) -> tuple[int, int]:
    """(kernels of the program, functions that do their work)."""
    kernels = len(re.findall(r"^kernel ", function.ir(), re.M))
    launched = set(re.findall(r"call void .*@(kernel_\d+)\b", function.llvm()))
    return kernels, len(launched)


# -- need 21: loops unrolled into large graphs --------------------------------------------------


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Checked kernels share no code: their errors name the buffer."""
    with config.scope(check=False):
        yield


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["chain", "residual", "recurrent"])
def test_need21_code_does_not_grow_faster_than_the_program(name: str, train: bool) -> None:
    few, many = (len(compiled(name, n, train).llvm().splitlines()) for n in (12, 48))
    assert many <= 5 * few


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["residual", "recurrent"])
def test_need21_equal_kernels_share_their_code(name: str) -> None:
    kernels, functions = counts(compiled(name, 12, True))
    more_kernels, more_functions = counts(compiled(name, 24, True))
    assert more_kernels >= kernels + 24
    assert functions < kernels
    assert more_functions <= functions + 2


def test_need21_a_long_chain_is_cut_and_calls_its_formulas() -> None:
    function = compiled("chain", 200, False)
    assert len(re.findall(r"^define internal .* @sin\.", function.llvm(), re.M)) <= 2
    kernels, functions = counts(function)
    assert kernels >= 4
    assert functions <= 5


@pytest.mark.parametrize("name", ["chain", "residual", "recurrent"])
def test_need21_unrolled_programs_keep_the_bits_of_eager(name: str) -> None:
    step, arguments = PROGRAMS[name](60, False)
    want = step(*arguments).numpy()
    for check in (False, True):
        with config.scope(check=check):
            got = dg.function(step, strict=True)(*arguments).numpy()
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_need21_long_kernels_of_other_dtypes(dtype: str) -> None:
    x = dg.from_numpy(np.arange(-30, 41).astype(dtype))

    def long(x: Any) -> Any:
        y = x
        for k in range(40):
            y = dg.where(y > k, dg.exp(y * 0.01) + x, dg.sin(y) - 1)
        return y

    want = long(x).numpy()
    assert dg.function(long, strict=True)(x).numpy().tobytes() == want.tobytes()


def test_need21_many_temporaries_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 300, 700)
    last = first + rng.integers(0, 30, 700)
    sizes = 64 * rng.integers(0, 40, 700)
    spaces = tuple(
        Space(int(n), int(a), int(b)) for n, a, b in zip(sizes, first, last, strict=True)
    )
    offsets, total = plan_arena(spaces, {})
    for time in range(330):
        held = sorted(
            (o, o + int(s.nbytes))
            for o, s in zip(offsets, spaces, strict=True)
            if s.first <= time <= s.last and s.nbytes
        )
        assert all(a[1] <= b[0] for a, b in pairwise(held))
        assert all(end <= total for _, end in held)
    busiest = max(
        sum(int(s.nbytes) for s in spaces if s.first <= time <= s.last) for time in range(330)
    )
    assert total <= 2 * busiest


# -- need 15: the disk cache ----------------------------------------------------------------------

_STEP = """
import hashlib, json, sys
import numpy as np
import dualgrad as dg
from dualgrad.runtime.profile import counters

rng = np.random.default_rng(0)
make = lambda *shape: dg.from_numpy(rng.standard_normal(shape).astype(np.float32))
w, v, x, y = make(8, 16), make(16, 1), make(32, 8), make(32, 1)
w.requires_grad = v.requires_grad = True
k = dg.from_numpy(np.array([1, 0, 3]))

@dg.function(strict=True)
def step(x, y, k):
    loss = ((dg.tanh(x @ w) @ v - y) ** 2).mean()
    loss.backward()
    with dg.no_grad():
        for p in (w, v):
            p -= 0.1 * p.grad
            p.grad = None
    return loss.detach(), x.take(k, axis=0) if hasattr(x, "take") else x[k]

out = [t.numpy().tobytes() for _ in range(3) for t in step(x, y, k)]
out += [w.detach().numpy().tobytes(), v.detach().numpy().tobytes()]
answer = {
    "bits": hashlib.sha256(b"".join(out)).hexdigest(),
    "compiled": counters.compiled,
    "codegen": "dualgrad.compiler.pipeline" in sys.modules,
    "llvmlite": "llvmlite" in sys.modules,
}
if "explain" in sys.argv:
    answer["texts"] = [step.ir(), step.llvm(), step.report().split(" ms")[0]]
print(json.dumps(answer))
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _STEP, *arguments],
        env={**os.environ, "DG_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    out: dict[str, Any] = json.loads(text)
    return out


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("cache")
    os.chmod(folder, 0o700)
    first = answer(start(folder, "explain"))
    assert first["compiled"] > 0
    return folder, first


def test_need15_a_new_process_makes_no_program(filled: tuple[Path, dict[str, Any]]) -> None:
    folder, first = filled
    second = answer(start(folder))
    assert second["bits"] == first["bits"]
    assert second["compiled"] == 0
    assert not second["codegen"]
    if sys.platform == "linux" and platform.machine() == "x86_64":  # elsewhere llvmlite links
        assert not second["llvmlite"]


def test_need15_programs_from_disk_can_be_explained(filled: tuple[Path, dict[str, Any]]) -> None:
    folder, first = filled
    second = answer(start(folder, "explain"))
    assert second["texts"][:2] == first["texts"][:2]


def test_need15_damaged_entries_are_made_anew(
    filled: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, first = filled
    os.chmod(tmp_path, 0o700)
    for k, path in enumerate(sorted(folder.iterdir())):
        content = bytearray(path.read_bytes())
        content[-1 - k % 5] ^= 0xFF
        (tmp_path / path.name).write_bytes(content)
        os.chmod(tmp_path / path.name, 0o600)
    again = answer(start(tmp_path))
    assert again["bits"] == first["bits"]
    assert again["compiled"] > 0


def test_need15_two_processes_at_once(filled: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    processes = [start(tmp_path), start(tmp_path)]
    answers = [answer(p) for p in processes]
    assert {a["bits"] for a in answers} == {filled[1]["bits"]}


def test_need15_graphs_that_differ_have_other_texts() -> None:
    f = TensorType((3, 4), float32)
    x, y = input_node(0, f), input_node(1, f)
    layouts = ((4, 1), None)

    def graph(*outputs: Any, writes: Any = ()) -> Graph:
        return Graph((x, y), (), tuple(outputs), writes)

    half = input_node(0, TensorType((4, 3), float32))
    texts = [
        stated_graph(graph(x + y), layouts),
        stated_graph(graph(y + x), layouts),
        stated_graph(graph(x + y), (None, None)),
        stated_graph(graph(x + y, x + y), layouts),
        stated_graph(graph(x + y, x - y), layouts),
        stated_graph(graph(x - y, x + y), layouts),
        stated_graph(graph(x + 1), layouts),
        stated_graph(graph(x + 1.0), layouts),
        stated_graph(graph(x + -0.0), layouts),
        stated_graph(graph(x + 0.0), layouts),
        stated_graph(graph(x.sum(axis=0)), layouts),
        stated_graph(graph(x.sum(axis=1)), layouts),
        stated_graph(graph(writes=((x + y, 0),)), layouts),
        stated_graph(graph(writes=((x + y, 1),)), layouts),
        stated_graph(Graph((half, y), (), (half + 1,)), layouts),
    ]
    assert None not in texts
    assert len(set(texts)) == len(texts)
