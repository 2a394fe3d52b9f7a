"""Names of devices, and what a process without a usable device is told."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dualgrad import diagnosis
from dualgrad.runtime import cuda
from dualgrad.runtime.config import config
from dualgrad.runtime.devices import canonical, device_index
from dualgrad.runtime.driver import Driver, Problem
from dualgrad.runtime.errors import DeviceError
from dualgrad.runtime.profile import counters


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been found out about devices yet."""
    monkeypatch.setattr(cuda, "_state", cuda._State({}))


def library(monkeypatch: pytest.MonkeyPatch, **names: Any) -> None:
    """CuPy is installed, and its driver module has these names."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(cuda, "cupy_driver", SimpleNamespace(**names))


@pytest.mark.parametrize(
    ("given", "name"),
    [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:12", "cuda:12")],
)
def test_canonical_names(given: str, name: str) -> None:
    assert canonical(given) == name
    assert given == "cpu" or device_index(name) == int(name[5:])


@pytest.mark.parametrize(
    "given", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda0", 0, None]
)
def test_unknown_names(given: object) -> None:
    with pytest.raises(DeviceError, match="unknown device") as caught:
        canonical(given)
    assert caught.value.actual == repr(given)
    assert "cuda:N" in caught.value.expect


def test_without_cupy(monkeypatch: pytest.MonkeyPatch, unknown: None) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not cuda.available()
    assert cuda.device_count() == 0
    with pytest.raises(DeviceError, match="CuPy, which is not installed") as caught:
        cuda.driver()
    assert "dualgrad[cuda13]" in caught.value.hint
    assert "dualgrad[cuda12]" in caught.value.hint


def test_cupy_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, unknown: None) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ImportError("no module named cuda.pathfinder")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(cuda, "cupy_driver", Broken("cupy_driver"))
    assert not cuda.available()
    with pytest.raises(DeviceError, match="cannot be imported") as caught:
        cuda.driver()
    assert "pathfinder" in caught.value.actual


def test_without_a_device(monkeypatch: pytest.MonkeyPatch, unknown: None) -> None:
    library(monkeypatch, problem=lambda: Problem("there is no CUDA device", "", "look"))
    assert cuda.device_count() == 0
    with pytest.raises(DeviceError, match="there is no CUDA device"):
        cuda.driver()


def test_numbers_of_devices(monkeypatch: pytest.MonkeyPatch, unknown: None) -> None:
    made: list[int] = []

    def make(number: int) -> Any:
        made.append(number)
        return SimpleNamespace(number=number, device_count=lambda: 2)

    library(monkeypatch, problem=lambda: None, device_count=lambda: 2, CupyDriver=make)
    assert cuda.available()
    with pytest.raises(DeviceError, match="no such device") as caught:
        cuda.driver(2)
    assert caught.value.expect == '"cuda:0" to "cuda:1"'
    assert caught.value.actual == '"cuda:2"'
    assert made == []
    assert cuda.driver(1) is cuda.driver(1)
    assert cuda.driver() is not cuda.driver(1)
    assert made == [1, 0]


class Translator:
    """A driver that can only compile."""

    target = "upper case"

    def device_count(self) -> int:
        return 1

    def compile(self, source: str) -> bytes:
        return source.upper().encode()


def test_installed_driver_is_the_only_device() -> None:
    before = cuda.available()
    with cuda.installed(Translator()) as translator:  # type: ignore[arg-type]
        assert cuda.driver() is translator
        assert cuda.device_count() == 1
        with pytest.raises(DeviceError, match="no such device") as caught:
            cuda.driver(1)
        assert caught.value.expect == '"cuda:0"'
    assert cuda.available() == before


def test_doctor_names_devices(gpu: Driver) -> None:
    found = dict(diagnosis.findings())
    info = gpu.info(0)
    assert found["GPUs"].startswith(f"cuda:0 {info.name}, {info.arch}, ")
    assert "GPUs" not in found["missing"]


def test_images_come_from_the_disk_the_second_time(tmp_path: Path) -> None:
    translator = Translator()
    with config.scope(cache=True, cache_dir=tmp_path), cuda.installed(translator):  # type: ignore[arg-type]
        before = counters.snapshot()
        assert cuda.image_of("kernel") == b"KERNEL"
        first = counters.since(before)
        assert cuda.image_of("kernel") == b"KERNEL"
        second = counters.since(before)
        translator.target = "another compiler"
        cuda.image_of("kernel")
        third = counters.since(before)
    assert (first.compiled, first.cache_hits) == (1, 0)
    assert (second.compiled, second.cache_hits) == (1, 1)
    assert (third.compiled, third.cache_hits) == (2, 1)


def test_import_loads_no_gpu_library() -> None:
    code = (
        "import sys, dualgrad; from dualgrad.runtime import cuda; "
        "print([m for m in ('cupy', 'cupy_backends') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
