"""Mistakes with models, optimizers and Python itself; see `mistakes`."""

from __future__ import annotations

from typing import Any

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn, optim
from semantics.mistakes import Case, Decorate, integers, leaf, mistake, refusal

# -- models and optimizers ------------------------------------------------------------------------


@mistake
def optimizer_without_parameters(decorate: Decorate) -> Case:
    @decorate
    def setup(params: list[dg.Tensor]) -> Any:
        return optim.SGD(params, lr=0.1)  # raises

    return setup, ([leaf(2)],), ([],)


@mistake
def negative_learning_rate(decorate: Decorate) -> Case:
    @decorate
    def setup(params: list[dg.Tensor]) -> Any:
        return optim.Adam(params, lr=-0.1)  # raises

    return setup, None, ([leaf(2)],)


@mistake
def optimizer_of_no_leaf(decorate: Decorate) -> Case:
    @decorate
    def setup(params: list[dg.Tensor]) -> Any:
        return optim.SGD([p * 1.0 for p in params], lr=0.1)  # raises

    return setup, None, ([leaf(2)],)


@mistake
def state_of_another_model(decorate: Decorate) -> Case:
    model = nn.Linear(3, 2)

    @decorate
    def restore(state: dict[str, dg.Tensor]) -> Any:
        return model.load_state_dict(state)  # raises

    good = nn.Linear(3, 2).state_dict()
    return restore, (good,), ({"weight": good["weight"], "offset": good["bias"]},)


@mistake
def state_of_another_shape(decorate: Decorate) -> Case:
    model = nn.Linear(3, 2)

    @decorate
    def restore(state: dict[str, dg.Tensor]) -> Any:
        return model.load_state_dict(state)  # raises

    return restore, None, (nn.Linear(2, 3).state_dict(),)


@mistake
def tensor_in_place_of_a_parameter(decorate: Decorate) -> Case:
    model = nn.Linear(3, 2)

    @decorate
    def scale(factor: float) -> None:
        model.weight = model.weight * factor  # raises

    return scale, None, (2.0,)


@mistake
def missing_attribute_of_a_model(decorate: Decorate) -> Case:
    model = nn.Linear(3, 2)

    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return x @ model.wieght.T  # raises

    return forward, None, (dg.ones(4, 3),)


@mistake
def missing_attribute_of_a_tensor(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return x.sofmax(-1)  # raises

    return forward, None, (dg.ones(4, 3),)


@mistake
def missing_function(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return dg.sofmax(x)  # raises

    return forward, None, (dg.ones(4, 3),)


@mistake
def argument_of_another_library(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return x.sum(axes=1)  # raises

    return forward, None, (dg.ones(4, 3),)


@mistake
def unknown_mode(decorate: Decorate) -> Case:
    @decorate
    def loss(y: dg.Tensor, target: dg.Tensor, mode: str) -> dg.Tensor:
        return F.mse_loss(y, target, reduction=mode)  # raises

    return loss, (dg.ones(4), dg.ones(4), "sum"), (dg.ones(4), dg.ones(4), "average")


@mistake
def probability_above_one(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor, p: float) -> dg.Tensor:
        return F.dropout(x, p)  # raises

    return forward, (dg.ones(4), 0.5), (dg.ones(4), 1.5)


@mistake
def too_many_arguments_of_a_model(decorate: Decorate) -> Case:
    model = nn.Linear(3, 2)

    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return model(x, True)  # raises

    return forward, None, (dg.ones(4, 3),)


@mistake
def model_without_forward(decorate: Decorate) -> Case:
    class Net(nn.Module):
        def foward(self, x: dg.Tensor) -> dg.Tensor:
            return x * 2.0

    model = Net()

    @decorate
    def predict(x: dg.Tensor) -> dg.Tensor:
        return model(x)  # raises

    return predict, None, (dg.ones(4, 3),)


@mistake
def too_few_arguments(decorate: Decorate) -> Case:
    def helper(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        return x * w

    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return helper(x)  # type: ignore[call-arg]  # raises

    return forward, None, (dg.ones(3),)


# -- Python ---------------------------------------------------------------------------------------


@mistake
def value_error_of_the_user(decorate: Decorate) -> Case:
    @decorate
    def split(x: dg.Tensor, heads: int) -> dg.Tensor:
        if x.shape[-1] % heads:
            raise ValueError(f"{x.shape[-1]} features for {heads} heads")  # raises
        return x.reshape(heads, -1)

    return split, (dg.ones(2, 6), 3), (dg.ones(2, 6), 4)


@mistake
def assertion_about_a_shape(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        assert x.shape[0] == 4, f"batch of {x.shape[0]}"  # raises
        return x * 2.0

    return forward, (dg.ones(4),), (dg.ones(3),)


@mistake
def assertion_about_a_value(decorate: Decorate) -> Case:
    @decorate
    def root(x: dg.Tensor) -> dg.Tensor:
        assert (x >= 0.0).all(), "a negative number"  # raises
        return x.sqrt()

    return root, (dg.tensor([1.0, 4.0]),), (dg.tensor([1.0, -4.0]),)


@mistake
def missing_key(decorate: Decorate) -> Case:
    @decorate
    def forward(batch: dict[str, dg.Tensor]) -> dg.Tensor:
        return batch["inputs"] * 2.0  # raises

    return forward, ({"inputs": dg.ones(2)},), ({"input": dg.ones(2)},)


@mistake
def missing_element(decorate: Decorate) -> Case:
    @decorate
    def last(layers: list[dg.Tensor]) -> dg.Tensor:
        return layers[1] * 2.0  # raises

    return last, ([dg.ones(2), dg.ones(2)],), ([dg.ones(2)],)


@mistake
def undefined_name(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return x * sclae  # type: ignore[name-defined]  # noqa: F821  # raises

    return forward, None, (dg.ones(2),)


@mistake
def division_by_zero(decorate: Decorate) -> Case:
    @decorate
    def scale(x: dg.Tensor, n: int) -> dg.Tensor:
        return x * (1.0 / n)  # raises

    return scale, (dg.ones(2), 2), (dg.ones(2), 0)


@mistake
def none_called(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor, activation: Any) -> dg.Tensor:
        return activation(x)  # raises

    return forward, (dg.ones(2), dg.relu), (dg.ones(2), None)


@mistake
def shape_used_as_a_function(decorate: Decorate) -> Case:
    @decorate
    def flat(x: dg.Tensor) -> dg.Tensor:
        return x.reshape(x.shape(0), -1)  # raises

    return flat, None, (dg.ones(2, 3),)


@mistake
def error_in_a_function_that_is_called(decorate: Decorate) -> Case:
    def attention(q: dg.Tensor, k: dg.Tensor) -> dg.Tensor:
        return (q @ k).softmax(-1)  # raises

    @decorate
    def forward(q: dg.Tensor, k: dg.Tensor) -> dg.Tensor:
        return attention(q, k) * 2.0

    return forward, (dg.ones(2, 3), dg.ones(3, 2)), (dg.ones(2, 3), dg.ones(2, 3))


@mistake
def error_in_a_loop(decorate: Decorate) -> Case:
    weights = [dg.ones(3, 3), dg.ones(3, 4), dg.ones(3, 2)]

    @decorate
    def forward(x: dg.Tensor, depth: int) -> dg.Tensor:
        for w in weights[:depth]:
            x = dg.tanh(x @ w)  # raises
        return x

    return forward, (dg.ones(2, 3), 2), (dg.ones(2, 3), 3)


@mistake
def classes_counted_from_one(decorate: Decorate) -> Case:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @decorate
    def step(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)  # raises
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, (dg.ones(2, 4), integers(0, 2)), (dg.ones(2, 4), integers(1, 3))


# -- what only `@function` refuses ----------------------------------------------------------------


@refusal
def decorated_generator() -> None:
    def batches(x: dg.Tensor) -> Any:
        for k in range(4):
            yield x[k]

    dg.function(batches)  # raises


@refusal
def decorated_class() -> None:
    class Model(nn.Module):
        pass

    dg.function(Model)  # raises


@refusal
def decorated_coroutine() -> None:
    async def fetch(x: dg.Tensor) -> dg.Tensor:
        return x

    dg.function(fetch)  # raises


@refusal
def decorated_result() -> None:
    dg.function(dg.ones(2).sum())  # type: ignore[call-overload]  # raises


@refusal
def branch_on_a_value() -> None:
    @dg.function(strict=True)
    def sign(x: dg.Tensor) -> dg.Tensor:
        if x.sum() > 0.0:  # raises
            return x
        return -x

    sign(dg.ones(3))


@refusal
def loop_on_a_value() -> None:
    @dg.function(strict=True)
    def grow(x: dg.Tensor) -> dg.Tensor:
        while x.max() < 10.0:  # raises
            x = x * 2.0
        return x

    grow(dg.ones(3))


@refusal
def text_of_a_program_before_a_call() -> None:
    @dg.function
    def double(x: dg.Tensor) -> dg.Tensor:
        return x * 2.0

    double.graph()  # raises
