"""What the tests that compile for GPUs share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.lower.cuda import module
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.runtime import nvrtc
from dualgrad.runtime.nvrtc import Compiler, Image

# widest load and store of global memory, in bytes
Accesses = tuple[int, int]


def nvrtc_or_skip() -> Compiler:
    """The compiler; the test that asks for it is skipped where it is not installed."""
    found = nvrtc.find()
    if found is None:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc)")
    return found


def text_of(programs: Iterable[LoopProgram], wide: bool = False) -> str:
    """The programs, which have different names, as one text: that compiles faster."""
    formulas = Formulas()
    functions = [text for program in programs for text in module.functions_of(program, formulas)[0]]
    return module.text_of(functions, formulas, wide)


# -- accesses of global memory --------------------------------------------------------------------

_PTX_ACCESS = re.compile(r"^\s+(?:@\S+ )?(ld|st)\.\S*?global\S*?(?:\.v(\d))?\.[a-z](\d+)\s", re.M)
_SASS_ACCESS = re.compile(r"\b(LD|ST)G\.E((?:\.\w+)*)")


def accesses_in_ptx(ptx: str) -> dict[str, Accesses]:
    """Of each kernel, as the intermediate text has them."""
    _, *parts = re.split(r"\.visible \.entry (\w+)\(", ptx)
    return {
        name: _widest(
            (kind == "ld", int(count or 1) * int(bits) // 8)
            for kind, count, bits in _PTX_ACCESS.findall(text)
        )
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def accesses_in_sass(sass: str) -> dict[str, Accesses]:
    """Of each kernel, as the instructions of the device have them."""
    _, *parts = re.split(r"\n\s+\.section\s+\.text\.(\w+),", sass)
    return {
        name: _widest(
            (kind == "LD", _sass_bytes(modifiers)) for kind, modifiers in _SASS_ACCESS.findall(text)
        )
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def _sass_bytes(modifiers: str) -> int:
    """LDG.E.128.CONSTANT: 16; LDG.E.U8: 1; LDG.E: 4."""
    bits = re.search(r"\.[US]?(8|16|64|128)\b", modifiers)
    return int(bits[1]) // 8 if bits else 4


def _widest(accesses: Iterable[tuple[bool, int]]) -> Accesses:
    found = list(accesses)
    loads, stores = ([n for load, n in found if load == wanted] for wanted in (True, False))
    return max(loads, default=0), max(stores, default=0)


def disassembler() -> str | None:
    """nvdisasm: of its wheel, or on the PATH."""
    folders = [str(Path(path, "nvidia", "cu13", "bin")) for path in sys.path]
    return shutil.which("nvdisasm", path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))


def sass_of(image: Image, folder: Path) -> str:
    """The instructions of an image; skips where there is no disassembler."""
    tool = disassembler()
    if tool is None:
        pytest.skip("nvdisasm is not installed (pip install nvidia-cuda-nvdisasm)")
    file = folder / "image.cubin"
    file.write_bytes(image.cubin)
    done = subprocess.run([tool, "-c", str(file)], capture_output=True, text=True, check=True)
    return done.stdout
