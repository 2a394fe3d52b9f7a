"""Tensors on a CUDA device in eager mode: where they are, what they share, what mixes."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, same_bits

import dualgrad as dg
from dualgrad import dispatch, nn
from dualgrad.backends import cuda as cuda_backend
from dualgrad.dispatch import Planner
from dualgrad.display import summary
from dualgrad.runtime import cuda
from dualgrad.runtime.device_array import DeviceArray, overlaps
from dualgrad.runtime.driver import Driver
from dualgrad.runtime.errors import (
    ArgumentError,
    DeviceError,
    GradientError,
    IndexOutOfBounds,
)
from dualgrad.runtime.library import LinAlgError
from dualgrad.runtime.profile import counters
from gpu import shim
from gpu.standin import Standin

pytestmark = pytest.mark.usefixtures("gpu")


def numbers(*shape: int, seed: int = 0) -> dg.Tensor:
    return dg.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def on_both(function: Callable[..., Any], *xs: dg.Tensor) -> dg.Tensor:
    """The result on the device, whose bits are those of the CPU."""
    found = function(*(x.cuda() for x in xs))
    assert found.device == "cuda:0"
    same_bits(found.detach().cpu(), function(*xs).detach())
    return found  # type: ignore[no-any-return]


# -- arrays ---------------------------------------------------------------------------------------


KEYS: list[tuple[Any, ...]] = [
    (1, ...),
    (slice(1, 3), ...),
    (..., None, slice(0, 6, 2)),
    (-1, -2, -3, ...),
    (slice(5, 1), ...),
    (None, 0, ..., slice(1, None, 3)),
    (slice(None), slice(4, None), slice(2, 2)),
    (..., 2),
    (Ellipsis,),
    (slice(1, -1),),
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_views_of_arrays_are_those_of_numpy(key: tuple[Any, ...], gpu: Driver) -> None:
    x = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    array = DeviceArray.from_host(gpu, x)
    view, want = array[key], x[key]
    if len(key) == 1:
        same_bits(array[key[0]].to_host(), want)
    same_bits(view.to_host(), want)
    assert view.memory is array.memory
    assert view.c_contiguous == want.flags.c_contiguous or not want.size
    same_bits(view.copy().to_host(), want)
    assert overlaps(view, array) == bool(want.size)


@pytest.mark.parametrize("key", [(4, ...), (0, 0, 0, 0, ...), (0, -6, ...)])
def test_positions_outside_of_arrays(key: tuple[Any, ...], gpu: Driver) -> None:
    with pytest.raises(IndexError):
        DeviceArray.from_host(gpu, np.zeros((4, 5, 6)))[key]


def test_overlap_is_a_matter_of_bytes(gpu: Driver) -> None:
    a = DeviceArray.from_host(gpu, np.zeros((4, 5)))
    assert overlaps(a[1, ...], a)
    assert not overlaps(a[1, ...], a[2, ...])
    assert not overlaps(a, DeviceArray.from_host(gpu, np.zeros((4, 5))))
    assert not overlaps(a, np.zeros(3))
    x = np.zeros(9)
    assert overlaps(x, x[3:])


@pytest.mark.parametrize("value", [0, 1.5, -1])
def test_fill(value: float, gpu: Driver) -> None:
    for dtype in (np.float32, np.int8, np.float64):
        array = DeviceArray.from_host(gpu, np.ones((3, 5), dtype))
        array.fill(value)
        same_bits(array.to_host(), np.full((3, 5), value, dtype))


def test_other_libraries_see_the_memory() -> None:
    x = dg.ones(3, 4, device="cuda")
    assert x.array is not None
    seen = x[:, 1:].__cuda_array_interface__
    assert seen["data"] == (x.array.address + 4, False)  # type: ignore[union-attr]
    assert (seen["shape"], seen["strides"], seen["typestr"]) == ((3, 3), (16, 4), "<f4")
    assert x.__cuda_array_interface__["strides"] is None
    assert not hasattr(dg.ones(3), "__cuda_array_interface__")


# -- places ---------------------------------------------------------------------------------------


def test_there_and_back() -> None:
    x = numbers(3, 4)
    y = x.to("cuda")
    assert (x.device, y.device, y.is_cuda, x.is_cuda) == ("cpu", "cuda:0", True, False)
    assert y.to("cuda:0") is y
    assert y.cuda() is y
    assert x.cpu() is x
    for z in (y.cpu(), y.to("cpu"), y.to(x), y.to(device="cpu"), y.type_as(x)):
        assert z.device == "cpu"
        same_bits(z, x)


def test_device_and_dtype_at_once() -> None:
    x = dg.tensor([1.5, -2.5, 300.0])
    for y in (x.to("cuda", dg.float16), x.to(dg.float16, device="cuda"), x.cuda().half()):
        assert (y.device, y.dtype) == ("cuda:0", dg.float16)
        assert y.tolist() == [1.5, -2.5, 300.0]
    assert x.to("cuda", "int32").tolist() == [1, -2, 300]
    assert x.cuda().to("cpu", dg.float64).dtype is dg.float64


def test_views_travel_with_their_own_elements() -> None:
    x = numbers(6, 8)
    for view in (x.T, x[1:, ::3], x[2], x[:, 0], x[:1].expand(4, 8)):
        same_bits(view.cuda().cpu(), view)
    y = x.cuda()
    for there, here in ((y.T, x.T), (y[1:, ::3], x[1:, ::3]), (y[:, 0], x[:, 0])):
        same_bits(there.cpu(), here)
        assert there.tolist() == here.tolist()


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "float16", "bfloat16", "float64"])
def test_dtypes_travel(dtype: str) -> None:
    x = dg.tensor([0.0, 1.0, 2.5, 255.0]).to(dtype)
    assert x.cuda().cpu().dtype is x.dtype
    assert x.cuda().tolist() == x.tolist()


def test_numpy_and_storage_are_refused_with_a_hint() -> None:
    x = dg.ones(3, device="cuda")
    for read in (x.numpy, x.storage, lambda: np.asarray(x)):
        with pytest.raises(DeviceError, match=r"x\.cpu\(\)\.numpy\(\)"):
            read()
    with pytest.raises(DeviceError, match=r"\.cpu\(\)"):
        np.asarray(x.array)


def test_values() -> None:
    x = dg.tensor([[1.5, 2.0]], device="cuda")
    assert x.tolist() == [[1.5, 2.0]]
    assert x[0, 0].item() == float(x[0, 0]) == 1.5
    assert int(x[0, 1]) == 2
    assert bool(x.any())
    assert len(x) == 1
    assert [row.tolist() for row in x] == [[1.5, 2.0]]
    assert repr(x) == "tensor([[1.5, 2. ]], device='cuda:0')"
    assert f"{x[0, 0]:.2f}" == "1.50"
    assert repr(x.requires_grad_().sum()).endswith("device='cuda:0', grad_fn=<sum>)")


@pytest.mark.parametrize("shape", [(5000,), (40, 50), (30, 7, 99), (2000, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
def test_large_tensors_are_shown_by_their_ends(
    shape: tuple[int, ...], dtype: str, gpu: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (numbers(*shape) * 100).to(dtype)
    there, sizes, download = x.cuda(), [], gpu.download
    for tensor, other in ((x, there), (x.T, there.T)):
        assert repr(other).replace(", device='cuda:0'", "") == repr(tensor)
    monkeypatch.setattr(summary, "FETCHED", 100)  # as if these were too large for a summary
    monkeypatch.setattr(gpu, "download", lambda d, a: (sizes.append(d.nbytes), download(d, a)))
    for tensor, other in ((x, there), (x.T, there.T)):
        found, wanted = (repr(t).replace(", device='cuda:0'", "") for t in (other, tensor))
        assert wanted.startswith(found[:-1] + ",\n       min=")
    assert sum(sizes) < x.size * x.dtype.itemsize


def test_copies() -> None:
    x = dg.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    (x * x).sum().backward()
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other.device == "cuda:0"
        assert other.requires_grad
        assert other.grad is not None
        assert other.grad.device == "cuda:0"
        assert (other.tolist(), other.grad.tolist()) == ([1.0, 2.0], [2.0, 4.0])
    assert copy.copy(x).array is x.array


def test_a_device_that_is_not_there() -> None:
    for make in (lambda: dg.zeros(2, device="cuda:7"), lambda: dg.ones(2).to("cuda:7")):
        with pytest.raises(DeviceError, match="no such device"):
            make()
    with pytest.raises(DeviceError, match=r"\[zeros\] unknown device"):
        dg.zeros(2, device="gpu")


def test_name_space(gpu: Driver) -> None:
    assert dg.cuda.is_available()
    assert dg.cuda.device_count() == 1
    assert dg.cuda.current_device() == 0
    assert dg.cuda.get_device_name() == gpu.info(0).name == dg.cuda.get_device_name("cuda:0")
    assert dg.cuda.get_device_capability(0) >= (7, 0)
    before = dg.cuda.memory_allocated()
    x = dg.zeros(1000, device="cuda")
    assert dg.cuda.memory_allocated() - before >= 4000
    dg.cuda.synchronize()
    free, total = dg.cuda.mem_get_info()
    assert 0 < free <= total
    del x
    assert dg.cuda.memory_allocated() == before
    dg.cuda.empty_cache()
    with pytest.raises(DeviceError, match="no CUDA device"):
        dg.cuda.synchronize("cpu")


# -- making tensors -------------------------------------------------------------------------------


MAKE: dict[str, Callable[[Any], dg.Tensor]] = {
    "zeros": lambda d: dg.zeros(2, 3, device=d),
    "ones": lambda d: dg.ones((2, 300), device=d),
    "full": lambda d: dg.full((2, 700), 2.5, device=d),
    "full of ints": lambda d: dg.full((2000,), 2**64 - 3, dtype="uint64", device=d),
    "full of halves": lambda d: dg.full((2000,), 0.1, dtype="bfloat16", device=d),
    "full of a tensor": lambda d: dg.full((2, 3), dg.tensor(2.5), device=d),
    "tensor": lambda d: dg.tensor([[1, 2], [3, 4]], device=d),
    "number": lambda d: dg.tensor(4.5, device=d),
    "tensor of a tensor": lambda d: dg.tensor(dg.ones(3), dtype="int32", device=d),
    "asarray": lambda d: dg.asarray([1.0, 2.0], device=d),
    "asarray of an array": lambda d: dg.asarray(np.arange(3), dtype="float32", device=d),
    "arange": lambda d: dg.arange(2, 9, 3, device=d),
    "linspace": lambda d: dg.linspace(0, 1, 5, device=d),
    "logspace": lambda d: dg.logspace(0, 1, 5, device=d),
    "eye": lambda d: dg.eye(3, 4, k=1, device=d),
    "tri": lambda d: dg.tri(3, dtype="float16", device=d),
    "empty_like": lambda d: dg.empty_like(dg.ones(2, 3), device=d).zero_(),
    "zeros_like": lambda d: dg.zeros_like(dg.ones(2, 3), device=d),
    "ones_like": lambda d: dg.ones_like(dg.ones(2, 3), device=d),
    "full_like": lambda d: dg.full_like(dg.ones(2, 3), 7, device=d),
    "no elements": lambda d: dg.full((0, 3), 7.0, device=d),
}


@pytest.mark.parametrize("name", MAKE)
def test_creation(name: str) -> None:
    made, want = MAKE[name]("cuda"), MAKE[name]("cpu")
    assert made.device == "cuda:0"
    assert made.dtype is want.dtype
    same_bits(made.cpu(), want)


def test_creation_like_a_tensor_stays_with_it() -> None:
    x = dg.ones(2, 3, device="cuda")
    for y in (dg.zeros_like(x), dg.ones_like(x), dg.full_like(x, 3), dg.empty_like(x)):
        assert y.device == "cuda:0"
    for y in (dg.rand_like(x), dg.randn_like(x), dg.tensor(x), dg.asarray(x)):
        assert y.device == "cuda:0"
    assert dg.zeros_like(x, device="cpu").device == "cpu"
    assert dg.asarray(x) is x
    with pytest.raises(ArgumentError, match="a copy is needed"):
        dg.asarray(x, device="cpu", copy=False)


def test_zeros_take_no_kernel() -> None:
    before = counters.kernels
    dg.zeros(1000, 10, device="cuda")
    assert counters.kernels == before


# -- random numbers -------------------------------------------------------------------------------


DRAW: dict[str, Callable[[str], dg.Tensor]] = {
    "rand": lambda d: dg.rand(5, 7, device=d),
    "randn": lambda d: dg.randn(33, device=d),
    "double": lambda d: dg.randn(9, dtype="float64", device=d),
    "half": lambda d: dg.rand(9, dtype="bfloat16", device=d),
    "uniform": lambda d: dg.uniform((4, 3), -1, 2, device=d),
    "normal of tensors": lambda d: dg.normal((4,), dg.arange(4, device=d) * 1.0, 2.0),
    "exponential": lambda d: dg.exponential((6,), 2.0, device=d),
    "bernoulli": lambda d: dg.bernoulli(0.25, (40,), device=d),
    "bernoulli of a tensor": lambda d: dg.bernoulli(dg.full((9,), 0.5, device=d)),
    "randint": lambda d: dg.randint(-5, 9, (20,), device=d),
    "randperm": lambda d: dg.randperm(12, device=d),
    "multinomial": lambda d: dg.multinomial(dg.ones(6, device=d), 4),
    "choices": lambda d: dg.multinomial(dg.ones(2, 6, device=d), 9, replacement=True),
    "uniform_": lambda d: dg.zeros(9, device=d).uniform_(1, 2),
    "normal_": lambda d: dg.zeros(9, device=d).normal_(),
    "random_": lambda d: dg.zeros(9, dtype="int32", device=d).random_(),
    "bernoulli_": lambda d: dg.zeros(9, device=d).bernoulli_(0.5),
    "dropout": lambda d: dg.functional.dropout(dg.ones(50, device=d), 0.5),
    "rrelu": lambda d: dg.functional.rrelu(-dg.ones(9, device=d), training=True),
}


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("seed", [3, 2**64 - 5])
def test_random_numbers_are_those_of_the_cpu(name: str, seed: int) -> None:
    """So are the positions of the stream: what is drawn next is equal, too."""
    found = []
    for device in ("cpu", "cuda:0"):
        dg.seed(seed)
        first, second = DRAW[name](device), DRAW[name](device)
        assert first.device == device
        found.append((first.cpu(), second.cpu(), dg.rand(3)))
    for here, there in zip(*found, strict=True):
        same_bits(there, here)


def test_random_numbers_wait_for_nothing(gpu: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw() -> None:
        dg.functional.dropout(dg.rand(8, device="cuda"), 0.5)
        dg.randn(8, device="cuda")

    draw()
    for name in ("download", "synchronize", "upload"):
        monkeypatch.setattr(gpu, name, None)
    draw()


def test_dropout_has_the_gradient_of_the_cpu() -> None:
    grads = []
    for device in ("cpu", "cuda"):
        dg.seed(1)
        x = dg.ones(40, device=device, requires_grad=True)
        dg.functional.dropout(x, 0.3).sum().backward()
        assert x.grad is not None
        grads.append(x.grad.cpu())
    same_bits(grads[1], grads[0])


# -- what mixes -----------------------------------------------------------------------------------


def test_numbers_have_no_device() -> None:
    x = numbers(3)
    on_both(lambda x: x * 2 + 1, x)
    on_both(lambda x: 1.5 - x, x)
    on_both(lambda x: x * np.float32(2.5), x)
    on_both(lambda x: np.float64(2.5) * x, x)
    on_both(lambda x: dg.where(x > 0, x, 0.0), x)


MIXED: dict[str, Callable[[dg.Tensor, dg.Tensor], Any]] = {
    "add": lambda x, y: x + y,
    "matmul": lambda x, y: x @ y,
    "concat": lambda x, y: dg.cat([x, y]),
    "where": lambda x, y: dg.where(x > 0, x, y),
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("first", ["cpu", "cuda:0"])
def test_devices_do_not_mix(name: str, first: str) -> None:
    second = "cpu" if first == "cuda:0" else "cuda:0"
    x, y = dg.ones(2, 2, device=first), dg.ones(2, 2, device=second)
    with pytest.raises(DeviceError, match="operands are on different devices") as caught:
        MIXED[name](x, y)
    text = str(caught.value)
    assert text.startswith(f"[{name}]")
    assert f"{first} (" in text
    assert f"{second} (" in text
    assert 'hint: move one of them: .to("cuda") or .cpu()' in text
    assert re.search(r"at .*test_tensors\.py:\d+", text)


def test_a_number_on_the_cpu_is_a_tensor_too() -> None:
    with pytest.raises(DeviceError, match=r"second operand, f32\[\]\)") as caught:
        dg.ones(2, device="cuda") + dg.tensor(1.0)
    assert '.to("cuda")' in caught.value.hint


def test_changes_in_place_do_not_mix() -> None:
    x = dg.ones(2, device="cuda")
    with pytest.raises(DeviceError, match="different devices"):
        x += dg.ones(2)
    with pytest.raises(DeviceError, match="different devices"):
        x[0] = dg.tensor(1.0)
    with pytest.raises(DeviceError, match="different devices"):
        x[dg.tensor([0, 1])]


def test_a_seed_from_elsewhere() -> None:
    x = dg.ones(2, device="cuda", requires_grad=True)
    with pytest.raises(DeviceError, match=r"\[backward\]"):
        (x * 2).backward(dg.ones(2))
    with pytest.raises(DeviceError, match=r"\[grad\]"):
        x.grad = dg.ones(2)


def test_copy_brings_values_over() -> None:
    x, y = dg.zeros(2, 3), dg.ones(3, device="cuda")
    x.copy_(y)
    assert x.tolist() == [[1.0] * 3] * 2
    y.copy_(dg.tensor([1, 2, 3]))
    assert (y.device, y.tolist()) == ("cuda:0", [1.0, 2.0, 3.0])


# -- sharing and changing -------------------------------------------------------------------------


def test_views_share_memory() -> None:
    x = numbers(4, 6).cuda()
    for view in (x[1], x.T, x[:, ::2], x.reshape(3, 8), x.unsqueeze(0), x.detach(), x[1:3].T):
        view.fill_(1.0)
    assert (x == 1).all()
    view = x[2:4, 1]
    view += 5
    assert x[2, 1].item() == x[3, 1].item() == 6.0
    assert x.version == 8


def test_a_view_outlives_its_base() -> None:
    view = numbers(100, 100).cuda()[3]
    for _ in range(3):
        dg.zeros(100, 100, device="cuda")
    same_bits(view.cpu(), numbers(100, 100)[3])


def test_changing_what_is_read() -> None:
    x = numbers(5, 5)

    def f(x: dg.Tensor) -> dg.Tensor:
        x = x.clone()
        x.copy_(x.T)
        x[1:] = x[:-1]
        x.add_(x[0])
        return x

    on_both(f, x)


def test_assignment() -> None:
    def f(x: dg.Tensor) -> dg.Tensor:
        x = x.clone()
        x[0] = 1.5
        x[1:, ::2] = [[7.0, 8.0], [9.0, 1.0]]
        x[x > 5] = -1.0
        x[[0, 2], [1, 1]] = np.array([4.0, 5.0], np.float32)
        x[..., -1] = x[..., 0]
        return x

    on_both(f, numbers(3, 4))


def test_indexing() -> None:
    x = numbers(5, 6)
    on_both(lambda x: x[[0, 3, -1]], x)
    on_both(lambda x: x[x > 0], x)
    on_both(lambda x: x[:, np.array([1, 1])], x)
    on_both(lambda x: x[1:4, dg.tensor([2, 0], device=x.device)], x)
    on_both(lambda x: x.nonzero(), x)
    on_both(lambda x: x.masked_select(x > 0), x)
    on_both(lambda x: x.round().unique(), x)
    assert x.cuda()[2, 3].item() == x[2, 3].item()


def test_failed_checks_read_as_on_the_cpu() -> None:
    def text(device: str) -> str:
        with pytest.raises(IndexOutOfBounds) as caught:
            dg.take(dg.ones(5, device=device), dg.tensor([1, -7], device=device))
        return str(caught.value)

    assert text("cuda").splitlines()[:3] == text("cpu").splitlines()[:3]
    with pytest.raises(IndexOutOfBounds, match="actual: 5"):
        dg.ones(3, device="cuda")[5]


def test_functions_of_the_host() -> None:
    a = numbers(4, 4) @ numbers(4, 4).T + dg.eye(4) * 4
    on_both(dg.linalg.inv, a)
    on_both(lambda a: dg.linalg.cholesky(a) * 2, a)
    on_both(lambda a: a.T.sort(-1)[0], a)
    with pytest.raises(LinAlgError, match=r"\[inv\] singular matrix"):
        dg.linalg.inv(dg.zeros(2, 2, device="cuda"))


# -- gradients ------------------------------------------------------------------------------------


def test_gradients_are_on_the_device() -> None:
    grads = []
    for device in ("cpu", "cuda"):
        x, w = numbers(8, 5).to(device), numbers(5, 3, seed=1).to(device).requires_grad_()
        for _ in range(2):
            dg.functional.cross_entropy(x @ w, dg.arange(8, device=device) % 3).backward()
        assert w.grad is not None
        assert w.grad.device == w.device
        grads.append(w.grad.cpu())
    same_bits(grads[1], grads[0])


def test_gradients_cross_devices() -> None:
    x = numbers(4).requires_grad_()
    y = (x.cuda() * 3).square().cpu()
    (y * dg.arange(4)).sum().backward()
    assert x.grad is not None
    assert x.grad.device == "cpu"
    want = numbers(4).requires_grad_()
    ((want * 3).square() * dg.arange(4)).sum().backward()
    same_bits(x.grad, want.grad)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_second_derivatives_cross_devices(dtype: str) -> None:
    x = dg.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    (x.cuda() ** 3).cpu().sum().backward(create_graph=True)
    assert x.grad is not None
    first, x.grad = x.grad, None
    (first * first).sum().backward()
    assert first.tolist() == [3.0, 12.0]
    assert x.grad is not None
    assert x.grad.tolist() == [36.0, 288.0]
    assert x.grad.device == "cpu"


def test_recorded_changes_of_views() -> None:
    def f(x: dg.Tensor) -> dg.Tensor:
        x = x.detach().requires_grad_()
        y = x * 2
        y[1:].mul_(3.5)
        y.square().sum().backward()
        return x.grad  # type: ignore[return-value]

    on_both(f, numbers(3, 4))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
def test_few_elements(shape: tuple[int, ...]) -> None:
    def f(x: dg.Tensor) -> dg.Tensor:
        x = x.detach().requires_grad_()
        y = (x * 2 + 1).exp()
        assert dg.isfinite(y).all()
        y.sum().backward()
        assert x.grad is not None
        x.grad.add_(1)
        return x.grad.reshape(-1)

    on_both(f, numbers(*shape))


def test_a_freed_graph_is_found() -> None:
    x = dg.ones(2, device="cuda", requires_grad=True)
    y = (x * 2).exp()
    y.sum().backward()
    with pytest.raises(GradientError, match="freed"):
        y.sum().backward()


# -- modules and optimizers -----------------------------------------------------------------------


def net() -> nn.Sequential:
    dg.seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_modules_move_and_stay_the_same_objects() -> None:
    model = net()
    parameters = list(model.parameters())
    parameters[0].sum().backward()
    before = [as_array(p).copy() for p in parameters]
    assert model.cuda() is model
    assert all(p is q for p, q in zip(parameters, model.parameters(), strict=True))
    assert {p.device for p in parameters} == {"cuda:0"}
    assert parameters[0].grad is not None
    assert parameters[0].grad.device == "cuda:0"
    assert all(p.is_leaf and p.requires_grad for p in parameters)
    model.to("cpu")
    for p, want in zip(parameters, before, strict=True):
        same_bits(p, want)
    assert model.to("cuda", dg.float64)(dg.ones(1, 6, device="cuda").double()).shape == (1, 3)
    assert model.cpu()[0].weight.dtype is dg.float64
    assert nn.Linear(2, 3, device="cuda").weight.device == "cuda:0"
    dg.seed(0)
    there = nn.Linear(2, 3, device="cuda")
    dg.seed(0)
    same_bits(there.weight.cpu(), nn.Linear(2, 3).weight)
    with pytest.raises(TypeError, match="float"):
        model.to("cuda", dg.int64)


def test_a_moved_parameter_is_not_what_the_tape_has_seen() -> None:
    x = nn.Parameter(dg.ones(3))
    module = nn.Module()
    module.x = x
    y = (x * x).sum()
    module.cuda()
    with pytest.raises(GradientError, match="changed in place"):
        y.backward()


def test_states_load_from_either_side() -> None:
    model, other = net().cuda(), net()
    with dg.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    other.load_state_dict(model.state_dict())
    same_bits(other[0].weight, model[0].weight.cpu())
    model.load_state_dict(net().state_dict())
    same_bits(model[2].bias.cpu(), net()[2].bias)
    assert model[2].bias.device == "cuda:0"


OPTIMIZERS: dict[str, Callable[[Any], dg.optim.Optimizer]] = {
    "sgd": lambda ps: dg.optim.SGD(ps, lr=0.1),
    "momentum": lambda ps: dg.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda ps: dg.optim.Adam(ps, lr=0.01),
    "adamw": lambda ps: dg.optim.AdamW(ps, lr=0.01),
    "rmsprop": lambda ps: dg.optim.RMSprop(ps, lr=0.01),
}


def trained(device: str, name: str, late: bool = False) -> list[Array]:
    model = net() if late else net().to(device)
    optimizer = OPTIMIZERS[name](model.parameters())
    model.to(device)
    x, labels = numbers(16, 6).to(device), (dg.arange(16) % 3).to(device)
    for _ in range(3):
        optimizer.zero_grad()
        dg.functional.cross_entropy(model(x), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    assert all(
        t.device == model[0].weight.device for s in optimizer.state.values() for t in s.values()
    )
    return [as_array(p.cpu()) for p in model.parameters()]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_has_the_bits_of_the_cpu(name: str, late: bool) -> None:
    for here, there in zip(trained("cpu", name), trained("cuda", name, late), strict=True):
        same_bits(there, here)


# -- programs -------------------------------------------------------------------------------------


def test_programs_come_from_the_disk(gpu: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers(7, 3).cuda()
    a = numbers(3, 3).cuda() + dg.eye(3, device="cuda") * 5
    first = [(x * 2).softmax(-1).cpu(), x.exp().sum(0).cpu(), dg.linalg.inv(a).cpu()]
    dispatch.forget()
    monkeypatch.setattr(dispatch, "compile_graph", None)
    again = [(x * 2).softmax(-1).cpu(), x.exp().sum(0).cpu(), dg.linalg.inv(a).cpu()]
    for one, other in zip(first, again, strict=True):
        same_bits(other, one)


def test_wide_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lower limit, programs for many elements are those of wide indices."""
    wide: list[bool] = []
    make = Planner.variant

    def variant(self: Planner, *parts: Any) -> Any:
        wide.append(self.wide)
        return make(self, *parts)

    monkeypatch.setattr(Planner, "variant", variant)
    monkeypatch.setattr(cuda_backend, "INDEX_LIMIT", 1000)
    on_both(lambda x: (x * 7.25).sum(-1), numbers(40, 30))
    assert True in wide
    wide.clear()
    on_both(lambda x: x * 7.125, numbers(5, 6))
    assert True not in wide


def test_only_checked_programs_wait(gpu: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = numbers(4, 5).cuda(), dg.tensor([1, 2, 3, 0], device="cuda")
    x.softmax(-1)
    dg.take(x, labels, axis=0)
    waits = []
    download = gpu.download
    monkeypatch.setattr(gpu, "download", lambda *a: (waits.append(a), download(*a))[1])
    x.softmax(-1)
    assert not waits
    dg.take(x, labels, axis=0)
    assert len(waits) == 1


def test_large_integers_are_refused() -> None:
    with pytest.raises(ArgumentError, match="a Python integer is too large"):
        dg.ones(2, dtype="int64", device="cuda") + 2**70


@pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))
def test_drivers_are_not_mixed_up() -> None:
    dg.ones(3, device="cuda") * 1.25
    with cuda.installed(Standin()):
        assert (dg.ones(3, device="cuda") * 1.25).tolist() == [1.25] * 3
