"""Channels of a traced graph: found behind a concatenation, joined, selected from weights, split off a convolution."""

from typing import Any

import torch
from torch import fx

from derain.export.trace import CONV, add_constant, parameter

aten = torch.ops.aten


def concatenation(node: object) -> list[fx.Node] | None:
    """The operands of a concatenation of channels, or None for anything else."""
    if isinstance(node, fx.Node) and node.target is aten.cat.default and tuple(node.args[1:]) == (1,):
        return list(node.args[0])  # type: ignore[arg-type]
    return None


def channel_ranges(operands: list[fx.Node]) -> list[range]:
    """The channels that each operand fills in their concatenation."""
    ranges, start = [], 0
    for operand in operands:
        channels = operand.meta["val"].shape[1]
        ranges.append(range(start, start + channels))
        start += channels
    return ranges


def joined(graph: fx.GraphModule, like: fx.Node, operands: list[fx.Node]) -> fx.Node:
    """The operands' concatenation, or the only one itself; `like` gives its other notes."""
    if len(operands) == 1:
        return operands[0]
    node = graph.graph.call_function(aten.cat.default, (operands, 1))
    node.meta = {**like.meta, "val": torch.cat([operand.meta["val"] for operand in operands], dim=1)}
    return node


def selected(graph: fx.GraphModule, source: object, dim: int, channels: list[int]) -> fx.Node:
    """A get_attr node for `channels` of a weight along `dim`; the same slice of the same weight is stored once."""
    assert isinstance(source, fx.Node)
    starts, ends = ([c for c in channels if c + step not in channels] for step in (-1, 1))
    runs = "_".join(f"{start}to{end}" for start, end in zip(starts, ends, strict=True))
    name = f"{source.target}_{'out' if dim == 0 else 'in'}_{runs}"
    return add_constant(graph, name, lambda: parameter(graph, source).index_select(dim, torch.tensor(channels)))


def split_convolution(graph: fx.GraphModule, conv: fx.Node, operands: list[fx.Node], invariant: list[bool]) -> None:
    """conv([…]) becomes conv(invariant operands, with bias) + conv(the others, without)."""
    _, weight, bias, *geometry = (*conv.args, None) if len(conv.args) == 2 else conv.args
    ranges = channel_ranges(operands)
    halves = []
    for wanted in (True, False):
        chosen = [i for i, flag in enumerate(invariant) if flag is wanted]
        channels = [c for i in chosen for c in ranges[i]]
        part = selected(graph, weight, 1, channels)
        with graph.graph.inserting_before(conv):
            value = joined(graph, conv, [operands[i] for i in chosen])
            args = (value, part, bias if wanted else None, *geometry)
            half = graph.graph.create_node(
                "call_function", CONV, args, name=f"{conv.name}_{'shared' if wanted else 'step'}"
            )
        half.meta = dict(conv.meta)
        halves.append(half)
    with graph.graph.inserting_before(conv):
        total = graph.graph.create_node("call_function", aten.add.Tensor, tuple(halves), name=f"{conv.name}_sum")
    total.meta = dict(conv.meta)
    conv.replace_all_uses_with(total)
    graph.graph.erase_node(conv)


def geometry(conv: fx.Node) -> tuple[list[int], list[int], list[int], int]:
    """Stride, padding, dilation and groups of a convolution, written out."""
    given: tuple[Any, ...] = conv.args[3:]
    defaults: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)
    stride, padding, dilation, groups = (*given, *defaults[len(given) :])
    return list(stride), list(padding), list(dilation), groups
