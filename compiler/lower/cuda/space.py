"""The index space of a kernel without a reduction that threads share, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dualgrad.compiler.ir.dims import Dim, Expr, coefficient, product, symbol_of
from dualgrad.compiler.kernel.ir import Buffer, Check, Kernel, Loop, Stmt, Store, accesses_of
from dualgrad.compiler.lower.cuda.kernel import KernelCode, Signature
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.runtime.records import dataclass

Access = tuple[Buffer, Dim]


@dataclass(frozen=True)
class Space:
    """A kernel as independent loops, outermost first, and what is done at every place in them."""

    loops: tuple[Loop, ...]
    body: tuple[Stmt, ...]

    @classmethod
    def of(cls, kernel: Kernel) -> Space:
        """The loops around what a thread of a flat kernel does."""
        loops: list[Loop] = []
        body = kernel.body
        while len(body) == 1 and isinstance(body[0], Loop) and body[0].kind in ("grid", "block"):
            loops.append(body[0])
            body = body[0].body
        return cls(tuple(loops), body)

    def along_memory(self) -> Space:
        """The space with a loop innermost that some access runs along, if there is one."""
        indices = [index for _, index in accesses_of(self.body)]
        runs = [sum(step_along(i, x.var) == 1 for i in indices) for x in self.loops]
        if not self.loops or runs[-1] or not any(runs):
            return self
        best = runs.index(max(runs))
        rest = self.loops[:best] + self.loops[best + 1 :]
        return Space((*rest, self.loops[best]), self.body)

    @property
    def size(self) -> Dim:
        return product(x.extent for x in self.loops)

    @property
    def stores(self) -> tuple[Store, ...]:
        """The stores that stand in the body itself."""
        return tuple(s for s in self.body if isinstance(s, Store))

    @property
    def is_assignment(self) -> bool:
        """Whether the body is checks and then stores, nothing else."""
        kinds = [type(s) for s in self.body]
        checks = kinds.count(Check)
        return kinds == [Check] * checks + [Store] * (len(kinds) - checks)


class SpaceCode(KernelCode):
    """Writes a kernel that goes through an index space."""

    def __init__(self, space: Space, signature: Signature, formulas: Formulas) -> None:
        super().__init__(signature, formulas)
        self.space = space

    @contextmanager
    def every(self, first: str, stop: str, step: str) -> Iterator[str]:
        """A loop over places, from `first` on in steps."""
        name = self.w.new_name("at_")
        with self.block(f"for (dg_index {name} = {first}; {name} < {stop}; {name} += {step})"):
            yield name

    def coordinates(self, place: str, names: Sequence[str], extents: Sequence[str]) -> list[str]:
        """A place in a space of these extents as a number along each, named after `names`."""
        out: list[str] = []
        rest = place
        for name, extent in zip(names[:0:-1], extents[:0:-1], strict=True):
            out.append(self.named(name, f"dg_mod({rest}, {extent})"))
            rest = self.named("rest", f"dg_div({rest}, {extent})")
        return [rest, *reversed(out)] if names else []

    def named(self, what: str, value: str) -> str:
        """A name for a value of an index expression."""
        name = self.w.new_name(f"{what}_")
        self.w.line(f"const dg_index {name} = {value};")
        return name

    def place_at(self, loops: Sequence[Loop], values: Sequence[str]) -> None:
        """The loop variables have these values from here on."""
        for loop, value in zip(loops, values, strict=True):
            self.atoms[symbol_of(loop.var)] = value


def name_of(loop: Loop) -> str:
    return symbol_of(loop.var).name


def step_along(index: Dim, var: Expr) -> Dim | None:
    """The stride of an index along a loop; None where it has none."""
    split = coefficient(index, var)
    return None if split is None else split[0]
