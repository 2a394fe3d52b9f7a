"""Lists and dicts of modules and parameters: PyTorch's, and seen by compiled functions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_layers import check_layer, drawn
from support import same_bits

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds


def torch_nn() -> Any:
    return pytest.importorskip("torch.nn")


def layers(nn: Any, *widths: int) -> list[Any]:
    return [nn.Linear(n, n) for n in widths]


def names(module: Any) -> list[str]:
    return [f"{name} {tuple(value.shape)}" for name, value in module.state_dict().items()]


def changed(nn: Any, kind: str, change: Callable[[Any, Any], Any]) -> tuple[str, list[str]]:
    """How a container of four layers prints, and its state, after a change."""
    parts = layers(nn, 1, 2, 3, 4)
    container = nn.Sequential(*parts) if kind == "Sequential" else nn.ModuleList(parts)
    out = change(container, nn)
    container = container if out is None else out
    return repr(container), names(container)


def pop(m: Any, nn: Any) -> None:
    assert m.pop(1).in_features == 2
    assert m.pop(-1).in_features == 4


def delete(m: Any, nn: Any) -> None:
    del m[0]
    del m[-1]


def delete_slice(m: Any, nn: Any) -> None:
    del m[1:3]


def replace(m: Any, nn: Any) -> None:
    m[1] = nn.ReLU()
    m[-1] = nn.Linear(7, 7)


def insert(m: Any, nn: Any) -> None:
    m.insert(1, nn.Linear(7, 7))
    m.insert(0, nn.Tanh())
    m.insert(len(m), nn.Linear(8, 8))


def add_in_place(m: Any, nn: Any) -> None:
    m += nn.Sequential(*layers(nn, 5))


CHANGES: list[Callable[[Any, Any], Any]] = [
    pop,
    delete,
    delete_slice,
    replace,
    insert,
    add_in_place,
    lambda m, nn: m.append(nn.Linear(5, 5)).append(nn.ReLU()),
    lambda m, nn: m.extend(nn.Sequential(*layers(nn, 5, 6))),
    lambda m, nn: m[1:3],
    lambda m, nn: m[::-2],
    lambda m, nn: m + type(m)(*layers(nn, 5)) if isinstance(m, nn.Sequential) else m + m,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_changes_as_pytorch(kind: str, change: Callable[[Any, Any], Any]) -> None:
    assert changed(nn, kind, change) == changed(torch_nn(), kind, change)


def test_repeated_sequences_as_pytorch() -> None:
    def made(nn: Any) -> tuple[Any, ...]:
        first = nn.Sequential(*layers(nn, 1, 2))
        shared = first * 2
        again = 3 * first
        first *= 2
        return repr(shared), repr(again), names(first), len(list(first.parameters()))

    assert made(nn) == made(torch_nn())


def test_a_row_runs_what_it_holds_now() -> None:
    row = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    forward = dg.function(lambda x: row(x), strict=True)
    x = dg.tensor(drawn(2, 3))
    same_bits(forward(x), row(x))
    row.append(nn.Linear(3, 2))
    same_bits(forward(x), row(x))
    row[1] = nn.ReLU()
    same_bits(forward(x), row(x))
    del row[0]
    same_bits(forward(x), row(x))
    assert row(x).shape == (2, 2)


def test_printed_lists_name_equal_neighbours_once() -> None:
    def made(nn: Any) -> str:
        block = [nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2)]
        return repr(nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Linear(1, 1), *block, nn.ReLU()]))

    assert made(nn) == made(torch_nn())
    assert repr(nn.ModuleList()) == "ModuleList()"
    assert "(3-4): 2 x Sequential(" in made(nn)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.ModuleList([nn.ReLU()])[1], IndexOutOfBounds, "index 1 of 1 modules"),
        (lambda: nn.Sequential(nn.ReLU())[-2], IndexOutOfBounds, "index -2"),
        (lambda: nn.Sequential().insert(1, nn.ReLU()), IndexOutOfBounds, "index 1 of 0"),
        (lambda: nn.Sequential(OrderedDict(a=nn.ReLU())).insert(0, nn.ReLU()),
         ArgumentError, "names of their own"),
        (lambda: nn.Sequential(nn.ReLU()) * 0, ArgumentError, "repeated"),
        (lambda: nn.ModuleList([3]), ArgumentError, "no Module"),  # type: ignore[list-item]
        (lambda: nn.ModuleDict({"a.b": nn.ReLU()}), ArgumentError, "cannot be registered"),
        (lambda: nn.ModuleDict({"keys": nn.ReLU()}), ArgumentError, "cannot be registered"),
        (lambda: nn.ModuleDict(3), ArgumentError, "no names"),  # type: ignore[arg-type]
        (lambda: nn.ModuleDict({"a": nn.ReLU()})["forward"], KeyError, "forward"),
        (lambda: nn.ModuleList()(dg.zeros(1)), NotImplementedError, "forward"),
        (lambda: nn.ParameterList(dg.zeros(3)), ArgumentError, "no values"),
        (lambda: nn.ParameterList([1])[1], IndexOutOfBounds, "index 1 of 1"),
        (lambda: nn.ParameterList()(1), NotImplementedError, "forward"),
        (lambda: nn.ParameterDict({"keys": dg.zeros(1)}), ArgumentError, "cannot be registered"),
        (lambda: nn.ParameterDict({"a": 1})["b"], KeyError, "b"),
        (lambda: nn.ParameterDict().popitem(), KeyError, "empty"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def module_dict(nn: Any) -> list[Any]:
    d = nn.ModuleDict({"conv": nn.Linear(1, 2), "act": nn.ReLU()})
    d["last"] = nn.Linear(3, 1)
    d.update([["more", nn.Tanh()], ("conv", nn.Linear(5, 5))])
    d.update(OrderedDict(end=nn.Identity()))
    popped = d.pop("act")
    del d["end"]
    seen = [repr(d), names(d), list(d), list(d.keys()), repr(popped), len(d), "act" in d]
    seen += [[repr(m) for m in d.values()], [k for k, _ in d.items()], repr(d["last"])]
    d.clear()
    return [*seen, repr(d), len(d), bool(d)]


def test_dicts_of_modules_as_pytorch() -> None:
    assert module_dict(nn) == module_dict(torch_nn())


def model_of_lists(nn: Any) -> Any:
    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers(nn, 4, 4))
            self.kinds = nn.ModuleDict({"relu": nn.ReLU(), "tanh": nn.Tanh()})
            self.scales = nn.ParameterList([nn.Parameter(layer.bias.detach() + 1)
                                            for layer in layers(nn, 4, 4)])  # fmt: skip
            self.named = nn.ParameterDict({"shift": layers(nn, 4)[0].bias.detach()})

        def forward(self, x: Any) -> Any:
            for k, layer in enumerate(self.layers):
                x = layer(x) * self.scales[k]
            for name in ("tanh", "relu"):
                x = self.kinds[name](x)
            for p in self.scales:
                x = x + p
            for kind in self.kinds.values():
                x = kind(x)
            return x + self.named["shift"]

    return Model()


def test_models_of_containers_as_pytorch() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = model_of_lists(nn), model_of_lists(torch.nn)
    assert names(ours) == names(theirs)
    assert repr(ours).replace("dualgrad.", "torch.") == repr(theirs).replace(
        "torch.FloatTensor", "torch.float32"
    )
    build = {nn: ours, torch.nn: theirs}
    ours.__class__.__repr__ = lambda self: ""
    theirs.__class__.__repr__ = lambda self: ""
    check_layer(build.__getitem__, drawn(3, 4))


def parameter_list(T: Any) -> list[Any]:
    """What a list of parameters does, over dualgrad or torch."""
    nn = T.nn
    values = nn.ParameterList([T.zeros(2, 3), 3, nn.Parameter(T.ones(1))])
    values.append(T.zeros(()))
    values.extend([T.ones(4), "text"])
    values += [nn.Parameter(T.zeros(5), requires_grad=False)]
    values[1] = T.ones(7)
    values[-1] = T.zeros(1, 2)
    part = values[1:4]
    seen = [names(values), names(part), len(values), len(part), values[5], type(part).__name__]
    seen += [[p.requires_grad for p in values.parameters()], [k for k in dir(values) if k == "0"]]
    return [*seen, repr(values).replace(T.__name__, "")]


def parameter_dict(T: Any) -> list[Any]:
    nn = T.nn
    d = nn.ParameterDict({"b": T.zeros(2), "a": nn.Parameter(T.zeros(3)), "c": 4})
    d["z"] = T.ones(1)
    d.update([("y", T.ones(2)), ["x", T.ones(3)]])
    d.update(OrderedDict(q=T.ones(1), p=T.ones(1)))
    seen: list[Any] = [names(d), list(d), list(reversed(d)), len(d), "a" in d, "n" in d, d["c"]]
    seen += [d.get("n", 5), d.setdefault("n", 6), d.popitem()[0], tuple(d.pop("y").shape)]
    del d["b"]
    other = d.copy() | {"k": T.zeros(9)}
    d |= nn.ParameterDict({"j": T.zeros(8)})
    seen += [list(other), list(d), list(d.keys()), [k for k, _ in d.items()], len(list(d.values()))]
    seen += [list(d.fromkeys(["u", "v"], 1).items()), names(other), other["a"] is d["a"]]
    seen += [list({"k": T.zeros(9)} | d)]
    text = repr(d).replace(T.__name__, "").replace("FloatTensor", "float32")
    d.clear()
    return [*seen, text, len(d), repr(d)]


@pytest.mark.parametrize("use", [parameter_list, parameter_dict])
def test_parameters_as_pytorch(use: Callable[[Any], list[Any]]) -> None:
    assert use(dg) == use(pytest.importorskip("torch"))


def test_values_of_parameters_are_read_at_each_call() -> None:
    held = nn.ParameterList([dg.ones(2), dg.ones(2)])
    forward = dg.function(lambda x: x + held[0] * len(held) + held[-1], strict=True)
    x = dg.zeros(2)
    assert forward(x).tolist() == [3.0, 3.0]
    with dg.no_grad():
        held[0].fill_(2.0)
    assert forward(x).tolist() == [5.0, 5.0]
    held[1] = dg.full(2, 4.0)
    assert forward(x).tolist() == [8.0, 8.0]
    held.append(dg.zeros(2))
    assert forward(x).tolist() == [6.0, 6.0]
    np.testing.assert_array_equal(forward(x).detach().numpy(), 6.0)
