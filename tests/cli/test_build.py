"""`derain build`: the engine, the graph it is built from, and neither where it cannot be built."""

import onnx
import pytest

from derain.runtime.bundle import Bundle
from derain.runtime.manifest import Precision
from derain_tests.bundles import with_graph

pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX to build engines with: pip install 'derain[rtx]'")


def test_build_makes_the_graph_it_lacks_and_says_what_it_built(bundle, derain):
    told = derain("build", bundle.path, "--precision", "fp16", "--arch", "sm86, sm89").told
    assert "engine.fp16.tensorrt-rtx.sm86+sm89.plan: tensorrt-rtx" in told and " MB, " in told
    manifest = Bundle.load(bundle.path).manifest
    assert [graph.precision for graph in manifest.graphs] == ["fp32", "fp16"]
    assert [engine.precision for engine in manifest.engines] == ["fp16"]


def test_build_refuses_int8_for_tensorrt_rtx_and_a_list_of_no_gpus_before_any_work(bundle, derain):
    with_graph(bundle, onnx.load(bundle.graph()), Precision.INT8)
    fault = derain("build", bundle.path, "--precision", "int8").fault
    assert fault == (f"{bundle.path}: tensorrt-rtx has no INT8 convolutions: build fp8 or fp16, or use --api tensorrt")
    none = derain("build", bundle.path, "--precision", "fp32", "--arch", " ,").fault
    assert none == "--arch ' ,' names no GPU: expected names as in sm86,sm89; leave it out for any"
    assert Bundle.load(bundle.path).manifest.engines == ()


def test_build_makes_no_graph_for_what_cannot_be_built(bundle, derain):
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    assert "architecture 'sm42'" in derain("build", bundle.path, "--precision", "fp16", "--arch", "sm42").fault
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before
