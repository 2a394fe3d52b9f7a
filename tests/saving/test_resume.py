"""A run that stops, and goes on in another process, ends with the bits of one that did not stop."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.runtime.errors import ArgumentError, DataError

# 36 items in batches of 8 are 5 steps; the run stops in the midst of its second epoch.
RUN = """
import hashlib, json, sys
import numpy as np
import dualgrad as dg
from dualgrad import data, nn, optim

how, task, path = sys.argv[1:]

dg.seed(11 if task == "start" else 99)
rng = np.random.default_rng(3)
items = data.TensorDataset(
    dg.from_numpy(rng.standard_normal((36, 5)).astype(np.float32)),
    dg.from_numpy(rng.integers(0, 3, 36)),
)
model = nn.Sequential(
    nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
)
loss_of = nn.CrossEntropyLoss()
kind, _, workers = how.partition(" ")
if "sgd" in kind:
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    schedules = {"schedule": optim.lr_scheduler.StepLR(optimizer, 3, 0.5)}
else:
    optimizer = optim.AdamW(
        [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[4].parameters()}]
    )
    schedules = {"schedule": optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=20)}
loader = data.DataLoader(items, batch_size=8, shuffle=True, num_workers=int(workers or 0))
parts = dict(model=model, optimizer=optimizer, loader=loader, noise=rng, **schedules)

def step(x, y):
    optimizer.zero_grad()
    loss = loss_of(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

if "static" in kind:
    step = dg.function(strict=True)(step)

def go(first, last):
    number = first
    while number < last:
        for x, y in loader:
            noisy = x + dg.from_numpy(rng.standard_normal(x.shape).astype(np.float32)) * 0.1
            losses.append(step(noisy, y).item().hex())
            schedules["schedule"].step()
            number += 1
            if number == 7 and task == "start":
                dg.save_checkpoint(path, **parts, done=7, losses=losses)
            if number == last:
                break

losses = []
if task == "start":
    go(0, 13)
else:
    left = dg.load_checkpoint(path, **parts)
    losses = left["losses"]
    go(left["done"], 13)
digest = hashlib.sha256()
for name, tensor in model.state_dict().items():
    digest.update(tensor.numpy().tobytes())
for state in optimizer.state_dict()["state"].values():
    for tensor in state.values():
        digest.update(dg.asarray(tensor).numpy().tobytes())
rate = optimizer.param_groups[0]["lr"]
print(json.dumps([losses, digest.hexdigest(), dg.randn(2).tolist(), rate]))
"""


def run(how: str, task: str, path: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", RUN, how, task, str(path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "EagerFallback" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", ["eager-adamw", "static-adamw 2", "static-sgd"])
def test_going_on_is_not_having_stopped(how, tmp_path):
    straight = run(how, "start", tmp_path / "run")
    resumed = run(how, "resume", tmp_path / "run")
    assert len(straight[0]) == 13
    assert resumed == straight


# -- parts


@pytest.fixture
def parts() -> dict[str, Any]:
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {"model": model, "optimizer": optimizer}


class Counter:
    """A part of the user's."""

    def __init__(self, broken: bool = False) -> None:
        self.count, self.broken = 0, broken

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]
        if self.broken and self.count == 5:
            raise RuntimeError("not this one")


def bits(parts: dict[str, Any]) -> str:
    return repr({name: part.state_dict() for name, part in parts.items()})


def test_values_come_back_and_parts_are_restored(parts, tmp_path):
    path = tmp_path / "run"
    dg.save_checkpoint(path, **parts, step=3, history=[1.5], best=parts["model"].state_dict())
    before = bits(parts)
    parts["model"].weight.data.mul_(2.0)
    left = dg.load_checkpoint(path, **parts)
    assert bits(parts) == before
    assert left.pop("best")["weight"].tolist() == parts["model"].weight.tolist()
    assert left == {"step": 3, "history": [1.5]}


def test_states_of_parts_that_are_not_given_are_returned(parts, tmp_path):
    dg.save_checkpoint(tmp_path / "run", **parts, step=3)
    left = dg.load_checkpoint(tmp_path / "run", model=parts["model"])
    assert set(left) == {"optimizer", "step"}
    parts["optimizer"].load_state_dict(left["optimizer"])


def test_every_kind_of_random_stream_goes_on(tmp_path):
    def streams(seed: int) -> dict[str, Any]:
        made = {
            "ours": dg.Generator(seed),
            "python": random.Random(seed),
            "numpy": np.random.default_rng(seed),
            "twister": np.random.Generator(np.random.MT19937(seed)),
            "old": np.random.RandomState(seed),
        }
        made["old"].normal()  # a second number is kept
        return made

    def draw(made: dict[str, Any]) -> list[Any]:
        return [
            dg.randn(2, generator=made["ours"]).tolist(),
            made["python"].random(),
            made["numpy"].normal(),
            made["twister"].normal(),
            made["old"].normal(),
            dg.randn(2).tolist(),
            random.random(),
            np.random.normal(),
        ]

    state, old_state = random.getstate(), np.random.get_state()
    try:
        first, second = streams(1), streams(2)
        module = {"random": random, "np_random": np.random}
        dg.save_checkpoint(tmp_path / "run", **first, **module)
        expected = draw(first)
        assert dg.load_checkpoint(tmp_path / "run", **second, **module) == {}
        assert draw(second) == expected
    finally:
        random.setstate(state)
        np.random.set_state(old_state)


def test_the_default_stream_may_go_its_own_way(parts, tmp_path):
    dg.save_checkpoint(tmp_path / "run", **parts)
    dg.randn(3)
    now = dg.get_rng_state().tolist()
    left = dg.load_checkpoint(tmp_path / "run", restore_rng=False, **parts)
    assert dg.get_rng_state().tolist() == now
    assert left == {}


@pytest.mark.parametrize("last", [True, False])
def test_a_part_that_refuses_its_state_leaves_all_as_they_were(last, parts, tmp_path):
    """Also a part that has half taken it."""
    names = ("model", "optimizer", "counter") if last else ("counter", "model", "optimizer")
    parts = {**parts, "counter": Counter(broken=True)}
    parts = {name: parts[name] for name in names}
    parts["counter"].count = 5
    dg.save_checkpoint(tmp_path / "run", **parts)
    parts["model"].weight.data.mul_(2.0)
    parts["counter"].count = 2
    parts["optimizer"].param_groups[0]["lr"] = 0.7
    dg.randn(3)
    before, stream = bits(parts), dg.get_rng_state().tolist()
    with pytest.raises(RuntimeError, match="not this one"):
        dg.load_checkpoint(tmp_path / "run", **parts)
    assert bits(parts) == before
    assert dg.get_rng_state().tolist() == stream


def test_compiled_steps_go_on_after_loading(tmp_path):
    """Loading changes values in place: a step that was compiled before sees them."""
    model = nn.Linear(3, 2)
    optimizer = optim.Adam(model.parameters())
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    @dg.function(strict=True)
    def step(x: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    x = dg.ones(4, 3)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for _ in range(3):
        step(x)
    dg.save_checkpoint(tmp_path / "run", **parts)
    expected = [step(x).item() for _ in range(3)]
    dg.load_checkpoint(tmp_path / "run", **parts)
    traces = step.n_traces
    assert [step(x).item() for _ in range(3)] == expected
    assert step.n_traces == traces


def test_a_scaler_goes_on(tmp_path):
    def scaler() -> Any:
        return dg.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

    weight = nn.Parameter(dg.ones(2))
    optimizer = optim.SGD([weight], lr=0.1)

    def step(scaler: Any, size: float) -> float:
        optimizer.zero_grad()
        scaler.scale((weight * size).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(scaler.get_scale())

    first, second = scaler(), scaler()
    step(first, 1.0)
    dg.save_checkpoint(tmp_path / "run", scaler=first)
    dg.load_checkpoint(tmp_path / "run", scaler=second)
    assert second.state_dict() == first.state_dict()
    assert [step(second, 1.0), step(second, float("inf"))] == [16.0, 8.0]


# -- what is refused


def test_names_that_are_taken(parts, tmp_path):
    with pytest.raises(ArgumentError, match="name of the default stream"):
        dg.save_checkpoint(tmp_path / "run", rng_state=dg.get_rng_state())


def test_parts_that_are_not_there(parts, tmp_path):
    dg.save_checkpoint(tmp_path / "run", **parts)
    with pytest.raises(DataError, match=r"no such part(.|\n)*model, optimizer(.|\n)*actual: net"):
        dg.load_checkpoint(tmp_path / "run", net=parts["model"])


def test_parts_that_are_no_objects(parts, tmp_path):
    dg.save_checkpoint(tmp_path / "run", step=3)
    with pytest.raises(ArgumentError, match=r"step cannot take a state(.|\n)*returned"):
        dg.load_checkpoint(tmp_path / "run", step=0)


def test_files_that_are_no_checkpoints(parts, tmp_path):
    dg.save([1], tmp_path / "run")
    with pytest.raises(DataError, match="is no checkpoint"):
        dg.load_checkpoint(tmp_path / "run", **parts)
    dg.save({name: part.state_dict() for name, part in parts.items()}, tmp_path / "run")
    with pytest.raises(DataError, match=r"no state of the random numbers(.|\n)*restore_rng=False"):
        dg.load_checkpoint(tmp_path / "run", **parts)
    assert dg.load_checkpoint(tmp_path / "run", restore_rng=False, **parts) == {}


def test_what_cannot_be_saved_leaves_the_old_checkpoint(parts, tmp_path):
    dg.save_checkpoint(tmp_path / "run", **parts, step=1)
    with pytest.raises(ArgumentError, match=r"\['step'\] is a value of type builtins.object"):
        dg.save_checkpoint(tmp_path / "run", **parts, step=object())
    assert dg.load_checkpoint(tmp_path / "run", **parts)["step"] == 1


def test_any_name_may_be_that_of_a_part(tmp_path):
    dg.save_checkpoint(tmp_path / "run", path=1, parts=2, obj=3)
    assert dg.load_checkpoint(tmp_path / "run") == {"path": 1, "parts": 2, "obj": 3}
