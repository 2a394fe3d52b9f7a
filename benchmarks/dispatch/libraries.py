"""What the rows of `benchmarks.dispatch` need of a library: arrays, gradients, training steps.

A library is imported when its object is made: worker processes time that.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
# Steps are so small that the loss stays above zero and no unit dies however many are made:
# otherwise gradients become denormal numbers, which processors are slow at.
RATE = 1e-6


class Library(ABC):
    """One library, with or without the decorator that compiles.

    module    the namespace of its functions on arrays
    compiled  what a function becomes in this arm
    """

    known: ClassVar[dict[str, type[Library]]] = {}
    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        if "name" in cls.__dict__:
            Library.known[cls.name] = cls

    def __init__(self, decorator: str) -> None:
        self.module = importlib.import_module(self.namespace())
        self.compiled: Callable[[Function], Function] = lambda f: f
        if decorator:
            name, _, attribute = decorator.partition(".")
            self.compiled = self.decorator(attrgetter(attribute)(importlib.import_module(name)))

    @classmethod
    def namespace(cls) -> str:
        """The module that has functions on arrays."""
        return cls.name

    def decorator(self, decorate: Callable[..., Function]) -> Callable[[Function], Function]:
        """How a function is decorated."""
        return decorate

    @abstractmethod
    def tensor(self, array: Array) -> Any:
        """An array of the library."""

    def shared(self, array: Array) -> Any:
        """An array on the memory of a NumPy array, where the library has that."""
        return self.tensor(array)

    def leaf(self, array: Array) -> Any:
        """An array for which gradients are wanted."""
        raise NotImplementedError(f"{self.name} has no gradients")

    def gradient(self, loss: Function, leaves: Sequence[Any]) -> Function:
        """A function without arguments: the gradient of `loss(*leaves)` for the last leaf."""
        raise NotImplementedError(f"{self.name} has no gradients")

    def model(self, weights: Sequence[Array]) -> Function:
        """Two linear layers with relu between them, not recorded for gradients."""
        raise NotImplementedError(f"{self.name} has no layers")

    def training(self, weights: Sequence[Array], decay: float = 1.0) -> Function:
        """A step of Adam on the model for the mean squared error; takes (x, target), returns the
        loss.  It changes 12 arrays: 4 weights with 2 averages each.  `decay` is a schedule: the
        rate's factor from call to call."""
        raise NotImplementedError(f"{self.name} has no optimizers")


class NumPy(Library):
    name = "numpy"

    def tensor(self, array: Array) -> Any:
        return array.copy()


class Torch(Library):
    """PyTorch, and what is spelled alike elsewhere."""

    name = "torch"

    def tensor(self, array: Array) -> Any:
        return self.module.tensor(array)

    def shared(self, array: Array) -> Any:
        return self.module.from_numpy(array)

    def leaf(self, array: Array) -> Any:
        return self.tensor(array).requires_grad_()

    def gradient(self, loss: Function, leaves: Sequence[Any]) -> Function:
        run, last = self.compiled(loss), leaves[-1]

        def step() -> Any:
            for leaf in leaves:
                leaf.grad = None
            run(*leaves).backward()
            return last.grad

        return step

    def _layers(self, weights: Sequence[Array]) -> Any:
        nn = importlib.import_module(f"{self.name}.nn")
        (hidden, inputs), outputs = weights[0].shape, len(weights[2])
        model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        with self.module.no_grad():
            for parameter, array in zip(model.parameters(), weights, strict=True):
                parameter.copy_(self.tensor(array))
        return model

    def model(self, weights: Sequence[Array]) -> Function:
        model = self._layers(weights)
        no_grad = self.module.no_grad

        def forward(x: Any) -> Any:
            with no_grad():
                return model(x)

        return self.compiled(forward)

    def training(self, weights: Sequence[Array], decay: float = 1.0) -> Function:
        model = self._layers(weights)
        optim = importlib.import_module(f"{self.name}.optim")
        optimizer = optim.Adam(model.parameters(), lr=RATE)

        def step(x: Any, target: Any) -> Any:
            optimizer.zero_grad()
            loss = ((model(x) - target) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return self._scheduled(self.compiled(step), optimizer, decay)

    @staticmethod
    def _scheduled(step: Function, optimizer: Any, decay: float) -> Function:
        if decay == 1.0:
            return step
        group = optimizer.param_groups[0]

        def scheduled(x: Any, target: Any) -> Any:
            group["lr"] *= decay
            return step(x, target)

        return scheduled


class Dualgrad(Torch):
    name = "dualgrad"

    def decorator(self, decorate: Callable[..., Function]) -> Callable[[Function], Function]:
        # what cannot be compiled is an error, not a slow number
        return lambda f: decorate(f, strict=True)

    def gradient(self, loss: Function, leaves: Sequence[Any]) -> Function:
        """Loss and `backward()` are one compiled function."""
        last = leaves[-1]

        def step() -> Any:
            for leaf in leaves:
                leaf.grad = None
            loss(*leaves).backward()
            return last.grad

        return self.compiled(step)


class Jax(Library):
    name = "jax"

    def __init__(self, decorator: str) -> None:
        self.jax = importlib.import_module("jax")
        super().__init__(decorator)

    @classmethod
    def namespace(cls) -> str:
        return "jax.numpy"

    def tensor(self, array: Array) -> Any:
        return self.module.array(array)

    def leaf(self, array: Array) -> Any:
        return self.tensor(array)

    def gradient(self, loss: Function, leaves: Sequence[Any]) -> Function:
        run = self.compiled(self.jax.grad(loss, argnums=tuple(range(len(leaves)))))
        return lambda: run(*leaves)[-1]

    def model(self, weights: Sequence[Array]) -> Function:
        params = [self.tensor(w) for w in weights]
        run = self.compiled(self._forward)
        return lambda x: run(params, x)

    def _forward(self, params: Sequence[Any], x: Any) -> Any:
        w1, b1, w2, b2 = params
        return self.module.maximum(x @ w1.T + b1, 0) @ w2.T + b2

    def training(self, weights: Sequence[Array], decay: float = 1.0) -> Function:
        """One function of the whole state, which is handed on from call to call."""
        jnp = self.module
        params = [self.tensor(w) for w in weights]
        zeros = [jnp.zeros_like(p) for p in params]
        state = (params, zeros, zeros, jnp.zeros((), jnp.int32))

        def loss_of(params: Any, x: Any, target: Any) -> Any:
            return ((self._forward(params, x) - target) ** 2).mean()

        @self.compiled
        def train(state: Any, rate: Any, x: Any, target: Any) -> Any:
            params, first, second, count = state
            loss, grads = self.jax.value_and_grad(loss_of)(params, x, target)
            count = count + 1
            first = [0.9 * m + 0.1 * g for m, g in zip(first, grads, strict=True)]
            second = [0.999 * v + 0.001 * g * g for v, g in zip(second, grads, strict=True)]
            scale = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            rows = zip(params, first, second, strict=True)
            params = [p - scale * m / (jnp.sqrt(v) + 1e-8) for p, m, v in rows]
            return (params, first, second, count), loss

        rate = RATE

        def step(x: Any, target: Any) -> Any:
            nonlocal state, rate
            rate *= decay
            state, loss = train(state, rate, x, target)
            return loss

        return step
