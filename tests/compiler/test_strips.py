"""Strips: which kernels go item by item, and that this changes nothing but where results lie."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from support import lowered

import dualgrad as dg
import dualgrad.functional as F
from dualgrad.compiler.ir.dims import Dim, minimum, substitute, sym, symbol_of
from dualgrad.compiler.kernel import striping
from dualgrad.compiler.kernel.ir import (
    Buffer,
    Contract,
    Kernel,
    Loop,
    Operand,
    Stmt,
    Store,
)
from dualgrad.compiler.kernel.items import Moved, bounds, by_items
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.scalar import load
from dualgrad.compiler.kernel.strips import Strip
from dualgrad.compiler.launch import plan_arena
from dualgrad.compiler.lower.reference import run
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import float32

Array = np.ndarray[Any, Any]


def compiled(
    function: Callable[..., Any], *args: dg.Tensor
) -> tuple[LoopProgram, list[Array], list[Array]]:
    """The program of a function, its inputs, and what a run of its machine code gives."""
    static = dg.function(function, strict=True)
    results = static(*args)
    (path,) = static.paths
    results = results if isinstance(results, tuple) else (results,)
    inputs = [args[x.number].numpy() for x in path.sources[: len(args)]]
    return lowered(static), inputs, [r.detach().numpy() for r in results]


def heads(*shape: int) -> list[dg.Tensor]:
    return [dg.randn(*shape) for _ in range(3)]


def gradients(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor, **kinds: Any) -> tuple[dg.Tensor, ...]:
    xs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = F.scaled_dot_product_attention(*xs, **kinds)
    return (y.detach(), *dg.autograd.grad((y * y).sum(), xs))


causal = partial(F.scaled_dot_product_attention, is_causal=True)


def joined(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> dg.Tensor:
    """Attention between the layouts of a transformer: [B, L, H, E] in, [B, L, H E] out."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


Rows = tuple[int, int, int]  # a matrix, the first of its rows, that after the last one


def rows_of(strip: Strip, item: int) -> Rows:
    """What an item is; without a cut matrices count as rows."""
    if strip.cut is None:
        return item, 0, 1
    matrix, number = divmod(item, strip.cut.blocks * strip.cut.pieces)
    return (matrix, *strip.cut.bounds(number))


def of_item(kernel: Kernel, strip: Strip, rows: Rows) -> Kernel:
    """What a kernel does for an item, as a kernel of its own."""
    (stmt,) = kernel.body
    matrix, start, stop = rows
    if isinstance(stmt, Contract):
        whole = strip.cut is None
        return Kernel(
            kernel.name, (share(stmt, matrix, 0 if whole else start, None if whole else stop),)
        )
    assert isinstance(stmt, Loop)
    assert (stmt.kind, stmt.extent) == ("parallel", strip.matrices * strip.rows)
    first = matrix * strip.rows + start
    var = sym("unit", stop - start)
    body = Moved(partial(substitute, values={symbol_of(stmt.var): first + var})).body(stmt.body)
    return Kernel(kernel.name, (Loop("parallel", var, stop - start, body),))


def share(c: Contract, matrix: int, start: int, stop: int | None) -> Contract:
    """Some rows of one of the products."""
    change = {symbol_of(c.batch_var): matrix, symbol_of(c.row_var): c.row_var + start}

    def moved(x: Operand, first: int) -> Operand:
        return replace(x, base=x.place(matrix, first, 0))

    return replace(
        c,
        a=moved(c.a, start),
        b=moved(c.b, 0),
        c=moved(c.c, start),
        batch=1,
        m=c.m if stop is None else stop - start,
        epilogue=tuple(map(Moved(partial(substitute, values=change)).store, c.epilogue)),
    )


def interpreted(program: LoopProgram, inputs: list[Array]) -> list[Array]:
    """The outputs of a program whose strips run item by item, in a random order; nothing that an
    item leaves in private memory reaches another one."""
    memory = {b.name: poison(b) for b in program.buffers}
    for b, x in zip(program.inputs, [*inputs, np.ones(1, np.float32)], strict=False):
        memory[b.name] = x.ravel().copy()
    done = 0
    for strip in program.strips:
        assert run(program.kernels[done : strip.first], memory, {}, {}) == 0
        run_strip(program, strip, memory)
        done = strip.last + 1
    assert run(program.kernels[done:], memory, {}, {}) == 0
    shapes = [t.shape for t in program.output_types]
    return [memory[b.name].reshape(s) for b, s in zip(program.outputs, shapes, strict=True)]


def run_strip(program: LoopProgram, strip: Strip, memory: dict[str, Array]) -> None:
    """All items; then the sums over rows, of what the items have left for them."""
    rng = random.Random(0)
    left = {p.buffer.name: poison(p.buffer) for p in strip.privates}
    for item in rng.sample(range(strip.items), strip.items):
        memory |= {p.buffer.name: poison(p.buffer) for p in strip.privates}
        matrix, start, stop = rows = rows_of(strip, item)
        if start == stop:
            continue
        for k in strip.numbers:
            if strip.sum_of(k) is None:
                assert run([of_item(program.kernels[k], strip, rows)], memory, {}, {}) == 0
        first = matrix * strip.rows
        for p in strip.privates:
            own = slice((first + start) * p.step, (first + stop) * p.step)
            left[p.buffer.name][own] = memory[p.buffer.name][own]
    summed = [program.kernels[s.number] for s in strip.sums]
    assert run(summed, memory | left, {}, {}) == 0


def poison(b: Buffer) -> Array:
    value = np.nan if b.dtype.is_float else 1
    return np.full(b.size, value, b.dtype.numpy)


def same_bits(got: list[Array], want: list[Array]) -> None:
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(
            np.ascontiguousarray(a).view(np.uint8).ravel(),
            np.ascontiguousarray(b).view(np.uint8).ravel(),
        )


def few_keys(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> tuple[dg.Tensor, ...]:
    return gradients(q, k[:, :9], v[:, :9])


def stacked(*heads: dg.Tensor) -> dg.Tensor:
    """Gradients as parts of one tensor that lie side by side."""
    return dg.stack(gradients(*heads))


def woven(*heads: dg.Tensor) -> dg.Tensor:
    """Gradients as parts of each row of one tensor."""
    return dg.cat(gradients(*heads), -1)


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are rows of matrices that are not tiny."""
    monkeypatch.setattr(striping, "CACHED", 1 << 9)
    monkeypatch.setattr(striping, "FEWEST_ROWS", 8)


def prepare(
    name: str, request: pytest.FixtureRequest
) -> tuple[Callable[..., Any], list[dg.Tensor], int]:
    """A function, its arguments and how many strips it has."""
    if name.startswith("rows"):
        request.getfixturevalue("small_cache")
    function, shape, strips = FUNCTIONS[name]
    return function, heads(*shape), strips


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...], int]] = {
    "forward": (F.scaled_dot_product_attention, (2, 3, 7, 4), 1),
    "causal": (causal, (4, 6, 4), 1),
    "gradients": (gradients, (2, 2, 5, 4), 1),
    "causal_gradients": (partial(gradients, is_causal=True), (4, 5, 3), 1),
    "joined": (joined, (2, 5, 4, 3), 1),
    "rows": (F.scaled_dot_product_attention, (2, 2, 32, 2), 1),
    "rows_of_odd_length": (F.scaled_dot_product_attention, (2, 43, 2), 1),
    "rows_with_gradients": (gradients, (2, 2, 37, 3), 1),
    "stacked_gradients": (stacked, (2, 2, 5, 4), 1),
    "rows_with_stacked_gradients": (stacked, (2, 2, 37, 3), 1),
    "rows_with_woven_gradients": (woven, (2, 2, 37, 3), 1),
    "rows_causal": (causal, (2, 2, 150, 3), 1),
    "rows_with_causal_gradients": (partial(gradients, is_causal=True), (2, 150, 3), 1),
    "rows_in_two_blocks": (few_keys, (2, 529, 3), 1),
    "one_head": (F.scaled_dot_product_attention, (1, 1, 9, 4), 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_items_are_on_their_own(name: str, request: pytest.FixtureRequest) -> None:
    function, args, strips = prepare(name, request)
    program, inputs, results = compiled(function, *args)
    assert len(program.strips) == strips
    assert all(bool(s.cut) == name.startswith("rows") for s in program.strips)
    same_bits(interpreted(program, inputs), results)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_strip_keeps_the_bits_of_eager_mode(
    name: str, threads: int, request: pytest.FixtureRequest
) -> None:
    function, args, _ = prepare(name, request)
    want = function(*args)
    want = want if isinstance(want, tuple) else (want,)
    same_bits(compiled(function, *args)[2], [x.numpy() for x in want])
    with config.scope(check=True):
        same_bits(compiled(function, *args)[2], [x.numpy() for x in want])


def test_scores_are_memory_of_a_thread() -> None:
    program, *_ = compiled(F.scaled_dot_product_attention, *heads(64, 48, 2))
    (strip,) = program.strips
    whole = 64 * 48 * 48
    scores = [p for p in strip.privates if p.buffer.size == whole]
    assert [p.step for p in scores] == [48 * 48] * 2
    assert not any(t.buffer.size == whole for t in program.temporaries)
    bound = strip.area * program.threads
    assert plan_arena(program.launch.spaces, {})[1] <= bound + 64


def test_gradients_of_attention_are_one_strip() -> None:
    program, *_ = compiled(gradients, *heads(8, 6, 4))
    (strip,) = program.strips
    kinds = [program.kernels[k].kind for k in strip.numbers]
    assert (kinds.count("contract"), kinds.count("row")) == (6, 2)


def test_a_strip_takes_in_what_prepares_it() -> None:
    def attention(x: dg.Tensor, w: dg.Tensor, g: dg.Tensor) -> dg.Tensor:
        x = x.detach().requires_grad_()
        q, k, v = (x @ w).reshape(2, 6, 3, 4, 5).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 6, 20)
        return dg.autograd.grad((y * g).sum(), x)[0]

    args = [dg.randn(2, 6, 7), dg.randn(7, 60), dg.randn(2, 6, 20)]
    program, inputs, results = compiled(attention, *args)
    assert [s.items for s in program.strips] == [8]
    (strip,) = program.strips
    kinds = [program.kernels[k].kind for k in strip.numbers]
    assert (kinds.count("contract"), kinds.count("row")) == (5, 1)
    assert kinds.count("map") >= 4
    same_bits(results, [attention(*args).numpy()])
    same_bits(interpreted(program, inputs), results)


def test_large_scores_are_cut_into_blocks_of_rows() -> None:
    program, *_ = compiled(F.scaled_dot_product_attention, *heads(2, 1024, 2))
    (strip,) = program.strips
    assert strip.items > 2
    assert strip.cut is not None
    assert all(p.step * strip.cut.length * 4 <= 1 << 19 for p in strip.privates)


def test_gradients_are_cut_into_blocks_of_rows() -> None:
    program, *_ = compiled(gradients, *heads(2, 600, 3))
    (strip,) = program.strips
    assert strip.cut is not None
    assert len(strip.sums) == 2  # of keys and values
    assert (strip.groups, strip.in_order * strip.groups) == (4, strip.items)  # two blocks each
    assert all(s.partial is not None for s in strip.sums)
    bounds = [strip.cut.bounds(k) for k in range(strip.of_matrix)]
    assert [x for low, high in bounds for x in range(low, high)] == list(range(600))
    assert any(low == 300 for low, _ in bounds)  # a block along K begins with an item


def masked(*heads: dg.Tensor, kind: str) -> tuple[dg.Tensor, ...]:
    """Gradients of attention with a mask, in one layout or the other, or with dropout."""
    q, k, v = heads
    length = q.shape[-2]
    i = dg.arange(length)
    near = (i[:, None] - i).abs() < 9
    if kind == "bools":
        return gradients(q, k, v, attn_mask=near)
    if kind == "floats":
        return gradients(q, k, v, attn_mask=dg.where(near, 0.5, -1e4))
    if kind == "dropout":
        return gradients(q, k, v, dropout_p=0.25)
    xs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = joined(*(x[None].transpose(1, 2) for x in xs))
    return (y.detach(), *dg.autograd.grad((y * y).sum(), xs))


@pytest.mark.parametrize("kind", ["bools", "floats", "dropout", "joined"])
@pytest.mark.parametrize(("length", "width"), [(521, 32), (640, 80), (515, 128)])
def test_blocks_of_rows_keep_the_bits_of_eager_mode(
    kind: str, length: int, width: int, threads: int
) -> None:
    args = heads(4, length, width)

    def function(*args: dg.Tensor) -> tuple[dg.Tensor, ...]:
        return masked(*args, kind=kind)

    dg.seed(7)
    want = [x.numpy() for x in function(*args)]
    with config.scope(check=kind == "floats"):
        dg.seed(7)
        program, _, results = compiled(function, *args)
    same_bits(results, want)
    assert any(s.cut for s in program.strips)


@pytest.mark.parametrize("of", ["forward", "causal_gradients"])
def test_memory_of_attention_grows_as_its_length(of: str) -> None:
    sizes = []
    for length in (1024, 2048, 4096):
        program, *_ = compiled(FUNCTIONS[of][0], *heads(2, length, 4))
        sizes.append(plan_arena(program.launch.spaces, {})[1])
    assert sizes[1] <= 2 * sizes[0]
    assert sizes[2] <= 2 * sizes[1]
    assert sizes[2] < 4096 * 4096  # a quarter of the scores of one head


def projected(*args: dg.Tensor, p: float) -> tuple[dg.Tensor, ...]:
    """Gradients of attention behind which all heads are mixed, as a layer does."""
    q, k, v, w = xs = [x.detach().requires_grad_() for x in args]
    y = F.scaled_dot_product_attention(q, k * 2.0, v, dropout_p=p).transpose(0, 1).flatten(1) @ w
    return dg.autograd.grad((y * y).sum(), xs)


@pytest.mark.parametrize("p", [0.0, 0.25])
def test_softmax_is_computed_again_rather_than_kept(p: float) -> None:
    args = *heads(4, 1600, 8), dg.randn(32, 32)
    function = partial(projected, p=p)
    dg.seed(5)
    want = function(*args)
    dg.seed(5)
    program, _, results = compiled(function, *args)
    same_bits(results, [x.numpy() for x in want])
    arena = plan_arena(program.launch.spaces, {})[1]
    softmax = 4 * 4 * 1600 * 1600  # bytes
    assert arena < softmax * (0.45 if p else 0.2)  # with dropout a byte each says what is dropped


@pytest.mark.parametrize(
    ("count", "rows", "threads", "strips"),
    [
        (3, 9, 2, 0),
        (3, 530, 2, 1),
        (2, 500, 3, 0),
        (2, 530, 3, 1),
        (1, 1400, 2, 0),
        (1, 1500, 2, 2),
    ],
)
def test_gradients_of_few_matrices(count: int, rows: int, threads: int, strips: int) -> None:
    """Large scores of matrices that do not go into threads evenly are not all in memory."""
    static = dg.function(gradients, strict=True)
    static(*heads(count, rows, 4))
    assert len(lowered(static, threads).strips) == strips


def test_products_of_one_matrix_are_no_strip_without_scores() -> None:
    def layers(x: dg.Tensor, v: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        return dg.softmax(x @ v, -1) @ w

    args = dg.randn(2100, 600), dg.randn(600, 1024), dg.randn(1024, 20)
    program, *_ = compiled(layers, *args)
    assert not program.strips


def test_what_mixes_items_stays_outside() -> None:
    def mixed(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> dg.Tensor:
        scores = q @ k.transpose(-2, -1)
        return dg.tanh(scores - scores.mean(0)) @ v

    args = heads(8, 6, 4)
    program, _, results = compiled(mixed, *args)
    same_bits(results, [mixed(*args).numpy()])
    mean = next(k for k, x in enumerate(program.kernels) if x.kind == "column")
    assert all(mean not in s.numbers for s in program.strips)


def test_kernels_that_need_no_item_come_first_or_last() -> None:
    def several(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> tuple[dg.Tensor, ...]:
        scores = q @ k.transpose(-2, -1)
        other = dg.sin(v).sum(0)
        total = scores.sum()
        return dg.softmax(scores, -1) @ v, other * 2.0, total + other

    args = heads(8, 6, 4)
    program, inputs, results = compiled(several, *args)
    assert len(program.strips) == 1
    same_bits(results, [x.numpy() for x in several(*args)])
    same_bits(interpreted(program, inputs), results)


def test_a_report_names_strips() -> None:
    static = dg.function(F.scaled_dot_product_attention, strict=True)
    static(*heads(8, 6, 4))
    assert static.report().count("strip 0 of 8 items") == 3


# -- loops over time ------------------------------------------------------------------------------


def over_time(x: dg.Tensor, h: dg.Tensor, w: dg.Tensor) -> tuple[dg.Tensor, ...]:
    """Steps of a recurrent layer with two gates."""
    outputs = []
    for k in range(x.shape[0]):
        a, b = (x[k] + h @ w.T).split(h.shape[1], -1)
        h = dg.sigmoid(a) * h + dg.tanh(b)
        outputs.append(h)
    return dg.stack(outputs), h


def through_time(x: dg.Tensor, h: dg.Tensor, w: dg.Tensor) -> tuple[dg.Tensor, ...]:
    xs = [t.detach().requires_grad_() for t in (x, h, w)]
    outputs, last = over_time(*xs)
    return dg.autograd.grad((outputs * outputs).sum() + last.sum(), xs)


def both_ways(x: dg.Tensor, h: dg.Tensor, w: dg.Tensor) -> tuple[dg.Tensor, ...]:
    return *over_time(x, h, w), *over_time(dg.flip(x, (0,)), h, 2.0 * w)


def sequence(steps: int, rows: int, size: int) -> list[dg.Tensor]:
    shapes = (steps, rows, 2 * size), (rows, size), (2 * size, size)
    return [dg.randn(*shape) for shape in shapes]


LOOPS: dict[str, tuple[Callable[..., Any], tuple[int, int, int], list[int]]] = {
    "forward": (over_time, (5, 16, 3), [2]),
    "odd_blocks": (over_time, (4, 27, 5), [2]),
    "prime_rows": (over_time, (4, 17, 5), [2]),
    "few_rows": (over_time, (4, 15, 5), []),
    "gradients": (through_time, (4, 16, 3), [2, 2]),
    "both_ways": (both_ways, (3, 20, 4), [2]),
}


@pytest.mark.parametrize("name", LOOPS)
def test_rows_go_through_all_steps_on_their_own(name: str) -> None:
    function, shape, items = LOOPS[name]
    args = sequence(*shape)
    program, inputs, results = compiled(function, *args)
    assert [s.items for s in program.strips] == items
    same_bits(interpreted(program, inputs), results)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_over_time_keeps_the_bits_of_eager_mode(name: str, threads: int) -> None:
    function, shape, _ = LOOPS[name]
    args = sequence(*shape)
    want = [x.detach().numpy() for x in function(*args)]
    same_bits(compiled(function, *args)[2], want)
    with config.scope(check=True):
        same_bits(compiled(function, *args)[2], want)


def test_all_steps_are_one_strip_and_gates_memory_of_a_thread() -> None:
    steps, rows, size = 40, 16, 3
    program, *_ = compiled(over_time, *sequence(steps, rows, size))
    (strip,) = program.strips
    kinds = [program.kernels[k].kind for k in strip.numbers]
    assert kinds.count("contract") == steps
    private = [p for p in strip.privates if p.step]
    assert {p.step for p in private} == {2 * size}
    assert len({p.offset for p in private}) == 1
    assert not any(t.buffer.size == 2 * rows * size for t in program.temporaries)


def test_one_thread_needs_no_loop_over_time_in_items() -> None:
    static = dg.function(over_time, strict=True)
    static(*sequence(3, 16, 3))
    assert not lowered(static, threads=1).strips


_GRADIENTS = """
import dualgrad as dg
import dualgrad.functional as F

@dg.function(strict=True)
def gradients(*heads):
    heads = [x.detach().requires_grad_() for x in heads]
    return dg.autograd.grad(F.scaled_dot_product_attention(*heads).sum(), heads)

gradients(*[dg.zeros(2, 3, 7, 4)] * 3)
print(gradients.ir(), gradients.llvm())
"""


def test_programs_with_strips_are_the_same_in_every_process() -> None:
    """Each process has its own order of sets of names.  A program that depended on it would not be
    found in the disk cache."""
    texts = set()
    for seed in "012":
        environment = {**os.environ, "PYTHONHASHSEED": seed, "DG_CACHE": "0"}
        command = [sys.executable, "-c", _GRADIENTS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "strip " in done.stdout
        texts.add(done.stdout)
    assert len(texts) == 1


# -- kernels by items -----------------------------------------------------------------------------

X, Y = Buffer("x", float32, 960), Buffer("y", float32, 960)


def nest(loops: list[tuple[str, int, int]]) -> Kernel:
    """y = x through loops of (name, extent, step)."""
    index: Dim = 0
    for name, extent, step in loops:
        index = index + step * sym(name, extent)
    body: tuple[Stmt, ...] = (Store(Y, index, load(X, index)),)
    for name, extent, _ in reversed(loops):
        of = "vector" if name == loops[-1][0] else "serial"
        body = (Loop("parallel" if name == loops[0][0] else of, sym(name, extent), extent, body),)
    return Kernel("k", body)


NESTS = {
    "outermost": (nest([("a", 8, 120), ("b", 120, 1)]), 8),
    "two_loops": (nest([("a", 2, 480), ("b", 4, 120), ("c", 120, 1)]), 8),
    "swapped": (nest([("a", 2, 480), ("b", 5, 24), ("c", 4, 120), ("d", 24, 1)]), 8),
    "split": (nest([("a", 96, 10), ("b", 10, 1)]), 8),
    "split_and_whole": (nest([("a", 2, 480), ("b", 96, 5), ("c", 5, 1)]), 8),
    "vector": (nest([("a", 960, 1)]), 8),
}


@pytest.mark.parametrize("name", NESTS)
def test_a_nest_by_items_does_the_same(name: str) -> None:
    kernel, items = NESTS[name]
    moved = by_items(kernel, items, {"x": 960 // items, "y": 960 // items})
    assert moved is not None
    (loop,) = moved.body
    assert isinstance(loop, Loop)
    assert (loop.kind, loop.extent) == ("parallel", items)
    x = np.arange(960, dtype=np.float32)
    for item in range(items):
        y = np.zeros(960, np.float32)
        inside = Kernel("k", loop.body)
        assert run([inside], {"x": x, "y": y}, {}, {symbol_of(loop.var): item}) == 0
        part = slice(item * 120, (item + 1) * 120)
        np.testing.assert_array_equal(y[part], x[part])
        assert np.count_nonzero(y) == 120 - (item == 0)


def test_pieces_of_a_loop_end_where_it_does() -> None:
    piece = sym("b", 11)
    within = sym("r", minimum(64, 676 - piece * 64))
    assert bounds(piece * 2048 + within * 32 + sym("j", 32)) == (0, 676 * 32 - 1)
    assert bounds(piece * 2049 + within * 32) == (0, 10 * 2049 + 63 * 32)
    assert bounds(5 - piece * 64 - within) == (5 - 675, 5)


@pytest.mark.parametrize("items", [7, 11, 960])
def test_a_nest_that_does_not_divide_is_refused(items: int) -> None:
    kernel = nest([("a", 8, 120), ("b", 120, 1)])
    assert by_items(kernel, items, {"x": -(-960 // items)}) is None


# -- random programs ------------------------------------------------------------------------------


def random_program(seed: int) -> tuple[Callable[..., Any], list[dg.Tensor]]:
    """Products of batches, with work on rows, columns, items and across items in between."""
    rng = random.Random(seed)
    batch, n = rng.choice([(4,), (2, 3), (8,), (2, 2, 2)]), rng.choice([3, 5, 8])
    kinds = [rng.randrange(9) for _ in range(7)]
    picks = [(rng.randrange(100), rng.randrange(100)) for _ in kinds]

    def program(*given: dg.Tensor) -> tuple[dg.Tensor, ...]:
        values = list(given)
        for kind, (a, b) in zip(kinds, picks, strict=True):
            x, y = values[a % len(values)], values[b % len(values)]
            makers: tuple[Callable[..., Any], ...] = (
                lambda x, y: x @ y,
                lambda x, y: x @ y.transpose(-2, -1),
                lambda x, y: dg.tanh(x @ y) + x,
                lambda x, y: dg.softmax(x, -1),
                lambda x, y: x - y.mean(-2, keepdims=True),
                lambda x, y: dg.sin(x) * y,
                lambda x, y: x.transpose(0, -1).transpose(0, -1) + y,
                lambda x, y: x - y.mean(0, keepdims=True),
                lambda x, y: dg.flip(x, (0,)) * y,
            )
            values.append(makers[kind](x, y))
        return tuple(values[-3:])

    dg.seed(seed)
    return program, [dg.randn(*batch, n, n) for _ in range(3)]


@pytest.mark.parametrize("seed", range(10))
def test_random_programs_keep_their_bits(seed: int) -> None:
    function, args = random_program(seed)
    program, inputs, results = compiled(function, *args)
    same_bits(results, [x.numpy() for x in function(*args)])
    if program.strips:
        same_bits(interpreted(program, inputs), results)


def test_random_programs_have_strips() -> None:
    """The test above is about strips."""
    programs = [compiled(f, *args)[0] for f, args in map(random_program, range(10))]
    assert sum(bool(p.strips) for p in programs) >= 4
