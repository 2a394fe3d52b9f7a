"""The array API namespace with tensors on a CUDA device."""

from __future__ import annotations

import numpy as np

import dualgrad.array_api as xp
from dualgrad.runtime.driver import Driver


def test_functions_stay_on_the_device(gpu: Driver) -> None:
    device = "cuda:0"
    assert device in xp.__array_namespace_info__().devices()
    start = np.arange(6.0).reshape(2, 3)
    x = xp.asarray(start).to_device(device)
    assert x.device == device
    assert x.to_device("cuda") is x
    y = xp.roll(xp.reshape(x, (3, 2)), shift=1, axis=0) + xp.ones(
        (2,), dtype=x.dtype, device=device
    )
    y @= xp.eye(2, dtype=x.dtype, device=device)
    total = xp.sum(xp.astype(y, xp.float32), axis=0)
    assert total.device == device
    expected = (np.roll(start.reshape(3, 2), 1, 0) + 1).astype(np.float32).sum(0)
    np.testing.assert_array_equal(total.to_device("cpu").numpy(), expected)
    assert xp.astype(x, xp.float32, device="cpu").device == "cpu"
