"""Kernels whose teams go through serial loops together: a block for each team.

The iterations of the block loop inside are spread over the threads, which wait for each other
before the next step: it sees what this one has stored.
"""

from __future__ import annotations

from dualgrad.compiler.ir.dims import symbol_of
from dualgrad.compiler.kernel.ir import Kernel, Loop
from dualgrad.compiler.lower.cuda.kernel import THREADS, KernelText, Signature
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.lower.cuda.space import Space, SpaceCode, name_of

_WARP = 32


def stepped_kernel(kernel: Kernel, signature: Signature, formulas: Formulas) -> KernelText:
    """The function of such a kernel."""
    space = Space.of(kernel)
    code = SteppedCode(space, signature, formulas)
    threads = code.write_teams()
    return KernelText(code.finish(threads), space.size, 1, threads)


class SteppedCode(SpaceCode):
    """Writes a kernel of which `space` is the teams and what one of them does."""

    def write_teams(self) -> int:
        """The whole body of the function; the number of threads of a team."""
        self.guard(self.space.body)
        (step,) = self.space.body
        assert isinstance(step, Loop)
        loops, size = self.space.loops, self.dim(self.space.size)
        extents = [self.dim(x.extent) for x in loops]
        self.enter(self.space.body, {symbol_of(x.var) for x in loops})
        with self.every("blockIdx.x", size, "gridDim.x") as team:
            self.place_at(loops, self.coordinates(team, [name_of(x) for x in loops], extents))
            return self.step(step)

    def step(self, loop: Loop) -> int:
        """A serial loop, or the block loop at the end of them."""
        if loop.kind == "block":
            return self.spread(loop)
        (inside,) = loop.body
        assert isinstance(inside, Loop)
        with self.counted(loop.var, loop.extent, loop.body):
            return self.step(inside)

    def spread(self, loop: Loop) -> int:
        """The iterations of a loop, spread over the threads; then these wait for each other."""
        threads = THREADS
        if isinstance(loop.extent, int):
            threads = min(THREADS, -(-max(loop.extent, 1) // _WARP) * _WARP)
        name = self.loop_name(loop.var)
        self.enter(loop.body, {symbol_of(loop.var)})
        with self.block(
            f"for (dg_index {name} = threadIdx.x; {name} < {self.dim(loop.extent)};"
            f" {name} += {threads})"
        ):
            self.atoms[symbol_of(loop.var)] = name
            self.run(loop.body)
        self.w.line("__syncthreads();")
        return threads
