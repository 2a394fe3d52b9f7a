"""Processes: machine code from the disk cache, and several processes that share one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROGRAM = """
import json, sys
import numpy as np
import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.functional import cross_entropy
from dualgrad.runtime.profile import counters

dg.seed(0)
model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 5))
optimizer = optim.Adam(model.parameters())

@dg.function(strict=True)
def step(x, y):
    optimizer.zero_grad()
    loss = cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

x, y = dg.randn(16, 20), dg.tensor(np.arange(16) % 5)
losses = [step(x, y).item().hex() for _ in range(5)]
with dg.no_grad():
    losses.append(dg.tanh(model(x)).sum().item().hex())
print(json.dumps({
    "losses": losses, "compiled": counters.compiled, "hits": counters.cache_hits,
    "cached": "(from cache)" in step.report(),
}))
"""


def start(cache: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "DG_CACHE_DIR": str(cache), **environment},
        cwd=cache,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A cache that one process has filled, and what that process found."""
    folder = tmp_path_factory.mktemp("filled")
    found = result(start(folder))
    assert found["compiled"] > 0
    assert not found["cached"]
    return folder, found


Filled = tuple[Path, dict[str, Any]]


def test_second_process_compiles_nothing(filled: Filled) -> None:
    folder, first = filled
    second = result(start(folder))
    assert second["compiled"] == 0
    assert second["hits"] > 0
    assert second["cached"]
    assert second["losses"] == first["losses"]


def test_two_processes_at_once_on_one_cache(tmp_path: Path) -> None:
    one, two = map(result, [start(tmp_path) for _ in range(2)])
    assert one["losses"] == two["losses"]
    assert result(start(tmp_path))["compiled"] == 0
    assert not list(tmp_path.glob("*.part"))


def test_damaged_entries_are_compiled_again(filled: Filled, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for file in sorted(filled[0].glob("*.dgo")):
        content = bytearray(file.read_bytes())
        content[int(rng.integers(len(content)))] ^= 0xFF
        (tmp_path / file.name).write_bytes(content)
        (tmp_path / file.name).chmod(0o600)
    second = result(start(tmp_path))
    assert second["compiled"] == filled[1]["compiled"]
    assert second["losses"] == filled[1]["losses"]


@pytest.mark.parametrize(
    "environment",
    [
        {"DG_CACHE": "0", "DG_NUM_THREADS": "1"},
        {"DG_CHECK": "1", "DG_NUM_THREADS": "3"},
        {"DG_EAGER": "1"},
    ],
    ids=["no cache", "checks", "eager"],
)
def test_settings_change_no_bits(filled: Filled, environment: dict[str, str]) -> None:
    folder, first = filled
    assert result(start(folder, **environment))["losses"] == first["losses"]


LIGHT = """
import sys
import dualgrad as dg
early = sorted(sys.modules)
x = dg.rand(100)
y = dg.tanh(x).reshape(10, 10).T[1:] @ dg.ones(10)
print(json.dumps({"early": early, "late": sorted(sys.modules), "y": [v.hex() for v in y.tolist()]}))
"""


LATER = (
    "dualgrad.array_api",
    "dualgrad.backends.cuda",
    "dualgrad.command_line",
    "dualgrad.compiler.build.mathlib",
    "dualgrad.autograd",
    "dualgrad.data",
    "dualgrad.diagnosis",
    "dualgrad.display.markup",
    "dualgrad.display.summary",
    "dualgrad.gradients.anomaly",
    "dualgrad.gradients.checkpointing",
    "dualgrad.gradients.custom",
    "dualgrad.interop",
    "dualgrad.nn",
    "dualgrad.optim",
    "dualgrad.runtime.cupy_driver",
    "dualgrad.runtime.dlpack",
    "dualgrad.transforms",
)


def test_only_a_process_that_makes_programs_loads_the_code_generator(tmp_path: Path) -> None:
    def run() -> dict[str, Any]:
        return result(
            subprocess.Popen(
                [sys.executable, "-c", "import json\n" + LIGHT],
                env={**os.environ, "DG_CACHE_DIR": str(tmp_path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    first, second = run(), run()
    heavy = {"dualgrad.compiler.codegen", "dualgrad.compiler.pipeline"}
    for found in (first["early"], second["early"]):
        unused = {"urllib.request", "llvmlite.binding", "difflib", "html", "fractions", *LATER}
        assert not (heavy | unused) & set(found)
    assert heavy <= set(first["late"])
    assert not heavy & set(second["late"])
    assert first["y"] == second["y"]
