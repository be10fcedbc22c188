"""What a failed proof leaves behind can be run alone, and shows the fault."""

import numpy as np
import onnx
import onnxruntime
import pytest

from derain.export.exporter import export
from derain.export.fp16 import to_fp16
from derain.export.minimal import extract, write_minimal
from derain.export.probe import seeded_frame
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import Precision
from derain_tests.bundles import scaled, with_graph

FIRST = "drop_encoder_blocks_1_conv2_conv2d"


@pytest.fixture
def spoilt(lively_weights, tmp_path) -> Bundle:
    """A bundle whose FP32 and FP16 graphs have one weight that is not the network's."""
    bundle, _ = export(str(lively_weights("daiam-nano")), tmp_path / "bundle", (36, 28))
    model = onnx.load(bundle.graph())
    scaled(model, "network.branches.drop.encoder.blocks.1.conv2.weight", 9)
    return with_graph(with_graph(bundle, model), to_fp16(model), Precision.FP16)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_the_node_that_drifts_runs_alone_on_the_values_beside_it(precision, spoilt, tmp_path):
    path = tmp_path / "drift.onnx"
    beside = write_minimal(spoilt, precision, FIRST, seeded_frame(spoilt.manifest.input, 0), path)
    assert beside == tmp_path / "drift.npz"
    model = onnx.load(path)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    values = dict(np.load(beside))
    (name,) = [value.name for value in model.graph.input]
    assert values.keys() == {name, FIRST, f"{FIRST}_pytorch"}
    assert values[name].dtype == (np.float16 if precision is Precision.FP16 else np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (seen,) = session.run(None, {name: values[name]})
    np.testing.assert_allclose(seen, values[FIRST], rtol=1e-2, atol=1e-2 if precision is Precision.FP16 else 1e-5)
    assert np.abs(seen - values[f"{FIRST}_pytorch"]).max() > 0.1 * np.abs(seen).max()


def test_what_makes_a_constant_comes_along(spoilt):
    """A quantised weight is a constant behind a node of its own."""
    from derain.calibration.qdq import activations, layers, quantize

    model = onnx.load(spoilt.graph())
    quantised = quantize(model, dict.fromkeys(activations(model), 4.0), Precision.INT8, layers(model))
    single = extract(quantised, FIRST)
    assert [node.op_type for node in single.graph.node] == ["DequantizeLinear", "Conv"]
    assert len(single.graph.input) == 1


def test_a_tensor_that_no_node_makes_is_refused_by_its_name(spoilt):
    with pytest.raises(ValueError, match=r"^tensor 'weather': no node of the graph makes it"):
        extract(onnx.load(spoilt.graph()), "weather")
