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


def start(cache: Path, program: str = PROGRAM, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
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
        return result(start(tmp_path, "import json\n" + LIGHT))

    first, second = run(), run()
    heavy = {"dualgrad.compiler.codegen", "dualgrad.compiler.pipeline"}
    for found in (first["early"], second["early"]):
        unused = {"urllib.request", "llvmlite.binding", "difflib", "html", "fractions", *LATER}
        assert not (heavy | unused) & set(found)
    assert heavy <= set(first["late"])
    assert not heavy & set(second["late"])
    assert first["y"] == second["y"]


STEPS = """
import json, sys
import numpy as np
import dualgrad as dg
from dualgrad import nn, optim

dg.seed(0)

class Task:
    '''A training step; the runtime has modules of the names that its arrays have here.'''

    def __init__(self, model, *shape):
        self.arrays = self.blocks = self.library = self.pool = [np.zeros(5000)]
        self.model, self.x = model, dg.randn(*shape)
        self.optimizer = optim.Adam(model.parameters())

    def step(self, x):
        self.optimizer.zero_grad()
        out = self.model(x)
        loss = ((out[0] if isinstance(out, tuple) else out) ** 2).mean()
        loss.backward()
        self.optimizer.step()
        return loss

tasks = [
    Task(nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 5)), 4, 9),
    Task(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2)), 2, 1, 8, 8),
    Task(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2, 5, 8),
    Task(nn.LSTM(4, 6), 3, 2, 4),
]
losses = [dg.function(t.step, strict=True)(t.x).item().hex() for t in tasks]
heavy = ("llvmlite.binding", "dualgrad.compiler.codegen", "dualgrad.compiler.pipeline")
print(json.dumps({"losses": losses, "loaded": [m for m in heavy if m in sys.modules]}))
"""


def test_training_steps_come_from_the_cache(tmp_path: Path) -> None:
    """In a process that has them on disk nothing is lowered, however its hashes come out; in the
    one before, native code comes in while they are traced, and changes nothing."""

    def run(seed: str) -> dict[str, Any]:
        return result(start(tmp_path, STEPS, PYTHONHASHSEED=seed))

    first, *others = run("1"), run("2"), run("3")
    assert len(first["loaded"]) == 3
    for other in others:
        assert other == {"losses": first["losses"], "loaded": []}
