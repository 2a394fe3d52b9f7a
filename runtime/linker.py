"""LLVM for the host: its target, and object code made callable.

llvmlite takes a tenth of a second to load, so it is imported by the first call that needs it.
A process that finds all its code on disk needs none where `elf` can link: what LLVM says of
the processor stands in the disk cache too.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dualgrad.runtime import elf
from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.emission import emitted
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.program import Target

# (a feature that tells the instruction set, vector bits, vector registers); the first match holds
_VECTOR_UNITS = (
    ("+avx512vl", 512, 32),
    ("+avx2", 256, 16),
    ("+neon", 128, 32),
)
_OTHER_UNIT = (128, 16)

_VERSION = re.compile(r"version_version\s*=\s*['\"]([^'\"]+)")
_serial = itertools.count()
_lock = threading.Lock()
_permanent: list[Any] = []


@functools.cache
def _llvm() -> Any:
    binding: Any = importlib.import_module("llvmlite.binding")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    _fork_between_calls(getattr(binding.ffi.lib, "_lock", None))
    return binding


def _fork_between_calls(lock: Any) -> None:
    """A fork waits until no thread is inside of LLVM, so that the child finds LLVM whole, and its
    lock free."""

    def leave() -> None:
        lock.__exit__(None, None, None)

    if lock is not None and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.__enter__, after_in_parent=leave, after_in_child=leave)


@functools.cache
def llvm_version() -> str:
    """What generates machine code here: the version of llvmlite, and of its LLVM the size of the
    library, both found without loading them."""
    found = importlib.util.find_spec("llvmlite")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    try:
        version = _VERSION.search((folder / "_version.py").read_text())
        library = next((folder / "binding").glob("*llvmlite*"))
        return f"llvmlite {version[1] if version else '?'}, {library.stat().st_size} bytes"
    except (OSError, StopIteration):
        llvmlite: Any = importlib.import_module("llvmlite")
        llvm = ".".join(map(str, _llvm().llvm_version_info))
        return f"llvmlite {llvmlite.__version__}, llvm {llvm}"


def target_of(triple: str, cpu: str, features: str) -> Target:
    """The Target of a CPU, given as LLVM writes it; vector sizes follow from its features."""
    present = set(features.split(","))
    bits, registers = _OTHER_UNIT
    for feature, unit_bits, unit_registers in _VECTOR_UNITS:
        if feature in present:
            bits, registers = unit_bits, unit_registers
            break
    return Target(triple, cpu, features, bits, registers)


@functools.cache
def host_target() -> Target:
    """The CPU this process runs on."""
    known = _known_target()
    if known is not None:
        return known
    llvm = _llvm()
    features = llvm.get_host_cpu_features().flatten()
    named = (llvm.get_process_triple(), llvm.get_host_cpu_name(), features)
    if _processor():
        default_cache().put(_target_key(), json.dumps(named).encode())
    return target_of(*named)


def _target_key() -> str:
    return f"target of {_processor()}, {llvm_version()}"


def _known_target() -> Target | None:
    """The CPU this process runs on, if the disk cache has it."""
    if not _processor():
        return None
    try:
        return target_of(*json.loads(default_cache().get(_target_key()) or "[]"))
    except (ValueError, TypeError, AttributeError):  # not there, or not what `host_target` writes
        return None


@functools.cache
def _processor() -> str:
    """All that Linux says of the first processor and that does not change; "" where unknown."""
    lines = []
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as text:
            for line in text:
                if not line.strip():
                    break
                if not line.startswith(("cpu MHz", "bogomips", "processor", "core", "apicid")):
                    lines.append(line)
    except OSError:
        return ""
    described = f"{platform.machine()} {sys.maxsize} {''.join(lines)}"
    return hashlib.sha256(described.encode()).hexdigest() if "flags" in described else ""


def _machine(opt: int) -> Any:
    host, llvm = host_target(), _llvm()
    target = llvm.Target.from_triple(host.triple)
    return target.create_target_machine(cpu=host.cpu, features=host.features, opt=opt)


def host_object(name: str, text: str) -> bytes:
    """Object code of LLVM IR text that belongs to the runtime itself, from the disk cache if it
    is there.  The text is final: no pass pipeline runs."""
    found = kept_object(name, text)
    if found is None:
        llvm = _llvm()
        module = llvm.parse_assembly(text)
        module.verify()
        found = bytes(_machine(opt=2).emit_object(module))
        default_cache().put(_object_key(name, text, host_target()), found)
    return found


def kept_object(name: str, stamp: str) -> bytes | None:
    """Object code that the disk cache has under this stamp."""
    return default_cache().get(_object_key(name, stamp, host_target()))


def made_object(name: str, stamp: str, make: Callable[[], str]) -> bytes:
    """Object code, which goes into the disk cache, of a text of many small functions.

    Other threads can use LLVM meanwhile.
    """
    llvm = _llvm()
    module = llvm.parse_assembly(make(), llvm.create_context())
    module.verify()
    machine = _machine(opt=1)
    _optimize(module, machine)
    found = emitted(module, machine)
    default_cache().put(_object_key(name, stamp, host_target()), found)
    return found


def load_llvm() -> None:
    """Load llvmlite, if there is anything to compile: what it does before a fork is known then."""
    _llvm()


def _optimize(module: Any, machine: Any) -> None:
    """Functions marked so become parts of others, variables registers.

    Straight scalar code gains nothing from LLVM's whole pipeline, which takes five times as long.
    """
    llvm = _llvm()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    first = llvm.create_new_function_pass_manager()
    first.add_sroa_pass()
    first.add_simplify_cfg_pass()
    simplify = llvm.create_new_function_pass_manager()
    simplify.add_sroa_pass()
    simplify.add_instruction_combine_pass()
    simplify.add_simplify_cfg_pass()
    inline = llvm.create_new_module_pass_manager()
    inline.add_always_inliner_pass()
    defined = [f for f in module.functions if not f.is_declaration]
    for function in defined:
        first.run(function, builder)
    inline.run(module, builder)
    for function in defined:
        simplify.run(function, builder)


def has_host_object(name: str, text: str) -> bool:
    """Whether `host_object` finds the code in the disk cache: whether it needs no LLVM."""
    target = _known_target()
    return target is not None and default_cache().has(_object_key(name, text, target))


def _object_key(name: str, text: str, target: Target) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"runtime|{name}|{digest}|{llvm_version()}|{target.key}"


@functools.cache
def _jit() -> Any:
    return _llvm().create_lljit_compiler(_machine(opt=0))


def link(name: str, object_code: bytes, symbols: Iterable[str]) -> tuple[dict[str, int], Any]:
    """Addresses of `symbols` in `object_code`, and the object that keeps its memory.

    Undefined symbols are looked up in the process (libc, libm).
    Raises CompileError for object code that does not link.
    """
    wanted = tuple(symbols)
    with suppress(elf.Unfit):
        image = elf.link(object_code, wanted)
        return image.addresses, image
    with _lock:
        builder = _llvm().JITLibraryBuilder().add_object_img(object_code).add_current_process()
        for symbol in wanted:
            builder.export_symbol(symbol)
        try:
            # a library's name cannot be used again, even after the library is gone
            library = builder.link(_jit(), f"{name}.{next(_serial)}")
        except RuntimeError as error:
            raise CompileError(
                "object code does not link", op=name, actual=str(error).strip()
            ) from error
    return {symbol: library[symbol] for symbol in wanted}, library


def link_library(name: str, object_code: bytes, symbols: Iterable[str]) -> dict[str, int]:
    """Addresses of `symbols` in `object_code`, which stays loaded as long as the process: objects
    that outlive the interpreter may still call it."""
    addresses, library = link(name, object_code, symbols)
    _permanent.append(library)
    if hasattr(ctypes, "pythonapi"):  # the list goes with the interpreter
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
    return addresses


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # the old one may be held by a thread that does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
