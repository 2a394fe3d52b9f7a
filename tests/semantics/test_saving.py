"""Saving and loading beside compiled functions."""

from __future__ import annotations

from typing import Any

import pytest

import dualgrad as dg
from dualgrad import nn, optim
from semantics.support import bits


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: dg.Tensor) -> dg.Tensor:
        return dg.tanh(self.inner(x))


class Compiled(Net):
    forward = dg.function(Net.forward)


def test_row41_files_of_compiled_models_have_the_plain_names(tmp_path):
    model, plain = Compiled(), Net()
    x = dg.randn(4, 3)
    expected = model(x)
    dg.save(model.state_dict(), tmp_path / "m")
    loaded = dg.load(tmp_path / "m")
    assert sorted(loaded) == ["inner.bias", "inner.weight"]
    plain.load_state_dict(loaded)
    assert bits(plain(x)) == bits(expected)
    wrapped = dg.function(plain)
    assert bits(wrapped(x)) == bits(expected)


def test_row41_a_file_has_the_values_of_its_moment(tmp_path):
    """Steps that change parameters in place, before and after, do not reach what was saved."""
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

    @dg.function(strict=True)
    def step(x: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    x, files = dg.randn(4, 3), []
    for k in range(4):
        step(x)
        dg.save_checkpoint(tmp_path / str(k), model=model, optimizer=optimizer)
        files.append([bits(t) for t in model.state_dict().values()])
    for k in (2, 0, 3):
        dg.load_checkpoint(tmp_path / str(k), model=model, optimizer=optimizer)
        assert [bits(t) for t in model.state_dict().values()] == files[k]
        if k < 3:
            step(x)
            assert [bits(t) for t in model.state_dict().values()] == files[k + 1]
    assert step.n_traces == 1


def test_row41_loading_inside_of_a_compiled_function(tmp_path):
    """A state that is loaded inside is that of the file at each call."""
    model = Net()

    def load_and_run(x: dg.Tensor) -> Any:
        model.load_state_dict(dg.load(tmp_path / "m"))
        return model(x)

    compiled = dg.function(load_and_run)
    x = dg.randn(4, 3)
    for k in range(3):
        other = Net()
        dg.save(other.state_dict(), tmp_path / "m")
        if k == 0:
            with pytest.warns(dg.EagerFallback, match="load is called while tracing"):
                compiled(x)
        assert bits(compiled(x)) == bits(other(x)), k


def test_row41_saving_inside_of_a_compiled_function(tmp_path):
    def save_and_run(x: dg.Tensor) -> Any:
        dg.save([x * 2], tmp_path / "x")
        return x + 1

    compiled = dg.function(save_and_run)
    with pytest.warns(dg.EagerFallback, match="save asks for the values"):
        compiled(dg.ones(2))
    for k in range(3):
        compiled(dg.full((2,), float(k)))
        assert dg.load(tmp_path / "x")[0].tolist() == [2.0 * k, 2.0 * k]
