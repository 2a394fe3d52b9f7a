"""Rows 28-31: tensors that share memory, before, in and after a compiled function."""

from __future__ import annotations

import contextlib
import gc
import warnings
import weakref

import numpy as np
import pytest
from aliasing import Program, difference

import dualgrad as dg
from dualgrad import EagerFallback
from dualgrad.runtime.errors import ArgumentError


@pytest.mark.parametrize("start", range(0, 150, 30))
def test_row28_random_programs(start):
    for seed in range(start, start + 30):
        found = difference(Program.draw(seed))
        assert found is None, found


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 3200, 100))
def test_row28_many_random_programs(start):
    for seed in range(start, start + 100):
        found = difference(Program.draw(seed))
        assert found is None, found


def test_row28_random_programs_are_compiled():
    """Few of the random programs may run eagerly: those with memory that overlaps itself."""
    eager = 0
    for seed in range(60):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", EagerFallback)
            assert difference(Program.draw(seed), ignore=False) is None
        eager += bool(caught)
    assert eager <= 3


def test_row28_overlap_after_a_call_without():
    """PyTorch answers [3, 3, 3, 3] for [4, 4, 3, 3] (issue 139789)."""

    @dg.function(strict=True)
    def f(x, y):
        x.add_(1.0)
        return y + x

    def inputs(distance):
        base = dg.ones(8)
        return base, base[:4], base[distance : distance + 4]

    for distance in (4, 2, 4, 0, 1, 2, 3):
        base, x, y = inputs(distance)
        out = f(x, y)
        expected = np.ones(8, "f4")
        expected[:4] += 1
        np.testing.assert_array_equal(base.numpy(), expected)
        np.testing.assert_array_equal(out.numpy(), expected[:4] + expected[distance : distance + 4])
    assert f.n_traces == 5


def test_row28_both_overwritten():
    @dg.function(strict=True)
    def f(x, y):
        x.mul_(2.0)
        y.add_(1.0)
        x.mul_(2.0)

    base = dg.ones(6)
    f(base[:4], base[2:])
    np.testing.assert_array_equal(base.numpy(), np.array([4, 4, 6, 6, 2, 2], "f4"))
    f(base[:4], base[2:])
    np.testing.assert_array_equal(base.numpy(), np.array([16, 16, 26, 26, 3, 3], "f4"))
    assert f.n_traces == 1


def test_row28_disjoint_views_of_one_base_share_a_program():
    @dg.function(strict=True)
    def f(x, y):
        x.add_(y)

    base = dg.ones((6, 4))
    f(base[:, 0], base[:, 1])
    f(base[:, 2], base[:, 0])
    f(base[:, 3], base[:, 2])
    assert f.n_traces == 1
    np.testing.assert_array_equal(base.numpy()[0], np.array([2, 1, 3, 4], "f4"))


def test_row28_only_the_pattern_that_cannot_be_followed_is_eager():
    """Elements that overlap among themselves are written one after the other in eager mode."""
    memory = np.arange(6, dtype=np.float32)
    windows = np.lib.stride_tricks.as_strided(memory, (4, 3), (4, 4))

    @dg.function
    def f(x):
        x.add_(1.0)
        return x.sum()

    def expected(x):
        return f.__wrapped__(x)

    assert f(dg.zeros((4, 3))).item() == 12.0
    with pytest.warns(EagerFallback, match="whose elements may share memory"):
        f(dg.from_numpy(windows))
    assert f(dg.zeros((4, 3))).item() == 12.0
    assert f.n_traces == 1
    assert [p.runs for p in f.paths] == [2]


def test_row28_read_only_memory_raises_for_that_call_alone():
    @dg.function(strict=True)
    def f(x):
        return x.add_(1.0)

    memory = np.zeros(3, np.float32)
    memory.flags.writeable = False
    fixed = dg.from_numpy(memory)
    for _ in range(2):
        np.testing.assert_array_equal(f(dg.zeros(3)).numpy(), np.ones(3, "f4"))
        with pytest.raises(ArgumentError, match="the memory cannot be written"):
            f(fixed)
        assert not memory.any()
    assert f.n_traces == 1


def test_row28_other_dtypes_over_the_same_bytes():
    memory = np.zeros(4, np.float32)

    @dg.function
    def f(x, y):
        x.add_(1.0)
        return y + 1

    views = dg.from_numpy(memory), dg.from_numpy(memory.view(np.int32))
    with pytest.warns(EagerFallback, match="different dtypes"):
        out = f(*views)
    assert out.tolist() == [0x3F800001] * 4
    assert f(dg.zeros(4), dg.zeros(4, dtype=dg.int32)).tolist() == [1] * 4
    assert f(*views).tolist() == [0x40000001] * 4


def test_row28_a_flat_buffer_and_its_parts():
    """Parameters that are views of one buffer, which the function also reads as a whole."""

    class Flat:
        def __init__(self):
            self.flat = dg.arange(6.0)
            self.parts = [self.flat[0:2], self.flat[2:6].reshape(2, 2)]

        def step(self):
            for part in self.parts:
                part.mul_(0.5)
            return self.flat.sum()

    plain, compiled = Flat(), Flat()
    step = dg.function(Flat.step, strict=True)
    for _ in range(3):
        assert step(compiled).item() == plain.step().item()
        np.testing.assert_array_equal(compiled.flat.numpy(), plain.flat.numpy())
    assert step.n_traces == 1


def test_row28_parts_alone_are_programs_of_their_own():
    """What the function does not read need not lie where it lay."""

    @dg.function(strict=True)
    def f(x, y, unused):
        x.add_(y)

    base = dg.ones(8)
    f(base[:4], base[4:], base)
    f(dg.ones(4), dg.ones(4), base)
    f(base[4:], base[:4], dg.ones(8))
    assert f.n_traces == 1
    np.testing.assert_array_equal(base.numpy(), np.array([2] * 4 + [3] * 4, "f4"))


def test_row29_same_tensor_twice():
    @dg.function(strict=True)
    def f(x, y):
        x.add_(1.0)
        y.mul_(2.0)
        return x * y

    for make in (lambda x: (x, x), lambda x: (x, x.detach()), lambda x: (x, x[:])):
        x = dg.ones(3)
        for expected in (4.0, 10.0):
            np.testing.assert_array_equal(f(*make(x)).numpy(), np.full(3, expected**2, "f4"))
            np.testing.assert_array_equal(x.numpy(), np.full(3, expected, "f4"))
    other = dg.ones(3)
    np.testing.assert_array_equal(f(dg.ones(3), other).numpy(), np.full(3, 4, "f4"))
    np.testing.assert_array_equal(other.numpy(), np.full(3, 2, "f4"))
    assert f.n_traces <= 3


def test_row30_returned_inputs_are_the_same_objects():
    @dg.function(strict=True)
    def f(x, y):
        x.add_(1.0)
        return x, {"y": y, "again": x}, y[1:], x.detach()

    for _ in range(3):
        x, y = dg.zeros(3), dg.zeros(3)
        a, d, part, second = f(x, y)
        assert a is x
        assert d["y"] is y
        assert d["again"] is x
        part.fill_(5.0)
        second.add_(1.0)
        assert y.tolist() == [0.0, 5.0, 5.0]
        assert x.tolist() == [2.0, 2.0, 2.0]
    assert f.n_traces == 1


def test_row30_views_of_values_made_inside():
    @dg.function(strict=True)
    def f(x):
        y = x * 2.0
        row, turned = y[0], y.T
        row.add_(1.0)
        return turned, y.detach()[1:], row

    for _ in range(3):
        turned, rest, row = f(dg.ones((2, 2)))
        assert turned.tolist() == [[3.0, 2.0], [3.0, 2.0]]
        row.fill_(7.0)
        rest.zero_()
        assert turned.tolist() == [[7.0, 0.0], [7.0, 0.0]]
    assert f.n_traces == 1


def test_row31_kept_results_never_change():
    @dg.function(strict=True)
    def f(x):
        y = x * 2.0
        return y, y[1:], y.sum()

    kept = [f(dg.full((3,), float(k))) for k in range(50)]
    for k, (y, part, total) in enumerate(kept):
        assert y.tolist() == [2.0 * k] * 3
        assert part.tolist() == [2.0 * k] * 2
        assert total.item() == 6.0 * k


def test_need19_result_of_a_call_is_argument_of_the_next():
    @dg.function(strict=True)
    def f(x):
        return (x + 1.0) * 2.0

    x = dg.zeros(4)
    seen = [x]
    for _ in range(6):
        seen.append(f(seen[-1]))
    assert [t.tolist()[0] for t in seen] == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0, 126.0]
    assert f(f(x)).tolist() == [6.0] * 4
    assert f.n_traces == 1


def test_need19_accumulation_over_micro_batches():
    def run(decorate):
        dg.seed(3)
        model = dg.nn.Linear(4, 2)
        data = [dg.randn(5, 4) for _ in range(8)]

        @decorate
        def micro(x):
            loss = (model(x) ** 2).mean() / 8.0
            loss.backward()
            return loss.detach()

        losses = [micro(x).item() for x in data]
        return losses, [p.grad.numpy().tobytes() for p in model.parameters()], micro

    losses, grads, _ = run(lambda f: f)
    again, compiled, micro = run(dg.function(strict=True))
    assert again == losses
    assert compiled == grads
    assert micro.n_traces == 2  # without gradients, with gradients


def test_row28_one_value_written_to_two_inputs():
    """The copy that ends in one input was once taken for the copy that ends in the other."""

    @dg.function(strict=True)
    def f(x, second, y):
        second += second
        y.copy_(second)
        return y.sum()

    x, y = dg.arange(3.0), dg.zeros(3)
    assert f(x, x.detach(), y).item() == 6.0
    assert x.tolist() == y.tolist() == [0.0, 2.0, 4.0]


def reason(kind):
    """A function that runs eagerly for a reason."""
    weight = dg.ones(3, requires_grad=True)

    def outside_graph(x):
        x[1:] = weight[1:] * 2.0
        return x.detach()

    def value(x):
        y = x[1:]
        return y.sum().item()

    def error(x):
        y = x[1:]
        raise ValueError(str(y.shape))

    return {"graph": outside_graph, "value": value, "error": error}[kind]


@pytest.mark.parametrize("kind", ["graph", "value", "error"])
def test_row28_what_a_failed_trace_made_is_gone(kind):
    """A tensor does not remember views that the trace made."""
    f = dg.function(reason(kind))
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            x = dg.zeros(3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(ValueError):
                    f(x)
            assert not x.views
            alive = weakref.ref(x)
            del x
            assert alive() is None
    finally:
        gc.enable()


def test_row28_a_row_that_begins_behind_its_family():
    """A member was once taken for the whole row: its end was counted from the family's start."""

    @dg.function(strict=True)
    def f(x, y, unused):
        y.mul_(2.0)
        return x * 0.5

    base = dg.arange(9.0)
    assert f(base[3:9], base[3:7], base[1:4]).tolist() == [3.0, 4.0, 5.0, 6.0, 3.5, 4.0]
    assert base.tolist() == [0.0, 1.0, 2.0, 6.0, 8.0, 10.0, 12.0, 7.0, 8.0]
