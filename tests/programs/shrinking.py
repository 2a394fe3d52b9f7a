"""Makes a failing program small: as long as it fails, whatever can be left out is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from programs.text import Parameter, Program

Fails = Callable[[Program], bool]
BUDGET = 400  # programs that are run


def shrink(program: Program, fails: Fails, budget: int = BUDGET) -> Program:
    """The smallest failing program that is found, by one change at a time."""
    left = budget
    again = True
    while again:
        again = False
        for small in smaller(program):
            if left == 0:
                return program
            if size(small) >= size(program):
                continue
            left -= 1
            if fails(small):
                program, again = small, True
                break
    return program


def size(program: Program) -> tuple[int, int]:
    statements = (*program.inside, *program.outside)
    parts = len(statements) + len(program.results) + len(program.calls)
    return (len(program.source) + 20 * parts, len(program.source))


def smaller(p: Program) -> Iterator[Program]:
    """Programs that are a little smaller, those with much less first."""
    for part in ("outside", "inside"):
        statements = getattr(p, part)
        for shorter in shortened(statements):
            yield p.with_parts(**{part: shorter})
    for k in range(len(p.calls)):
        if len(p.calls) > 1:
            yield p.with_parts(calls=without(p.calls, k))
    yield from fewer_results(p)
    yield from without_variable(p)
    for part in ("captured", "arguments"):
        found = getattr(p, part)
        for k in range(len(found)):
            yield p.with_parts(**{part: without(found, k)})
        for k, parameter in enumerate(found):
            for text in simpler_inputs(parameter.text):
                new = (*found[:k], Parameter(parameter.name, text), *found[k + 1 :])
                yield p.with_parts(**{part: new})


def without(items: tuple[Any, ...], k: int, count: int = 1) -> tuple[Any, ...]:
    return items[:k] + items[k + count :]


def shortened(statements: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    n = len(statements)
    step = max(1, n // 2)
    while step:
        for k in reversed(range(0, n, step)):
            yield without(statements, k, step)
        step //= 2
    for k, text in enumerate(statements):
        for simpler in simpler_statements(text):
            yield (*statements[:k], simpler, *statements[k + 1 :])


def simpler_statements(text: str) -> Iterator[str]:
    """A statement with less around it, or fewer arguments."""
    lines = text.splitlines()
    if len(lines) > 1:
        yield "\n".join(line.strip() for line in lines if line.startswith("    "))
        for k in range(len(lines)):
            yield "\n".join(without(tuple(lines), k))
    for found in re.finditer(r", \w+=[^,()]+(?=[,)])", text):
        yield text[: found.start()] + text[found.end() :]
    name, sign, value = text.partition(" = ")
    if sign:
        for operand in dict.fromkeys(re.findall(r"\b[cvxwr]\d+\b", value)):
            yield f"{name} = {operand}"


def fewer_results(p: Program) -> Iterator[Program]:
    for k in range(len(p.results)):
        if len(p.results) > 1:

            def renamed(found: re.Match[str], gone: int = k) -> str:
                number = int(found[1])
                return f"r{number - (number > gone)}"

            outside = tuple(re.sub(r"\br(\d+)\b", renamed, s) for s in p.outside)
            yield p.with_parts(results=without(p.results, k), outside=outside)


def without_variable(p: Program) -> Iterator[Program]:
    """A variable replaced by an older one, wherever it is read later."""
    known = [a.name for a in (*p.arguments, *p.captured)]
    for k, text in enumerate(p.inside):
        found = re.match(r"(v\d+) = ", text)
        if found is None:
            continue
        for other in known:
            rest = [re.sub(rf"\b{found[1]}\b", other, s) for s in p.inside[k + 1 :]]
            results = tuple(other if r == found[1] else r for r in p.results)
            yield p.with_parts(inside=(*p.inside[:k], *rest), results=results)
        known.append(found[1])


def simpler_inputs(text: str) -> Iterator[str]:
    for part in (".requires_grad_()", "[..., ::2]"):
        yield text.replace(part, "")
    yield re.sub(r"\.permute\(.*\)(?=$|\.req)", "", text)
    yield re.sub(r"dg\.(float64|float16|bfloat16|int32|int64)", "dg.float32", text)
    found = re.search(r"numbers\([^,]*, \(([^)]*)\)", text)
    if found is None:
        return
    sides = [s for s in found[1].split(",") if s.strip()]
    for k, side in enumerate(sides):
        for new in ("1", "2", "3"):
            if side.strip() != new:
                inner = ", ".join([*sides[:k], new, *sides[k + 1 :]])
                yield text[: found.start(1)] + inner + "," + text[found.end(1) :]
        inner = ", ".join(without(tuple(sides), k)) + ("," if len(sides) > 1 else "")
        yield text[: found.start(1)] + inner + text[found.end(1) :]
