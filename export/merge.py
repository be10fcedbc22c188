"""Convolutions that see the same values become one.

- *complements*: conv(c - x) without padding is a convolution of x: weights -W, bias b + c·ΣW. So the two maps S+ and
  S- = 1 - S+ need one input, which the next passes make one convolution.
- *shared-inputs*: conv([x, s], W) = conv(x, W_x) + conv(s, W_s) where other convolutions see s too.
- *siblings*: convolutions of one input and one geometry become one with all their output channels, then a split; an
  activation that each of them has comes before the split.
"""

import operator
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx

from derain.export.channels import concatenation, geometry, split_convolution
from derain.export.trace import CONV, add_constant, convolutions, parameter

aten = torch.ops.aten

ACTIVATIONS = {aten.leaky_relu.default, aten.relu.default, aten.sigmoid.default, aten.tanh.default}
"""Operators of one operand that treat every channel alike."""


def fold_complements(graph: fx.GraphModule) -> None:
    """conv(c - x, W, b) = conv(x, -W, b + c·ΣW)."""
    for conv in convolutions(graph):
        subtraction: Any = conv.args[0]
        _, padding, _, groups = geometry(conv)
        if subtraction.target is not aten.rsub.Scalar or len(subtraction.args) > 2 or any(padding) or groups > 1:
            continue
        x, whole = subtraction.args
        weight = parameter(graph, conv.args[1]).detach()
        bias = bias_of(graph, conv) + whole * weight.sum((1, 2, 3))
        conv.args = (x, *stored(graph, conv.name, -weight, bias), *conv.args[3:])


def split_shared_inputs(graph: fx.GraphModule) -> None:
    """conv([x, s]) = conv(x) + conv(s) where s is most of what the convolution reads and another reads it too."""
    seen = [(conv, concatenation(conv.args[0]) or conv.all_input_nodes[:1]) for conv in convolutions(graph)]
    readers = Counter((operand, str(geometry(conv))) for conv, operands in seen for operand in set(operands))
    for conv, operands in seen:
        shared = [readers[operand, str(geometry(conv))] > 1 for operand in operands]
        channels = [operand.meta["val"].shape[1] for operand in operands]
        most = 2 * sum(width for width, common in zip(channels, shared, strict=True) if common) >= sum(channels)
        if most and not all(shared) and geometry(conv)[-1] == 1:
            split_convolution(graph, conv, concatenation(conv.args[0]) or operands, shared)


def merge_siblings(graph: fx.GraphModule) -> None:
    """[conv(x, W1), conv(x, W2)] = split(conv(x, [W1; W2])), together with the activation behind each, if it is one."""
    families: dict[str, list[fx.Node]] = {}
    for conv in convolutions(graph):
        behind, *others = conv.users
        activation = (behind.target, behind.args[1:]) if behind.target in ACTIVATIONS and not others else None
        kernel = parameter(graph, conv.args[1]).shape[2:]
        families.setdefault(f"{conv.args[0]}{kernel}{geometry(conv)}{activation}", []).append(conv)
    for family in families.values():
        if len(family) > 1 and geometry(family[0])[-1] == 1:
            _merge(graph, family)


def _merge(graph: fx.GraphModule, family: list[fx.Node]) -> None:
    first = family[0]
    behind, *others = first.users
    weight = torch.cat([parameter(graph, conv.args[1]).detach() for conv in family])
    bias = torch.cat([bias_of(graph, conv) for conv in family])
    name = f"{first.name}_and_{len(family) - 1}"
    args = (first.args[0], *stored(graph, name, weight, bias), *first.args[3:])
    with graph.graph.inserting_before(first):
        whole = graph.graph.create_node("call_function", CONV, args, name=name)
        outputs = family
        if behind.target in ACTIVATIONS and not others:
            outputs = [next(iter(conv.users)) for conv in family]
            activated = f"{behind.name}_and_{len(family) - 1}"
            whole = graph.graph.create_node("call_function", behind.target, (whole, *behind.args[1:]), name=activated)
        split_to(graph, whole, outputs)


def split_to(graph: fx.GraphModule, whole: fx.Node, parts: list[fx.Node]) -> None:
    """Put the channels of `whole`, in order, in the place of `parts`."""
    widths = [part.meta["val"].shape[1] for part in parts]
    if len(set(widths)) == 1:
        cut = graph.graph.call_function(aten.chunk.default, (whole, len(parts), 1))
    else:
        cut = graph.graph.call_function(aten.split_with_sizes.default, (whole, widths, 1))
    for index, part in enumerate(parts):
        piece = graph.graph.call_function(operator.getitem, (cut, index))
        piece.meta = dict(part.meta)
        part.replace_all_uses_with(piece)


def bias_of(graph: fx.GraphModule, conv: fx.Node) -> Tensor:
    """The bias [C_out], of zeros where the convolution has none."""
    bias = (*conv.args, None)[2]
    return torch.zeros(conv.meta["val"].shape[1]) if bias is None else parameter(graph, bias).detach()


def stored(graph: fx.GraphModule, name: str, weight: Tensor, bias: Tensor) -> tuple[fx.Node, fx.Node]:
    """The get_attr nodes of a new convolution's weight and bias."""
    return (
        add_constant(graph, f"{name}_weight", lambda: weight),
        add_constant(graph, f"{name}_bias", lambda: bias),
    )
