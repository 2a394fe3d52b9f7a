"""Recipes: programs found on disk by unit, types and sizes, without tracing or lowering."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, same_bits
from test_ops import GOOD, SMOOTH, Case, first_of_each, tensors

import dualgrad as dg
from dualgrad import dispatch, engine, recipes
from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.dims import Dim, Guard, minimum, sym
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.plain import plain_dim, plain_type, read_dim, read_type
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.launch import CheckSite, Launch, Space
from dualgrad.compiler.ops.arithmetic import Add, Mul
from dualgrad.compiler.ops.base import OPS
from dualgrad.compiler.ops.composite import Composite, composite
from dualgrad.compiler.ops.elementwise import Cast
from dualgrad.compiler.ops.scan import CumSum
from dualgrad.compiler.ops.stated import stated
from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import float32, int64
from dualgrad.runtime.errors import IndexOutOfBounds
from dualgrad.runtime.program import KernelInfo


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path) -> Iterator[None]:
    """An empty disk cache, and a process that knows no program before and after."""
    forget()
    with config.scope(cache_dir=tmp_path):
        yield
    forget()


def forget() -> None:
    """Forget all programs, as a new process has."""
    dispatch.forget()
    engine._codes.clear()


@pytest.fixture
def no_lowering(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it, and from then on no program can be made."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("a program is made")

    def switch() -> None:
        monkeypatch.setattr(engine, "compile_graph", refuse)
        monkeypatch.setattr(dispatch, "compile_graph", refuse)

    return switch


def gradients(case: Case) -> list[Array]:
    """The value and the gradients of a sample."""
    xs = tensors(case.arrays())
    wanted = [x for x in xs if isinstance(x, dg.Tensor) and x.dtype.is_float]
    for x in wanted:
        x.requires_grad = True
    y = case.sample.function(*xs)
    if y.requires_grad:
        y.sum().backward()
    return [as_array(t) for t in (y.detach(), *(x.grad for x in wanted)) if t is not None]


@pytest.mark.parametrize("case", first_of_each(SMOOTH, 1), ids=str)
def test_second_process_makes_nothing(case: Case, no_lowering: Any) -> None:
    first = gradients(case)
    forget()
    no_lowering()
    again = gradients(case)
    assert len(first) == len(again)
    for a, b in zip(first, again, strict=True):
        same_bits(a, b, case)


NOT_SMOOTH = [c for c in first_of_each(GOOD, 1) if c not in SMOOTH]


@pytest.mark.parametrize("case", NOT_SMOOTH, ids=str)
def test_second_process_makes_nothing_without_gradients(case: Case, no_lowering: Any) -> None:
    first = as_array(case.sample.function(*tensors(case.arrays())))
    forget()
    no_lowering()
    same_bits(first, as_array(case.sample.function(*tensors(case.arrays()))), case)


def test_guards_choose_the_program(rng: np.random.Generator) -> None:
    """Short and long sums have different orders, under one key."""
    arrays = [rng.standard_normal(n, np.float32) for n in (9, 70_000, 200, 3_000_000)]
    first = [dg.sum(dg.from_numpy(a)).item() for a in arrays]
    forget()
    for a, x in sorted(zip(arrays, first, strict=True), key=lambda p: -len(p[0])):
        assert dg.sum(dg.from_numpy(a)).item() == x


def test_one_key_keeps_programs_of_several_guards(no_lowering: Any) -> None:
    for n in (9, 3_000_000):
        dg.sum(dg.ones(n))
    forget()
    no_lowering()
    assert [dg.sum(dg.ones(n)).item() for n in (9, 3_000_000)] == [9, 3_000_000]


def test_errors_are_the_same(no_lowering: Any) -> None:
    def failure() -> str:
        with pytest.raises(IndexOutOfBounds) as caught:
            dg.take(dg.ones(5), dg.tensor([7]))
        return str(caught.value).partition("\n    at ")[0]

    first = failure()
    forget()
    no_lowering()
    assert failure() == first


def test_numbers_and_writes(no_lowering: Any) -> None:
    def both() -> list[Any]:
        x = dg.tensor([1.0, 2.0])
        y = 2 - x
        x -= 3
        x += y
        return [*y.tolist(), *x.tolist()]

    first = both()
    assert first == [1.0, 0.0, -1.0, -1.0]
    forget()
    no_lowering()
    assert both() == first


def test_checked_programs_are_others() -> None:
    dg.ones(3) + 1
    forget()
    with config.scope(check=True):
        (dg.ones(3) + 1)
    assert {k.rpartition(" ")[2] for k in engine._codes} == {"True"}


@pytest.mark.parametrize(
    "entry", [b"", b"{", b"[1]", b"{}", b"[{}]", b'[{"guards": [[1]], "launch": 3}]', b"\xff"]
)
def test_nonsense_is_made_anew(entry: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    key_of = recipes.key_of
    monkeypatch.setattr(recipes, "key_of", lambda *a: keys.append(str(key_of(*a))) or key_of(*a))
    (dg.ones(3) + 1).tolist()
    forget()
    for key in set(keys):
        default_cache().put(key, entry)
    assert (dg.ones(3) + 1).tolist() == [2.0] * 3


def test_missing_code_is_made_anew(tmp_path: Path) -> None:
    (dg.ones(3) + 1).tolist()
    forget()
    for file in tmp_path.iterdir():
        if b"ELF" in file.read_bytes() or b"recipes" not in file.read_bytes():
            file.unlink()
    assert (dg.ones(3) + 1).tolist() == [2.0] * 3


def test_sizes_come_back_as_they_were() -> None:
    n, m = sym("n"), sym("m")
    dims: list[Dim] = [0, 7, n, 3 * n * m - 2, (n + 5) // 4, (n * m) % (m + 1), minimum(n, 64)]
    dims.append((minimum(n, m) + 1) // 8 * 8)
    for d in dims:
        found = read_dim(json.loads(json.dumps(plain_dim(d))))
        assert found is d or found == d
        assert type(found) is type(d)
    with pytest.raises(ValueError, match="loop variable"):
        plain_dim(sym("i", n) + 1)


def test_launches_come_back_as_they_were() -> None:
    n = sym("n")
    weak = TensorType((), int64, weak=True)
    assert read_type(json.loads(json.dumps(plain_type(weak)))) is weak
    launch = Launch(
        "f",
        (n, 3),
        (TensorType((n, 2), float32),),
        (Space(4 * n, 0, 2), Space(64, 1, 1)),
        (next(iter(n.terms))[0][0],),
        (float32, int64),
        (KernelInfo("f_0", "map", ()),),
        (CheckSite("take", "index", n, None, -n),),
    )
    assert Launch.read(json.loads(json.dumps(launch.plain()))) == launch


def test_units_have_texts() -> None:
    assert all(stated(op) is not None for op in OPS)
    x: Any = (True, 1, 1.0, "1", None, -0.0, float32, (sym("n"), 2), CumSum)
    texts = [stated(v) for v in (*x, 0.0, (1,), (1.0,), ((1,),), "n", sym("n"))]
    assert len(set(texts)) == len(texts)
    assert stated(Cast.of(float32, False)) != stated(Cast.of(int64, False))
    assert stated(Add.of()) != stated(Mul.of())
    vjps = [Vjp.of(Mul.of(), (True,), w) for w in ((True, False), (False, True))]
    assert stated(vjps[0]) != stated(vjps[1])


@composite
def twice(x: Node) -> Any:
    return x + x


class Mine(Add, abstract=True):
    pass


def test_what_is_not_ours_has_no_text() -> None:
    assert stated(twice.unit) is None  # type: ignore[attr-defined]
    assert stated(Vjp.of(twice.unit, (True,), (True,))) is None  # type: ignore[attr-defined]
    assert stated(Mine) is None
    assert stated(object()) is None
    assert stated(np.float64(1)) is None

    def posing(x: Node) -> Any:
        return x

    posing.__module__, posing.__qualname__ = "dualgrad.compiler.ops.neural", "_softmax"
    assert stated(Composite.of(posing, ())) is None


def test_user_composites_are_made_from_their_code(tmp_path: Path) -> None:
    first = twice(dg.ones(3)).tolist()
    assert not any(b"recipes" in f.read_bytes()[:200] for f in tmp_path.iterdir())
    forget()
    assert twice(dg.ones(3)).tolist() == first


def test_guards_are_kept() -> None:
    guard = Guard(sym("n") - 5, 3, True)
    assert recipes.read_guard(recipes.plain_guard(guard)) == guard
