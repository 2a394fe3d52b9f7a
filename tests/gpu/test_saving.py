"""Values on a CUDA device in files, and runs that go on there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import same_bits

import dualgrad as dg
from dualgrad import nn, optim

pytestmark = pytest.mark.usefixtures("gpu")


def test_tensors_of_a_device_come_back(tmp_path):
    x = dg.arange(12.0).reshape(3, 4)
    value = {"t": x.cuda().T, "b": [x.to(dg.bfloat16).cuda()[:, 1], np.arange(3)], "plain": x}
    dg.save(value, tmp_path / "x")
    loaded = dg.load(tmp_path / "x")
    assert loaded["t"].device == "cpu"
    same_bits(loaded["t"], x.T)
    same_bits(loaded["b"][0], x.to(dg.bfloat16)[:, 1])
    moved = dg.load(tmp_path / "x", device="cuda")
    assert [moved[k].device for k in ("t", "plain")] == ["cuda:0", "cuda:0"]
    assert isinstance(moved["b"][1], np.ndarray)
    same_bits(moved["t"].cpu(), x.T)
    dg.save({"w": x.cuda()}, tmp_path / "x")
    assert dg.load(tmp_path / "x", device="cuda")["w"].device == "cuda:0"


@pytest.mark.parametrize("static", [False, True])
def test_a_run_goes_on_where_it_was(static, tmp_path):
    def begin(seed: int) -> tuple[dict[str, Any], Any]:
        dg.seed(seed)
        model = nn.Linear(3, 2).to("cuda")
        optimizer = optim.AdamW(model.parameters(), lr=0.1)

        def step() -> dg.Tensor:
            optimizer.zero_grad()
            loss = (model(dg.randn(4, 3, device="cuda")) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        return {"model": model, "optimizer": optimizer}, (
            dg.function(strict=True)(step) if static else step
        )

    parts, step = begin(1)
    losses = [step().item() for _ in range(3)]
    dg.save_checkpoint(tmp_path / "run", **parts)
    expected = [step().item() for _ in range(3)]
    parts, step = begin(2)
    dg.load_checkpoint(tmp_path / "run", **parts)
    assert parts["model"].weight.device == "cuda:0"
    assert [step().item() for _ in range(3)] == expected
    assert losses != expected
