"""`python -m benchmarks gpu` runs, at sizes at which nothing is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import gpu as probe
from dualgrad.runtime import cuda
from dualgrad.runtime.driver import Driver


def test_without_a_device(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(cuda, "_state", cuda._State({}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert benchmarks.main(["gpu"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "CuPy, which is not installed" in err
    assert "dualgrad[cuda13]" in err


def test_everything_is_tried(gpu: Driver, tmp_path: Path, capsys) -> None:
    file = tmp_path / "tables.md"
    file.write_text(f"before\n{probe.BEGIN}\nold\n{probe.END}\nafter\n", encoding="utf-8")
    failed = benchmarks.main(["gpu", "--tiny", "--markdown", str(file)])
    text = file.read_text(encoding="utf-8")
    assert not failed, text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert f"- device: {gpu.info(0).name}, sm_" in text
    for title in probe.SECTIONS:
        assert f"### {title}\n" in text
    for row in ("launch and wait", "copy on the device", "softmax of rows of 64", "matmul of 16"):
        assert f"| {row}" in text
    assert "| training step of an MLP, compiled |" in text
    assert "launch and wait" in capsys.readouterr().out


def test_unknown_sections(capsys) -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["gpu", "speed"])
    assert "there are launches, memory" in capsys.readouterr().err


def test_a_section_that_fails_is_said_to(gpu: Driver) -> None:
    def section(clock: probe.Clock) -> probe.Rows:
        yield "first", "1", ""
        raise ZeroDivisionError("of what\nand why")

    rows = probe.rows_of(section, probe.Clock(gpu, probe.TINY))
    assert rows == [("first", "1", ""), ("failed", "ZeroDivisionError", "of what")]


def test_arrays_fit_into_the_device() -> None:
    effort = probe.fitting(probe.Effort(), 4 << 30)
    assert effort.elements * 4 * 8 == 4 << 30
    assert effort.matmuls == probe.Effort().matmuls
    assert probe.fitting(probe.Effort(), 1 << 40) == probe.Effort()
