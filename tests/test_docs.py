"""The generated pages of docs, and the stubs of types, say what their sources say."""

from __future__ import annotations

from pathlib import Path

from support import docs_module

FOLDER = Path(__file__).parent.parent / "docs"


def test_generated_files_are_up_to_date() -> None:
    pages = docs_module().PAGES
    assert {"errors.md", "ops.md"} <= set(pages)
    for name, page in pages.items():
        written = (FOLDER / name).read_text(encoding="utf-8")
        assert page() == written, f"{name}: run python docs/generate.py"
