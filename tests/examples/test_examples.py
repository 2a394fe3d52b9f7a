"""The examples at small size: both modes give the same bits, and what is learnt is learnt."""

from __future__ import annotations

import contextlib
import importlib
import re
import runpy
from pathlib import Path

import pytest

from dualgrad.errors import DataError

FOLDER = Path(__file__).parents[2] / "examples"
# options that make an example small
SMALL = {
    "char_transformer": ["--steps=6", "--width=16", "--heads=2", "--layers=2", "--context=12"],
    "lstm_language_model": ["--steps=6", "--width=16", "--context=6", "--layers=2"],
    "mnist_cnn": ["--data=synthetic", "--samples=320", "--epochs=2", "--batch-size=32"],
    "mnist_mlp": ["--data=synthetic", "--samples=2000", "--epochs=3", "--batch-size=32"],
    "regression": ["--steps=300", "--lr=0.03"],
}


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs an example with options and returns the lines it prints."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name: str, *options: str) -> list[str]:
        monkeypatch.setattr("sys.argv", [f"{name}.py", *SMALL[name], *options])
        with contextlib.suppress(SystemExit):  # after a comparison
            runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def numbers(pattern: str, lines: list[str]) -> list[float]:
    return [float(found[1]) for line in lines if (found := re.search(pattern, line))]


def test_every_example_is_here() -> None:
    names = {path.stem for path in FOLDER.glob("*.py")} - {"common", "texts"}
    assert names == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_modes_give_the_same_bits(name: str, printed) -> None:
    """A step that fell back to eager execution would warn, and warnings are errors."""
    lines = printed(name, "--compare")
    half = lines.index("--- static")
    assert lines[0] == "--- eager"
    assert lines[-1] == "--- all losses and weights have the same bits"
    times = re.compile(r", [\d.]+ s$")
    eager, static = (
        [times.sub("", line) for line in part] for part in (lines[1:half], lines[half + 1 : -1])
    )
    assert len(eager) > 2
    assert eager == static


def test_different_bits_are_told(printed, monkeypatch: pytest.MonkeyPatch) -> None:
    common = importlib.import_module("common")
    monkeypatch.setitem(common.MODES, "eager", lambda step: lambda *args: step(*args) * 1.0000002)
    assert printed("regression", "--compare")[-1].endswith("DIFFERENT BITS")


def test_the_perceptron_learns_digits(printed) -> None:
    lines = printed("mnist_mlp", "--epochs=4")
    assert numbers(r"accuracy ([\d.]+)", lines)[-1] > 75


def test_language_models_learn_a_text(printed) -> None:
    for name in ("char_transformer", "lstm_language_model"):
        lines = printed(name, "--steps=60", "--lr=0.01")
        losses = numbers(r"validation loss ([\d.]+)", lines)
        assert losses[-1] < losses[0]
        assert losses[-1] < 3.3  # log 45 is 3.8


def test_texts_from_a_folder(printed, tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("abcba" * 60, encoding="utf-8")
    lines = printed("lstm_language_model", f"--root={tmp_path}", "--steps=60", "--lr=0.03")
    assert lines[0].endswith("300 characters, 3 different ones")
    assert numbers(r"validation loss ([\d.]+)", lines)[-1] < 0.5


def test_the_convolutions_learn_digits(printed) -> None:
    lines = printed("mnist_cnn", "--samples=2000", "--epochs=3")
    assert numbers(r"accuracy ([\d.]+)", lines)[-1] > 75


def test_the_regression_comes_near_to_the_noise(printed) -> None:
    lines = printed("regression", "--steps=1000")
    assert 0.008 < numbers(r"loss ([\d.]+)", lines)[-1] < 0.03


def test_steps_fewer_than_reports(printed) -> None:
    assert len(printed("regression", "--steps=3")) == 4


def test_digits_from_a_folder(printed, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no train-images"):
        printed("mnist_mlp", f"--root={tmp_path}")
