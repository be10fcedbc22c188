"""Every layout that pairs come in, and what a reader refuses."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from derain.training.data import PairsConfig, read_rgb
from derain.training.layouts import list_set, read_set
from derain.training.rain import RainConfig
from derain.training.rain.pairs import synthesize
from derain.training.readers import _header_size, read_clips, read_pairs
from derain_tests.layouts import flat, qian, write_flat
from derain_tests.pictures import write_clip


def pairs(root: Path, layout: str, split: str = "train", **changes) -> dict[str, tuple[int, int | None, int]]:
    """By name: what rainy, drops and clean were filled with."""
    config = PairsConfig(layout=layout, path=Path(), split=split, **changes)
    return {
        pair.name: (pair.rainy.min(), None if pair.drops is None else pair.drops.min(), pair.clean.min())
        for pair in read_set(root, config)
    }


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
        write_flat(tmp_path / split / rainy.format(number), number)
        write_flat(tmp_path / split / clean.format(number), 100 + number)
        write_flat(tmp_path / "Rain100H" / f"rain-{number}.png", 50)
        write_flat(tmp_path / "Rain100H" / f"norain-{number}.png", 60)
    assert pairs(tmp_path, "rain100") == {"3": (3, 103, 103), "7": (7, 107, 107)}
    assert pairs(tmp_path, "rain100", "test") == {"3": (50, 60, 60), "7": (50, 60, 60)}


def test_of_several_splits_none_is_taken_unasked(tmp_path):
    for value, split in enumerate(("RainTrainH", "RainTrainL", "more/train/RainTrainL")):
        write_flat(tmp_path / split / "rain-1.png", 10 + value)
        write_flat(tmp_path / split / "norain-1.png", 20 + value)
    with pytest.raises(
        ValueError, match=r"holds RainTrainH, RainTrainL, more/train/RainTrainL, more/train, expected one"
    ):
        pairs(tmp_path, "rain100")
    assert pairs(tmp_path / "RainTrainL", "rain100") == {"1": (11, 21, 21)}
    assert pairs(tmp_path / "more", "rain100") == {
        "1": (12, 22, 22)
    }  # of one in another, the one that SPLITS has first
    for half in ("RainDS_real", "RainDS_syn"):
        (tmp_path / "ds" / half / "train_set").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"holds RainDS_real/train_set, RainDS_syn/train_set, expected one train split"
    ):
        pairs(tmp_path / "ds", "rainds")


@pytest.mark.parametrize("real", [True, False])
def test_rainds_gives_the_drops_beneath_the_streaks_of_its_joint_images(tmp_path, real):
    names = ("{}", "{}", "{}", "{}") if real else ("norain-{}", "rd-{}", "rain-{}", "rd-rain-{}")
    folders = ("gt", "raindrop", "rainstreak", "rainstreak_raindrop")
    for prefix, extra in (("", 0),) if real else (("", 0), ("pie-", 5)):
        for kind, (folder, name) in enumerate(zip(folders, names, strict=True)):
            write_flat(tmp_path / "train_set" / folder / (prefix + name.format(2) + ".png"), 10 * kind + 10 + extra)
    found = pairs(tmp_path, "rainds")
    assert found["raindrop/2"] == (20, 20, 10)
    assert found["rainstreak/2"] == (30, 10, 10)
    assert found["rainstreak_raindrop/2"] == (40, 20, 10)
    assert real or found["rainstreak_raindrop/pie-2"] == (45, 25, 15)
    assert len(found) == (3 if real else 6)


def test_spa_data_is_what_its_list_says(tmp_path):
    for number in (1, 2):
        write_flat(tmp_path / f"training/real_world/a/{number}.png", number)
        write_flat(tmp_path / "training/real_world_gt/a.png", 99)
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
    write_flat(tmp_path / "photos/one.png", 90, width=64, height=48)
    synthesize(tmp_path / "photos", tmp_path / "made", 1, RainConfig(kinds="both", strength=1.0))
    (pair,) = read_set(tmp_path, PairsConfig(layout="folders", path=Path("made")))
    for image, folder in ((pair.rainy, "rainy"), (pair.drops, "drops"), (pair.clean, "clean")):
        np.testing.assert_array_equal(image[..., ::-1], cv2.imread(str(tmp_path / "made" / folder / "one.png")))
    assert not np.array_equal(pair.drops, pair.clean) and not np.array_equal(pair.drops, pair.rainy)
    write_flat(tmp_path / "plain/rainy/x.png", 5)
    write_flat(tmp_path / "plain/clean/x.png", 9)
    assert pairs(tmp_path / "plain", "folders") == {"x": (5, 9, 9)}
    assert pairs(tmp_path / "plain", "folders", kind="drops") == {"x": (5, 5, 9)}


def test_clips_are_paired_frame_by_frame(tmp_path):
    write_clip(tmp_path / "rainy.mkv", [flat(value) for value in [10, 20, 30]])
    write_clip(tmp_path / "clean.mkv", [flat(value) for value in [15, 25, 35]])
    assert pairs(tmp_path, "clips") == {f"00000{i}": (10 * i + 10, 10 * i + 15, 10 * i + 15) for i in range(3)}
    assert [pair.name for pair in read_pairs(tmp_path / "rainy.mkv", tmp_path / "clean.mkv")][2] == "000002"
    write_clip(tmp_path / "short.mkv", [flat(value) for value in [15, 25]])
    write_clip(tmp_path / "small.mkv", [flat(value, width=32) for value in [15, 25, 35]])
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
    write_flat(tmp_path / "train/gt/2_clean.png", 9, width=38)
    with pytest.raises(ValueError, match=r"data/2_rain\.png is 40x30 and .*gt/2_clean\.png 38x30: expected one size"):
        pairs(tmp_path, "qian")
    write_flat(tmp_path / "train/gt/2_other.png", 9)
    with pytest.raises(ValueError, match=r"2_other\.png and 2_clean\.png have one name"):
        pairs(tmp_path, "qian")
    (tmp_path / "train/gt/2_other.png").rename(tmp_path / "train/gt/other.png")
    with pytest.raises(ValueError, match=r"other\.png has no number in its name"):
        pairs(tmp_path, "qian")
    with pytest.raises(FileNotFoundError, match=r"no train_set or train in .*test_a'?: expected the layout 'rainds'"):
        pairs(tmp_path / "test_a", "rainds")


def test_headers_say_the_size_that_decoding_gives_or_that_there_is_none(tmp_path):
    write_flat(tmp_path / "rainy/x.jpg", 9)
    write_flat(tmp_path / "clean/x.jpg", 9)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(flat(9, width=30, height=40)).save(tmp_path / "clean/x.jpg", exif=turned)
    (files,) = list_set(tmp_path, PairsConfig(layout="folders", path=Path()))
    assert files.shape == files.read().clean.shape == (30, 40, 3)
    write_flat(tmp_path / "clean/x.jpg", 9, width=38)
    with pytest.raises(ValueError, match=r"rainy/x\.jpg is 40x30 and .*clean/x\.jpg 38x30: expected one size a pair"):
        _ = files.shape
    (tmp_path / "clean/x.jpg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"clean/x\.jpg is no image that can be decoded: replace it or take its pair"):
        _ = files.shape


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_broken_exif_turns_nothing_and_a_torn_header_is_named(tmp_path, suffix):
    broken, torn = tmp_path / f"broken.{suffix}", tmp_path / "torn.webp"
    Image.fromarray(flat(9)).save(broken, exif=b"Exif\0\0garbage")
    assert _header_size(broken) == read_rgb(broken).shape[:2] == (30, 40)
    Image.fromarray(flat(9)).save(torn)
    torn.write_bytes(torn.read_bytes()[:24])
    with pytest.raises(ValueError, match=r"torn\.webp is no image that can be decoded"):
        _header_size(torn)


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


@pytest.mark.parametrize(("alike", "told"), [(9, 0), (10, 1)])
def test_a_clip_that_stands_still_from_its_first_frame_on_may_be_interlaced(alike, told, tmp_path, caplog):
    still, moving = tmp_path / "still.mkv", tmp_path / "moving.mkv"
    write_clip(still, [flat(50)] * alike + [flat(90)])
    write_clip(moving, [flat(10 * index) for index in range(alike + 1)])
    words = f"{still}: its first 10 frames are all the same: if it is interlaced"
    seen = [pair.rainy[0, 0, 0] for pair in read_clips(still, moving)]
    assert seen == [50] * alike + [90]
    assert caplog.text.count(words) == told
    assert synthesize(still, tmp_path / "out", 0, RainConfig()) == alike + 1
    assert caplog.text.count(words) == 2 * told
    assert str(moving) not in caplog.text


def test_a_clip_whose_name_opencv_cannot_be_told_is_refused(tmp_path):
    plain, clip = tmp_path / "clip.mkv", tmp_path / "grö\udcdfe.mkv"
    write_clip(plain, [flat(0)] * 2)
    clip.write_bytes(plain.read_bytes())
    refusals = (
        lambda: list(read_clips(clip, plain)),
        lambda: list(read_clips(plain, clip)),
        lambda: synthesize(clip, tmp_path / "out", 0, RainConfig()),
        lambda: synthesize(plain, clip.with_suffix(""), 0, RainConfig()),
    )
    for refused in refusals:
        with pytest.raises(ValueError, match=r"/grö\\xdfe(\.mkv)?: its name is not UTF-8: rename it"):
            refused()
    assert len(list(tmp_path.iterdir())) == 2
