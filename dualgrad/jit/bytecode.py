"""Questions about compiled Python code at the place where a frame stands.

Only straight-line code is looked at, with the stack effects that Python itself states; whatever
is not plainly understood is answered with None, and the caller does without.
"""

from __future__ import annotations

import dis
import types
from bisect import bisect_right
from functools import lru_cache


@lru_cache(maxsize=256)
def _read(code: types.CodeType) -> tuple[tuple[dis.Instruction, ...], list[int]]:
    """The instructions of a code object, and the offset of each."""
    found = tuple(dis.get_instructions(code))
    return found, [i.offset for i in found]


def _at(code: types.CodeType, offset: int) -> tuple[tuple[dis.Instruction, ...], int]:
    """The instructions, and the number of the one at `offset`.

    A frame that has called a Python function may stand in the cache behind the instruction.
    """
    known, offsets = _read(code)
    return known, max(bisect_right(offsets, offset) - 1, 0)


def standing(code: types.CodeType, offset: int) -> int:
    """The offset of the instruction that a frame at `offset` is busy with."""
    known, place = _at(code, offset)
    return known[place].offset


def constant_argument(code: types.CodeType, offset: int, index: int) -> str | None:
    """The text that is argument `index` of the call at `offset`, if it is written there."""
    known, place = _at(code, offset)
    if known[place].opname != "CALL":
        return None
    place = _start(known, place, (known[place].arg or 0) - index - 1)
    step = known[place - 1] if place else None
    if step is None or step.opname != "LOAD_CONST" or step.is_jump_target:
        return None
    return step.argval if isinstance(step.argval, str) else None


def _start(known: tuple[dis.Instruction, ...], place: int, values: int) -> int:
    """Where the code begins that puts the last so many values on the stack; 0 if unclear."""
    while place > 0 and known[place - 1].opname in _SILENT:
        place -= 1
    found = 0
    while found < values:
        place -= 1
        if place <= 0 or is_jump(known[place]) or known[place].opname == "KW_NAMES":
            return 0
        found += _effect(known[place])
    return place


def is_jump(step: dis.Instruction) -> bool:
    """Whether control may come from or go elsewhere at an instruction."""
    return (
        step.is_jump_target
        or step.opcode in dis.hasjrel
        or step.opcode in dis.hasjabs
        or step.opname.startswith(("RETURN", "RAISE", "RERAISE", "YIELD"))
    )


RETURNED = -1

# How many values of the stack an instruction takes; those that are not listed are not understood.
_TAKES: dict[str, int] = {
    "LOAD_CONST": 0, "LOAD_FAST": 0, "LOAD_FAST_CHECK": 0, "LOAD_FAST_LOAD_FAST": 0,
    "LOAD_FAST_BORROW": 0, "LOAD_FAST_BORROW_LOAD_FAST_BORROW": 0, "LOAD_SMALL_INT": 0,
    "LOAD_NAME": 0, "LOAD_GLOBAL": 0, "LOAD_DEREF": 0, "LOAD_CLASSDEREF": 0, "PUSH_NULL": 0,
    "KW_NAMES": 0, "LOAD_ATTR": 1, "LOAD_METHOD": 1,
    "UNARY_NEGATIVE": 1, "UNARY_NOT": 1, "UNARY_INVERT": 1, "BINARY_OP": 2, "BINARY_SUBSCR": 2,
    "COMPARE_OP": 2, "IS_OP": 2, "CONTAINS_OP": 2, "FORMAT_SIMPLE": 1, "FORMAT_WITH_SPEC": 2,
    "CONVERT_VALUE": 1,
}  # fmt: skip
_SILENT = ("PRECALL", "CACHE", "NOP", "EXTENDED_ARG")
_BUILDS = frozenset({"BUILD_STRING", "BUILD_TUPLE", "BUILD_LIST", "BUILD_SET"})
_ADD = 0  # the argument of BINARY_OP for +
_SPEC = 4  # flag of FORMAT_VALUE: a format specification lies on top


def destination(code: types.CodeType, offset: int, text: bool) -> int | None:
    """Offset of the call that takes what the instruction at `offset` makes.

    None unless that value goes nowhere else and arrives as it is, `text`s as parts of texts.
    A value that is no text may be formatted on its way, and is looked for no further then.
    RETURNED for a text that the function returns.
    """
    known, place = _at(code, offset)
    above = 0  # values on the stack above the one that is followed
    for step in known[place + 1 :]:
        name = step.opname
        if name == "RETURN_VALUE" and not step.is_jump_target and text and not above:
            return RETURNED
        if is_jump(step):
            return None
        if name in _SILENT:
            continue
        takes = _taken(step)
        if takes is None:
            return None
        if takes <= above:
            above += _effect(step)
            continue
        if name in ("CALL", "CALL_KW"):
            given = (step.arg or 0) + (name == "CALL_KW")
            return step.offset if above < given else None
        if not _keeps(step, above, text):
            return None
        if not text:
            return step.offset
        above = 0
    return None


def _taken(step: dis.Instruction) -> int | None:
    name, arg = step.opname, step.arg or 0
    if name == "CALL":
        return arg + 2
    if name == "CALL_KW":
        return arg + 3
    if name == "FORMAT_VALUE":
        return 2 if arg & _SPEC else 1
    if name in _BUILDS:
        return arg
    return _TAKES.get(name)


def _effect(step: dis.Instruction) -> int:
    """How many values an instruction leaves on the stack, less those it takes."""
    if step.opname in _SILENT:
        return 0
    if step.opname in ("CALL", "CALL_KW"):
        return -1 - (step.arg or 0) - (step.opname == "CALL_KW")
    arg = step.arg if step.opcode >= dis.HAVE_ARGUMENT else None
    return dis.stack_effect(step.opcode, arg, jump=False)


def _keeps(step: dis.Instruction, above: int, text: bool) -> bool:
    """Whether an instruction makes a text that has the followed value as a part."""
    name = step.opname
    if name == "FORMAT_WITH_SPEC" or (name == "FORMAT_VALUE" and (step.arg or 0) & _SPEC):
        return not text and above == 1
    if name in ("FORMAT_VALUE", "CONVERT_VALUE", "FORMAT_SIMPLE"):
        return above == 0 and (not text or step.arg in (None, 0, 1))
    if name == "BUILD_STRING":
        return text
    return text and name == "BINARY_OP" and step.arg == _ADD


def formats(code: types.CodeType, offset: int) -> bool:
    """Whether the instruction at `offset` is that of an f-string."""
    known, place = _at(code, offset)
    return known[place].opname.startswith(("FORMAT_", "CONVERT_"))


def formats_plainly(code: types.CodeType, offset: int) -> bool:
    """Whether the instruction at `offset` makes a text without padding or cutting it."""
    known, place = _at(code, offset)
    step = known[place]
    if step.opname == "FORMAT_VALUE":
        return not (step.arg or 0) & _SPEC
    return step.opname in ("FORMAT_SIMPLE", "CONVERT_VALUE")


def calls_name(code: types.CodeType, offset: int) -> str | None:
    """The global name that the call of one argument at `offset` calls, if it is one."""
    known, place = _at(code, offset)
    if known[place].opname != "CALL" or known[place].arg != 1:
        return None
    place = _start(known, place, 1) - 1
    if place > 0 and known[place].opname == "PUSH_NULL":
        place -= 1
    step = known[place]
    return step.argval if place >= 0 and step.opname in ("LOAD_GLOBAL", "LOAD_NAME") else None
