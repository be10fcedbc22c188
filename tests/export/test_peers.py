"""The unroller is general: the paper's peers, ConvLSTM, ConvGRU and attention over several steps, go all the way."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from derain.export.build import build as build_engine
from derain.export.exporter import MIN_SIDE, export, traced
from derain.export.fp16 import ensure_fp16_graph
from derain.export.onnx_graph import summarise, to_onnx
from derain.export.trace import trace
from derain.export.unroll import unroll
from derain.export.verify import verify
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat
from derain.training.models import build

PIXELS = 720 * 480
SIZE, SMALLEST = (34, 26), (MIN_SIDE, MIN_SIDE)
LOOPS = {"Loop", "Scan", "If", "LSTM", "GRU", "RNN"}

# Multiply-accumulates a pixel, 9 · channels in · channels out.
BLOCKS, GATES, HIDDEN_FORGET = 10 * 9 * 32 * 32, 9 * 64 * 128, 9 * 32 * 128 + 9 * 32 * 32
PRENET_STEP = 9 * 6 * 32 + GATES + BLOCKS + 9 * 32 * 3
MAP_STEP = 9 * 4 * 32 + GATES + BLOCKS + 9 * 32
HALF = (9 * 64 * 128 + 2 * 9 * 128 * 128 + 9 * 256 * 128) // 4
QUARTER = (9 * 128 * 256 + 8 * 9 * 256 * 256) // 16
CODER = 25 * 4 * 64 + HALF + QUARTER + 9 * 128 * 64 + 9 * 64 * 32 + 9 * 32 * 3
COARSE = 9 * 256 * 3 // 16 + 9 * 128 * 3 // 4
RESCAN_INPUTS = 9 * 24 * (3 + 4 * 24)
RESCAN_STEP = 3 * (RESCAN_INPUTS + 5 * 9 * 24 * 24) + 9 * 24 * 24 + 24 * 3

NAIVE = {"prenet": 6 * PRENET_STEP, "rescan": 4 * RESCAN_STEP, "qian": 4 * MAP_STEP + CODER + COARSE}
# Gone: all that meets the zero state and the forget gate of the first step, and the frame's half of PReNet's first
# convolution at the other five. RESCAN's first step needs no reset gate. Qian's coarse images are for training only.
UNROLLED = {
    "prenet": NAIVE["prenet"] - HIDDEN_FORGET - 5 * 9 * 3 * 32,
    "rescan": NAIVE["rescan"] - RESCAN_INPUTS - 5 * 3 * 9 * 24 * 24,
    "qian": NAIVE["qian"] - HIDDEN_FORGET - 3 * 9 * 3 * 32 - COARSE,
}
PUBLISHED = {"rescan": 2.46e11, "prenet": 3.37e11, "qian": 6.83e11}
"""Table 6. What its RESCAN and its Qian count is not said: from their own papers' layers come 0.83 and 0.63 of it."""


class Image(nn.Module):
    """A network without its camera: the image alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0].image


@torch.inference_mode()
@pytest.mark.parametrize("name", ["rescan", "prenet-qian"])
def test_the_exported_peer_is_its_eager_self(name, lively):
    """At 1e-4 of the values' size, which these weights keep near one; the chain holds the other two."""
    network = Image(lively(build(name)))
    x = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    graph, report = unroll(trace(network, x))
    assert report.macs < report.macs_naive
    model = to_onnx(graph, "x", "y")
    assert {node.op_type for node in model.graph.node} & LOOPS == set()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (seen,) = session.run(None, {"x": x.numpy()})
    expected = network(x).numpy()
    assert expected.std() > 0.1
    assert np.abs(seen - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "of_published", "removed"), [("rescan", 0.827, 0.168), ("prenet", 1.037, 0.050), ("qian", 0.632, 0.040)]
)
def test_a_peer_is_left_with_the_arithmetic_that_can_reach_its_output(name, of_published, removed, make_spec, tmp_path):
    spec, clean = make_spec(width=720, height=480), make_spec("clean", width=720, height=480)
    graph, report = unroll(traced(build(name).eval(), spec, clean))
    means = 2 * 24 * 6 * 6 * 4 if name == "rescan" else 0  # squeeze-and-excitation works on one pixel
    assert report.macs_naive == NAIVE[name] * PIXELS + means
    assert report.macs == UNROLLED[name] * PIXELS + means
    assert report.macs_naive / PUBLISHED[name] == pytest.approx(of_published, abs=5e-4)
    assert 1 - report.macs / report.macs_naive == pytest.approx(removed, abs=1e-3)
    path = tmp_path / "graph.onnx"
    path.write_bytes(to_onnx(graph, "frame", "clean").SerializeToString())
    summary = summarise(path)
    assert summary.macs == report.macs
    assert summary.largest_constant < PIXELS * 3 and summary.weights_bytes < 1.02 * 4 * summary.parameters


@pytest.mark.parametrize(("name", "size"), [("rescan", SIZE), ("qian-prenet", SMALLEST)])
def test_a_peers_bundle_is_verified_and_becomes_engines(name, size, lively_weights, tmp_path):
    """Frames in a camera's bytes, and sides that are no multiple of the network's; a chain holds the others."""
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX to build engines with: pip install 'derain[rtx]'")
    bundle, _ = export(str(lively_weights(name)), tmp_path / "b", size, PixelFormat.NV12)
    (result,) = verify(bundle)
    assert result.passed and result.total.max_abs_diff <= 1
    for precision in (Precision.FP32, Precision.FP16):
        bundle, entry = build_engine(ensure_fp16_graph(bundle), precision, "tensorrt-rtx")
        assert bundle.file(entry.file).stat().st_size > 2 * bundle.manifest.model.parameters


def test_the_manifest_says_how_often_a_peer_recurs(tmp_path):
    bundle, _ = export("random:prenet", tmp_path / "b", (32, 24))
    assert (bundle.manifest.unroll.encoder_steps, bundle.manifest.unroll.decoder_steps) == (1, 6)
