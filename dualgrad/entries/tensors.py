"""Tensors as native code sees and makes them."""

from __future__ import annotations

from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native
from dualgrad.runtime.native.layout import LIST_ITEMS, slot
from dualgrad.tensor import Tensor

ARRAY, BASE, GRAD, GRAD_FN = (slot(Tensor, n) for n in ("array", "base", "_grad", "_grad_fn"))
LAYOUT, NODE, ORIGIN, OWNER = (slot(Tensor, n) for n in ("layout", "node", "origin", "owner"))
OUTPUT_NUMBER, REQUIRES = slot(Tensor, "output_number"), slot(Tensor, "requires_grad")
SIG, TENSOR_TYPE, VERSION = slot(Tensor, "sig"), slot(Tensor, "_type"), slot(Tensor, "_version")

NONE, TRUE, FALSE, ZERO, TENSOR = Cell(), Cell(), Cell(), Cell(), Cell()
_ZERO = 0


@native
def taken(x: Word) -> Word:
    """x with one reference more."""
    c.Py_IncRef(x)
    return x


@native
def new_tensor(array: Word, type: Word) -> Word:
    """A contiguous tensor over an array, whose reference it takes in any case; 0 with an exception
    set.  See `Tensor.of_array`."""
    version = c.PyList_New(3)
    if not version:
        c.Py_DecRef(array)
        return 0
    items = version[LIST_ITEMS]
    items[0] = taken(ZERO.word)
    items[1] = taken(NONE.word)
    items[2] = taken(NONE.word)
    x = c.PyType_GenericAlloc(TENSOR.word, 0)
    if not x:
        c.Py_DecRef(version)
        c.Py_DecRef(array)
        return 0
    x[ARRAY] = array
    x[VERSION] = version
    x[TENSOR_TYPE] = taken(type)
    x[SIG] = taken(type)
    x[LAYOUT] = taken(NONE.word)
    x[NODE] = taken(NONE.word)
    x[OWNER] = taken(NONE.word)
    x[BASE] = taken(NONE.word)
    x[ORIGIN] = taken(NONE.word)
    x[GRAD_FN] = taken(NONE.word)
    x[GRAD] = taken(NONE.word)
    x[REQUIRES] = taken(FALSE.word)
    return x


def ready() -> None:
    """Tell native code where things are; the library is loaded."""
    NONE.word, TRUE.word, FALSE.word, TENSOR.word = id(None), id(True), id(False), id(Tensor)
    ZERO.word = id(_ZERO)


library.when_loaded(ready)
