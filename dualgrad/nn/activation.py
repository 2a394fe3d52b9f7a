"""Activations: functions of each element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dualgrad import functional as F
from dualgrad.creation import empty
from dualgrad.inplace import in_place
from dualgrad.nn.checks import check_choice, check_counts, check_number
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.nn.printing import listed
from dualgrad.tensor import Tensor


class Activation(Module):
    """A function of each element; with `inplace=True` the input is overwritten with the result.

    A subclass names its function, the attributes that it passes on, in their order, and whether
    it can work in place.
    """

    inplace: bool = False
    _new: ClassVar[Callable[..., Tensor]]
    _over: ClassVar[Callable[..., Tensor]]

    def __init_subclass__(cls, function: Callable[..., Tensor] | None = None, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if function is not None:
            cls._new = staticmethod(function)
            cls._over = staticmethod(in_place(function))

    def forward(self, input: Tensor) -> Tensor:
        return self._over(input) if self.inplace else self._new(input)

    def _run(self, input: Tensor, *options: Any) -> Tensor:
        return self._over(input, *options) if self.inplace else self._new(input, *options)

    def _described(self, *names: str) -> str:
        return listed(self, *names, *(("inplace",) if self.inplace else ()))


class _Plain(Activation):
    """An activation whose only option is `inplace`."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def extra_repr(self) -> str:
        return self._described()


class ReLU(_Plain, function=F.relu):
    """max(x, 0); the gradient at 0 is 0."""


class SiLU(_Plain, function=F.silu):
    """x sigmoid(x)."""


class Mish(_Plain, function=F.mish):
    """x tanh(softplus(x)); D. Misra, "Mish", 2019."""


class SELU(_Plain, function=F.selu):
    """scale (max(0, x) + min(0, alpha (exp(x) - 1))); G. Klambauer et al., "Self-normalizing
    neural networks", 2017, has the two constants."""


class Hardsigmoid(_Plain, function=F.hardsigmoid):
    """0 up to -3, 1 from 3 on, x / 6 + 1/2 between."""

    def extra_repr(self) -> str:
        return ""


class Hardswish(_Plain, function=F.hardswish):
    """x hardsigmoid(x)."""

    def extra_repr(self) -> str:
        return ""


class Sigmoid(Activation, function=F.sigmoid):
    """1 / (1 + exp(-x))."""


class LogSigmoid(Activation, function=F.logsigmoid):
    """log(1 / (1 + exp(-x)))."""


class Tanh(Activation, function=F.tanh):
    """The hyperbolic tangent."""


class Tanhshrink(Activation, function=F.tanhshrink):
    """x - tanh(x)."""


class Softsign(Activation, function=F.softsign):
    """x / (1 + |x|)."""


class ELU(Activation, function=F.elu):
    """x where x > 0, else alpha (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha = check_number("ELU", "alpha", alpha)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return self._run(input, self.alpha)

    def extra_repr(self) -> str:
        return self._described("alpha")


class CELU(ELU, function=F.celu):
    """x where x > 0, else alpha (exp(x / alpha) - 1)."""


class LeakyReLU(Activation, function=F.leaky_relu):
    """x where x > 0, else negative_slope x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope = check_number("LeakyReLU", "negative_slope", negative_slope)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return self._run(input, self.negative_slope)

    def extra_repr(self) -> str:
        return self._described("negative_slope")


class RReLU(Activation, function=F.rrelu):
    """x where x > 0, else x times a slope, uniform in [lower, upper) for each element.

    In evaluation mode the slope is (lower + upper) / 2.  Raises ArgumentError unless
    lower <= upper.
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        self.lower = check_number("RReLU", "lower", lower)
        self.upper = check_number("RReLU", "upper", upper, lower)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return self._run(input, self.lower, self.upper, self.training)

    def extra_repr(self) -> str:
        return self._described("lower", "upper")


class Hardtanh(Activation, function=F.hardtanh):
    """x within [min_val, max_val], the nearer end outside.

    Raises ArgumentError unless min_val < max_val.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        self.min_val = check_number("Hardtanh", "min_val", min_val)
        self.max_val = check_number("Hardtanh", "max_val", max_val, above=min_val)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return self._run(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return self._described("min_val", "max_val")


class ReLU6(Hardtanh, function=F.hardtanh):
    """min(max(x, 0), 6)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return self._described()


class Threshold(Activation, function=F.threshold):
    """x where x > threshold, else value."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        self.threshold = check_number("Threshold", "threshold", threshold)
        self.value = check_number("Threshold", "value", value)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return self._run(input, self.threshold, self.value)

    def extra_repr(self) -> str:
        return self._described("threshold", "value")


class GELU(Activation, function=F.gelu):
    """x times the probability that a standard normal number is below x.

    approximate  "none", or "tanh" for x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = check_choice("GELU", "approximation", approximate, ("none", "tanh"))

    def forward(self, input: Tensor) -> Tensor:
        return self._run(input, self.approximate)

    def extra_repr(self) -> str:
        return listed(self, "approximate")


class Softplus(Activation, function=F.softplus):
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = check_number("Softplus", "beta", beta)
        self.threshold = check_number("Softplus", "threshold", threshold)

    def forward(self, input: Tensor) -> Tensor:
        return self._run(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return listed(self, "beta", "threshold")


class Hardshrink(Activation, function=F.hardshrink):
    """x where |x| > lambd, else 0."""

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = check_number(type(self).__name__, "lambd", lambd)

    def forward(self, input: Tensor) -> Tensor:
        return self._run(input, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Softshrink(Hardshrink, function=F.softshrink):
    """x brought nearer to 0 by lambd >= 0, and 0 where |x| <= lambd."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(check_number("Softshrink", "lambd", lambd, 0))


class PReLU(Module):
    """x where x > 0, else x times a learnt slope; K. He et al., "Delving deep into rectifiers".

    weight  [num_parameters]: one slope, or one for each channel (axis 1 of the input)

    All start at `init`.
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        check_counts("PReLU", 1, num_parameters=num_parameters)
        self.num_parameters = num_parameters
        self.init = check_number("PReLU", "init", init)
        self.weight = Parameter(empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set all slopes to `init`."""
        self.weight.detach().fill_(self.init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return listed(self, "num_parameters")
