"""Native functions as callables of Python.

They follow the convention METH_FASTCALL | METH_KEYWORDS: `f(self, arguments, count, names)` gets
the address of `count` borrowed references, and of more by the tuple `names` (0: there are none).
It returns a new reference, or 0 with an exception set.

A `Builtin` exists before there is native code for it, so that a module can offer it at import,
when nothing has been compiled or loaded.  Its code is PyObject_Vectorcall until then, which has
the same parameters, and its `self` the Python function that this calls.  Who has imported it calls
native code as soon as that is there, since CPython looks the address up at each call.

Source: "Implementing functions and methods" in Python's C API, PyMethodDef.

What `stand_in` makes is called in place of a Python function, as a method too.  Its code follows
the convention of `vectorcallfunc`: `f(function, arguments, flags, names)`, where `flags` is `count`
and in its highest bit something that does not matter here.

Source: PEP 590; "Type Objects" in Python's C API; the first member of PyInstanceMethodObject.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from functools import cache
from types import FunctionType
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


FUNCTION, STATE = 2, 4  # words of a stand-in: what it stands for, and what its code needs
_CODE, _DICT, _SIZE = 3, 5, 6
_DEFAULT, _VECTOR_CALL, _METHOD_DESCRIPTOR = 1 << 18, 1 << 11, 1 << 17
_TP_CALL, _TP_DESCR_GET, _TP_MEMBERS = 50, 54, 72  # of typeslots.h
_READ_ONLY, _T_PYSSIZET = 1, 19


class _Member(ctypes.Structure):
    """PyMemberDef"""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("offset", ctypes.c_ssize_t),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Slot(ctypes.Structure):
    """PyType_Slot"""

    _fields_ = (("slot", ctypes.c_int), ("value", ctypes.c_void_p))


class _Spec(ctypes.Structure):
    """PyType_Spec"""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("size", ctypes.c_int),
        ("item_size", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.c_void_p),
    )


@cache
def _function_type() -> Any:
    """The class of stand-ins: bound to an object as functions of Python are, and called without
    tuple and dict."""
    api = ctypes.pythonapi
    get = api.PyType_GetSlot
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_int]
    as_method = ctypes.addressof(ctypes.c_char.in_dll(api, "PyInstanceMethod_Type"))
    as_method_type = ctypes.cast(as_method, ctypes.py_object).value
    offsets = ((b"__vectorcalloffset__", 8 * _CODE), (b"__dictoffset__", 8 * _DICT))
    members = (_Member * 3)(
        *(_Member(name, _T_PYSSIZET, at, _READ_ONLY, None) for name, at in offsets)
    )
    slots = (_Slot * 4)(
        _Slot(_TP_CALL, get(as_method_type, _TP_CALL)),
        _Slot(_TP_DESCR_GET, get(FunctionType, _TP_DESCR_GET)),
        _Slot(_TP_MEMBERS, ctypes.addressof(members)),
    )
    flags = _DEFAULT | _VECTOR_CALL | _METHOD_DESCRIPTOR
    spec = _Spec(b"dualgrad.function", 8 * _SIZE, 0, flags, ctypes.addressof(slots))
    _lasting.append((members, slots, spec))
    make = api.PyType_FromSpec
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p]
    return make(ctypes.addressof(spec))


def stand_in(function: Callable[..., Any], code: Native, state: Any) -> Callable[..., Any]:
    """What calls native code in place of a function of Python's, with its name and text.

    `state` is an array of ctypes; both live as long as the process.
    """
    assert code.count == 4, code.name
    made = _function_type()()
    words = (ctypes.c_void_p * _SIZE).from_address(id(made))
    words[FUNCTION], words[_CODE] = id(function), code.address
    words[STATE] = ctypes.addressof(state)
    _lasting.append((made, function, state))
    functools.update_wrapper(made, function, updated=())
    return made  # type: ignore[no-any-return]
