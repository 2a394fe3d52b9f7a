"""Fourier transforms and sorting beyond the samples of their ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import as_array, both, same_bits

import dualgrad as dg
from dualgrad import fft
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError


def drawn(*shape: int, dtype: str = "float64") -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).standard_normal(shape).astype(dtype)


# -- Fourier transforms ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 8, 60, 101])
@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inverse_and_numpys_bits(n: int, norm: str, dtype: str) -> None:
    a = drawn(3, n, dtype=dtype)
    x = dg.tensor(a)
    spectrum = fft.rfft(x, norm=norm)
    assert spectrum.shape == (3, n // 2 + 1, 2)
    want = np.fft.rfft(a, norm=norm)
    same_bits(spectrum, np.stack([want.real, want.imag], -1))
    tolerance = 1e-5 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(as_array(fft.irfft(spectrum, n, norm=norm)), a, atol=tolerance * 4)
    z = fft.as_pairs(x, x * 0.5)
    again = fft.ifft(fft.fft(z, norm=norm), norm=norm)
    np.testing.assert_allclose(as_array(again), as_array(z), atol=tolerance * 4)


def test_modes_agree() -> None:
    def f(x: dg.Tensor) -> Any:
        s = fft.rfft2(x, norm="ortho")
        fft.irfft2(fft.multiply(s, fft.conj(s)), x.shape[-2:]).square().sum().backward()
        return s.detach(), x.grad

    eager, static = both(f, lambda: (dg.tensor(drawn(3, 8, 9), requires_grad=True),))
    for got, want in zip(static, eager, strict=True):
        same_bits(got, want)


def test_convolution_by_transforms() -> None:
    a, b = drawn(20), drawn(5)
    n = 24
    product = fft.multiply(fft.rfft(dg.tensor(a), n), fft.rfft(dg.tensor(b), n))
    np.testing.assert_allclose(as_array(fft.irfft(product, n)), np.convolve(a, b), atol=1e-13)


def test_lengths_at_run_time() -> None:
    for n in (4, 9, 16, 5):
        a = drawn(n)
        same_bits(fft.irfft(fft.rfft(dg.tensor(a)), n), np.fft.irfft(np.fft.rfft(a), n))


def test_frequencies() -> None:
    for n, d in ((8, 1.0), (7, 0.1), (1, 2.0)):
        same_bits(fft.fftfreq(n, d, "float64"), np.fft.fftfreq(n, d))
        same_bits(fft.rfftfreq(n, d), np.fft.rfftfreq(n, d).astype(np.float32))


def test_there_are_no_complex_tensors() -> None:
    with pytest.raises(AttributeError, match="there are no complex tensors"):
        _ = dg.complex64
    for make in (lambda: dg.zeros(2, dtype="complex64"), lambda: dg.ones(2).to(complex)):
        with pytest.raises(DTypeError, match="there are no complex tensors"):
            make()
    with pytest.raises(DTypeError, match="last dimension of size 2"):
        dg.tensor(np.zeros(2, np.complex64))
    with pytest.raises(ShapeError, match=r"takes pairs[\s\S]*hint: use rfft"):
        fft.fft(dg.ones(8))


# -- sorting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint16", "bool"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_stable_orders(dtype: str, axis: int) -> None:
    a = np.random.default_rng(1).integers(0, 4, (5, 33, 4)).astype(dtype)
    x = dg.tensor(a)
    same_bits(dg.argsort(x, axis), np.argsort(a, axis=axis, kind="stable"))
    same_bits(dg.sort(x, axis), np.sort(a, axis=axis))
    down = np.argsort(-a.astype(np.int64), axis=axis, kind="stable")
    same_bits(x.argsort(axis, descending=True), down)
    same_bits(x.sort(dim=axis, descending=True), np.take_along_axis(a, down, axis))
    values, positions = x.topk(3, axis)
    same_bits(positions, np.take(down, range(3), axis))
    same_bits(values, np.take_along_axis(a, as_array(positions), axis))


def test_nan_comes_last_both_ways() -> None:
    nan = float("nan")
    x = dg.tensor([nan, 1.0, float("inf"), nan, -1.0, 1.0])
    assert as_array(dg.argsort(x)).tolist() == [4, 1, 5, 2, 0, 3]
    assert as_array(dg.argsort(x, descending=True)).tolist() == [2, 1, 5, 4, 0, 3]
    assert as_array(dg.topk(x, 2)[1]).tolist() == [2, 1]
    assert as_array(dg.topk(x, 2, largest=False)[1]).tolist() == [4, 1]


def test_gradient_goes_back_to_the_places() -> None:
    def f(x: dg.Tensor) -> Any:
        values, positions = dg.topk(x, 2, axis=0)
        (values * dg.tensor([[1.0], [2.0]])).sum().backward()
        return x.grad, positions

    a = np.array([[1.0, 9.0], [5.0, 2.0], [3.0, 4.0]], np.float32)
    eager, static = both(f, lambda: (dg.tensor(a, requires_grad=True),))
    same_bits(eager[0], np.array([[0, 1], [1, 0], [2, 2]], np.float32))
    for got, want in zip(static, eager, strict=True):
        same_bits(got, want)


def test_numbers_without_dimensions() -> None:
    x = dg.tensor(2.5)
    assert as_array(dg.argsort(x)) == 0
    assert as_array(dg.sort(x)) == 2.5
    assert [as_array(y).item() for y in dg.topk(x, 1)] == [2.5, 0]


def test_counts_of_topk() -> None:
    with pytest.raises(ArgumentError, match="0 <= k <= 3"):
        dg.topk(dg.ones(3), 4)
    assert dg.topk(dg.ones(2, 3), 0)[0].shape == (2, 0)
