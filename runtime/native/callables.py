"""Native functions as callables of Python.

They follow the convention METH_FASTCALL: `f(self, arguments, count)` gets the address of `count`
borrowed references and returns a new one, or 0 with an exception set.

A `Builtin` exists before there is native code for it: until then a callback runs its Python
function, so a module can offer it at import, when nothing has been compiled or loaded.  Who has
imported it calls native code as soon as that is there, since CPython looks the address up in the
method's definition at each call.

Source: "Implementing functions and methods" in Python's C API, PyMethodDef.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from dualgrad.runtime.config import config
from dualgrad.runtime.native import layout
from dualgrad.runtime.native.language import Native

_FAST_CALL, _KEYWORDS = 0x80, 0x02
_Python = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.POINTER(ctypes.py_object), ctypes.c_ssize_t
)


class _Definition(ctypes.Structure):
    """PyMethodDef"""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("code", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class Builtin:
    """A function of positional arguments, in Python (`slow`) and later in native code.

    call    what to call: a builtin function, or `slow` itself where there is no native code
    """

    def __init__(self, name: str, slow: Callable[..., Any]) -> None:
        self.slow, self.call = slow, slow
        if not (config.native and layout.is_known()):
            return

        def run(_: Any, arguments: Any, count: int) -> Any:
            return self.slow(*arguments[:count])

        self._code = _Python(run)
        address = ctypes.cast(self._code, ctypes.c_void_p).value
        self._definition = _Definition(name.encode(), address, _FAST_CALL, None)
        _lasting.append(self)  # CPython keeps the address of the definition
        make = ctypes.pythonapi.PyCFunction_NewEx
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p] * 3
        self.call = make(ctypes.byref(self._definition), None, None)

    def fill(self, function: Native) -> None:
        """Let native code run from now on."""
        if self.call is not self.slow:
            self._definition.code = function.address


_lasting: list[Any] = []


def method(owner: type, name: str, function: Native, keywords: bool = False) -> Any:
    """A method of a class: `function` gets the object as `self`, and with `keywords` a fourth
    word, the tuple of names or 0."""
    flags = _FAST_CALL | (_KEYWORDS if keywords else 0)
    definition = _Definition(name.encode(), function.address, flags, None)
    _lasting.append(definition)
    make = ctypes.pythonapi.PyDescr_NewMethod
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.py_object, ctypes.c_void_p]
    return make(owner, ctypes.byref(definition))
