"""The generated pages of docs say what their sources say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "docs"


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/generate.py as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("generate_docs", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["ops.md", "errors.md"])
def test_page_is_up_to_date(page: str, generate: ModuleType) -> None:
    written = (FOLDER / page).read_text(encoding="utf-8")
    assert generate.PAGES[page]() == written, "run python docs/generate.py"


def test_every_page_is_tested(generate: ModuleType) -> None:
    assert sorted(generate.PAGES) == ["errors.md", "ops.md"]
