"""Graphs of small modules, unrolled and proved equal, and what is left in them."""

import torch
from torch import fx, nn

from derain.export.trace import convolutions, macs, parameter, trace
from derain.export.unroll import UnrollReport, unroll

SHAPE = (1, 3, 6, 8)
"""Of the frames that `unrolled` takes."""


def unrolled(module: nn.Module, lively, shape=SHAPE) -> tuple[fx.GraphModule, UnrollReport]:
    """Unroll and prove equal on two frames."""
    lively(module)
    naive = trace(module, torch.empty(shape))
    graph, report = unroll(naive)
    for seed in (1, 2):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            torch.testing.assert_close(graph(x), module(x), rtol=1e-5, atol=1e-5)
    assert report.macs == macs(graph) and report.convolutions == len(convolutions(graph))
    return graph, report


def shapes(graph: fx.GraphModule) -> list[tuple[int, ...]]:
    """The weights' shapes of the convolutions, in order."""
    return [tuple(parameter(graph, node.args[1]).shape) for node in convolutions(graph)]


def operators(graph: fx.GraphModule) -> list[str]:
    return [str(node.target).removeprefix("aten.") for node in graph.graph.nodes if node.op == "call_function"]
