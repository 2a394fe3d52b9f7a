"""Object code put into memory without LLVM, which takes a tenth of a second to load.

This linker knows what our code generator writes for Linux on x86-64: sections of code, constants
and zeroed data, and 64-bit addresses.  What it does not know is `Unfit`, and for LLVM to link.

Format: System V ABI, chapters 4 and 5, and its AMD64 supplement, section 4.4.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
import sys
from collections.abc import Iterable
from typing import Any

_HEADER = struct.Struct("<4s5B7xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")  # name type flags address offset size link info align entry
_SYMBOL = struct.Struct("<IBBHQQ")  # name info other section value size
_RELOCATION = struct.Struct("<QQq")  # offset, symbol and type, number to add
_LITTLE_64, _RELOCATABLE, _X86_64 = (2, 1), 1, 62
_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8
_WRITE, _ALLOC, _EXECUTE = 1, 2, 4
_ADDRESS = 1  # the one type of relocation: S + A in 64 bits
_UNDEFINED, _SPECIAL = 0, 0xFF00  # section numbers


class Unfit(ValueError):
    """Object code, or a system, that this linker does not know."""


class Image:
    """Linked code; its memory is freed with this object."""

    def __init__(self, block: mmap.mmap, addresses: dict[str, int]) -> None:
        self._block, self.addresses = block, addresses


def link(code: bytes, symbols: Iterable[str]) -> Image:
    """The code in memory, with the addresses of these symbols.

    Undefined symbols are looked up in the process.  Raises Unfit.
    """
    try:
        return _linked(code, tuple(symbols))
    except (struct.error, OSError, ValueError, LookupError, AttributeError) as error:
        raise Unfit(str(error)) from error


@functools.cache
def _process() -> Any:
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        raise Unfit(sys.platform)
    process = ctypes.CDLL(None, use_errno=True)
    process.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return process


def _linked(code: bytes, wanted: tuple[str, ...]) -> Image:
    process = _process()
    sections = _sections(code)
    places, frozen, total = _layout(sections)
    block = mmap.mmap(-1, total, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for k, place in places.items():
        kind, offset, size = sections[k][1], sections[k][4], sections[k][5]
        if kind == _PROGBITS:
            block[place : place + size] = code[offset : offset + size]
    addresses, names = _symbols(code, sections, places, base, process)
    for section in sections:
        if section[1] == _RELA and section[7] in places:
            _relocate(code, section, block, places[section[7]], addresses)
    if frozen and process.mprotect(base, frozen, mmap.PROT_READ | mmap.PROT_EXEC):
        raise Unfit("memory cannot be made executable")
    return Image(block, {name: addresses[names[name]] for name in wanted})


def _sections(code: bytes) -> list[tuple[int, ...]]:
    magic, size, order, *_ = _HEADER.unpack_from(code)
    _, _, _, _, _, _, kind, machine, _, _, _, table, _, _, _, _, entry, count, _ = (
        _HEADER.unpack_from(code)
    )
    if magic != b"\x7fELF" or (size, order) != _LITTLE_64:
        raise Unfit("no ELF file of 64-bit words, lowest byte first")
    if (kind, machine, entry) != (_RELOCATABLE, _X86_64, _SECTION.size):
        raise Unfit("no object code for x86-64")
    return [_SECTION.unpack_from(code, table + k * entry) for k in range(count)]


def _layout(sections: list[tuple[int, ...]]) -> tuple[dict[int, int], int, int]:
    """Where sections go; how many bytes are not written to; how many there are."""
    places: dict[int, int] = {}
    top = 0
    frozen = 0
    for writable in (False, True):
        for k, (_, kind, flags, _, _, size, _, _, align, _) in enumerate(sections):
            if not flags & _ALLOC or kind not in (_PROGBITS, _NOBITS):
                continue  # what is for debuggers and for unwinding
            if bool(flags & _WRITE) == writable:
                places[k] = top = -(-top // max(align, 1)) * max(align, 1)
                top += size
        top = -(-top // mmap.PAGESIZE) * mmap.PAGESIZE
        frozen = frozen if writable else top
    return places, frozen, max(top, mmap.PAGESIZE)


def _symbols(
    code: bytes, sections: list[tuple[int, ...]], places: dict[int, int], base: int, process: Any
) -> tuple[list[int], dict[str, int]]:
    """The address of each symbol (0 for those of sections that are not loaded), and the numbers
    of those that have names."""
    table = next(s for s in sections if s[1] == _SYMTAB)
    texts = sections[table[6]][4]
    addresses, names = [], {}
    for k in range(table[5] // _SYMBOL.size):
        name, _, _, section, value, _ = _SYMBOL.unpack_from(code, table[4] + k * _SYMBOL.size)
        text = code[texts + name : code.index(b"\0", texts + name)].decode()
        if section >= _SPECIAL:
            addresses.append(0)
        elif section != _UNDEFINED:
            addresses.append(base + places[section] + value if section in places else 0)
            names[text] = k
        else:
            found = ctypes.cast(getattr(process, text), ctypes.c_void_p).value if text else 0
            addresses.append(found or 0)
    return addresses, names


def _relocate(
    code: bytes, section: tuple[int, ...], block: mmap.mmap, place: int, addresses: list[int]
) -> None:
    for at in range(section[4], section[4] + section[5], _RELOCATION.size):
        offset, info, addend = _RELOCATION.unpack_from(code, at)
        address = addresses[info >> 32]
        if info & 0xFFFFFFFF != _ADDRESS or not address:
            raise Unfit(f"relocation {info & 0xFFFFFFFF}")
        struct.pack_into("<Q", block, place + offset, address + addend)
