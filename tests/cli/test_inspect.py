"""`derain inspect`: of bundles and of bare ONNX files."""

import json
import re
import shutil

import onnx
import pytest

from derain.calibration.qdq import activations, layers, quantize
from derain.export.exporter import export
from derain.export.fp16 import to_fp16
from derain.export.onnx_graph import summarise
from derain.export.rewrite import REWRITES
from derain.runtime.manifest import EngineEntry, Precision, Quality
from derain.training.models import build, parameter_count
from derain_tests.verbs import strict_json


def test_inspect_reports_a_bundle_by_the_keys_that_stay(derain, bundle, tmp_path):
    answer = derain("inspect", bundle.path, "--json", tmp_path / "i.json")
    assert answer.status == 0 and answer.err == ""
    told = strict_json(tmp_path / "i.json")
    summary = summarise(bundle.graph())
    assert told["parameters"] == parameter_count(build("daiam-nano"))
    assert told["macs"] == summary.macs == bundle.manifest.unroll.macs
    assert told["macs_naive"] == bundle.manifest.unroll.macs_naive > told["macs"]
    assert told["operators"] == summary.operators and told["operators"]["Conv"] > 70
    assert told["weights_bytes"] == summary.weights_bytes
    assert told["file_bytes"] == (bundle.path / "graph.fp32.onnx").stat().st_size
    assert told["manifest"]["model"]["name"] == "daiam-nano"
    assert f"{told['macs']:,}" in answer.out and "removed" in answer.out


def test_a_report_can_go_to_stdout_alone(derain, bundle, tmp_path):
    derain("inspect", bundle.path, "--json", tmp_path / "i.json")
    answer = derain("inspect", bundle.path, "--json", "-")
    assert answer.status == 0 and json.loads(answer.out) == strict_json(tmp_path / "i.json")
    assert "removed" in answer.err and not (tmp_path / "-").exists()


def test_inspect_shows_engines_and_measured_quality(derain, bundle):
    engine = EngineEntry(file="e.plan", precision="fp32", api="tensorrt", api_version="10.3", arch="sm87")
    quality = [
        Quality(frames="desk", precision="fp32", psnr_rgb=24.256, ssim_rgb=0.75),
        Quality(frames="desk", precision="fp16", psnr_vs_fp32=61.5, max_abs_diff=1),
        Quality(frames="night", precision="fp32"),
    ]
    bundle.add({"e.plan": b"a plan"}, engines=[engine], quality=quality)
    out = derain("inspect", bundle.path).out
    for told in (
        r"fp32, engine +tensorrt 10.3 for sm87",
        r"fp32, on desk +24.26 dB to truth, 0.75 SSIM to truth *\n",
        r"fp16, on desk +61.5 dB to FP32, at most 1 grey level from FP32 *\n",
        r"fp32, on night +equal to FP32",
    ):
        assert re.search(told, out)


def test_inspect_reports_a_bare_onnx_file_by_the_same_keys(derain, bundle, tmp_path):
    assert derain("inspect", bundle.graph(), "--json", tmp_path / "i.json").status == 0
    told = strict_json(tmp_path / "i.json")
    assert {"parameters", "macs", "macs_naive", "operators", "weights_bytes", "file_bytes"} <= told.keys()
    assert told["macs"] == bundle.manifest.unroll.macs and told["macs_naive"] is None
    assert 0 < told["parameters"] <= parameter_count(build("daiam-nano"))


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.FP8])
def test_a_graph_has_as_many_parameters_in_every_precision(precision, bundle):
    model = onnx.load(bundle.graph())
    if precision is Precision.FP16:
        other = to_fp16(model)
    else:
        other = quantize(model, dict.fromkeys(activations(model), 3.0), precision, layers(model))
    onnx.save(other, bundle.path / "other.onnx")
    assert summarise(bundle.path / "other.onnx").parameters == summarise(bundle.graph()).parameters


def test_no_report_takes_the_place_of_what_is_inspected(derain, bundle, tmp_path):
    graph = bundle.graph()
    bare = tmp_path / "mine.onnx"
    bare.write_bytes(graph.read_bytes())
    for path, report in ((bare, bare), (bundle.path, bundle.path / "manifest.json"), (bundle.path, graph)):
        assert "is read by this run, which would replace it" in derain("inspect", path, "--json", report).fault
    assert bare.read_bytes() == bundle.graph().read_bytes()
    assert derain("inspect", bundle.path).status == 0


def test_a_bundle_may_be_named_as_an_onnx_file_is(derain, bundle, tmp_path):
    named = shutil.copytree(bundle.path, tmp_path / "b.onnx")
    assert "daiam-nano" in derain("inspect", named).told


def test_inspect_says_what_each_rewrite_removed(derain, tmp_path):
    bundle, _ = export("random:daiam-edge", tmp_path / "b", (48, 32), rewrites=tuple(REWRITES))
    removed = summarise(bundle.graph()).rewrites
    assert [entry.name for entry in removed] == list(REWRITES)
    told = " ".join(derain("inspect", bundle.path).told.split())
    assert all(f"removed by {e.name} {e.operators} operators, {e.convolutions} conv" in told for e in removed)
