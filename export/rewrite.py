"""Exact rewrites for speed, behind the unroller: the same numbers from fewer or larger kernels.

Each is a pass of its own, chosen by name. `DEFAULT` holds those that only take away and were not slower on ONNX
Runtime's CPU; what splits or groups convolutions is for a GPU to judge.
`python benchmarks/gpu.py prepare cases --rewrites`, then `interleave cases/*` on a GPU, times each.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import onnx
from torch import fx

from derain.export.branches import group_branches
from derain.export.channel_order import absorb_flips
from derain.export.merge import fold_complements, merge_siblings, split_shared_inputs
from derain.export.trace import convolutions, macs, propagate_shapes

Pass = Callable[[fx.GraphModule], None]

REWRITES: dict[str, Pass] = {
    "pixels": absorb_flips,
    "complements": fold_complements,
    "shared-inputs": split_shared_inputs,
    "branches": group_branches,
    "siblings": merge_siblings,
}
"""In the order in which they run."""

NOTE = "rewrites"
"""Key of the report in an ONNX file's metadata."""

DEFAULT = ("pixels", "complements", "siblings")


@dataclass(frozen=True)
class Rewrite:
    """What one rewrite took away; negative where it added."""

    name: str
    operators: int
    convolutions: int
    macs: int


def rewrite(graph: fx.GraphModule, names: Iterable[str] = DEFAULT) -> list[Rewrite]:
    """Apply the named rewrites to an unrolled graph, in place; each gives the same output up to FP32's rounding.

    Raises:
        ValueError: a name that is not one of `REWRITES`.
    """
    chosen = set(names)
    if unknown := sorted(chosen - REWRITES.keys()):
        raise ValueError(f"rewrite {unknown[0]!r} is unknown, known are: {', '.join(REWRITES)}")
    report = []
    for name, apply in REWRITES.items():
        if name in chosen:
            before = _counts(graph)
            apply(graph)
            graph.graph.eliminate_dead_code()
            graph.delete_all_unused_submodules()
            graph.graph.lint()
            graph.recompile()
            propagate_shapes(graph)
            report.append(Rewrite(name, *(a - b for a, b in zip(before, _counts(graph), strict=True))))
    return report


def with_rewrites(model: onnx.ModelProto, report: list[Rewrite]) -> onnx.ModelProto:
    """The model with the report in its metadata, from where `rewrites_of` reads it."""
    onnx.helper.set_model_props(model, {NOTE: json.dumps([asdict(entry) for entry in report])})
    return model


def rewrites_of(model: onnx.ModelProto) -> list[Rewrite]:
    """What the rewrites removed from a graph; none for a graph from elsewhere."""
    notes = {entry.key: entry.value for entry in model.metadata_props}
    return [Rewrite(**entry) for entry in json.loads(notes.get(NOTE, "[]"))]


def _counts(graph: fx.GraphModule) -> tuple[int, int, int]:
    """Operators that compute, convolutions among them, and their multiply-accumulates."""
    computing = [n for n in graph.graph.nodes if hasattr(n.target, "_schema") and n.target._schema.returns]
    return len(computing), len(convolutions(graph)), macs(graph)
