"""Branches of one shape run as one: the streak and drop encoders, and the heavy and light decoders of both.

Such branches have the same layers, operator by operator and shape by shape, with weights of their own. Their values are
joined along the channels and each layer becomes one grouped convolution, a group a branch: a quarter of the kernels,
each four times as large. Whether grouped convolutions are as fast as plain ones is for the engine to say, so this is
no default.
"""

from typing import Any

import torch
from torch import fx

from derain.export.channels import geometry, joined
from derain.export.merge import ACTIVATIONS, bias_of, split_to, stored
from derain.export.trace import CONV, parameter

aten = torch.ops.aten

PAIRWISE = {aten.add.Tensor, aten.mul.Tensor}
GATE = "gate"
"""Key in a node's `meta`: which of a ConvLSTM's gates it makes."""


def group_branches(graph: fx.GraphModule) -> None:
    """Join the nodes that have the same place in branches of one shape."""
    for twins in _twins(graph):
        for conv in twins if twins[0].target is CONV else ():
            _split_gates(graph, conv)
    wholes: dict[tuple[fx.Node, ...], fx.Node] = {}
    for twins in _twins(graph):
        whole = _whole(graph, twins, wholes)
        if whole is not None:
            whole.meta = {**twins[0].meta, "val": torch.cat([twin.meta["val"] for twin in twins], dim=1)}
            wholes[tuple(twins)] = whole
    with graph.graph.inserting_before(graph.graph.output_node()):
        for parts, whole in wholes.items():
            split_to(graph, whole, list(parts))
    _sort(graph.graph)


def _twins(graph: fx.GraphModule) -> list[list[fx.Node]]:
    """Nodes of the same place, where there are several, in the order of the first of each.

    A place is an operator, its shapes and the places of its operands, back to values that are no part of a branch, of
    which only the shape and the level count: the number of such values on the longest way to it. So of two nodes of one
    place neither needs the other.
    """
    places: dict[fx.Node, int] = {}
    levels: dict[fx.Node, int] = {}
    numbers: dict[str, int] = {}
    found: dict[int, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        operands = node.all_input_nodes[:1] if node.target is CONV else node.all_input_nodes
        shape = getattr(node.meta.get("val"), "shape", None)
        level = max((levels[operand] for operand in operands), default=0)
        layer = _is_layer(graph, node)
        key = f"{shape}{level + 1}"
        if layer:
            own = (parameter(graph, node.args[1]).shape, geometry(node)) if node.target is CONV else node.args[1:]
            own = () if node.target in PAIRWISE else own
            key = f"{shape}{node.target}{own}{node.meta.get(GATE)}{[places[operand] for operand in operands]}"
        levels[node] = level if layer else level + 1
        places[node] = numbers.setdefault(key, len(numbers))
        if layer:
            found.setdefault(places[node], []).append(node)
    return [twins for twins in found.values() if len(twins) > 1]


def _is_layer(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.target in PAIRWISE:
        shapes = {operand.meta["val"].shape for operand in node.all_input_nodes}
        return len(node.all_input_nodes) == 2 and len(shapes) == 1 and not node.kwargs
    return node.target in ACTIVATIONS or (node.target is CONV and geometry(node)[-1] == 1)


def _split_gates(graph: fx.GraphModule, conv: fx.Node) -> None:
    """A convolution that is cut into chunks becomes one for each chunk: a group's channels must lie together."""
    (chunk, *others) = conv.users
    width, uneven = divmod(conv.meta["val"].shape[1], chunk.args[1]) if chunk.target is aten.chunk.default else (0, 1)
    if others or uneven or chunk.args[2:] != (1,):
        return
    weight, bias = parameter(graph, conv.args[1]).detach(), bias_of(graph, conv)
    for gate in list(chunk.users):
        index: Any = gate.args[1]
        rows = slice(index * width, (index + 1) * width)
        name = f"{conv.name}_gate_{index}"
        with graph.graph.inserting_before(chunk):
            args = (conv.args[0], *stored(graph, name, weight[rows], bias[rows]), *conv.args[3:])
            part = graph.graph.create_node("call_function", CONV, args, name=name)
        part.meta = {**gate.meta, GATE: index}
        gate.replace_all_uses_with(part)
        graph.graph.erase_node(gate)
    graph.graph.erase_node(chunk)
    graph.graph.erase_node(conv)


def _whole(graph: fx.GraphModule, twins: list[fx.Node], wholes: dict[tuple[fx.Node, ...], fx.Node]) -> fx.Node | None:
    """The one node that computes all of `twins`, or None where their operands would first have to be copied together.

    Only convolutions are worth such a copy, and those where a branch begins need it.
    """
    first, name = twins[0], f"{twins[0].name}_and_{len(twins) - 1}"
    count = 1 if first.target is CONV else len(first.all_input_nodes)
    columns = [tuple(twin.all_input_nodes[index] for twin in twins) for index in range(count)]
    values = [wholes.get(column) for column in columns]
    with graph.graph.inserting_before(graph.graph.output_node()):
        if first.target is CONV:
            (column,), (value,) = columns, values
            if value is None and 1 < len(set(column)) < len(twins):
                return None
            alike = len(set(column)) == 1
            x = column[0] if alike else value or joined(graph, first, list(column))
            weight = torch.cat([parameter(graph, twin.args[1]).detach() for twin in twins])
            bias = torch.cat([bias_of(graph, twin) for twin in twins])
            stride, padding, dilation, _ = geometry(first)
            args: Any = (x, *stored(graph, name, weight, bias), stride, padding, dilation, 1 if alike else len(twins))
        elif None in values:
            return None
        else:
            args = (*values, *first.args[count:])
        return graph.graph.create_node("call_function", first.target, args, name=name)  # type: ignore[arg-type]


def _sort(graph: fx.Graph) -> None:
    """Put every node behind its operands, and otherwise leave their order."""
    output = graph.output_node()
    placed: set[fx.Node] = set()
    for wanted in list(graph.nodes)[:-1]:
        waiting = [wanted]
        while waiting:
            missing = [operand for operand in waiting[-1].all_input_nodes if operand not in placed]
            waiting += missing[:1]
            if not missing:
                node = waiting.pop()
                if node not in placed:
                    placed.add(node)
                    output.prepend(node)
