"""`derain build`: the engine, the graph it is built from, and neither where it cannot be built."""

import pytest

from derain.runtime.bundle import Bundle

pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX to build engines with: pip install 'derain[rtx]'")


def test_build_makes_the_graph_it_lacks_and_says_what_it_built(bundle, derain):
    told = derain("build", bundle.path, "--precision", "fp16", "--arch", "sm86, sm89").told
    assert "engine.fp16.tensorrt-rtx.sm86+sm89.plan: tensorrt-rtx" in told and " MB, " in told
    manifest = Bundle.load(bundle.path).manifest
    assert [graph.precision for graph in manifest.graphs] == ["fp32", "fp16"]
    assert [engine.precision for engine in manifest.engines] == ["fp16"]


def test_build_makes_no_graph_for_what_cannot_be_built(bundle, derain):
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    assert "architecture 'sm42'" in derain("build", bundle.path, "--precision", "fp16", "--arch", "sm42").fault
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before
