"""Kernels for a GPU: what the verifier refuses, what the interpreter finds, what updates become."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dualgrad.compiler.ir.dims import sym
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.ir import (
    Accumulator,
    Buffer,
    Contract,
    If,
    Kernel,
    Loop,
    Operand,
    Reduce,
    Stmt,
    Store,
    is_flat,
)
from dualgrad.compiler.kernel.loops import FILLED, OWNERS, CpuLoops, GpuLoops
from dualgrad.compiler.kernel.verify import verify
from dualgrad.compiler.lower.reference import run
from dualgrad.runtime.dtype import float32, int64
from dualgrad.runtime.errors import CompileError

ROW, COL, K = sym("i", 4), sym("j", 8), sym("k", 3)
PART = sym("k", ROW)
X, Y, Z = (Buffer(n, float32, 32) for n in "xyz")
R = Buffer("r", float32, 4)
AT = 8 * ROW + COL
MAX, LEFT, RIGHT = (s.reg(n, float32) for n in ("m", "l", "n"))
BEST = Accumulator(
    (MAX,),
    (s.const(-math.inf, float32),),
    (s.select(s.load(X, AT) <= MAX, MAX, s.load(X, AT)),),
    (LEFT,),
    (RIGHT,),
    (s.select(LEFT >= RIGHT, LEFT, RIGHT),),
)
LANES = Reduce(COL, 8, "lanes", 4, (BEST,))
CHAIN = Reduce(COL, 8, "chain", 1, (BEST,))
COPY = Store(Y, AT, s.load(X, AT))
MORE = Store(Y, AT, s.load(Y, AT) + s.load(X, AT))
RESULT = Store(R, ROW, MAX)
ONE = s.const(1, float32)
POSITIVE = s.load(X, AT) > 0.0


def grid(*body: Stmt) -> Loop:
    return Loop("grid", ROW, 4, body)


def block(*body: Stmt) -> Loop:
    return Loop("block", COL, 8, body)


def serial(*body: Stmt) -> Loop:
    return Loop("serial", K, 3, body)


def kernel(*body: Stmt) -> Kernel:
    return Kernel("k", body)


FLAT: dict[str, Stmt] = {
    "one store": Store(Y, 0, ONE),
    "map": grid(block(COPY)),
    "no block": grid(CHAIN, RESULT),
    "chain in block": Loop("block", ROW, 4, (CHAIN, RESULT)),
    "serial in block": grid(block(serial(MORE))),
    "if in block": grid(block(If(POSITIVE, (COPY,)))),
}
SHARED: dict[str, Stmt] = {
    "row": grid(LANES, block(COPY), RESULT),
    "serial around block": grid(serial(block(MORE))),
    "blocks": grid(block(COPY), Loop("block", K, 3, (Store(Z, 3 * ROW + K, ONE),))),
}


@pytest.mark.parametrize("stmt", [*FLAT.values(), *SHARED.values()], ids=[*FLAT, *SHARED])
def test_good_kernels_run(stmt: Stmt) -> None:
    verify(kernel(stmt), "cuda")
    assert is_flat(kernel(stmt)) == (stmt in FLAT.values())
    assert execute(stmt) == 0


REFUSED: dict[str, tuple[tuple[Stmt, ...], str]] = {
    "vector": ((Loop("vector", COL, 8, ()),), "unknown loop kind 'vector'"),
    "grid beside": ((Store(R, 0, ONE), grid(block(COPY))), "does not stand alone"),
    "grid in block": ((Loop("block", COL, 8, (grid(COPY),)),), "a grid loop stands in a block"),
    "block in block": ((block(Loop("block", K, 3, ())),), "a block loop stands in a block"),
    "lanes in block": ((Loop("block", ROW, 4, (LANES,)),), "a Reduce stands in a block"),
    "chain beside block": ((grid(CHAIN, block(COPY)),), "a Reduce stands beside"),
    "if around lanes": ((grid(If(ONE > 0.0, (LANES,))),), "an? If stands beside"),
    "serial around lanes": ((grid(serial(LANES)),), "a serial loop of a team"),
    "serial around much": ((grid(serial(block(COPY), RESULT), LANES),), "a serial loop of a team"),
    "number": ((grid(block(If(s.load(X, AT), (COPY,)))),), "a condition of float32"),
    "scratch": (
        (
            Contract(
                *(Operand(b, 0, 0, 1, 1) for b in (X, Y, R)),
                *(1, 1, 1, 1),
                Buffer("w", float32, 1),
                *(sym(n, 1) for n in "bij"),
                s.reg("sum", float32),
                (),
            ),
        ),
        "scratch memory",
    ),
    "parts": (
        (
            Contract(
                *(Operand(b, 0, 0, 1, 1) for b in (X, Y, R)),
                *(1, 1, 1, 1030),
                None,
                *(sym(n, 1) for n in "bij"),
                s.reg("sum", float32),
                (),
                parts=2,
            ),
        ),
        "2 block sums",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    body, message = REFUSED[name]
    with pytest.raises(CompileError, match=message):
        verify(kernel(*body), "cuda")


@pytest.mark.parametrize("stmt", [grid(), If(ONE > 0.0, ())], ids=["grid", "if"])
def test_refused_on_a_cpu(stmt: Stmt) -> None:
    with pytest.raises(CompileError):
        verify(kernel(stmt))


DEPENDENT: dict[str, tuple[Stmt, str]] = {
    "grid": (grid(Store(R, 0, ONE)), r"r\[0\] .* other iterations of grid i"),
    "block": (block(Store(R, 0, ONE)), r"r\[0\] .* other iterations of j"),
    "uneven": (
        Loop("block", ROW, 4, (Loop("serial", PART, ROW, (Store(R, PART, ONE),)),)),
        r"r\[\d\] .* other iterations of block i",
    ),
    "store, then load": (
        grid(LANES, block(COPY), Store(R, ROW, MAX + s.load(Y, 8 * ROW))),
        r"y\[\d+\] .* other statements of the team",
    ),
    "load, then store": (
        grid(LANES, Store(X, 8 * ROW, MAX)),
        r"x\[\d+\] .* other statements of the team",
    ),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_dependent_iterations_are_found(name: str) -> None:
    stmt, message = DEPENDENT[name]
    verify(kernel(stmt), "cuda")
    with pytest.raises(CompileError, match=message):
        execute(stmt)


def execute(stmt: Stmt) -> int:
    memory = {b.name: np.ones(b.size, np.float32) for b in (X, Y, Z, R)}
    return run([kernel(stmt)], memory, {}, {}, 1, device="cuda")


# -- updates --------------------------------------------------------------------------------------

SIZES = [(1, 100, 1), (1, 100, 5), (3, 50, 1), (3, 50, 40), (1, 1, 1), (1, 3, 100_000), (2, 0, 3)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_owners_fill_a_device_and_keep_the_order(sizes: tuple[int, int, int]) -> None:
    outer, count, inner = sizes
    o, k = sym("o", outer), sym("k", count)
    where = Buffer("p", int64, count)
    x = Buffer("x", float32, outer * 7 * inner)
    first = 7 * inner * o

    def one(at: object) -> tuple[s.Scalar, tuple[Stmt, ...]]:
        position = s.load(where, k)
        old = s.gather(x, first + at, position * inner)
        new = old * 0.5 + s.cast(s.index(k), float32)
        return position, (Store(x, first + at, new, position * inner),)

    around = [] if outer == 1 else [(o, outer)]
    if outer == 1:
        first = 0
    want, got = (
        np.zeros(outer * 7 * inner, np.float32),
        np.zeros(outer * 7 * inner, np.float32),
    )
    places = np.random.default_rng(0).integers(0, 7, count)
    bodies = {}
    for loops, array, device in ((CpuLoops(), want, "cpu"), (GpuLoops(), got, "cuda")):
        bodies[device] = kernel(*loops.updates(around, (k, count), 7, inner, one))
        verify(bodies[device], device)
        if outer * inner * count < 10_000:
            memory = {"x": array, "p": places}
            assert run([bodies[device]], memory, {}, {}, 5, device=device) == 0
    np.testing.assert_array_equal(got, want)
    body, threads = bodies["cuda"].body, 1
    assert is_flat(bodies["cuda"])
    while isinstance(body[0], Loop) and body[0].kind != "serial":
        threads, body = threads * body[0].extent, body[0].body
    owners = threads // (outer * inner)
    assert owners <= max(1, min(OWNERS, count, 7))
    assert threads == outer * inner or threads <= FILLED
