"""x[key] and x[key] = value against NumPy: random keys, both modes, views, gradients, errors."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Array, as_array, same_bits

import dualgrad as dg
from dualgrad.runtime.errors import GradientError

# -- random keys ----------------------------------------------------------------------------------

SLICES = st.builds(
    slice,
    st.none() | st.integers(-6, 6),
    st.none() | st.integers(-6, 6),
    st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3]),
)


@st.composite
def keys(draw: Any, basic: bool = False, masks: bool = True) -> tuple[tuple[int, ...], Any]:
    """A shape and a key that fits it."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    together = draw(st.sampled_from([(), (1,), (3,), (2, 1), (2, 3), (0,)]))
    parts: list[Any] = []
    dots, axis = False, 0
    while axis < len(shape) and draw(st.integers(0, 5)) < 5:
        n = shape[axis]
        kinds = ["slice", "none", "dots", "int"]
        kinds += [] if basic else ["array", "array", *(["mask", "flag"] if masks else [])]
        kind = draw(st.sampled_from(kinds))
        if kind == "slice":
            parts.append(draw(SLICES))
            axis += 1
        elif kind == "none":
            parts.append(None)
        elif kind == "dots" and not dots:
            dots = True
            parts.append(...)
            axis += draw(st.integers(0, len(shape) - axis))
            break
        elif kind == "int" and n:
            parts.append(draw(st.integers(-n, n - 1)))
            axis += 1
        elif kind == "array":
            sub = tuple(draw(st.sampled_from([k, 1])) for k in together)
            sub = sub[draw(st.integers(0, len(sub))) :]
            count = math.prod(sub)
            if count and not n:
                continue
            values = draw(st.lists(st.integers(-n, max(n - 1, -n)), min_size=count, max_size=count))
            dtype = draw(st.sampled_from([np.int64, np.int32, np.int8]))
            parts.append(np.array(values, dtype).reshape(sub))
            axis += 1
        elif kind == "mask":
            rank = draw(st.integers(1, min(2, len(shape) - axis)))
            sub = shape[axis : axis + rank]
            count = math.prod(sub)
            flags = draw(st.lists(st.booleans(), min_size=count, max_size=count))
            parts.append(np.array(flags, bool).reshape(sub))
            axis += rank
        elif kind == "flag":
            parts.append(draw(st.booleans()))
    return shape, (tuple(parts) if len(parts) != 1 or draw(st.booleans()) else parts[0])


def numbers(shape: tuple[int, ...]) -> Array:
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


def ours(key: Any) -> Any:
    """The key with arrays as tensors."""
    if isinstance(key, tuple):
        return tuple(ours(k) for k in key)
    return dg.tensor(key) if isinstance(key, np.ndarray) else key


def expected(x: Array, key: Any) -> Array | None:
    """x[key] by NumPy; None where indices do not broadcast."""
    try:
        return np.asarray(x[key])
    except IndexError:
        return None


def arrays_in(key: Any) -> list[Array]:
    parts = key if isinstance(key, tuple) else (key,)
    return [p for p in parts if isinstance(p, np.ndarray)]


@settings(max_examples=200, deadline=None)
@given(keys(), st.sampled_from(["whole", "strided", "transposed"]))
def test_reading(shape_and_key: Any, layout: str) -> None:
    shape, key = shape_and_key
    x = laid_out(shape, layout)
    want = expected(x, key)
    t = dg.from_numpy(x)
    if want is None:
        with pytest.raises((IndexError, ValueError)):
            t[ours(key)]
        return
    same_bits(t[ours(key)], want, key)


def laid_out(shape: tuple[int, ...], layout: str) -> Array:
    if layout == "strided":
        return numbers(tuple(2 * n for n in shape))[(*[slice(None, None, 2)] * len(shape), ...)]
    return numbers(shape[::-1]).T if layout == "transposed" else numbers(shape)


@settings(max_examples=200, deadline=None)
@given(keys(basic=True))
def test_basic_keys_give_views(shape_and_key: Any) -> None:
    shape, key = shape_and_key
    x = numbers(shape)
    t = dg.from_numpy(x)
    want = np.asarray(x[key])
    got = t[key]
    parts = key if isinstance(key, tuple) else (key,)
    forward = not any(isinstance(p, slice) and (p.step or 1) < 0 for p in parts)
    if want.size and forward:
        assert np.shares_memory(as_array(got), x)
        x += 1
        same_bits(got, np.asarray(x[key]), key)


@settings(max_examples=150, deadline=None)
@given(keys(), st.integers(0, 2), st.data())
def test_assignment(shape_and_key: Any, how: int, data: Any) -> None:
    shape, key = shape_and_key
    x = numbers(shape)
    part = expected(x, key)
    if part is None:
        return
    value = values_for(part.shape, how, data)
    want = x.copy()
    unique_assign(want, key, value)
    t = dg.tensor(x)
    t[ours(key)] = dg.tensor(value) if isinstance(value, np.ndarray) else value
    same_bits(t, want, key)


def values_for(shape: tuple[int, ...], how: int, data: Any) -> Any:
    """A number, an array of the shape, or one that broadcasts to it."""
    if how == 0:
        return -7.5
    if how == 2:
        shape = tuple(data.draw(st.sampled_from([n, 1])) for n in shape)
        shape = shape[data.draw(st.integers(0, len(shape))) :]
    return -1.0 - numbers(shape)


def unique_assign(x: Array, key: Any, value: Any) -> None:
    """x[key] = value where, of several values for one element, the last stays.

    NumPy promises that for one index array; positions of x make it hold for all keys.
    """
    place = np.arange(x.size).reshape(x.shape)[key]
    flat = np.broadcast_to(value, place.shape).ravel()
    out = x.reshape(-1)
    for p, v in zip(place.ravel(), flat, strict=True):
        out[p] = v
    x[...] = out.reshape(x.shape)


@settings(max_examples=60, deadline=None)
@given(keys(masks=False))
def test_compiled(shape_and_key: Any) -> None:
    shape, key = shape_and_key
    x = numbers(shape)
    want = expected(x, key)
    if want is None:
        return
    assigned = x.copy()
    unique_assign(assigned, key, 9.0)

    @dg.function(strict=True)
    def run(t: dg.Tensor, key: Any) -> Any:
        out = t[key]
        t[key] = 9.0
        return out.clone() * 1.0 if out.ndim else out + 0.0

    t = dg.tensor(x)
    got = run(t, ours(key))
    same_bits(t, assigned, key)
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(p, np.ndarray) for p in parts):  # else it is a view of what has changed
        same_bits(got, want, key)


@settings(max_examples=50, deadline=None)
@given(keys())
def test_gradient_of_reading(shape_and_key: Any) -> None:
    shape, key = shape_and_key
    x = numbers(shape)
    part = expected(x, key)
    if part is None:
        return
    weight = 1.0 + numbers(part.shape)
    want = np.zeros(shape, np.float32)
    np.add.at(want, key, weight)
    t = dg.tensor(x, requires_grad=True)
    (t[ours(key)] * dg.tensor(weight)).sum().backward()
    same_bits(t.grad, want, key)


@settings(max_examples=50, deadline=None)
@given(keys())
def test_gradient_of_assignment(shape_and_key: Any) -> None:
    shape, key = shape_and_key
    x = numbers(shape)
    part = expected(x, key)
    if part is None:
        return
    weight = 1.0 + numbers(shape)
    base = dg.tensor(x, requires_grad=True)
    value = dg.tensor(-numbers(part.shape), requires_grad=True)
    t = base * 1.0
    t[ours(key)] = value
    (t * dg.tensor(weight)).sum().backward()
    place = np.arange(x.size).reshape(shape)[key]
    owner = np.full(x.size, -1)
    owner[place.ravel()] = np.arange(place.size)  # the last one
    to_base = np.where(owner.reshape(shape) < 0, weight, 0)
    same_bits(base.grad, to_base.astype(np.float32), key)
    last = owner[place] == np.arange(place.size).reshape(place.shape)
    same_bits(value.grad, np.where(last, weight.ravel()[place], 0).astype(np.float32), key)


# -- both modes -----------------------------------------------------------------------------------


def test_views_in_compiled_functions() -> None:
    def run(x: dg.Tensor, i: dg.Tensor, v: dg.Tensor) -> Any:
        y = x * 2
        y[1] = v
        y[0] += 1
        y[i] = 5.0
        z = y[:, 1:]
        z *= 2
        z[0] -= 3
        y[y > 40] = 0
        x[2:, ::2] = -1
        x[0][1:] += 10
        return y, z, y[i], x[..., -1]

    start = np.arange(12, dtype=np.float32).reshape(4, 3)
    i, v = dg.tensor([3, 2]), dg.tensor([7.0, 8.0, 9.0])
    compiled = dg.function(run, strict=True)
    a, b = dg.tensor(start), dg.tensor(start)
    for _ in range(3):
        for got, want in zip(compiled(a, i, v), run(b, i, v), strict=True):
            same_bits(got, want)
        same_bits(a, b)
    assert compiled.n_traces == 1
    y = start * 2
    y[1], y[0] = [7, 8, 9], y[0] + 1
    y[[3, 2]] = 5
    same_bits(run(dg.tensor(start), i, v)[2], (y[[3, 2]] * [1, 2, 2]).astype(np.float32))


def test_assigned_rows_carry_gradients_in_both_modes() -> None:
    w = dg.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def run(w: dg.Tensor) -> dg.Tensor:
        out = dg.zeros(4, 3)
        out[0] = w
        for t in range(1, 4):
            out[t] = out[t - 1] + w
        out[[1, 1]] = w * 5
        w.grad = None
        (out * out).sum().backward()
        assert w.grad is not None
        return w.grad

    want = np.array([1, 2, 3], np.float32) * 2 * (1 + 25 + 9 + 16)
    same_bits(run(w), want)
    w.grad = None
    same_bits(dg.function(run, strict=True)(w), want)


def in_parts(lib: Any, zeros: Any, x: Any, v: Any, w: Any) -> Any:
    """A sum that is computed by changing parts of tensors in place."""
    y = x * 2
    y[1] += v
    y[0] *= 3
    y[2:, 1:] -= w
    z = zeros(4, 3)
    z[0] = v
    for t in range(1, 4):
        z[t] += z[t - 1] * 2
        z[t] += y[t]
    a = y[3]
    a += v
    b = a[1:]
    b *= 2
    return (y * y).sum() + (z * z * z).sum() + (a * a * a).sum()


def test_parts_changed_in_place_against_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((4, 3), (3,), (2, 2))]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    in_parts(torch, lambda *s: torch.zeros(*s, dtype=torch.float64), *theirs).backward()
    ours = [dg.tensor(a, requires_grad=True) for a in arrays]

    def run(*xs: dg.Tensor) -> Any:
        for x in xs:
            x.grad = None
        in_parts(dg, lambda *s: dg.zeros(*s, dtype=dg.float64), *xs).backward()
        return [x.grad for x in xs]

    eager = [as_array(g).copy() for g in run(*ours)]
    for got, want in zip(eager, theirs, strict=True):
        np.testing.assert_allclose(got, want.grad.numpy(), rtol=1e-12)
    compiled = dg.function(run, strict=True)
    for _ in range(2):
        for got, want in zip(compiled(*ours), eager, strict=True):
            same_bits(got, want)


def test_masks_are_read_eagerly_and_written_in_both_modes() -> None:
    x = dg.tensor([[1.0, -2.0], [-3.0, 4.0]])

    @dg.function
    def positive(x: dg.Tensor) -> dg.Tensor:
        return x[x > 0]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same_bits(positive(x), np.array([1, 4], np.float32))
    assert any("bool mask" in str(w.message) for w in caught)

    @dg.function(strict=True)
    def clear(x: dg.Tensor) -> dg.Tensor:
        y = x.clone()
        y[x < 0] = 0.0
        y[dg.tensor([True, False])] = dg.tensor([8.0, 9.0])
        return y

    same_bits(clear(x), np.array([[8, 9], [0, 4]], np.float32))


# -- particular cases -----------------------------------------------------------------------------


def test_lists_arrays_and_other_integers() -> None:
    x = np.arange(12, dtype=np.float64).reshape(3, 4)
    t = dg.tensor(x)
    for key in (
        [0, 2],
        ([0, 2], [1, 3]),
        [[0], [1]],
        [],
        [True, False, True],
        np.int32(1),
        (np.array(2), 1),
    ):
        same_bits(t[key], np.asarray(x[key]), key)
    same_bits(t[dg.tensor(1)], x[1])
    same_bits(t[:, dg.tensor(-1)], x[:, -1])
    same_bits(t[np.bool_(True)], x[None])
    assert [row.tolist() for row in t] == x.tolist()
    t[1] = [1, 2, 3, 4]
    t[:, 0] = np.array([5, 6, 7], np.int8)
    t[2:, 1:] = [[1.5]]
    same_bits(t, np.array([[5, 1, 2, 3], [6, 2, 3, 4], [7, 1.5, 1.5, 1.5]]))


def test_values_are_converted() -> None:
    x = dg.zeros(4, dtype=dg.int32)
    x[1:3] = dg.tensor([2.9, -2.9])
    x[0] = 300.7
    x[[3]] = dg.tensor([True])
    same_bits(x, np.array([300, 2, -2, 1], np.int32))


def test_overlapping_memory() -> None:
    start = np.arange(8, dtype=np.float32)
    x = dg.tensor(start)
    x[1:] = x[:-1]
    same_bits(x, np.array([0, 0, 1, 2, 3, 4, 5, 6], np.float32))
    x = dg.tensor(start)
    x[dg.tensor([7, 6, 5, 4, 3, 2, 1, 0])] = x
    same_bits(x, start[::-1].copy())
    i = dg.tensor([1, 2, 0])
    i[i] = i
    same_bits(i, np.array([0, 1, 2]))


def test_repeated_indexing_compiles_nothing() -> None:
    x = dg.tensor(np.arange(1000, dtype=np.float32).reshape(50, 20))
    x[0], x[1:3, ::2], x[..., None, 5]
    before = dg.runtime.profile.counters.compiled
    for k in range(50):
        x[k], x[: k + 1, k % 20], x[None, k, ..., ::2]
    assert dg.runtime.profile.counters.compiled == before


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (
            5,
            r"index along axis 0 out of range\n  expect: -3 <= index along axis 0 < 3\n  actual: 5",
        ),
        ((0, -5), r"index along axis 1 out of range\n  expect: -4 <= .* < 4\n  actual: -5"),
        ((0, 0, 0), r"too many indices\n  expect: at most 2 for shape \(3, 4\)\n  actual: 3"),
        (
            (slice(None), [1, 4]),
            r"index along axis 1 out of range\n  expect: -4 <= .*\n  actual: 4",
        ),
        (([0, 3], [0, 0]), r"index along axis 0 out of range\n  expect: -3 <= .*\n  actual: 3"),
        (([0, 1], [0, -7]), r"index along axis 1 out of range\n  expect: -4 <= .*\n  actual: -7"),
        (([0, 1], [0, 1, 2]), r"shapes do not broadcast"),
        ([True, False], r"a mask does not fit\n  expect: a mask of shape \(3,\)\n  actual: \(2,\)"),
        (1.5, r"no index"),
        ("a", r"no index"),
        ((..., ...), r"more than one Ellipsis"),
        (slice(None, None, 0), r"the step is zero"),
    ],
)
def test_refused(key: Any, text: str) -> None:
    x = dg.zeros(3, 4)
    with pytest.raises((IndexError, ValueError), match=text):
        x[key]
    with pytest.raises((IndexError, ValueError), match=text):
        x[key] = 1.0
    same_bits(x, np.zeros((3, 4), np.float32))


def test_refused_values() -> None:
    x = dg.zeros(3, 4)
    with pytest.raises(ValueError, match=r"does not fit\n  expect: .*\(4,\)\n  actual: \(3,\)"):
        x[0] = dg.ones(3)
    with pytest.raises(ValueError, match=r"does not fit"):
        x[[0, 1]] = dg.ones(3, 4)
    with pytest.raises(ValueError, match="cannot be written"):
        x[:1].expand(3, 4)[:2] = 1.0
    leaf = dg.zeros(3, requires_grad=True)
    with pytest.raises(GradientError, match="a leaf"):
        leaf[0] = 1.0
    with dg.no_grad():
        leaf[0] = 1.0
    with pytest.raises(GradientError, match="a view of a leaf"):
        leaf[1:][0] = 1.0


def test_what_is_assigned_shows_in_all_views_and_their_gradients() -> None:
    leaf = dg.zeros(3, requires_grad=True)
    made = leaf * 2
    held, other = made[1:], made[:1]
    made[0] = 3.0
    held[0] = 1.0
    assert made.tolist() == [3.0, 1.0, 0.0]
    (dg.sum(held * dg.tensor([10.0, 100.0])) + dg.sum(other)).backward()
    assert leaf.grad.tolist() == [0.0, 0.0, 200.0]
