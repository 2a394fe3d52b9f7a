"""The memory pool: `take` gives blocks of bytes, `give` takes them back.

Size classes go in steps of 64 bytes up to 1 KiB, then eight per doubling: at most 12.5 % is lost.
Small blocks are cut from slabs that stay with the process.  Blocks of 64 KiB and more are
mappings of their own; the free ones among them are kept up to a cap.

A block begins at a multiple of 64.  In the 64 bytes before it stand its class, its size, and the
next free block of the class.

Who calls holds the GIL: that is the lock of the pool, and why a forked child finds it whole.
"""

from __future__ import annotations

import mmap

from dualgrad.runtime.native.language import (
    Cell,
    Word,
    c,
    leading_zeros,
    native,
)

SMALL, LARGE, SLAB, HUGE = 1024, 64 << 10, 1 << 20, 2 << 20
MOST = 1 << 46  # bytes of the largest block
PAGE = mmap.PAGESIZE
_READ_WRITE = 3
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", 0)
_CLASS, _SIZE, _NEXT = -8, -7, -6  # words of the header, from the block
_HEADER = 64
_CLASSES = 320
_LARGE_CLASS = 16 + 6 * 8  # the class of LARGE; those above it hold mappings

free = Cell(_CLASSES)  # the first free block of each class
counts = Cell(4)
LIVE, PEAK, TAKEN, OWNED = range(4)  # bytes in use, most that were, blocks handed out, all bytes
cached = Cell()  # bytes of the free ones that are mappings
cap = Cell()  # most of these that are kept
limit = Cell()  # most bytes that may be in use; 0: as many as there are
_slab, _slab_end = Cell(), Cell()


@native
def take(nbytes: Word) -> Word:
    """The address of a block of at least so many bytes, or 0 where there is no memory."""
    if nbytes < 0:
        return 0
    kind = (nbytes + 63) >> 6 if nbytes else 1
    size = kind << 6
    if nbytes > SMALL:
        if nbytes > MOST:
            return 0
        bits = 64 - leading_zeros(nbytes - 1)
        step = 1 << (bits - 4)
        size = (nbytes + step - 1) & -step
        kind = (bits - 10) * 8 + (size >> (bits - 4))
    now = counts.at
    if limit.word and now[LIVE] + size > limit.word:
        return 0
    classes = free.at
    block = classes[kind]
    if block:
        classes[kind] = block[_NEXT]
        if size >= LARGE:
            cached.word -= size
    else:
        block = _made(size)
        if not block:
            return 0
        now[OWNED] += size
        block[_CLASS] = kind
        block[_SIZE] = size
    now[TAKEN] += 1
    now[LIVE] += size
    if now[LIVE] > now[PEAK]:
        now[PEAK] = now[LIVE]
    return block


@native
def give(block: Word) -> Word:
    """Take back a block; 0 is none."""
    if not block:
        return 0
    size = block[_SIZE]
    (counts.at)[LIVE] -= size
    if size >= LARGE:
        if size > cap.word:
            return _unmap(block, size)
        if cached.word + size > cap.word:
            release_down_to(cap.word - size)
        cached.word += size
    classes = free.at
    kind = block[_CLASS]
    block[_NEXT] = classes[kind]
    classes[kind] = block
    return 0


@native
def release_down_to(bytes_kept: Word) -> Word:
    """Give free mappings back to the system, the largest first, until no more are left than so."""
    classes = free.at
    kind = _CLASSES - 1
    while kind >= _LARGE_CLASS and cached.word > bytes_kept:
        block = classes[kind]
        if block:
            classes[kind] = block[_NEXT]
            cached.word -= block[_SIZE]
            _unmap(block, block[_SIZE])
        else:
            kind -= 1
    return 0


@native
def damaged() -> Word:
    """The address of a free block whose header somebody has overwritten, or 0."""
    classes = free.at
    for kind in range(_CLASSES):
        block = classes[kind]
        while block:
            if block & 63 or block[_CLASS] != kind:
                return block
            block = block[_NEXT]
    return 0


@native
def _made(size: Word) -> Word:
    """The address of a new block, behind room for its header, or 0."""
    if size < LARGE:
        if _slab.word + size + _HEADER > _slab_end.word:
            start = _mapped(SLAB)
            if not start:
                return 0
            _slab.word = start
            _slab_end.word = start + SLAB
        place = _slab.word
        _slab.word = place + size + _HEADER
        return place + _HEADER
    room = limit.word - (counts.at)[LIVE] - size
    if limit.word and cached.word > room:
        release_down_to(room)
    start = _mapped(size + PAGE)
    return start + _HEADER if start else 0


@native
def _mapped(size: Word) -> Word:
    """The address of fresh zero bytes at a page boundary, or 0."""
    start = _asked(size)
    if not start and cached.word:
        release_down_to(0)
        start = _asked(size)
    return start


@native
def _asked(size: Word) -> Word:
    """The same from the system; what is large begins where a huge page can."""
    if size < HUGE or not _HUGE_PAGES:
        start = c.mmap(0, size, _READ_WRITE, _PRIVATE, -1, 0)
        return 0 if start == -1 else start
    start = c.mmap(0, size + HUGE, _READ_WRITE, _PRIVATE, -1, 0)
    if start == -1:
        return 0
    place = (start + HUGE - 1) & -HUGE
    if place > start:
        c.munmap(start, place - start)
    if start + HUGE > place:
        c.munmap(place + size, start + HUGE - place)
    c.madvise(place, size, _HUGE_PAGES)  # kernels without them say no
    return place


@native
def _unmap(block: Word, size: Word) -> Word:
    (counts.at)[OWNED] -= size
    return c.munmap(block - _HEADER, size + PAGE)
