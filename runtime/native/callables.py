"""Native functions as callables of Python.

They follow the convention METH_FASTCALL | METH_KEYWORDS: `f(self, arguments, count, names)` gets
the address of `count` borrowed references, and of more by the tuple `names` (0: there are none).
It returns a new reference, or 0 with an exception set.

A `Builtin` exists before there is native code for it, so that a module can offer it at import,
when nothing has been compiled or loaded.  Its code is PyObject_Vectorcall until then, which has
the same parameters, and its `self` the Python function that this calls.  Who has imported it calls
native code as soon as that is there, since CPython looks the address up at each call.

Source: "Implementing functions and methods" in Python's C API, PyMethodDef.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from dualgrad.runtime.config import config
from dualgrad.runtime.native import layout
from dualgrad.runtime.native.language import Native

_FAST_CALL_WITH_KEYWORDS = 0x80 | 0x02


class _Definition(ctypes.Structure):
    """PyMethodDef"""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("code", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class Builtin:
    """A function, in Python (`slow`) and later in native code, whose `self` is `slow`.

    call    what to call: a builtin function, or `slow` itself where there is no native code
    """

    def __init__(self, name: str, slow: Callable[..., Any]) -> None:
        self.slow, self.call = slow, slow
        if not (config.native and layout.is_known()):
            return
        run = ctypes.cast(ctypes.pythonapi.PyObject_Vectorcall, ctypes.c_void_p).value
        self._definition = _Definition(name.encode(), run, _FAST_CALL_WITH_KEYWORDS, None)
        _lasting.append(self)  # CPython keeps the address of the definition
        make = ctypes.pythonapi.PyCFunction_NewEx
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
        self.call = make(ctypes.byref(self._definition), slow, None)

    def fill(self, function: Native) -> None:
        """Let native code run from now on."""
        assert function.count == 4, function.name
        if self.call is not self.slow:
            self._definition.code = function.address


_lasting: list[Any] = []


def method(owner: type, name: str, function: Native) -> Any:
    """A method of a class: `function` gets the object as `self`."""
    assert function.count == 4, function.name
    definition = _Definition(name.encode(), function.address, _FAST_CALL_WITH_KEYWORDS, None)
    _lasting.append(definition)
    make = ctypes.pythonapi.PyDescr_NewMethod
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.py_object, ctypes.c_void_p]
    return make(owner, ctypes.byref(definition))
