import json

import numpy as np
import pytest
import torch

from derain.training.data import list_images, read_rgb, to_tensor
from derain.training.losses import psnr
from derain.training.models.checkpoint import load, resolve
from derain.training.rain import RainConfig, render


def test_nano_is_small_enough_to_ship_and_says_how_it_was_made():
    assert resolve("daiam-nano").stat().st_size <= 1.5e6
    trained = load("daiam-nano")
    assert trained.name == "daiam-nano"
    for run in json.loads(trained.notes["mean_of"]):
        assert {"seed", "iterations", "measured"} <= run.keys()


def test_nano_clears_moderate_rain_on_unseen_driving_frames(data_root):
    network = load("daiam-nano").network
    gains = []
    with torch.inference_mode():
        for index, file in enumerate(list_images(data_root / "sequences" / "camvid_val")[::8]):
            clean = to_tensor(read_rgb(file))[None]
            rain = render(clean, index, RainConfig(kinds="both", strength=0.5, frame_height=clean.shape[-2]))
            gains.append(float(psnr(network(rain.rainy)[0].image, clean) - psnr(rain.rainy, clean)))
    assert np.mean(gains) >= 4


@pytest.mark.parametrize("rain", ["streak", "drop"])
def test_nanos_attention_maps_follow_the_rain_of_their_own_kind(data_root, rain):
    network = load("daiam-nano").network
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
