"""What dualgrad says about the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

import dualgrad as dg
from dualgrad.runtime import cuda
from dualgrad.runtime.config import config


def test_doctor_names_processor_threads_and_cache(capsys: pytest.CaptureFixture[str]) -> None:
    dg.doctor()
    shown = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert dg.__version__ in lines["dualgrad"]
    assert lines["threads"].startswith(f"{dg.get_num_threads()} of ")
    if not cuda.available():
        assert lines["GPUs"] == "none"
        assert "GPUs: " in lines["missing"]


def test_cache_info_counts_what_is_there(tmp_path: Path) -> None:
    with config.scope(cache_dir=tmp_path):
        before = dg.cache_info()
        assert (before.root, before.entries) == (tmp_path, 0)


def test_doctor_says_that_the_cache_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    with config.scope(cache=False):
        dg.doctor()
    assert "cache      off" in capsys.readouterr().out
