"""`derain calibrate`: each precision, what goes with the graph it replaces, and what it says of random weights."""

import json
import os
import re
import shutil

import cv2
import pytest

from derain.export.exporter import export
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import EngineEntry
from derain_tests.pictures import write_frames


@pytest.fixture
def frames(tmp_path, picture, nano_bundle):
    spec = Bundle.load(nano_bundle).manifest.input
    return write_frames(tmp_path / "frames", [picture(seed, spec.width, spec.height) for seed in range(12)])


def test_random_weights_are_said_to_have_no_quality_to_lose(frames, derain, tmp_path):
    export("random:daiam-nano", tmp_path / "b", (32, 24))
    options = ("--frames", frames, "--count", 4, "--method", "minmax", "--precision", "int8")
    told = derain("calibrate", tmp_path / "b", *options).told
    assert "weights are random: its dB say nothing of a trained network" in told


def test_a_bundle_is_calibrated_in_every_precision_and_options_of_8_bits_are_refused_for_fp16(
    bundle, frames, derain, tmp_path
):
    report = tmp_path / "int8.json"
    common = ("calibrate", bundle.path, "--frames", frames, "--count", 8)
    told = derain(*common, "--precision", "fp16").told
    assert "graph.fp16.onnx: " in told and "0 nodes kept in FP32" in told
    method = ("--method", "minmax")
    told += derain(*common, *method, "--precision", "int8", "--max-loss", 9, "--json", report).told
    assert "graph.int8.onnx: loses" in told
    assert "random" not in told and "dropped" not in told
    assert json.loads(report.read_text())["method"] == "minmax"
    assert {graph.precision for graph in Bundle.load(bundle.path).manifest.graphs} == {"fp32", "fp16", "int8"}
    fault = derain(*common, *method, "--precision", "fp16", "--truth", frames).fault
    assert fault.startswith("--truth, --method: for int8 and fp8 alone; leave it out with --precision")


def test_frames_of_another_size_are_refused_by_the_first(bundle, frames, derain):
    cv2.imwrite(str(frames / "000.png"), cv2.imread(str(frames / "000.png"))[:-4])
    fault = derain("calibrate", bundle.path, "--frames", frames, "--count", 8, "--precision", "int8").fault
    assert re.search(r"000\.png: frames are 32x20, the bundle expects 32x24", fault)


def test_clean_frames_of_other_numbers_are_warned_of(bundle, frames, derain, tmp_path):
    clean = shutil.copytree(frames, tmp_path / "clean")
    common = ("calibrate", bundle.path, "--frames", frames, "--truth", clean, "--precision", "int8")
    quick = ("--method", "minmax", "--max-loss", 100, "--count", 4)
    assert derain(*common, *quick).err == ""
    for path in sorted(clean.iterdir(), reverse=True):  # as a counter that began at 1 names them
        path.rename(clean / f"clean-{int(path.stem) + 1}.png")
    answer = derain(*common, *quick)
    assert answer.status == 0
    assert "000.png is compared with" in answer.err and "expected a truth of the same name" in answer.err


@pytest.mark.parametrize("name", ["graph.fp32.onnx", "manifest.json", "weights.safetensors"])
def test_no_report_takes_the_place_of_the_bundles_files(name, bundle, frames, derain):
    options = ("--frames", frames, "--precision", "int8", "--json", bundle.path / name)
    before = (bundle.path / name).read_bytes()
    assert "is read by this run, which would replace it" in derain("calibrate", bundle.path, *options).fault
    assert (bundle.path / name).read_bytes() == before


def test_frames_in_a_folder_whose_name_the_manifest_cannot_hold_are_refused_before_the_work(bundle, frames, derain):
    named = frames.rename(frames.with_name("frames" + os.fsdecode(b"\xff")))
    fault = derain("calibrate", bundle.path, "--frames", named, "--precision", "fp16").fault
    assert "its name is not UTF-8: rename it" in fault


def test_the_engines_of_the_replaced_graph_are_dropped_and_the_commands_that_build_them_again_told(
    bundle, frames, derain
):
    common = ("calibrate", bundle.path, "--frames", frames, "--precision", "fp8", "--max-loss", 100, "--count", 6)
    assert derain(*common, "--method", "minmax").status == 0
    engine = {"precision": "fp8", "api": "tensorrt-rtx", "api_version": "1.6.1.120"}
    tuned = {"arch": "sm86+sm89", "options": {"workspace_mib": 64, "tf32": True}}
    Bundle.load(bundle.path).add(
        {"a.plan": b"a", "b.plan": b"b"},
        engines=[EngineEntry(file="a.plan", arch="portable", **engine), EngineEntry(file="b.plan", **engine, **tuned)],
    )
    told = derain(*common, "--method", "mse").told
    again = f"derain build {bundle.path} --precision fp8 --api tensorrt-rtx"
    assert f"dropped a.plan, the old graph's engine: run `{again}`" in told
    assert f"dropped b.plan, the old graph's engine: run `{again} --arch sm86,sm89 --workspace 64 --tf32`" in told
    assert Bundle.load(bundle.path).manifest.engines == () and not list(bundle.path.glob("*.plan"))
