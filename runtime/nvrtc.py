"""CUDA C++ to machine code of a GPU, by NVIDIA's runtime compiler, without a GPU or its driver.

The library comes with the wheel nvidia-cuda-nvrtc, which CuPy's `[ctk]` extra brings, or with a
CUDA toolkit.  It is called by ctypes, with our own options, for two reasons: the numbers of
programs must not depend on how the compiler contracts or flushes (CuPy always adds `-ftz=true`),
and texts can be compiled and inspected on machines without a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dualgrad.runtime.errors import CompileError, DeviceError
from dualgrad.runtime.records import dataclass

OPTIONS = (
    "--std=c++17",
    # a * b + c is rounded twice unless the text says fma
    "--fmad=false",
    # IEEE: subnormal numbers are kept, division and square root are rounded correctly
    "--ftz=false",
    "--prec-div=true",
    "--prec-sqrt=true",
    # the log tells registers and spills
    "--ptxas-options=-v",
)
MAJORS = (13, 12)  # of CUDA, best first
_FILE = "dualgrad.cu"
_LOG_LINES = 12  # of a log that an error quotes


@dataclass(frozen=True)
class Usage:
    """What a kernel takes.

    registers      32-bit registers of a thread
    shared         bytes of shared memory of a block
    stack          bytes of local memory of a thread
    spill_stores   bytes of registers that a thread saves for want of registers,
    spill_loads    and reads back
    """

    registers: int = 0
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0


@dataclass(frozen=True)
class Image:
    """A compiled text: machine code, the intermediate text, the compiler's log."""

    cubin: bytes
    ptx: str
    log: str

    def usage(self) -> dict[str, Usage]:
        """What each kernel takes."""
        return usage_in(self.log)


# -- the log --------------------------------------------------------------------------------------

_ENTRY = re.compile(r"Compiling entry function '(\S+)'")
_FIGURES = {
    "registers": re.compile(r"Used (\d+) registers"),
    "shared": re.compile(r"(\d+) bytes smem"),
    "stack": re.compile(r"(\d+) bytes stack frame"),
    "spill_stores": re.compile(r"(\d+) bytes spill stores"),
    "spill_loads": re.compile(r"(\d+) bytes spill loads"),
}


def usage_in(log: str) -> dict[str, Usage]:
    """What each kernel takes, from a log of ptxas; functions called are counted in."""
    _, *parts = _ENTRY.split(log)  # name, what is said of it, name, ...
    return {
        name: Usage(**{k: sum(map(int, p.findall(text))) for k, p in _FIGURES.items()})
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def _refusal(log: str) -> CompileError:
    lines = [line for line in log.splitlines() if line.strip() and "ptxas info" not in line]
    first = next((k for k, line in enumerate(lines) if "error" in line), 0)
    quoted = "\n    ".join(lines[first : first + _LOG_LINES])
    what = "the CUDA compiler refuses a program"
    return CompileError(what, op="nvrtc", actual=quoted or "no reason is given")


# -- the library ----------------------------------------------------------------------------------


def _folders() -> Iterator[Path]:
    """Where the library may be: folders of wheels, then of toolkits."""
    for path in sys.path:
        for below in ("cu13/lib", "cu13/bin/x86_64", "cuda_nvrtc/lib", "cuda_nvrtc/bin"):
            yield Path(path, "nvidia", below).absolute()
    named = [Path(os.environ[v]) for v in ("CUDA_PATH", "CUDA_HOME") if os.environ.get(v)]
    for root in (*named, Path("/usr/local/cuda")):
        for below in ("lib64", "lib", "bin/x64", "bin"):
            yield root / below


def _pattern(major: int) -> str:
    return f"nvrtc64_{major}?_0.dll" if sys.platform == "win32" else f"libnvrtc.so.{major}*"


def candidates(majors: tuple[int, ...] = MAJORS) -> Iterator[str]:
    """Paths of the library, and names that the loader may know, best first."""
    folders = [folder for folder in _folders() if folder.is_dir()]
    for major in majors:
        for folder in folders:
            yield from (str(p) for p in sorted(folder.glob(_pattern(major))))
        yield f"nvrtc64_{major}0_0.dll" if sys.platform == "win32" else f"libnvrtc.so.{major}"


def _load(path: str) -> ctypes.CDLL:
    if os.path.isabs(path):
        if sys.platform == "win32":
            os.add_dll_directory(os.path.dirname(path))
        # NVRTC up to 13.0 looks for this one where the loader looks, not beside itself
        for builtins in Path(path).parent.glob("libnvrtc-builtins.so.*"):
            with suppress(OSError):
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(path)


class Compiler:
    """NVRTC at a path; it is loaded when it is first needed, which takes 0.1 to 1 second."""

    def __init__(self, path: str) -> None:
        self.path = path

    @functools.cached_property
    def library(self) -> ctypes.CDLL:
        """Raises DeviceError if it cannot be loaded."""
        try:
            library = _load(self.path)
        except OSError as error:
            raise DeviceError(
                "NVRTC cannot be loaded",
                actual=str(error),
                hint="install the CUDA compiler: pip install nvidia-cuda-nvrtc-cu12 (or -cu13)",
            ) from error
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library

    @functools.cached_property
    def version(self) -> tuple[int, int]:
        """Of CUDA."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        return major.value, minor.value

    @functools.cached_property
    def architectures(self) -> tuple[int, ...]:
        """What it compiles for: 90 stands for sm_90."""
        count = ctypes.c_int()
        self._check(self.library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        known = (ctypes.c_int * count.value)()
        self._check(self.library.nvrtcGetSupportedArchs(known))
        return tuple(known)

    def identity(self) -> str:
        """Text that differs between compilers and options, for cache keys; loads nothing."""
        if os.path.isabs(self.path):  # the size stands for the build number
            real = os.path.realpath(self.path)
            which = f"{os.path.basename(real)} of {os.path.getsize(real)} bytes"
        else:
            which = "nvrtc {}.{}".format(*self.version)
        return f"{which} {' '.join(OPTIONS)}"

    def nearest(self, arch: str) -> str:
        """The best architecture that this compiler knows among those whose code runs on `arch`.

        Code runs on later devices of the same major capability.  Raises DeviceError.
        """
        wanted = int(re.sub("[^0-9]", "", arch))
        fit = [n for n in self.architectures if n // 10 == wanted // 10 and n <= wanted]
        if not fit:
            raise DeviceError(
                f"NVRTC {self.version[0]}.{self.version[1]} cannot compile for this device",
                expect="one of " + ", ".join(f"sm_{n}" for n in self.architectures),
                actual=arch,
                hint="another version of nvidia-cuda-nvrtc may know it",
            )
        return arch if max(fit) == wanted else f"sm_{max(fit)}"

    def compile(self, source: str, arch: str) -> Image:
        """Compile for an architecture such as "sm_90".  Raises CompileError."""
        program = ctypes.c_void_p()
        self._check(
            self.library.nvrtcCreateProgram(
                ctypes.byref(program), source.encode(), _FILE.encode(), 0, None, None
            )
        )
        try:
            options = [o.encode() for o in (f"--gpu-architecture={arch}", *OPTIONS)]
            array = (ctypes.c_char_p * len(options))(*options)
            failed = self.library.nvrtcCompileProgram(program, len(options), array)
            log = self._result(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            if failed:
                raise _refusal(log)
            ptx = self._result(program, "PTX").rstrip(b"\0").decode()
            return Image(self._result(program, "CUBIN"), ptx, log)
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))

    def _result(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        data = ctypes.create_string_buffer(size.value)
        self._check(getattr(self.library, f"nvrtcGet{what}")(program, data))
        return data.raw

    def _check(self, status: int) -> None:
        if status:
            reason = self.library.nvrtcGetErrorString(status).decode()
            raise CompileError("the CUDA compiler failed", op="nvrtc", actual=reason)


@functools.cache
def find(majors: tuple[int, ...] = MAJORS) -> Compiler | None:
    """The compiler of the first of these versions of CUDA that is installed."""
    for path in candidates(majors):
        with suppress(OSError):
            if not os.path.isabs(path):
                ctypes.CDLL(path)  # only the loader knows whether there is one
            return Compiler(path)
    return None


def compiler(majors: tuple[int, ...] = MAJORS) -> Compiler:
    """As `find`.  Raises DeviceError if there is none."""
    found = find(majors)
    if found is None:
        versions = " or ".join(map(str, majors))
        wheels = " or ".join(
            "nvidia-cuda-nvrtc" if major >= 13 else f"nvidia-cuda-nvrtc-cu{major}"
            for major in majors
        )
        raise DeviceError(
            f"NVRTC, the compiler of CUDA {versions}, is not installed",
            hint=f"pip install {wheels}, or set CUDA_PATH to the folder of a CUDA toolkit",
        )
    return found
