"""A device without a device: the contract of `Driver`, kept on the CPU and more strictly.

Kernels run on the shim. Memory is the host's, between canaries, filled with NaN when it is
allocated and used again as soon as it is freed. Work waits until somebody waits for it. What CUDA
would let pass and a program need not survive is a DeviceError:

- addresses that lie in no live memory, for example in the host's; numbers where a kernel takes a
  pointer, pointers where it takes a number; pointers that do not suit their elements;
- ranges that leave the memory they start in, copies that overlap;
- writes around an allocation (found by the next call that waits);
- replays of a graph after memory that it uses has been freed;
- whatever the shim refuses.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualgrad.runtime.driver import DeviceInfo, Graph, Memory
from dualgrad.runtime.errors import CompileError, DeviceError, OutOfMemory
from gpu import shim

ALIGNMENT = 512  # bytes, of every allocation
FRESH = 0xFF  # floats made of such bytes are NaN
CANARY = bytes.fromhex("feff") * 128  # floats of any size are NaN here, too
KEPT = 256 << 20  # bytes of freed memory that may wait for another use
WAITING = 1000  # pieces of work that may wait


# ---- memory --------------------------------------------------------------------------------------


class Block:
    """Host memory that serves one allocation after another, each of up to `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._bytes = np.empty(room + 2 * len(CANARY) + ALIGNMENT, np.uint8)
        start = int(self._bytes.ctypes.data) + len(CANARY)
        self.address = -(-start // ALIGNMENT) * ALIGNMENT
        self.nbytes = 0  # of the current allocation
        self.live = False
        self.owner: object = None  # of the graph that keeps the block
        self._guarded: int | None = None  # bytes between the canaries

    def prepare(self, nbytes: int) -> None:
        """Makes the memory that of a new allocation."""
        self.check()
        shim.guard(self.address - len(CANARY), self.room + 2 * len(CANARY), False)
        ctypes.memset(self.address, FRESH, nbytes)
        for place in (self.address - len(CANARY), self.address + nbytes):
            ctypes.memmove(place, CANARY, len(CANARY))
            shim.guard(place, len(CANARY), True)
        self._guarded = nbytes

    def check(self) -> None:
        """Looks whether something was written around the memory; sanitizers need not look."""
        if self._guarded is None or shim.SANITIZED:
            return
        for offset in (-len(CANARY), self._guarded):
            found = ctypes.string_at(self.address + offset, len(CANARY))
            if found != CANARY:
                pairs = enumerate(zip(found, CANARY, strict=True))
                at = offset + next(i for i, (byte, expected) in pairs if byte != expected)
                size, self._guarded = self._guarded, None  # said once
                raise DeviceError(
                    "something was written outside of an allocation",
                    actual=f"byte {at} of {size} bytes has changed",
                )


class HostMemory:
    """An allocation; its block may serve another one when the object dies."""

    def __init__(self, pool: Pool, block: Block, nbytes: int) -> None:
        self._pool, self._block = pool, block
        self.address, self.nbytes = block.address, nbytes

    def __del__(self) -> None:
        self._pool.release(self._block)


class Pool:
    """All blocks of a device, found by their addresses."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lock = threading.RLock()  # memory dies wherever Python finds it to be garbage
        self.live_bytes = self.peak_bytes = self.free_bytes = 0
        self._addresses: list[int] = []
        self._blocks: dict[int, Block] = {}
        self._free: dict[int, list[Block]] = {}

    def take(self, nbytes: int, owner: object = None) -> Block:
        """The block of this size that was freed last, or a new one. Raises OutOfMemory.

        Graphs get new ones: work that waits may still use those that were freed.
        """
        if self.live_bytes + nbytes > self.limit:
            raise OutOfMemory(
                f"cuda:0 has no memory for {nbytes} bytes",
                actual=f"{self.live_bytes} of {self.limit} bytes in use by arrays",
            )
        room = max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT
        free = None if owner else self._free.get(room)
        if free:
            block = free.pop()
            self.free_bytes -= room
        else:
            block = Block(room)
            self._blocks[block.address] = block
            insort(self._addresses, block.address)
        block.nbytes, block.live, block.owner = nbytes, True, owner
        self.live_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return block

    def release(self, block: Block) -> None:
        """The block's allocation is freed."""
        with self.lock:
            block.live = False
            self.live_bytes -= block.nbytes
            self._keep(block)

    def disown(self, blocks: list[Block]) -> None:
        """Their graph is no more."""
        with self.lock:
            for block in blocks:
                block.owner = None
                self._keep(block)

    def _keep(self, block: Block) -> None:
        if not block.live and block.owner is None:
            self._free.setdefault(block.room, []).append(block)
            self.free_bytes += block.room

    def trim(self) -> None:
        """Gives all free blocks back to the host; no work on them may be waiting."""
        for block in (block for blocks in self._free.values() for block in blocks):
            del self._blocks[block.address]
        self._addresses = sorted(self._blocks)
        self._free.clear()
        self.free_bytes = 0

    def find(self, address: int) -> Block | None:
        """The block that an address lies in, or right behind."""
        index = bisect_right(self._addresses, address) - 1
        block = self._blocks[self._addresses[index]] if index >= 0 else None
        return block if block and address - block.address <= block.nbytes else None


# ---- work ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """Memory that a piece of work uses; of 0 bytes where it is not known how much."""

    user: str
    address: int
    nbytes: int = 0


@dataclass(frozen=True)
class Work:
    """Something to do later, and the blocks whose surroundings are looked at after that."""

    run: Callable[[], object]
    blocks: tuple[Block, ...] = ()


@dataclass(eq=False)
class RecordedGraph:
    """Work with the addresses it was recorded with; it keeps only memory allocated meanwhile."""

    pool: Pool
    works: list[tuple[Callable[[], object], tuple[Range, ...]]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    owner: object = field(default_factory=object)
    complete: bool = False

    def run(self) -> None:
        for run, _ in self.works:
            run()

    def __del__(self) -> None:
        self.pool.disown(self.blocks)


@dataclass(frozen=True)
class Function:
    library: shim.Library
    kernel: shim.Kernel


@dataclass
class Event:
    time: float | None = None  # seconds


class _Thread(threading.local):
    graph: RecordedGraph | None = None  # that this thread records


def _host_address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


class Standin:
    """`Driver` for a device that is not there.

    memory           bytes that allocations may take together
    multiprocessors  few, so that grids stay small and their threads take several turns
    seed             of the orders in which blocks and threads run; every launch has another one

    `launches` and `uploads` count work that was queued, `compiled` the texts, `pool` the memory.
    """

    def __init__(self, memory: int = 1 << 30, multiprocessors: int = 2, seed: int = 0) -> None:
        self.pool = Pool(memory)
        self.launches = self.uploads = self.downloads = self.compiled = 0
        self._info = DeviceInfo("stand-in", "sm_90", multiprocessors, memory)
        self._lock = self.pool.lock
        self._seed = seed
        self._waiting: list[Work] = []
        self._thread = _Thread()

    @property
    def name(self) -> str:
        return "stand-in"

    @property
    def target(self) -> str:
        return shim.target()

    def device_count(self) -> int:
        return 1

    def info(self, device: int) -> DeviceInfo:
        return self._info

    # -- kernels

    def compile(self, source: str) -> bytes:
        self.compiled += 1
        try:
            return shim.build(source).image
        except shim.BuildError as error:
            raise CompileError("the C++ compiler refuses a text", actual=str(error)) from error

    def load(self, image: bytes) -> shim.Library:
        return shim.Library.from_image(image)

    def function(self, module: shim.Library, name: str) -> Function:
        kernel = module.kernels.get(name)
        if kernel is None:
            raise DeviceError(f"the module has no kernel {name!r}")
        return Function(module, kernel)

    def launch(self, function: Function, blocks: int, threads: int, args: bytes) -> None:
        name, library = function.kernel.name, function.library
        try:
            library.check(name, blocks, threads, len(args))
        except shim.LaunchError as error:
            raise DeviceError("a launch is refused", actual=str(error)) from error
        with self._lock:
            ranges = self._pointers(function.kernel, args)
            self.launches += 1
            self._queue(lambda: self._run(library, name, blocks, threads, args), ranges)

    def _pointers(self, kernel: shim.Kernel, args: bytes) -> tuple[Range, ...]:
        """The memory that a kernel gets. Pointers and numbers must not be taken for each other."""
        ranges = []
        for parameter, (word,) in zip(
            kernel.parameters, struct.iter_unpack("<Q", args), strict=True
        ):
            user = f"{kernel.name}, parameter {parameter.name}"
            if parameter.kind != "p":
                if word and self.pool.find(word) is not None:
                    raise DeviceError("a number is an address", op=user, actual=hex(word))
                continue
            if word % parameter.size:
                expect = f"a multiple of {parameter.size}"
                raise DeviceError("misaligned address", op=user, expect=expect, actual=hex(word))
            ranges.append(Range(user, word))
        return tuple(ranges)

    def _run(
        self, library: shim.Library, name: str, blocks: int, threads: int, args: bytes
    ) -> None:
        self._seed += 1
        try:
            library.launch(name, blocks, threads, args, seed=self._seed)
        except shim.ShimError as error:
            raise DeviceError("a kernel fails", actual=str(error)) from error

    # -- memory

    def allocate(self, nbytes: int) -> Memory:
        with self._lock:
            graph = self._thread.graph
            if self.pool.free_bytes > KEPT and graph is None:
                self._drain()
                self.pool.trim()
            block = self.pool.take(nbytes, graph and graph.owner)
            if graph is None:
                self._waiting.append(Work(lambda: block.prepare(nbytes)))
            else:
                graph.blocks.append(block)
                block.prepare(nbytes)
            return HostMemory(self.pool, block, nbytes)

    def memory_info(self) -> tuple[int, int]:
        return self.pool.limit - self.pool.live_bytes, self.pool.limit

    def allocated(self) -> int:
        return self.pool.live_bytes

    def trim(self) -> None:
        self.synchronize()
        self.pool.trim()

    def upload(self, address: int, data: memoryview) -> None:
        self._refuse_in_capture("a copy from the host")
        self.uploads += 1
        if data.nbytes:
            kept = data.tobytes()
            self._queue(
                lambda: ctypes.memmove(address, kept, len(kept)),
                (Range("upload", address, len(kept)),),
            )

    def download(self, data: memoryview, address: int) -> None:
        self._refuse_in_capture("a copy to the host")
        self.downloads += 1
        if data.nbytes:
            target, nbytes = _host_address(data), data.nbytes
            self._queue(
                lambda: ctypes.memmove(target, address, nbytes),
                (Range("download", address, nbytes),),
            )
        self._drain()

    def copy(self, target: int, source: int, nbytes: int) -> None:
        if abs(target - source) < nbytes:
            raise DeviceError(
                "a copy overlaps itself", actual=f"{nbytes} bytes by {target - source}"
            )
        if nbytes:
            self._queue(
                lambda: ctypes.memmove(target, source, nbytes),
                (Range("copy to", target, nbytes), Range("copy from", source, nbytes)),
            )

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        if nbytes:
            self._queue(
                lambda: ctypes.memset(address, byte, nbytes), (Range("fill", address, nbytes),)
            )

    # -- time

    def synchronize(self) -> None:
        self._refuse_in_capture("waiting")
        self._drain()

    @property
    def stream(self) -> int:
        return 1

    def lead(self, stream: int) -> None:
        self.synchronize()

    def follow(self, stream: int) -> None:
        pass

    def device_of(self, address: int) -> int:
        return 0

    def event(self) -> Event:
        return Event()

    def record(self, event: Event) -> None:
        self._queue(lambda: setattr(event, "time", time.perf_counter()))

    def elapsed(self, start: Event, end: Event) -> float:
        self._refuse_in_capture("waiting")
        self._drain()
        if start.time is None or end.time is None:
            raise DeviceError("an event was not recorded")
        return 1000 * (end.time - start.time)

    # -- graphs

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        self._refuse_in_capture("another capture")
        graph = self._thread.graph = RecordedGraph(self.pool)
        try:
            yield graph
            graph.complete = True
        finally:
            self._thread.graph = None

    def replay(self, graph: Any) -> None:
        self._refuse_in_capture("a replay")
        if not graph.complete:
            raise DeviceError("the capture of this graph was not completed")
        with self._lock:
            ranges = [needed for _, ranges in graph.works for needed in ranges]
            blocks = (self._block(needed, graph.owner) for needed in ranges)
            self._waiting.append(Work(graph.run, tuple(blocks)))

    # -- the queue

    def _refuse_in_capture(self, what: str) -> None:
        if self._thread.graph is not None:
            raise DeviceError(f"{what} is not possible while a graph is captured")

    def _block(self, needed: Range, owner: object = None) -> Block:
        """The block of a range, which must be live, or kept for the graph that uses it."""
        block = self.pool.find(needed.address)
        if block is None or not (block.live or (owner and block.owner is owner)):
            raise DeviceError(
                "an address lies in no live memory of the device",
                op=needed.user,
                actual=f"{needed.address:#x}" + ("" if block is None else ", which was freed"),
            )
        behind = needed.address + needed.nbytes - block.address - block.nbytes
        if behind > 0:
            raise DeviceError(
                "a range leaves its memory",
                op=needed.user,
                actual=f"{behind} bytes more than the {block.nbytes} of the allocation",
            )
        return block

    def _queue(self, run: Callable[[], object], ranges: tuple[Range, ...] = ()) -> None:
        graph = self._thread.graph
        with self._lock:
            blocks = tuple(self._block(needed) for needed in ranges)
            if graph is not None:
                graph.works.append((run, ranges))
                return
            self._waiting.append(Work(run, blocks))
            if len(self._waiting) > WAITING:
                self._drain()

    def _drain(self) -> None:
        """Does all work that waits, then looks at the canaries. After an error the rest is lost."""
        with self._lock:
            works, self._waiting = self._waiting, []
            for work in works:
                work.run()
            for block in {id(block): block for work in works for block in work.blocks}.values():
                block.check()
