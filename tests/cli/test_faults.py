"""Bad input ends in one line that names the value seen, the value expected and the mend; exit status 1."""

import json

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file, save_file


def frames(path) -> list[np.ndarray]:
    video, images = cv2.VideoCapture(str(path)), []
    while True:
        decoded, image = video.read()
        if not decoded:
            return images
        images.append(image)


def test_a_missing_video_is_told_by_its_path(derain, bundle, tmp_path):
    fault = derain("run", bundle.path, "--source", tmp_path / "no.mp4", "--sink", "null://").fault
    assert fault == f"{tmp_path}/no.mp4: no such file: give the path of a video"


def test_a_truncated_video_is_told_and_the_frames_before_its_end_stay_readable(fresh_derain, bundle, clip, tmp_path):
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 2 // 3])
    report = tmp_path / "report.json"
    answer = fresh_derain("run", bundle.path, "--source", clip, "--sink", tmp_path / "out.mkv", "--json", report)
    assert "clip.mkv: truncated, the decoder stopped after" in answer.fault
    assert "of 8 frames: copy it again" in answer.fault
    kept = frames(tmp_path / "out.mkv")
    assert 1 <= len(kept) < 8 and kept[0].shape == (24, 32, 3)
    told = json.loads(report.read_text())
    assert told["presented"] == len(kept) and "truncated" in told["error"]


def test_a_file_that_is_no_video_is_told_by_its_size(fresh_derain, bundle, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video" * 20)
    fault = fresh_derain("run", bundle.path, "--source", tmp_path / "clip.mp4", "--sink", "null://").fault
    assert "clip.mp4: 160 bytes that are no video, or an unfinished one: record or copy it again" in fault


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"not an image"])
def test_a_broken_image_in_a_folder_is_told_and_the_frames_before_it_stay_readable(
    spoil, fresh_derain, bundle, pairs, tmp_path
):
    broken = pairs[0] / "1.png"
    broken.write_bytes(spoil(broken.read_bytes()))
    answer = fresh_derain("run", bundle.path, "--source", pairs[0], "--sink", f"frames://{tmp_path}/out")
    size = broken.stat().st_size
    assert answer.fault == f"{broken}: {size} bytes that are no whole image: replace or remove it"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["000000.png"]
    assert cv2.imread(str(tmp_path / "out/000000.png")).shape == (24, 32, 3)


def test_frames_of_another_size_than_the_bundles_are_refused_with_the_command_for_theirs(
    derain, bundle, tmp_path, picture
):
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames/0.png"), picture(0, 40, 30))
    fault = derain("run", bundle.path, "--source", tmp_path / "frames", "--sink", "null://").fault
    assert fault == (
        f"{tmp_path}/frames/0.png: frames are 40x30, the bundle expects 32x24: "
        "give it those, or export one for this size with `derain export … --size 40x30`"
    )


@pytest.mark.parametrize(
    "verb", [("run", "--source", "test://rain?frames=2", "--sink", "null://"), ("verify",), ("inspect",)]
)
@pytest.mark.parametrize("change", ["byte", "key", "length", "no graph"])
def test_a_bundle_that_was_tampered_with_is_refused(derain, bundle, verb, change):
    graph, manifest = bundle.path / "graph.fp32.onnx", bundle.path / "manifest.json"
    data = graph.read_bytes()
    if change == "byte":
        graph.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
        expected = "SHA-256 is"
    elif change == "length":
        graph.write_bytes(data[:-1])
        expected = f"{len(data) - 1} bytes, the manifest says {len(data)}"
    elif change == "no graph":
        graph.unlink()
        expected = "missing, though the manifest names it"
    else:
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"colour": "red"}))
        expected = "colour: unknown key (its value is 'red')"
    fault = derain(verb[0], bundle.path, *verb[1:]).fault
    assert expected in fault
    assert "export it again with `derain export" in fault


def test_weights_of_another_architecture_are_refused_by_the_first_tensor(derain, nano_weights, pairs, tmp_path):
    path = tmp_path / "edge.safetensors"
    save_file(load_file(nano_weights), path, metadata={"model": "daiam-edge"})
    for verb in (("export", path, "--out", tmp_path / "b", "--size", "32x24"), ("evaluate", path, "--pairs", *pairs)):
        fault = derain(*verb).fault
        assert f"{path} does not fit model 'daiam-edge': tensor 'branches." in fault
        assert "expected (32,); use weights that were trained as 'daiam-edge'" in fault
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("module", "verb", "extra"),
    [
        ("torch", ("export", "random:daiam-nano", "--out", "b", "--size", "32x24"), "export"),
        ("torch", ("synthesize", "clean", "--out", "o"), "train"),
        ("onnx", ("inspect", "b.onnx"), "export"),
        ("onnxruntime", ("verify", "b"), "export"),
        ("onnx", ("export", "random:daiam-nano", "--out", "b", "--size", "32x24"), "export"),
        ("onnxscript", ("export", "random:daiam-nano", "--out", "b", "--size", "32x24"), "export"),
        ("lightning", ("train", "run.yaml"), "train"),
        ("yaml", ("train", "run.yaml"), "train"),
        ("ml_dtypes", ("calibrate", "b", "--frames", "f", "--precision", "int8"), "export"),
        ("skimage", ("evaluate", "random:daiam-nano", "--pairs", "a", "b"), "train"),
        ("sklearn", ("demo", "--out", "d"), "demo"),
        ("fastapi", ("serve", "b", "--source", "test://rain"), "serve"),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    module, verb, extra, fresh_derain, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    fault = fresh_derain(*verb, missing=(module,)).fault
    assert f"{verb[0]} needs the package {module!r}, which is not installed: pip install 'derain[{extra}]'" in fault


def test_a_missing_engine_is_told_with_the_extra_that_brings_it(fresh_derain, bundle):
    options = ("--source", "test://rain?frames=1", "--sink", "null://")
    fault = fresh_derain("run", bundle.path, *options, missing=("onnxruntime",)).fault
    assert fault == "engine onnxruntime: onnxruntime is not installed: pip install 'derain[cpu]'"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("run", "nowhere", "--source", "test://rain", "--sink", "null://"), "nowhere: no such bundle: make one with"),
        (("verify", "nowhere"), "nowhere: no such bundle"),
        (("inspect", "nowhere"), "nowhere: no such bundle"),
        (("inspect", "nowhere.onnx"), "no ONNX file 'nowhere.onnx'"),
        (("evaluate", "nowhere", "--pairs", "a", "b"), "no weights file 'nowhere'"),
        (("evaluate", "random:daiam-nano", "--pairs", "a", "b"), "no images in 'a'"),
    ],
)
def test_paths_that_lead_nowhere_are_told(derain, arguments, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert part in derain(*arguments).fault


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "b", "--json"),
        ("verify", "b", "--json"),
        ("calibrate", "b", "--frames", "f", "--precision", "fp16", "--json"),
        ("bench", "b", "--json"),
        ("bench", "b", "--html"),
        ("run", "b", "--source", "test://rain", "--sink", "null://", "--json"),
        ("serve", "b", "--source", "test://rain", "--json"),
        ("evaluate", "w", "--pairs", "a", "b", "--json"),
        ("evaluate", "w", "--pairs", "a", "b", "--panel"),
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-1]}",
)
def test_a_place_where_no_file_can_appear_is_told_before_the_work(derain, arguments, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "report.json"
    fault = derain(*arguments, place).fault
    assert fault == f"{tmp_path / 'file'} is a file, so {place} cannot be made: name another place"
    assert derain(*arguments, tmp_path).fault == f"{tmp_path} is a folder: name a file"
