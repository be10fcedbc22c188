"""What a run trains on and holds out: no test split ever, pairs as patches, and masks of what was not rendered."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from derain.training.config import TrainConfig
from derain.training.data import TEST_ONLY, DataConfig, PairsConfig, to_tensor
from derain.training.dataset import Dataset, HeldOutPairs, find_dataset
from derain.training.layouts import SPLITS, list_set, read_set
from derain.training.patches import PairPatches, paired
from derain.training.rain import MASK_FULL
from derain.training.readers import Pair, PairFiles
from derain.training.trainer import train
from derain_tests.layouts import qian, write_flat


def trained_on(root: Path, *sets: PairsConfig, validation: PairsConfig | None = None) -> list[str]:
    data = DataConfig(root=root, pairs=sets, validation="frames", validation_pairs=validation)
    return find_dataset(data).names()["train"]


def test_no_test_split_is_trained_on_whatever_it_is_called(tmp_path):
    write_flat(tmp_path / "frames/x.png", 1)
    qian(tmp_path / "drops")
    names = trained_on(tmp_path, PairsConfig(layout="qian", path="drops"))
    assert len(names) == 6 and not [name for name in names if "test" in name]
    for split in ("test", "test_b"):
        with pytest.raises(ValueError, match=rf"^data\.pairs names the split '{split}' of 'drops': train on 'train'$"):
            trained_on(tmp_path, PairsConfig(layout="qian", path="drops", split=split))
    for layout, splits in SPLITS.items():
        for split, names in splits.items():
            for name in names if split != "train" else ():
                write_flat(tmp_path / layout / name / "x.png", 1)
                with pytest.raises((ValueError, FileNotFoundError)):
                    trained_on(tmp_path, PairsConfig(layout=layout, path=Path(layout) / name))


def test_a_folder_called_train_within_a_test_split_is_not_trained_on(tmp_path):
    write_flat(tmp_path / "frames/x.png", 1)
    for part, name in (("data", "1_rain.png"), ("gt", "1_clean.png")):
        write_flat(tmp_path / "drops/test_a/train" / part / name, 1)
    with pytest.raises(FileNotFoundError, match=r"no train in .*drops'?: expected the layout 'qian'"):
        trained_on(tmp_path, PairsConfig(layout="qian", path="drops"))
    (tmp_path / "drops/test_a").rename(tmp_path / "drops/set_a")
    assert len(trained_on(tmp_path, PairsConfig(layout="qian", path="drops"))) == 2


@pytest.mark.parametrize("place", TEST_ONLY)
def test_pairs_within_what_is_for_testing_only_are_refused(tmp_path, place):
    with pytest.raises(ValueError, match=r"^data\.pairs names '.*', but '.*' is for testing only: take it out$"):
        trained_on(tmp_path, PairsConfig(layout="folders", path=f"x/../{place}/"))


def test_pairs_that_show_a_test_scene_are_left_out(tmp_path, picture):
    scenes = [picture(seed, 48, 36) for seed in range(3)]
    (tmp_path / "rain100/clean").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "rain100/clean/1.webp"), scenes[1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    for index, scene in enumerate(scenes):
        for folder in ("rainy", "clean"):
            (tmp_path / "mine" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "mine" / folder / f"{index}.png"), scene)
    write_flat(tmp_path / "frames/x.png", 1)
    config = settings(tmp_path)
    patches = find_dataset(config.data).patches(config, 0, 1)
    kept = [pair.read().clean[..., ::-1] for pair in patches.pairs]
    assert [np.array_equal(*both) for both in zip(kept, (scenes[0], scenes[2]), strict=True)] == [True, True]
    named = find_dataset(config.data).names()["train"]
    assert named == ["mine/rainy/0.png", "mine/clean/0.png", "mine/rainy/2.png", "mine/clean/2.png"]


def test_what_is_validated_on_is_not_trained_on(tmp_path):
    qian(tmp_path / "drops")
    same = PairsConfig(layout="qian", path="drops/../drops")
    for again in (same, PairsConfig(layout="qian", path="drops/train")):
        with pytest.raises(ValueError, match=r"0_rain\.png would be both trained and validated on: name another set"):
            trained_on(tmp_path, PairsConfig(layout="qian", path="drops"), validation=again)
    held_out = PairsConfig(layout="qian", path="drops", split="test")
    assert len(trained_on(tmp_path, PairsConfig(layout="qian", path="drops"), validation=held_out)) == 6


def test_one_crop_goes_through_the_three_images_of_a_pair(picture):
    clean = picture(1, 60, 50)
    pair = Pair("x", 255 - clean, clean, clean // 2)
    batches = list(PairPatches([pair], 2, 24, 1, 0, 3))
    assert len(batches) == 3
    for rainy, drops, truth, streaks_mask, _ in batches:
        torch.testing.assert_close(streaks_mask, ((rainy - drops).abs().mean(1, keepdim=True) / 0.5).clamp_max(1))
        assert rainy.shape == (2, 3, 24, 24)
        torch.testing.assert_close(rainy, 1 - truth, atol=1.01 / 255, rtol=0)
        torch.testing.assert_close(drops, truth / 2, atol=1.51 / 255, rtol=0)


def test_a_set_of_files_is_decoded_pair_by_pair_and_gives_the_patches_of_one_in_memory(tmp_path, picture):
    for index in range(3):
        for folder, image in (("rainy", picture(index, 60, 50)), ("clean", picture(index + 9, 60, 50))):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{index}.png"), image)
    config = PairsConfig(layout="folders", path=Path())
    files, decoded = list_set(tmp_path, config), list(read_set(tmp_path, config))
    assert [pair.shape for pair in files] == [pair.shape for pair in decoded] == [(50, 60, 3)] * 3
    patches = PairPatches(files, 2, 24, 1, 0, 3)
    for left, right in zip(patches, PairPatches(decoded, 2, 24, 1, 0, 3), strict=True):
        assert all(torch.equal(*both) for both in zip(left, right, strict=True))
    assert not any(isinstance(pair, Pair) for pair in patches.pairs)


@pytest.mark.parametrize(
    ("frame_height", "jitter", "told"),
    [(48, 1.4, False), (60, 1.4, False), (480, 1.4, True), (20, 1.4, True), (85, 1.4, True), (85, 1.8, False)],
)
def test_rain_of_other_frames_than_the_images_is_told(frame_height, jitter, told, tmp_path, picture, caplog):
    (tmp_path / "images").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"images/{index}.png"), picture(index, 60, 50))
    settings = {"network": {"name": "daiam-nano"}, "optimiser": {"iterations": 1, "batch": 1}, "out": tmp_path / "run"}
    config = TrainConfig(**settings, data={"patch": 24}, rain={"frame_height": frame_height, "scale_jitter": jitter})
    files = sorted((tmp_path / "images").iterdir())
    Dataset(config.data, files, [], []).patches(config, 0, 1)
    assert ("expected rain.frame_height: 50" in caplog.text) is told


def test_held_out_pairs_stay_files_until_asked_for_and_their_headers_are_compared_before(tmp_path, picture):
    for index in range(3):
        for folder in ("rainy", "clean"):
            (tmp_path / "held" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"held/{folder}/{index}.png"), picture(index + 9 * len(folder), 60, 50))
    data = DataConfig(root=tmp_path, validation_pairs=PairsConfig(layout="folders", path=Path("held")))
    dataset = Dataset(data, [], [], [])
    frames = dataset.frames(1, 2)
    assert isinstance(frames, HeldOutPairs) and all(isinstance(files, PairFiles) for _, files in frames.pairs)
    ((index, (rainy, drops, clean)),) = frames
    pair = list(read_set(tmp_path, data.validation_pairs))[1]
    assert index == 1
    for tensor, image in ((rainy, pair.rainy), (drops, pair.clean), (clean, pair.clean)):
        assert torch.equal(tensor, to_tensor(image))
    with pytest.raises(ValueError, match=r"^3 held-out pictures for 4 processes, expected one each or more: add some"):
        dataset.frames(0, 4)
    write_flat(tmp_path / "held/clean/2.png", 9)
    with pytest.raises(ValueError, match=r"rainy/2\.png is 60x50 and .*clean/2\.png 40x30: expected one size a pair"):
        dataset.frames(0, 2)


def test_masks_of_real_pairs_are_those_of_rendered_rain():
    rainy, drops, clean = (torch.full((1, 3, 4, 4), value) for value in (0.5, 0.4, 0.2))
    rain = paired([rainy, drops, clean])
    assert rain.mask_streak.unique().tolist() == pytest.approx([0.1 / MASK_FULL])
    assert rain.mask_drop.unique().tolist() == pytest.approx([0.2 / MASK_FULL])


def settings(root: Path, **data) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "network": {"name": "daiam-nano"},
            "data": {
                "root": root,
                "validation": "frames",
                "pairs": [{"layout": "folders", "path": "mine"}],
                "patch": 32,
                **data,
            },
            "optimiser": {"iterations": 40, "batch": 2, "learning_rate": 3e-3, "warm_up": 2, "ema_decay": 0.5},
            "machine": {"accelerator": "cpu", "threads": 1},
            "out": root / "run",
        }
    )


def test_a_network_learns_from_real_pairs(tmp_path, picture):
    """A haze that is easy to take off; validated on pairs too, of an odd size."""
    for folder, count in (("mine", 3), ("other", 2)):
        for index in range(count):
            clean = picture(index + 10 * count, 49, 38)
            for name, image in (("rainy", clean // 2 + 100), ("clean", clean)):
                (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(tmp_path / folder / name / f"{index}.png"), image)
    train(settings(tmp_path, validation_pairs={"layout": "folders", "path": "other"}))
    row = (tmp_path / "run/metrics.csv").read_text().splitlines()[-1].split(",")
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0].split(",")
    measured = dict(zip(header, row, strict=True))
    expected = -10 * np.log10(
        np.mean(
            [
                ((picture(i + 20, 49, 38)[:36, :48] // 2 + 100.0 - picture(i + 20, 49, 38)[:36, :48]) / 255) ** 2
                for i in range(2)
            ]
        )
    )
    assert float(measured["val/psnr_input"]) == pytest.approx(expected, abs=0.1)
    assert float(measured["val/gain"]) > 1
