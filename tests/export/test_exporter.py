"""From weights to a bundle and back."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from derain.export import exporter
from derain.export.exporter import MAX_SIDE, MIN_SIDE, bundle_network, export, parse_size
from derain.export.onnx_graph import summarise
from derain.export.unroll import unroll
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import Precision
from derain.runtime.pixels import ColorMatrix, ColorRange, PixelFormat
from derain.training.models import build, parameter_count
from derain.training.models.weights import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory, lively) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_weights(path, lively(build("daiam-nano")), "daiam-nano", {"encoder_steps": 2}, torch.float16, seed="5")
    return path


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "bundle"
    bundle, report = export(str(weights), out, (34, 26), PixelFormat.NV12, ColorMatrix.BT709, ColorRange.FULL)
    return bundle, report, out


def test_the_manifest_says_what_was_exported(exported):
    bundle, report, out = exported
    manifest = Bundle.load(out).manifest
    assert manifest == bundle.manifest
    assert manifest.derain_version == version("derain")
    assert (manifest.model.name, manifest.model.parameters) == ("daiam-nano", parameter_count(build("daiam-nano")))
    assert manifest.model.config == {"options": {"encoder_steps": 2}}
    assert (manifest.unroll.encoder_steps, manifest.unroll.decoder_steps) == (2, 1)
    assert (manifest.unroll.macs, manifest.unroll.macs_naive) == (report.macs, report.macs_naive)
    assert 0 < report.macs < report.macs_naive
    for spec, tensor in ((manifest.input, "frame"), (manifest.output, "clean")):
        assert spec.model_dump(mode="json") == {
            "tensor": tensor,
            "width": 34,
            "height": 26,
            "pixels": "nv12",
            "matrix": "bt709",
            "range": "full",
        }
    assert [(entry.precision, entry.file) for entry in manifest.graphs] == [("fp32", "graph.fp32.onnx")]
    assert set(manifest.files) == {"graph.fp32.onnx", "weights.safetensors"}
    assert {path.name for path in out.iterdir()} == {*manifest.files, "manifest.json"}
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_the_macs_of_the_manifest_are_those_of_the_file(exported):
    bundle, report, _ = exported
    assert summarise(bundle.graph(Precision.FP32)).macs == report.macs == bundle.manifest.unroll.macs


def test_the_weights_lie_in_the_bundle_as_they_were(exported, weights):
    bundle, _, _ = exported
    assert bundle.file("weights.safetensors").read_bytes() == weights.read_bytes()


def test_a_bundle_gives_its_network_back(exported, weights):
    network = bundle_network(exported[0])
    assert network.branches["streak"].encoder.steps == 2 and network.global_decoder.steps == 1
    for key, value in load_file(weights).items():
        assert torch.equal(network.state_dict()[key], value.float())


def test_random_weights_are_stored_with_the_bundle_and_steps_reach_its_network(tmp_path):
    bundle, report = export("random:dam-zero", tmp_path / "b", (32, 24), steps=2)
    assert (bundle.manifest.unroll.encoder_steps, bundle.manifest.unroll.decoder_steps) == (2, 2)
    assert bundle.manifest.unroll.macs == report.macs
    network = bundle_network(Bundle.load(tmp_path / "b"))
    assert network.branches["rain"].encoder.steps == network.global_decoder.steps == 2
    torch.manual_seed(0)
    for key, value in build("dam-zero").state_dict().items():
        assert torch.equal(network.state_dict()[key], value)


@pytest.mark.parametrize(("text", "size"), [("1280x720", (1280, 720)), ("17X16", (17, 16))])
def test_sizes_are_width_by_height(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["0x0", "15x720", f"{MAX_SIDE + 1}x720", "1280", "1280x", "-64x64", "64x64x3", "64.5x64", "64x64\n", "", "axb"],
)
def test_other_sizes_are_refused_with_the_value_and_the_form_expected(text):
    with pytest.raises(ValueError) as caught:
        parse_size(text)
    assert str(caught.value) == (
        f"size {text!r}: expected WxH with sides of {MIN_SIDE} to {MAX_SIDE} pixels, as in 1280x720"
    )


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"weights": "random:daiam-nana"}, "model 'daiam-nana' is unknown"),
        ({"weights": "nothing.safetensors"}, "no weights file 'nothing.safetensors'"),
        ({"size": (33, 24), "pixels": PixelFormat.NV12}, "width 33 is odd, nv12 needs an even width"),
        ({"steps": 0}, "0 recurrent steps: expected 1 to 64"),
        ({"steps": 1_000_000}, "1000000 recurrent steps: expected 1 to 64"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line_and_leaves_nothing(options, part, tmp_path):
    asked = {"weights": "random:daiam-nano", "out": tmp_path / "b", "size": (32, 24)} | options
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        export(**asked)
    assert part in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_the_tensors_name(value, weights, tmp_path):
    spoilt = load_file(weights)
    spoilt["global_decoder.out.bias"][1] = value
    path = tmp_path / "spoilt.safetensors"
    save_file(spoilt, path, metadata={"model": "daiam-nano"})
    with pytest.raises(ValueError) as caught:
        export(str(path), tmp_path / "b", (32, 24))
    assert str(caught.value) == (
        f"{path}: tensor 'global_decoder.out.bias' is not finite: expected weights of a run that converged"
    )
    assert not (tmp_path / "b").exists()


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is no bundle"):
        export("random:daiam-nano", tmp_path, (32, 24))
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_run_that_writes_new_weights_meanwhile_does_not_change_what_is_exported(weights, tmp_path, monkeypatch):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(weights.read_bytes())

    def slow(*given):
        save_weights(mine, build("daiam-nano"), "daiam-nano", {}, torch.float16)
        return unroll(*given)

    monkeypatch.setattr(exporter, "unroll", slow)
    bundle, _ = export(str(mine), tmp_path / "bundle", (34, 26))
    assert bundle.file("weights.safetensors").read_bytes() == weights.read_bytes() != mine.read_bytes()
