"""Bad input ends in one line that names the value seen, the value expected and the mend; exit status 1."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file


def frames(path) -> list[np.ndarray]:
    video, images = cv2.VideoCapture(str(path)), []
    while True:
        decoded, image = video.read()
        if not decoded:
            return images
        images.append(image)


def test_a_missing_video(derain, bundle, tmp_path):
    fault = derain("run", bundle.path, "--source", tmp_path / "no.mp4", "--sink", "null://").fault
    assert fault == f"{tmp_path}/no.mp4: no such file: give the path of a video"


def test_a_truncated_video_and_the_frames_before_its_end_stay_readable(fresh_derain, bundle, clip, tmp_path):
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 2 // 3])
    report = tmp_path / "report.json"
    answer = fresh_derain("run", bundle.path, "--source", clip, "--sink", tmp_path / "out.mkv", "--json", report)
    assert "clip.mkv: truncated, the decoder stopped after" in answer.fault
    assert "of 8 frames: copy it again" in answer.fault
    kept = frames(tmp_path / "out.mkv")
    assert 1 <= len(kept) < 8 and kept[0].shape == (24, 32, 3)
    assert not report.exists()


def test_a_file_that_is_no_video(fresh_derain, bundle, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video" * 20)
    fault = fresh_derain("run", bundle.path, "--source", tmp_path / "clip.mp4", "--sink", "null://").fault
    assert "clip.mp4: 160 bytes that are no video, or an unfinished one: record or copy it again" in fault


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"not an image"])
def test_a_folder_with_a_broken_image_and_the_frames_before_it_stay_readable(
    spoil, fresh_derain, bundle, pairs, tmp_path
):
    broken = pairs[0] / "1.png"
    broken.write_bytes(spoil(broken.read_bytes()))
    answer = fresh_derain("run", bundle.path, "--source", pairs[0], "--sink", f"frames://{tmp_path}/out")
    size = broken.stat().st_size
    assert answer.fault == f"{broken}: {size} bytes that are no whole image: replace or remove it"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["000000.png"]
    assert cv2.imread(str(tmp_path / "out/000000.png")).shape == (24, 32, 3)


def test_frames_of_another_size_than_the_bundles(derain, bundle, tmp_path, picture):
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames/0.png"), picture(0, 40, 30))
    fault = derain("run", bundle.path, "--source", tmp_path / "frames", "--sink", "null://").fault
    assert fault == (
        f"{tmp_path}/frames/0.png: frames are 40x30, the bundle expects 32x24: "
        "export one for this size with `derain export … --size 40x30`"
    )


@pytest.mark.parametrize(
    "verb", [("run", "--source", "test://rain?frames=2", "--sink", "null://"), ("verify",), ("inspect",)]
)
@pytest.mark.parametrize("change", ["byte", "key", "length", "no graph"])
def test_a_bundle_that_was_tampered_with(derain, bundle, verb, change):
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


def test_weights_whose_byte_was_changed_are_found_by_verify(derain, bundle):
    weights = bundle.path / "weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "weights.safetensors: SHA-256 is" in derain("verify", bundle.path).fault


def test_weights_of_another_architecture(derain, nano_weights, pairs, tmp_path):
    path = tmp_path / "edge.safetensors"
    save_file(load_file(nano_weights), path, metadata={"model": "daiam-edge"})
    for verb in (("export", path, "--out", tmp_path / "b", "--size", "32x24"), ("evaluate", path, "--pairs", *pairs)):
        fault = derain(*verb).fault
        assert f"{path} does not fit model 'daiam-edge': tensor 'branches." in fault
        assert "expected (32,); use weights that were trained as 'daiam-edge'" in fault
    assert not (tmp_path / "b").exists()


def test_a_pickle_in_place_of_weights(derain, tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.ones(2)}, path)
    fault = derain("export", path, "--out", tmp_path / "b", "--size", "32x24").fault
    assert "model.safetensors is not a readable safetensors file" in fault


@pytest.mark.parametrize("size", ["0x0", "1280", "99999x20"])
def test_a_size_that_is_none(derain, tmp_path, size):
    fault = derain("export", "random:daiam-nano", "--out", tmp_path / "b", "--size", size).fault
    assert fault == f"size {size!r}: expected WxH with sides of 16 to 16384 pixels, as in 1280x720"
    assert list(tmp_path.iterdir()) == []


def test_an_odd_size_where_chroma_is_shared(derain, tmp_path):
    options = ("--out", tmp_path / "b", "--size", "33x24", "--pixels", "nv12")
    assert (
        "width 33 is odd, nv12 needs an even width: use 32 or 34"
        in derain("export", "random:daiam-nano", *options).fault
    )


def test_a_model_that_does_not_exist(derain, tmp_path):
    fault = derain("export", "random:nana", "--out", tmp_path / "b", "--size", "32x24").fault
    assert fault.startswith("unknown model 'nana': expected one of dam-zero")


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
def test_a_missing_extra(module, verb, extra, fresh_derain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fault = fresh_derain(*verb, missing=(module,)).fault
    assert f"{verb[0]} needs the package {module!r}, which is not installed: pip install 'derain[{extra}]'" in fault


def test_a_missing_engine(fresh_derain, bundle):
    options = ("--source", "test://rain?frames=1", "--sink", "null://")
    fault = fresh_derain("run", bundle.path, *options, missing=("onnxruntime",)).fault
    assert fault == "engine onnxruntime: onnxruntime is not installed: pip install 'derain[cpu]'"


def test_what_is_missing_is_in_doctors_last_column(fresh_derain, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    missing = ("lightning", "onnxruntime")
    answer = fresh_derain("doctor", missing=missing)
    told = " ".join(answer.out.split())
    assert answer.status == 0
    for part in ("'derain[train]'", "missing: lightning", "'derain[export]'", "'derain[cpu]'"):
        assert part.replace(" ", "") in told.replace(" ", ""), answer.out
    assert fresh_derain("doctor", "--strict", missing=missing).status == 1


def test_a_wrong_configuration(derain, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"network": {"name": "daiam-nano"}, "optimiser": {"iterations": 1}, "out": "x"}))
    assert "seed is {'x': 1}: input should be a valid integer" in derain("train", path, "--set", "seed.x=1").fault
    assert (
        "network.depth is unknown, expected one of name, options, init, start"
        in derain("train", path, "--set", "network.depth=3").fault
    )
    assert "no configuration" in derain("train", tmp_path / "none.yaml").fault


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
def test_paths_that_lead_nowhere(derain, arguments, part, tmp_path, monkeypatch):
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


@pytest.fixture
def run_file(tmp_path, picture):
    """The configuration of three iterations, into small/run."""
    for folder in ("train", "test"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / folder / "0.png"), picture())
    tree = {
        "network": {"name": "daiam-nano"},
        "data": {"root": str(tmp_path / "data"), "folders": ["train"], "validation": "test", "patch": 32},
        "optimiser": {"iterations": 3, "batch": 1},
        "machine": {"accelerator": "cpu", "threads": 1},
        "checkpoint_every": 100,
        "tensorboard": True,
        "out": str(tmp_path / "small/run"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "run.yaml"


def test_the_command_told_after_a_slice_goes_on_with_what_was_set(derain, run_file, tmp_path, monkeypatch):
    monkeypatch.delenv("DERAIN_DATA", raising=False)
    slice_ = derain("train", run_file, "--set", "optimiser.batch=2", "--minutes", 0)
    command = re.search(r"iteration 1 of 3: go on with `derain (.*)`", slice_.out)[1].split()
    weights = f"{tmp_path}/small/run/weights.safetensors"
    assert f"complete after 3 iterations: export {weights} with" in derain(*command).out


def test_a_full_disk_under_a_run(small_disk, run_file, tmp_path):
    answer = small_disk("500k", "train", run_file)
    run = tmp_path / "small/run"
    told, mend = answer.fault.split(" bytes cannot be written: No space left on device: ")
    assert told.startswith(f"{run}/weights.safetensors: ")
    assert mend == f"free space on its disk, then go on with --resume {run}"
    assert f"{run}/metrics.csv" in answer.out and "partial" not in answer.out


def test_a_full_disk_under_a_bundle(small_disk, tmp_path):
    bundle = tmp_path / "small/bundle"
    answer = small_disk("500k", "export", "random:daiam-nano", "--out", bundle, "--size", "32x24")
    assert answer.fault == (
        f"{bundle}: No space left on device: free space on its disk, or name another place, and run the command again"
    )
    assert answer.out == ""


@pytest.mark.parametrize(
    "arguments",
    [("export",), ("run", "b", "--sauce", "x"), ("fly",), ("inspect", "b", "--json"), ("export", "w", "--pixels", "x")],
)
def test_wrong_usage_exits_2(derain, arguments):
    answer = derain(*arguments)
    assert answer.status == 2
    assert "Traceback" not in answer.err and answer.err


def test_debug_shows_the_traceback(fresh_derain, derain, tmp_path):
    answer = fresh_derain("--debug", "verify", tmp_path)
    assert answer.status == 1
    assert "Traceback (most recent call last)" in answer.err
    assert "FileNotFoundError" in answer.err
    assert "make one with" in derain("verify", tmp_path).fault


def test_a_path_that_looks_like_markup_is_told_as_it_is(derain, tmp_path):
    out = tmp_path / "[bold]b[/x]"
    answer = derain("export", "random:dam-zero", "--out", out, "--size", "32x24")
    assert answer.status == 0, answer.err
    assert f"{out}: dam-zero" in answer.out
    assert f"{out}-: no such bundle" in derain("verify", f"{out}-").fault


def test_help_has_its_short_name(derain):
    assert derain("inspect", "-h").out == derain("inspect", "--help").out != ""
