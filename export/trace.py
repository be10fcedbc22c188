"""Trace a network into a torch.fx graph of ATen operators, its loops unrolled as they run, and count its arithmetic."""

import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

CONV = torch.ops.aten.conv2d.default

PRODUCTS = {
    torch.ops.aten.linear.default,
    torch.ops.aten.matmul.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.bmm.default,
}
"""Matrix products; the last dimension of the first operand is summed over."""

UNCOUNTED = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.conv2d.padding,
    torch.ops.aten.convolution.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.scaled_dot_product_attention.default,
    torch.ops.aten.einsum.default,
}
"""Heavy operators that no network here has; to leave them out unseen is worse than to fail."""


def trace(module: nn.Module, example: Tensor) -> fx.GraphModule:
    """The naive unroll: every step of every loop in full, zero states as tensors, weights shared by reference.

    Nodes are named after the module that made them ("drop_heavy_lstm_gates", "…_1" on the second step), and their
    shapes are in `node.meta["val"]`. Nothing is computed: shapes of any size cost no memory.

    Raises:
        ValueError: an operator that overwrites its operand, which the unroller's rewriting would see twice.
    """
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        program = torch.export.export(module, (mode.from_tensor(example),), strict=False)
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    for node in graph.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            raise ValueError(f"the network overwrites a tensor ({node.target}): expected no `inplace=True`, no `+=`")
    _name_after_modules(graph)
    return graph


def propagate_shapes(graph: fx.GraphModule) -> None:
    """Fill `node.meta["val"]` of every node from the placeholders' shapes."""
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    mode = inputs[0].fake_mode
    FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*inputs)


def macs(graph: fx.GraphModule) -> int:
    """Multiply-accumulates of one frame, the paper's "FLOPs": output elements × products summed for each.

    Convolutions and matrix products count; what else there is costs little beside them.

    Raises:
        ValueError: an operator that multiplies and accumulates and is neither.
    """
    total = 0
    for node in graph.graph.nodes:
        if node.target in UNCOUNTED:
            wanted = "conv2d (its padding in numbers), linear or matmul"
            raise ValueError(f"the arithmetic of {node.target} is not counted: expected {wanted}")
        if node.target is CONV:
            total += math.prod(node.meta["val"].shape) * parameter(graph, node.args[1])[0].numel()
        elif node.target in PRODUCTS:
            total += math.prod(node.meta["val"].shape) * node.args[0].meta["val"].shape[-1]
    return total


def convolutions(graph: fx.GraphModule) -> list[fx.Node]:
    """The graph's convolution nodes in order."""
    return [node for node in graph.graph.nodes if node.target is CONV]


def parameter(graph: fx.GraphModule, node: Any) -> Tensor:
    """The tensor behind a get_attr node; ValueError for one that the graph computes."""
    if node.op != "get_attr":
        raise ValueError(
            f"{node.name}: a weight that is computed, expected a stored one: fold it first with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    value = operator.attrgetter(node.target)(graph)
    assert isinstance(value, Tensor)
    return value


def add_constant(graph: fx.GraphModule, name: str, make: Callable[[], Tensor]) -> fx.Node:
    """A get_attr node for a constant called `name`: the one that is there where it is equal.

    One that differs gets a number behind its name: modules `a.b` and `a_b` have one name between them.
    """
    value, wanted = make().detach(), re.sub(r"\W", "_", name)
    name, number = wanted, 1
    there: dict[Any, fx.Node] = {node.target: node for node in graph.graph.nodes if node.op == "get_attr"}
    while name in there:
        if _equal(parameter(graph, there[name]), value):
            return there[name]
        name, number = f"{wanted}_{number}", number + 1
    graph.register_buffer(name, value.clone())
    first = next(node for node in graph.graph.nodes if node.op != "get_attr")
    with graph.graph.inserting_before(first):
        return graph.graph.get_attr(name)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _name_after_modules(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if node.op != "call_function" or not stack or not isinstance(node.target, torch._ops.OpOverload):
            continue
        path = re.sub(r"\W", "_", next(reversed(stack.values()))[0]).replace("network_", "").replace("branches_", "")
        operator_name = node.target.overloadpacket.__name__
        node.name = graph.graph._graph_namespace.create_name(f"{path}_{operator_name}" if path else operator_name, None)
    graph.recompile()
