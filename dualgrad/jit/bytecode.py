"""Questions about compiled Python code at the place where a frame stands.

Only straight-line code is looked at, with the stack effects that Python itself states; whatever
is not plainly understood is answered with None, and the caller does without.
"""

from __future__ import annotations

import dis
import types
from functools import lru_cache


@lru_cache(maxsize=256)
def instructions(code: types.CodeType) -> tuple[tuple[dis.Instruction, ...], dict[int, int]]:
    """The instructions of a code object, and the position of each by its offset."""
    found = tuple(dis.get_instructions(code))
    return found, {i.offset: k for k, i in enumerate(found)}


def constant_argument(code: types.CodeType, offset: int, index: int) -> str | None:
    """The text that is argument `index` of the call at `offset`, if it is written there."""
    known, places = instructions(code)
    place = places.get(offset)
    if place is None or known[place].opname != "CALL":
        return None
    depth = (known[place].arg or 0) - index - 1  # arguments above the one that is asked for
    above, place = 0, place - 1
    while place > 0 and known[place].opname in ("PRECALL", "CACHE"):
        place -= 1
    while place > 0 and above < depth:
        step = known[place]
        if step.opname == "KW_NAMES" or is_jump(step):
            return None
        above += dis.stack_effect(step.opcode, step.arg, jump=False)
        place -= 1
    step = known[place]
    plain = above == depth and step.opname == "LOAD_CONST" and not step.is_jump_target
    return step.argval if plain and isinstance(step.argval, str) else None


def is_jump(step: dis.Instruction) -> bool:
    """Whether control may come from or go elsewhere at an instruction."""
    return (
        step.is_jump_target
        or step.opcode in dis.hasjrel
        or step.opcode in dis.hasjabs
        or step.opname.startswith(("RETURN", "RAISE", "RERAISE", "YIELD"))
    )
