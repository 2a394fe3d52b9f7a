"""The linker for our own object code: what it links runs, what it does not know it refuses."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
import weakref

import pytest

from dualgrad.compiler.lower.llvm.target import object_code
from dualgrad.runtime import elf
from dualgrad.runtime.linker import host_target, link

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="knows one system only"
)

CODE = """
@counter = internal global i64 0, align 64
@table = internal constant [3 x double] [double 1.5, double -2.0, double 4.25], align 8

declare i64 @labs(i64)

define i64 @next() {
  %old = load i64, ptr @counter
  %new = add i64 %old, 1
  store i64 %new, ptr @counter
  ret i64 %new
}

define double @entry_of(i64 %k) {
  %place = getelementptr double, ptr @table, i64 %k
  %x = load double, ptr %place
  %y = fmul double %x, 0x3FD0000000000000
  ret double %y
}

define i64 @distance(i64 %x) {
  %y = call i64 @labs(i64 %x)
  ret i64 %y
}
"""
NAMES = ("next", "entry_of", "distance")


@pytest.fixture(scope="module")
def code() -> bytes:
    return object_code(CODE, host_target())


def functions(addresses: dict[str, int]) -> tuple[object, ...]:
    step = ctypes.CFUNCTYPE(ctypes.c_int64)(addresses["next"])
    entry = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(addresses["entry_of"])
    distance = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(addresses["distance"])
    return step(), step(), [entry(k) for k in range(3)], distance(-7)


def test_linked_code_runs(code: bytes) -> None:
    image = elf.link(code, NAMES)
    assert functions(image.addresses) == (1, 2, [0.375, -0.5, 1.0625], 7)
    other = elf.link(code, NAMES)
    assert functions(other.addresses)[0] == 1  # data of its own


def test_llvm_links_the_same(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise elf.Unfit

    monkeypatch.setattr(elf, "link", refuse)
    addresses, library = link("other", code, NAMES)
    assert functions(addresses) == (1, 2, [0.375, -0.5, 1.0625], 7)
    del library


def test_code_cannot_be_written(code: bytes) -> None:
    image = elf.link(code, NAMES)
    address = image.addresses["next"]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        spans = [line.split()[:2] for line in maps]
    rights = next(
        r
        for span, r in spans
        for low, high in [span.split("-")]
        if int(low, 16) <= address < int(high, 16)
    )
    assert rights.startswith("r-x")


def test_memory_is_freed(code: bytes) -> None:
    image = elf.link(code, NAMES)
    block = weakref.ref(image._block)
    del image
    gc.collect()
    assert block() is None


@pytest.mark.parametrize("cut", [0, 3, 40, 64, 200, -100, -1])
def test_what_is_cut_short_is_refused(code: bytes, cut: int) -> None:
    with pytest.raises(elf.Unfit):
        elf.link(code[:cut], NAMES)


def test_what_is_not_known_is_refused(code: bytes) -> None:
    with pytest.raises(elf.Unfit):
        elf.link(code, ("nothing",))
    with pytest.raises(elf.Unfit):
        elf.link(code.replace(b"labs\0", b"lxbs\0"), NAMES)
    other = bytearray(code)
    other[18] = 183  # another machine
    with pytest.raises(elf.Unfit):
        elf.link(bytes(other), NAMES)
    with pytest.raises(elf.Unfit):
        elf.link(b"\0" * 4096, NAMES)
