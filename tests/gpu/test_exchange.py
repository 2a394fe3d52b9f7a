"""Memory of a device, handed to other libraries and taken from them."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.runtime.driver import Driver
from dualgrad.runtime.errors import ArgumentError, ExchangeError, GradientError

VERSIONS = (None, (1, 0))


def address(x: dg.Tensor) -> int:
    array: Any = x.array
    return int(array.address)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_capsules_share_memory(gpu: Driver, version: Any) -> None:
    x = dg.arange(12, dtype=dg.float32, device="cuda").reshape(3, 4)
    assert x.__dlpack_device__() == (2, 0)
    for view in (x, x.T, x[1:, ::2], x.to(dg.bfloat16)):
        y = dg.from_dlpack(view.__dlpack__(max_version=version))
        assert (y.device, y.dtype, y.tolist()) == ("cuda:0", view.dtype, view.tolist())
        assert address(y) == address(view)
    y = dg.from_dlpack(x)
    y.add_(1)
    assert x[0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_memory_is_kept_and_given_back(gpu: Driver) -> None:
    gc.collect()
    before = gpu.allocated()
    x = dg.from_dlpack(dg.ones(1000, device="cuda"))
    capsule = x.__dlpack__()
    y = x[1:] * 2
    del x
    assert y.sum().item() == 1998.0
    assert gpu.allocated() > before
    del y
    assert dg.from_dlpack(capsule).sum().item() == 1000.0
    del capsule
    gc.collect()
    assert gpu.allocated() == before


def test_foreign_memory_dies_during_a_capture(gpu: Driver) -> None:
    gc.collect()
    before = gpu.allocated()
    x = dg.from_dlpack(dg.ones(1000, device="cuda"))
    with gpu.capture():
        del x
        assert gpu.allocated() > before
    del_later = dg.from_dlpack(dg.ones(10, device="cuda"))
    del del_later
    gc.collect()
    assert gpu.allocated() == before


def test_other_devices(gpu: Driver) -> None:
    x = dg.arange(3.0, device="cuda")
    on_host = dg.from_dlpack(x, device="cpu")
    assert (on_host.device, on_host.tolist()) == ("cpu", [0.0, 1.0, 2.0])
    assert dg.from_dlpack(np.arange(3.0), device="cuda").device == "cuda:0"
    with pytest.raises(ExchangeError, match="a copy is needed"):
        dg.from_dlpack(x, device="cpu", copy=False)
    moved = dg.from_dlpack(x.__dlpack__(dl_device=(1, 0), max_version=(1, 0)))
    assert (moved.device, moved.tolist()) == ("cpu", [0.0, 1.0, 2.0])
    with pytest.raises(ExchangeError, match="a copy is needed"):
        x.__dlpack__(dl_device=(1, 0), copy=False)
    fresh = dg.from_dlpack(x, copy=True)
    assert address(fresh) != address(x)


def test_streams(gpu: Driver) -> None:
    x = dg.ones(3, device="cuda")
    for stream in (None, 1, -1):
        assert x.__dlpack__(stream=stream) is not None
    with pytest.raises(ArgumentError, match="ambiguous"):
        x.__dlpack__(stream=0)


class Described:
    """An object of a library that has CUDA's array interface only."""

    def __init__(self, x: dg.Tensor, **fields: Any) -> None:
        self.x = x
        self.__cuda_array_interface__ = {**x.__cuda_array_interface__, **fields}


def test_array_interface(gpu: Driver) -> None:
    x = dg.arange(6.0, device="cuda").reshape(2, 3)
    for view in (x, x.T):
        y = dg.asarray(Described(view))
        assert y.tolist() == view.tolist()
        assert address(y) == address(view)
        old = dg.asarray(Described(view, version=2, stream=None))
        assert old.tolist() == view.tolist()
    y = dg.asarray(Described(x))
    del x
    assert y.sum().item() == 15.0
    assert not hasattr(dg.ones(2), "__cuda_array_interface__")
    for share in (Described, dg.from_dlpack):
        with pytest.raises(GradientError, match="a gradient would be lost"):
            share(dg.ones(2, device="cuda", requires_grad=True))


def test_arrays_that_share_memory_in_a_compiled_function(gpu: Driver) -> None:
    @dg.function
    def step(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        x *= 10
        return y + 1

    for _ in range(3):
        x = dg.ones(4, device="cuda")
        first, second = dg.from_dlpack(x), dg.from_dlpack(x)
        assert step(first, second).tolist() == [11.0] * 4


def test_pickle_and_deepcopy(gpu: Driver) -> None:
    x = dg.arange(6.0, device="cuda").requires_grad_()
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert (y.device, y.requires_grad, y.tolist()) == ("cuda:0", True, x.tolist())
        assert address(y) != address(x)


def test_cupy(gpu: Driver) -> None:
    cupy = pytest.importorskip("cupy")
    if not cupy.is_available():
        pytest.skip("no CUDA device")
    x = dg.arange(6.0, device="cuda")
    a = cupy.from_dlpack(x)
    a += 1
    assert x.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert cupy.asarray(x).data.ptr == address(x)
    assert address(dg.from_dlpack(a)) == address(x)
    with cupy.cuda.Stream(non_blocking=True):
        b = cupy.from_dlpack(x) * 2
        assert dg.from_dlpack(b).tolist() == (x * 2).tolist()
