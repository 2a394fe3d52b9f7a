"""Rows of the benchmark of eager ops: one call each, as NumPy, PyTorch and dualgrad spell it.

Operands are float32 with a million elements unless said otherwise; see `operands`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SIZE = 1_000_000
SIDE = 1000


@dataclass(frozen=True)
class Row:
    """One op.  Expressions use `L` (the library), `F` (its functions for networks) and the names
    of `operands`; None where a library lacks the op."""

    name: str
    dualgrad: str
    numpy: str | None
    torch: str | None


def operands() -> dict[str, np.ndarray[Any, Any]]:
    """The operands of all rows.

    x, y in [-2, 2), p in [0.1, 2), u in (-1, 1), b bools, i and j int64, q positions: vectors.
    m, n: matrices 1000 x 1000; w, v: one row of them, s a sorted one; r: row numbers.
    none, every: bools of one value; images, filters, heads: of a convolution and attention.
    """
    rng = np.random.default_rng(0)

    def uniform(low: float, high: float, *shape: int) -> np.ndarray[Any, Any]:
        return rng.uniform(low, high, shape).astype(np.float32)

    return {
        "x": uniform(-2, 2, SIZE),
        "y": uniform(-2, 2, SIZE),
        "p": uniform(0.1, 2, SIZE),
        "u": uniform(-0.999, 0.999, SIZE),
        "m": uniform(-2, 2, SIDE, SIDE),
        "n": uniform(-2, 2, SIDE, SIDE),
        "b": rng.random(SIZE) < 0.5,
        "none": np.zeros(SIZE, bool),
        "every": np.ones(SIZE, bool),
        "i": rng.integers(-100, 100, SIZE),
        "j": rng.integers(1, 100, SIZE),
        "r": rng.integers(0, SIDE, SIDE),
        "q": rng.integers(0, SIZE, SIZE),
        "w": uniform(-2, 2, SIDE),
        "v": uniform(-2, 2, SIDE),
        "s": np.sort(uniform(-2, 2, SIDE)),
        "images": uniform(-2, 2, 8, 32, 28, 28),
        "filters": uniform(-1, 1, 64, 32, 3, 3),
        "heads": uniform(-1, 1, 8, 4, 128, 64),
    }


def same(name: str, expression: str) -> Row:
    """A row that all three spell alike."""
    return Row(name, expression, expression, expression)


def unary(*names: str, operand: str = "x") -> list[Row]:
    return [same(n, f"L.{n}({operand})") for n in names]


def torch_only(name: str, expression: str) -> Row:
    return Row(name, expression, None, expression)


UNARY = (
    "abs", "negative", "square", "exp", "exp2", "expm1", "sin", "cos", "tan", "sinh", "cosh",
    "tanh", "arctan", "arcsinh", "floor", "ceil", "trunc", "sign", "isnan", "isfinite", "signbit",
)  # fmt: skip
BINARY = (
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "hypot", "arctan2", "copysign",
    "logaddexp", "nextafter", "floor_divide", "remainder", "fmod", "less",
)  # fmt: skip
ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus",
    "hardswish", "hardsigmoid", "hardtanh", "logsigmoid", "softsign", "tanhshrink",
)  # fmt: skip
SPECIAL = ("erf", "erfc", "lgamma", "digamma", "sigmoid", "sinc", "rsqrt")

ROWS: tuple[Row, ...] = (
    *unary(*UNARY),
    *unary("sqrt", "log", "log2", "log10", "log1p", "reciprocal", operand="p"),
    *unary("arcsin", "arccos", "arctanh", operand="u"),
    same("arccosh", "L.arccosh(p + 1)"),
    Row("round", "L.round(x)", "L.round(x)", "L.round(x)"),
    *(same(n, f"L.{n}(x, y)") for n in BINARY),
    Row("equal", "x == y", "x == y", "x == y"),
    Row("power", "L.pow(p, y)", "L.power(p, y)", "L.pow(p, y)"),
    Row("power 3", "x ** 3", "x ** 3", "x ** 3"),
    Row("clip", "L.clip(x, -1, 1)", "L.clip(x, -1, 1)", "L.clip(x, -1, 1)"),
    same("where", "L.where(b, x, y)"),
    same("bitwise_and", "i & j"),
    same("floor_divide int64", "i // j"),
    same("left_shift", "i << 3"),
    *(torch_only(n, f"L.{n}(p)") for n in SPECIAL),
    torch_only("erfinv", "L.erfinv(u)"),
    torch_only("logit", "L.logit(u * 0.5 + 0.5)"),
    torch_only("xlogy", "L.xlogy(x, p)"),
    torch_only("lerp", "L.lerp(x, y, 0.3)"),
    torch_only("nan_to_num", "L.nan_to_num(x)"),
    *(torch_only(n, f"F.{n}(x)") for n in ACTIVATIONS),
    torch_only("gelu tanh", "F.gelu(x, approximate='tanh')"),
    *(same(f"{n}", f"L.{n}(x)") for n in ("sum", "mean", "max", "argmax", "prod")),
    *(same(f"{n} rows", f"L.{n}(m, 1)") for n in ("sum", "mean", "argmax", "cumsum")),
    *(same(f"{n} columns", f"L.{n}(m, 0)") for n in ("sum", "mean", "argmax", "cumsum")),
    Row("max rows", "L.amax(m, 1)", "L.amax(m, 1)", "L.amax(m, 1)"),
    Row("max columns", "L.amax(m, 0)", "L.amax(m, 0)", "L.amax(m, 0)"),
    Row("var", "L.var(x)", "L.var(x)", "L.var(x)"),
    Row("std rows", "L.std(m, 1)", "L.std(m, 1)", "L.std(m, 1)"),
    Row("norm", "L.linalg.vector_norm(x)", "L.linalg.norm(x)", "L.linalg.vector_norm(x)"),
    torch_only("logsumexp rows", "L.logsumexp(m, 1)"),
    same("any", "L.any(none)"),
    same("all", "L.all(every)"),
    same("count_nonzero", "L.count_nonzero(b)"),
    same("nansum", "L.nansum(x)"),
    same("cumprod rows", "L.cumprod(m, 1)"),
    Row("transpose copy", "m.T.contiguous()", "L.ascontiguousarray(m.T)", "m.T.contiguous()"),
    Row("cat", "L.cat([m, n], 1)", "L.concatenate([m, n], 1)", "L.cat([m, n], 1)"),
    same("stack", "L.stack([m, n])"),
    same("roll", "L.roll(m, 300, 1)"),
    Row("flip", "L.flip(m, (1,))", "L.flip(m, (1,)).copy()", "L.flip(m, (1,))"),
    Row("tile", "L.tile(w, (1000,))", "L.tile(w, (1000,))", "L.tile(w, (1000,))"),
    Row("pad", "L.pad(m, (1, 1, 1, 1))", "L.pad(m, 1)", "F.pad(m, (1, 1, 1, 1))"),
    Row("pad reflect", "L.pad(m, (2, 2), 'reflect')", "L.pad(m, ((0, 0), (2, 2)), 'reflect')",
        "F.pad(m, (2, 2), 'reflect')"),
    Row("slice copy", "m[::2, 1:].contiguous()", "L.ascontiguousarray(m[::2, 1:])",
        "m[::2, 1:].contiguous()"),
    Row("take rows", "m[r]", "m[r]", "m[r]"),
    Row("take", "L.take(x, q)", "L.take(x, q)", "L.take(x, q)"),
    torch_only("scatter_add", "L.scatter_add(x, 0, q, y)"),
    torch_only("index_add rows", "L.index_add(m, 0, r, n)"),
    Row("masked_fill", "L.masked_fill(x, b, 0.0)", "L.where(b, L.float32(0), x)",
        "L.masked_fill(x, b, 0.0)"),
    Row("boolean mask", "x[b]", "x[b]", "x[b]"),
    same("searchsorted", "L.searchsorted(s, x)"),
    Row("tril", "L.tril(m)", "L.tril(m)", "L.tril(m)"),
    same("matmul", "m @ n"),
    same("outer", "L.outer(w, v)"),
    same("dot", "L.dot(x, y)"),
    Row("einsum", "L.einsum('ij,kj->ik', m, n)", None, "L.einsum('ij,kj->ik', m, n)"),
    torch_only("softmax", "F.softmax(m, -1)"),
    torch_only("log_softmax", "F.log_softmax(m, -1)"),
    torch_only("layer_norm", "F.layer_norm(m, (1000,), w, v)"),
    torch_only("rms_norm", "F.rms_norm(m, (1000,), w)"),
    torch_only("cross_entropy", "F.cross_entropy(m, r)"),
    torch_only("mse_loss", "F.mse_loss(x, y)"),
    torch_only("bce with logits", "F.binary_cross_entropy_with_logits(x, p * 0.5)"),
    torch_only("embedding", "F.embedding(r, m)"),
    torch_only("conv2d", "F.conv2d(images, filters, padding=1)"),
    torch_only("max_pool2d", "F.max_pool2d(images, 2)"),
    torch_only("avg_pool2d", "F.avg_pool2d(images, 2)"),
    torch_only("bilinear x2", "F.interpolate(images, scale_factor=2.0, mode='bilinear')"),
    torch_only("attention", "F.scaled_dot_product_attention(heads, heads, heads)"),
    Row("rand", "L.rand(1000000)", "RNG.random(1000000, L.float32)", "L.rand(1000000)"),
    Row("randn", "L.randn(1000000)", "RNG.standard_normal(1000000, L.float32)",
        "L.randn(1000000)"),
)  # fmt: skip
