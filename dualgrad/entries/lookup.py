"""Entries by their keys, in tables that native code looks at and Python fills.

An *entry* is a row of words, which begins with

    [0] the hash of its keys      [1] how many these are      [2] their address

A *table* is a row of places, a power of two of them, for addresses of entries: linear probing, at
most half full.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dualgrad.runtime.native.language import Word, native, shifted

HASH, COUNT, KEYS = range(3)
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # 2**64 / golden ratio: spreads the bits of addresses
_WORD = (1 << 64) - 1


@native
def mix(mixed: Word, key: Word) -> Word:
    """The hash of keys, from that of all before the last; it begins with 0."""
    mixed = (mixed ^ key) * _MIX
    return mixed ^ shifted(mixed, 32)


@native
def find_entry(table: Word, mask: Word, keys: Word, count: Word, mixed: Word) -> Word:
    """The entry of these keys, or 0; `mask`: how many places there are, less one."""
    k = mixed & mask
    while table[k]:
        entry = table[k]
        if entry[HASH] == mixed and entry[COUNT] == count:
            own = entry[KEYS]
            same = 0
            while same < count and own[same] == keys[same]:
                same += 1
            if same == count:
                return entry
        k = (k + 1) & mask
    return 0


def hash_of(keys: Iterable[int]) -> int:
    """What `mix` makes of keys."""
    mixed = 0
    for key in keys:
        mixed = (mixed ^ key) * _MIX & _WORD
        mixed ^= mixed >> 32
    return mixed - (mixed >> 63 << 64)


def put_entry(places: Any, first: int, mask: int, mixed: int, address: int) -> None:
    """Put an entry, which is not there, into the table that begins at `places[first]`."""
    k = mixed & mask
    while places[first + k]:
        k = (k + 1) & mask
    places[first + k] = address
