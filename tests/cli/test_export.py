"""`derain export`: the bundle, and what it says of it."""

import pytest
import torch

from derain.export import exporter
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import GraphEntry


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


def test_a_downscale_is_told_by_export_and_by_inspect(derain, tmp_path):
    answer = derain("export", "random:daiam-nano", "--out", tmp_path / "b", "--size", "64x48", "--downscale", 2)
    assert "64x48 bgr8, downscale 2\n" in answer.out
    assert "64x48 bgr8, downscale 2" in derain("inspect", tmp_path / "b").out


def test_export_says_what_went_with_the_bundle_it_replaced(derain, bundle):
    command = ("export", "random:dam-zero", "--out", bundle.path, "--size", "36x28")
    assert "replaced" not in derain(*command).out
    made = Bundle.load(bundle.path)
    made.add({"graph.fp16.onnx": b"x"}, graphs=[GraphEntry(precision="fp16", file="graph.fp16.onnx")])
    assert "replaced the bundle that was there: its fp16 graph went with it, to be made again" in derain(*command).out


def test_export_refuses_colours_that_the_pixels_do_not_have(derain, tmp_path):
    answer = derain("export", "random:dam-zero", "--out", tmp_path / "b", "--size", "36x28", "--matrix", "bt709")
    assert "matrix bt709, range limited: of nv12 and uyvy, bgr8 has none: leave them out" in answer.err


def test_export_tells_where_it_cannot_write_before_the_work(derain, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "load", lambda *given, **options: pytest.fail("loaded the network first"))
    (tmp_path / "mine").touch()
    for out, told in ((tmp_path, "exists and is no bundle"), (tmp_path / "mine/b", "mine is a file, so ")):
        assert told in derain("export", "random:daiam-nano", "--out", out, "--size", "32x24").fault


def test_steps_of_a_peer_are_its_own_and_a_chains_are_refused(derain, tmp_path):
    command = ("--out", tmp_path / "b", "--size", "32x24", "--steps", 2)
    assert derain("export", "random:prenet", *command).status == 0
    assert Bundle.load(tmp_path / "b").manifest.model.config["options"] == {"steps": 2}
    fault = derain("export", "random:qian-prenet", *command).fault
    assert fault == "--steps 2: qian-prenet has none to choose: leave it out"


def test_a_pickle_in_place_of_weights_is_refused(derain, tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.ones(2)}, path)
    fault = derain("export", path, "--out", tmp_path / "b", "--size", "32x24").fault
    assert "model.safetensors is not a readable safetensors file" in fault


@pytest.mark.parametrize("size", ["0x0", "1280", "99999x20"])
def test_a_size_that_is_none_is_told_with_the_sizes_that_are(derain, tmp_path, size):
    fault = derain("export", "random:daiam-nano", "--out", tmp_path / "b", "--size", size).fault
    assert fault == f"size {size!r}: expected WxH with sides of 16 to 16384 pixels, as in 1280x720"
    assert list(tmp_path.iterdir()) == []


def test_an_odd_size_is_refused_where_chroma_is_shared(derain, tmp_path):
    options = ("--out", tmp_path / "b", "--size", "33x24", "--pixels", "nv12")
    assert (
        "width 33 is odd, nv12 needs an even width: use 32 or 34"
        in derain("export", "random:daiam-nano", *options).fault
    )


def test_a_model_that_does_not_exist_is_told_with_those_that_do(derain, tmp_path):
    fault = derain("export", "random:nana", "--out", tmp_path / "b", "--size", "32x24").fault
    assert fault.startswith("model 'nana' is unknown, known are: dam-zero")


def test_a_full_disk_under_a_bundle_is_told_and_leaves_no_file(small_disk, tmp_path):
    bundle = tmp_path / "small/bundle"
    answer = small_disk("500k", "export", "random:daiam-nano", "--out", bundle, "--size", "32x24")
    assert answer.fault == (
        f"{bundle}: No space left on device: free space on its disk, or name another place, and run the command again"
    )
    assert answer.out == ""
