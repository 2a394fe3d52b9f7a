"""A loop program as CUDA C: the text of its kernels, and the steps that run them in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from dualgrad.compiler.ir.dims import Dim, substitute, symbol_of
from dualgrad.compiler.kernel.ir import (
    Block,
    Call,
    Check,
    Contract,
    If,
    Kernel,
    Loop,
    Reduce,
    Stmt,
    is_flat,
    is_stepped,
    walk,
)
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.lower.cuda.contract import contract_kernel
from dualgrad.compiler.lower.cuda.flat import flat_kernel
from dualgrad.compiler.lower.cuda.kernel import KernelText, Signature, pointers_of
from dualgrad.compiler.lower.cuda.launch import (
    CudaModule,
    HostBlock,
    HostLaunch,
    KernelLaunch,
    Step,
)
from dualgrad.compiler.lower.cuda.prelude import prelude
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.lower.cuda.stepped import stepped_kernel
from dualgrad.compiler.lower.cuda.team import team_kernel

WRITERS: dict[str, Callable[[Kernel, Signature, Formulas], KernelText]] = {
    "flat": flat_kernel,
    "team": team_kernel,
    "stepped": stepped_kernel,
    "contract": contract_kernel,
}


def module_of(program: LoopProgram, wide: bool = False) -> CudaModule:
    """The module of a program; `wide` makes its indices 64 bits.

    Kernels that differ in their buffers alone share a function.
    """
    formulas = Formulas()
    functions, steps = functions_of(program, formulas)
    return CudaModule(text_of(functions, formulas, wide), steps)


def text_of(functions: Iterable[str], formulas: Formulas, wide: bool) -> str:
    """The text of some kernels' functions with all that they call."""
    return "\n".join([prelude(wide), formulas.helpers, formulas.text, *functions])


def kernels_text(program: LoopProgram) -> str:
    """The text of a program without what all programs have in common, for reading."""
    formulas = Formulas()
    functions, _ = functions_of(program, formulas)
    return "\n".join([t for t in (formulas.text, *functions) if t])


def functions_of(program: LoopProgram, formulas: Formulas) -> tuple[list[str], tuple[Step, ...]]:
    """The functions of a program's kernels, and its steps; what they call goes to `formulas`."""
    made: dict[tuple[object, ...], tuple[Signature, KernelText]] = {}
    steps: list[Step] = []
    names: set[str] = set()
    checked = False
    for kernel, common in zip(program.kernels, program.common_texts, strict=True):
        if kernel.kind == "call":
            (call,) = kernel.body
            assert isinstance(call, Call)
            steps.append(host_launch(call))
            continue
        checked |= any(isinstance(s, Check) for s in walk(kernel.body))
        signature = Signature.of(kernel, kernel.name, program.symbols, program.scalars, checked)
        key = (common, *signature.variant(kernel))
        if key not in made:
            signature = replace(signature, function=unique(kernel.name, names))
            made[key] = signature, write(kernel, signature, formulas)
        steps.append(kernel_launch(kernel, *made[key]))
    return [k.text for _, k in made.values()], tuple(steps)


def write(kernel: Kernel, signature: Signature, formulas: Formulas) -> KernelText:
    """The function of one kernel."""
    return WRITERS[pattern(kernel)](kernel, signature, formulas)


def pattern(kernel: Kernel) -> str:
    """How a kernel uses the threads of a block."""
    if kernel.kind == "contract":
        return "contract"
    if is_flat(kernel):
        return "flat"
    return "stepped" if is_stepped(kernel) else "team"


def unique(name: str, taken: set[str]) -> str:
    """A name for a kernel's function: a C identifier that no other function has."""
    base = "k_" + re.sub(r"[^A-Za-z0-9_]", "_", name)
    out, number = base, 2
    while out in taken:
        out, number = f"{base}_{number}", number + 1
    taken.add(out)
    return out


def kernel_launch(kernel: Kernel, signature: Signature, text: KernelText) -> KernelLaunch:
    """The launch of a function for a kernel's buffers."""
    return KernelLaunch(
        signature.function,
        tuple((b.name, start * b.dtype.itemsize) for b, start in pointers_of(kernel)),
        tuple(k for k, _ in signature.symbols),
        tuple(k for k, _ in signature.scalars),
        reach_of(kernel.body),
        text.work,
        text.per_block,
        text.threads,
        signature.guarded,
    )


def reach_of(body: tuple[Stmt, ...]) -> Dim:
    """A number that no place in the loops of some statements is above."""
    total: Dim = 0
    for stmt in body:
        if isinstance(stmt, Loop):  # extents that vary are largest at the start
            inside = substitute(reach_of(stmt.body), {symbol_of(stmt.var): 0})
            total = total + inside * stmt.extent
        elif isinstance(stmt, Reduce):
            total = total + stmt.extent
        elif isinstance(stmt, If):
            total = total + reach_of(stmt.body)
        elif isinstance(stmt, Contract):
            total = total + stmt.batch * stmt.m * stmt.n
    return total if total != 0 else 1


def host_launch(call: Call) -> HostLaunch:
    def block(x: Block) -> HostBlock:
        return HostBlock(x.buffer.name, x.base, x.shape)

    return HostLaunch(
        call.host, tuple(map(block, call.inputs)), block(call.output), call.sizes, call.code
    )
