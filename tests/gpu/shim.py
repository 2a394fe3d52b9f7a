"""Runs CUDA C on the CPU: `build` compiles a text with g++ behind shim.h, `launch` runs a kernel.

The threads of a block are fibers; the seed decides their order and the blocks'. Every launch runs
to its end or raises a `ShimError` that names the kernel, the thread and the line of the text.
"""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = (
    *("-std=c++17", "-fPIC", "-w", "-pipe", "-U_FORTIFY_SOURCE"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing"),
    *("-fno-exceptions", "-fno-asynchronous-unwind-tables"),
)
# Whether this process was started with `sanitizers`, and checks every access to memory.
SANITIZED = bool(os.environ.get("DG_SHIM_SANITIZE"))
SANITIZERS = (
    *("-fsanitize=address,undefined", "-fsanitize-sections=dg_shared_*", "-g1"),
    *("-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"),
)
# Variables that a text forgets to set have a value that shows.
TEXT_FLAGS = (
    *("-DDG_SHIM", "-ftrivial-auto-var-init=pattern"),
    *(SANITIZERS if SANITIZED else ()),
)
RUNTIME_FLAGS = ("-O2", *(["-DDG_SANITIZE"] if SANITIZED else []))
MAX_THREADS = 1024  # of a block
MAX_SHARED = 48 * 1024  # bytes of a kernel's variables in shared memory
KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\(([^)]*)\)\s*)?void\s+'
    r"(?:__launch_bounds__\s*\(([^)]*)\)\s*)?(\w+)\s*\(([^)]*)\)"
)


class ShimError(RuntimeError):
    """A text that does not compile, or a launch that a GPU need not survive."""


class BuildError(ShimError):
    """The compiler refuses the text."""


class LaunchError(ShimError):
    """A launch beyond the limits of a device, or arguments that are not the kernel's."""


class DivergentBarrier(ShimError):
    """Threads of one block meet at different `__syncthreads`."""


class Deadlock(ShimError):
    """Threads wait for others that never come."""


class MaskError(ShimError):
    """A warp's call whose mask lacks the caller or differs between the lanes."""


class LaneError(ShimError):
    """A shuffle that reads a lane which does not take part."""


class MemoryFault(ShimError):
    """An access to an address that is nobody's."""


ERRORS = (DivergentBarrier, Deadlock, MaskError, LaneError, MemoryFault)  # by code - 1


@dataclass(frozen=True)
class Parameter:
    name: str
    kind: str  # "p" pointer, "i" signed or "u" unsigned integer, "d" floating point
    size: int  # bytes of what a pointer points to, else of the parameter


@dataclass(frozen=True)
class Kernel:
    name: str
    parameters: tuple[Parameter, ...]
    threads: int  # the most of a block
    shared: int  # bytes of its __shared__ variables


# ---- texts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A kernel in its text: from `extern` to behind the body's last brace."""

    name: str
    bound: str
    parameters: tuple[str, ...]
    begin: int
    end: int


def _closing(text: str, opening: int) -> int:
    """Behind the brace that closes the one at `opening`."""
    depth = 0
    for brace in re.finditer(r"[{}]", text[opening:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return opening + brace.end()
    return len(text)


def _kernels(text: str) -> list[_Place]:
    places = []
    for match in KERNEL.finditer(text):
        bound = (match[1] or match[2] or "0").split(",")[0]
        names = tuple(part.split()[-1].lstrip("*&") for part in match[4].split(",") if part.strip())
        end = _closing(text, text.index("{", match.end()))
        places.append(_Place(match[3], bound, names, match.start(), end))
    return places


def _owner(name: str, text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    return f'\n#undef DG_OWNER\n#define DG_OWNER "{name}"\n#line {line} "kernels.cu"\n'


def _section(name: str) -> str:
    symbols = (f"__start_dg_shared_{name}[]", f"__stop_dg_shared_{name}[]")
    kind = '__attribute__((weak, visibility("hidden")))'
    return "".join(f'extern "C" char {symbol} {kind};\n' for symbol in symbols)


def _entry(kernel: _Place) -> str:
    name = kernel.name
    signature = f"decltype(dg_signature(&{name}))"
    return (
        f'{{"{name}", [](const unsigned long long* slots) {{ dg_run(&{name}, slots); }}, '
        f'"{",".join(kernel.parameters)}", {signature}::parameters, {signature}::count, '
        f"{kernel.bound}, __start_dg_shared_{name}, __stop_dg_shared_{name}}},\n"
    )


def _unit(text: str) -> str:
    """The C++ source: the text with its lines kept, then the table of kernels."""
    kernels = _kernels(text)
    if not kernels:
        raise BuildError('the text has no extern "C" __global__ function')
    parts = [*map(_section, ["functions", *(k.name for k in kernels)])]
    parts.append("namespace {")
    at = 0
    for kernel in kernels:
        parts += [_owner("functions", text, at), text[at : kernel.begin]]
        parts += [_owner(kernel.name, text, kernel.begin), text[kernel.begin : kernel.end]]
        at = kernel.end
    parts += [_owner("functions", text, at), text[at:], "\n}\n"]
    parts += ["static const DgKernel dg_kernels[] = {\n", *map(_entry, kernels), "};\n"]
    parts.append(
        'extern "C" DgText* dg_open() {\n'
        f"dg_text.kernels = dg_kernels;\ndg_text.kernel_count = {len(kernels)};\n"
        "dg_text.shared_begin = __start_dg_shared_functions;\n"
        "dg_text.shared_end = __stop_dg_shared_functions;\nreturn &dg_text;\n}\n"
    )
    return "".join(parts)


# ---- the compiler -------------------------------------------------------------------------------


def compiler() -> str:
    return os.environ.get("CXX", "g++")


@functools.cache
def available() -> str | None:
    """Why texts cannot be run here, or None."""
    if sys.platform in ("win32", "cygwin", "darwin"):
        return f"the shim uses ELF, which {sys.platform!r} does not know"
    if shutil.which(compiler()) is None:
        return f"the C++ compiler {compiler()!r} is not installed"
    return None


@functools.cache
def _machine() -> tuple[str, tuple[str, ...]]:
    """The compiler's version and machine, and the flags for instructions of this machine."""
    command = [compiler(), "-dumpfullversion", "-dumpmachine"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # fmaf, floorf and conversions of 16-bit floats as instructions, with the functions' bits.
    native = ("-mfma", "-mf16c") if _has_fma() else ()
    return version, native


def target() -> str:
    """What a compiled text depends on besides itself."""
    files = b"".join((HERE / name).read_bytes() for name in ("shim.h", "shim.py"))
    return f"{_machine()} {hashlib.sha256(files).hexdigest()}"


def _has_fma() -> bool:
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return platform.machine() == "x86_64" and {"fma", "f16c"} <= set(words)


def cache_folder() -> Path:
    """Where compiled texts are kept: `DG_SHIM_CACHE`, or a temporary folder of the user."""
    default = Path(tempfile.gettempdir()) / f"dualgrad-shim-{os.getuid()}"
    folder = Path(os.environ.get("DG_SHIM_CACHE") or default)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ShimError(f"the cache folder {folder} belongs to another user")
    return folder


def _write(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, path)


def _options(flags: Sequence[str]) -> list[str]:
    return [*FLAGS, *_machine()[1], *flags]


def _path(source: bytes, options: Sequence[str], suffix: str) -> Path:
    """A file of the cache, named after what it is made of."""
    made_of = repr((_machine()[0], options)).encode() + (HERE / "shim.h").read_bytes() + source
    return cache_folder() / f"{hashlib.sha256(made_of).hexdigest()[:32]}{suffix}"


def _run_compiler(arguments: Sequence[str], path: Path, source: str = "") -> None:
    """Writes what the compiler makes, whole or not at all; "-" stands for the source."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        output = f"{folder}/output"
        command = [compiler(), "-o", output, *arguments]
        result = subprocess.run(command, input=source, capture_output=True, text=True)
        if result.returncode:
            raise BuildError(result.stderr)
        os.replace(output, path)


def _optimisation(text: str) -> str:
    """Most texts take longer to optimise than to run; not those whose threads work together."""
    return "-O1" if "__shared__" in text else "-O0"


@functools.cache
def _header(optimisation: str) -> Path:
    """A copy of shim.h with its precompiled form beside it, which saves a quarter of a build."""
    options = _options((optimisation, *TEXT_FLAGS))
    path = _path(b"", options, ".h")
    precompiled = path.with_name(path.name + ".gch")
    if not precompiled.exists():
        _write(path, (HERE / "shim.h").read_bytes())
        _run_compiler([*options, "-x", "c++-header", str(path)], precompiled)
    return path


def _compile(text: str) -> Path:
    """The shared object of a text, from the cache where it is there."""
    source, optimisation = _unit(text), _optimisation(text)
    options = _options((optimisation, *TEXT_FLAGS))
    path = _path(source.encode(), options, ".so")
    if not path.exists():
        include = ["-include", str(_header(optimisation))]
        # Of the libraries only -lgcc, which converts 16-bit floats: the others are there already.
        link = ["-shared", "-nostdlib", "-x", "c++", "-", "-lgcc"]
        _run_compiler([*options, *include, *link], path, source)
        with suppress(OSError):  # it is there already, or the file system has no links
            os.link(path, _image_path(path.read_bytes()))
    return path


def _image_path(image: bytes) -> Path:
    """The file of the cache for an image; one that was built here is there already."""
    return cache_folder() / f"{hashlib.sha256(image).hexdigest()[:32]}.image.so"


def sanitizers() -> dict[str, str] | None:
    """The environment of processes that check every access of a kernel; None if g++ cannot."""
    paths = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so"):
        command = [compiler(), f"-print-file-name={name}"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not os.path.isabs(found):
            return None
        paths.append(found)
    return {
        **os.environ,
        "LD_PRELOAD": ":".join(paths),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "DG_SHIM_SANITIZE": "1",
    }


# ---- running ------------------------------------------------------------------------------------


class _Parameter(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_char), ("size", ctypes.c_uint))


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("names", ctypes.c_char_p),
        ("parameters", ctypes.POINTER(_Parameter)),
        ("parameter_count", ctypes.c_uint),
        ("bound", ctypes.c_uint),
        ("shared_begin", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p),
    )


class _Text(ctypes.Structure):
    _fields_ = (
        ("indices", ctypes.c_uint * 4),
        ("calls", ctypes.c_void_p * 3),
        ("kernels", ctypes.POINTER(_Kernel)),
        ("kernel_count", ctypes.c_uint),
        ("shared_begin", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p),
    )


class _Failure(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_int),
        ("line", ctypes.c_int),
        ("thread", ctypes.c_uint),
        ("block", ctypes.c_uint),
        ("message", ctypes.c_char * 480),
    )


_RUNNING = threading.Lock()  # the runtime has one set of fibers


@functools.cache
def _runtime() -> ctypes.CDLL:
    source = (HERE / "shim_runtime.cpp").read_text()
    options = _options(RUNTIME_FLAGS)
    path = _path(source.encode(), options, ".so")
    if not path.exists():
        _run_compiler([*options, "-shared", f"-I{HERE}", "-x", "c++", "-"], path, source)
    library = ctypes.CDLL(str(path))
    library.dg_launch.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_char_p,
        ctypes.c_ulonglong,
        ctypes.POINTER(_Failure),
    )
    return library


class Library:
    """The kernels of one compiled text. `image` are the bytes of its shared object."""

    def __init__(self, path: Path) -> None:
        self._runtime = _runtime()
        self._path = path
        # The address sanitizer has red zones between the variables.
        self._shared_limit = MAX_SHARED * (8 if SANITIZED else 1)
        self._library = ctypes.CDLL(str(path))
        weakref.finalize(self, _ctypes.dlclose, self._library._handle)
        self._library.dg_open.restype = ctypes.POINTER(_Text)
        self._text = self._library.dg_open()
        text = self._text.contents
        entries = [text.kernels[i] for i in range(text.kernel_count)]
        self.kernels = {kernel.name: kernel for kernel in map(_kernel, entries)}
        self._index = {name: i for i, name in enumerate(self.kernels)}

    @classmethod
    def from_image(cls, image: bytes) -> Library:
        """The library of the bytes of a shared object, perhaps of another process."""
        path = _image_path(image)
        if not path.exists():
            _write(path, image)
        return cls(path)

    @functools.cached_property
    def image(self) -> bytes:
        return self._path.read_bytes()

    def check(self, name: str, blocks: int, threads: int, nbytes: int) -> None:
        """Raises LaunchError for a launch that a device would refuse."""
        kernel = self.kernels.get(name)
        if kernel is None:
            raise LaunchError(f"the text has no kernel {name!r}, only {', '.join(self.kernels)}")
        limits = (
            ("blocks", blocks, range(1, 2**31)),
            ("threads a block", threads, range(1, kernel.threads + 1)),
            ("bytes of __shared__ variables", kernel.shared, range(self._shared_limit + 1)),
            ("bytes of arguments", nbytes, [8 * len(kernel.parameters)]),
        )
        for what, given, allowed in limits:
            if given not in allowed:
                raise LaunchError(f"{name}: {given} {what}, not {allowed[0]} to {allowed[-1]}")

    def launch(self, name: str, blocks: int, threads: int, args: bytes, seed: int = 0) -> None:
        """Runs a kernel to its end; `args` has 8 bytes per parameter."""
        self.check(name, blocks, threads, len(args))
        failure = _Failure()
        with _RUNNING:
            code = self._runtime.dg_launch(
                self._text, self._index[name], blocks, threads, args, seed, ctypes.byref(failure)
            )
        if code:
            place = f", line {failure.line}" if failure.line else ""
            where = f"{name}{place}, block {failure.block}, thread {failure.thread}"
            raise ERRORS[code - 1](f"{where}: {failure.message.decode()}")


def _kernel(entry: _Kernel) -> Kernel:
    names = entry.names.decode().split(",") if entry.names else []
    parameters = [entry.parameters[i] for i in range(entry.parameter_count)]
    return Kernel(
        entry.name.decode(),
        tuple(
            Parameter(name, p.kind.decode(), p.size)
            for name, p in zip(names, parameters, strict=True)
        ),
        entry.bound or MAX_THREADS,
        (entry.shared_end or 0) - (entry.shared_begin or 0),
    )


def build(text: str) -> Library:
    """Compiles a text of CUDA C; cached by its hash."""
    return Library(_compile(text))


def guard(address: int, nbytes: int, on: bool) -> None:
    """Declares memory around an allocation out of bounds, or ends that.

    Has an effect in sanitized processes alone.
    """
    if SANITIZED:
        _runtime().dg_guard(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), ctypes.c_bool(on))
