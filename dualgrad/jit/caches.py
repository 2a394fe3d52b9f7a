"""Forgetting what was compiled in this process."""

from __future__ import annotations

from dualgrad import dispatch
from dualgrad.jit import forms
from dualgrad.jit.function import forget_all
from dualgrad.runtime import memory


def clear_caches() -> None:
    """Free all compiled programs of this process, of eager ops and of decorated functions, and
    give pooled memory back to the system.

    Later calls trace and compile again; programs in the disk cache stay.
    """
    forget_all()
    dispatch.forget()
    forms.forget()
    memory.release()
