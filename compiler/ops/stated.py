"""Units as text: what stands for the same mathematics in every process."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from typing import Any

from dualgrad.compiler.batching import Batched
from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.dims import Expr
from dualgrad.compiler.ir.node import Graph, Leaf, topological
from dualgrad.compiler.ir.types import Layouts
from dualgrad.compiler.ops.base import Op
from dualgrad.compiler.ops.composite import Composite
from dualgrad.runtime.dtype import DType

_HOME = "dualgrad."
_PLAIN = {bool, int, float, str, type(None)}


def stated(x: Any) -> str | None:
    """A unit of dualgrad's own, or a static parameter of one, as text; None for what a text cannot
    stand for: units of the user's, whose code may be another one tomorrow, and objects.

    Units with equal texts are equal as long as the files of dualgrad are.
    """
    try:
        return _text(x)
    except LookupError:
        return None


def stated_graph(graph: Graph, layouts: Layouts) -> str | None:
    """A graph and the strides of its inputs as text: graphs of one text become one program.

    None for graphs with ops that a text cannot stand for, or with symbolic sizes: what is asked
    about these while a program is made must become guards each time.
    """
    order = topological((*graph.inputs, *graph.scalars, *graph.roots))
    number = {n: str(k) for k, n in enumerate(order)}
    ops: dict[Any, str] = {}
    lines = []
    try:
        for n in order:
            if n.op not in ops:
                ops[n.op] = repr(n.op) if isinstance(n.op, Leaf) else _text(n.op)
            if not all(isinstance(d, int) for d in n.shape):
                return None
            lines.append(f"{ops[n.op]} {' '.join(number[x] for x in n.inputs)} {n.type!r}")
    except LookupError:
        return None
    if not all(isinstance(d, int) for steps in layouts for d in steps or ()):
        return None
    for nodes in (graph.inputs, graph.scalars, graph.outputs):
        lines.append(" ".join(number[n] for n in nodes))
    lines += [f"{number[n]} into {k}" for n, k in graph.writes]
    return "\n".join([*lines, repr(layouts)])


def _text(x: Any) -> str:
    if type(x) in _PLAIN:
        return repr(x)
    if isinstance(x, Expr):
        return f"<{x}>"
    if isinstance(x, DType):
        return f"dtype {x.name}"
    if type(x) is tuple:
        return f"({' '.join(f'{_text(v)},' for v in x)})"
    if isinstance(x, Op):
        return f"{_named(type(x))}{_text(tuple(x.values))}"
    if isinstance(x, Composite):
        return f"{_named(x.body)}{_text(x.static)}"
    if isinstance(x, Vjp):
        return f"vjp {_text(x.unit)} {x.given} {x.wanted}"
    if isinstance(x, Batched):
        return f"batched {_text(x.unit)} {x.flags}"
    if isinstance(x, type) and issubclass(x, Op):
        return f"class {_named(x)}"
    if isinstance(getattr(x, "unit", None), Composite):
        return f"function {_named(x)}"
    if is_dataclass(x) and not isinstance(x, type):
        values = tuple(getattr(x, f.name) for f in fields(x))
        return f"{_named(type(x))}{_text(values)}"
    raise LookupError(f"no text stands for {x!r}")


def _named(thing: Any) -> str:
    """The name of a class, a composite or its body, by which it is found in dualgrad's files."""
    module, name = thing.__module__, thing.__qualname__
    found = getattr(sys.modules.get(module), name, None)
    unit = getattr(found, "unit", None)
    if not module.startswith(_HOME) or thing not in (found, unit and unit.body):
        raise LookupError(f"{module}.{name} is not dualgrad's own")
    return f"{module}.{name}"
