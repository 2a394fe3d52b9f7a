"""Checks of paths, as a compiled function keeps them."""

from __future__ import annotations

from typing import Any

from dualgrad.jit.guards import Writer
from dualgrad.jit.path import Path
from dualgrad.jit.replay import plan_calls
from dualgrad.jit.survey import Survey
from dualgrad.runtime.native import library

MAX_SIGNATURES = 1000  # of a tensor whose sizes are symbols


class Checked:
    """The check of a path, and the sizes of tensors that it knows.

    count  how many positional arguments it is for
    made   how many checks of the path there have been
    words  the path for native code, if that serves it
    """

    __slots__ = ("_signatures", "check", "count", "made", "path", "words")

    def __init__(self, path: Path, found: Survey, args: tuple[Any, ...], made: int) -> None:
        library.begin()
        writer = Writer(found, args, path.needs(found))
        self.path, self.count, self.made = path, len(args), made
        self.check = writer.made()
        self.words = plan_calls(path, writer)
        self._signatures = writer.signatures

    def learn(self, found: Survey) -> None:
        """Know the sizes of a call that the path serves."""
        for number, (facts, known) in self._signatures.items():
            if len(known) >= MAX_SIGNATURES:
                known.clear()
            known[found.tensors[number].sig] = tuple([found.facts[k] for k in facts])
