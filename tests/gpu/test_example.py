"""The MNIST example at small size: on a device, in both modes, the losses are those of the CPU."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from dualgrad import data

pytestmark = pytest.mark.usefixtures("gpu")
EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist_mlp.py"


def printed(
    mode: str, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What the example prints of each epoch, without the time that it took."""
    digits = {20_000: data.synthetic_digits(52, 0), 4_000: data.synthetic_digits(30, 1)}
    monkeypatch.setattr(data, "synthetic_digits", lambda count, seed: digits[count])
    options = ["--data", "synthetic", "--epochs", "2", "--batch-size", "16"]
    argv = [str(EXAMPLE), *options, "--mode", mode, "--device", device]
    monkeypatch.setattr("sys.argv", argv)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    monkeypatch.undo()
    first, *epochs = capsys.readouterr().out.splitlines()
    assert first.endswith(f"mode {mode}, device {device}")
    return [re.sub(r", \S+ s$", "", line) for line in epochs]


def test_losses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    want = printed("eager", "cpu", monkeypatch, capsys)
    assert len(want) == 2
    for mode in ("eager", "static"):
        assert printed(mode, "cuda", monkeypatch, capsys) == want
