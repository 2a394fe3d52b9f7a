"""The three folders become one package, however dualgrad is installed."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import dualgrad as dg

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def packages_in(folder: str, name: str) -> set[str]:
    """Dotted names of the packages below a folder that is imported as `name`."""
    return {
        ".".join([name, *file.parent.relative_to(ROOT / folder).parts])
        for file in (ROOT / folder).rglob("__init__.py")
    }


def test_all_packages_are_declared():
    found = set()
    for name, folder in SETUPTOOLS["package-dir"].items():
        found |= packages_in(folder, name)
    assert set(SETUPTOOLS["packages"]) == found


def test_every_folder_with_code_is_a_package():
    for folder in SETUPTOOLS["package-dir"].values():
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file


def test_version_is_said_once():
    assert dg.__version__ == PROJECT["project"]["version"]


def test_public_names_are_exported():
    """Type checkers offer what `__all__` names; all that `__init__` imports is public."""
    module = ast.parse((ROOT / "dualgrad" / "__init__.py").read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualgrad"):
            every = [name.name for name in node.names] == ["*"]
            found = importlib.import_module(node.module).__all__ if every else ()
            names |= {*found} if every else {name.asname or name.name for name in node.names}
    assert {name for name in names if not name.startswith("_")} == set(dg.__all__)
    assert all(hasattr(dg, name) for name in dg.__all__)
    assert set(dg.__all__) <= set(dir(dg))


CLONE = """
import collections, sys
import dualgrad
files = collections.defaultdict(list)
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if name.split(".")[0] in ("dualgrad", "compiler", "runtime"):
        assert file.startswith(sys.argv[1]), (name, file)
        files[file].append(name)
twice = [names for names in files.values() if len(names) > 1]
assert not twice, twice
assert len(files) > 50
x = dualgrad.ones(3)
print((x + 1).tolist())
"""


def test_clone_works_without_an_installation(tmp_path):
    """From a clone, all modules come from there, each once, even if another copy is installed."""
    environment = {**os.environ, "DG_CACHE_DIR": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", CLONE, str(ROOT)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2.0, 2.0, 2.0]\n"
