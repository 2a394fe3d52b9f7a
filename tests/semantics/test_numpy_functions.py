"""NumPy's functions on tensors: the same in both modes, and what NumPy computes on arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.numpy_functions import _COMPARISONS, _FUNCTIONS, _OPERATORS, _UFUNCS
from semantics.support import compare

_RNG = np.random.default_rng(0)
A = _RNG.uniform(0.1, 0.9, (3, 3)).astype(np.float32)
B = _RNG.uniform(0.1, 0.9, (3, 3)).astype(np.float32)
INTS = {np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.left_shift, np.right_shift, np.invert}

CALLS: dict[str, Callable[[Any], Any]] = {
    "concatenate": lambda x: np.concatenate([x, x], axis=1),
    "stack": lambda x: np.stack([x, x]),
    "hstack": lambda x: np.hstack([x, x]),
    "vstack": lambda x: np.vstack([x, x]),
    "dot": lambda x: np.dot(x, x),
    "inner": lambda x: np.inner(x, x),
    "kron": lambda x: np.kron(x, x),
    "outer": lambda x: np.outer(x[0], x[1]),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 3, 3)),
    "clip": lambda x: np.clip(x, 0.3, 0.6),
    "expand_dims": lambda x: np.expand_dims(x, 1),
    "moveaxis": lambda x: np.moveaxis(x, 0, 1),
    "reshape": lambda x: np.reshape(x, (9,)),
    "roll": lambda x: np.roll(x, 2, axis=1),
    "swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "squeeze": lambda x: np.squeeze(x[None], axis=0),
    "tensordot": lambda x: np.tensordot(x, x, axes=1),
    "where": lambda x: np.where(x > 0.5, x, -x),
    "sum of rows": lambda x: np.sum(x, axis=0),
    "sum, kept": lambda x: np.sum(x, axis=1, keepdims=True),
    "mean": lambda x: np.mean(x, 1),
    "cumsum": lambda x: np.cumsum(x, axis=0),
    "take_along_axis": None,  # type: ignore[dict-item]  # below
}


def close(got: Any, want: Any) -> None:
    assert isinstance(got, dg.Tensor)
    np.testing.assert_allclose(got.numpy(), want, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name", sorted(_UFUNCS | {f.__name__ for f in (*_OPERATORS, *_COMPARISONS)})
)
def test_row43_ufuncs_are_those_of_dualgrad(name: str) -> None:
    ufunc = getattr(np, name)
    a, b = (A, B) if ufunc not in INTS else ((10 * A).astype(np.int64), (5 * B).astype(np.int64))
    if name == "arccosh":
        a = a + 1
    arrays = (a, b)[: ufunc.nin]
    close(ufunc(*map(dg.tensor, arrays)), ufunc(*arrays))
    if ufunc.nin == 2:
        close(ufunc(a, dg.tensor(b)), ufunc(a, b))

    def make() -> Any:
        return lambda *tensors: ufunc(*tensors)

    compare(make, [tuple(map(dg.tensor, arrays))], traces=1)


@pytest.mark.parametrize("name", sorted(_FUNCTIONS))
def test_row43_functions_are_those_of_dualgrad(name: str) -> None:
    f = CALLS.get(name) or (lambda x: getattr(np, name)(x))
    if name == "take_along_axis":
        index = dg.tensor([[0], [2], [1]])
        close(np.take_along_axis(dg.tensor(A), index, 1), np.take_along_axis(A, index.numpy(), 1))
        return
    close(f(dg.tensor(A)), f(A))

    def make() -> Any:
        return lambda x: f(x)

    compare(make, [(dg.tensor(A),), (dg.tensor(B),)], traces=1)


@pytest.mark.parametrize("name", [n for n in CALLS if n not in _FUNCTIONS])
def test_row43_arguments_are_passed_on(name: str) -> None:
    close(CALLS[name](dg.tensor(A)), CALLS[name](A))


def test_row43_names_of_arguments_exist_in_numpy() -> None:
    for name, names in _FUNCTIONS.items():
        known = inspect.signature(getattr(np, name)).parameters
        assert names.keys() & known.keys(), name


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.linalg.norm(x),
        lambda x: np.sum(x, where=np.array([[True, False, True]])),
        lambda x: np.add.reduce(x),
        lambda x: np.asarray(x).sum(),
        lambda x: np.array(x.tolist()),
        lambda x: x.numpy() + 1,
        lambda x: np.median(x, overwrite_input=False),
    ],
)
def test_row43_what_numpy_alone_has_runs_eagerly(f: Callable[..., Any]) -> None:
    def make() -> Any:
        return lambda x: f(x)

    compiled = compare(make, [(dg.tensor(A),), (dg.tensor(B),)], eager=True)
    assert "test_numpy_functions.py" in str(compiled.eager_reason)


def test_row43_in_place_on_an_array() -> None:
    array = np.ones((3, 3), np.float32)
    array += dg.tensor(A)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, 1 + A)
    with pytest.raises(TypeError, match="ArrayType"):
        np.add(A, B, out=dg.tensor(A))
