"""The order of channels, taken out of the frame and put into the weights.

A camera's bgr8 is turned to the network's RGB, and back at the end: two passes over the whole frame that compute
nothing. A convolution whose weights are in the other order does the same. `absorb_flips` follows each flip of channels,
through what treats channels alike, down to convolutions that read it or up to one that made its input.
"""

from typing import Any
from zlib import crc32

import torch
from torch import fx

from derain.export.channels import concatenation, geometry
from derain.export.merge import ACTIVATIONS
from derain.export.trace import CONV, add_constant, parameter

aten = torch.ops.aten

Order = list[int]
"""Channel c of the value that was is channel order[c] of the value that is."""

CHANNELWISE = ACTIVATIONS | {
    aten.avg_pool2d.default,
    aten.clamp.default,
    aten.div.Tensor,
    aten.mul.Tensor,
    aten.pad.default,
    aten.round.default,
    aten.slice.Tensor,
    aten.upsample_bilinear2d.vec,
}
"""Operators that, given one tensor, leave channels where they are."""


class _StuckError(Exception):
    """An operator for which the order of channels matters and which has no weights to put it in."""


def absorb_flips(graph: fx.GraphModule) -> None:
    """Replace every flip of channels by reordered weights, or leave the graph as it is where one cannot be."""
    try:
        plan = _ReorderPlan(graph)
    except _StuckError:
        return
    for node in plan.reordered:  # another value now, so that no proof takes it for the one of that name
        node.name = graph.graph._graph_namespace.create_name(f"{node.name}_reordered", None)
    for flip in plan.flips:
        flip.replace_all_uses_with(flip.args[0])  # type: ignore[arg-type]
    for (conv, dim), order in plan.weights.items():
        conv.update_arg(1, _reordered(graph, conv.args[1], dim, order))
        if dim == 0 and conv.args[2:3] not in ((), (None,)):
            conv.update_arg(2, _reordered(graph, conv.args[2], dim, order))


def _reordered(graph: fx.GraphModule, source: Any, dim: int, order: Order) -> fx.Node:
    name = f"{source.target}_{'out' if dim == 0 else 'in'}_{crc32(str(order).encode()):08x}"
    return add_constant(graph, name, lambda: parameter(graph, source).index_select(dim, torch.tensor(order)))


class _ReorderPlan:
    """What must change so that no flip is needed; nothing is changed yet."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.orders: dict[fx.Node, Order] = {}
        self.weights: dict[tuple[fx.Node, int], Order] = {}
        self.flips: list[fx.Node] = []
        self.reordered: list[fx.Node] = []
        for node in graph.graph.nodes:
            if node.target is aten.flip.default and node.args[1] == [1] and len(node.meta["val"].shape) == 4:
                self._flip(node)
            elif any(source in self.orders for source in node.all_input_nodes):
                self._follow(node)

    def _flip(self, node: fx.Node) -> None:
        self.flips.append(node)
        source: Any = node.args[0]
        backwards = list(reversed(self._order(source)))
        if source in self.orders or not self._reorder_maker(source, backwards):
            self._keep(node, backwards)

    def _follow(self, node: fx.Node) -> None:
        source: Any = node.args[0]
        operands = concatenation(node)
        if operands is not None:
            order: Order = []
            for operand in operands:
                start = len(order)
                order += [start + channel for channel in self._order(operand)]
            self._keep(node, order)
        elif node.target is CONV and geometry(node)[-1] == 1:
            self.weights[node, 1] = _inverse(self._order(source))
        elif node.target is aten.pixel_unshuffle.default:
            self._keep(node, _blocks(self._order(source), node.args[1] ** 2))  # type: ignore[operator,arg-type]
        elif _channelwise(node):
            self._keep(node, self._order(source))
        elif node.target in (aten.add.Tensor, aten.sub.Tensor) and len(node.all_input_nodes) == 2:
            self._add(node)
        else:
            raise _StuckError

    def _add(self, node: fx.Node) -> None:
        left, right = node.all_input_nodes
        if left.meta["val"].shape != right.meta["val"].shape:
            raise _StuckError
        known, other = (left, right) if left in self.orders else (right, left)
        order = self._order(known)
        if self._order(other) != order and (other in self.orders or not self._reorder_maker(other, order)):
            raise _StuckError
        self._keep(node, order)

    def _reorder_maker(self, node: fx.Node, order: Order) -> bool:
        """Let the convolution behind `node` give its channels in `order`, if nobody else reads what lies between."""
        if node.op != "call_function" or len(node.users) > 1:
            return False
        source: Any = node.args[0]
        if node.target is CONV and geometry(node)[-1] == 1:
            self.weights[node, 0] = _inverse(order)
        elif node.target is aten.pixel_shuffle.default:
            if not self._reorder_maker(source, _blocks(order, node.args[1] ** 2)):  # type: ignore[operator,arg-type]
                return False
        elif not (_channelwise(node) and self._reorder_maker(source, order)):
            return False
        self.reordered.append(node)
        return True

    def _order(self, node: fx.Node) -> Order:
        return self.orders.get(node, list(range(node.meta["val"].shape[1])))

    def _keep(self, node: fx.Node, order: Order) -> None:
        if order != sorted(order):
            self.orders[node] = order
            self.reordered.append(node)


def _channelwise(node: fx.Node) -> bool:
    across = node.target is aten.slice.Tensor and node.args[1:2] in ((), (0,), (1,))
    deep = node.target is aten.pad.default and len(node.args[1]) > 4  # type: ignore[arg-type]
    return node.target in CHANNELWISE and len(node.all_input_nodes) == 1 and not across and not deep


def _blocks(order: Order, size: int) -> Order:
    """The order of channels that each became `size` channels."""
    return [channel * size + part for channel in order for part in range(size)]


def _inverse(order: Order) -> Order:
    return sorted(range(len(order)), key=order.__getitem__)
