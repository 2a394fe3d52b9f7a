"""The generated pages of docs, and stubs of the package, say what their sources say."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import docs_module

FOLDER = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", sorted(docs_module().PAGES))
def test_page_is_up_to_date(page: str) -> None:
    written = (FOLDER / page).read_text(encoding="utf-8")
    assert docs_module().PAGES[page]() == written, "run python docs/generate.py"


def test_there_are_pages() -> None:
    assert {"ops.md", "errors.md", "../dualgrad/__init__.pyi"} <= set(docs_module().PAGES)
