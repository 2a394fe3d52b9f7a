"""The generated pages of docs say what their sources say."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import docs_module

FOLDER = Path(__file__).parent.parent / "docs"


STUBS = [f"../dualgrad/{name}.pyi" for name in ("__init__", "fft", "functional", "linalg")]
PAGES = ["errors.md", "ops.md", *STUBS]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_up_to_date(page: str) -> None:
    written = (FOLDER / page).read_text(encoding="utf-8")
    assert docs_module().PAGES[page]() == written, "run python docs/generate.py"


def test_every_page_is_tested() -> None:
    assert sorted(docs_module().PAGES) == sorted(PAGES)
