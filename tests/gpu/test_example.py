"""The MNIST example at small size: on a device, in both modes, the losses are those of the CPU."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("gpu")
EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist_mlp.py"


def printed(
    mode: str, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What the example prints of each epoch, without the time that it took."""
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    options = ["--data=synthetic", "--samples=52", "--epochs=2", "--batch-size=16"]
    argv = [str(EXAMPLE), *options, "--mode", mode, "--device", device]
    monkeypatch.setattr("sys.argv", argv)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    monkeypatch.undo()
    first, *epochs = capsys.readouterr().out.splitlines()
    assert first.endswith(f"device {device}")
    return [re.sub(r", \S+ s$", "", line) for line in epochs]


def test_losses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    want = printed("eager", "cpu", monkeypatch, capsys)
    assert len(want) == 2
    for mode in ("eager", "static"):
        assert printed(mode, "cuda", monkeypatch, capsys) == want
