"""Every layout that pairs come in, what a reader refuses, and that no test split is ever trained on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from derain.training.config import TrainConfig
from derain.training.data import TEST_ONLY, DataConfig, PairsConfig, read_rgb, to_tensor
from derain.training.material import HeldOutPairs, Material, find_material
from derain.training.patches import PairPatches, paired
from derain.training.rain import MASK_FULL, RainConfig
from derain.training.rain.pairs import synthesize
from derain.training.readers import SPLITS, Pair, PairFiles, _header_size, list_set, read_clips, read_pairs, read_set
from derain.training.trainer import train


def flat(value: int, width: int = 40, height: int = 30) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write(file: Path, value: int, **size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), flat(value, **size))


def pairs(root: Path, layout: str, split: str = "train", **changes) -> dict[str, tuple[int, int | None, int]]:
    """By name: what rainy, drops and clean were filled with."""
    config = PairsConfig(layout=layout, path=Path(), split=split, **changes)
    return {
        pair.name: (pair.rainy.min(), None if pair.drops is None else pair.drops.min(), pair.clean.min())
        for pair in read_set(root, config)
    }


def qian(root: Path) -> None:
    for split, first in (("train", 10), ("test_a", 60), ("test_b", 90)):
        for number in (0, 2, 11):
            write(root / split / "data" / f"{number}_rain.png", first + number)
            write(root / split / "gt" / f"{number}_clean.png", 100 + first + number)


def test_qian_s_drops_are_paired_by_number_in_their_split(tmp_path):
    qian(tmp_path)
    assert pairs(tmp_path, "qian") == {"0": (10, 10, 110), "11": (21, 21, 121), "2": (12, 12, 112)}
    assert pairs(tmp_path, "qian", "test")["2"] == (62, 62, 162)
    assert pairs(tmp_path, "qian", "test_b")["2"] == (92, 92, 192)
    assert pairs(tmp_path / "train", "qian") == pairs(tmp_path, "qian")
    with pytest.raises(ValueError, match=r"test_a is not the train split of layout 'qian': expected 'train'"):
        pairs(tmp_path / "test_a", "qian")


@pytest.mark.parametrize(
    ("split", "rainy", "clean"),
    [
        ("rain_data_train_Heavy", "rain/X2/norain-{}x2.png", "norain/norain-{}.png"),
        ("rain_data_train_Light", "rain/norain-{}x2.png", "norain/norain-{}.png"),
        ("RainTrainH", "rain-{}.png", "norain-{}.png"),
        ("RainTrainL", "rainy/rain-00{}.png", "norain-00{}.png"),
        ("train", "input/{}.png", "target/{}.png"),
    ],
)
def test_rain100_is_read_as_published_and_as_others_repacked_it(tmp_path, split, rainy, clean):
    for number in (3, 7):
        write(tmp_path / split / rainy.format(number), number)
        write(tmp_path / split / clean.format(number), 100 + number)
        write(tmp_path / "Rain100H" / f"rain-{number}.png", 50)
        write(tmp_path / "Rain100H" / f"norain-{number}.png", 60)
    assert pairs(tmp_path, "rain100") == {"3": (3, 103, 103), "7": (7, 107, 107)}
    assert pairs(tmp_path, "rain100", "test") == {"3": (50, 60, 60), "7": (50, 60, 60)}


@pytest.mark.parametrize("real", [True, False])
def test_rainds_gives_the_drops_beneath_the_streaks_of_its_joint_images(tmp_path, real):
    names = ("{}", "{}", "{}", "{}") if real else ("norain-{}", "rd-{}", "rain-{}", "rd-rain-{}")
    folders = ("gt", "raindrop", "rainstreak", "rainstreak_raindrop")
    for prefix, extra in (("", 0),) if real else (("", 0), ("pie-", 5)):
        for kind, (folder, name) in enumerate(zip(folders, names, strict=True)):
            write(tmp_path / "train_set" / folder / (prefix + name.format(2) + ".png"), 10 * kind + 10 + extra)
    found = pairs(tmp_path, "rainds")
    assert found["raindrop/2"] == (20, 20, 10)
    assert found["rainstreak/2"] == (30, 10, 10)
    assert found["rainstreak_raindrop/2"] == (40, 20, 10)
    assert real or found["rainstreak_raindrop/pie-2"] == (45, 25, 15)
    assert len(found) == (3 if real else 6)


def test_spa_data_is_what_its_list_says(tmp_path):
    for number in (1, 2):
        write(tmp_path / f"training/real_world/a/{number}.png", number)
        write(tmp_path / "training/real_world_gt/a.png", 99)
    listed = "".join(f"/real_world/a/{number}.png /real_world_gt/a.png\n" for number in (1, 2))
    (tmp_path / "training/real_world.txt").write_text(listed)
    assert pairs(tmp_path, "spa") == {"real_world/a/1.png": (1, 99, 99), "real_world/a/2.png": (2, 99, 99)}
    (tmp_path / "training/real_world.txt").write_text(listed + "/real_world/a/3.png /real_world_gt/a.png\n")
    with pytest.raises(ValueError, match=r"real_world\.txt, line 3 names .*a/3\.png, which is not there"):
        pairs(tmp_path, "spa")
    (tmp_path / "training/real_world.txt").write_text("/real_world/a/1.png\n")
    with pytest.raises(
        ValueError, match=r"line 1 is '/real_world/a/1\.png': expected the rainy file and the clean one"
    ):
        pairs(tmp_path, "spa")


def test_folders_are_read_as_synthesize_leaves_them_and_without_drops_as_their_kind_says(tmp_path, picture):
    write(tmp_path / "photos/one.png", 90, width=64, height=48)
    synthesize(tmp_path / "photos", tmp_path / "made", 1, RainConfig(kinds="both", strength=1.0))
    (pair,) = read_set(tmp_path, PairsConfig(layout="folders", path=Path("made")))
    for image, folder in ((pair.rainy, "rainy"), (pair.drops, "drops"), (pair.clean, "clean")):
        np.testing.assert_array_equal(image[..., ::-1], cv2.imread(str(tmp_path / "made" / folder / "one.png")))
    assert not np.array_equal(pair.drops, pair.clean) and not np.array_equal(pair.drops, pair.rainy)
    write(tmp_path / "plain/rainy/x.png", 5)
    write(tmp_path / "plain/clean/x.png", 9)
    assert pairs(tmp_path / "plain", "folders") == {"x": (5, 9, 9)}
    assert pairs(tmp_path / "plain", "folders", kind="drops") == {"x": (5, 5, 9)}


def clip(file: Path, values: list[int], **size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = flat(0, **size).shape
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"FFV1"), 25, (shape[1], shape[0]))
    for value in values:
        writer.write(flat(value, **size))
    writer.release()


def test_clips_are_paired_frame_by_frame(tmp_path):
    clip(tmp_path / "rainy.mkv", [10, 20, 30])
    clip(tmp_path / "clean.mkv", [15, 25, 35])
    assert pairs(tmp_path, "clips") == {f"00000{i}": (10 * i + 10, 10 * i + 15, 10 * i + 15) for i in range(3)}
    assert [pair.name for pair in read_pairs(tmp_path / "rainy.mkv", tmp_path / "clean.mkv")][2] == "000002"
    clip(tmp_path / "short.mkv", [15, 25])
    clip(tmp_path / "small.mkv", [15, 25, 35], width=32)
    with pytest.raises(ValueError, match=r"short\.mkv ends after 2 frames, .*rainy\.mkv does not"):
        list(read_clips(tmp_path / "rainy.mkv", tmp_path / "short.mkv"))
    with pytest.raises(ValueError, match=r"rainy\.mkv is 40x30 and .*small\.mkv 32x30: expected clips of one size"):
        list(read_clips(tmp_path / "rainy.mkv", tmp_path / "small.mkv"))
    with pytest.raises(FileNotFoundError, match=r"0 files .*nothing/rainy'\.\*: expected one clip of that name"):
        pairs(tmp_path / "nothing", "clips")


def test_the_first_pair_that_does_not_match_is_named(tmp_path):
    qian(tmp_path)
    (tmp_path / "train/gt/2_clean.png").unlink()
    with pytest.raises(ValueError, match=r"train/data/2_rain\.png has no partner of that name in .*train/gt"):
        pairs(tmp_path, "qian")
    write(tmp_path / "train/gt/2_clean.png", 9, width=38)
    with pytest.raises(ValueError, match=r"data/2_rain\.png is 40x30 and .*gt/2_clean\.png 38x30: expected one size"):
        pairs(tmp_path, "qian")
    write(tmp_path / "train/gt/2_other.png", 9)
    with pytest.raises(ValueError, match=r"2_other\.png and 2_clean\.png have one name"):
        pairs(tmp_path, "qian")
    (tmp_path / "train/gt/2_other.png").rename(tmp_path / "train/gt/other.png")
    with pytest.raises(ValueError, match=r"other\.png has no number in its name"):
        pairs(tmp_path, "qian")
    with pytest.raises(FileNotFoundError, match=r"no train_set or train in .*test_a'?: expected the layout 'rainds'"):
        pairs(tmp_path / "test_a", "rainds")


def trained_on(root: Path, *sets: PairsConfig, validation: PairsConfig | None = None) -> list[str]:
    data = DataConfig(root=root, pairs=sets, validation="frames", validation_pairs=validation)
    return find_material(data).names()["train"]


def test_no_test_split_is_trained_on_whatever_it_is_called(tmp_path):
    write(tmp_path / "frames/x.png", 1)
    qian(tmp_path / "drops")
    assert not [name for name in trained_on(tmp_path, PairsConfig(layout="qian", path="drops")) if "test" in name]
    for split in ("test", "test_b"):
        with pytest.raises(ValueError, match=rf"^data\.pairs names the split '{split}' of 'drops': train on 'train'$"):
            trained_on(tmp_path, PairsConfig(layout="qian", path="drops", split=split))
    for layout, splits in SPLITS.items():
        for split, names in splits.items():
            for name in names if split != "train" else ():
                write(tmp_path / layout / name / "x.png", 1)
                with pytest.raises((ValueError, FileNotFoundError)):
                    trained_on(tmp_path, PairsConfig(layout=layout, path=Path(layout) / name))


def test_a_folder_called_train_within_a_test_split_is_not_trained_on(tmp_path):
    write(tmp_path / "frames/x.png", 1)
    for part, name in (("data", "1_rain.png"), ("gt", "1_clean.png")):
        write(tmp_path / "drops/test_a/train" / part / name, 1)
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
    write(tmp_path / "frames/x.png", 1)
    config = settings(tmp_path)
    patches = find_material(config.data).patches(config, 0, 1)
    kept = [pair.read().clean[..., ::-1] for pair in patches.pairs]
    assert [np.array_equal(*both) for both in zip(kept, (scenes[0], scenes[2]), strict=True)] == [True, True]
    named = find_material(config.data).names()["train"]
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


def test_held_out_pairs_stay_files_until_asked_for_and_their_headers_are_compared_before(tmp_path, picture):
    for index in range(3):
        for folder in ("rainy", "clean"):
            (tmp_path / "held" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"held/{folder}/{index}.png"), picture(index + 9 * len(folder), 60, 50))
    data = DataConfig(root=tmp_path, validation_pairs=PairsConfig(layout="folders", path=Path("held")))
    material = Material(data, [], [], [])
    frames = material.frames(1, 2)
    assert isinstance(frames, HeldOutPairs) and all(isinstance(files, PairFiles) for _, files in frames.pairs)
    ((index, (rainy, drops, clean)),) = frames
    pair = list(read_set(tmp_path, data.validation_pairs))[1]
    assert index == 1
    for tensor, image in ((rainy, pair.rainy), (drops, pair.clean), (clean, pair.clean)):
        assert torch.equal(tensor, to_tensor(image))
    with pytest.raises(ValueError, match=r"^3 held-out pictures for 4 processes, expected one each or more: hold out"):
        material.frames(0, 4)
    write(tmp_path / "held/clean/2.png", 9)
    with pytest.raises(ValueError, match=r"rainy/2\.png is 60x50 and .*clean/2\.png 40x30: expected one size a pair"):
        material.frames(0, 2)


def test_headers_say_the_size_that_decoding_gives_or_that_there_is_none(tmp_path):
    write(tmp_path / "rainy/x.jpg", 9)
    write(tmp_path / "clean/x.jpg", 9)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(flat(9, width=30, height=40)).save(tmp_path / "clean/x.jpg", exif=turned)
    (files,) = list_set(tmp_path, PairsConfig(layout="folders", path=Path()))
    assert files.shape == files.read().clean.shape == (30, 40, 3)
    write(tmp_path / "clean/x.jpg", 9, width=38)
    with pytest.raises(ValueError, match=r"rainy/x\.jpg is 40x30 and .*clean/x\.jpg 38x30: expected one size a pair"):
        _ = files.shape
    (tmp_path / "clean/x.jpg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"clean/x\.jpg is no image that can be decoded: replace it or take its pair"):
        _ = files.shape


def test_a_header_is_read_without_decoding_the_picture(tmp_path):
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(flat(9)).save(tmp_path / "plain.png")
    Image.fromarray(flat(9)).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(flat(9)).save(tmp_path / "turned.webp", exif=turned)
    assert [_header_size(tmp_path / name) for name in ("plain.png", "turned.png", "turned.webp")] == [
        (30, 40),
        (40, 30),
        (40, 30),
    ]
    whole = (tmp_path / "plain.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 40])
    assert _header_size(tmp_path / "cut.png") == (30, 40)
    with pytest.raises(ValueError, match=r"cut\.png"):
        read_rgb(tmp_path / "cut.png")


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
