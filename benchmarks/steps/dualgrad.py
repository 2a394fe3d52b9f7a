"""The workloads in dualgrad; `compiled` is `dg.function`, or does nothing in the eager arm."""

from __future__ import annotations

from typing import Any

import dualgrad as dg
from benchmarks.program import Arrays, Decorator, Program, parameters
from benchmarks.steps import models
from dualgrad import autograd, functional, nn, optim


class _Training:
    """A model, its loss and its optimizer, from first values."""

    def __init__(
        self, arrays: Arrays, model: nn.Module, loss: nn.Module, optimizer: optim.Optimizer
    ) -> None:
        self.arrays, self.model, self.loss, self.optimizer = arrays, model, loss, optimizer

    def step(self, x: dg.Tensor, target: dg.Tensor) -> Any:
        self.optimizer.zero_grad()
        output = self.model(x)
        loss = self.loss(output[0] if isinstance(output, tuple) else output, target)
        loss.backward()
        self.optimizer.step()
        return loss

    def buffers(self) -> list[dg.Tensor]:
        """What the optimizer keeps."""
        return [tensor for state in self.optimizer.state.values() for tensor in state.values()]

    def state(self) -> list[dg.Tensor]:
        return [*self.model.parameters(), *self.buffers()]

    def reset(self) -> None:
        self.model.load_state_dict(parameters(self.arrays))
        for tensor in self.buffers():
            tensor.zero_()

    def program(self, compiled: Decorator) -> Program:
        self.reset()
        batches = zip(self.arrays["inputs"], self.arrays["targets"], strict=True)
        inputs = [(dg.from_numpy(x), dg.from_numpy(target)) for x, target in batches]
        return Program(compiled(self.step), inputs, self.state, self.reset)


def _by_sgd(arrays: Arrays, model: nn.Module, loss: nn.Module) -> _Training:
    return _Training(arrays, model, loss, optim.SGD(model.parameters(), lr=1e-2))


def mlp(arrays: Arrays, compiled: Decorator) -> Program:
    model = models.mlp(nn)
    optimizer = optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.99, eps=1e-8)
    return _Training(arrays, model, nn.CrossEntropyLoss(), optimizer).program(compiled)


def mlp3(arrays: Arrays, compiled: Decorator) -> Program:
    return _by_sgd(arrays, models.mlp3(nn), nn.CrossEntropyLoss()).program(compiled)


def tiny(arrays: Arrays, compiled: Decorator) -> Program:
    return _by_sgd(arrays, models.tiny(nn), nn.MSELoss()).program(compiled)


def cnn(arrays: Arrays, compiled: Decorator) -> Program:
    model = models.cnn(nn)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    return _Training(arrays, model, nn.CrossEntropyLoss(), optimizer).program(compiled)


def transformer(arrays: Arrays, compiled: Decorator) -> Program:
    return _by_sgd(arrays, models.transformer(nn), nn.MSELoss()).program(compiled)


def lstm(arrays: Arrays, compiled: Decorator) -> Program:
    return _by_sgd(arrays, models.lstm(nn), nn.MSELoss()).program(compiled)


def black_scholes(arrays: Arrays, compiled: Decorator) -> Program:
    def step(price: dg.Tensor, strike: dg.Tensor, years: dg.Tensor) -> Any:
        return models.black_scholes(dg, price, strike, years)

    names = ("price", "strike", "years")
    return Program(compiled(step), [tuple(dg.from_numpy(arrays[name]) for name in names)])


def layernorm_gelu(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor, r: dg.Tensor, scale: dg.Tensor, shift: dg.Tensor) -> Any:
        return r + functional.gelu(functional.layer_norm(x, (1024,), scale, shift))

    names = ("x", "r", "scale", "shift")
    return Program(compiled(step), [tuple(dg.from_numpy(arrays[name]) for name in names)])


def chain(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor) -> Any:
        y = dg.tanh(x) * 2 + 1
        return y / dg.sqrt(y * y + 1)

    return Program(compiled(step), [(dg.from_numpy(arrays["x"]),)])


def softmax(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor) -> Any:
        return dg.softmax(x, 1)

    return Program(compiled(step), [(dg.from_numpy(arrays["x"]),)])


def matmul(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor, w: dg.Tensor, b: dg.Tensor) -> Any:
        return functional.relu(x @ w + b)

    return Program(compiled(step), [tuple(dg.from_numpy(arrays[name]) for name in "xwb")])


def dispatch(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor) -> Any:
        return x + 1

    return Program(compiled(step), [(dg.from_numpy(arrays["x"]),)])


def product(arrays: Arrays, compiled: Decorator) -> Program:
    def step(a: dg.Tensor, b: dg.Tensor, c: dg.Tensor | None = None) -> Any:
        return a @ b if c is None else functional.relu(a @ b + c)

    tensors = {name: dg.from_numpy(array) for name, array in arrays.items()}
    inputs = [t.mT if name.endswith("^T") else t for name, t in sorted(tensors.items())]
    return Program(compiled(step), [tuple(inputs)])


def convolution(arrays: Arrays, compiled: Decorator) -> Program:
    options = {name: int(arrays[name]) for name in ("stride", "padding", "groups")}
    part = str(arrays["part"])
    convolve = (functional.conv1d, functional.conv2d)[arrays["x"].ndim - 3]

    def forward(x: dg.Tensor, weight: dg.Tensor) -> Any:
        return convolve(x, weight, **options)

    def gradient(x: dg.Tensor, weight: dg.Tensor, seed: dg.Tensor) -> Any:
        return autograd.grad(forward(x, weight), [weight if part == "weight" else x], seed)[0]

    names = [name for name in ("x", "weight", "seed") if name in arrays]
    tensors = {name: dg.from_numpy(arrays[name]) for name in names}
    if part == "forward":
        return Program(compiled(forward), [tuple(tensors.values())])
    tensors["weight" if part == "weight" else "x"].requires_grad = True
    return Program(compiled(gradient), [tuple(tensors.values())])


def attention(arrays: Arrays, compiled: Decorator) -> Program:
    causal = bool(arrays["causal"])

    def forward(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    def gradients(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor, seed: dg.Tensor) -> Any:
        return dg.stack(autograd.grad(forward(q, k, v), [q, k, v], seed))

    tensors = [dg.from_numpy(arrays[name]) for name in "qkv"]
    if "seed" not in arrays:
        return Program(compiled(forward), [tuple(tensors)])
    for tensor in tensors:
        tensor.requires_grad = True
    return Program(compiled(gradients), [(*tensors, dg.from_numpy(arrays["seed"]))])


def streaming(arrays: Arrays, compiled: Decorator) -> Program:
    formula = models.STREAMING[str(arrays["formula"])]

    def forward(*operands: dg.Tensor) -> Any:
        return formula(functional, *operands)

    def gradient(x: dg.Tensor, seed: dg.Tensor) -> Any:
        return autograd.grad(forward(x), [x], seed)[0]

    names = [name for name in ("x", "y", "seed") if name in arrays]
    tensors = [dg.from_numpy(arrays[name]) for name in names]
    if "seed" not in arrays:
        return Program(compiled(forward), [tuple(tensors)])
    tensors[0].requires_grad = True
    return Program(compiled(gradient), [tuple(tensors)])
