"""What a failed proof leaves behind can be run alone, and shows the fault."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from derain.export.exporter import export
from derain.export.fp16 import to_fp16
from derain.export.minimal import extract, write_minimal
from derain.export.probe import seeded_frame
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import GraphEntry, Precision
from derain.training.models import build
from derain.training.models.checkpoint import save_weights

FIRST = "drop_encoder_blocks_1_conv2_conv2d"


@pytest.fixture
def spoilt(lively, tmp_path) -> Bundle:
    """A bundle whose FP32 and FP16 graphs have one weight that is not the network's."""
    weights = tmp_path / "lively.safetensors"
    save_weights(weights, lively(build("daiam-nano")), "daiam-nano", {}, torch.float32)
    bundle, _ = export(str(weights), tmp_path / "bundle", (36, 28))
    model = onnx.load(bundle.graph())
    (weight,) = [t for t in model.graph.initializer if t.name == "network.branches.drop.encoder.blocks.1.conv2.weight"]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(9), weight.name))
    graphs = {Precision.FP32: model, Precision.FP16: to_fp16(model)}
    return bundle.add(
        {f"graph.{precision}.onnx": graph.SerializeToString() for precision, graph in graphs.items()},
        graphs=[GraphEntry(precision=precision, file=f"graph.{precision}.onnx") for precision in graphs],
    )


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


def test_the_verb_leaves_the_node_beside_the_bundle_and_names_it(spoilt, capsys):
    from derain.cli.main import app

    with pytest.raises(ValueError, match=f"drifts from PyTorch, first in tensor '{FIRST}'"):
        app(["--debug", "verify", str(spoilt.path)], standalone_mode=False)
    left = spoilt.path.with_name(f"{spoilt.path.name}.drift.fp32.onnx")
    assert f"{left}: its node alone; {left.with_suffix('.npz').name}" in capsys.readouterr().out
    assert onnx.load(left).graph.output[0].name == FIRST
    assert left.with_suffix(".npz").is_file()


def test_where_the_node_cannot_be_left_the_verdict_is_told_all_the_same(spoilt, tmp_path, capsys):
    from derain.cli.main import app

    (tmp_path / "file").touch()
    command = ["--debug", "verify", str(spoilt.path), "--drift"]
    with pytest.raises(ValueError, match=f"drifts from PyTorch, first in tensor '{FIRST}'"):
        app([*command, str(tmp_path / "file" / "d.onnx")], standalone_mode=False)
    assert "its node cannot be left in" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"^--drift .*d\.npz: expected a name that ends in \.onnx"):
        app([*command, str(tmp_path / "d.npz")], standalone_mode=False)
