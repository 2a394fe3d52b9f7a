"""Modules: names, order, printed form and state as PyTorch's; initial values by their law."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dualgrad import nn
from dualgrad.creation import empty, from_numpy, tensor, zeros
from dualgrad.nn import init
from dualgrad.random import seed
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds, ShapeError
from dualgrad.tensor import Tensor


def array(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


class Scale(nn.Module):
    """A parameter, a missing parameter, and two buffers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(tensor([2.0, 3.0]))
        self.register_parameter("offset", None)
        self.register_buffer("count", zeros(1))
        self.register_buffer("scratch", zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def make_net(nn: Any) -> Any:
    """The same model from our `nn` and from torch's."""

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.flatten = nn.Flatten()
            self.body = nn.Sequential(
                OrderedDict(fc1=nn.Linear(6, 4), act=nn.ReLU(), fc2=nn.Linear(4, 4, bias=False))
            )
            self.head = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU()), nn.Flatten(0, 1))
            self.loss = nn.CrossEntropyLoss()

    return Net()


# Printed by PyTorch 2.13.
NET_TEXT = """\
Net(
  (flatten): Flatten(start_dim=1, end_dim=-1)
  (body): Sequential(
    (fc1): Linear(in_features=6, out_features=4, bias=True)
    (act): ReLU()
    (fc2): Linear(in_features=4, out_features=4, bias=False)
  )
  (head): Sequential(
    (0): Linear(in_features=4, out_features=3, bias=True)
    (1): Sequential(
      (0): ReLU()
    )
    (2): Flatten(start_dim=0, end_dim=1)
  )
  (loss): CrossEntropyLoss()
)"""
NET_PARAMETERS = [
    ("body.fc1.weight", (4, 6)),
    ("body.fc1.bias", (4,)),
    ("body.fc2.weight", (4, 4)),
    ("head.0.weight", (3, 4)),
    ("head.0.bias", (3,)),
]
NET_MODULES = [
    "", "flatten", "body", "body.fc1", "body.act", "body.fc2",
    "head", "head.0", "head.1", "head.1.0", "head.2", "loss",
]  # fmt: skip


def describe(net: Any) -> dict[str, Any]:
    return {
        "text": repr(net),
        "parameters": [(name, tuple(p.shape)) for name, p in net.named_parameters()],
        "own": [name for name, _ in net.body.fc1.named_parameters(prefix="x", recurse=False)],
        "state": [(name, tuple(t.shape)) for name, t in net.state_dict().items()],
        "modules": [name for name, _ in net.named_modules()],
        "children": [name for name, _ in net.named_children()],
        "slice": repr(net.head[1:]),
        "length": len(net.head),
        "last": repr(net.head[-1]),
        "items": [repr(module) for module in net.body],
    }


def test_structure_as_stored() -> None:
    found = describe(make_net(nn))
    assert found["text"] == NET_TEXT
    assert found["parameters"] == found["state"] == NET_PARAMETERS
    assert found["modules"] == NET_MODULES


def test_structure_as_pytorch() -> None:
    torch_nn = pytest.importorskip("torch.nn")
    assert describe(make_net(nn)) == describe(make_net(torch_nn))


@pytest.mark.parametrize(
    "build",
    [
        lambda nn: nn.Module(),
        lambda nn: nn.Sequential(),
        lambda nn: nn.Sequential(nn.Sequential(), nn.ReLU()),
        lambda nn: nn.Linear(0, 2),
        lambda nn: nn.CrossEntropyLoss(reduction="sum"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_printed_form_as_pytorch(build: Callable[[Any], Any]) -> None:
    torch_nn = pytest.importorskip("torch.nn")
    assert repr(build(nn)) == repr(build(torch_nn))


def test_several_lines_of_extra_repr() -> None:
    class Chatty(nn.Module):
        def extra_repr(self) -> str:
            return "a=1\nb=2"

    assert repr(nn.Sequential(Chatty())) == (
        "Sequential(\n  (0): Chatty(\n    a=1\n    b=2\n  )\n)"
    )


def test_parameters_and_buffers() -> None:
    scale = Scale()
    assert [name for name, _ in scale.named_parameters()] == ["factor"]
    assert [name for name, _ in scale.named_buffers()] == ["count", "scratch"]
    assert list(scale.state_dict()) == ["factor", "count"]
    assert next(scale.parameters()) is scale.factor
    assert next(scale.buffers()) is scale.count
    assert scale.factor.requires_grad
    assert not scale.count.requires_grad
    scale.offset = nn.Parameter(tensor([0.0]))
    assert [name for name, _ in scale.named_parameters()] == ["factor", "offset"]


def test_no_need_to_call_the_base_constructor() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            self.fc = nn.Linear(2, 1)

    assert list(Bare().state_dict()) == ["fc.weight", "fc.bias"]
    assert Bare().training


def test_shared_parts_come_once_but_are_saved_twice() -> None:
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert len(list(net.modules())) == 3
    assert len(list(net.children())) == 2
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    named = net.named_parameters(remove_duplicate=False)
    assert [name for name, _ in named] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_registered_names_keep_their_kind() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="parameter 'weight' is given another kind"):
        net[0].weight = zeros(2, 2)
    with pytest.raises(ArgumentError, match="module '0' is given another kind"):
        setattr(net, "0", 3)
    scale = Scale()
    with pytest.raises(ArgumentError, match="buffer 'count' is given another kind"):
        scale.count = 3
    scale.count = zeros(1) + 4
    assert scale.state_dict()["count"].item() == 4
    scale.factor = None
    assert list(scale.parameters()) == []


def test_a_name_changes_its_registry() -> None:
    module = nn.Module()
    module.thing = nn.Linear(1, 1)
    module.thing = nn.Parameter(zeros(2))
    assert [name for name, _ in module.named_parameters()] == ["thing"]
    assert list(module.children()) == []
    del module.thing
    assert list(module.parameters()) == []
    assert not hasattr(module, "thing")


@pytest.mark.parametrize("name", ["", "a.b", "forward", "train"])
def test_names_that_cannot_be_registered(name: str) -> None:
    with pytest.raises(ArgumentError, match="cannot be registered"):
        nn.Module().register_buffer(name, zeros(1))


def test_registration_checks_kinds() -> None:
    with pytest.raises(ArgumentError, match="no Parameter"):
        nn.Module().register_parameter("p", zeros(1))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no Module"):
        nn.Sequential(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no Tensor"):
        nn.Module().register_buffer("b", 3)  # type: ignore[arg-type]


def test_modes_reach_all_modules() -> None:
    net = make_net(nn)
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())


def test_apply_visits_children_first() -> None:
    names: list[str] = []
    net = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Flatten())
    assert net.apply(lambda module: names.append(type(module).__name__)) is net
    assert names == ["ReLU", "Sequential", "Flatten", "Sequential"]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none: bool) -> None:
    layer = nn.Linear(3, 2)
    layer(from_numpy(array(4, 3))).sum().backward()
    assert layer.bias is not None
    assert layer.bias.grad is not None
    assert layer.bias.grad.detach().numpy().tolist() == [4, 4]
    layer.zero_grad(set_to_none)
    if set_to_none:
        assert layer.weight.grad is None
    else:
        assert layer.weight.grad is not None
        assert not layer.weight.grad.detach().numpy().any()


def test_forward_must_be_defined() -> None:
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)


# -- state


def test_state_shares_memory_and_loads_in_place() -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    weight = target.weight
    result = target.load_state_dict(source.state_dict())
    assert repr(result) == "<All keys matched successfully>"
    assert target.weight is weight
    assert np.array_equal(weight.detach().numpy(), source.weight.detach().numpy())
    assert not source.state_dict()["weight"].requires_grad
    source.state_dict()["weight"].zero_()
    assert not source.weight.detach().numpy().any()
    assert weight.detach().numpy().any()


def test_state_may_hold_arrays_of_another_dtype() -> None:
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.array([[1.5, 2.5]]), "bias": np.array([1])})
    assert layer.weight.detach().numpy().tolist() == [[1.5, 2.5]]
    assert layer.weight.detach().numpy().dtype == np.float32


def test_state_that_does_not_fit_is_refused_whole() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().numpy().copy()
    state = {"weight": zeros(2, 3), "bias": zeros(3), "scale": zeros(1)}
    with pytest.raises(ArgumentError, match="does not fit this Linear") as caught:
        layer.load_state_dict(state)
    message = str(caught.value)
    assert "unexpected  scale (1,)" in message
    assert "shape       bias (2,) in the module, (3,) in the state" in message
    assert np.array_equal(layer.weight.detach().numpy(), before)
    with pytest.raises(ArgumentError, match=r"missing     weight \(2, 3\)"):
        layer.load_state_dict({"bias": zeros(2)})


def test_state_not_strict() -> None:
    layer = nn.Linear(3, 2)
    result = layer.load_state_dict({"bias": zeros(2), "scale": zeros(1)}, strict=False)
    assert result == (["weight"], ["scale"])
    assert layer.bias is not None
    assert not layer.bias.detach().numpy().any()
    with pytest.raises(ArgumentError, match="shape       bias"):
        layer.load_state_dict({"bias": zeros(3)}, strict=False)


def test_deepcopy_is_independent() -> None:
    net = make_net(nn)
    twin = copy.deepcopy(net)
    assert repr(twin) == repr(net)
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in NET_PARAMETERS]
    next(twin.parameters()).detach().zero_()
    assert next(net.parameters()).detach().numpy().any()
    assert next(twin.parameters()).requires_grad


# -- parts


def test_parameter_is_a_leaf_that_shares_memory() -> None:
    base = zeros(3)
    param = nn.Parameter(base)
    assert isinstance(param, Tensor)
    assert param.requires_grad
    base.fill_(2.0)
    assert param.detach().numpy().tolist() == [2, 2, 2]
    (param * 3).sum().backward()
    assert param.grad is not None
    assert param.grad.detach().numpy().tolist() == [3, 3, 3]
    assert not nn.Parameter(zeros(1), requires_grad=False).requires_grad


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    layer = nn.Linear(5, 3, bias=bias)
    x = array(4, 5)
    expect = x.astype(np.float64) @ layer.weight.detach().numpy().T
    if layer.bias is not None:
        expect += layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(from_numpy(x)).detach().numpy(), expect, rtol=1e-5, atol=1e-6)


def test_linear_refuses_negative_sizes() -> None:
    with pytest.raises(ArgumentError, match="no natural number"):
        nn.Linear(-1, 3)


def test_relu() -> None:
    assert nn.ReLU()(tensor([-1.0, 0.0, 2.0])).detach().numpy().tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("dims", "shape"),
    [((1, -1), (2, 60)), ((0, -1), (120,)), ((1, 2), (2, 12, 5)), ((2, 2), (2, 3, 4, 5))],
)
def test_flatten(dims: tuple[int, int], shape: tuple[int, ...]) -> None:
    x = array(2, 3, 4, 5)
    result = nn.Flatten(*dims)(from_numpy(x)).detach().numpy()
    assert result.shape == shape
    assert np.array_equal(result.ravel(), x.ravel())


@pytest.mark.parametrize("dims", [(1, 4), (2, 1), (-5, -1)])
def test_flatten_refuses(dims: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match="no such dimensions"):
        nn.Flatten(*dims)(zeros(2, 3, 4, 5))


def test_sequential() -> None:
    first, second = nn.Linear(3, 4), nn.ReLU()
    net = nn.Sequential(first, second)
    assert list(net) == [first, second]
    assert net[0] is first
    assert net[-1] is second
    assert isinstance(net[:1], nn.Sequential)
    assert net[:1][0] is first
    x = from_numpy(array(2, 3))
    assert np.array_equal(net(x).detach().numpy(), second(first(x)).detach().numpy())
    with pytest.raises(IndexOutOfBounds, match="index 2 of 2 modules"):
        net[2]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(reduction: str) -> None:
    logits, target = array(6, 4) * 5, np.array([0, 3, 1, 1, 2, 0])
    exact = logits.astype(np.float64)
    rows = np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(6), target]
    expect = {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction]
    loss = nn.CrossEntropyLoss(reduction=reduction)(from_numpy(logits), from_numpy(target))
    np.testing.assert_allclose(loss.detach().numpy(), expect, rtol=1e-5, atol=1e-6)


def test_cross_entropy_refuses() -> None:
    with pytest.raises(ArgumentError, match="no such reduction"):
        nn.CrossEntropyLoss(reduction="avg")


# -- initial values: laws by their bounds and moments, with 5 sigma of room

N_OUT, N_IN = 300, 200


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (lambda t: init.uniform_(t, -2.0, 2.0), 2.0),
        (init.xavier_uniform_, math.sqrt(6 / (N_OUT + N_IN))),
        (lambda t: init.xavier_uniform_(t, gain=3.0), 3 * math.sqrt(6 / (N_OUT + N_IN))),
        (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), 1 / math.sqrt(N_IN)),
        (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(6 / N_IN)),
        (lambda t: init.kaiming_uniform_(t, mode="fan_out"), math.sqrt(6 / N_OUT)),
    ],
)
def test_uniform_laws(fill: Callable[[Tensor], Tensor], bound: float) -> None:
    seed(3)
    target = empty(N_OUT, N_IN)
    assert fill(target) is target
    values = target.detach().numpy().astype(np.float64) / bound
    assert np.abs(values).max() <= 1 + 1e-6
    assert np.abs(values).max() > 0.999
    assert abs(values.mean()) < 5 * math.sqrt(1 / 3 / values.size)
    assert abs((values**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / values.size)


@pytest.mark.parametrize(
    ("fill", "mean", "std"),
    [
        (lambda t: init.normal_(t, 1.0, 2.0), 1.0, 2.0),
        (init.xavier_normal_, 0.0, math.sqrt(2 / (N_OUT + N_IN))),
        (lambda t: init.kaiming_normal_(t, nonlinearity="relu"), 0.0, math.sqrt(2 / N_IN)),
        (lambda t: init.kaiming_normal_(t, mode="fan_out"), 0.0, math.sqrt(2 / N_OUT)),
    ],
)
def test_normal_laws(fill: Callable[[Tensor], Tensor], mean: float, std: float) -> None:
    seed(3)
    values = (fill(empty(N_OUT, N_IN)).detach().numpy().astype(np.float64) - mean) / std
    assert abs(values.mean()) < 5 / math.sqrt(values.size)
    assert abs((values**2).mean() - 1) < 5 * math.sqrt(2 / values.size)
    assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / values.size)


def test_constants() -> None:
    target = nn.Parameter(empty(2, 2))
    assert init.zeros_(target).detach().numpy().tolist() == [[0, 0], [0, 0]]
    assert init.ones_(target).detach().numpy().tolist() == [[1, 1], [1, 1]]
    assert init.constant_(target, 2.5).detach().numpy().tolist() == [[2.5, 2.5], [2.5, 2.5]]
    assert target.requires_grad


def test_linear_starts_as_pytorch() -> None:
    seed(5)
    layer = nn.Linear(400, 300)
    assert layer.bias is not None
    for param in layer.parameters():
        values = param.detach().numpy() * 20.0
        assert 0.98 < np.abs(values).max() <= 1 + 1e-6
        assert param.requires_grad


def test_seed_decides_initial_values() -> None:
    def weights() -> bytes:
        return bytes(nn.Linear(4, 4).weight.detach().numpy().tobytes())

    seed(1)
    first, second = weights(), weights()
    seed(1)
    assert weights() == first != second


def test_fans_of_kernels_count_the_receptive_field() -> None:
    """[out, in, kh, kw] has fan-in in * kh * kw."""
    values = init.kaiming_uniform_(empty(64, 8, 3, 3), a=math.sqrt(5)).detach().numpy()
    assert 0.98 < np.abs(values).max() * math.sqrt(8 * 9) <= 1 + 1e-6


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
@pytest.mark.parametrize("param", [None, 0.3])
def test_gains_as_pytorch(name: str, param: float | None) -> None:
    torch_init = pytest.importorskip("torch.nn.init")
    assert init.calculate_gain(name, param) == pytest.approx(
        torch_init.calculate_gain(name, param), rel=1e-15
    )


def test_init_refuses() -> None:
    with pytest.raises(ShapeError, match="two dimensions"):
        init.xavier_uniform_(zeros(3))
    with pytest.raises(ArgumentError, match="unknown mode"):
        init.kaiming_uniform_(zeros(3, 3), mode="fan_both")
    with pytest.raises(ArgumentError, match="unknown nonlinearity"):
        init.kaiming_uniform_(zeros(3, 3), nonlinearity="gelu2")
