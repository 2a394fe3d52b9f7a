"""Sums of products by index notation.

An expression is planned with the sizes at hand: operands lose what only they have (diagonals,
sums), then two at a time are contracted, each pair as one batched matrix product.  The order is
the cheapest by number of multiplications for few operands, greedy for many (as in Smith and Gray,
"opt_einsum", 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from math import prod
from typing import Any

from dualgrad.compiler.ir.dims import Dim, product, same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.base import result_dtype
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.linalg_base import case, refused
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import low
from dualgrad.compiler.ops.sample import Sample, samples_of
from dualgrad.compiler.ops.slicing import diagonal
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError
from dualgrad.runtime.records import dataclass

Labels = tuple[str, ...]
Path = tuple[tuple[int, int], ...]  # numbers of two operands; their product comes last
OPTIMAL = 6  # operands up to which all orders are tried


@dataclass(frozen=True)
class Expression:
    """Labels of each operand's axes and of the result's; "0", "1", ... stand for an ellipsis."""

    operands: tuple[Labels, ...]
    output: Labels


# -- planning -------------------------------------------------------------------------------------


def parse(equation: str, ranks: tuple[int, ...]) -> Expression:
    """The labels that an equation gives to operands of these ranks."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ArgumentError(
            "the equation has another number of operands",
            op="einsum",
            expect=f"{len(terms)} for {equation!r}",
            actual=str(len(ranks)),
            hint="separate the labels of operands with commas",
        )
    lengths = [n - len(t.replace("...", "")) for t, n in zip(terms, ranks, strict=True)]
    longest = max((n for t, n in zip(terms, lengths, strict=True) if "..." in t), default=0)
    operands = tuple(_labels(equation, t, n, longest) for t, n in zip(terms, lengths, strict=True))
    every = [x for labels in operands for x in labels]
    if arrow:
        output = _labels(equation, right, longest if "..." in right else 0, longest)
        if len(set(output)) != len(output) or not set(output) <= set(every):
            raise ArgumentError(
                "output labels must be distinct, and labels of operands",
                op="einsum",
                actual=repr(equation),
                hint="write each label once behind ->, and only those before it",
            )
    else:
        once = sorted(x for x in set(every) if every.count(x) == 1 and x.isalpha())
        output = (*map(str, range(longest)), *once)
    return Expression(operands, output)


def _labels(equation: str, term: str, hidden: int, longest: int) -> Labels:
    """The labels of one term, whose ellipsis stands for the last `hidden` of `longest`."""
    before, dots, after = term.partition("...")
    if not all(c.isascii() and c.isalpha() for c in before + after):
        raise ArgumentError(
            "not an index expression",
            op="einsum",
            expect="letters, '...', ',' and '->'",
            actual=repr(equation),
            hint="write it as in 'ij,jk->ik'",
        )
    if hidden < 0 or (hidden and not dots):
        raise ShapeError(
            "an operand has another number of dimensions",
            op="einsum",
            expect=f"{len(before + after)} for {term!r}",
            actual=str(len(before + after) + hidden),
            hint="give each dimension one label, or write ... for the rest",
        )
    middle = map(str, range(longest - hidden, longest)) if dots else ()
    return (*before, *middle, *after)


def sizes_of(expression: Expression, shapes: Sequence[tuple[Dim, ...]]) -> dict[str, Dim]:
    """The size of each label; sizes of 1 fit all."""
    sizes: dict[str, Dim] = {}
    for labels, shape in zip(expression.operands, shapes, strict=True):
        for x, n in zip(labels, shape, strict=True):
            known = sizes.setdefault(x, n)
            if known == 1:
                sizes[x] = n
            elif n != 1 and not same(known, n):
                raise ShapeError(
                    f"two sizes of the label {x!r}",
                    op="einsum",
                    expect="equal sizes, or 1",
                    actual=f"{known} and {n} in {' and '.join(map(dim_text, shapes))}",
                    hint="transpose or rename: a label that stands twice has one size",
                )
    return sizes


@cache
def plan(terms: tuple[Labels, ...], output: Labels, sizes: tuple[tuple[str, int], ...]) -> Path:
    """The order of contractions: all orders compared for few operands, else greedily."""
    size = dict(sizes)
    parts = [frozenset(t) for t in terms]
    search = _optimal if len(parts) <= OPTIMAL else _greedy
    return search(parts, frozenset(output), size)


def _cost(labels: frozenset[str], size: dict[str, int]) -> int:
    return prod(size[x] for x in labels)


def _optimal(parts: list[frozenset[str]], output: frozenset[str], size: dict[str, int]) -> Path:
    whole = (1 << len(parts)) - 1

    def left(group: int) -> frozenset[str]:
        """What a product of these operands keeps."""
        inside = frozenset().union(*(p for k, p in enumerate(parts) if group >> k & 1))
        outside = frozenset().union(*(p for k, p in enumerate(parts) if not group >> k & 1))
        return inside & (outside | output)

    @cache
    def best(group: int) -> tuple[int, Any]:
        """(cost, tree) of the product of a set of operands, given as bits."""
        if group & (group - 1) == 0:
            return 0, group.bit_length() - 1
        found: tuple[int, Any] | None = None
        low = group & -group
        half = (group - 1) & group
        while half:
            if half & low:  # each split once
                (a, x), (b, y) = best(half), best(group ^ half)
                cost = a + b + _cost(left(half) | left(group ^ half), size)
                if found is None or cost < found[0]:
                    found = cost, (x, y)
            half = (half - 1) & group
        assert found is not None
        return found

    return _flattened(best(whole)[1], len(parts))


def _flattened(tree: Any, count: int) -> Path:
    """A tree of pairs as numbers in a list that loses two operands and gains one at its end."""
    live: list[Any] = list(range(count))
    path: list[tuple[int, int]] = []

    def reduce(node: Any) -> None:
        if isinstance(node, int):
            return
        for child in node:
            reduce(child)
        i, j = sorted((live.index(node[0]), live.index(node[1])))
        path.append((i, j))
        live.pop(j)
        live.pop(i)
        live.append(node)

    reduce(tree)
    return tuple(path)


def _greedy(parts: list[frozenset[str]], output: frozenset[str], size: dict[str, int]) -> Path:
    parts = list(parts)
    path: list[tuple[int, int]] = []
    while len(parts) > 1:

        def gain(pair: tuple[int, int]) -> tuple[int, int]:
            """What memory a contraction adds, then what it costs."""
            i, j = pair
            rest = output.union(*(p for k, p in enumerate(parts) if k not in pair))
            both = parts[i] | parts[j]
            added = _cost(both & rest, size) - _cost(parts[i], size) - _cost(parts[j], size)
            return added, _cost(both, size)

        i, j = min(combinations(range(len(parts)), 2), key=gain)
        path.append((i, j))
        y, x = parts.pop(j), parts.pop(i)
        parts.append((x | y) & output.union(*parts))
    return tuple(path)


# -- computing ------------------------------------------------------------------------------------


def _reduced(x: Any, labels: Labels, keep: set[str], sizes: dict[str, Dim]) -> tuple[Any, Labels]:
    """An operand without repeated labels, without axes of size 1 that others stretch, and summed
    over what nobody else has."""
    stretched = [k for k, n in enumerate(x.shape) if n == 1 and sizes[labels[k]] != 1]
    x = x.reshape(tuple(n for k, n in enumerate(x.shape) if k not in stretched))
    labels = tuple(c for k, c in enumerate(labels) if k not in stretched)
    for c in dict.fromkeys(labels):
        while labels.count(c) > 1:
            i = labels.index(c)
            j = labels.index(c, i + 1)
            x = diagonal(x, 0, i, j)
            labels = (*(d for k, d in enumerate(labels) if k not in (i, j)), c)
    return _summed(x, labels, keep)


def _summed(x: Any, labels: Labels, keep: set[str]) -> tuple[Any, Labels]:
    gone = tuple(k for k, c in enumerate(labels) if c not in keep)
    if gone:
        x = cast_node(x.sum(gone), x.dtype)
    return x, tuple(c for c in labels if c in keep)


def contract_pair(x: Any, a: Labels, y: Any, b: Labels, keep: set[str]) -> tuple[Any, Labels]:
    """The product of two operands, summed over the labels that are not kept."""
    both = [c for c in a if c in b and c in keep]
    over = [c for c in a if c in b and c not in keep]
    left, right = [c for c in a if c not in b], [c for c in b if c not in a]
    xs, ys = dict(zip(a, x.shape, strict=True)), dict(zip(b, y.shape, strict=True))

    def arranged(z: Any, labels: Labels, order: list[str]) -> Any:
        return z.permute(tuple(labels.index(c) for c in order))

    def total(sizes: dict[str, Dim], labels: list[str]) -> Dim:
        return product(sizes[c] for c in labels)

    shape = tuple((xs | ys)[c] for c in (*both, *left, *right))
    if not over:
        x = arranged(x, a, both + left)
        x = x.reshape((*x.shape, *(1,) * len(right)))
        y = arranged(y, b, both + right)
        y = y.reshape((*y.shape[: len(both)], *(1,) * len(left), *y.shape[len(both) :]))
        return expand_to(x, shape) * expand_to(y, shape), (*both, *left, *right)
    batch = total(xs, both)
    x = arranged(x, a, both + left + over).reshape((batch, total(xs, left), total(xs, over)))
    y = arranged(y, b, both + over + right).reshape((batch, total(ys, over), total(ys, right)))
    return matmul(x, y).reshape(shape), (*both, *left, *right)


@composite
@low
def _einsum(*xs: Any, expression: Expression, path: Path) -> Any:
    dtype = result_dtype("einsum", [x.type for x in xs])
    output = expression.output
    sizes = sizes_of(expression, [x.shape for x in xs])

    def needed(others: Any) -> set[str]:
        return set(output).union(*others)

    live: list[tuple[Any, Labels]] = []
    for k, (x, labels) in enumerate(zip(xs, expression.operands, strict=True)):
        others = [t for j, t in enumerate(expression.operands) if j != k]
        live.append(_reduced(cast_node(x, dtype), labels, needed(others), sizes))
    for i, j in path:
        (y, b), (x, a) = live.pop(j), live.pop(i)
        live.append(contract_pair(x, a, y, b, needed(labels for _, labels in live)))
    ((x, labels),) = live
    x, labels = _summed(x, labels, set(output))
    present = [c for c in output if c in labels]
    x = x.permute(tuple(labels.index(c) for c in present))
    x = x.reshape(tuple(n if c in labels else 1 for c, n in _filled(output, present, x.shape)))
    return expand_to(x, tuple(sizes[c] for c in output))


def _filled(output: Labels, present: list[str], shape: tuple[Dim, ...]) -> list[tuple[str, Dim]]:
    """The output's labels with the sizes of those that are there."""
    known = dict(zip(present, shape, strict=True))
    return [(c, known.get(c, 1)) for c in output]


def einsum(equation: Any, *operands: Any, optimize: Any = True) -> Any:
    """Return sums of products of tensors, as `equation` names their axes.

        einsum("ij,jk->ik", a, b)      einsum("...ii->...i", a)      einsum("i,j", a, b)
        einsum(a, [0, 1], b, [1, 2], [0, 2])

    A label in several places runs along equal sizes (or 1); labels that the output lacks are
    summed over.  Without "->" the output has the labels that occur once, in alphabetical order,
    after the ellipsis.  Pairs are contracted in the cheapest order, or from left to right if
    `optimize` is False.  Raises ArgumentError for an equation that is none, ShapeError if it does
    not fit, DTypeError for bools.
    """
    if not isinstance(equation, str):
        equation, operands = _from_numbers((equation, *operands))
    elif len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    check_tensors("einsum", *operands)
    if any(x.dtype.kind == "b" for x in operands):
        raise DTypeError(
            "does not take bools",
            op="einsum",
            expect="numbers",
            actual="bool",
            hint="convert with .astype(dg.int64)",
        )
    expression = parse(equation, tuple(x.ndim for x in operands))
    sizes = sizes_of(expression, [x.shape for x in operands])
    # From left to right: the product so far stands last.
    path: Path = ((0, 1), *((0, k) for k in range(len(operands) - 2, 0, -1)))
    numbers = [(x, n) for x, n in sizes.items() if isinstance(n, int)]
    if optimize is not False and len(numbers) == len(sizes) and len(operands) > 2:
        path = plan(expression.operands, expression.output, tuple(numbers))
    return _einsum(*operands, expression=expression, path=path if len(operands) > 1 else ())


def _from_numbers(parts: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """An equation in letters from operands that are followed by lists of numbers."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def term(labels: Any) -> str:
        return "".join("..." if x is Ellipsis else letters[x] for x in labels)

    tensors, lists = parts[0 : len(parts) - 1 : 2], parts[1::2]
    output = f"->{term(parts[-1])}" if len(parts) % 2 else ""
    return ",".join(map(term, lists)) + output, tuple(tensors)


@samples_of(einsum)
def _einsum_samples() -> list[Sample]:
    def good(equation: str, *shapes: tuple[int, ...], **more: Any) -> Sample:
        return case(
            lambda *xs: einsum(equation, *xs),
            lambda np, *xs: np.einsum(equation, *xs),
            *shapes,
            relative=2e-6,
            **more,
        )

    numbers = case(
        lambda x, y: einsum(x, [0, 1], y, [1, 2], [2, 0]),
        lambda np, x, y: np.einsum(x, [0, 1], y, [1, 2], [2, 0]),
        (2, 3),
        (3, 4),
    )
    return [
        good("ij,jk->ik", (3, 4), (4, 5)),
        good("ij,jk", (3, 4), (4, 5), layout="transposed"),
        good("ba", (2, 3)),
        good("ii", (4, 4)),
        good("ii->i", (4, 4)),
        good("iij->ji", (3, 3, 2)),
        good("ijk->", (2, 3, 4)),
        good("i,j->ji", (3,), (4,)),
        good("i,i", (5,), (5,)),
        good("ij,ij->i", (3, 4), (3, 4)),
        good("ij,ij->ij", (3, 4), (3, 4)),
        good("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
        good("...ij,...jk->...ik", (2, 1, 3, 4), (3, 4, 2)),
        good("...i->...", (2, 3, 4)),
        good("i...,i...", (3, 2), (3, 4, 2)),
        good("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
        good("ab,bc,cd,de->ae", (2, 3), (3, 4), (4, 2), (2, 3)),
        good("i,i,i->i", (3,), (3,), (3,)),
        good("ij,kj->", (1, 4), (3, 4)),
        good("ij,ij", (1, 4), (3, 4)),
        good("i,->i", (3,), ()),
        good("ij,jk->ik", (3, 0), (0, 2)),
        good("a,b,c,d,e,f,g->dg", *((2,),) * 7),
        numbers,
        refused(lambda x, y: einsum("ij,jk", x, y), "two sizes of the label 'j'", (2, 3), (4, 2)),
        refused(lambda x: einsum("ij,jk", x), "another number of operands", (2, 3)),
        refused(lambda x: einsum("i", x), "another number of dimensions", (2, 3)),
        refused(lambda x: einsum("ij->ii", x), "output labels must be distinct", (2, 3)),
        refused(lambda x: einsum("i$", x), "not an index expression", (2, 3)),
    ]
