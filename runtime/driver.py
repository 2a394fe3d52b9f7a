"""What the back end for GPUs needs from a device: memory, copies, kernels, events, graphs.

`CupyDriver` (cupy_driver.py) is the real one; tests run on a stand-in that keeps the same
contract on the CPU, only more strictly.  A driver stands for one device.

Work is queued: `copy`, `fill`, `launch`, `record`, `replay` and the freeing of memory take effect
in the order of the calls, all after what was queued before.  Only `download`, `synchronize` and
`elapsed` wait.  A kernel that fails is reported by a later call, at the latest by `synchronize`,
as a DeviceError.

Addresses and sizes are in bytes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class DeviceInfo:
    """A device.

    name              as its maker calls it
    arch              "sm_90" for compute capability 9.0
    multiprocessors   number of units that run blocks of threads
    memory            bytes
    """

    name: str
    arch: str
    multiprocessors: int
    memory: int


class Problem(NamedTuple):
    """Why devices cannot be used: what is wrong, what was found, and what to do about it."""

    what: str
    actual: str
    hint: str


class Memory(Protocol):
    """Memory of a device; it is given back when the object dies, which may be before the work
    queued on it has run: what is queued later may then use it again, nothing else."""

    @property
    def address(self) -> int:
        """Address of the first byte on the device, a multiple of 512."""

    @property
    def nbytes(self) -> int:
        """Usable size, at least what was asked for."""


class Graph(Protocol):
    """Work that `Driver.capture` has recorded; it keeps the memory allocated meanwhile."""


class Driver(Protocol):
    """One device.  Methods may be called from any thread."""

    @property
    def name(self) -> str:
        """Of the library below and its version, for reports."""

    @property
    def target(self) -> str:
        """What images depend on besides their source: compiler, options, architecture."""

    def device_count(self) -> int:
        """Number of devices of this kind in the machine."""

    def info(self, device: int) -> DeviceInfo:
        """The device with this number, from 0 to `device_count()` - 1."""

    def compile(self, source: str) -> bytes:
        """The image of CUDA C++ text.  Raises CompileError."""

    def load(self, image: bytes) -> Any:
        """The module of an image; it lives at least as long as its functions."""

    def function(self, module: Any, name: str) -> Any:
        """A kernel of a module.  Raises DeviceError if it has none of this name."""

    def allocate(self, nbytes: int) -> Memory:
        """Uninitialised memory; 0 bytes are allowed.  Raises OutOfMemory."""

    def upload(self, address: int, data: memoryview) -> None:
        """Copy bytes of the host (C-contiguous) to the device; `data` may be changed on return."""

    def download(self, data: memoryview, address: int) -> None:
        """Fill `data` (C-contiguous, writable) from the device, after all queued work."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy from `source` to `target`, ranges that do not overlap."""

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Queue setting every byte of a range to `byte` (0 to 255)."""

    def launch(self, function: Any, blocks: int, threads: int, args: bytes) -> None:
        """Queue a kernel with a one-dimensional grid.

        args   the parameters one after another, 8 bytes each
        """

    def synchronize(self) -> None:
        """Wait until all queued work is done."""

    @property
    def stream(self) -> int:
        """CUDA's handle of the stream that work is queued on; 1 is the default stream."""

    def lead(self, stream: int) -> None:
        """Let what others queue on a stream from now on run after all that is queued here."""

    def follow(self, stream: int) -> None:
        """Let what is queued here from now on run after all that others queued on a stream."""

    def device_of(self, address: int) -> int:
        """The number of the device that has an address."""

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the device; what the driver keeps for reuse counts as free."""

    def allocated(self) -> int:
        """Bytes of the memory that is alive."""

    def trim(self) -> None:
        """Give memory that is kept for reuse back to the device."""

    def event(self) -> Any:
        """A new event, which `record` places between pieces of work."""

    def record(self, event: Any) -> None:
        """Queue the event: it happens when everything queued before is done."""

    def elapsed(self, start: Any, end: Any) -> float:
        """Milliseconds between two recorded events; waits for the second."""

    def capture(self) -> AbstractContextManager[Graph]:
        """Record what this thread queues inside of the `with` block instead of running it.

        Copies from and to the host and waiting raise DeviceError meanwhile.  The graph may be
        replayed after the block has ended; if it ended by an exception, nothing was recorded.
        """

    def replay(self, graph: Graph) -> None:
        """Queue the recorded work, with the arguments it was recorded with."""
