"""Pictures of a run: panels, and TensorBoard's copy of them."""

import cv2
import numpy as np
import pytest
import torch

from derain.training.config import TrainConfig
from derain.training.models import Branch, Prediction
from derain.training.panels import BAR, Tile, attention_tiles, panel
from derain.training.trainer import train
from derain_tests.pictures import write_frames


def test_a_panel_sets_tiles_side_by_side_under_their_captions_and_rows_below_each_other():
    red = torch.zeros(3, 20, 60)
    red[0] = 1
    drawn = panel([[Tile("red", red), Tile("map", torch.full((1, 10, 40), 0.5))], [Tile("one", red)]])
    assert drawn.shape == (2 * (20 + BAR), 100, 3)
    assert (drawn[BAR : BAR + 20, :60] == [255, 0, 0]).all()
    assert (drawn[BAR : BAR + 10, 60:] == 128).all()
    assert drawn[:BAR, :60].max() > 200  # a caption is drawn
    assert not drawn[BAR + 10 : BAR + 20, 60:].any() and not drawn[20 + 2 * BAR :, 60:].any()


def test_a_caption_is_drawn_whatever_a_file_is_called():
    """OpenCV ends the process where a name is not UTF-8."""
    drawn = [panel([[Tile(caption, torch.zeros(1, 10, 120))]]) for caption in ("gr\udcff", "gr\\udcff", "gr")]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_values_outside_the_range_are_clamped_and_an_empty_panel_is_refused():
    drawn = panel([[Tile("", torch.tensor([-1.0, 0.25, 7.0]).reshape(1, 1, 3))]])
    assert drawn[BAR, :, 0].tolist() == [0, 64, 255]
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match="a panel of no pictures"):
            panel(rows)


def test_only_branches_with_a_map_are_shown():
    image, maps = torch.zeros(1, 3, 4, 4), torch.rand(1, 1, 4, 4)
    prediction = Prediction(image, {"streak": Branch(maps, image, image), "drop": Branch(None, image, image)})
    (tile,) = attention_tiles(prediction)
    assert tile.caption == "S+ streak" and torch.equal(tile.image, maps[0])


def test_tensorboard_gets_scalars_and_panels_at_every_validation_and_after_resuming(tmp_path, picture):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for folder in ("train", "test"):
        write_frames(tmp_path / folder, [picture(index, 48, 36) for index in range(5)])
    config = TrainConfig.model_validate(
        {
            "network": {"name": "daiam-nano"},
            "data": {"root": tmp_path, "folders": ["train"], "validation": "test", "patch": 32},
            "optimiser": {"iterations": 4, "batch": 1},
            "machine": {"accelerator": "cpu", "threads": 1},
            "validate_every": 2,
            "log_every": 1,
            "tensorboard": True,
            "out": tmp_path / "run",
        }
    )
    train(config, minutes=1e-9)
    train(config, resume=True)
    events = event_accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"train/loss", "train/psnr", "val/psnr", "val/gain"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3]
    assert set(events.Tags()["images"]) == {f"val/{index}" for index in range(4)}
    shown = events.Images("val/3")
    assert [image.step for image in shown] == [2, 4]
    drawn = cv2.imdecode(np.frombuffer(shown[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (36 + BAR, 7 * 48, 3)  # rainy, output, truth, two maps, two masks
    assert min(drawn[BAR:, 48 * tile : 48 * (tile + 1)].std() for tile in range(7)) > 0
