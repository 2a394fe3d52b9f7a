"""Python's buffer protocol both ways, and tensors among NumPy's arrays."""

from __future__ import annotations

import array
import gc
import io
import mmap
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime import memory
from dualgrad.runtime.dtype import NATIVE, DType
from dualgrad.runtime.errors import (
    ArgumentError,
    DTypeError,
    ExchangeError,
    GradientError,
    OperandError,
)

FIRST = """
import sys
import dualgrad as dg
x = dg.tensor([[1.0, 2.0]])
assert "llvmlite" not in sys.modules
view = memoryview(x)
assert view.tolist() == [[1.0, 2.0]]
view[0, 1] = 7.0
assert x.tolist() == [[1.0, 7.0]]
try:
    memoryview(x.requires_grad_())
except dg.errors.GradientError:
    pass
else:
    raise AssertionError
assert memoryview(dg.nn.Parameter(x, requires_grad=False)).nbytes == 8
"""


class Column(dg.Tensor):
    """A subclass made after the tensors have the protocol."""

    __slots__ = ()


# -- memory of tensors ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NATIVE, ids=lambda d: d.name)
def test_memoryview(dtype: DType) -> None:
    x = dg.arange(6).reshape(2, 3).astype(dtype)
    for tensor in (x, x.T, x[1:, ::2], x[0, 0], x[:0]):
        view, twin = memoryview(tensor), memoryview(tensor.numpy())
        assert (view.format, view.shape, view.strides) == (twin.format, twin.shape, twin.strides)
        assert view.tobytes() == twin.tobytes()
        assert bytes(tensor) == tensor.numpy().tobytes()
        assert not tensor.ndim or bytearray(tensor) == bytes(tensor)  # else a size
    x.fill_(1)
    assert memoryview(x).tobytes() == x.numpy().tobytes()


def test_writing_through_a_view() -> None:
    x = dg.zeros(2, 3)
    view = memoryview(x)
    view[1, 2] = 5.0
    assert x[1, 2].item() == 5.0
    io.BytesIO(struct.pack("6f", *range(6))).readinto(x)
    assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    file = io.BytesIO()
    file.write(x)
    assert file.getvalue() == bytes(x)
    with pytest.raises(BufferError):
        file.write(x.T)


def test_read_only_memory() -> None:
    x = dg.frombuffer(struct.pack("2f", 1, 2))
    assert memoryview(x).readonly
    with pytest.raises((BufferError, TypeError)):
        io.BytesIO(bytes(8)).readinto(x)


def test_views_keep_the_memory() -> None:
    gc.collect()
    before = memory.stats().live_bytes
    view = memoryview(dg.full((1000,), 3.0))
    gc.collect()
    assert view[999] == 3.0
    del view
    assert memory.stats().live_bytes == before


@pytest.mark.parametrize("kind", [Column, nn.Parameter])
def test_subclasses(kind: Any) -> None:
    x = kind(dg.arange(3.0), requires_grad=False)
    assert memoryview(x).tolist() == [0.0, 1.0, 2.0]


def test_refusals() -> None:
    x = dg.ones(2, requires_grad=True)
    for tensor in (x, x * 2):
        for use in (memoryview, bytes, np.asarray, np.array):
            with pytest.raises(GradientError, match="a gradient would be lost"):
                use(tensor)
    with dg.no_grad():
        assert memoryview(x * 2).tolist() == [2.0, 2.0]
    assert memoryview(x.detach()).tolist() == [1.0, 1.0]
    with pytest.raises(ExchangeError, match="cannot show this memory") as caught:
        memoryview(dg.ones(2, dtype=dg.bfloat16))
    assert isinstance(caught.value, BufferError)
    with pytest.raises(TypeError):
        [1, 2, 3][dg.tensor([1, 2])]  # type: ignore[call-overload]


def test_in_a_compiled_function() -> None:
    @dg.function
    def f(x: dg.Tensor) -> dg.Tensor:
        y = x + 1
        return y * memoryview(y)[0]

    with pytest.warns(dg.EagerFallback, match="memoryview"):
        assert f(dg.tensor([1.0, 2.0])).tolist() == [4.0, 6.0]


@pytest.mark.parametrize("cached", [False, True])
def test_first_use_of_a_process(cached: bool, tmp_path: Path) -> None:
    root = Path(dg.__file__).parent.parent
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{FIRST}"
    for _ in range(1 + cached):
        subprocess.run(
            [sys.executable, "-c", code.replace("dg.errors.GradientError", "RuntimeError")],
            check=True,
            cwd=root,
            env={"DG_CACHE_DIR": str(tmp_path), "PATH": ""},
        )


# -- tensors over other memory --------------------------------------------------------------------


def test_frombuffer_shares_memory() -> None:
    data = bytearray(struct.pack("4f", 1, 2, 3, 4))
    x = dg.frombuffer(data)
    x += 1
    assert struct.unpack("4f", data) == (2.0, 3.0, 4.0, 5.0)
    data[:4] = struct.pack("f", 9)
    assert x[0].item() == 9.0
    assert dg.frombuffer(data, dg.int32, count=2, offset=8).tolist() == [1082130432, 1084227584]
    assert dg.frombuffer(data, dtype=dg.float32, requires_grad=True).requires_grad
    with pytest.raises(BufferError):
        data.clear()


def test_frombuffer_of_many_objects() -> None:
    numbers = array.array("i", [1, 2, 3])
    assert dg.frombuffer(numbers, dg.int32).tolist() == [1, 2, 3]
    assert dg.frombuffer(np.arange(3.0), dg.float64).tolist() == [0.0, 1.0, 2.0]
    assert dg.frombuffer(dg.arange(3.0)).tolist() == [0.0, 1.0, 2.0]
    with mmap.mmap(-1, 4096) as page:
        x = dg.frombuffer(page, dg.uint8, count=3)
        x[1] = 7
        assert page[:3] == b"\0\7\0"
        del x
        gc.collect()
    assert dg.frombuffer(b"\x80\x3f\x00\x40", dg.bfloat16).tolist() == [1.0, 2.0]
    assert dg.frombuffer(b"\1\0", dg.bool_).tolist() == [True, False]
    assert dg.frombuffer(b"x" + struct.pack("f", 3), offset=1).tolist() == [3.0]
    assert dg.frombuffer(b"", count=0).shape == (0,)


def test_read_only_buffers() -> None:
    x = dg.frombuffer(struct.pack("2f", 1, 2))
    with pytest.raises(ArgumentError, match="cannot be written"):
        x.zero_()
    assert (x * 2).tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    "options",
    [{"count": 3}, {"offset": 9}, {"offset": -1}, {"offset": 2}, {"count": 2, "offset": 4}],
)
def test_elements_that_there_are_not(options: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="does not have these elements"):
        dg.frombuffer(bytes(8), **options)  # type: ignore[arg-type]


def test_objects_without_the_protocol() -> None:
    with pytest.raises(OperandError, match="without Python's buffer protocol"):
        dg.frombuffer([1.0])
    with pytest.raises(DTypeError):
        dg.frombuffer(bytes(16), complex)


def test_asarray_shares_what_it_can() -> None:
    numbers = array.array("d", [1, 2, 3])
    x = dg.asarray(numbers)
    x *= 2
    assert numbers.tolist() == [2.0, 4.0, 6.0]
    grid = memoryview(bytearray(6)).cast("B", (2, 3))
    assert dg.asarray(grid).shape == (2, 3)
    assert dg.asarray(numbers, copy=True).storage().ctypes.data != x.storage().ctypes.data
    with pytest.raises(ArgumentError, match="a copy is needed"):
        dg.asarray(numbers, dg.float32, copy=False)
    assert dg.tensor(numbers).storage().ctypes.data != x.storage().ctypes.data


# -- among NumPy's arrays -------------------------------------------------------------------------


def test_arrays_of_tensors() -> None:
    x = dg.arange(3.0)
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert np.shares_memory(np.array(x, copy=False), x.numpy())
    assert not np.shares_memory(np.array(x), x.numpy())
    for dtype in (np.float64, np.int32, bool):
        assert np.asarray(x, dtype).dtype == dtype
        assert x.__array__(dtype).tolist() == np.arange(3).astype(dtype).tolist()
        with pytest.raises(ValueError, match="copy"):
            np.array(x, dtype, copy=False)
    assert not np.shares_memory(x.__array__(copy=True), x.numpy())
    low = dg.ones(2, dtype=dg.bfloat16)
    assert np.asarray(low).dtype == np.float32
    with pytest.raises(ValueError, match="bfloat16"):
        np.array(low, copy=False)
    assert np.array([x, x]).shape == (2, 3)


@pytest.mark.parametrize("left", [2, 2.0, np.float32(2), np.float64(2), np.int64(2), np.array(2.0)])
def test_numbers_and_arrays_on_the_left(left: Any) -> None:
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    y = left * x - np.ones(2, np.float32)
    assert type(y) is dg.Tensor
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]
    assert type(left < x) is dg.Tensor
    assert (left == x).tolist() == [False, True]


def test_arrays_in_place_keep_their_kind() -> None:
    a, x = np.zeros(2, np.float32), dg.ones(2)
    a += x
    assert type(a) is np.ndarray
    assert a.tolist() == [1.0, 1.0]
    with pytest.raises(GradientError, match="a gradient would be lost"):
        a += x.requires_grad_()
    with pytest.raises(TypeError, match="ArrayType"):
        np.add(a, a, out=x)


def test_torch_takes_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = dg.arange(6.0).reshape(2, 3)
    assert torch.tensor(x).tolist() == x.tolist()
    assert torch.as_tensor(x).data_ptr() == x.storage().ctypes.data
    assert torch.frombuffer(x, dtype=torch.float32).data_ptr() == x.storage().ctypes.data
