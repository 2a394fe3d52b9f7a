"""`@dg.function` on CUDA tensors: the bits of eager mode there, and those of the CPU.

Each case is a function of (device) that makes a function of tensors and its arguments; it runs on
the CPU, eagerly on the device, and compiled on the device, several times, with equal results.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, same_bits

import dualgrad as dg
from dualgrad import functional, nn, optim, random
from dualgrad.backends import cuda as cuda_backend
from dualgrad.jit.function import EagerFallback, Function
from dualgrad.runtime import cuda
from dualgrad.runtime.driver import Driver
from dualgrad.runtime.errors import DeviceError, IndexOutOfBounds
from gpu.standin import Standin

pytestmark = pytest.mark.usefixtures("gpu")
Case = tuple[Callable[..., Any], list[Any]]
ALIASES = {"moved_before_it_changes"}  # x.cpu() is x itself where x is on the CPU
CASES: dict[str, Callable[[str], Case]] = {}


def case(build: Callable[[str], Case]) -> Callable[[str], Case]:
    CASES[build.__name__] = build
    return build


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def on(device: str, *arrays: Any) -> list[dg.Tensor]:
    return [dg.tensor(a, device=device) for a in arrays]


def found(x: Any) -> list[Any]:
    """Everything in a result, tensors as (device, array)."""
    if isinstance(x, dg.Tensor):
        return [(x.device, as_array(x.detach().cpu()).copy(), x.requires_grad)]
    if isinstance(x, list | tuple):
        return [part for y in x for part in found(y)]
    if isinstance(x, dict):
        return found(list(x.values()))
    return [x]


def run(build: Callable[[str], Case], device: str, compiled: bool, calls: int = 3) -> list[Any]:
    dg.seed(1)
    f, arguments = build(device)
    g = dg.function(f, strict=True) if compiled else f
    out = []
    for _ in range(calls):
        out += found(g(*arguments))
        out += found([a for a in arguments if isinstance(a, dg.Tensor)])
    if compiled:
        assert isinstance(g, Function)
        assert g.eager_reason is None
    return out


def agree(got: list[Any], want: list[Any], what: str, devices: bool = True) -> None:
    assert len(got) == len(want)
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        if isinstance(a, tuple):
            same_bits(a[1], b[1], f"{what}, result {k}")
            assert a[2] == b[2]
            assert a[0] == b[0] or not devices, f"{what}, result {k}"
        else:
            assert a == b, f"{what}, result {k}"


# -- one program ----------------------------------------------------------------------------------


@case
def elementwise_and_sum(device: str) -> Case:
    return lambda x, y: ((x * 2 + y).tanh().sum(), x @ y.T), on(
        device, numbers(5, 7), numbers(5, 7, seed=1)
    )


@case
def softmax_of_rows(device: str) -> Case:
    return lambda x: (dg.softmax(x, 1), x.max(0), x.argmax(1)), on(device, numbers(33, 65))


@case
def views_and_layouts(device: str) -> Case:
    return lambda x: (x.T @ x, x[::2, 1:] * 2, x.reshape(-1)[3:9], x.T), on(device, numbers(8, 6))


@case
def views_as_arguments(device: str) -> Case:
    (x,) = on(device, numbers(8, 6))
    return lambda a, b: (a + b, a * 2), [x.T[1:4, ::2], x[:3, 1:5]]


@case
def constants(device: str) -> Case:
    def f(x: Any) -> Any:
        table = dg.tensor([1.0, 2.0, 3.0], device=x.device)
        steps = dg.arange(3, device=x.device)
        return x * table + dg.ones(3, device=x.device), steps * 2, dg.zeros_like(x), dg.zeros(2)

    return f, on(device, numbers(3))


@case
def numbers_as_arguments(device: str) -> Case:
    return lambda x, k: (x * k, dg.full((2,), k, device=x.device)), [*on(device, numbers(3)), 2.5]


@case
def index_operations(device: str) -> Case:
    def f(x: Any, rows: Any, values: Any) -> Any:
        y = x.clone()
        y[1:3] = 7.0
        taken = x[rows]
        picked = dg.gather(x, 1, (rows % 4).reshape(3, 1))
        return taken, picked, y, dg.where(x > 0, x, 0.0), x.index_add(0, rows, values)

    rows = np.array([4, 0, 4])
    return f, on(device, numbers(5, 4), rows, numbers(3, 4, seed=2))


@case
def sorted_values(device: str) -> Case:
    return lambda x: (dg.argsort(x), dg.cumsum(x, 0)), on(device, numbers(3, 17))


@case
def checked_indices(device: str) -> Case:
    table, rows = on(device, numbers(6, 4), np.array([1, 5, 0]))

    def f(table: Any, rows: Any) -> Any:
        out = table[rows]
        table.add_(1.0)
        return out

    return f, [table, rows]


# -- changes in place -----------------------------------------------------------------------------


@case
def arguments_changed_in_place(device: str) -> Case:
    def f(x: Any, y: Any) -> Any:
        x.mul_(2).add_(y)
        y[1:] = x[:-1]
        x[0].fill_(3.0)
        return x.sum()

    return f, on(device, numbers(4, 3), numbers(4, 3, seed=1))


@case
def overlapping_arguments(device: str) -> Case:
    (x,) = on(device, numbers(10))

    def f(a: Any, b: Any, c: Any) -> Any:
        a.add_(1.0)
        b.mul_(2.0)
        return a + c

    return f, [x[:6], x[3:9], x[4:10]]


@case
def state_of_an_object(device: str) -> Case:
    class Counter:
        def __init__(self) -> None:
            self.total, self.last, self.seen = dg.zeros(3, device=device), None, []

    state: Any = Counter()

    def f(x: Any) -> Any:
        state.total += x
        state.last = x * 2
        return state.total * 1, state.last

    return f, on(device, numbers(3))


# -- random numbers -------------------------------------------------------------------------------


@case
def random_numbers(device: str) -> Case:
    def f(x: Any) -> Any:
        noise = dg.randn(5, 3, device=x.device)
        kept = functional.dropout(x, 0.4)
        x.uniform_(-1.0, 1.0)
        return noise, kept, dg.randint(0, 10, (4,), device=x.device), dg.rand(2)

    return f, on(device, numbers(6, 5))


@case
def dropout_before_a_check(device: str) -> Case:
    def f(table: Any, rows: Any) -> Any:
        out = functional.dropout(table[rows], 0.5)
        table.mul_(0.5)
        return out

    return f, on(device, numbers(6, 4), np.array([1, 5, 0]))


# -- gradients ------------------------------------------------------------------------------------


@case
def gradients_inside(device: str) -> Case:
    w, x = on(device, numbers(4, 3), numbers(5, 4, seed=1))
    w.requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        (x @ w).tanh().sum().backward()
        return w.grad.clone()

    return f, [x]


@case
def gradients_out(device: str) -> Case:
    w, x = on(device, numbers(4, 3), numbers(5, 4, seed=1))
    w.requires_grad_()
    f = lambda x: dg.relu(x @ w) * 0.5  # noqa: E731
    g = dg.function(f, strict=True) if device != "cpu" else f

    def step(x: Any) -> Any:
        w.grad = None
        g(x).sum().backward()
        return w.grad.clone()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return lambda x: [step(x).detach() for _ in range(1)], [x]


@case
def gradients_of_gradients(device: str) -> Case:
    (w,) = on(device, numbers(4))
    w.requires_grad_()

    def f(x: Any) -> Any:
        loss = (w * x).exp().sum()
        w.grad = None
        loss.backward(create_graph=True)
        slope, w.grad = w.grad, None
        (slope * slope).sum().backward()
        return slope.detach(), w.grad.clone()

    return f, on(device, numbers(4, seed=1))


@case
def second_gradients_out(device: str) -> Case:
    (w,) = on(device, numbers(4))
    w.requires_grad_()
    inner = lambda x: (w * x).exp().sum() + (2.0 * w).sum()  # noqa: E731
    g = dg.function(inner, strict=True) if device != "cpu" else inner

    def step(x: Any) -> Any:
        w.grad = None
        g(x).backward(create_graph=True)
        slope, w.grad = w.grad, None
        (slope * slope).sum().backward()
        return w.grad.clone().detach()

    (x,) = on(device, numbers(4, seed=1))
    return lambda k: [step(x) for _ in range(1)], [1]


@case
def gradients_of_rows_taken(device: str) -> Case:
    table, bias = on(device, numbers(6, 4), numbers(4, seed=3))
    table.requires_grad_()
    bias.requires_grad_()

    def f(rows: Any) -> Any:
        table.grad = bias.grad = None
        (dg.softmax(table[rows] + bias, 1) ** 2).sum().backward()
        return table.grad.clone(), bias.grad.clone()

    return f, on(device, np.array([[1, 5, 0], [1, 1, 2]]))


@case
def running_statistics(device: str) -> Case:
    mean, var = on(device, np.zeros(3, np.float32), np.ones(3, np.float32))

    def f(x: Any) -> Any:
        return functional.batch_norm(x, mean, var, training=True), mean.clone(), var.clone()

    return f, on(device, numbers(5, 3, 4))


@case
def convolution(device: str) -> Case:
    x, w = on(device, numbers(2, 3, 8, 8), numbers(4, 3, 3, 3, seed=1))
    w.requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        dg.relu(functional.conv2d(x, w)).sum().backward()
        return w.grad.clone()

    return f, [x]


# -- between devices ------------------------------------------------------------------------------


@case
def moved_in_and_out(device: str) -> Case:
    (w,) = on(device, numbers(4, 3))

    def f(x: Any) -> Any:
        y = x.to(w.device) @ w
        return y, y.cpu() + 1.0, y.sum().cpu()

    return f, [dg.tensor(numbers(5, 4))]


@case
def there_and_back(device: str) -> Case:
    def f(x: Any) -> Any:
        y = (x * 2).cpu()
        z = (y + 1).to(x.device)
        x.copy_(z)
        return y.T, (z @ x.T).cpu(), x.T.cpu() * 2

    return f, on(device, numbers(3, 4))


@case
def both_devices_side_by_side(device: str) -> Case:
    here = dg.tensor(numbers(3))

    def f(x: Any) -> Any:
        here.add_(1.0)
        x.mul_(2.0)
        return here * 2, x + 1

    return f, on(device, numbers(3))


@case
def gradient_across_devices(device: str) -> Case:
    w = dg.tensor(numbers(4, 3)).requires_grad_()

    def f(x: Any) -> Any:
        w.grad = None
        (x @ w.to(x.device)).tanh().sum().backward()
        return w.grad.clone()

    return f, on(device, numbers(5, 4))


@case
def moved_before_it_changes(device: str) -> Case:
    def f(x: Any, y: Any) -> Any:
        old = x.cpu()
        x.add_(1.0)
        new = x.cpu()
        y.copy_(x * 2)
        x.copy_(new.to(x.device) * 3)
        return old, new, y.sum().cpu(), x

    return f, [*on(device, numbers(2, 3)), dg.tensor(numbers(2, 3, seed=1))]


@case
def one_value_in_several_results(device: str) -> Case:
    def f(x: Any) -> Any:
        y = x * 2
        there = y.cpu()
        return y, y.clone(), there, (x * 2).cpu(), there.to(x.device), x, dg.ones(2)

    return f, on(device, numbers(2, 3))


@case
def several_times_across(device: str) -> Case:
    def f(x: Any) -> Any:
        for k in range(3):
            x = (x.cpu() * (k + 2)).to(x.device).tanh()
        return x

    return f, on(device, numbers(3))


@case
def nothing_to_move(device: str) -> Case:
    def f(x: Any) -> Any:
        empty = x[:0] * 2
        return empty.cpu(), empty.sum().cpu(), empty

    return f, on(device, numbers(3, 2))


@case
def state_that_moves(device: str) -> Case:
    kept: dict[str, Any] = {}

    def f(x: Any) -> Any:
        kept["last"] = (x * 2).cpu()
        return x + 1

    return f, on(device, numbers(3))


@pytest.mark.parametrize("name", CASES)
def test_bits_of_both_modes(name: str) -> None:
    build = CASES[name]
    want = run(build, "cpu", False)
    eager = run(build, "cuda", False)
    static = run(build, "cuda", True)
    if name not in ALIASES:
        agree(eager, want, "eager on the device and on the CPU", devices=False)
    agree(static, eager, "compiled and eager on the device")


# -- training -------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
}


class Net(nn.Module):
    def __init__(self, drop: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)
        self.drop = drop

    def forward(self, x: Any) -> Any:
        return self.second(functional.dropout(dg.relu(self.first(x)), self.drop))


def scheduled(p: Any) -> Any:
    optimizer = optim.SGD(p, lr=0.1)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    step = optimizer.step

    def both() -> None:
        step()
        schedule.step()

    optimizer.step = both
    return optimizer


OPTIMIZERS["a schedule"] = scheduled


def trained(device: str, name: str, compiled: bool, drop: float = 0.25) -> list[Any]:
    dg.seed(2)
    model = Net(drop).to(device)
    optimizer = OPTIMIZERS[name](model.parameters())
    loss_of = nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    f: Any = dg.function(step, strict=True) if compiled else step
    x, y = on(device, numbers(20, 6), np.arange(20) % 3)
    losses = [f(x, y).detach() for _ in range(4)]
    assert not compiled or f.n_traces <= 2
    return found([losses, list(model.parameters()), [p.grad for p in model.parameters()]])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bits_of_training(name: str) -> None:
    want = trained("cpu", name, False)
    agree(trained("cuda", name, False), want, "eager", devices=False)
    agree(trained("cuda", name, True), want, "compiled", devices=False)


@pytest.mark.parametrize("compiled", [False, True])
def test_training_goes_on_after_a_move(compiled: bool) -> None:
    def run(places: list[str]) -> list[Any]:
        dg.seed(2)
        model = Net(0.0)
        optimizer = optim.Adam(model.parameters(), lr=0.01)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        f: Any = dg.function(step, strict=True) if compiled else step
        losses = []
        for device in places:
            model.to(device)
            losses.append(f(*on(device, numbers(20, 6), np.arange(20) % 3)).detach())
        return found([losses, list(model.parameters())])

    here = run(["cpu"] * 6)
    moving = run(["cpu", "cpu", "cuda", "cuda", "cpu", "cuda"])
    agree(moving, here, "a model that moves", devices=False)


def test_another_driver_finds_no_programs_of_the_first(gpu: Driver) -> None:
    if not isinstance(gpu, Standin):
        pytest.skip("there is one driver only")
    f = dg.function(lambda x: x * 2, strict=True)
    same_bits(f(dg.ones(3, device="cuda")).cpu(), np.full(3, 2, np.float32))
    with cuda.installed(Standin()):
        same_bits(f(dg.ones(3, device="cuda")).cpu(), np.full(3, 2, np.float32))


# -- what a program of another device does not serve ----------------------------------------------


def test_one_program_for_all_sizes() -> None:
    f = dg.function(lambda x, w: dg.relu(x @ w).sum(0), strict=True)
    w = dg.tensor(numbers(4, 6))
    for n in (3, 4, 9, 17, 33, 5):
        x = dg.tensor(numbers(n, 4))
        same_bits(f(x.cuda(), w.cuda()).cpu(), f.eager(x, w), n)
    assert f.n_traces == 2


def test_each_device_has_a_program() -> None:
    f = dg.function(lambda x: x * 2 + 1, strict=True)
    x = dg.tensor(numbers(4))
    for _ in range(2):
        for device in ("cpu", "cuda"):
            out = f(x.to(device))
            assert out.device == x.to(device).device
            same_bits(out.cpu(), x * 2 + 1)
    assert f.n_traces == 2


def test_a_parameter_that_moves_away() -> None:
    model = nn.Linear(3, 2)
    f = dg.function(lambda x: model(x).detach(), strict=True)
    x = dg.tensor(numbers(4, 3))
    want = f(x)
    f(x)
    model.to("cuda")
    same_bits(f(x.cuda()).cpu(), want)
    with pytest.raises(DeviceError, match="different devices"):
        f(x)
    model.cpu()
    same_bits(f(x), want)


@pytest.mark.parametrize(
    "change", [lambda a, b: a + b, lambda a, b: a.add_(b), lambda a, b: b.add_(a)]
)
def test_operands_on_two_devices_are_an_error_in_both_modes(change: Any) -> None:
    x = dg.tensor(numbers(4))
    texts = []
    for f in (change, dg.function(change)):
        with pytest.raises(DeviceError, match="different devices") as caught:
            f(x.cuda(), x)
        texts.append((caught.value.what, caught.value.actual))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("ask", [lambda x: x.item(), lambda x: bool(x > 0), lambda x: x.tolist()])
def test_values_that_python_asks_for(ask: Any) -> None:
    def f(x: Any) -> Any:
        return x * 2 if ask(x) else x

    g = dg.function(f)
    x = dg.tensor(1.5, device="cuda")
    with pytest.warns(EagerFallback):
        same_bits(g(x).cpu(), f(x).cpu())
    same_bits(g(x).cpu(), f(x).cpu())


def test_the_memory_in_use_is_asked_for_at_each_call() -> None:
    kept: list[Any] = []

    def f(x: Any) -> Any:
        return x * float(dg.cuda.memory_allocated())

    g = dg.function(f)
    x = dg.tensor(1.0, device="cuda")
    with pytest.warns(EagerFallback, match="memory_allocated"):
        g(x)
    kept.append(dg.ones(1000, device="cuda"))
    same_bits(g(x).cpu(), f(x).cpu())


def test_numpy_is_refused_in_both_modes() -> None:
    x = dg.tensor(numbers(3), device="cuda")

    def show(x: Any) -> None:
        print(x.numpy())

    with pytest.raises(DeviceError, match="NumPy cannot see"):
        show(x)
    with pytest.warns(EagerFallback), pytest.raises(DeviceError, match="NumPy cannot see"):
        dg.function(show)(x)


def test_print_in_a_compiled_function(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        print("x is", x, f"{x.sum().item():.2f}", (x * 2).tolist())
        return x

    x = dg.tensor([1.0, 2.0], device="cuda")
    f(x)
    want = capsys.readouterr().out
    assert "device='cuda:0'" in want
    g = dg.function(f, strict=True)
    for _ in range(2):
        g(x)
        assert capsys.readouterr().out == want


def test_an_index_out_of_bounds_changes_nothing() -> None:
    table = dg.tensor(numbers(4, 2), device="cuda")
    position = random.default_generator.position

    def f(rows: Any) -> Any:
        table.add_(1.0)
        return functional.dropout(table[rows], 0.5)

    g = dg.function(lambda rows: functional.dropout(table[rows], 0.5) + table.mul_(2.0).sum())
    good, bad = on("cuda", np.array([1, 2]), np.array([1, 9]))
    g(good)
    g(good)
    before, at = table.cpu().numpy(), position.item()
    with pytest.raises(IndexOutOfBounds):
        g(bad)
    same_bits(table.cpu().numpy(), before)
    assert position.item() >= at


def test_checks_on_two_devices() -> None:
    """A check that fails on one must not come after a change on the other: such calls are eager."""

    def make() -> tuple[Any, list[Any]]:
        tables = [dg.tensor(numbers(4, 2)), dg.tensor(numbers(4, 2), device="cuda")]

        def f(here: Any, there: Any) -> Any:
            out = [tables[0][here].sum(), tables[1][there].sum()]
            for t in tables:
                t.add_(1.0)
            return out

        return f, tables

    (f, want), (g, got) = make(), make()
    compiled = dg.function(g)
    good, bad = np.array([1, 2]), np.array([1, 9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for here, there in ((good, good), (good, bad), (bad, good), (good, good)):
            outcomes = []
            for call in (f, compiled):
                try:
                    outcomes.append(found(call(dg.tensor(here), dg.tensor(there, device="cuda"))))
                except IndexOutOfBounds as error:
                    outcomes.append([error.what])
            agree(outcomes[1], outcomes[0], "an index out of bounds")
            agree(found(got), found(want), "state")


def test_programs_for_large_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes decide at each call whether indices need 64 bits."""
    monkeypatch.setattr(cuda_backend, "INDEX_LIMIT", 50)
    f = dg.function(lambda x: (x * 2).sum(1), strict=True)
    for n in (3, 5, 20, 4, 30):
        x = dg.tensor(numbers(n, 4))
        same_bits(f(x.cuda()).cpu(), f.eager(x), n)
    wide = [p for path in f.paths for p in path.executable.parts if "wide" in vars(p)]  # type: ignore[union-attr]
    assert len(wide) == 1
    assert "long long dg_index" in wide[0].wide.cuda()


def test_reports_and_texts() -> None:
    f = dg.function(lambda x: dg.softmax(x, 1) * 2, strict=True)
    f(dg.tensor(numbers(4, 5), device="cuda"))
    assert "kernels 1" in f.report()
    assert "__global__" in f.cuda()
    assert "grid" in f.ir()
    with pytest.raises(DeviceError):
        f.llvm()


def test_one_program_for_a_training_step(gpu: Driver) -> None:
    """State stays on the device: nothing but the checks' error word is brought back."""
    w = dg.tensor(numbers(4, 3), device="cuda")
    f = dg.function(lambda x: w.add_(x), strict=True)
    x = dg.tensor(numbers(4, 3, seed=1), device="cuda")
    f(x)
    address = w.array.address  # type: ignore[union-attr]
    f(x)
    assert w.array.address == address  # type: ignore[union-attr]
    same_bits(w.cpu(), numbers(4, 3) + numbers(4, 3, seed=1) + numbers(4, 3, seed=1))
