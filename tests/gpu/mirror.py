"""Kernels on a real device with the memory of NumPy arrays, so that tests of the shim test it too.

Around every launch the arrays are copied to the device and back.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from dualgrad.runtime.driver import Driver, Memory

Array = np.ndarray[Any, Any]
_ALIGNMENT = 512  # bytes, of the device's memory


class Mirror:
    """The kernels of a text, as a driver runs them."""

    def __init__(self, driver: Driver, text: str) -> None:
        self.driver = driver
        self.module = driver.load(driver.compile(text))

    def launch(
        self, name: str, blocks: int, threads: int, args: bytes, arrays: Sequence[Array]
    ) -> None:
        """Run a kernel whose pointers are addresses in contiguous arrays; returns when it is done.

        On the device an array lies as it does here modulo 512 bytes.
        """
        function = self.driver.function(self.module, name)
        there = [self._sent(x) for x in arrays]
        words = struct.unpack(f"={len(args) // 8}Q", args)
        moved = [self._moved(word, arrays, there) for word in words]
        self.driver.launch(function, blocks, threads, struct.pack(f"={len(moved)}Q", *moved))
        for x, memory in zip(arrays, there, strict=True):
            self.driver.download(memoryview(x), _place(memory, x))

    def _sent(self, x: Array) -> Memory:
        memory = self.driver.allocate(x.nbytes + _ALIGNMENT)
        self.driver.upload(_place(memory, x), memoryview(x))
        return memory

    def _moved(self, word: int, arrays: Sequence[Array], there: Sequence[Memory]) -> int:
        """An address in one of the arrays as the device's; other words are numbers."""
        for x, memory in zip(arrays, there, strict=True):
            if 0 <= word - x.ctypes.data <= x.nbytes:
                return _place(memory, x) + word - x.ctypes.data
        return word


def _place(memory: Memory, x: Array) -> int:
    return memory.address + x.ctypes.data % _ALIGNMENT
