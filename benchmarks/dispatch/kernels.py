"""The time of a call's kernels alone: its programs run in a native loop, without Python.

    recorder = Recorder()          # before anything is compiled
    with recorder: call()
    nanoseconds = recorder.time(least)

The programs and their operands are noted where they are launched from Python, so native entries
must be off (DG_NATIVE=0).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from dualgrad.runtime import cpu
from dualgrad.runtime.linker import host_object, link_library

# A table has four words for each launch: the program's entry and its three arguments.
_LOOP = """
define i64 @run_launches(ptr %table, i64 %count, i64 %times) {
entry:
  br label %round
round:
  %t = phi i64 [ 0, %entry ], [ %t.next, %round.end ]
  br label %launch
launch:
  %k = phi i64 [ 0, %round ], [ %k.next, %launch ]
  %failed = phi i64 [ 0, %round ], [ %failed.next, %launch ]
  %at = getelementptr [4 x ptr], ptr %table, i64 %k
  %at.1 = getelementptr ptr, ptr %at, i64 1
  %at.2 = getelementptr ptr, ptr %at, i64 2
  %at.3 = getelementptr ptr, ptr %at, i64 3
  %program = load ptr, ptr %at
  %handles = load ptr, ptr %at.1
  %params = load ptr, ptr %at.2
  %context = load ptr, ptr %at.3
  %error = call i64 %program(ptr %handles, ptr %params, ptr %context)
  %failed.next = or i64 %failed, %error
  %k.next = add i64 %k, 1
  %more = icmp ult i64 %k.next, %count
  br i1 %more, label %launch, label %round.end
round.end:
  %t.next = add i64 %t, 1
  %again = icmp ult i64 %t.next, %times
  %sound = icmp eq i64 %failed.next, 0
  %on = and i1 %again, %sound
  br i1 %on, label %round, label %end
end:
  ret i64 %failed.next
}
"""


class Recorder:
    """Notes what is launched while it is entered, and keeps the operands alive."""

    def __init__(self) -> None:
        self._launches: list[tuple[Any, bytes, bytes]] = []
        self._arrays: list[Sequence[Any]] = []
        self._on = False
        code = host_object("run_launches", _LOOP)
        address = link_library("run_launches", code, ("run_launches",))["run_launches"]
        kinds = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self._run = ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(address)
        self._watch_packing()
        for name in ("__call__", "launch_held"):
            setattr(cpu.Loaded, name, self._watched(getattr(cpu.Loaded, name)))

    def __enter__(self) -> Self:
        self._launches.clear()
        self._arrays.clear()
        self._on = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._on = False

    def time(self, least: float) -> float:
        """Nanoseconds of all launches that were noted, by runs of `least` seconds in all."""
        if not self._launches:
            return 0.0
        words = (ctypes.c_void_p * (4 * len(self._launches)))()
        for k, (loaded, handles, params) in enumerate(self._launches):
            words[4 * k] = ctypes.cast(loaded._call, ctypes.c_void_p).value
            words[4 * k + 1] = ctypes.cast(ctypes.c_char_p(handles), ctypes.c_void_p).value
            words[4 * k + 2] = ctypes.cast(ctypes.c_char_p(params), ctypes.c_void_p).value
            words[4 * k + 3] = ctypes.addressof(loaded._context._obj)
        times = 1
        while True:
            started = time.perf_counter_ns()
            error = self._run(ctypes.addressof(words), len(self._launches), times)
            spent = time.perf_counter_ns() - started
            if error:
                raise RuntimeError(f"a program that ran before fails: error word {error}")
            if spent >= 1e9 * least:
                return spent / times
            times *= 2

    def _watched(self, launch: Callable[[Any, bytes, bytes], int]) -> Callable[..., int]:
        def noted(loaded: Any, handles: bytes, params: bytes) -> int:
            if self._on:
                self._launches.append((loaded, handles, params))
            return launch(loaded, handles, params)

        return noted

    def _watch_packing(self) -> None:
        """Keep the arrays whose addresses are packed into handles."""
        make = cpu.packer

        def packer(count: int) -> Callable[[Sequence[Any]], bytes]:
            pack = make(count)

            def noted(arrays: Sequence[Any]) -> bytes:
                if self._on:
                    self._arrays.append(arrays)
                return pack(arrays)

            return noted

        cpu.packer = packer  # type: ignore[assignment]
