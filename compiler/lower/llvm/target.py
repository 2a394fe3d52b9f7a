"""From LLVM text to object code through llvmlite, which is loaded at the first call.

No pass pipeline runs: the text is final.  Only code generation has a level.  Threads can make
object code at once: each call has an LLVM context and a machine of its own, which take 0.2 ms.
"""

from __future__ import annotations

from typing import Any

from dualgrad.runtime.emission import emitted
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.program import Target

# Of code generation.  Measured on a training step: level 1 runs as fast as 2 and compiles in
# three quarters of the time; level 0 halves that again but makes contractions eight times slower.
LEVEL = 1


def _machine(target: Target) -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=LEVEL
    )


def _parsed(text: str, target: Target) -> tuple[Any, Any]:
    import llvmlite.binding as llvm

    machine = _machine(target)
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise CompileError(
            "LLVM refused generated code", op="llvm", actual=str(error).strip()
        ) from error
    return module, machine


def object_code(text: str, target: Target) -> bytes:
    """A relocatable object.  Raises CompileError with LLVM's message if the text is invalid."""
    module, machine = _parsed(text, target)
    return emitted(module, machine)


def assembly(text: str, target: Target) -> str:
    """The machine code of a module as assembly text."""
    module, machine = _parsed(text, target)
    return str(machine.emit_assembly(module))
