"""What every error of the library has in common: it names the function that the user called, says
what was expected or found, and what to do."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import docs_module, draw

import dualgrad as dg
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime import errors
from dualgrad.runtime.errors import DualgradError

ROOT = Path(__file__).parents[1]
# what only an author of dualgrad can meet
OWN = {"CompileError", "Unsupported"}


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every call that makes an error of a class of `dualgrad.runtime.errors`."""
    classes = [v for v in vars(errors).values() if isinstance(v, type)]
    kinds = {c.__name__ for c in classes if issubclass(c, DualgradError)} - OWN
    for folder in ("runtime", "compiler", "dualgrad"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    name = node.func.id.lstrip("_")
                    if name in kinds:
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_every_error_says_what_to_do() -> None:
    for place, call in raised():
        given = {k.arg for k in call.keywords}
        assert None in given or "hint" in given, place


# -- operands that are no tensors, and tensors that do not fit ------------------------------------


class Strange:
    """Something that nobody can make a tensor of."""


def wrong() -> dict[str, Any]:
    """What is passed where a tensor should be."""
    return {
        "a list": [1.0, 2.0],
        "text": "a",
        "None": None,
        "an object": Strange(),
        "a pair": (dg.ones(2), dg.ones(2)),
        "seven dimensions": dg.ones(2, 3, 5, 7, 1, 1, 1),
        "17 elements": dg.ones(17),
        "a number": dg.ones(()),
        "bools": dg.ones(3, 3) > 0.0,
        "integers": dg.ones(5, 5, dtype=dg.int64),
    }


def calls(sample: Sample, rng: np.random.Generator) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The sample's operands with one of them replaced."""
    args = [dg.from_numpy(np.array(draw(a, rng))) if isinstance(a, Arg) else a for a in sample.args]
    for k, a in enumerate(sample.args):
        if isinstance(a, Arg):
            for name, x in wrong().items():
                yield f"{name} as operand {k}", (*args[:k], x, *args[k + 1 :])


def passes(error: BaseException, function: Any) -> bool:
    """Whether an error comes out of a function, not of the sample around it."""
    code = getattr(function, "__code__", None)
    tb = error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code is code:
            return True
        tb = tb.tb_next
    return False


def error_of(function: Callable[..., Any], args: tuple[Any, ...]) -> Exception | None:
    """What a call raises."""
    try:
        function(*args)
    except Exception as error:
        return error
    return None


def test_functions_refuse_what_they_do_not_take(rng: np.random.Generator) -> None:
    """Each public function, called as its first sample does but for one operand, works or raises
    an error in the one shape, under a name that users know."""
    tried = 0
    for entry in docs_module().public_functions():
        names = {*entry.short_names, *errors.public_names}
        for sample in [s for s in entry.samples if s.error is None][:1]:
            for what, args in calls(sample, rng):
                tried += 1
                place = f"{entry.names[0]}: {what}"
                error = error_of(sample.function, args)
                if error is None or not passes(error, entry.function):
                    continue
                assert isinstance(error, DualgradError), f"{place}\n{error!r}"
                assert error.op in names, f"{place}\n{error}"
                assert error.hint, f"{place}\n{error}"
                assert error.expect or error.actual, f"{place}\n{error}"
    assert tried > 2000


@pytest.mark.parametrize("name", ["sum", "matmul", "reshape", "softmax", "cat", "mse_loss"])
def test_tensors_of_torch_are_refused(name: str) -> None:
    torch = pytest.importorskip("torch")
    x, y = torch.ones(2, 2), dg.ones(2, 2)
    attempts = {
        "sum": lambda: dg.sum(x),
        "matmul": lambda: y @ x,
        "reshape": lambda: dg.reshape(x, (4,)),
        "softmax": lambda: dg.softmax(x),
        "cat": lambda: dg.cat([y, x]),
        "mse_loss": lambda: dg.functional.mse_loss(y, x),
    }
    with pytest.raises(errors.OperandError, match=r"actual: torch\.Tensor\n  hint: .*from_dlpack"):
        attempts[name]()
