"""README.md is true: its code runs and prints what it says, and its tables match the code."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from dualgrad.runtime import config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = "python -m pip install "


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and where it starts in the file."""

    language: str
    text: str
    line: int


def blocks() -> list[Block]:
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(f[1], f[2], README.count("\n", 0, f.start()) + 1) for f in fences]


def programs() -> list[tuple[Block, str | None]]:
    """Python blocks, each with the output that follows it."""
    pairs = itertools.pairwise([*blocks(), Block("", "", 0)])
    return [
        (block, after.text if after.language == "text" else None)
        for block, after in pairs
        if block.language == "python"
    ]


def commands() -> list[str]:
    """Command lines of the shell blocks."""
    return [
        line for block in blocks() if block.language == "sh" for line in block.text.splitlines()
    ]


def environment(cache: Path) -> dict[str, str]:
    """For processes that import dualgrad from this clone, wherever they run."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "DG_CACHE_DIR": str(cache)}


def as_pattern(expected: str) -> str:
    """A regular expression for an expected output in which `...` stands for anything."""
    return ".*?".join(map(re.escape, expected.split("...")))


@pytest.mark.parametrize(
    ("block", "expected"), programs(), ids=[f"line{block.line}" for block, _ in programs()]
)
def test_python_block(block, expected, tmp_path):
    file = tmp_path / "block.py"
    file.write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)],
        env=environment(tmp_path / "cache"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if expected is not None:
        assert re.fullmatch(as_pattern(expected), done.stdout, re.DOTALL), done.stdout


def test_every_block_is_known():
    assert {block.language for block in blocks()} == {"python", "sh", "text"}
    assert len(programs()) >= 2
    assert sum(block.language == "text" for block in blocks()) == sum(
        expected is not None for _, expected in programs()
    )


@pytest.mark.parametrize("line", [c for c in commands() if not c.startswith(INSTALL)])
def test_command(line, tmp_path):
    python, *arguments = shlex.split(line)
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_install_commands_name_what_exists():
    """What they do, `.ci/run` finds out: it takes these lines and runs them."""
    found = [c for c in commands() if c.startswith(INSTALL)]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = []
    for line in found:
        target, separator, module = line.removeprefix(INSTALL).partition(" && python -m ")
        assert separator
        match = re.fullmatch(r'\.|"\.\[(\w+)\]"', target)
        assert match
        assert match[1] is None or match[1] in extras["optional-dependencies"]
        modules.append(module)
    assert modules == ["benchmarks --quick", "pytest -n auto"]


def test_environment_table_is_complete():
    told = set(re.findall(r"^\| `(DG_\w+)` \|", README, re.MULTILINE))
    assert config.__doc__ is not None
    assert told == set(re.findall(r"DG_\w+", config.__doc__))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_folders_exist():
    table = README.partition("## Where things are")[2]
    folders = re.findall(r"`([\w.]+/\w*)`", table.partition("\n## ")[0])
    assert len(folders) >= 6
    for folder in folders:
        assert (ROOT / folder).exists(), folder
