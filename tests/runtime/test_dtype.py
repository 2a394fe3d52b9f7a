"""Element types and promotion, against NumPy where the array API standard agrees with it."""

import copy
import itertools
import pickle

import numpy as np
import pytest

from dualgrad.runtime import dtype as dt
from dualgrad.runtime.dtype import ALL, NATIVE, as_dtype, promote, promote_scalar
from dualgrad.runtime.errors import ArgumentError, DTypeError

PAIRS = list(itertools.product(NATIVE, NATIVE))


def silent_in_standard(a, b):
    """Integer with float: NumPy widens the float, dualgrad keeps it."""
    return (a.is_int and b.is_float) or (a.is_float and b.is_int)


def without_common(a, b):
    unsigned = dt.uint64 in (a, b)
    signed = "i" in (a.kind, b.kind)
    return unsigned and signed


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_promotion_agrees_with_numpy(a, b):
    if without_common(a, b):
        with pytest.raises(DTypeError, match="no dtype holds"):
            promote(a, b)
    elif silent_in_standard(a, b):
        assert promote(a, b) is (a if a.is_float else b)
    else:
        assert promote(a, b).numpy == np.result_type(a.numpy, b.numpy)


@pytest.mark.parametrize(
    ("a", "b", "c"), [(dt.int8, dt.uint8, dt.int32), (dt.bool_, dt.uint16, dt.float32)]
)
def test_promotion_is_associative(a, b, c):
    assert promote(promote(a, b), c) is promote(a, promote(b, c))


@pytest.mark.parametrize("t", ALL, ids=str)
def test_bfloat16_promotes_as_float16_does(t):
    assert promote(t, dt.bfloat16) is promote(dt.bfloat16, t)
    if t is dt.bfloat16:
        assert promote(t, t) is t
    elif t is dt.float16:
        assert promote(t, dt.bfloat16) is dt.float32
    else:
        wide = t in (dt.float32, dt.float64)
        assert promote(t, dt.bfloat16) is (t if wide else dt.bfloat16)


def test_low_floats():
    assert [t for t in ALL if t.is_low] == [dt.float16, dt.bfloat16]
    assert {t.compute for t in ALL if t.is_low} == {dt.float32}
    assert all(t.compute is t for t in ALL if not t.is_low)
    assert dt.bfloat16.numpy == np.uint16
    assert as_dtype("bfloat16") is dt.bfloat16
    assert as_dtype(np.uint16) is dt.uint16
    assert promote_scalar(dt.bfloat16, "f") is dt.bfloat16
    assert promote_scalar(dt.float16, "i") is dt.float16


def test_bool_gives_way_to_everything():
    assert [promote(dt.bool_, t) for t in ALL] == list(ALL)


def test_mixed_signs_known_answers():
    assert promote(dt.uint8, dt.int8) is dt.int16
    assert promote(dt.uint8, dt.int16) is dt.int16
    assert promote(dt.uint16, dt.int16) is dt.int32
    assert promote(dt.int64, dt.uint32) is dt.int64
    assert promote(dt.uint32, dt.int32) is dt.int64


def test_scalars_are_weak():
    for t in ALL:
        assert promote_scalar(t, "b") is t
    assert promote_scalar(dt.uint8, "i") is dt.uint8
    assert promote_scalar(dt.float32, "i") is dt.float32
    assert promote_scalar(dt.float32, "f") is dt.float32
    assert promote_scalar(dt.float64, "f") is dt.float64
    assert promote_scalar(dt.bool_, "i") is dt.int64
    assert promote_scalar(dt.bool_, "f") is dt.float32
    assert promote_scalar(dt.int64, "f") is dt.float32
    assert promote_scalar(dt.uint64, "f") is dt.float32


def test_unknown_scalar_kind_is_refused():
    with pytest.raises(ArgumentError, match="unknown kind"):
        promote_scalar(dt.int8, "c")


@pytest.mark.parametrize("t", NATIVE, ids=str)
def test_facts_agree_with_numpy(t):
    assert t.numpy == np.dtype(t.name)
    assert t.itemsize == t.numpy.itemsize
    assert t.bits == 8 * t.itemsize
    assert t.kind == t.numpy.kind
    assert t.is_float == np.issubdtype(t.numpy, np.floating)
    assert t.is_int == np.issubdtype(t.numpy, np.integer)
    assert t.is_signed == np.issubdtype(t.numpy, np.signedinteger) or t.is_float
    assert repr(t) == f"dualgrad.{t.name}"


def test_short_names():
    shorts = "b1 i8 i16 i32 i64 u8 u16 u32 u64 f16 f32 f64 bf16"
    assert [t.short for t in ALL] == shorts.split()


@pytest.mark.parametrize("t", ALL, ids=str)
def test_there_is_one_object_per_type(t):
    for other in (
        as_dtype(t),
        as_dtype(t.name),
        as_dtype(t.numpy) if t in NATIVE else t,
        as_dtype(t.numpy.type) if t in NATIVE else t,
        pickle.loads(pickle.dumps(t)),
        copy.copy(t),
        copy.deepcopy({"t": [t]})["t"][0],
    ):
        assert other is t
    assert len({t, *ALL}) == len(ALL)


def test_python_types():
    assert as_dtype(bool) is dt.bool_
    assert as_dtype(int) is dt.int64
    assert as_dtype(float) is dt.float32
    assert as_dtype("bool_") is dt.bool_


@pytest.mark.parametrize(
    "bad", ["float8", "f32", complex, np.dtype("complex64"), np.dtype(">f4"), [], None, 3, object]
)
def test_other_things_are_refused(bad):
    with pytest.raises(DTypeError, match=r"not a dtype|no complex tensors") as caught:
        as_dtype(bad)
    assert "float32" in caught.value.expect or "a real dtype" in caught.value.expect


def test_a_dtype_cannot_be_changed():
    with pytest.raises(AttributeError):
        dt.float32.bits = 16


def test_long_long_is_int64():
    assert as_dtype(np.dtype(np.longlong)) is dt.int64
