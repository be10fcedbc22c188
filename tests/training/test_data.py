"""Which files are trained on, which never are, and what a batch of patches depends on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from derain.training.data import (
    TEST_FRAMES,
    TEST_ONLY,
    DataConfig,
    held_out_files,
    list_images,
    read_rgb,
    to_tensor,
    training_files,
)
from derain.training.patches import Crop, RenderedPatches, cut, frames_of, refuse_little_shared_memory
from derain.training.rain import RainConfig, render
from derain.training.readers import ImageFile, decoded


def write(folder: Path, count: int, image: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03d}.png"), image)


@pytest.fixture
def root(tmp_path: Path, picture) -> Path:
    for folder, count in (("backgrounds/camvid", 21), ("backgrounds/bsds", 3), ("rain100/clean", 2)):
        write(tmp_path / folder, count, picture())
    return tmp_path


def test_the_real_split_trains_on_nothing_that_is_for_testing(data_root):
    config = DataConfig(root=data_root)
    train, test = training_files(config), held_out_files(config)
    camvid = list_images(data_root / "backgrounds/camvid")
    assert test == [file for index, file in enumerate(camvid) if index % 10 == 0]
    assert len(test) == 60
    assert set(train) & set(test) == set()
    assert len(train) == len(set(train)) > 1000
    assert [file for file in train for place in TEST_ONLY if file.is_relative_to(data_root / place)] == []
    assert {file for file in camvid if file in train} == set(camvid) - set(test)


def test_photos_that_are_frames_of_the_clip_are_not_trained_on(root, data_root):
    road = root / "backgrounds/road"
    road.mkdir()
    for name in (*TEST_FRAMES, "x.jpg"):
        (road / name).touch()
    assert training_files(DataConfig(root=root, folders=("backgrounds/road",))) == [road / "x.jpg"]
    assert {file.name for file in list_images(data_root / "backgrounds/road")} > set(TEST_FRAMES)


def test_a_root_of_another_depth_holds_out_the_same_frames(root):
    config = DataConfig(root=root / "backgrounds", folders=("camvid",), validation="camvid")
    assert [int(file.stem) for file in held_out_files(config)] == [0, 10, 20]
    assert not set(held_out_files(config)) & set(training_files(config))


@pytest.mark.parametrize("spelt", ["backgrounds/camvid", "backgrounds/camvid/", "./backgrounds/../backgrounds/camvid"])
def test_every_tenth_camvid_frame_is_held_out_however_the_folder_is_spelt(root, spelt):
    config = DataConfig(root=root, folders=(spelt,), validation=spelt)
    assert {int(file.stem) for file in training_files(config)} == set(range(21)) - {0, 10, 20}
    assert [int(file.stem) for file in held_out_files(config)] == [0, 10, 20]


def test_a_link_to_a_held_out_folder_does_not_let_its_test_frames_in(root):
    (root / "mine").symlink_to(root / "backgrounds/camvid")
    assert len(training_files(DataConfig(root=root, folders=("mine",)))) == 18


@pytest.mark.parametrize(
    "folder",
    [
        "rain100",
        "rain100/clean",
        "rain100/light/",
        "./rain100/heavy",
        "backgrounds/../rain100/clean",
        "sequences/camvid_val",
        "sequences",
        "real_rain/stills",
        "real_rain",
        ".",
    ],
)
def test_folders_for_testing_only_and_their_parents_are_refused_by_name(root, folder):
    with pytest.raises(ValueError, match=r"^data\.folders names '.*', but '.*' is for testing only: take it out$") as e:
        training_files(DataConfig(root=root, folders=("backgrounds/bsds", folder)))
    assert repr(folder) in str(e.value)


@pytest.mark.parametrize(("inside", "folder"), [("rain100", "clean"), ("rain100/light", "."), ("real_rain", "stills")])
def test_a_root_inside_what_is_for_testing_only_does_not_let_it_in(root, inside, folder):
    with pytest.raises(ValueError, match=rf"names '{folder}', .*for testing only: take it out"):
        training_files(DataConfig(root=root / inside, folders=(folder,)))


def test_links_to_test_images_do_not_let_them_in(root):
    (root / "mine").mkdir()
    for file in list_images(root / "rain100/clean"):
        (root / "mine" / file.name).symlink_to(file)
    with pytest.raises(ValueError, match=r"^data\.folders names '.*rain100/clean/.*', .*for testing only: take it out"):
        training_files(DataConfig(root=root, folders=("mine",)))
    for link in (root / "mine").iterdir():
        link.unlink()
        link.symlink_to(list_images(root / "backgrounds/bsds")[0])
    assert len(training_files(DataConfig(root=root, folders=("mine",)))) > 0


def test_a_folder_of_which_nothing_is_held_out_validates_whole_unless_it_is_trained_on(root):
    assert (
        len(held_out_files(DataConfig(root=root, folders=("backgrounds/camvid",), validation="backgrounds/bsds"))) == 3
    )
    with pytest.raises(ValueError, match=r"data\.validation names 'backgrounds/bsds/', which is trained on"):
        held_out_files(DataConfig(root=root, folders=("backgrounds/bsds",), validation="backgrounds/bsds/"))


def test_a_missing_or_empty_folder_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(FileNotFoundError, match=rf"no images in '.*{folder}': expected a folder of .*\.png"):
            list_images(tmp_path / folder)
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^data\.validation: no images in '.*backgrounds/camvid'"):
        held_out_files(DataConfig(root=tmp_path, folders=("mine",)))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_that_ends_early_is_refused_by_name(tmp_path, picture, suffix):
    whole = cv2.imencode(suffix, picture())[1].tobytes()
    path = tmp_path / f"torn{suffix}"
    path.write_bytes(whole)
    assert read_rgb(path).shape == (48, 64, 3)
    for kept in (len(whole) // 2, 0):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=rf"torn\{suffix} cannot be decoded as a whole image: replace it"):
            read_rgb(path)


def test_images_are_read_as_rgb_and_become_planes_from_0_to_1(tmp_path):
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    tensor = to_tensor(read_rgb(tmp_path / "red.png"))
    assert tensor.shape == (3, 4, 5)
    assert tensor.amax((1, 2)).tolist() == [1.0, 0.0, 0.0]


def test_16_bits_become_8_and_a_raw_camera_s_12_of_16_are_refused_instead_of_black(tmp_path, picture):
    image = picture()
    cv2.imwrite(str(tmp_path / "whole.png"), image.astype(np.uint16) * 257)
    assert np.array_equal(read_rgb(tmp_path / "whole.png"), image[..., ::-1])
    cv2.imwrite(str(tmp_path / "raw.png"), image.astype(np.uint16) * 16)
    with pytest.raises(
        ValueError, match=r"raw\.png holds uint16 values up to \d+, expected 8 bits, or 16 of which all"
    ):
        read_rgb(tmp_path / "raw.png")


def patches(images, seed: int = 1, start: int = 0, stop: int = 4, patch: int = 24) -> list[torch.Tensor]:
    return [batch.clean for batch in RenderedPatches(images, RainConfig(), 3, patch, seed, start, stop)]


def test_batch_i_depends_on_the_seed_and_i_alone(picture):
    images = [picture(seed) for seed in range(4)]
    whole, resumed = patches(images), patches(images, start=2)
    assert len(whole) == 4 and len(RenderedPatches(images, RainConfig(), 3, 24, 1, 1, 4)) == 3
    assert whole[0].shape == (3, 3, 24, 24)
    for a, b in zip(whole[2:], resumed, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], patches(images, seed=2)[0])
    np.random.default_rng(0).random()
    torch.rand(7)
    assert torch.equal(patches(images)[0], whole[0])


def test_patches_are_crops_flips_and_shrinks_of_the_images():
    """A ramp from left to right says where a patch was cut, how it was scaled and whether it was flipped."""
    ramp = np.repeat(np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 120, 0), 3, 2)
    batches = torch.cat(patches([ramp], stop=60, patch=40))
    slopes = (batches[..., 38] - batches[..., 1]).mean((1, 2)) * 255 / 37 / 2
    assert 0.35 < (slopes < 0).float().mean() < 0.65
    assert 0.99 < slopes.abs().min() < 1.05 and 1.5 < slopes.abs().max() < 1.7  # pixels of the image a pixel
    assert batches.mean((1, 2, 3)).std() > 0.1


def test_an_image_smaller_than_the_patch_is_refused(picture):
    told = r"^b\.png is 64x48, smaller than the patch of 64, and so are 2 of 3 images: lower data\.patch, or take"
    with pytest.raises(ValueError, match=told):
        names = ["a.png", "b.png", "c.png"]
        RenderedPatches([picture(1, 64, 64), picture(), picture()], RainConfig(), 1, 64, 0, 0, 1, names=names)


def test_an_image_just_as_large_as_the_patch_is_used_whole(picture):
    image = picture(width=32, height=32)
    whole = to_tensor(image)
    for patch in torch.cat(patches([image], patch=32)):
        assert torch.equal(patch, whole) or torch.equal(patch, whole.flip(2))


@pytest.mark.parametrize("flipped", [False, True])
def test_a_patch_has_the_rain_of_its_frame(picture, flipped):
    """To a grey level, but for its outermost pixels: the frame that drops show goes through bytes."""
    image, rain = picture(3, 160, 120), RainConfig(kinds="both", strength=0.8, style="physical", frame_height=120)
    frame = np.ascontiguousarray(image[:, ::-1]) if flipped else image
    whole = render(to_tensor(frame)[None], 7, rain)
    crop = Crop(0, 24, 50, 64, flipped)
    left = 160 - 50 - 64 if flipped else 50
    part = render(to_tensor(cut(image, crop, 64))[None], 7, rain, frames=frames_of([image], [crop], 64))
    for own, frames_own in zip(part, whole, strict=True):
        there = frames_own[..., 24:88, left : left + 64]
        torch.testing.assert_close(own[..., 1:-1, 1:-1], there[..., 1:-1, 1:-1], rtol=0, atol=2 / 255)
    assert (part.rainy - part.clean).abs().mean() > 0.01


def test_a_patch_that_shrinks_lies_in_a_frame_that_shrinks(picture):
    images = [picture(1, 100, 60), picture(2, 90, 72)]
    frames = frames_of(images, [Crop(0, 20, 40, 40, False), Crop(1, 12, 30, 48, True)], 32)
    assert torch.stack(frames.place).T.tolist() == [[16, 32, 48, 80], [8, 8, 48, 60]]
    assert [tuple(view.shape) for view in frames.views] == [(3, 12, 20), (3, 12, 15)]
    for image, mean, deviation in zip(images, frames.mean, frames.deviation, strict=True):
        torch.testing.assert_close(mean, to_tensor(image).mean((1, 2)))
        torch.testing.assert_close(deviation, to_tensor(image).std((1, 2), correction=0))


@pytest.mark.parametrize("folder", [".", "./"])
def test_a_root_is_trained_on_whole_where_nothing_below_it_is_for_testing(tmp_path, folder, picture):
    write(tmp_path / "mine", 3, picture())
    config = DataConfig(root=tmp_path / "mine", folders=(folder,))
    assert len(training_files(config)) == 3


def test_frames_beyond_the_memory_asked_for_are_decoded_when_due_to_the_same_patches(tmp_path, picture):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture(index, 40, 36))
    files, rain = list_images(tmp_path), RainConfig(kinds="both")
    whole = [batch.rainy for batch in RenderedPatches(list(decoded(files, 1e9)), rain, 4, 32, 1, 0, 5)]
    some = list(decoded(files, 40 * 36 * 3))
    assert [isinstance(frame, ImageFile) for frame in some] == [False, True, True]
    for one, other in zip(whole, RenderedPatches(some, rain, 4, 32, 1, 0, 5), strict=True):
        assert torch.equal(one, other.rainy)


def test_batches_that_shared_memory_does_not_hold_are_refused_before_they_hang(monkeypatch, tmp_path):
    refuse_little_shared_memory(0, 1000, 1000)
    refuse_little_shared_memory(1, 1, 16)
    with pytest.raises(OSError, match=r"MiB free, the batches of machine\.workers=12 take [0-9]+: lower"):
        refuse_little_shared_memory(12, 100_000, 1000)
