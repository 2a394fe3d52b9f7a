"""The code generator: all that turns graphs into machine code, and nothing else needs.

A process that finds its programs on disk never imports it: see `dualgrad.engine`.
"""

from dualgrad.compiler.lower.llvm.module import module_of
from dualgrad.compiler.lower.llvm.target import assembly, object_code
from dualgrad.compiler.pipeline import lower

__all__ = ["assembly", "lower", "module_of", "object_code"]
