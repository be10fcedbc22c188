"""The unroller: recurrent steps become a static graph that does only the arithmetic that can reach the output.

Exact rewriting of the naive unroll (see `trace`), in the order of `unroll`:

0. *cut*: parts of planes, however they are taken, are the chunks, splits and slices that the passes below look for;
1. *share*: what every step computes anew from the same values is computed once (common subexpressions);
2. *hoist*: conv([x, h], W) = conv(x, W_x) + conv(h, W_h); where several steps share x, its half is computed once;
3. *fold*: the zero states of the first step vanish: the hidden half of its gate convolution, the product with the
   zero cell, and whatever else is known to be constant over the plane; no plane of constants is ever stored;
4. *prune*: gates that nobody reads, such as the first step's forget gate, leave their convolution, whether they are
   cut before or after their activation;
5. *drop*: nodes that cannot reach the output go, such as the first steps' residual blocks.

The passes know operators, not networks: any ConvLSTM, ConvGRU or other recurrence traced to ATen goes through them.
"""

import operator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, fx

from derain.export.channels import channel_ranges, concatenation, joined, selected, split_convolution
from derain.export.trace import CONV, add_constant, convolutions, macs, parameter, propagate_shapes

aten = torch.ops.aten

ZEROS = {aten.new_zeros.default, aten.zeros_like.default, aten.zeros.default}
POINTWISE = {
    aten.sigmoid.default,
    aten.tanh.default,
    aten.relu.default,
    aten.leaky_relu.default,
    aten.rsub.Scalar,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
}
"""Operators that map every pixel alike: applied to planes that are constant per channel they give such planes."""


CUTS = {aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default}


@dataclass(frozen=True)
class UnrollReport:
    """What the unroller removed: multiply-accumulates and convolutions of one frame, before and after."""

    macs_naive: int
    macs: int
    convolutions_naive: int
    convolutions: int


def unroll(naive: fx.GraphModule) -> tuple[fx.GraphModule, UnrollReport]:
    """Rewrite a traced network; the result gives the same output up to the rounding of FP32 sums."""
    before = macs(naive), len(convolutions(naive))
    graph = _copy(naive)
    plain_cuts(graph)
    flat_concatenations(graph)
    share_common(graph)
    hoist_invariants(graph)
    fold_constants(graph)
    prune_dead_gates(graph)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    propagate_shapes(graph)
    return graph, UnrollReport(before[0], macs(graph), before[1], len(convolutions(graph)))


def _copy(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph of its own nodes on the same weights."""
    nodes = fx.Graph()
    output = nodes.graph_copy(graph.graph, {})
    nodes.output(output)
    nodes.set_codegen(graph.graph._codegen)
    return fx.GraphModule(graph, nodes)


def plain_cuts(graph: fx.GraphModule) -> None:
    """Planes cut along their channels, however that was written, are `chunk(x, count, 1)` where the parts are equal.

    A part taken by `narrow` is a slice.
    """
    for node in graph.graph.nodes:
        if node.target is aten.narrow.default:
            x, dim, start, length = node.args
            start %= x.meta["val"].shape[dim]  # below zero it counts from the end
            node.target, node.args = aten.slice.Tensor, (x, dim, start, start + length)
        elif node.target in CUTS:
            x, by, *dim = node.args
            axis = (dim or [0])[0] % x.meta["val"].dim()
            widths = [part.shape[axis] for part in node.meta["val"]]
            node.args = (x, by, axis)
            if axis == 1 and len(set(widths)) == 1:
                node.target, node.args = aten.chunk.default, (x, len(widths), 1)


def flat_concatenations(graph: fx.GraphModule) -> None:
    """A concatenation along the channels, however that was written, is `cat(operands, 1)`, and none of another."""
    for node in graph.graph.nodes:
        if node.target is aten.cat.default:
            operands, *dim = node.args
            if (dim or [0])[0] % node.meta["val"].dim() == 1:
                node.args = ([part for one in operands for part in concatenation(one) or [one]], 1)


def share_common(graph: fx.GraphModule) -> None:
    """Compute equal expressions once: same operator, same operands, same weights."""
    seen: dict[str, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.op in ("call_function", "get_attr"):
            first = seen.setdefault(f"{node.target}{node.args}{node.kwargs}", node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.graph.erase_node(node)


def hoist_invariants(graph: fx.GraphModule) -> None:
    """Compute the part of a convolution over a concatenation that several steps share once.

    Convolutions with one weight are the steps of one loop. Operands of their concatenations that together take fewer
    values than there are steps are invariant: conv over those, once for each value, plus conv over the rest, once a
    step.
    """
    loops: dict[tuple[object, ...], list[fx.Node]] = {}
    for node in convolutions(graph):
        if concatenation(node.args[0]) is not None and not node.args[6:]:  # grouped convolutions stay as they are
            loops.setdefault((node.args[1], *map(str, node.args[3:])), []).append(node)
    for steps in loops.values():
        operands = [concatenation(step.args[0]) or [] for step in steps]
        layouts = {tuple(o.meta["val"].shape[1] for o in ops) for ops in operands}
        if len(steps) < 2 or len(layouts) > 1:
            continue
        columns = list(zip(*operands, strict=True))
        shared: list[tuple[fx.Node, ...]] = []
        for column in sorted(columns, key=_repeated, reverse=True):
            if _repeated(column) and len(set(zip(*shared, column, strict=True))) < len(steps):
                shared.append(column)
        invariant = [column in shared for column in columns]
        if any(invariant) and not all(invariant):
            for step in steps:  # its operands anew: where one step is the next one's, the split has just replaced it
                split_convolution(graph, step, concatenation(step.args[0]) or [], invariant)
    share_common(graph)


def _repeated(column: tuple[fx.Node, ...]) -> int:
    """How often an operand's value is one of an earlier step's; zeros do not count, which nobody convolves."""
    values = [value for value in column if value.target not in ZEROS]
    return len(values) - len(set(values))


def fold_constants(graph: fx.GraphModule) -> None:
    """Follow the values that are constant over the plane, [1, C, 1, 1] each, from the zero states on."""
    known: dict[fx.Node, Tensor] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        value = _constant_value(graph, node, known)
        if value is not None:
            known[node] = value
        elif node.target is CONV:
            _skip_zero_channels(graph, node, known)
        elif node.target in (aten.add.Tensor, aten.sub.Tensor):
            _skip_identity(node, known)
    for node, value in known.items():
        if not all(user in known for user in node.users):
            _materialise(graph, node, value)


def _constant_value(graph: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Tensor]) -> Tensor | None:
    """The value [1, C, 1, 1] of a node whose planes are constant, or None."""
    target: Any = node.target
    args: Any = node.args
    shape: Any = getattr(node.meta.get("val"), "shape", ())
    if len(shape) != 4:
        return None  # not a batch of planes
    if target in ZEROS or (target is aten.mul.Tensor and any(_is_zero(known.get(a)) for a in args)):
        return torch.zeros(1, shape[1], 1, 1)
    if target is CONV and _is_zero(known.get(args[0])):  # any other constant varies at the border, which zeros pad
        bias = (*args, None)[2]
        values = torch.zeros(shape[1]) if bias is None else parameter(graph, bias).detach()
        return values.reshape(1, -1, 1, 1)
    if target is aten.slice.Tensor and args[0] in known and args[1] == 1:
        return _planes(known, args[0])[:, slice(*args[2:])]
    if target is operator.getitem and args[0].target is aten.chunk.default:
        source, count, *dim = args[0].args
        return _planes(known, source).chunk(count, dim=1)[args[1]] if source in known and dim == [1] else None
    if target is aten.cat.default and all(operand in known for operand in args[0]) and args[1:] == (1,):
        return torch.cat([_planes(known, operand) for operand in args[0]], dim=1)
    if target in POINTWISE and node.all_input_nodes and all(a in known for a in node.all_input_nodes):
        value = target(*(known[a] if isinstance(a, fx.Node) else a for a in args), **node.kwargs)
        assert isinstance(value, Tensor)
        return value
    return None


def _planes(known: dict[fx.Node, Tensor], node: fx.Node) -> Tensor:
    """A known value with one entry for each channel."""
    return known[node].expand(1, node.meta["val"].shape[1], 1, 1)


def _skip_zero_channels(graph: fx.GraphModule, conv: fx.Node, known: dict[fx.Node, Tensor]) -> None:
    """conv([x, 0], W) = conv(x, W_x)."""
    operands = concatenation(conv.args[0])
    if operands is None or conv.args[6:]:
        return
    kept = [i for i, operand in enumerate(operands) if not _is_zero(known.get(operand))]
    if len(kept) == len(operands):
        return
    ranges = channel_ranges(operands)
    weight = selected(graph, conv.args[1], 1, [c for i in kept for c in ranges[i]])
    with graph.graph.inserting_before(conv):
        x = joined(graph, conv, [operands[i] for i in kept])
    conv.args = (x, weight, *conv.args[2:])


def _skip_identity(node: fx.Node, known: dict[fx.Node, Tensor]) -> None:
    """x + 0 = 0 + x = x - 0 = x, unless it was the zero that gave the result its shape."""
    left, right = node.args[0], node.args[1]
    for kept, zero in ((left, right), (right, left)):
        if (node.target is aten.sub.Tensor and kept is right) or node.kwargs:
            continue
        if not isinstance(kept, fx.Node) or not isinstance(zero, fx.Node) or not _is_zero(known.get(zero)):
            continue
        if kept.meta["val"].shape == node.meta["val"].shape:
            node.replace_all_uses_with(kept)
            return


def _materialise(graph: fx.GraphModule, node: fx.Node, value: Tensor) -> None:
    """Let the graph expand a stored [1, C, 1, 1] to the planes that someone still reads."""
    constant = add_constant(graph, f"{node.name}_constant", lambda: value)
    with graph.graph.inserting_before(node):
        plane = graph.graph.call_function(aten.expand.default, (constant, list(node.meta["val"].shape)))
    plane.meta = dict(node.meta)
    node.replace_all_uses_with(plane)


def prune_dead_gates(graph: fx.GraphModule) -> None:
    """A convolution loses the output channels that nobody reads behind its activations, cuts and slices."""
    graph.graph.eliminate_dead_code()
    for conv in convolutions(graph):
        read = _channels_read(conv)
        if read.all() or conv.args[6:]:
            continue
        _keep_channels(conv, read)
        channels = read.nonzero().flatten().tolist()
        weight = selected(graph, conv.args[1], 0, channels)
        bias = conv.args[2] if len(conv.args) > 2 else None
        bias = None if bias is None else selected(graph, bias, 0, channels)
        conv.args = (conv.args[0], weight, bias, *conv.args[3:])


def _channels_read(node: fx.Node) -> Tensor:
    """Which channels [C] of a value are read: all, where a user is not one that `_views` knows."""
    read = torch.zeros(node.meta["val"].shape[1], dtype=torch.bool)
    for user in node.users:
        views = _views(user)
        if views is None:
            return torch.ones_like(read)
        for view, channels in views:
            read[channels] |= _channels_read(view)
    return read


def _views(user: fx.Node) -> list[tuple[fx.Node, slice]] | None:
    """The values of an activation, a slice or a cut and the channels of its operand that each holds, or None."""
    args: Any = user.args
    if user.target in POINTWISE and len(user.all_input_nodes) == 1:
        return [(user, slice(None))]
    if user.target is aten.slice.Tensor and args[1:2] == (1,) and len(args) == 4:
        return [(user, slice(*args[2:]))]
    if user.target in CUTS and args[2:] == (1,):
        return [(part, _ranges(user)[part.args[1]]) for part in user.users]  # type: ignore[index]
    return None


def _ranges(cut: fx.Node) -> list[slice]:
    """The channels of its operand that each part of a cut holds."""
    ends = accumulate((part.shape[1] for part in cut.meta["val"]), initial=0)
    return [slice(start, end) for start, end in pairwise(ends)]


def _keep_channels(node: fx.Node, read: Tensor) -> None:
    """Slice and cut a value that has only the channels `read` [C] of those it had."""
    for user in list(node.users):
        views = _views(user) or []
        for view, channels in views:
            _keep_channels(view, read[channels])
        if user.target in CUTS and views:
            widths = [int(read[channels].sum()) for channels in _ranges(user)]
            live = [index for index, width in enumerate(widths) if width]
            kept = [widths[index] for index in live]
            even = len(set(kept)) == 1
            user.target = aten.chunk.default if even else aten.split_with_sizes.default
            user.args = (node, len(kept) if even else kept, 1)
            for part, _ in views:
                part.args = (user, live.index(part.args[1]))  # type: ignore[arg-type]
        elif user.target is aten.slice.Tensor and views:
            start, end, _ = views[0][1].indices(len(read))
            user.args = (node, 1, int(read[:start].sum()), int(read[:end].sum()))
        for view, channels in views:
            if view.target not in POINTWISE and read[channels].sum() == read.sum():
                view.replace_all_uses_with(node)  # nothing is cut off


def _is_zero(value: Tensor | None) -> bool:
    return value is not None and not bool(value.any())
