"""Engines by name, on what they run, and what they refuse."""

import importlib.util
import shutil

import numpy as np
import pytest

from derain.runtime import engines
from derain.runtime.bundle import Bundle
from derain.runtime.engines import base
from derain.runtime.engines.onnxruntime import OnnxRuntimeCudaEngine, OnnxRuntimeEngine
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat
from derain_tests.engines import faults


@pytest.mark.parametrize("pixels", list(PixelFormat))
def test_the_cpu_engine_runs_the_graph_on_camera_bytes(pixels, make_bundle):
    bundle = make_bundle(pixels)
    image = np.random.default_rng(0).integers(0, 256, bundle.manifest.input.image_shape, np.uint8)
    with engines.create("onnxruntime", bundle, threads=1) as engine:
        engine.warm_up(1)
        clean = engine.infer(image)
    np.testing.assert_array_equal(clean, 255 - image)


class Darker(OnnxRuntimeEngine):
    """An engine that is wrong."""

    def _infer(self, tensor):
        return super()._infer(tensor) // 2


def test_the_check_that_a_gpu_s_engines_go_through_passes_what_is_right_and_no_other(make_bundle, noise, monkeypatch):
    bundle = make_bundle(precisions=("fp32", "fp16"))
    assert faults("onnxruntime", bundle, Precision.FP16, noise) == []
    monkeypatch.setitem(base._backends, "darker", Darker)
    monkeypatch.setattr(Darker, "name", "darker")
    assert len(faults("darker", bundle, Precision.FP16, noise)) == len(noise) + 1


def test_a_result_is_the_callers_to_keep(bundle, noise):
    with engines.create("onnxruntime", bundle) as engine:
        results = [engine.infer(image) for image in noise]
    for image, result in zip(noise, results, strict=True):
        np.testing.assert_array_equal(result, 255 - image)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda image: image[:-1], r"uint8 \(15, 32, 3\), expected uint8 \(16, 32, 3\)"),
        (lambda image: image[np.newaxis], r"uint8 \(1, 16, 32, 3\)"),
        (lambda image: image.astype(np.float32), r"image is float32"),
        (lambda image: image[:, ::-1], r"not C-contiguous: .*ascontiguousarray"),
    ],
)
def test_an_array_that_is_no_frame_is_refused(change, part, bundle, noise):
    with engines.create("onnxruntime", bundle) as engine, pytest.raises(ValueError, match=part):
        engine.infer(change(noise[0]))


def test_an_engine_infers_only_while_open_and_closes_twice_without_harm(bundle, noise):
    engine = engines.create("onnxruntime", bundle)
    with pytest.raises(RuntimeError, match="not open"):
        engine.infer(noise[0])
    engine.open()
    with pytest.raises(RuntimeError, match="already open"):
        engine.open()
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="not open"):
        engine.infer(noise[0])
    engine.open()
    assert engine.infer(noise[0]).shape == noise[0].shape


def test_an_unknown_engine_names_the_known_ones(bundle):
    with pytest.raises(ValueError, match="'openvino' is unknown, known are: onnxruntime, onnxruntime-cuda, tensorrt"):
        engines.create("openvino", bundle)


def test_a_missing_package_names_the_pip_command(bundle, monkeypatch):
    assert engines.available()["onnxruntime"] is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reason = "onnxruntime is not installed: pip install 'derain[cpu]'"
    assert engines.available()["onnxruntime"] == reason
    with pytest.raises(ModuleNotFoundError) as caught:
        engines.create("onnxruntime", bundle).open()
    assert str(caught.value) == f"engine onnxruntime: {reason}"


def test_cuda_where_there_is_none_names_the_pip_command(bundle):
    if engines.available()["onnxruntime-cuda"] is None:
        pytest.skip("ONNX Runtime has CUDA here")
    with pytest.raises(ModuleNotFoundError) as caught:
        engines.create("onnxruntime-cuda", bundle).open()
    told = "onnxruntime has no CUDAExecutionProvider here: pip install 'derain[gpu]'"
    assert str(caught.value) == f"engine onnxruntime-cuda: {told}"


class BoundToTheHost(OnnxRuntimeCudaEngine):
    """The CUDA engine's binding, with the CPU for its device."""

    provider, device = "CPUExecutionProvider", "cpu"


@pytest.mark.parametrize("pixels", list(PixelFormat))
def test_a_bound_frame_gives_the_result_of_an_unbound_one(pixels, make_bundle):
    bundle = make_bundle(pixels)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, bundle.manifest.input.image_shape, np.uint8) for _ in range(3)]
    with BoundToTheHost(bundle) as engine:
        results = [engine.infer(image) for image in images]
        engine.close()
        engine.open()
        results.append(engine.infer(images[0]))
    for image, result in zip([*images, images[0]], results, strict=True):
        np.testing.assert_array_equal(result, 255 - image)


def test_a_graph_that_is_no_onnx_is_told_in_one_line(make_bundle):
    with pytest.raises(ValueError, match=r"graph\.fp32\.onnx: ONNX Runtime cannot load it") as caught:
        engines.create("onnxruntime", make_bundle(graph=b"not a graph")).open()
    assert "\n" not in str(caught.value)


def test_a_bundle_whose_name_onnx_runtime_cannot_be_told_is_refused(bundle, tmp_path):
    moved = shutil.copytree(bundle.path, tmp_path / "grö\udcdfe")
    with pytest.raises(ValueError, match=r"/grö\\xdfe/graph\.fp32\.onnx: its name is not UTF-8: rename it"):
        engines.create("onnxruntime", Bundle.load(moved)).open()


@pytest.mark.parametrize(
    ("shape", "output", "part"),
    [
        (
            (1, 8, 32, 3),
            "clean",
            r"input is frame tensor\(uint8\) \[1, 8, 32, 3\], the manifest says .*\[1, 16, 32, 3\]",
        ),
        ((1, 16, 32, 3), "derained", r"output is derained .*, the manifest says clean"),
    ],
)
def test_a_graph_that_contradicts_the_manifest_is_refused(shape, output, part, make_bundle, make_graph):
    bundle = make_bundle(graph=make_graph(shape, output))
    with pytest.raises(ValueError, match=part):
        engines.create("onnxruntime", bundle).open()


def test_fp8_runs_as_it_is_written_behind_a_relu(make_bundle, noise):
    """ONNX Runtime 1.32 drops a Relu in front of QuantizeLinear: right for unsigned bytes, wrong for FP8."""
    from onnx import TensorProto, helper, numpy_helper

    from derain.calibration.qdq import quantize
    from derain.export.probe import Runner

    values = {"middle": np.float32(128), "weight": np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)}
    shape = [1, 16, 32, 3]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["value"], name="value", to=TensorProto.FLOAT),
            helper.make_node("Sub", ["value", "middle"], ["signed"], name="signed"),
            helper.make_node("Relu", ["signed"], ["bright"], name="bright"),
            helper.make_node("Conv", ["bright", "weight", "bias"], ["shifted"], name="shifted"),
            helper.make_node("Cast", ["shifted"], ["clean"], name="clean", to=TensorProto.UINT8),
        ],
        "bright",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("clean", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(v, name) for name, v in (values | {"bias": np.full(16, 100.5, np.float32)}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = quantize(model, {"bright": 127.0}, Precision.FP8, ["shifted"])
    bundle = make_bundle(graph=model.SerializeToString(), precisions=("fp8",))
    expected = np.maximum(noise[0].astype(float) - 128, 0) + 100
    with engines.create("onnxruntime", bundle, Precision.FP8) as engine:
        assert np.abs(engine.infer(noise[0]) - expected).max() <= 127 / 16  # E4M3 has three digits
    assert np.abs(Runner(model).image(noise[0]) - expected).max() <= 127 / 16


def test_a_precision_without_a_graph_is_refused_at_open(bundle):
    with pytest.raises(ValueError, match="no fp16 graph, the bundle has fp32"):
        engines.create("onnxruntime", bundle, Precision.FP16).open()
