"""`derain verify`: the verdict, whom it blames, and what it leaves of a drift."""

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from derain.export import minimal
from derain.export.fp16 import ensure_fp16_graph
from derain.runtime.engines import base
from derain.runtime.engines.onnxruntime import OnnxRuntimeEngine
from derain.runtime.manifest import Precision
from derain_tests.bundles import scaled, with_graph
from derain_tests.verbs import strict_json

DRIFTING = "drop_encoder_blocks_1_conv2_conv2d"


def test_verify_reports_each_precision_by_the_keys_that_stay(derain, bundle, tmp_path):
    answer = derain("verify", bundle.path, "--json", tmp_path / "v.json")
    assert answer.status == 0 and answer.err == ""
    told = strict_json(tmp_path / "v.json")
    assert set(told) == {"fp32"}
    assert told["fp32"]["passed"] is True and told["fp32"]["max_abs_diff"] <= 1
    assert told["fp32"]["psnr_vs_fp32"] is None or told["fp32"]["psnr_vs_fp32"] > 60
    assert "fp32: passed" in answer.out


def test_verify_ends_in_one_line_and_status_1_where_a_graph_has_other_weights(derain, bundle, tmp_path):
    model = onnx.load(bundle.graph())
    for tensor in model.graph.initializer:
        if tensor.name.startswith("network") and tensor.name.endswith("weight"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    with_graph(bundle, model)
    answer = derain("verify", bundle.path, "--json", tmp_path / "v.json")
    first = "streak_encoder_blocks_0_conv1_conv2d"
    drifted = rf"the fp32 graph drifts from PyTorch, first in tensor {first!r}"
    assert re.search(rf"{drifted} \(it is \S+ dB from PyTorch, expected 60\): export it again", answer.fault)
    assert "fp32: FAILED" in answer.out
    told = strict_json(tmp_path / "v.json")["fp32"]
    assert told["passed"] is False and told["first_drift"] == first


def test_verify_compares_the_cameras_frames_and_tells_the_worst(derain, bundle, clip, tmp_path):
    answer = derain("verify", bundle.path, "--frames", clip, "--count", 5, "--json", tmp_path / "v.json")
    assert answer.status == 0 and answer.err == ""
    told = strict_json(tmp_path / "v.json")["fp32"]
    which = rf"frame [0-7] of {clip}" if told["frame"] else "seed 0"
    assert re.search(rf"fp32: passed, .* against PyTorch on the worst of 6 frames, {which}\n", answer.out)
    assert re.search(r"\n  PyTorch to graph \S+ dB, .*, graph to onnxruntime inf dB, at most 0 grey levels", answer.out)
    one = derain("verify", bundle.path, "--frames", clip, "--count", 1)
    assert one.status == 0 and "on the worst of 2 frames" in one.out
    none = derain("verify", bundle.path, "--frames", clip, "--count", 0)
    assert "0 frames to choose: expected at least 1" in none.fault


class HalfOnly(OnnxRuntimeEngine):
    """As an engine of which only the FP16 plan was built."""

    @classmethod
    def precisions(cls, bundle):
        return [precision for precision in super().precisions(bundle) if precision == "fp16"]


def test_verify_lists_the_precisions_that_an_engine_lacks(derain, bundle, monkeypatch):
    monkeypatch.setitem(base._backends, "half-only", HalfOnly)
    mend = f"run `derain build {bundle.path} --precision {{}} --api half-only`"
    missing = derain("verify", bundle.path, "--engine", "half-only").fault
    assert missing == f"{bundle.path}: no engine for half-only in it: {mend.format('fp16')}"
    ensure_fp16_graph(bundle)
    answer = derain("verify", bundle.path, "--engine", "half-only")
    assert answer.status == 0 and "fp16: passed" in answer.out
    assert f"fp32: left out, there is no half-only engine of it: {mend.format('fp32')}" in answer.out


class Darkened(OnnxRuntimeEngine):
    """As an engine that spoils a sound graph."""

    def _infer(self, tensor):
        return super()._infer(tensor) // 2


def test_verify_blames_the_engine_where_the_graph_is_right(derain, bundle, monkeypatch):
    monkeypatch.setitem(base._backends, "darkened", Darkened)
    fault = derain("verify", bundle.path, "--engine", "darkened").fault
    mend = "build it again with `derain build`"
    blamed = rf"the fp32 graph is right, but its engine is not \(it is \S+ dB from PyTorch, expected 60\): {mend}"
    assert re.fullmatch(rf"{re.escape(str(bundle.path))}: {blamed}", fault)


def test_verify_names_the_verb_that_makes_a_failing_graph_again(derain, bundle):
    model = onnx.load(bundle.graph())
    scaled(model, "network.branches.drop.encoder.blocks.1.conv2.weight", 99)
    with_graph(bundle, model, Precision.INT8)
    fault = derain("verify", bundle.path).fault
    assert "the int8 graph drifts from PyTorch" in fault
    assert fault.endswith(f": run `derain calibrate {bundle.path} --precision int8 --frames …`")


def test_verify_refuses_a_negative_seed_as_wrong_usage(derain, bundle):
    assert derain("verify", bundle.path, "--seed", -1).status == 2


def test_verify_names_the_tensor_that_is_not_finite(derain, bundle):
    model = onnx.load(bundle.graph())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("encoder.blocks.0.conv1.bias"))
    bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, np.inf, np.float32), bias.name))
    with_graph(bundle, model)
    fault = derain("verify", bundle.path).fault
    assert "the fp32 graph is not finite, first in tensor '" in fault and "encoder_blocks_0_conv1_conv2d'" in fault


def test_weights_whose_byte_was_changed_are_found_by_verify(derain, bundle):
    weights = bundle.path / "weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "weights.safetensors: SHA-256 is" in derain("verify", bundle.path).fault


@pytest.fixture
def spoilt(bundle):
    """A bundle whose graph has one weight that is not the network's."""
    model = onnx.load(bundle.graph())
    scaled(model, "network.branches.drop.encoder.blocks.1.conv2.weight", 9)
    return with_graph(bundle, model)


def test_verify_leaves_the_node_that_drifts_beside_the_bundle_and_names_it(spoilt, derain):
    answer = derain("verify", spoilt.path)
    assert f"drifts from PyTorch, first in tensor '{DRIFTING}'" in answer.fault
    left = spoilt.path.with_name(f"{spoilt.path.name}.drift.fp32.onnx")
    assert f"{left}: its node alone; {left.with_suffix('.npz').name}" in answer.out
    assert onnx.load(left).graph.output[0].name == DRIFTING
    assert left.with_suffix(".npz").is_file()


def test_where_the_node_cannot_be_left_the_verdict_and_the_reason_are_told_all_the_same(spoilt, derain, monkeypatch):
    def refused(*_):
        raise PermissionError("/models cannot be written to: name another place")

    monkeypatch.setattr(minimal, "write_minimal", refused)
    answer = derain("verify", spoilt.path)
    assert f"drifts from PyTorch, first in tensor '{DRIFTING}'" in answer.fault
    assert "its node cannot be left in" in answer.out
    assert "/models cannot be written to: name another place; give --drift a place" in answer.out


def test_a_place_where_no_node_can_be_left_is_told_before_the_comparison(derain, bundle, tmp_path):
    (tmp_path / "file").touch()
    assert "file is a file, so" in derain("verify", bundle.path, "--drift", tmp_path / "file" / "d.onnx").fault
    refused = derain("verify", bundle.path, "--drift", tmp_path / "d.npz").fault
    assert re.match(r"--drift .*d\.npz: expected a name that ends in \.onnx", refused)


@pytest.mark.parametrize("option", ["--json", "--drift"])
def test_no_output_takes_the_place_of_the_bundles_files(option, derain, bundle):
    graph = bundle.graph()
    assert "is read by this run, which would replace it" in derain("verify", bundle.path, option, graph).fault
    assert bundle.graph() == graph  # whose bytes are checked


def test_a_count_of_no_frames_is_wrong_usage(derain, bundle):
    answer = derain("verify", bundle.path, "--count", 3)
    assert answer.status == 2 and "chooses from --frames" in " ".join(answer.err.split())
