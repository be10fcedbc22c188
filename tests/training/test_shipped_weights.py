"""The weights that ship, and what is said of them."""

import hashlib
import shutil

import numpy as np
import pytest
import torch

from derain.training.data import list_images, read_rgb, to_tensor
from derain.training.losses import psnr
from derain.training.models import weights
from derain.training.models.weights import CHECKSUMS, SHIPPED, load, resolve
from derain.training.rain import RainConfig, render

NAMES = ("daiam-nano", "daiam-small", "daiam-edge")


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_small_enough_to_ship_and_say_how_they_were_made(name):
    assert resolve(name).stat().st_size <= 16e6
    trained = load(name)
    assert (trained.name, trained.options) == (name, {})
    assert all({"seed", "iterations", "measured"} <= run.keys() for run in trained.runs)
    assert (SHIPPED / f"{name}.md").is_file()


SHARP = {"daiam-nano": 4.6, "daiam-small": 4.8, "daiam-edge": 5.7}
OUT_OF_FOCUS = {"daiam-nano": 2.7, "daiam-small": 2.8, "daiam-edge": 3.2}


@pytest.mark.parametrize(
    ("name", "least", "every", "rain"),
    [(name, SHARP[name], 16, {"kinds": "both"}) for name in NAMES]
    + [(name, OUT_OF_FOCUS[name], 24, {"kinds": "drops", "defocus": 12.0}) for name in NAMES],
)
def test_it_clears_moderate_rain_on_unseen_driving_frames(name, least, every, rain, data_root):
    """And drops on a windscreen out of focus."""
    network = load(name).network
    gains = []
    with torch.inference_mode():
        for index, file in enumerate(list_images(data_root / "sequences" / "camvid_val")[::every]):
            clean = to_tensor(read_rgb(file))[None]
            rainy = render(clean, index, RainConfig(strength=0.5, frame_height=clean.shape[-2], **rain)).rainy
            gains.append(float(psnr(network(rainy)[0].image, clean) - psnr(rainy, clean)))
    assert np.mean(gains) >= least


@pytest.mark.parametrize(("name", "least"), [("daiam-nano", 42.0), ("daiam-small", 44.0), ("daiam-edge", 44.0)])
def test_it_leaves_dry_driving_frames_nearly_as_they_are(name, least, data_root):
    network = load(name).network
    with torch.inference_mode():
        frames = [to_tensor(read_rgb(file))[None] for file in list_images(data_root / "sequences" / "camvid_val")[::24]]
        assert np.mean([float(psnr(network(frame)[0].image, frame)) for frame in frames]) >= least


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rain", ["streak", "drop"])
def test_attention_maps_follow_the_rain_of_their_own_kind(data_root, rain, name):
    network = load(name).network
    frame = list_images(data_root / "sequences" / "camvid_val")[0]
    clean = to_tensor(read_rgb(frame))[None]
    rendered = render(clean, 3, RainConfig(kinds="both", strength=0.5, frame_height=clean.shape[-2]))
    masks = {"streak": rendered.mask_streak, "drop": rendered.mask_drop}
    with torch.inference_mode():
        attention = network(rendered.rainy)[0].branches[rain].attention
    own, other = (
        torch.corrcoef(torch.stack([attention.flatten(), masks[kind].flatten()]))[0, 1].item()
        for kind in (rain, {"streak": "drop", "drop": "streak"}[rain])
    )
    assert own > 0.5
    assert own > other + 0.3


def test_every_shipped_file_of_weights_has_its_checksum_in_the_format_of_sha256sum():
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}"
        for file in sorted(SHIPPED.glob("*.safetensors"))
    ]
    assert CHECKSUMS.read_text().splitlines() == lines


def test_a_flipped_byte_in_shipped_weights_is_refused_in_one_line(tmp_path, monkeypatch):
    shutil.copytree(SHIPPED, tmp_path / "weights")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "weights")
    monkeypatch.setattr(weights, "CHECKSUMS", tmp_path / "weights" / CHECKSUMS.name)
    assert load("daiam-nano").name == "daiam-nano"
    file = tmp_path / "weights" / "daiam-nano.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"daiam-nano\.safetensors: SHA-256 is .{12}…, SHA256SUMS has .*: install"
    ) as caught:
        load("daiam-nano")
    assert "\n" not in str(caught.value)
    assert load(str(file)).name == "daiam-nano", "a path is the user's own choice"
