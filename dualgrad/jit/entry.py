"""The paths of a function for one structure of arguments and state."""

from __future__ import annotations

from typing import Any

from dualgrad.jit.alias import memory_of
from dualgrad.jit.path import Path
from dualgrad.jit.survey import Survey
from dualgrad.runtime.records import dataclass, field

MAX_PATHS = 16  # per entry; what needs more runs eagerly


@dataclass
class Entry:
    """What is known about calls of one structure, whatever their numbers and sizes.

    Facts are compared by their keys (`Survey.fact_keys`).
    """

    paths: list[Path] = field(default_factory=list)
    lifted: set[int] = field(default_factory=set)  # facts that are to be inputs
    refused: set[int] = field(default_factory=set)  # facts with which that failed
    doubtful: set[int] = field(default_factory=set)  # facts whose values code has asked for
    unfit: set[tuple[Any, ...]] = field(default_factory=set)  # of calls that cannot be traced
    unfit_memory: set[tuple[Any, ...]] = field(default_factory=set)  # where tensors lay in others

    def find(self, found: Survey, facts: list[Any]) -> Path | None:
        """The path that serves this call."""
        for path in self.paths:
            if path.serves(found, facts):
                return path
        return None

    @property
    def is_full(self) -> bool:
        """Whether no more programs are made for calls of this structure."""
        return len(self.unfit) + len(self.unfit_memory) + len(self.paths) >= MAX_PATHS

    def is_eager(self, found: Survey, facts: list[Any]) -> bool:
        """Whether a call that no path serves runs eagerly, without another trace."""
        if self.is_full or tuple(facts) in self.unfit:
            return True
        memory = self.unfit_memory
        return bool(memory) and (*facts, memory_of(found.tensors)) in memory

    def note_unfit(self, found: Survey, for_memory: bool) -> None:
        """A call could not be traced; `for_memory`: because of where its tensors lie."""
        facts = found.fact_keys()
        if for_memory:
            self.unfit_memory.add((*facts, memory_of(found.tensors)))
        else:
            self.unfit.add(tuple(facts))

    def refuse(self, facts: set[int], certain: bool) -> None:
        """Facts did not do as inputs; unless that is certain they get another chance."""
        self.refused |= {k for k in facts if certain or k in self.doubtful}
        self.doubtful |= facts

    def note_change(self, facts: list[Any]) -> None:
        """A call has come that no path serves: what differs from the last is to be an input."""
        if self.paths:
            old = self.paths[-1].facts
            changed = {k for k, (a, b) in enumerate(zip(old, facts, strict=True)) if a != b}
            self.lifted |= changed - self.refused
