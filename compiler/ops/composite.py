"""Composites: functions of ops that count as one unit.

In eager mode a composite is one program and one node on the tape; in a trace its body is inlined,
still as one node on the tape, so that both modes add gradients in the same order.  Its gradient
is derived from its body (see `compiler.grad`), or stated by `with_gradient`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from dualgrad.compiler.ir.dims import current_env
from dualgrad.compiler.ir.interned import Interned
from dualgrad.compiler.ir.node import Node, topological
from dualgrad.compiler.ir.size import parameter
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Rename, apply, plain_number
from dualgrad.compiler.ops.base import Op, renamed
from dualgrad.compiler.ops.elementwise import Elementwise, narrowed, widened
from dualgrad.compiler.ops.precision import KEPT, LOW, SINGLE
from dualgrad.runtime.dtype import float32
from dualgrad.runtime.errors import ArgumentError, unit_names
from dualgrad.runtime.records import dataclass

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Composite:
    """A body and its static parameters; `of` returns the same object for the same ones."""

    body: Callable[..., Any]
    static: tuple[tuple[str, Any], ...]
    exact: ClassVar[bool] = False
    _instances: ClassVar[Interned[Composite]] = Interned()

    @classmethod
    def of(cls, body: Callable[..., Any], static: tuple[tuple[str, Any], ...]) -> Composite:
        if static and current_env() is not None:
            kinds = inspect.get_annotations(body)
            static = tuple((k, parameter(v, str(kinds.get(k)))) for k, v in static)
        # 1 == 1.0 == True are different parameters.
        key = (body, static, tuple([type(v) for _, v in static]))
        found = cls._instances.find(key)
        if found is None:
            static = tuple((k, plain_number(v)) for k, v in static)
            key = (body, static, tuple(type(v) for _, v in static))
            found = cls._instances.keep(key, cls(body, static))
        return found

    @property
    def name(self) -> str:
        return self.body.__name__.strip("_")

    def generalized(self, rename: Rename) -> Composite:
        kinds = inspect.get_annotations(self.body)
        static = ((k, renamed(v, str(kinds.get(k)), rename)) for k, v in self.static)
        return Composite.of(self.body, tuple(static))

    @property
    def raw(self) -> bool:
        """Whether the body takes 16-bit floats as they are."""
        return getattr(self.body, "raw", False)

    def precision_on(self, *nodes: Node) -> str:
        stated: str | None = getattr(self.body, "precision", None)
        if stated is not None or self.raw:
            return stated or KEPT
        ops = [n.op for n in topological(self.trace(*nodes)) if isinstance(n.op, Op)]
        found = {op.precision for op in ops if not isinstance(op, Elementwise)}
        return LOW if LOW in found else SINGLE if SINGLE in found else KEPT

    @property
    def gradient(self) -> Callable[..., tuple[Node | None, ...]] | None:
        """The gradient that `with_gradient` states: from the cotangents of the results (None where
        there is none) and the operands to those of the operands."""
        rule = getattr(self.body, "gradient", None)
        return None if rule is None else functools.partial(rule, **dict(self.static))

    def anew(self, *types: TensorType) -> int | None:
        """The operand from which `computed_again` says that a gradient computes anew."""
        rule = getattr(self.body, "anew", None)
        found: int | None = None if rule is None else rule(*types, **dict(self.static))
        return found

    def trace(self, *nodes: Node) -> tuple[Node, ...]:
        """The body as a graph.  On 16-bit floats it works in float32; its float32 results are
        rounded to the operands' dtype where all floats among these have the one."""
        static = dict(self.static)
        out = self.body(*nodes, **static) if self.raw else self.body(*map(widened, nodes), **static)
        results = out if isinstance(out, tuple) else (out,)
        floats = {n.dtype for n in nodes if n.dtype.is_float and not n.type.weak}
        dtype = floats.pop() if len(floats) == 1 and not self.raw else float32
        if not dtype.is_low:
            return results
        return tuple(narrowed(r, dtype) if r.dtype is float32 else r for r in results)

    def __str__(self) -> str:
        text = ", ".join(f"{k}={v}" for k, v in self.static)
        return f"{self.name}[{text}]" if text else self.name


def raw(body: F) -> F:
    """Let the body of a composite take 16-bit floats as they are: it only moves or converts
    them.  Its gradient is computed in float32 all the same."""
    body.raw = True  # type: ignore[attr-defined]
    return body


def with_gradient(rule: Callable[..., tuple[Any, ...]]) -> Callable[[F], F]:
    """Let a composite state its gradient, for bodies whose derived one does needless work:
    `rule(cotangents, *operands, **static)`, with None for a result without one."""

    def mark(body: F) -> F:
        body.gradient = rule  # type: ignore[attr-defined]
        return body

    return mark


def computed_again(rule: Callable[..., int | None]) -> Callable[[F], F]:
    """Let the gradient of a composite in a trace compute anew what the body computes on its way,
    as it does in eager mode, rather than keep it.

    `rule(*types, **static)`, of the operands' types, says which operand that starts from; None if
    the values are worth their memory.
    """

    def mark(body: F) -> F:
        body.anew = rule  # type: ignore[attr-defined]
        return body

    return mark


def composite(body: F) -> F:
    """Make a function of tensors and Python numbers one unit.

    Positional arguments are tensors or numbers (numbers are passed at run time); keyword
    arguments are static and must be hashable.  The body may only use its arguments and op
    functions, no other tensors, and returns a tensor or a tuple of at least two.
    """

    @functools.wraps(body)
    def call(*args: Any, **static: Any) -> Any:
        try:
            unit = Composite.of(body, tuple(static.items()))
        except TypeError:
            raise ArgumentError(
                "a static parameter is not hashable",
                op=body.__name__,
                expect="numbers, strings, tuples",
                actual=", ".join(f"{k}={type(v).__name__}" for k, v in static.items()),
                hint="pass tensors by position, lists as tuples",
            ) from None
        out = apply(unit, *args)
        return out if len(out) > 1 else out[0]

    call.unit = unit = Composite.of(body, ())  # type: ignore[attr-defined]
    unit_names.add(unit.name)
    return cast(F, call)
