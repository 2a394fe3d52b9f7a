"""The verifier of graphs: well-formed ones pass, each broken rule is refused with its reason."""

import pytest

from dualgrad.compiler.ir.node import Graph, Leaf, Node, const_node, input_node
from dualgrad.compiler.ir.printer import graph_text
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.verify import verify_graph
from dualgrad.compiler.ops.arithmetic import Add
from dualgrad.compiler.ops.exponential import Exp
from dualgrad.runtime.dtype import float32, float64
from dualgrad.runtime.errors import CompileError

VECTOR = TensorType((4,), float32)
x, y = input_node(0, VECTOR), input_node(1, VECTOR)


def test_well_formed_graphs_pass():
    total = Add.of().on(x, y)
    verify_graph(Graph((x, y), (), (total,), ((total, 0),)))
    verify_graph(Graph((x,), (), (x * 2.0,)))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (Graph((y,), (), (y,)), "input 0 of the graph"),
        (Graph((x,), (), (Add.of().on(x, y),)), "one of the graph's inputs"),
        (
            Graph((x,), (), (Node.make(Exp.of(), (x,), TensorType((5,), float32)),)),
            r"type f32\[4\], as exp infers it",
        ),
        (Graph((x,), (), (Node.make(Leaf("const", 1.0), (), VECTOR),)), "a number: weak"),
        (Graph((x,), (), (Node.make(Leaf("operand", 7), (), VECTOR),)), "an input, a scalar"),
        (Graph((x,), (), (), ((x.to(float64), 0),)), "the type of input 0"),
    ],
)
def test_broken_graphs_are_refused(graph, message):
    with pytest.raises(CompileError, match=message):
        verify_graph(graph)


def test_equal_nodes_are_one_object():
    assert x * 2.0 is x * 2.0
    assert const_node(1.0) is not const_node(1)
    assert const_node(0.0) is not const_node(-0.0)
    assert const_node(True) is not const_node(1)


def test_text_lists_inputs_before_users():
    graph = Graph((x, y), (), (Add.of().on(x, y),))
    assert graph_text(graph) == (
        "%0 = input 0 f32[4]\n%1 = input 1 f32[4]\n%2 = add(%0, %1) f32[4]\nreturn %2\n"
    )
