"""Units that native code puts on the tape, against the same units put there by Python."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.compiler.ops.arithmetic import Add, Mul
from dualgrad.compiler.ops.exponential import Exp
from dualgrad.compiler.ops.extremum import Max
from dualgrad.dispatch import find_or_make
from dualgrad.gradients import tape
from dualgrad.gradients.tape import TapeNode
from dualgrad.nn import Parameter
from dualgrad.runtime.native import library

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")


def leaf(*shape, dtype="float32"):
    return dg.tensor(np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(dtype))


def operands_of_units():
    x, y = leaf(3, 4).requires_grad_(), leaf(3, 4)
    z = x * 2.0
    parameter = Parameter(leaf(4))
    return [
        (Add.of(), (x, y)),
        (Add.of(), (y, z)),
        (Mul.of(), (x, y)),
        (Mul.of(), (z, x)),
        (Mul.of(), (z, 2.5)),
        (Mul.of(), (3, z)),
        (Mul.of(), (parameter, z)),
        (Exp.of(), (z,)),
        (Exp.of(), (z.T,)),
        (Exp.of(), (leaf(3, dtype="float16").requires_grad_(),)),
        (Max.of(0, 1), (z,)),
    ]


def outputs_of(unit, operands):
    with dg.no_grad():
        x = next(x for x in operands if isinstance(x, dg.Tensor))
        return tuple(o.clone() for o in x.apply_unit(unit, operands))


def told(x):
    """What one field of a node holds: identities of tensors that are the user's."""
    if isinstance(x, tuple):
        return tuple(map(told, x))
    if isinstance(x, tape.Absent):
        return ("absent", x.type)
    if isinstance(x, dg.Tensor):
        slots = ("array", "_type", "layout", "sig", "node", "owner", "base", "origin", "_version")
        own = (x.requires_grad, x._grad_fn, x._grad)
        return (type(x), *[id(getattr(x, name)) for name in slots], own)
    return (type(x), x)


FIELDS = ("unit", "edges", "inputs", "outputs", "types", "versions", "released")


@pytest.mark.parametrize("case", range(len(operands_of_units())))
def test_nodes_are_those_of_python(case):
    unit, operands = operands_of_units()[case]
    known = find_or_make(unit, operands).saves
    outputs = outputs_of(unit, operands)
    tape.recording.slow(unit, operands, outputs, known)
    expected = outputs[0]._grad_fn
    fields = {name: told(getattr(expected, name)) for name in FIELDS}
    for o in outputs:
        o.requires_grad, o._grad_fn = False, None
        del o.output_number
    tape.recording.call(unit, operands, outputs, known)
    node = outputs[0]._grad_fn
    assert type(node) is TapeNode
    assert node is not expected
    assert {name: told(getattr(node, name)) for name in FIELDS} == fields
    assert node.number == expected.number + tape.NUMBERS
    assert node.place[0] is test_nodes_are_those_of_python.__code__
    assert node.place[1] > expected.place[1]  # the later one of two calls
    for k, o in enumerate(outputs):
        assert (o.requires_grad, o.output_number) == (True, k)
        assert o._grad_fn is node


def test_results_that_are_no_floats_stay_apart():
    x = leaf(3, 4).requires_grad_()
    values, places = x.topk(2)
    assert values.requires_grad
    assert not places.requires_grad
    assert places.grad_fn is None


def test_the_place_is_the_innermost_line_of_the_user():
    x = leaf(2).requires_grad_()

    def inner():
        return dg.softmax(x)

    out = inner()
    assert out.grad_fn.place[0] is inner.__code__
    code = compile("y = x.exp()", "<string>", "exec")
    space = {"x": x}
    exec(code, space)
    assert space["y"].grad_fn.place[0] is code


def test_views_of_changed_memory_are_recorded_from_their_new_history():
    x = leaf(4).requires_grad_()
    y = x * 1.0
    view = y[1:3]
    y.mul_(3.0)
    (view * view).sum().backward()
    expected = [0, *(18 * x.detach().numpy()[1:3]), 0]
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)


def references(objects):
    gc.collect()
    return [sys.getrefcount(x) for x in objects]


def test_references_are_given_back():
    x, y = leaf(5).requires_grad_(), leaf(5)
    types = x._type
    (x * y * 2.0).exp()
    objects = [x, y, types, None, True, False, Mul.of(), x._version, y.array]
    before = references(objects)
    for _ in range(100):
        (x * y * 2.0).exp()
    after = references(objects)
    # None, True, False: other code uses them too
    assert [abs(b - a) < 20 for a, b in zip(before, after, strict=True)] == [True] * len(objects)


def test_nodes_die_with_their_results():
    x = leaf(5).requires_grad_()
    (x * x).exp()
    gc.collect()
    before = sum(type(o) is TapeNode for o in gc.get_objects())
    out = x
    for _ in range(50):
        out = (out * x).exp()
    assert sum(type(o) is TapeNode for o in gc.get_objects()) == before + 100
    del out
    assert sum(type(o) is TapeNode for o in gc.get_objects()) == before


def test_errors_on_the_way_leave_no_node():
    x = leaf(3).requires_grad_()
    unit, outputs = Mul.of(), outputs_of(Mul.of(), (x, x))
    with pytest.raises(AttributeError):
        tape.recording.call(unit, (x, x), (outputs[0], None), {})
    assert outputs[0].grad_fn is None


def test_wrong_counts_go_to_python():
    with pytest.raises(TypeError):
        tape.recording.call(Mul.of())
