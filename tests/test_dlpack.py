"""DLPack both ways: memory is shared, kept while either side uses it, and given back once."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.runtime import dlpack, memory
from dualgrad.runtime.dtype import ALL, NATIVE, DType
from dualgrad.runtime.errors import (
    ArgumentError,
    DTypeError,
    ExchangeError,
    GradientError,
    OperandError,
)

SHAPES: tuple[tuple[int, ...], ...] = ((), (3,), (0,), (2, 0, 3), (2, 3, 4))
VERSIONS = (None, (0, 8), (1, 0), (1, 3), (2, 0))
names = pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.name)


class Producer:
    """An array of NumPy's whose struct a test may change before it is taken."""

    def __init__(self, array: Any, **fields: int) -> None:
        self.array, self.fields = array, fields

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.array.__dlpack__(**options)
        versioned = "versioned" in repr(capsule)
        kind = dlpack._Versioned if versioned else dlpack._Managed
        name = b"dltensor_versioned" if versioned else b"dltensor"
        struct: Any = kind.from_address(dlpack._python().pointer(capsule, name))
        for field, value in self.fields.items():
            owner = struct.tensor if hasattr(struct.tensor, field) else struct
            setattr(owner, field, value)
        return capsule


class Old(Producer):
    """One that knows nothing of versions."""

    def __dlpack__(self, *, stream: Any = None) -> Any:  # type: ignore[override]
        return self.array.__dlpack__()


def numbers(shape: tuple[int, ...], dtype: DType) -> dg.Tensor:
    return dg.arange(int(np.prod(shape)), dtype=dg.float32).reshape(shape).astype(dtype)


@names
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_own_capsules(dtype: DType, shape: tuple[int, ...], version: Any) -> None:
    x = numbers(shape, dtype)
    y = dg.from_dlpack(x.__dlpack__(max_version=version))
    assert (y.dtype, y.shape, y.tolist()) == (x.dtype, x.shape, x.tolist())
    if x.size:
        assert np.shares_memory(y.storage(), x.storage())


@pytest.mark.parametrize("dtype", NATIVE, ids=lambda d: d.name)
def test_numpy_shares(dtype: DType) -> None:
    x = numbers((3, 4), dtype)
    for view in (x, x.T, x[1:, ::2], x[2], x[1:2, :0]):
        array = np.from_dlpack(view)
        np.testing.assert_array_equal(array, view.numpy())
        assert array.size == 0 or np.shares_memory(array, x.numpy())
        back = dg.from_dlpack(array)
        assert back.tolist() == view.tolist()
    x.fill_(1)
    assert np.from_dlpack(x.T)[3, 2] == 1


@names
def test_torch_shares(dtype: DType) -> None:
    torch = pytest.importorskip("torch")
    x = numbers((3, 4), dtype)
    t = torch.from_dlpack(x.T)
    assert str(t.dtype) == f"torch.{dtype.name}"
    assert t.data_ptr() == x.storage().ctypes.data
    assert t.tolist() == x.T.tolist()
    t[1, 2] = 0
    back = dg.from_dlpack(t)
    assert back.dtype is dtype
    assert back.tolist() == x.T.tolist()
    assert not x[2, 1].item()
    assert dg.asarray(t).storage().ctypes.data == t.data_ptr()
    assert dg.tensor(t).storage().ctypes.data != t.data_ptr()


def test_torch_that_requires_gradients() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(BufferError, match="require gradient"):
        dg.from_dlpack(torch.ones(2, requires_grad=True))


def test_jax_shares() -> None:
    jax = pytest.importorskip("jax")
    x = numbers((4, 4), dg.float32)
    j = jax.dlpack.from_dlpack(x)
    assert j.tolist() == x.tolist()
    assert j.unsafe_buffer_pointer() == x.storage().ctypes.data
    back = dg.from_dlpack(jax.numpy.arange(5.0))
    assert back.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_read_only_memory() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    x = dg.from_dlpack(array)
    assert not x.is_writeable
    with pytest.raises(ArgumentError, match="cannot be written"):
        x.add_(1)
    with pytest.raises(ExchangeError, match="newer protocol"):
        x.__dlpack__()
    assert not np.from_dlpack(x).flags.writeable
    assert x.clone().add_(1).tolist() == [1.0, 2.0, 3.0]


def test_writing_is_seen_by_both() -> None:
    array = np.arange(3.0)
    x = dg.from_dlpack(array)
    x += 1
    array *= 2
    assert x.tolist() == [2.0, 4.0, 6.0]


def test_copies() -> None:
    array = np.arange(3.0)
    x = dg.from_dlpack(array, copy=True)
    x += 1
    assert array.tolist() == [0.0, 1.0, 2.0]
    assert dg.from_dlpack(array, copy=False).storage().ctypes.data == array.ctypes.data
    assert dg.from_dlpack(array[::-1]).tolist() == [2.0, 1.0, 0.0]
    with pytest.raises(ExchangeError, match="a copy is needed"):
        dg.from_dlpack(array[::-1], copy=False)
    fresh = dg.from_dlpack(x.__dlpack__(max_version=(1, 0), copy=True))
    assert fresh.tolist() == x.tolist()
    assert not np.shares_memory(fresh.numpy(), x.numpy())


def test_producers_without_versions() -> None:
    array = np.arange(4.0)
    x = dg.from_dlpack(Old(array))
    assert np.shares_memory(x.numpy(), array)


def test_offsets_and_missing_strides() -> None:
    array = np.arange(6.0)
    assert dg.from_dlpack(Producer(array, byte_offset=8, ndim=0)).item() == 1.0
    struct = Producer(np.arange(6.0).reshape(2, 3), strides=None)  # type: ignore[arg-type]
    assert dg.from_dlpack(struct).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("fields", [{"code": 5, "bits": 64}, {"lanes": 2}, {"bits": 128}])
def test_dtypes_that_there_are_not(fields: dict[str, int]) -> None:
    with pytest.raises(DTypeError, match="not a dtype of dualgrad"):
        dg.from_dlpack(Producer(np.zeros(2), **fields))


def test_devices_and_versions_that_there_are_not() -> None:
    with pytest.raises(ExchangeError, match="does not have"):
        dg.from_dlpack(Producer(np.zeros(2), device_type=10))
    with pytest.raises(ExchangeError, match="version of DLPack"):
        dg.from_dlpack(Producer(np.zeros(2), major=2))
    with pytest.raises(ExchangeError, match="not a device"):
        dg.ones(2).__dlpack__(dl_device=(10, 0))


def test_wrong_objects() -> None:
    capsule = dg.ones(2).__dlpack__()
    dg.from_dlpack(capsule)
    with pytest.raises(ExchangeError, match="no capsule"):
        dg.from_dlpack(capsule)
    with pytest.raises(OperandError, match="does not share"):
        dg.from_dlpack([1.0])
    with pytest.raises(ArgumentError, match="no streams"):
        dg.ones(2).__dlpack__(stream=3)
    assert dg.ones(2).__dlpack__(stream=-1) is not None


def test_gradients_are_not_lost() -> None:
    x = dg.ones(2, requires_grad=True)
    for y in (x, x * 2):
        with pytest.raises(GradientError, match="a gradient would be lost"):
            np.from_dlpack(y)
    assert np.from_dlpack(x.detach()).tolist() == [1.0, 1.0]


slices = st.slices(5).filter(lambda s: s.step is None or s.step > 0)


@settings(max_examples=60, deadline=None)
@given(st.tuples(slices, slices, slices), st.permutations(range(3)), st.sampled_from(ALL))
def test_any_view_there_and_back(key: Any, axes: list[int], dtype: DType) -> None:
    x = (dg.arange(125).reshape(5, 5, 5) % 11).astype(dtype)[key].permute(*axes)
    for version in (None, (1, 0)):
        y = dg.from_dlpack(x.__dlpack__(max_version=version))
        assert y.tolist() == x.tolist()
        assert y.shape == x.shape
        if x.size:
            assert y.storage().ctypes.data == x.storage().ctypes.data
            y.fill_(1)
            assert x.storage().min() == y.storage().max()


def live() -> int:
    gc.collect()
    return memory.stats().live_bytes


def test_memory_is_kept_and_given_back() -> None:
    before = live()
    array = np.from_dlpack(dg.full((1000,), 7.0))
    assert live() > before
    assert (array == 7).all()
    part = dg.from_dlpack(array)[::2]
    del array
    assert (part == 7).all()
    del part
    assert live() == before


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_capsules_that_nobody_takes(version: Any) -> None:
    before = live()
    capsules = [dg.ones(100).__dlpack__(max_version=version) for _ in range(10)]
    assert live() > before
    del capsules
    assert live() == before


def test_a_refused_capsule_keeps_the_error() -> None:
    before = live()
    for _ in range(3):
        with pytest.raises((RuntimeError, BufferError), match=r"[Uu]nsupported dtype"):
            np.from_dlpack(dg.ones(100, dtype=dg.bfloat16))
    assert live() == before


def test_deleters_run_in_threads() -> None:
    torch = pytest.importorskip("torch")
    before = live()
    held = [torch.from_dlpack(dg.ones(100)) for _ in range(50)]

    def work() -> None:
        while held:
            held.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert live() == before


def test_foreign_memory_is_kept_and_given_back() -> None:
    array = np.arange(5.0)
    counts = [sys.getrefcount(array)]
    x = dg.from_dlpack(array)
    y = x[1:]
    counts.append(sys.getrefcount(array))
    del x
    assert y.tolist() == [1.0, 2.0, 3.0, 4.0]
    del y
    gc.collect()
    counts.append(sys.getrefcount(array))
    assert counts == [counts[0], counts[0] + 1, counts[0]]


def test_in_compiled_functions() -> None:
    array = np.arange(3.0, dtype=np.float32)
    x = dg.from_dlpack(array)

    @dg.function
    def step(x: dg.Tensor) -> dg.Tensor:
        x += 1
        return x * 2

    assert step(x).tolist() == [2.0, 4.0, 6.0]
    assert array.tolist() == [1.0, 2.0, 3.0]
    other = dg.from_dlpack(array[1:])

    @dg.function
    def both(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        x *= 10
        return y + 0

    assert both(x, other).tolist() == [20.0, 30.0]

    @dg.function
    def inside() -> dg.Tensor:
        return dg.from_dlpack(array) + 1

    with pytest.warns(dg.EagerFallback, match="from_dlpack"):
        assert inside().tolist() == [11.0, 21.0, 31.0]
    array += 1
    assert inside().tolist() == [12.0, 22.0, 32.0]
