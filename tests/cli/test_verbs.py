"""The verbs on good input: what they write, and the JSON that others rely on."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import yaml

from derain.export.fp16 import ensure_fp16_graph
from derain.export.onnx_graph import summarise
from derain.runtime.bundle import Bundle
from derain.runtime.engines import base
from derain.runtime.engines.onnxruntime import OnnxRuntimeEngine
from derain.runtime.manifest import EngineEntry, GraphEntry, Quality
from derain.training.models import build, parameter_count
from derain.training.scores import METRICS

STAGES = {"capture", "capture_to_present", "inference", "present"}


def strict(path: Path):
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_export_writes_a_bundle_and_says_what_the_unroller_removed(derain, tmp_path):
    out = tmp_path / "deep/bundle"
    options = ("--size", "36x28", "--pixels", "uyvy", "--matrix", "bt709", "--range", "full", "--steps", "2")
    answer = derain("export", "random:dam-zero", "--out", out, *options)
    assert answer.status == 0 and answer.err == ""
    manifest = Bundle.load(out).manifest
    assert (manifest.input.width, manifest.input.height) == (36, 28)
    assert (manifest.output.pixels, manifest.output.matrix, manifest.output.range) == ("uyvy", "bt709", "full")
    assert (manifest.unroll.encoder_steps, manifest.unroll.decoder_steps) == (2, 2)
    share = f"({manifest.unroll.macs / manifest.unroll.macs_naive:.0%})"
    for part in (str(out), "dam-zero", "36x28 uyvy (bt709, full range)", share, f"derain verify {out}"):
        assert part in answer.out


def test_export_says_what_went_with_the_bundle_it_replaced(derain, bundle):
    command = ("export", "random:dam-zero", "--out", bundle.path, "--size", "36x28")
    assert "replaced" not in derain(*command).out
    made = Bundle.load(bundle.path)
    made.add({"graph.fp16.onnx": b"x"}, graphs=[GraphEntry(precision="fp16", file="graph.fp16.onnx")])
    assert "replaced the bundle that was there: its fp16 graph went with it, to be made again" in derain(*command).out


def test_export_refuses_colours_that_the_pixels_do_not_have(derain, tmp_path):
    answer = derain("export", "random:dam-zero", "--out", tmp_path / "b", "--size", "36x28", "--matrix", "bt709")
    assert "matrix bt709, range limited: of nv12 and uyvy, bgr8 has none: leave them out" in answer.err


def test_inspect_reports_a_bundle_by_the_keys_that_stay(derain, bundle, tmp_path):
    answer = derain("inspect", bundle.path, "--json", tmp_path / "i.json")
    assert answer.status == 0 and answer.err == ""
    told = strict(tmp_path / "i.json")
    summary = summarise(bundle.graph())
    assert told["parameters"] == parameter_count(build("daiam-nano"))
    assert told["macs"] == summary.macs == bundle.manifest.unroll.macs
    assert told["macs_naive"] == bundle.manifest.unroll.macs_naive > told["macs"]
    assert told["operators"] == summary.operators and told["operators"]["Conv"] > 70
    assert told["weights_bytes"] == summary.weights_bytes
    assert told["file_bytes"] == (bundle.path / "graph.fp32.onnx").stat().st_size
    assert told["manifest"]["model"]["name"] == "daiam-nano"
    assert f"{told['macs']:,}" in answer.out and "removed" in answer.out


def test_inspect_shows_engines_and_measured_quality(derain, bundle, tmp_path):
    copied = Bundle.load(shutil.copytree(bundle.path, tmp_path / "b"))
    engine = EngineEntry(file="e.plan", precision="fp32", api="tensorrt", api_version="10.3", arch="sm87")
    quality = [
        Quality(frames="desk", precision="fp32", psnr_rgb=24.256, ssim_rgb=0.75),
        Quality(frames="desk", precision="fp16", psnr_vs_fp32=61.5, max_abs_diff=1),
        Quality(frames="night", precision="fp32"),
    ]
    copied.add({"e.plan": b"a plan"}, engines=[engine], quality=quality)
    out = derain("inspect", copied.path).out
    for told in (
        r"fp32, engine +tensorrt 10.3 for sm87",
        r"fp32, on desk +24.26 dB to truth, 0.75 SSIM to truth *\n",
        r"fp16, on desk +61.5 dB to FP32, at most 1 grey level from FP32 *\n",
        r"fp32, on night +equal to FP32",
    ):
        assert re.search(told, out)


def test_inspect_reports_a_bare_onnx_file_by_the_same_keys(derain, bundle, tmp_path):
    assert derain("inspect", bundle.graph(), "--json", tmp_path / "i.json").status == 0
    told = strict(tmp_path / "i.json")
    assert {"parameters", "macs", "macs_naive", "operators", "weights_bytes", "file_bytes"} <= told.keys()
    assert told["macs"] == bundle.manifest.unroll.macs and told["macs_naive"] is None
    assert 0 < told["parameters"] <= parameter_count(build("daiam-nano"))


def test_verify_reports_each_precision_by_the_keys_that_stay(derain, bundle, tmp_path):
    answer = derain("verify", bundle.path, "--json", tmp_path / "v.json")
    assert answer.status == 0 and answer.err == ""
    told = strict(tmp_path / "v.json")
    assert set(told) == {"fp32"}
    assert told["fp32"]["passed"] is True and told["fp32"]["max_abs_diff"] <= 1
    assert told["fp32"]["psnr_vs_fp32"] is None or told["fp32"]["psnr_vs_fp32"] > 60
    assert "fp32: passed" in answer.out


def test_verify_ends_in_one_line_and_status_1_where_a_graph_has_other_weights(derain, bundle, tmp_path):
    model = onnx.load(bundle.graph())
    for tensor in model.graph.initializer:
        if tensor.name.startswith("network") and tensor.name.endswith("weight"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    graph = GraphEntry(precision="fp32", file="graph.fp32.onnx")
    bundle.add({graph.file: model.SerializeToString()}, graphs=[graph])
    answer = derain("verify", bundle.path, "--json", tmp_path / "v.json")
    first = "streak_encoder_blocks_0_conv1_conv2d"
    assert f"the fp32 graph drifts from PyTorch, first in tensor {first!r}: export it again" in answer.fault
    assert "fp32: FAILED" in answer.out
    told = strict(tmp_path / "v.json")["fp32"]
    assert told["passed"] is False and told["first_drift"] == first


@pytest.mark.parametrize("model", ["weights", "bundle"])
def test_evaluate_reports_every_metric_by_the_keys_that_stay(derain, model, bundle, nano_weights, pairs, tmp_path):
    given = bundle.path if model == "bundle" else nano_weights
    answer = derain("evaluate", given, "--pairs", *pairs, "--json", tmp_path / "e.json")
    assert answer.status == 0, answer.err
    told = strict(tmp_path / "e.json")
    assert set(told) == {*METRICS, "images"}
    for metric in METRICS:
        assert set(told[metric]) == {"input", "output"}
        for side, mean in told[metric].items():
            assert mean == pytest.approx(np.mean([image[side][metric] for image in told["images"]]))
    assert [image["name"] for image in told["images"]] == ["0", "1"]
    assert "psnr_rgb" in answer.out and f"{told['psnr_rgb']['input']:.2f}" in answer.out


def test_weights_and_the_bundle_made_of_them_score_alike(derain, bundle, nano_weights, pairs, tmp_path):
    scores = []
    for given in (bundle.path, nano_weights):
        derain("evaluate", given, "--pairs", *pairs, "--json", tmp_path / "e.json")
        scores.append(strict(tmp_path / "e.json"))
    assert scores[0]["psnr_rgb"]["input"] == scores[1]["psnr_rgb"]["input"]
    assert scores[0]["psnr_rgb"]["output"] == pytest.approx(scores[1]["psnr_rgb"]["output"], abs=0.05)


def test_the_psnr_of_equal_images_is_null_and_no_warning(derain, nano_weights, pairs, tmp_path):
    answer = derain("evaluate", nano_weights, "--pairs", pairs[1], pairs[1], "--json", tmp_path / "e.json")
    assert answer.status == 0 and answer.err == ""
    told = strict(tmp_path / "e.json")
    assert told["psnr_rgb"]["input"] is None and told["ssim_rgb"]["input"] == pytest.approx(1)
    assert told["psnr_rgb"]["output"] > 0


def test_run_reports_by_the_keys_that_stay(derain, bundle, clip, tmp_path):
    options = ("--source", clip, "--truth", clip, "--sink", tmp_path / "out.mkv", "--json", tmp_path / "r.json")
    answer = derain("run", bundle.path, *options)
    assert answer.status == 0 and answer.err == ""
    told = strict(tmp_path / "r.json")
    counts = {"frames": 8, "presented": 8, "dropped": 0, "passed_through": 0, "deadline_misses": 0}
    assert told.items() >= counts.items()
    assert set(told["latency_ms"]) >= STAGES
    for stage in told["latency_ms"].values():
        assert 0 <= stage["p50"] <= stage["p90"] <= stage["p99"] <= stage["p999"] <= stage["max"]
    assert told["psnr_rgb"]["input"] is None and told["psnr_rgb"]["output"] > 0
    assert cv2.VideoCapture(str(tmp_path / "out.mkv")).get(cv2.CAP_PROP_FRAME_COUNT) == 8


def test_run_derains_as_the_network_does(derain, bundle, clip, tmp_path):
    from derain.export.exporter import bundle_network
    from derain.training.evaluate import derain_with

    assert derain("run", bundle.path, "--source", clip, "--sink", f"frames://{tmp_path}/out").status == 0
    video = cv2.VideoCapture(str(clip))
    network = derain_with(bundle_network(bundle))
    for file in sorted((tmp_path / "out").iterdir()):
        frame = video.read()[1]
        expected = network(np.ascontiguousarray(frame[..., ::-1]))[..., ::-1]
        assert np.abs(cv2.imread(str(file)).astype(int) - expected).max() <= 1
        assert np.abs(expected.astype(int) - frame).mean() > 1


def test_train_obeys_the_configuration_the_overrides_and_derain_data(derain, tmp_path, picture, monkeypatch):
    for folder in ("train", "test"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / folder / "0.png"), picture(len(folder)))
    tree = {
        "network": {"name": "daiam-nano"},
        "data": {"folders": ["train"], "validation": "test", "patch": 32},
        "optimiser": {"iterations": 9, "batch": 1},
        "machine": {"accelerator": "cpu", "threads": 1},
        "out": str(tmp_path / "run"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setenv("DERAIN_DATA", str(tmp_path / "data"))
    answer = derain("train", tmp_path / "run.yaml", "--set", "optimiser.iterations=2", "--set", "seed=5")
    assert answer.status == 0, answer.err
    weights = tmp_path / "run/weights.safetensors"
    assert f"derain export {weights} --out BUNDLE" in answer.out
    resolved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (resolved["optimiser"]["iterations"], resolved["seed"]) == (2, 5)
    assert resolved["data"]["root"] == str(tmp_path / "data")
    monkeypatch.setenv("DERAIN_DATA", str(tmp_path))  # what the file itself names goes before it
    tree["data"]["root"], tree["out"] = str(tmp_path / "data"), str(tmp_path / "other")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    assert derain("train", tmp_path / "run.yaml", "--set", "optimiser.iterations=1").status == 0
    own = (tmp_path / "other/config.yaml").read_bytes()
    again = derain("train", tmp_path / "other/config.yaml", "--set", "seed=9")
    assert "is where the resolved configuration goes and would be overwritten" in again.fault
    assert (tmp_path / "other/config.yaml").read_bytes() == own


def test_a_folder_is_the_one_that_was_named_whatever_yaml_would_read(derain, tmp_path, picture, monkeypatch):
    for folder in ("pics #2/train", "pics #2/test"):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "0.png"), picture(len(folder)))
    tree = {
        "network": {"name": "daiam-nano"},
        "data": None,
        "optimiser": {"iterations": 1, "batch": 1},
        "machine": {"accelerator": "cpu", "threads": 1},
        "out": str(tmp_path / "2026-11-24"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setenv("DERAIN_DATA", str(tmp_path / "pics #2"))
    data = ("--set", "data.folders=[train]", "--set", "data.validation=test", "--set", "data.patch=32")
    assert derain("train", tmp_path / "run.yaml", *data).status == 0
    resolved = yaml.safe_load((tmp_path / "2026-11-24/config.yaml").read_text())
    assert resolved["data"]["root"] == str(tmp_path / "pics #2")
    monkeypatch.chdir(tmp_path)
    assert derain("train", "2026-11-24/config.yaml", "--resume", "2026-11-24").status == 0


def test_doctor_finds_what_the_tests_run_on(derain):
    answer = derain("doctor")
    assert answer.status == 0 and answer.err == ""
    for part in ("Python", "numpy", "torch", "onnxruntime", "ready"):
        assert part in answer.out


def test_doctor_says_that_engines_are_built_but_not_run_where_no_gpu_is(derain, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install 'derain[rtx]'")
    from derain.runtime import cuda

    if (reason := cuda.missing() or cuda.refusal()) is None:
        pytest.skip("there is a GPU here, which runs them")
    monkeypatch.setenv("COLUMNS", "500")
    (line,) = [line for line in derain("doctor").out.splitlines() if "engine tensorrt-rtx" in line]
    assert "builds engines; no GPU to run them" in line and reason in line and "ready" not in line


def test_verify_compares_the_cameras_frames_and_tells_the_worst(derain, bundle, clip, tmp_path):
    answer = derain("verify", bundle.path, "--frames", clip, "--count", 5, "--json", tmp_path / "v.json")
    assert answer.status == 0 and answer.err == ""
    told = strict(tmp_path / "v.json")["fp32"]
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
    assert missing == f"{bundle.path}: half-only has no engine in it: {mend.format('fp16')}"
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
    assert fault == f"{bundle.path}: the fp32 graph is right, but its engine is not: build it again with `derain build`"


def test_verify_names_the_tensor_that_is_not_finite(derain, bundle):
    model = onnx.load(bundle.graph())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("encoder.blocks.0.conv1.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(bias.dims, np.inf, np.float32), bias.name))
    bundle.add({"graph.fp32.onnx": model.SerializeToString()})
    fault = derain("verify", bundle.path).fault
    assert "the fp32 graph is not finite, first in tensor '" in fault and "encoder_blocks_0_conv1_conv2d'" in fault
