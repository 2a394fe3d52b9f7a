"""Mistakes that users make, each in a function that is called with good and with bad arguments.

A mistake is made by a function that takes a decorator and returns the decorated function, good
arguments (None where no call is right) and bad ones.  `raises` marks the line that fails: the
location of the message, or the last frame of the traceback, must be that line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn

Decorate = Callable[[Callable[..., Any]], Callable[..., Any]]
Case = tuple[Callable[..., Any], tuple[Any, ...] | None, tuple[Any, ...]]
MISTAKES: dict[str, Callable[[Decorate], Case]] = {}


def mistake(make: Callable[[Decorate], Case]) -> Callable[[Decorate], Case]:
    MISTAKES[make.__name__] = make
    return make


REFUSALS: dict[str, Callable[[], None]] = {}


def refusal(make: Callable[[], None]) -> Callable[[], None]:
    """A mistake that only `@function` refuses: made when it is called."""
    REFUSALS[make.__name__] = make
    return make


def leaf(*shape: int) -> dg.Tensor:
    return dg.ones(*shape, requires_grad=True)


def integers(*numbers: int) -> dg.Tensor:
    return dg.tensor(numbers, dtype=dg.int64)


# -- shapes ---------------------------------------------------------------------------------------


@mistake
def product_of_wrong_sizes(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        return dg.relu(x @ w)  # raises

    return forward, (dg.ones(2, 3), dg.ones(3, 4)), (dg.ones(2, 3), dg.ones(4, 3))


@mistake
def sum_of_wrong_sizes(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor, bias: dg.Tensor) -> dg.Tensor:
        return dg.tanh(x + bias) * 2.0  # raises

    return forward, (dg.ones(2, 3), dg.ones(3)), (dg.ones(2, 3), dg.ones(2))


@mistake
def comparison_of_wrong_sizes(decorate: Decorate) -> Case:
    @decorate
    def accuracy(logits: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        right = logits.argmax(axis=1) == y  # raises
        return right.sum()

    return accuracy, (dg.ones(4, 3), integers(0, 1, 2, 0)), (dg.ones(4, 3), integers(0, 1, 2))


@mistake
def where_of_wrong_sizes(decorate: Decorate) -> Case:
    @decorate
    def pick(c: dg.Tensor, a: dg.Tensor, b: dg.Tensor) -> dg.Tensor:
        return dg.where(c > 0.0, a, b)  # raises

    good = (dg.ones(4), dg.ones(4), dg.ones(4))
    return pick, good, (dg.ones(4), dg.ones(4), dg.ones(5))


@mistake
def cat_of_wrong_sizes(decorate: Decorate) -> Case:
    @decorate
    def join(a: dg.Tensor, b: dg.Tensor) -> dg.Tensor:
        return dg.cat([a, b], axis=0)  # raises

    return join, (dg.ones(2, 3), dg.ones(5, 3)), (dg.ones(2, 3), dg.ones(2, 4))


@mistake
def stack_of_wrong_sizes(decorate: Decorate) -> Case:
    @decorate
    def join(a: dg.Tensor, b: dg.Tensor) -> dg.Tensor:
        return dg.stack([a, b])  # raises

    return join, (dg.ones(2, 3), dg.ones(2, 3)), (dg.ones(2, 3), dg.ones(3, 2))


@mistake
def reshape_to_wrong_size(decorate: Decorate) -> Case:
    @decorate
    def flat(x: dg.Tensor) -> dg.Tensor:
        return x.reshape(-1, 784)  # raises

    return flat, (dg.ones(2, 28, 28),), (dg.ones(2, 27, 28),)


@mistake
def reshape_with_two_unknown_sizes(decorate: Decorate) -> Case:
    @decorate
    def flat(x: dg.Tensor) -> dg.Tensor:
        return x.reshape(-1, 4, -1)  # raises

    return flat, None, (dg.ones(2, 4, 3),)


@mistake
def expand_of_a_size_above_one(decorate: Decorate) -> Case:
    @decorate
    def repeat(x: dg.Tensor) -> dg.Tensor:
        return x.expand(4, 3)  # raises

    return repeat, (dg.ones(1, 3),), (dg.ones(2, 3),)


@mistake
def squeeze_of_wrong_axis(decorate: Decorate) -> Case:
    @decorate
    def drop(x: dg.Tensor) -> dg.Tensor:
        return x.squeeze(2)  # raises

    return drop, (dg.ones(2, 3, 1),), (dg.ones(2, 3),)


@mistake
def sum_over_missing_axis(decorate: Decorate) -> Case:
    @decorate
    def mean(x: dg.Tensor) -> dg.Tensor:
        return x.sum(axis=2) / 3.0  # raises

    return mean, (dg.ones(2, 3, 4),), (dg.ones(2, 3),)


@mistake
def permutation_without_an_axis(decorate: Decorate) -> Case:
    @decorate
    def swap(x: dg.Tensor) -> dg.Tensor:
        return x.permute(0, 2, 1)  # raises

    return swap, (dg.ones(2, 3, 4),), (dg.ones(2, 3, 4, 5),)


@mistake
def linear_of_wrong_width(decorate: Decorate) -> Case:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return model(x)  # raises

    return forward, (dg.ones(2, 28, 28),), (dg.ones(2, 32, 32),)


@mistake
def convolution_of_wrong_channels(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        return F.conv2d(x, w, padding=1)  # raises

    return (
        forward,
        (dg.ones(1, 3, 8, 8), dg.ones(4, 3, 3, 3)),
        (
            dg.ones(1, 1, 8, 8),
            dg.ones(4, 3, 3, 3),
        ),
    )


@mistake
def convolution_without_a_batch_of_channels(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        return F.conv2d(x, w)  # raises

    return forward, (dg.ones(1, 3, 8, 8), dg.ones(4, 3, 3, 3)), (dg.ones(8, 8), dg.ones(4, 3, 3, 3))


@mistake
def kernel_larger_than_its_image(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor) -> dg.Tensor:
        return F.max_pool2d(x, 5)  # raises

    return forward, (dg.ones(1, 1, 8, 8),), (dg.ones(1, 1, 4, 4),)


@mistake
def loss_of_wrong_shapes(decorate: Decorate) -> Case:
    @decorate
    def loss(y: dg.Tensor, target: dg.Tensor) -> dg.Tensor:
        return F.mse_loss(y, target)  # raises

    return loss, (dg.ones(4, 1), dg.ones(4, 1)), (dg.ones(4, 1), dg.ones(3, 1))


@mistake
def normalization_of_wrong_shape(decorate: Decorate) -> Case:
    @decorate
    def forward(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        return F.layer_norm(x, (4,), w)  # raises

    return forward, (dg.ones(2, 4), dg.ones(4)), (dg.ones(2, 5), dg.ones(4))


@mistake
def einsum_of_wrong_sizes(decorate: Decorate) -> Case:
    @decorate
    def scores(q: dg.Tensor, k: dg.Tensor) -> dg.Tensor:
        return dg.einsum("bqd,bkd->bqk", q, k)  # raises

    return scores, (dg.ones(2, 3, 4), dg.ones(2, 5, 4)), (dg.ones(2, 3, 4), dg.ones(2, 4, 5))


@mistake
def split_of_wrong_sizes(decorate: Decorate) -> Case:
    @decorate
    def halves(x: dg.Tensor) -> dg.Tensor:
        a, b = x.split([3, 3], axis=1)  # raises
        return a * b

    return halves, (dg.ones(2, 6),), (dg.ones(2, 7),)


@mistake
def unpacking_of_too_many_rows(decorate: Decorate) -> Case:
    @decorate
    def product(x: dg.Tensor) -> dg.Tensor:
        a, b = x  # raises
        return a * b

    return product, (dg.ones(2, 3),), (dg.ones(3, 3),)


@mistake
def inverse_of_no_square(decorate: Decorate) -> Case:
    @decorate
    def solve(a: dg.Tensor, b: dg.Tensor) -> dg.Tensor:
        return dg.linalg.solve(a, b)  # raises

    return solve, (dg.eye(3), dg.ones(3)), (dg.ones(3, 4), dg.ones(3))


@mistake
def inverse_of_a_singular_matrix(decorate: Decorate) -> Case:
    @decorate
    def invert(a: dg.Tensor) -> dg.Tensor:
        return dg.linalg.inv(a) * 2.0  # raises

    return invert, (dg.eye(3),), (dg.ones(3, 3),)


# -- dtypes ---------------------------------------------------------------------------------------


@mistake
def floats_as_index(decorate: Decorate) -> Case:
    @decorate
    def pick(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
        return x[at]  # raises

    return pick, (dg.ones(4), integers(0, 3)), (dg.ones(4), dg.tensor([0.0, 3.0]))


@mistake
def a_float_as_index(decorate: Decorate) -> Case:
    @decorate
    def pick(x: dg.Tensor, n: float) -> dg.Tensor:
        return x[n / 2]  # raises

    return pick, None, (dg.ones(4), 4)


@mistake
def floats_as_classes(decorate: Decorate) -> Case:
    @decorate
    def loss(logits: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        return F.cross_entropy(logits, y)  # raises

    return loss, (dg.ones(2, 3), integers(0, 2)), (dg.ones(2, 3), dg.tensor([0.0, 2.0]))


@mistake
def product_of_bools(decorate: Decorate) -> Case:
    @decorate
    def masked(x: dg.Tensor, mask: dg.Tensor) -> dg.Tensor:
        return (mask @ x).sum()  # raises

    good = (dg.ones(3), dg.ones(2, 3))
    return masked, good, (dg.ones(3) > 0.0, dg.ones(2, 3) > 0.0)


@mistake
def gradient_of_integers(decorate: Decorate) -> Case:
    @decorate
    def weights(n: int) -> dg.Tensor:
        return dg.zeros(n, dtype=dg.int64, requires_grad=True)  # raises

    return weights, None, (4,)


@mistake
def unknown_dtype(decorate: Decorate) -> Case:
    @decorate
    def convert(x: dg.Tensor, name: str) -> dg.Tensor:
        return x.astype(name)  # raises

    return convert, (dg.ones(4), "float64"), (dg.ones(4), "flaot64")


@mistake
def unknown_device(decorate: Decorate) -> Case:
    @decorate
    def start(n: int) -> dg.Tensor:
        return dg.zeros(n, device="gpu")  # raises

    return start, None, (4,)


@mistake
def text_as_operand(decorate: Decorate) -> Case:
    @decorate
    def scale(x: dg.Tensor, factor: object) -> dg.Tensor:
        return x * factor  # raises

    return scale, (dg.ones(4), 2.0), (dg.ones(4), "2.0")


@mistake
def list_as_operand(decorate: Decorate) -> Case:
    @decorate
    def shift(x: dg.Tensor, by: object) -> dg.Tensor:
        return x + by  # raises

    return shift, (dg.ones(2), 1.0), (dg.ones(2), [1.0, 2.0])


@mistake
def none_as_operand(decorate: Decorate) -> Case:
    @decorate
    def step(w: dg.Tensor) -> dg.Tensor:
        return w - 0.1 * w.grad  # raises

    w = leaf(3)
    w.grad = dg.ones(3)
    return step, (w,), (leaf(3),)


@mistake
def float_added_into_integers(decorate: Decorate) -> Case:
    @decorate
    def count(n: dg.Tensor, x: dg.Tensor) -> dg.Tensor:
        n += x  # raises
        return n

    return count, (integers(1, 2), integers(3, 4)), (integers(1, 2), dg.ones(2))


# -- positions ------------------------------------------------------------------------------------


@mistake
def index_beyond_the_end(decorate: Decorate) -> Case:
    @decorate
    def row(x: dg.Tensor) -> dg.Tensor:
        return x[3] * 2.0  # raises

    return row, (dg.ones(4, 2),), (dg.ones(3, 2),)


@mistake
def too_many_indices(decorate: Decorate) -> Case:
    @decorate
    def corner(x: dg.Tensor) -> dg.Tensor:
        return x[0, 0, 0]  # raises

    return corner, (dg.ones(2, 2, 2),), (dg.ones(2, 2),)


@mistake
def index_tensor_beyond_the_end(decorate: Decorate) -> Case:
    @decorate
    def rows(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
        y = x * 2.0
        return y[at].sum()  # raises

    return rows, (dg.ones(4, 2), integers(0, 3)), (dg.ones(4, 2), integers(0, 4))


@mistake
def gather_beyond_the_end(decorate: Decorate) -> Case:
    @decorate
    def chosen(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
        return dg.gather(x, 1, at)  # raises

    good = dg.tensor([[0], [2]], dtype=dg.int64)
    return chosen, (dg.ones(2, 3), good), (dg.ones(2, 3), good + 1)


@mistake
def one_hot_beyond_the_classes(decorate: Decorate) -> Case:
    @decorate
    def encode(y: dg.Tensor) -> dg.Tensor:
        return F.one_hot(y, 3) * 2  # raises

    return encode, (integers(0, 2),), (integers(1, 3),)


@mistake
def embedding_beyond_the_vocabulary(decorate: Decorate) -> Case:
    @decorate
    def embed(tokens: dg.Tensor, table: dg.Tensor) -> dg.Tensor:
        return F.embedding(tokens, table) * 2.0  # raises

    return embed, (integers(0, 4), dg.ones(5, 2)), (integers(0, 5), dg.ones(5, 2))


@mistake
def class_beyond_the_scores(decorate: Decorate) -> Case:
    w = leaf(4, 3)

    @decorate
    def train(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        loss = F.cross_entropy(x @ w, y)  # raises
        loss.backward()
        return loss.detach()

    return train, (dg.ones(2, 4), integers(0, 2)), (dg.ones(2, 4), integers(1, 3))


@mistake
def assignment_beyond_the_end(decorate: Decorate) -> Case:
    @decorate
    def mark(x: dg.Tensor, at: dg.Tensor) -> dg.Tensor:
        x[at] = 1.0  # raises
        return x

    return mark, (dg.zeros(4), integers(0, 3)), (dg.zeros(4), integers(0, 4))


@mistake
def assignment_of_wrong_shape(decorate: Decorate) -> Case:
    @decorate
    def mark(x: dg.Tensor, row: dg.Tensor) -> dg.Tensor:
        x[0] = row  # raises
        return x

    return mark, (dg.zeros(2, 3), dg.ones(3)), (dg.zeros(2, 3), dg.ones(2))


@mistake
def mask_of_wrong_shape(decorate: Decorate) -> Case:
    @decorate
    def clear(x: dg.Tensor, mask: dg.Tensor) -> dg.Tensor:
        x[mask] = 0.0  # raises
        return x

    return clear, (dg.ones(4), dg.ones(4) > 0.0), (dg.ones(4), dg.ones(3) > 0.0)


@mistake
def selection_beyond_the_end(decorate: Decorate) -> Case:
    @decorate
    def window(x: dg.Tensor, start: int) -> dg.Tensor:
        return dg.narrow(x, 0, start, 3)  # raises

    return window, (dg.ones(5), 2), (dg.ones(5), 3)


@mistake
def more_largest_than_elements(decorate: Decorate) -> Case:
    @decorate
    def best(x: dg.Tensor, k: int) -> dg.Tensor:
        return dg.topk(x, k)[0]  # raises

    return best, (dg.ones(3), 2), (dg.ones(3), 5)


# -- gradients ------------------------------------------------------------------------------------


@mistake
def backward_of_a_vector(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def train(x: dg.Tensor) -> None:
        (w * x).backward()  # raises

    return train, None, (dg.ones(3),)


@mistake
def backward_twice(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def train(x: dg.Tensor) -> None:
        loss = (w * x).sum()
        loss.backward()
        loss.backward()  # raises

    return train, None, (dg.ones(3),)


@mistake
def backward_without_gradients(decorate: Decorate) -> Case:
    @decorate
    def train(x: dg.Tensor, w: dg.Tensor) -> None:
        (w * x).sum().backward()  # raises

    return train, (dg.ones(3), leaf(3)), (dg.ones(3), dg.ones(3))


@mistake
def backward_under_no_grad(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def train(x: dg.Tensor) -> None:
        with dg.no_grad():
            loss = (w * x).sum()
        loss.backward()  # raises

    return train, None, (dg.ones(3),)


@mistake
def seed_of_wrong_shape(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def train(x: dg.Tensor, seed: dg.Tensor) -> None:
        (w * x).backward(seed)  # raises

    return train, (dg.ones(3), dg.ones(3)), (dg.ones(3), dg.ones(4))


@mistake
def leaf_changed_in_place(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def descend(g: dg.Tensor) -> None:
        w.sub_(g * 0.1)  # raises

    return descend, None, (dg.ones(3),)


@mistake
def leaf_changed_by_an_operator(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def descend(g: dg.Tensor) -> None:
        weight = w
        weight -= 0.1 * g  # raises

    return descend, None, (dg.ones(3),)


@mistake
def saved_tensor_changed(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def train(x: dg.Tensor) -> None:
        h = w.exp()
        y = (h * x).sum()
        h.add_(1.0)
        y.backward()  # raises

    return train, None, (dg.ones(3),)


@mistake
def gradient_of_wrong_shape(decorate: Decorate) -> Case:
    w = leaf(3)

    @decorate
    def clip(g: dg.Tensor) -> None:
        w.grad = g  # raises

    return clip, (dg.ones(3),), (dg.ones(2),)


@mistake
def numpy_of_a_leaf(decorate: Decorate) -> Case:
    @decorate
    def export(x: dg.Tensor) -> Any:
        return x.numpy()  # raises

    return export, None, (leaf(3),)


# -- values ---------------------------------------------------------------------------------------


@mistake
def float_of_many_elements(decorate: Decorate) -> Case:
    @decorate
    def log(x: dg.Tensor) -> float:
        return float(x * 2.0)  # raises

    return log, (dg.ones(1),), (dg.ones(3),)


@mistake
def item_of_many_elements(decorate: Decorate) -> Case:
    @decorate
    def log(x: dg.Tensor) -> Any:
        return (x * 2.0).item()  # raises

    return log, (dg.ones(1),), (dg.ones(3),)


@mistake
def truth_of_many_elements(decorate: Decorate) -> Case:
    @decorate
    def positive(x: dg.Tensor) -> dg.Tensor:
        if x > 0.0:  # raises
            return x
        return -x

    return positive, (dg.ones(1),), (dg.ones(3),)


@mistake
def float_as_position(decorate: Decorate) -> Case:
    @decorate
    def choose(names: list[str], at: dg.Tensor) -> str:
        return names[at]  # raises

    return choose, (["a", "b"], dg.tensor(1)), (["a", "b"], dg.tensor(1.0))


@mistake
def length_of_a_number(decorate: Decorate) -> Case:
    @decorate
    def mean(x: dg.Tensor) -> dg.Tensor:
        return x.sum() / len(x)  # raises

    return mean, (dg.ones(3),), (dg.tensor(3.0),)


@mistake
def iteration_over_a_number(decorate: Decorate) -> Case:
    @decorate
    def total(x: dg.Tensor) -> dg.Tensor:
        return sum(row * 2.0 for row in x)  # raises

    return total, (dg.ones(3),), (dg.tensor(3.0),)


@mistake
def ragged_numbers(decorate: Decorate) -> Case:
    @decorate
    def build(rows: list[list[float]]) -> dg.Tensor:
        return dg.tensor(rows) * 2.0  # raises

    return build, ([[1.0, 2.0], [3.0, 4.0]],), ([[1.0, 2.0], [3.0]],)


@mistake
def number_beyond_its_dtype(decorate: Decorate) -> Case:
    @decorate
    def build(n: int) -> dg.Tensor:
        return dg.full((2,), n, dtype=dg.uint8)  # raises

    return build, (255,), (256,)


@mistake
def negative_size(decorate: Decorate) -> Case:
    @decorate
    def build(n: int) -> dg.Tensor:
        return dg.zeros(2, n - 3)  # raises

    return build, (4,), (2,)
