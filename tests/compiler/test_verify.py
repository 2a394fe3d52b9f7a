"""The verifier refuses what is malformed, with a message; the printer's text is pinned."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dualgrad.compiler.ir.dims import Expr, minimum, sym
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.ir import (
    Accumulator,
    Buffer,
    Check,
    Contract,
    Kernel,
    Loop,
    Operand,
    Reduce,
    Store,
)
from dualgrad.compiler.kernel.printer import render
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.kernel.verify import verify
from dualgrad.runtime.dtype import bool_, float32, float64, int32, int64, uint8
from dualgrad.runtime.errors import CompileError

ROW, COL = sym("i", 128), sym("j", 10)
X = Buffer("x", float32, 1280)
Y = Buffer("y", float32, 1280)
Z = Buffer("z", int64, 10)
AT = ROW * 10 + COL
ONE = s.const(1.0, float32)
MAX, LEFT, RIGHT = (s.reg(n, float32) for n in ("m", "l", "r"))


def larger(a: Scalar, b: Scalar) -> Scalar:
    return s.select(a >= b, a, b)


BEST = Accumulator(
    (MAX,),
    (s.const(-math.inf, float32),),
    (larger(MAX, s.load(X, AT)),),
    (LEFT,),
    (RIGHT,),
    (larger(LEFT, RIGHT),),
)
REDUCE = Reduce(COL, 10, "lanes", 64, (BEST,))
SHIFTED = s.load(X, AT) - MAX
WRITE = Loop("vector", COL, 10, (Store(Y, AT, SHIFTED * SHIFTED),))
A, B, C, W = (Buffer(n, float32, d) for n, d in (("a", 6), ("b", 12), ("c", 8), ("w", 99)))
AXES = (sym("e", 1), sym("p", 2), sym("q", 4))
SUM = s.reg("sum", float32)
MATMUL = Contract(
    Operand(A, 0, 6, 3, 1),
    Operand(B, 0, 12, 4, 1),
    Operand(C, 0, 8, 4, 1),
    *(1, 2, 4, 3),
    W,
    *AXES,
    SUM,
    (Store(C, AXES[1] * 4 + AXES[2], SUM + s.load(X, AXES[2])),),
)


def rows(*body: object) -> Kernel:
    """A kernel whose statements stand in a parallel loop over 128 rows."""
    return Kernel("softmax_0", (Loop("parallel", ROW, 128, body),))  # type: ignore[arg-type]


def vector(*body: object, var: Expr = COL) -> Loop:
    return Loop("vector", var, 10, body)  # type: ignore[arg-type]


def test_good_kernels_pass() -> None:
    verify(rows(REDUCE, WRITE))
    verify(rows(replace(REDUCE, stores=(Store(Y, AT, s.load(X, AT)),)), WRITE))
    verify(Kernel("m", (MATMUL,)))


def test_a_chain_may_store_what_it_carries() -> None:
    plain = replace(BEST, left=(), right=(), combine=())
    scan = Reduce(COL, 10, "chain", 1, (plain,), (Store(Y, AT, MAX), Store(X, AT, BEST.step[0])))
    verify(rows(scan))
    assert rows(scan).kind == "scan"
    assert rows(replace(scan, stores=(Store(Y, AT, ONE),))).kind == "column"
    with pytest.raises(CompileError, match=r"left is \(\)"):
        verify(rows(replace(scan, order="lanes", lanes=8)))
    chain = replace(REDUCE, order="chain", lanes=1, var=sym("k", 10), accumulators=(BEST,))
    verify(rows(vector(chain, store(MAX))))
    verify(Kernel("empty", ()))
    n = sym("N")
    i = sym("i", n)
    size = minimum(16, n - i)
    j = sym("j", size)
    xs = Buffer("x", float32, n)
    ys = Buffer("y", float32, n)
    block = Loop("vector", j, size, (Store(ys, i + j, s.load(xs, i + j)),))
    verify(Kernel("blocks", (Loop("serial", i, n, (block,)),)))
    out_of_range = Loop("vector", sym("k", 0), 0, (Store(Y, sym("k", 0) + 5000, ONE),))
    verify(Kernel("no_iteration", (out_of_range,)))


# -- refused -------------------------------------------------------------------------------------

ODD_TABLE = Scalar.make("table", (s.const(1, int32),), float32, (1.0, 2.0, 3.0))
HALVED = s.Formula("halved", (s.reg("v", float32),), s.reg("v", float32) * 0.5)
WRONG_DETOUR = Scalar.make("detour", (ONE, ONE, ONE), float32, HALVED)
MADE_UP = Scalar.make("tan", (ONE,), float32)
TO_BOOL = Scalar.make("cast", (s.load(Z, COL),), bool_)
MIXED = Scalar.make("add", (ONE, s.const(1.0, float64)), float32)
WRONG_LOAD = Scalar.make("load", (), float64, (X, COL))
FLOAT_PLACE = s.gather(X, 0, s.load(X, COL))
WRONG_GATHER = Scalar.make("gather", (s.load(Z, COL),), float64, (X, 0))
NARROW = s.cast(s.load(Z, COL), int32)
OTHER_X = Buffer("x", float64, 1280)


def store(value: Scalar) -> Store:
    return Store(Y, AT, value)


def step(value: Scalar) -> Reduce:
    return replace(REDUCE, accumulators=(replace(BEST, step=(value,)),))


def best(**parts: object) -> Reduce:
    return replace(REDUCE, accumulators=(replace(BEST, **parts),))  # type: ignore[arg-type]


REFUSED = {
    "unknown loop": (Loop("grid", COL, 10, ()), "unknown loop kind 'grid'"),  # type: ignore[arg-type]
    "inner parallel": (Loop("parallel", COL, 10, ()), "parallel loop j stands inside"),
    "reduce in vector": (vector(replace(REDUCE, var=sym("k", 10))), "a Reduce stands in a vector"),
    "loop in vector": (vector(Loop("serial", sym("k", 2), 2, ())), "a Loop stands in a vector"),
    "not a statement": (ONE, "Scalar is no statement of the loop IR"),
    "extent": (Loop("vector", COL, 11, ()), "j counts to 10, its loop to 11"),
    "negative": (Loop("vector", sym("k", -1), -1, ()), "the extent of k is -1"),
    "shadowing": (Loop("serial", sym("i", 3), 3, ()), "loop variable i is already in use"),
    "no variable": (Loop("serial", COL * 2, 10, ()), r"2\*j is no loop variable"),
    "variable outside": (store(ONE), "j: j is not a variable of a loop around it"),
    "index value outside": (vector(Check(s.index(sym("k", 9)), 9, 0)), "index value k: k is not"),
    "extent outside": (Loop("serial", sym("k", COL), COL, ()), "extent j: j is not a variable"),
    "gathered at a float": (vector(store(FLOAT_PLACE)), "a place in x is a float32"),
    "gathered dtype": (vector(store(WRONG_GATHER)), r"x\[0 \+ z\[j\]\] is read as float64"),
    "gathered outside": (store(s.gather(X, COL, s.index(0))), "index j: j is not a variable"),
    "stored at an int32": (vector(Store(Y, 0, ONE, NARROW)), "a place in y is a int32"),
    "stored dtype": (vector(store(s.index(COL))), "a int64 is stored to y"),
    "too far": (vector(Store(Y, AT + 1, ONE)), "of y reaches 1280"),
    "load too far": (vector(store(s.load(X, AT * 2))), "of x reaches 2558"),
    "check dtype": (Check(s.const(1, int32), 4, 0), "a check of a int32"),
    "check code": (Check(s.const(1, int64), 4, 65535), "error code 65535"),
    "register before": (vector(store(MAX)), "the register m is not defined here"),
    "register dtype": (
        Loop("serial", sym("k", 2), 2, (REDUCE, vector(Store(Z, COL, s.reg("m", int64))))),
        "the register m is read as int64",
    ),
    "register after its body": (
        (Loop("serial", sym("k", 2), 2, (REDUCE,)), WRITE),
        "the register m is not defined here",
    ),
    "register twice": ((REDUCE, REDUCE), "the register m is already defined"),
    "order": (replace(REDUCE, order="tree"), "unknown order 'tree'"),
    "lanes": (replace(REDUCE, lanes=48), "lanes of 48"),
    "chain lanes": (replace(REDUCE, order="chain"), "chain of 64"),
    "no accumulator": (replace(REDUCE, accumulators=()), "without accumulators"),
    "carry kind": (best(carry=(ONE,)), "1.0:f32 is no register"),
    "init dtype": (best(init=(s.const(0, int64),)), r"init is \(int64\)"),
    "init variable": (best(init=(s.load(X, COL),)), "j is not a variable"),
    "step count": (best(step=(MAX, MAX)), r"step is \(float32, float32\)"),
    "step register": (step(LEFT + MAX), "the register l is not defined"),
    "combine load": (best(combine=(LEFT + s.load(X, 0),)), r"combining formula uses x\[0\]"),
    "combine carry": (best(combine=(LEFT + MAX,)), "combining formula uses m"),
    "left is right": (best(right=(LEFT,), combine=(LEFT,)), "two registers of one name: l"),
    "two carries": (replace(REDUCE, accumulators=(BEST, BEST)), "two carries of one name"),
    "carry in a store": (
        replace(REDUCE, stores=(store(MAX),)),
        "the register m is not defined here",
    ),
    "two buffers": (
        vector(store(s.cast(s.load(OTHER_X, COL) * 1.0, float32)), store(s.load(X, COL))),
        r"two buffers are named x: x: f64\[1280\] and x: f32\[1280\]",
    ),
    "size": (vector(Store(Buffer("y", float32, COL), 0, ONE)), "the size of buffer y"),
    "primitive": (vector(store(MADE_UP)), "unknown primitive 'tan'"),
    "table": (vector(store(ODD_TABLE)), r"table\(int32\) -> float32 is no operation"),
    "detour": (vector(store(WRONG_DETOUR)), r"detour\(float32, float32, float32\) -> float32"),
    "cast to bool": (
        vector(Store(Buffer("f", bool_, 10), COL, TO_BOOL)),
        r"cast\(int64\) -> bool is no operation",
    ),
    "operands": (vector(store(MIXED)), r"add\(float32, float64\) -> float32 is no"),
    "load dtype": (vector(store(s.cast(WRONG_LOAD, float32))), r"x\[j\] is read as float64"),
    "param dtype": (vector(store(s.param("p", float32))), "the parameter p is a float32"),
    "two params": (
        vector(
            store(s.cast(s.param("p", float64), float32)),
            store(s.cast(s.param("p", int64), float32)),
        ),
        "two parameters are named p",
    ),
    "contract dtype": (
        replace(MATMUL, result=s.reg("sum", float64)),
        r"a, b, result and c are \(float32, float32, float64, float32\)",
    ),
    "contract stride": (replace(MATMUL, c=Operand(C, 0, 8, 1, 2)), "column stride of c is 2"),
    "contract variable": (replace(MATMUL, a=Operand(A, AXES[1], 6, 3, 1)), "operand a p: p is"),
    "epilogue": (replace(MATMUL, epilogue=(MATMUL,)), "a Contract stands in an epilogue"),
    "bitcast": (
        vector(store(Scalar.make("bitcast", (s.const(1, uint8),), float32))),
        r"bitcast\(uint8\) -> float32 is no",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    found, message = REFUSED[name]
    kernel = rows(*(found if isinstance(found, tuple) else (found,)))
    with pytest.raises(CompileError, match=message) as caught:
        verify(kernel)
    assert "\n  > " in str(caught.value)


def test_parallel_loops_are_at_most_one() -> None:
    loop = Loop("parallel", ROW, 128, ())
    with pytest.raises(CompileError, match="a second parallel loop"):
        verify(Kernel("two", (loop, loop)))


def test_the_message_shows_the_statement_between_its_neighbours() -> None:
    lines = tuple(Store(Y, k, ONE) for k in range(30))
    wrong = Store(Y, 2000, ONE)
    body = (*lines[:15], wrong, *lines[15:])
    with pytest.raises(CompileError) as caught:
        verify(Kernel("long", body, (("train.py", 41),)))
    text = str(caught.value)
    assert "[verify] kernel long: index 2000 of y reaches 2000" in text
    assert "  expect: below 1280" in text
    assert "train.py:41" in text
    shown = [line for line in text.splitlines() if line.endswith("= 1.0")]
    assert len(shown) == 21
    assert shown[10] == "  >   y[2000] = 1.0"


# -- printer -------------------------------------------------------------------------------------


def test_text_of_a_row_kernel() -> None:
    assert (
        render(rows(REDUCE, WRITE))
        == """\
kernel softmax_0  # row
  buffers x: f32[1280], y: f32[1280]
  parallel i < 128:
    reduce lanes(64) j < 10:
      carry m: f32 = -inf
      %1 = x[10*i + j]
      step m = select(m >= %1, m, %1)
      combine m(l, r) = select(l >= r, l, r)
    vector j < 10:
      %1 = x[10*i + j] - m
      y[10*i + j] = %1 * %1
"""
    )


def test_text_of_a_contraction() -> None:
    assert (
        render(Kernel("mm", (MATMUL,)))
        == """\
kernel mm  # contract
  buffers a: f32[6], b: f32[12], c: f32[8], w: f32[99], x: f32[1280]
  contract e < 1, p < 2, q < 4 over 3, workspace w:
    a = a[0; 6, 3, 1]
    b = b[0; 12, 4, 1]
    c = c[0; 8, 4, 1]
    sum: f32 = sums
    c[4*p + q] = sum + x[q]
"""
    )


def test_text_of_computed_places() -> None:
    k = s.load(Z, COL)
    taken = Store(Y, AT, s.gather(X, ROW * 10, k) + s.gather(X, 0, k * 3))
    put = Store(Y, COL, ONE, s.select(k < 0, k + 10, k))
    kernel = rows(vector(Check(k, 10, 2), taken), Loop("serial", COL, 10, (put,)))
    verify(kernel)
    assert (
        render(kernel)
        == """\
kernel softmax_0  # map
  buffers z: i64[10], y: f32[1280], x: f32[1280]
  parallel i < 128:
    vector j < 10:
      %1 = z[j]
      check 0 <= %1 < 10, else error 2
      y[10*i + j] = x[10*i + %1] + x[%1 * 3]
    serial j < 10:
      %1 = z[j]
      y[j + select(%1 < 0, %1 + 10, %1)] = 1.0
"""
    )


def test_text_of_scalars() -> None:
    x, k = s.load(X, COL), s.load(Z, COL)
    p = s.param("p", float64)
    long = x
    for _ in range(20):
        long = s.primitive("fma", long, x, s.const(0.1, float32))
    body = vector(
        Store(Y, COL, s.cast(p, float32) * -x + s.cast(s.const(3, int64), float32)),
        Store(Z, COL, (~k >> 3) & s.select(k < 5, s.const(1, int64), s.const(2, int64))),
        Store(Y, COL, s.bitcast(s.bitcast(x, int32) + 1, float32)),
        Store(X, COL, long),
        Store(X, COL, s.load(X, COL) + s.const(math.nan, float32)),
        Check(k, 10, 7),
    )
    text = render(Kernel("scalars", (body,)))
    assert (
        text
        == """\
kernel scalars  # map
  buffers y: f32[1280], x: f32[1280], z: i64[10]
  params $p: f64
  vector j < 10:
    %1 = x[j]
    y[j] = (f32($p) * -%1) + 3.0
    %2 = z[j]
    z[j] = (~%2 >> 3) & select(%2 < 5, 1:i64, 2:i64)
    y[j] = bits.f32(bits.i32(%1) + 1)
    %3 = fma(fma(fma(fma(%1, %1, 0.1), %1, 0.1), %1, 0.1), %1, 0.1)
    %4 = fma(fma(fma(fma(%3, %1, 0.1), %1, 0.1), %1, 0.1), %1, 0.1)
    %5 = fma(fma(fma(fma(%4, %1, 0.1), %1, 0.1), %1, 0.1), %1, 0.1)
    %6 = fma(fma(fma(fma(%5, %1, 0.1), %1, 0.1), %1, 0.1), %1, 0.1)
    x[j] = fma(fma(fma(fma(%6, %1, 0.1), %1, 0.1), %1, 0.1), %1, 0.1)
    x[j] = %1 + nan
    check 0 <= z[j] < 10, else error 7
"""
    )


def test_text_tells_apart_what_differs() -> None:
    numbers = (0.0, -0.0, 1.0, 1e-45, 16777217.0, math.inf, math.nan)
    texts = [render(rows(vector(store(s.const(v, float32))))) for v in numbers]
    assert len(set(texts)) == len(numbers)
    one_and_true = [
        render(Kernel("k", (Store(Buffer("y", t, 1), 0, s.const(1, t)),)))
        for t in (bool_, int32, int64, float32)
    ]
    assert len(set(one_and_true)) == 4
