"""Programs of units, found on disk by what is known before anything is traced.

To find a program by its text it must be made first: traced, simplified, fused, built.  A recipe
leads from the unit and the operands' types and layouts to the program's key and to all that a
launch takes.  One key has several recipes where programs were made under different guards.

Only units that dualgrad defines have recipes (see `stated`): what their code says is part of
every key (see `engine.versions`), what a user's function says is not.
"""

from __future__ import annotations

import json
from typing import Any

from dualgrad.backends.common import Backend, Times
from dualgrad.compiler.ir.dims import Atom, Guard
from dualgrad.compiler.ir.plain import plain_guard, read_guard
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.launch import Launch
from dualgrad.compiler.ops.stated import stated
from dualgrad.engine import Executable, code_of
from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.records import dataclass

_MOST = 16  # recipes of one key


@dataclass(frozen=True)
class Recipe:
    """A program, under which guards it is valid, and which operands it takes."""

    guards: tuple[Guard, ...]
    tensors: tuple[int, ...]
    numbers: tuple[int, ...]
    executable: Executable


def key_of(unit: Unit, parts: tuple[Any, ...], backend: Backend) -> str | None:
    """The key of a unit's recipes, or None if it has none; `parts` is what else they depend on,
    of which the texts say everything."""
    text = stated(unit)
    if text is None:
        return None
    return f"recipes {text} {parts} {backend.place}"


def find(key: str, values: dict[Atom, int], backend: Backend, wide: bool) -> Recipe | None:
    """The recipe whose guards hold for these sizes, with its code loaded."""
    for plain in _listed(key):
        try:
            guards = tuple(map(read_guard, plain["guards"]))
            if all(g.holds(values) for g in guards):
                launch = Launch.read(plain["launch"])
                code = code_of(backend, plain["program"], launch, Times(), None, wide)
                if code is None:
                    return None
                tensors, numbers = tuple(plain["tensors"]), tuple(plain["numbers"])
                return Recipe(guards, tensors, numbers, Executable(launch, code, lines=False))
        except (ValueError, TypeError, LookupError):  # not what `add` writes
            continue
    return None


def add(key: str, recipe: Recipe, program: str) -> None:
    """Keep a recipe; `program` is the key of its program."""
    launch = recipe.executable.launch
    plain = {
        "guards": [plain_guard(g) for g in recipe.guards],
        "tensors": recipe.tensors,
        "numbers": recipe.numbers,
        "launch": launch.plain(),
        "program": program,
    }
    known = [p for p in _listed(key) if p.get("guards") != plain["guards"]]
    default_cache().put(key, json.dumps([plain, *known[: _MOST - 1]]).encode())


def _listed(key: str) -> list[dict[str, Any]]:
    entry = default_cache().get(key)
    try:
        found = [] if entry is None else json.loads(entry)
    except ValueError:
        found = []
    return [p for p in found if isinstance(p, dict)] if isinstance(found, list) else []
