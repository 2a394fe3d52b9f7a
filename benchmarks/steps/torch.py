"""The workloads in PyTorch; `compiled` is `torch.compile`, or does nothing in the eager arm."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.program import Arrays, Decorator, Program, parameters
from benchmarks.steps import models


class _Training:
    """A model, its loss and its optimizer, from first values.

    Model and loss are compiled together with the backward pass, the optimizer's step by itself: a
    training step that is compiled as a whole breaks into more graphs than these two.
    """

    def __init__(
        self, arrays: Arrays, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.arrays, self.model, self.loss, self.optimizer = arrays, model, loss, optimizer

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> Any:
        output = self.model(x)
        return self.loss(output[0] if isinstance(output, tuple) else output, target)

    def reset(self) -> None:
        values = {name: torch.from_numpy(a) for name, a in parameters(self.arrays).items()}
        self.model.load_state_dict(values)
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    def program(self, compiled: Decorator) -> Program:
        loss_of, update = compiled(self.forward), compiled(self.optimizer.step)

        def step(x: torch.Tensor, target: torch.Tensor) -> Any:
            self.optimizer.zero_grad()
            loss = loss_of(x, target)
            loss.backward()
            update()
            return loss

        self.reset()
        batches = zip(self.arrays["inputs"], self.arrays["targets"], strict=True)
        inputs = [(torch.from_numpy(x), torch.from_numpy(target)) for x, target in batches]
        return Program(step, inputs, lambda: list(self.model.parameters()), self.reset)


def _by_sgd(arrays: Arrays, model: nn.Module, loss: nn.Module) -> _Training:
    return _Training(arrays, model, loss, torch.optim.SGD(model.parameters(), lr=1e-2))


def mlp(arrays: Arrays, compiled: Decorator) -> Program:
    model = models.mlp(nn)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.99, eps=1e-8)
    return _Training(arrays, model, nn.CrossEntropyLoss(), optimizer).program(compiled)


def mlp3(arrays: Arrays, compiled: Decorator) -> Program:
    return _by_sgd(arrays, models.mlp3(nn), nn.CrossEntropyLoss()).program(compiled)


def tiny(arrays: Arrays, compiled: Decorator) -> Program:
    return _by_sgd(arrays, models.tiny(nn), nn.MSELoss()).program(compiled)


def cnn(arrays: Arrays, compiled: Decorator) -> Program:
    model = models.cnn(nn)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return _Training(arrays, model, nn.CrossEntropyLoss(), optimizer).program(compiled)


def transformer(arrays: Arrays, compiled: Decorator) -> Program:
    return _by_sgd(arrays, models.transformer(nn), nn.MSELoss()).program(compiled)


def lstm(arrays: Arrays, compiled: Decorator) -> Program:
    return _by_sgd(arrays, models.lstm(nn), nn.MSELoss()).program(compiled)


def black_scholes(arrays: Arrays, compiled: Decorator) -> Program:
    def step(price: torch.Tensor, strike: torch.Tensor, years: torch.Tensor) -> Any:
        return models.black_scholes(torch, price, strike, years)

    names = ("price", "strike", "years")
    return Program(compiled(step), [tuple(torch.from_numpy(arrays[name]) for name in names)])


def layernorm_gelu(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor, r: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> Any:
        return r + functional.gelu(functional.layer_norm(x, (1024,), scale, shift))

    names = ("x", "r", "scale", "shift")
    return Program(compiled(step), [tuple(torch.from_numpy(arrays[name]) for name in names)])


def chain(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(x) * 2 + 1
        return y / torch.sqrt(y * y + 1)

    return Program(compiled(step), [(torch.from_numpy(arrays["x"]),)])


def softmax(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, 1)

    return Program(compiled(step), [(torch.from_numpy(arrays["x"]),)])


def matmul(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ w + b)

    return Program(compiled(step), [tuple(torch.from_numpy(arrays[name]) for name in "xwb")])


def dispatch(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    return Program(compiled(step), [(torch.from_numpy(arrays["x"]),)])


def product(arrays: Arrays, compiled: Decorator) -> Program:
    def step(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return a @ b if c is None else torch.relu(torch.addmm(c, a, b))

    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    inputs = [t.mT if name.endswith("^T") else t for name, t in sorted(tensors.items())]
    return Program(compiled(step), [tuple(inputs)])


def convolution(arrays: Arrays, compiled: Decorator) -> Program:
    stride, padding, groups = (int(arrays[name]) for name in ("stride", "padding", "groups"))
    part, rank = str(arrays["part"]), arrays["x"].ndim - 2
    wanted = [part == "input", part == "weight", False]

    def step(x: torch.Tensor, weight: torch.Tensor, seed: torch.Tensor | None = None) -> Any:
        sizes = [stride] * rank, [padding] * rank, [1] * rank, False, [0] * rank, groups
        if seed is None:
            return torch.ops.aten.convolution(x, weight, None, *sizes)
        gradients = torch.ops.aten.convolution_backward(seed, x, weight, None, *sizes, wanted)
        return gradients[wanted.index(True)]

    names = [name for name in ("x", "weight", "seed") if name in arrays]
    return Program(compiled(step), [tuple(torch.from_numpy(arrays[name]) for name in names)])


def attention(arrays: Arrays, compiled: Decorator) -> Program:
    causal = bool(arrays["causal"])

    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    def gradients(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seed: torch.Tensor
    ) -> torch.Tensor:
        return torch.stack(torch.autograd.grad(forward(q, k, v), [q, k, v], seed))

    tensors = [torch.from_numpy(arrays[name]) for name in "qkv"]
    if "seed" not in arrays:
        return Program(compiled(forward), [tuple(tensors)])
    for tensor in tensors:
        tensor.requires_grad = True
    return Program(compiled(gradients), [(*tensors, torch.from_numpy(arrays["seed"]))])


def streaming(arrays: Arrays, compiled: Decorator) -> Program:
    formula = models.STREAMING[str(arrays["formula"])]

    def forward(*operands: torch.Tensor) -> Any:
        return formula(functional, *operands)

    def gradient(x: torch.Tensor, seed: torch.Tensor) -> Any:
        return torch.autograd.grad(forward(x), [x], seed)[0]

    names = [name for name in ("x", "y", "seed") if name in arrays]
    tensors = [torch.from_numpy(arrays[name]) for name in names]
    if "seed" not in arrays:
        return Program(compiled(forward), [tuple(tensors)])
    tensors[0].requires_grad = True
    return Program(compiled(gradient), [tuple(tensors)])
