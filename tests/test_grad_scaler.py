"""`GradScaler` against PyTorch's, and its rules one by one, in both modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import as_array, same_bits

import dualgrad as dg
from dualgrad import amp, nn, optim
from dualgrad.jit.function import EagerFallback

F = dg.functional
HUGE = (4, 5)  # steps whose input makes gradients that are not finite
OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
    "SGD with dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
}


def batches() -> list[Any]:
    rng = np.random.default_rng(0)
    found = [rng.normal(size=(5, 8)).astype(np.float32) for _ in range(12)]
    found[HUGE[0]] *= np.float32(1e6)
    found[HUGE[1]] *= np.float32("inf")
    return found


def model() -> nn.Module:
    dg.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def trained(kind: Any, decorate: Any) -> tuple[list[Any], Any]:
    """(losses, scales, parameters, optimizer state) of some steps, and the function."""
    net = model()
    optimizer = kind(net.parameters())
    scaler = amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=3)
    labels = dg.tensor([0, 1, 2, 0, 1])

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        with dg.autocast("cpu", dg.float16):
            loss = F.cross_entropy(net(x), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    f = decorate(step)
    seen: list[Any] = []
    for x in batches():
        seen += [as_array(f(dg.tensor(x))), np.float32(scaler.get_scale())]
    seen += [as_array(p) for p in net.parameters()]
    states = optimizer.state_dict()["state"]
    seen += [np.asarray(v) for _, s in sorted(states.items()) for v in s.values() if v is not None]
    return seen, f


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_both_modes_have_the_same_bits(name: str) -> None:
    eager, _ = trained(OPTIMIZERS[name], lambda f: f)
    static, f = trained(OPTIMIZERS[name], lambda f: dg.function(f, strict=True))
    assert len(eager) == len(static)
    for a, b in zip(eager, static, strict=True):
        same_bits(a, b)
    assert f.n_traces == 1
    scales = [float(s) for s in eager[1:24:2]]
    assert scales == [2.0**k for k in (14, 14, 15, 15, 14, 13, 13, 13, 14, 14, 14, 15)]


@pytest.mark.parametrize("static", [False, True], ids=["eager", "static"])
def test_a_skipped_step_changes_nothing(static: bool) -> None:
    net = model()
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    scaler = amp.GradScaler("cpu", init_scale=8.0)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        scaler.scale(net(x).sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    f = dg.function(step, strict=True) if static else step
    f(dg.ones((2, 8)))
    before = [as_array(p).copy() for p in net.parameters()]
    assert scaler.get_scale() == 8.0
    f(dg.full((2, 8), float("nan")))
    assert scaler.get_scale() == 4.0
    for a, p in zip(before, net.parameters(), strict=True):
        same_bits(a, p)
    f(dg.ones((2, 8)))
    once_more = model()
    plain = optim.Adam(once_more.parameters(), lr=0.01)
    for _ in range(2):
        plain.zero_grad()
        once_more(dg.ones((2, 8))).sum().backward()
        plain.step()
    for p, q in zip(net.parameters(), once_more.parameters(), strict=True):
        same_bits(p, q)


@pytest.mark.parametrize("static", [False, True], ids=["eager", "static"])
def test_scales_are_those_of_pytorch(static: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch has the scaler to compare with")
    numbers = {"init_scale": 1000.0, "growth_factor": 1.3, "backoff_factor": 0.7}
    mine = amp.GradScaler("cpu", growth_interval=2, **numbers)
    theirs = torch.amp.GradScaler("cpu", growth_interval=2, **numbers)
    w = dg.ones((3,), requires_grad=True)
    v = torch.ones(3, requires_grad=True)
    ours, optimizer = optim.SGD([w], lr=0.1), torch.optim.SGD([v], lr=0.1)

    def step(x: Any) -> None:
        ours.zero_grad()
        mine.scale((w * x).sum()).backward()
        mine.step(ours)
        mine.update()

    f = dg.function(step, strict=True) if static else step
    rng = np.random.default_rng(1)
    for k in range(30):
        x = rng.normal(size=3).astype(np.float32)
        x[0] = np.inf if k % 7 == 3 else x[0]
        f(dg.tensor(x))
        optimizer.zero_grad()
        theirs.scale((v * torch.from_numpy(x)).sum()).backward()
        theirs.step(optimizer)
        theirs.update()
        assert mine.state_dict() == theirs.state_dict()
        np.testing.assert_array_max_ulp(as_array(w), v.detach().numpy(), 1)
    again = amp.GradScaler("cpu")
    again.load_state_dict(theirs.state_dict())
    assert again.state_dict() == theirs.state_dict()
    theirs.load_state_dict(again.state_dict())


def ready() -> tuple[Any, Any, Any]:
    w = dg.ones((3,), requires_grad=True)
    optimizer, scaler = optim.SGD([w], lr=0.1), amp.GradScaler("cpu", init_scale=4.0)
    return w, optimizer, scaler


def test_state_that_is_made_or_counted_in_a_step() -> None:
    """What cannot be taken back runs eagerly: the same as undecorated."""

    class Counting:
        def __init__(self, params: list[Any], lr: float) -> None:
            self.param_groups = [{"params": params, "lr": lr}]
            self.state: dict[int, Any] = {0: {}}

        def step(self) -> None:
            self.state[0]["steps"] = self.state[0].get("steps", 0) + 1
            with dg.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.sub_(p.grad * self.param_groups[0]["lr"])

    def run(decorate: Any) -> Any:
        w = dg.ones((3,), requires_grad=True)
        optimizer, scaler = Counting([w], lr=0.1), amp.GradScaler("cpu", init_scale=4.0)

        def step(x: Any) -> None:
            w.grad = None
            scaler.scale((w * x).sum()).backward()
            scaler.step(optimizer)
            scaler.update()

        f = decorate(step)
        for value in (float("inf"), 1.0, 2.0, float("nan"), 3.0):
            f(dg.tensor(value))
        return as_array(w), optimizer.state[0]["steps"], scaler.get_scale()

    with pytest.warns(EagerFallback, match="a step that may be skipped makes or changes steps"):
        static = run(dg.function)
    eager = run(lambda f: f)
    same_bits(static[0], eager[0])
    assert static[1:] == eager[1:] == (3, 1.0)


def test_several_losses_and_optimizers() -> None:
    w, first, scaler = ready()
    v = dg.ones((2,), requires_grad=True)
    second = optim.SGD([v], lr=0.1)
    for loss in scaler.scale([w.sum() * 3, v.sum() * float("inf")]):
        loss.backward()
    scaler.unscale_(first)
    assert as_array(w.grad).tolist() == [3.0] * 3
    scaler.step(first)
    scaler.step(second)
    scaler.update()
    np.testing.assert_allclose(as_array(w), np.float32(0.7), rtol=1e-6)
    assert as_array(v).tolist() == [1.0, 1.0]
    assert scaler.get_scale() == 2.0


def test_arguments_and_result_of_the_step() -> None:
    class Counted(optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            super().step()
            return args, kwargs

    w, _, scaler = ready()
    optimizer = Counted([w], lr=0.1)
    scaler.scale(w.sum()).backward()
    assert scaler.step(optimizer, 1, k=2) == ((1,), {"k": 2})
    scaler.update()
    scaler.scale(w.sum() * float("nan")).backward()
    assert scaler.step(optimizer, 1) is None


def test_a_scale_may_be_set() -> None:
    w, optimizer, scaler = ready()
    scaler.update(32.0)
    assert scaler.get_scale() == 32.0
    scaler.update(dg.tensor(16.0))
    scaler.scale(w.sum()).backward()
    assert as_array(w.grad).tolist() == [16.0] * 3
    scaler.step(optimizer)
    scaler.set_growth_factor(3.0)
    scaler.set_growth_interval(1)
    scaler.update()
    assert scaler.get_scale() == 48.0
    scaler.set_backoff_factor(0.25)
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor()) == (3.0, 0.25)
    assert scaler.get_growth_interval() == 1


def test_the_scale_does_not_become_infinite() -> None:
    w, optimizer, scaler = ready()
    scaler.update(2.0**127)
    scaler.set_growth_interval(1)
    scaler.scale(w.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**127


def test_a_scaler_that_is_off() -> None:
    w, optimizer, _ = ready()
    scaler = amp.GradScaler("cpu", enabled=False)
    loss = w.sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert as_array(w).tolist() == [np.float32(0.9)] * 3
    assert (scaler.get_scale(), scaler.state_dict(), scaler.is_enabled()) == (1.0, {}, False)


def test_calls_out_of_order() -> None:
    w, optimizer, scaler = ready()
    with pytest.raises(ValueError, match="no parameter of the optimizer has a gradient"):
        scaler.step(optimizer)
    with pytest.raises(ValueError, match="no gradients have been looked at"):
        scaler.update()
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(ValueError, match="unscale_ is called too late"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    for call in (scaler.step, scaler.unscale_):
        with pytest.raises(ValueError, match="after the optimizer's step"):
            call(optimizer)
    scaler.update()
    with pytest.raises(ValueError, match="closure"):
        scaler.step(optimizer, lambda: None)


def test_gradients_in_float16_are_refused() -> None:
    w = dg.ones((3,), dtype=dg.float16, requires_grad=True)
    scaler = amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(w.sum()).backward()
    with pytest.raises(ValueError, match="a gradient is in float16"):
        scaler.step(optim.SGD([w], lr=0.1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"init_scale": 0.0},
        {"init_scale": float("inf")},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"growth_interval": 0},
    ],
    ids=str,
)
def test_impossible_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} has a value it cannot have"):
        amp.GradScaler("cpu", **wrong)
    scaler = amp.GradScaler("cpu")
    state = {**scaler.state_dict(), **{k.replace("init_", ""): v for k, v in wrong.items()}}
    before = scaler.state_dict()
    with pytest.raises(ValueError, match="has a value it cannot have"):
        scaler.load_state_dict(state)
    with pytest.raises(ValueError, match="not that of a scaler"):
        scaler.load_state_dict({})
    assert scaler.state_dict() == before
    with pytest.raises(ValueError, match="only tensors can be scaled"):
        scaler.scale(3.0)
