"""Is the graph still the network? PyTorch against every graph of a bundle, at the bundle's own size.

Only where they differ does the comparison go inside: tensor by tensor, the traced network against the graph, to name
the first that drifts.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from derain.export.camera import CameraModel
from derain.export.exporter import bundle_network, traced
from derain.runtime import engines
from derain.runtime.bundle import Bundle, FrameSpec, Precision

log = logging.getLogger(__name__)

MAX_ABS_DIFF = {Precision.FP32: 1}
"""Grey levels an output byte may differ from PyTorch's; the other precisions are judged by PSNR alone."""

MIN_PSNR = {Precision.FP32: 60.0, Precision.FP16: 50.0, Precision.INT8: 30.0, Precision.FP8: 30.0}
"""dB that the output must reach against PyTorch's FP32."""

DRIFT = 1e-3
"""A tensor drifts where it differs by more than this share of the reference's largest magnitude (at least 1)."""

COMPARED_AT_ONCE = 2**29
"""Bytes of intermediate tensors held on each side while looking for the first that drifts."""


@dataclass(frozen=True)
class Verification:
    """One graph against PyTorch on one frame."""

    precision: Precision
    psnr_vs_fp32: float
    """dB over all output bytes; infinite where they are equal."""
    max_abs_diff: int
    """Grey levels."""
    passed: bool
    first_drift: str | None
    """The first tensor that differs, where the graph did not pass and one was found."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite PSNR is null."""
        psnr = self.psnr_vs_fp32 if math.isfinite(self.psnr_vs_fp32) else None
        return {
            "psnr_vs_fp32": psnr,
            "max_abs_diff": self.max_abs_diff,
            "passed": self.passed,
            "first_drift": self.first_drift,
        }


def verify(bundle: Bundle, engine: str = "onnxruntime", seed: int = 0) -> list[Verification]:
    """Compare every graph of the bundle, run by `engine`, with the network in PyTorch, on one seeded frame."""
    manifest = bundle.manifest
    frame = seeded_frame(manifest.input, seed)
    network = bundle_network(bundle)
    with torch.inference_mode():
        model = CameraModel(network, manifest.input, manifest.output).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        expected: NDArray[np.uint8] = model(torch.from_numpy(frame)[None])[0].numpy()
    results = []
    for entry in manifest.graphs:
        with engines.create(engine, bundle, entry.precision) as runner:
            seen = runner.infer(frame)
        difference = np.abs(seen.astype(np.int16) - expected)
        mse = float(np.square(difference, dtype=np.float64).mean())
        psnr = math.inf if mse == 0 else 10 * math.log10(255**2 / mse)
        worst = int(difference.max())
        passed = psnr >= MIN_PSNR[entry.precision] and worst <= MAX_ABS_DIFF.get(entry.precision, 255)
        drift = None if passed else first_drift(bundle, entry.precision, frame)
        results.append(Verification(entry.precision, psnr, worst, passed, drift))
    return results


def seeded_frame(spec: FrameSpec, seed: int) -> NDArray[np.uint8]:
    """A frame with structure at every scale, from soft gradients to single pixels; uint8 in `spec.image_shape`."""
    random = np.random.default_rng(seed)
    height, width, *rest = spec.image_shape
    frame = np.zeros(spec.image_shape, np.float32)
    for octave in range(7):
        coarse = random.uniform(-1, 1, (max(1, height >> octave), max(1, width >> octave), *rest)).astype(np.float32)
        frame += 2.0 ** (octave / 2) * cv2.resize(coarse, (width, height)).reshape(frame.shape)
    clipped: NDArray[np.uint8] = np.clip(127.5 + 20 * frame, 0, 255).astype(np.uint8)
    return clipped


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
        for name, seen in zip(names, _run(model, names, bundle.manifest.input.tensor, frame), strict=True):
            wanted = expected[name]
            if seen.shape != wanted.shape:
                continue  # a convolution that lost its dead gates
            scale = max(1.0, float(np.abs(wanted).max()))
            worst = float(np.abs(seen.astype(np.float32) - wanted).max())
            if not worst <= DRIFT * scale:
                log.info("%s differs by %g where values reach %g", name, worst, scale)
                return name
    return None


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


def _run(model: onnx.ModelProto, names: list[str], input_name: str, frame: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """The graph's values of some of its tensors, none of them fused away."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values: Any = session.run(names, {input_name: frame[None]})
    return list(values)
