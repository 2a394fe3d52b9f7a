"""Transforms of functions: gradients, products with Jacobians, Jacobians and Hessians.

A transform calls the function on tensors of its own in place of those it differentiates by, and
asks the tape.  There is no rule of its own for any op: a derivative forward (`jvp`) is the
derivative backward of the derivative backward, which is linear in what is sent back.

Results are connected with tensors from outside that require gradients, those that the function
only refers to included; all else of the tape is dropped.  Under `no_grad` nothing is connected,
though the transform itself works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from dualgrad.transforms import jacobians
from dualgrad.transforms.calls import Call, check_list, numbers

Fun = Callable[..., Any]
Argnums = int | Sequence[int]


# -- gradients of scalars -------------------------------------------------------------------------


def grad(fun: Fun, argnums: Argnums = 0, has_aux: bool = False) -> Fun:
    """The function that gives the gradient of `fun`, whose result is a tensor of shape ().

    fun       takes tensors, floats, Modules, or nested dicts, lists, tuples and dataclasses of
              them as the arguments to differentiate by; anything as its other ones
    argnums   which positional arguments to differentiate by: a number, or several
    has_aux   `fun` returns (value, anything); the result is then (gradient, anything)

    A gradient has the structure of its argument, with None in place of what has none, such as
    integers.  For a Module it is a dict from the names of its parameters.  With several numbers
    it is a tuple.

    >>> dg.grad(lambda x: (x * x).sum())(dg.tensor([1.0, 2.0]))
    tensor([2., 4.])

    Raises GradientError where the result is no scalar, DTypeError for arguments of integers.
    """
    by = numbers("grad", fun, argnums)

    @wraps(fun, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        call = Call("grad", fun, args, kwargs, by, has_aux)
        found = call.gradient()
        return (found, call.aux) if has_aux else found

    return gradient


def value_and_grad(fun: Fun, argnums: Argnums = 0, has_aux: bool = False) -> Fun:
    """The function that gives (value, gradient) of `fun`; see `grad`.

    With `has_aux` it gives ((value, anything), gradient).
    """
    by = numbers("value_and_grad", fun, argnums)

    @wraps(fun, updated=())
    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        call = Call("value_and_grad", fun, args, kwargs, by, has_aux)
        found = call.gradient()
        return ((call.value, call.aux) if has_aux else call.value), found

    return value_and_gradient


# -- products -------------------------------------------------------------------------------------


def vjp(fun: Fun, *primals: Any, has_aux: bool = False) -> Any:
    """(value, back) of `fun(*primals)`: `back(cotangent)` is the cotangent times the Jacobian.

    A cotangent has the structure of the value; None in it stands for zeros.  `back` returns a
    tuple with an entry for each primal, and may be called again.  With `has_aux` the result is
    (value, back, anything).

    Raises ShapeError, DTypeError or ArgumentError for a cotangent that does not fit the value.
    """
    call = Call("vjp", fun, primals, {}, tuple(range(len(primals))), has_aux)

    def back(cotangent: Any) -> Any:
        return call.pulled(call.seeds(cotangent))

    call.let_go()
    return (call.value, back, call.aux) if has_aux else (call.value, back)


def jvp(fun: Fun, primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """(value, tangent) of `fun(*primals)`: the tangent is the Jacobian times `tangents`.

    `primals` and `tangents` are tuples or lists, of one entry for each argument; None in the
    tangents stands for zeros.  With `has_aux` the result is (value, tangent, anything).

    Raises ShapeError, DTypeError or ArgumentError for tangents that do not fit the primals.
    """
    check_list("jvp", "primals", primals)
    call = Call("jvp", fun, primals, {}, tuple(range(len(primals))), has_aux)
    pushed = call.pushed(call.variables.matched(tangents))
    call.let_go()
    return (call.value, pushed, call.aux) if has_aux else (call.value, pushed)


def hvp(fun: Fun, primals: Any, tangents: Any) -> Any:
    """The Hessian of `fun`, whose result is a tensor of shape (), times `tangents`.

    `primals` and `tangents` are tuples or lists, of one entry for each argument.  The result has
    the structure of the only primal, or is a tuple of one entry for each.
    """
    check_list("hvp", "primals", primals)
    by = 0 if len(primals) == 1 else tuple(range(len(primals)))
    call = Call("hvp", grad(fun, by), primals, {}, tuple(range(len(primals))), False)
    found = call.pulled(call.variables.matched(tangents))
    return found[0] if len(primals) == 1 else found


# -- matrices -------------------------------------------------------------------------------------


def jacobian(fun: Fun, argnums: Argnums = 0, has_aux: bool = False) -> Fun:
    """The function that gives the Jacobian of `fun`; arguments are as for `grad`.

    For each tensor of the value it holds, in the structure of the argument, tensors of the shape
    of the value's followed by that of the argument's.
    """
    by = numbers("jacobian", fun, argnums)

    @wraps(fun, updated=())
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        call = Call("jacobian", fun, args, kwargs, by, has_aux)
        found = jacobians.jacobian(call)
        return (found, call.aux) if has_aux else found

    return jacobian_of


def hessian(fun: Fun, argnums: Argnums = 0, has_aux: bool = False) -> Fun:
    """The function that gives the Hessian of `fun`: the Jacobian of its Jacobian.

    For a tensor x and a value of shape () it has the shape of x twice.
    """
    return jacobian(jacobian(fun, argnums, has_aux), argnums, has_aux)
