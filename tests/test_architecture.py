"""The rules of the code base that a compiler would not notice: imports, sizes, completeness."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dualgrad
from dualgrad.compiler.ir import value
from dualgrad.compiler.ops.base import OPS

ROOT = Path(__file__).parents[1]
FOLDERS = {"runtime": "dualgrad.runtime", "compiler": "dualgrad.compiler", "dualgrad": "dualgrad"}
LAYER = {"runtime": 0, "compiler": 1, "dualgrad": 2}
RUNTIME_LEAVES = {
    "config",
    "devices",
    "dtype",
    "emission",
    "errors",
    "floats",
    "lazy",
    "program",
    "records",
    "srcinfo",
}
CALLED_THROUGH = "native.callables"  # by op functions: the way to native code
LAZY = {"llvmlite", "cupy"}
ARRAYS = {"numpy", "cupy", "llvmlite"}
FILES = {"safetensors"}  # imported with dualgrad.saving, which is imported when it is used
LONGEST_FILE, LONGEST_FUNCTION = 600, 60


@dataclass(frozen=True)
class Import:
    """One imported module (for `from a import b` both a and a.b are candidates)."""

    module: str
    names: tuple[str, ...]
    line: int
    in_function: bool
    for_types: bool


@dataclass(frozen=True)
class Source:
    path: Path
    package: str  # runtime, compiler, dualgrad
    module: str  # dotted name
    imports: list[Import] = field(default_factory=list, compare=False)

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


def sources() -> Iterator[Source]:
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found = Source(path, folder, ".".join((package, *parts)))
            found.imports.extend(imports_of(found))
            yield found


def imports_of(source: Source) -> Iterator[Import]:
    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, (), child.lineno, in_function, for_types)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{source}:{child.lineno}: a relative import"
                names = tuple(a.name for a in child.names)
                yield Import(child.module or "", names, child.lineno, in_function, for_types)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from walk(child, in_function or function, for_types or types)

    return walk(source.tree, False, False)


SOURCES = tuple(sources())
MODULES = {s.module: s for s in SOURCES}
every_source = pytest.mark.parametrize("source", SOURCES, ids=str)


def targets(found: Import) -> Iterator[str]:
    """The modules of the project that an import takes something from."""
    below = [m for n in found.names if (m := f"{found.module}.{n}") in MODULES]
    if found.module in MODULES and (len(below) < len(found.names) or not below):
        yield found.module
    yield from below


def package_of(module: str) -> str:
    return MODULES[module].package


@every_source
def test_imports_point_one_way(source: Source) -> None:
    for found in source.imports:
        for target in targets(found):
            assert LAYER[package_of(target)] <= LAYER[source.package], (
                f"line {found.line}: {target}"
            )


@pytest.mark.parametrize("source", [s for s in SOURCES if s.package == "compiler"], ids=str)
def test_compiler_knows_only_leaves_of_runtime(source: Source) -> None:
    for found in source.imports:
        for target in targets(found):
            if package_of(target) == "runtime" and target != "dualgrad.runtime":
                leaf = target.removeprefix("dualgrad.runtime.")
                assert leaf in {*RUNTIME_LEAVES, CALLED_THROUGH}, f"line {found.line}: {target}"


def test_leaves_of_runtime_import_leaves_only() -> None:
    for leaf in RUNTIME_LEAVES:
        source = MODULES[f"dualgrad.runtime.{leaf}"]
        used = {t for i in source.imports for t in targets(i)}
        assert used <= {f"dualgrad.runtime.{n}" for n in RUNTIME_LEAVES}, leaf


def test_no_import_cycles() -> None:
    graph = {
        s.module: {t for i in s.imports if not i.for_types for t in targets(i)} - {s.module}
        for s in SOURCES
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
    assert set(order) >= set(MODULES)


@every_source
def test_no_imports_inside_functions(source: Source) -> None:
    hidden = [
        (i.line, i.module)
        for i in source.imports
        if i.in_function and i.module.partition(".")[0] not in LAZY
    ]
    assert not hidden


@every_source
def test_llvmlite_is_imported_lazily(source: Source) -> None:
    eager = [i for i in source.imports if i.module.partition(".")[0] in LAZY]
    assert all(i.in_function or i.for_types for i in eager)


PURE = ("compiler/ops", "compiler/ir", "compiler/build", "compiler/passes")


@pytest.mark.parametrize(
    "source", [s for s in SOURCES if str(s).replace("\\", "/").startswith(PURE)], ids=str
)
def test_ops_know_no_arrays(source: Source) -> None:
    assert not [i for i in source.imports if i.module.partition(".")[0] in ARRAYS]


@every_source
def test_only_declared_packages_are_imported(source: Source) -> None:
    known = set(sys.stdlib_module_names) | {"dualgrad", "__future__"} | ARRAYS | FILES
    foreign = {i.module.partition(".")[0] for i in source.imports} - known
    assert not foreign


@every_source
def test_files_and_functions_are_short(source: Source) -> None:
    assert len(source.text.splitlines()) <= LONGEST_FILE
    long = [
        f"{n.name}: {n.end_lineno - n.lineno + 1} lines"
        for n in ast.walk(source.tree)
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        and n.end_lineno is not None
        and n.end_lineno - n.lineno >= LONGEST_FUNCTION
    ]
    assert not long


@every_source
def test_every_module_says_what_it_is(source: Source) -> None:
    if source.text.strip():
        assert ast.get_docstring(source.tree)


@every_source
def test_nothing_is_left_to_do(source: Source) -> None:
    assert not re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b", source.text)


def test_declared_packages_are_those_on_disk() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = project["tool"]["setuptools"]["packages"]
    found = sorted(s.module for s in SOURCES if s.path.name == "__init__.py")
    assert sorted(declared) == found
    folders = {s.path.parent for s in SOURCES}
    bare = [f for f in folders if not (f / "__init__.py").exists()]
    assert not bare


def test_package_folders_are_mapped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    mapped = project["tool"]["setuptools"]["package-dir"]
    assert mapped == {package: folder for folder, package in FOLDERS.items()}


def test_sources_are_tracked_names() -> None:
    """No file of the packages is hidden by a pattern of .gitignore."""
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    # a pattern without a leading slash hides folders of that name at every depth
    hidden = {p.strip("/") for p in patterns if not p.startswith("/") and "*" not in p}
    parts = {part for s in SOURCES for part in s.path.relative_to(ROOT).parts}
    assert not hidden & parts


def op_classes() -> dict[str, str]:
    """Names of all concrete op classes, found in the text, with their modules."""
    bases: dict[str, list[str]] = {}
    abstract: set[str] = set()
    where: dict[str, str] = {}
    for s in SOURCES:
        for n in ast.walk(s.tree):
            if isinstance(n, ast.ClassDef):
                found = bases.setdefault(n.name, [])  # a name may be another class's, too
                found.extend(ast.unparse(b).rpartition(".")[2] for b in n.bases)
                where.setdefault(n.name, s.module)
                if any(k.arg == "abstract" for k in n.keywords):
                    abstract.add(n.name)

    def is_op(name: str) -> bool:
        return name == "Op" or any(is_op(b) for b in bases.get(name, ()))

    return {n: where[n] for n in bases if is_op(n) and n != "Op" and n not in abstract}


def test_every_op_is_imported_with_dualgrad() -> None:
    for name in dualgrad._LATER_FROM:  # of rare use
        getattr(dualgrad, name)
    registered = {op.__name__: op.__module__ for op in OPS}
    assert registered == op_classes()
    assert len(registered) == len(OPS)


def test_public_methods_are_those_declared_for_type_checkers() -> None:
    tree = MODULES["dualgrad.compiler.ir.value"].tree
    declared = {
        f.name
        for n in ast.walk(tree)
        if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
        for f in n.body
        if isinstance(f, ast.FunctionDef)
    }
    assert declared == set(value.METHODS)
