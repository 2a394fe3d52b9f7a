"""Mistakes of people who know Python, NumPy or PyTorch, and not dualgrad; see `mistakes`."""

from __future__ import annotations

from typing import Any

import numpy as np

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn, optim
from semantics.mistakes import Case, Decorate, integers, leaf, mistake

# -- values that are no tensors -------------------------------------------------------------------


@mistake
def batch_in_place_of_its_inputs(decorate: Decorate) -> Case:
    model = nn.Linear(3, 2)

    @decorate
    def predict(batch: Any) -> dg.Tensor:
        return model(batch)  # raises

    return predict, (dg.ones(4, 3),), ((dg.ones(4, 3), dg.ones(4)),)


@mistake
def list_in_place_of_a_tensor(decorate: Decorate) -> Case:
    @decorate
    def largest(x: Any) -> dg.Tensor:
        return dg.softmax(x, axis=-1)  # raises

    return largest, (dg.ones(3),), ([1.0, 2.0, 3.0],)


@mistake
def number_as_a_target(decorate: Decorate) -> Case:
    @decorate
    def loss(y: dg.Tensor, target: Any) -> dg.Tensor:
        return F.mse_loss(y, target)  # raises

    return loss, (dg.ones(2), dg.ones(2)), (dg.ones(2), 1.0)


@mistake
def list_of_classes(decorate: Decorate) -> Case:
    @decorate
    def loss(logits: dg.Tensor, y: Any) -> dg.Tensor:
        return F.cross_entropy(logits, y)  # raises

    return loss, (dg.ones(2, 3), integers(0, 2)), (dg.ones(2, 3), [0, 2])


@mistake
def nothing_returned_by_a_layer(decorate: Decorate) -> Case:
    class Block(nn.Module):
        def forward(self, x: dg.Tensor) -> Any:
            self.last = dg.relu(x)

    block, head = Block(), nn.Linear(3, 2)

    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return head(block(x))  # raises

    return forward, None, (dg.ones(4, 3),)


@mistake
def function_in_place_of_its_result(decorate: Decorate) -> Case:
    @decorate
    def scale(x: dg.Tensor) -> dg.Tensor:
        return x * x.exp  # raises

    return scale, None, (dg.ones(3),)


@mistake
def number_in_a_matrix_product(decorate: Decorate) -> Case:
    @decorate
    def scale(x: dg.Tensor, factor: Any) -> dg.Tensor:
        return x @ factor  # raises

    return scale, (dg.ones(2, 3), dg.ones(3)), (dg.ones(2, 3), 2.0)


@mistake
def number_in_a_list_to_stack(decorate: Decorate) -> Case:
    @decorate
    def pair(x: dg.Tensor, y: Any) -> dg.Tensor:
        return dg.stack([x, y])  # raises

    return pair, (dg.tensor(1.0), dg.tensor(2.0)), (dg.tensor(1.0), 2.0)


@mistake
def comparison_with_none(decorate: Decorate) -> Case:
    @decorate
    def ready(x: dg.Tensor) -> bool:
        return x != None  # noqa: E711  # raises

    return ready, None, (dg.ones(2),)


@mistake
def text_as_data(decorate: Decorate) -> Case:
    @decorate
    def build(rows: list[Any]) -> dg.Tensor:
        return dg.tensor(rows)  # raises

    return build, ([1.0, 2.0],), (["1.0", "2.0"],)


@mistake
def missing_value_in_data(decorate: Decorate) -> Case:
    @decorate
    def build(rows: list[Any]) -> dg.Tensor:
        return dg.tensor(rows)  # raises

    return build, ([[1.0, 2.0]],), ([[1.0, None]],)


@mistake
def dict_as_data(decorate: Decorate) -> Case:
    @decorate
    def build(row: Any) -> dg.Tensor:
        return dg.tensor(row)  # raises

    return build, None, ({"x": 1.0, "y": 2.0},)


@mistake
def number_and_row_mixed(decorate: Decorate) -> Case:
    @decorate
    def build(rows: Any) -> dg.Tensor:
        return dg.tensor(rows) + 1.0  # raises

    return build, None, ([[1.0, 2.0], 3.0],)


@mistake
def integer_beyond_all_dtypes(decorate: Decorate) -> Case:
    @decorate
    def build(n: int) -> dg.Tensor:
        return dg.tensor([n, 1])  # raises

    return build, (3,), (10**30,)


@mistake
def tensor_made_by_its_class(decorate: Decorate) -> Case:
    @decorate
    def build(n: int) -> dg.Tensor:
        return dg.Tensor([n, n])  # type: ignore[arg-type]  # raises

    return build, None, (3,)


@mistake
def parameter_of_a_list(decorate: Decorate) -> Case:
    @decorate
    def build(values: Any) -> Any:
        return nn.Parameter(values)  # raises

    return build, None, ([1.0, 2.0],)


# -- habits of PyTorch and NumPy ------------------------------------------------------------------


@mistake
def tensors_to_join_without_a_list(decorate: Decorate) -> Case:
    @decorate
    def join(a: dg.Tensor, b: dg.Tensor) -> dg.Tensor:
        return dg.cat(a, b)  # raises

    return join, None, (dg.ones(2), dg.ones(3))


@mistake
def dtype_by_a_name_of_python(decorate: Decorate) -> Case:
    @decorate
    def start(n: int) -> dg.Tensor:
        return dg.zeros(n, dtype="float")  # raises

    return start, None, (3,)


@mistake
def complex_dtype(decorate: Decorate) -> Case:
    @decorate
    def start(n: int) -> dg.Tensor:
        return dg.zeros(n, dtype="complex64")  # raises

    return start, None, (3,)


@mistake
def device_of_another_library(decorate: Decorate) -> Case:
    @decorate
    def start(n: int) -> dg.Tensor:
        return dg.zeros(n, device="mps")  # raises

    return start, None, (3,)


@mistake
def dim_of_a_missing_axis(decorate: Decorate) -> Case:
    @decorate
    def mean(x: dg.Tensor) -> dg.Tensor:
        return x.mean(dim=2, keepdim=True)  # raises

    return mean, (dg.ones(2, 3, 4),), (dg.ones(2, 3),)


@mistake
def axes_to_swap_beyond_the_last(decorate: Decorate) -> Case:
    @decorate
    def swap(x: dg.Tensor) -> dg.Tensor:
        return x.transpose(1, 2)  # raises

    return swap, (dg.ones(2, 3, 4),), (dg.ones(2, 3),)


@mistake
def float_as_a_size(decorate: Decorate) -> Case:
    @decorate
    def halves(x: dg.Tensor) -> dg.Tensor:
        return x.reshape(2, x.shape[0] / 2)  # raises

    return halves, None, (dg.ones(6),)


@mistake
def tensor_as_a_size(decorate: Decorate) -> Case:
    @decorate
    def rows(x: dg.Tensor, n: Any) -> dg.Tensor:
        return x.reshape(n, -1)  # raises

    return rows, (dg.ones(6), 2), (dg.ones(6), dg.tensor(2))


@mistake
def name_as_an_axis(decorate: Decorate) -> Case:
    @decorate
    def total(x: dg.Tensor) -> dg.Tensor:
        return x.sum("rows")  # raises

    return total, None, (dg.ones(2, 3),)


@mistake
def axis_named_twice(decorate: Decorate) -> Case:
    @decorate
    def total(x: dg.Tensor) -> dg.Tensor:
        return x.sum(axis=(0, -2))  # raises

    return total, None, (dg.ones(2, 3),)


@mistake
def axis_under_two_names(decorate: Decorate) -> Case:
    @decorate
    def total(x: dg.Tensor) -> dg.Tensor:
        return x.sum(dim=0, axis=1)  # raises

    return total, None, (dg.ones(2, 3),)


@mistake
def axes_without_a_tuple(decorate: Decorate) -> Case:
    @decorate
    def total(x: dg.Tensor) -> dg.Tensor:
        return x.sum(0, 1)  # raises

    return total, None, (dg.ones(2, 3),)


@mistake
def view_of_a_transposed_matrix(decorate: Decorate) -> Case:
    @decorate
    def flat(x: dg.Tensor) -> dg.Tensor:
        return x.view(-1)  # raises

    return flat, (dg.ones(2, 3),), (dg.ones(2, 3).T,)


@mistake
def column_by_its_name(decorate: Decorate) -> Case:
    @decorate
    def column(table: dg.Tensor, name: Any) -> dg.Tensor:
        return table[name]  # raises

    return column, (dg.ones(2, 3), 1), (dg.ones(2, 3), "price")


@mistake
def float_in_a_slice(decorate: Decorate) -> Case:
    @decorate
    def first_half(x: dg.Tensor) -> dg.Tensor:
        return x[: x.shape[0] / 2]  # raises

    return first_half, None, (dg.ones(6),)


@mistake
def slice_with_a_step_of_zero(decorate: Decorate) -> Case:
    @decorate
    def every(x: dg.Tensor, n: int) -> dg.Tensor:
        return x[::n]  # raises

    return every, (dg.ones(6), 2), (dg.ones(6), 0)


@mistake
def text_assigned_to_elements(decorate: Decorate) -> Case:
    @decorate
    def mark(x: dg.Tensor, value: Any) -> dg.Tensor:
        x[0] = value  # raises
        return x

    return mark, (dg.zeros(3), 1.0), (dg.zeros(3), "one")


@mistake
def bitwise_and_of_floats(decorate: Decorate) -> Case:
    @decorate
    def both(a: dg.Tensor, b: dg.Tensor) -> dg.Tensor:
        return a & b  # raises

    return both, (dg.ones(2) > 0.0, dg.ones(2) > 0.0), (dg.ones(2), dg.ones(2))


@mistake
def negated_mask(decorate: Decorate) -> Case:
    @decorate
    def outside(x: dg.Tensor, mask: dg.Tensor) -> dg.Tensor:
        return dg.where(-mask, x, 0.0)  # raises

    return outside, None, (dg.ones(2), dg.ones(2) > 0.0)


@mistake
def condition_that_is_no_mask(decorate: Decorate) -> Case:
    @decorate
    def pick(c: dg.Tensor, x: dg.Tensor) -> dg.Tensor:
        return dg.where(c, x, 0.0)  # raises

    return pick, (dg.ones(2) > 0.0, dg.ones(2)), (dg.ones(2), dg.ones(2))


@mistake
def division_in_place_of_integers(decorate: Decorate) -> Case:
    @decorate
    def halve(n: dg.Tensor) -> dg.Tensor:
        n /= 2  # raises
        return n

    return halve, (dg.ones(2),), (integers(1, 2),)


@mistake
def growing_in_place(decorate: Decorate) -> Case:
    @decorate
    def add(x: dg.Tensor, rows: dg.Tensor) -> dg.Tensor:
        x += rows  # raises
        return x

    return add, (dg.ones(2, 3), dg.ones(3)), (dg.ones(3), dg.ones(2, 3))


@mistake
def copy_of_wrong_shape(decorate: Decorate) -> Case:
    @decorate
    def restore(x: dg.Tensor, saved: dg.Tensor) -> dg.Tensor:
        return x.copy_(saved)  # raises

    return restore, (dg.ones(2, 3), dg.ones(3)), (dg.ones(2, 3), dg.ones(4))


@mistake
def triangle_of_a_vector(decorate: Decorate) -> Case:
    @decorate
    def lower(x: dg.Tensor) -> dg.Tensor:
        return dg.tril(x)  # raises

    return lower, (dg.ones(3, 3),), (dg.ones(3),)


@mistake
def padding_by_one_number(decorate: Decorate) -> Case:
    @decorate
    def frame(x: dg.Tensor, by: Any) -> dg.Tensor:
        return F.pad(x, by)  # raises

    return frame, (dg.ones(3, 3), (1, 1)), (dg.ones(3, 3), 1)


@mistake
def image_without_channels(decorate: Decorate) -> Case:
    @decorate
    def enlarge(image: dg.Tensor) -> dg.Tensor:
        return F.interpolate(image, scale_factor=2)  # raises

    return enlarge, (dg.ones(1, 1, 2, 2),), (dg.ones(2, 2),)


@mistake
def equation_with_too_few_operands(decorate: Decorate) -> Case:
    @decorate
    def product(a: dg.Tensor) -> dg.Tensor:
        return dg.einsum("ij,jk->ik", a)  # raises

    return product, None, (dg.ones(2, 2),)


@mistake
def chunks_of_no_number(decorate: Decorate) -> Case:
    @decorate
    def parts(x: dg.Tensor, n: int) -> Any:
        return dg.chunk(x, n)  # raises

    return parts, (dg.ones(4), 2), (dg.ones(4), 0)


@mistake
def negative_class(decorate: Decorate) -> Case:
    @decorate
    def loss(logits: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        return F.cross_entropy(logits, y)  # raises

    return loss, (dg.ones(2, 3), integers(0, 2)), (dg.ones(2, 3), integers(0, -1))


# -- gradients and training -----------------------------------------------------------------------


@mistake
def backward_of_integers(decorate: Decorate) -> Case:
    @decorate
    def train(n: dg.Tensor) -> None:
        (n * 2).sum().backward()  # raises

    return train, None, (integers(1, 2),)


@mistake
def element_of_a_leaf_assigned(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def clear(k: int) -> None:
        w[k] = 0.0  # raises

    return clear, None, (1,)


@mistake
def number_as_a_gradient(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def clear(value: Any) -> None:
        w.grad = value  # raises

    return clear, (None,), (0.0,)


@mistake
def array_of_a_leaf(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def export(scale: float) -> Any:
        return np.asarray(w) * scale  # raises

    return export, None, (2.0,)


@mistake
def optimizer_of_a_model(decorate: Decorate) -> Case:
    model = nn.Linear(3, 2)

    @decorate
    def setup(rate: float) -> Any:
        return optim.SGD(model, lr=rate)  # type: ignore[arg-type]  # raises

    return setup, None, (0.1,)


@mistake
def state_that_is_a_path(decorate: Decorate) -> Case:
    model = nn.Linear(3, 2)

    @decorate
    def restore(state: Any) -> Any:
        return model.load_state_dict(state)  # raises

    return restore, None, ("model.npz",)


@mistake
def layer_of_a_float_size(decorate: Decorate) -> Case:
    @decorate
    def build(width: int) -> Any:
        return nn.Linear(width, width / 2)  # type: ignore[arg-type]  # raises

    return build, None, (4,)


@mistake
def layers_in_a_list(decorate: Decorate) -> Case:
    @decorate
    def build(width: int) -> Any:
        return nn.Sequential([nn.Linear(width, width), nn.ReLU()])  # type: ignore[arg-type]  # raises

    return build, None, (4,)


# -- memory ---------------------------------------------------------------------------------------


@mistake
def more_than_the_memory(decorate: Decorate) -> Case:
    @decorate
    def build(n: int) -> dg.Tensor:
        return dg.zeros(n, n) + 1.0  # raises

    return build, (2,), (1 << 24,)
