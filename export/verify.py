"""Is the graph still the network? PyTorch against every graph of a bundle, at the bundle's own size.

Only where they differ does the comparison go inside: tensor by tensor, the traced network against the graph, to name
the first that drifts.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from derain.export.exporter import bundle_network, traced
from derain.export.probe import MIN_PSNR, Runner, float_tensors, seeded_frame, tensors
from derain.runtime import engines
from derain.runtime.bundle import Bundle, Precision
from derain.runtime.memory import release_freed_memory

log = logging.getLogger(__name__)

MAX_ABS_DIFF = {Precision.FP32: 1}
"""Grey levels an output byte may differ from PyTorch's; the other precisions are judged by PSNR alone."""

DRIFT = 1e-3
"""A tensor drifts where it differs by more than this share of the reference's largest magnitude (at least 1)."""

COMPARED_AT_ONCE = 2**29
"""Bytes of intermediate tensors held on each side while looking for the first that drifts."""


@dataclass(frozen=True)
class Verification:
    """One graph against PyTorch on one frame."""

    precision: Precision
    psnr_vs_fp32: float
    """dB over all output bytes; infinite where they are equal. Of the engine, or of the graph with FP16 rounded as a
    GPU rounds it, which ONNX Runtime's CPU does not: the worse of the two."""
    max_abs_diff: int
    """Grey levels."""
    passed: bool
    overflow: str | None
    """The first tensor with a value beyond its type's reach."""
    first_drift: str | None
    """The first tensor that differs, where the graph did not pass and one was found."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite PSNR is null."""
        psnr = self.psnr_vs_fp32 if math.isfinite(self.psnr_vs_fp32) else None
        return {
            "psnr_vs_fp32": psnr,
            "max_abs_diff": self.max_abs_diff,
            "passed": self.passed,
            "overflow": self.overflow,
            "first_drift": self.first_drift,
        }


def verify(bundle: Bundle, engine: str = "onnxruntime", seed: int = 0) -> list[Verification]:
    """Compare every graph of the bundle, run by `engine`, with the network in PyTorch, on one seeded frame."""
    manifest = bundle.manifest
    frame = seeded_frame(manifest.input, seed)
    expected = pytorch_output(bundle, frame)
    release_freed_memory()
    results = []
    for entry in manifest.graphs:
        with engines.create(engine, bundle, entry.precision) as runner:
            seen = runner.infer(frame)
        images = [seen]
        overflow = None
        if entry.precision is not Precision.FP32:
            graph = onnx.shape_inference.infer_shapes(onnx.load(bundle.graph(entry.precision)), data_prop=True)
            images.append(Runner(graph).image(frame))
            values = tensors(graph, float_tensors(graph), [frame])
            overflow = next((name for name, value in values if not np.isfinite(value).all()), None)
        difference = max((np.abs(image.astype(np.int16) - expected) for image in images), key=np.linalg.norm)
        mse = float(np.square(difference, dtype=np.float64).mean())
        psnr = math.inf if mse == 0 else 10 * math.log10(255**2 / mse)
        worst = int(difference.max())
        within = psnr >= MIN_PSNR[entry.precision] and worst <= MAX_ABS_DIFF.get(entry.precision, 255)
        passed = within and overflow is None
        drift = None if passed else first_drift(bundle, entry.precision, frame)
        results.append(Verification(entry.precision, psnr, worst, passed, overflow, drift))
    return results


def pytorch_output(bundle: Bundle, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What PyTorch makes of a frame's bytes: the bundle's network, traced but not rewritten.

    The interpreter frees each tensor after its last reader. A call of the module would hold the states of every
    ConvLSTM until it returns: at 1280×720 that is gigabytes.
    """
    manifest = bundle.manifest
    network = bundle_network(bundle).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    reference = traced(network, manifest.input, manifest.output)
    with torch.inference_mode():
        clean: NDArray[np.uint8] = fx.Interpreter(reference).run(torch.from_numpy(frame)[None])[0].numpy()
    return clean


def first_drift(bundle: Bundle, precision: Precision, frame: NDArray[np.uint8]) -> str | None:
    """The first tensor, in the order of computation, in which the graph leaves the traced network.

    None where every tensor that both have agrees: then the fault lies behind the last of them.
    """
    reference = traced(bundle_network(bundle), bundle.manifest.input, bundle.manifest.output)
    model = onnx.load(bundle.graph(precision))
    ours = {node.name: node for node in reference.graph.nodes if isinstance(node.meta.get("val"), Tensor)}
    shared = [out for node in model.graph.node for out in node.output if out in ours]
    for names in _batches(shared, ours):
        expected = _Recorder(reference, set(names)).record(torch.from_numpy(frame)[None])
        for name, seen in zip(names, Runner(model, names)(frame), strict=True):
            wanted = expected[name]
            if seen.shape != wanted.shape:
                continue  # a convolution that lost its dead gates
            scale = max(1.0, float(np.abs(wanted).max()))
            worst = float(np.abs(seen.astype(np.float32) - wanted).max())
            if not worst <= DRIFT * scale:
                log.info("%s differs by %g where values reach %g", name, worst, scale)
                return name
    return None


def reference_tensors(bundle: Bundle, frame: Tensor, names: set[str]) -> dict[str, NDArray[np.float32]]:
    """What the traced network has in the tensors of these names on a frame of bytes; names it lacks are left out."""
    reference = traced(bundle_network(bundle), bundle.manifest.input, bundle.manifest.output)
    return _Recorder(reference, names).record(frame)


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the tensors of some of its nodes."""

    def __init__(self, graph: fx.GraphModule, names: set[str]) -> None:
        super().__init__(graph)
        self.names, self.kept = names, {}  # type: ignore[var-annotated]

    def record(self, frame: Tensor) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            self.run(frame)
        return self.kept

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.kept[n.name] = value.float().numpy()
        return value


def _batches(names: list[str], nodes: dict[str, fx.Node]) -> Iterator[list[str]]:
    batch: list[str] = []
    held = 0
    for name in names:
        size = 4 * nodes[name].meta["val"].numel()
        if batch and held + size > COMPARED_AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(name)
        held += size
    if batch:
        yield batch
