"""Writes array_api.json: what the array API standard says of each function, as array-api-strict
has it.

    pip install array-api-strict
    python tests/references/make_array_api.py

signature: parameters as (name, kind, whether it has a default).  dtypes: of an elementwise
function, which ones it takes, found by calling it.
"""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import array_api_strict as strict
from array_api_strict import _elementwise_functions as elementwise

TARGET = Path(__file__).with_name("array_api.json")
NOT_ELEMENTWISE = (
    *("asarray", "broadcast_to", "can_cast", "clip"),
    *("finfo", "iinfo", "isdtype", "result_type"),
)
OWN = ("Device", "ArrayAPIStrictFlags", "fft", "linalg")
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float32", "float64"),
)


def parameters(function: Any) -> list[list[Any]]:
    found = inspect.signature(function).parameters.values()
    return [[p.name, p.kind.name, p.default is not p.empty] for p in found if p.name != "self"]


def takes(function: Any, dtype: str) -> bool:
    count = sum(p[1] == "POSITIONAL_ONLY" for p in parameters(function))
    x = strict.ones((1,), dtype=getattr(strict, dtype))
    try:
        function(*[x] * count)
    except TypeError:
        return False
    return True


def functions(space: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in space.__all__:
        function = getattr(space, name)
        if name in OWN or "array_api_strict_flags" in name or not callable(function):
            continue
        found[name] = {"signature": parameters(function)}
        if getattr(elementwise, name, None) is function and name not in NOT_ELEMENTWISE:
            found[name]["dtypes"] = [t for t in DTYPES if takes(function, t)]
    return found


def methods() -> dict[str, Any]:
    array = type(strict.ones(1))
    names = [n for n in dir(array) if n not in dir(object) or n in ("__eq__", "__ne__")]
    hidden = (
        "__annotations__",
        "__buffer__",
        "__module__",
        "__slots__",
        "__weakref__",
        "__array__",
    )
    return {
        n: {"signature": parameters(f)} if callable(f := getattr(array, n)) else {}
        for n in names
        if n not in hidden and (n.startswith("__") or not n.startswith("_"))
    }


def main() -> None:
    warnings.simplefilter("ignore")
    constants = [n for n in strict.__all__ if isinstance(getattr(strict, n), float | None)]
    found = {
        "version": strict.__array_api_version__,
        "functions": functions(strict),
        "linalg": functions(strict.linalg),
        "array": methods(),
        "constants": constants,
    }
    text = json.dumps(found, separators=(",", ":"))
    TARGET.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
