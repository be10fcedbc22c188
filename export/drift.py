"""Where a graph leaves its network: tensor by tensor, the traced network against the graph."""

import logging
import math
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, fx

from derain.export.exporter import traced_bundle
from derain.export.onnx_graph import read_onnx
from derain.export.probe import Runner, batches
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Image
from derain.runtime.manifest import Precision

log = logging.getLogger(__name__)

DRIFT = {Precision.FP32: 1e-4, Precision.FP16: 1e-2, Precision.INT8: 0.8, Precision.FP8: 0.8}
"""A tensor drifts where its error's root mean square exceeds this share of its own, or of FAINT where that is more.

Rounding adds up from layer to layer: in a sound daiam-nano it reaches 3e-6, 0.0046, 0.47 and 0.46.
"""

FAINT = 1e-3
"""Root mean square, or mean magnitude, below which a tensor's relative error says nothing."""


def changed_constant(plain: onnx.ModelProto, graph: onnx.ModelProto) -> str | None:
    """The first constant of `plain` that `graph` holds otherwise than rounded to its own type; None for none.

    A layer may be dead and its output yet as large as PyTorch's, by its bias, and a wrong bias hardly shows: what is
    stored tells.
    """
    expected = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    stored: dict[str, NDArray[Any]] = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    scales = {node.input[0]: node.input[1] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    for held, seen in stored.items():
        name = held.removesuffix("_q" if held in scales else "_fp16")
        if name not in expected:
            continue
        if held in scales:
            scale, wanted = stored[scales[held]].astype(np.float64).reshape(-1, 1, 1, 1), expected[name]
            # E4M3 has 3 bits, down to 2⁻⁹
            step = scale if seen.dtype == np.int8 else np.maximum(np.abs(wanted) / 8, scale / 512)
            same = bool((np.abs(seen.astype(np.float64) * scale - wanted) <= 0.51 * step).all())
        else:
            with np.errstate(over="ignore"):  # to infinity, as `to_fp16` does
                same = np.array_equal(seen, expected[name].astype(seen.dtype))
        if not same:
            return name
    return None


def first_drift(bundle: Bundle, precision: Precision, frame: Image) -> str | None:
    """The first tensor, in the order of computation, in which the graph leaves the traced network.

    None where every tensor that both have agrees: then the fault lies behind the last of them.
    """
    reference = traced_bundle(bundle)
    model = read_onnx(bundle.graph(precision))
    ours = {node.name: node for node in reference.graph.nodes if isinstance(node.meta.get("val"), Tensor)}
    shared = [out for node in model.graph.node for out in node.output if out in ours]
    for names in batches({name: ours[name].meta["val"].numel() for name in shared}):
        expected = _Recorder(reference, set(names)).record(torch.from_numpy(frame)[None])
        for name, seen in zip(names, Runner(model, names)(frame), strict=True):
            wanted = expected[name]
            if seen.shape != wanted.shape:
                continue  # a convolution that lost its dead gates
            with np.errstate(invalid="ignore"):  # inf − inf: what is no number is a drift
                error = _rms(seen.astype(np.float32) - wanted) / max(FAINT, _rms(wanted))
            if not error <= DRIFT[precision]:
                log.info("%s differs by %.2g of its magnitude", name, error)
                return name
    return None


def reference_tensors(bundle: Bundle, frame: Tensor, names: set[str]) -> dict[str, NDArray[np.float32]]:
    """What the traced network has in the tensors of these names on a frame of bytes; names it lacks are left out."""
    reference = traced_bundle(bundle)
    return _Recorder(reference, names).record(frame)


def _rms(values: NDArray[np.float32]) -> float:
    return math.sqrt(float(np.square(values, dtype=np.float64).mean()))


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
