"""Calls of the public functions and methods, found by their signatures.

No list of ops: every public function that takes a tensor, and every method of its name, is drawn;
its parameters get arguments by their names, annotations and defaults.  Most wrong arguments are
found by a trial, which is cheaper than knowing all rules here.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dualgrad as dg

Draw = random.Random
SPACES = {"dg": dg, "dg.functional": dg.functional, "dg.linalg": dg.linalg, "dg.fft": dg.fft}
# names of parameters that are tensors, if their annotation says no more than Any
TENSORS = frozenset(
    (
        "x",
        "y",
        "a",
        "b",
        "input",
        "target",
        "other",
        "tensor1",
        "tensor2",
        "end",
        "weight",
        "src",
        "source",
        "anchor",
        "positive",
        "negative",
        "x1",
        "x2",
        "input1",
        "input2",
        "elements",
        "test_elements",
        "query",
        "key",
        "var",
        "bias",
        "mat1",
        "mat2",
        "vec1",
        "vec2",
        "batch1",
        "batch2",
        "vec",
        "mat",
    )
)
MASKS = frozenset(("mask", "condition"))
LISTS = frozenset(("tensors", "arrays"))
# values that nobody defines; and what is no op
EXCLUDED = frozenset(("empty_like", "requires_grad_", "set_rng_state", "retain_grad", "set_"))
CHOICES: dict[str, tuple[Any, ...]] = {
    "reduction": ("mean", "sum", "none"),
    "rounding_mode": ("floor", "trunc"),
    "reduce": ("sum", "prod", "amax", "amin", "mean"),
    "norm": ("ortho", "backward", "forward"),
    "approximate": ("none", "tanh"),
    "method": ("linear", "lower", "higher", "nearest", "midpoint"),
    "mode": ("constant", "reflect", "replicate", "circular", "nearest", "bilinear", "reduced"),
    "indexing": ("ij", "xy"),
    "side": ("left", "right"),
    "q": (0.5, 0.25, 0.9, [0.1, 0.75]),
    "ord": (None, 1, 2, float("inf"), "fro", 0, -1, 3),
    "p": (2.0, 1.0, 3.0),
    "dtype": ("float64", "float32", "int64"),
    "kernel_size": (1, 2, 3),
    "stride": (1, 2),
    "padding": (0, 1),
    "dilation": (1, 2),
    "groups": (1, 2),
    "output_size": (1, 2, 3),
    "pad": ((1, 0), (1, 2), (1, 1, 0, 2)),
    "eps": (1e-5, 0.01),
    "correction": (0, 1),
    "decimals": (0, 1),
    "norm_type": (1.0, 2.0),
    "sizes": ((2, -1), (-1, 1)),
    "index": (0, -1, 1),
    "values": (0.5, -1.0),
    "num_classes": (5, 9),
    "classes": (5, 9),
    "bins": (3, 5),
    "scale_factor": (2, 1.5),
    "start": (0, 1),
    "length": (1, 2),
    "size": (1, 2, 3),
    "step": (1, 2),
    "weights": (None,),
    "shifts": (1, -1, 2),
    "repeats": (2, 1, 3),
    "chunks": (1, 2, 3),
    "parts": (1, 2),
    "k": (0, 1, -1, 2),
    "n": (0, 1, 2, 3),
    "offset": (0, 1, -1),
    "min": (-0.5, 0, -1),
    "max": (0.75, 1, 2),
    "lambd": (0.5,),
    "shape": (None,),
}


@dataclass(frozen=True)
class Callee:
    """A public function ("dg.roll") or method (".roll"), and what it takes."""

    text: str
    parameters: tuple[inspect.Parameter, ...]

    @property
    def is_method(self) -> bool:
        return self.text.startswith(".")

    @property
    def writes(self) -> bool:
        return self.is_method and self.text.endswith("_")


def kind_of(p: inspect.Parameter) -> str:
    """What a parameter is: "tensor", "operand", "mask", "list", "axis" ... or "" for anything."""
    annotation = str(p.annotation)
    if p.name in LISTS or (p.name == "operands" and p.kind is p.VAR_POSITIONAL):
        return "list"
    if p.name in MASKS:
        return "mask"
    if p.name in ("axis", "dim", "axis1", "axis2", "dim0", "dim1", "destination"):
        return "axis"
    if p.name in ("axes", "dims"):
        return "axes"
    if p.name in ("index", "indices") and "int" not in annotation:
        return "index"
    if p.name == "source" and "Any" in annotation and p.default is p.empty:
        return "tensor"
    if "Operand" in annotation:
        return "operand"
    if p.name in TENSORS and p.default is p.empty and "int" not in annotation:
        return "tensor"
    if p.name in ("weight", "bias") and p.default is None:
        return "tensor"
    return ""


def callees() -> Iterator[Callee]:
    methods: set[str] = set()
    for space, module in SPACES.items():
        for name in dict.fromkeys(getattr(module, "__all__", None) or vars(module)):
            function = getattr(module, name, None)
            if name.startswith("_") or name in EXCLUDED or not is_op(function):
                continue
            found = Callee(f"{space}.{name}", parameters_of(function))
            if any(kind_of(p) in ("tensor", "operand", "list") for p in found.parameters[:2]):
                yield found
                methods.add(name)
    for name in sorted(dir(dg.Tensor)):
        method = getattr(dg.Tensor, name)
        if name.startswith("_") or name in EXCLUDED or not callable(method):
            continue
        if name in methods or name.endswith("_"):
            yield Callee(f".{name}", parameters_of(method)[1:])


def is_op(x: Any) -> bool:
    return callable(x) and not isinstance(x, type) and "dualgrad" in getattr(x, "__module__", "")


def parameters_of(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    found = inspect.signature(function).parameters.values()
    return tuple(p for p in found if p.kind is not p.VAR_KEYWORD)


CALLEES = tuple(callees())


def plain(p: inspect.Parameter, rng: Draw) -> str | None:
    """An argument that is no tensor, by the parameter's name, annotation or default."""
    if p.name in CHOICES:
        return repr(rng.choice(CHOICES[p.name]))
    annotation = str(p.annotation)
    if "bool" in annotation or isinstance(p.default, bool):
        return repr(rng.random() < 0.5)
    if "int" in annotation or isinstance(p.default, int):
        return repr(rng.choice((0, 1, 2, -1, 3)))
    if "float" in annotation or isinstance(p.default, float):
        return repr(rng.choice((0.5, 1.5, 0.1, 2.0, -0.75)))
    return None
