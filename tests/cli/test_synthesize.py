"""`derain synthesize`: pairs on disk, and one line for bad input."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain.training.rain.pairs import PARTS
from derain.training.readers import read_pairs
from derain_tests.pictures import write_clip


def gradients(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 3 + number * 9) % 200, (y * 4) % 180, x + y + 20], -1).astype(np.uint8)


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    folder = tmp_path / "stills"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"im{number}.png"), gradients(0))
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "drive.mkv", [gradients(number) for number in range(6)], fps=20)


HEAVY = ("--strength", 0.8, "--seed", 7, "--style", "physical")


@pytest.fixture
def run(derain):
    """Renders heavy rain, or what the options say, and gives what was told of it."""

    def render(source: Path, out: Path, *options: object) -> str:
        return derain("synthesize", source, "--out", out, *HEAVY, *options).told

    return render


@pytest.fixture
def refused(derain):
    """The line that a refusal is told in, once it is certain that it left nothing."""

    def refuse(source: Path, out: Path, *options: object, ways: object = HEAVY) -> str:
        fault = derain("synthesize", source, "--out", out, *ways, *options).fault
        assert not out.exists() or not any(out.iterdir())
        assert not list(out.parent.glob(".*.partial"))
        return fault

    return refuse


def load(out: Path, kind: str) -> list[np.ndarray]:
    return [cv2.imread(str(file)) for file in sorted((out / kind).iterdir())]


def test_a_folder_becomes_pairs_with_a_new_scene_an_image(stills: Path, tmp_path: Path, run) -> None:
    run(stills, tmp_path / "out")
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {*PARTS, "rain.json"}
    for kind in PARTS:
        assert [file.name for file in sorted((tmp_path / "out" / kind).iterdir())] == ["im0.png", "im1.png", "im2.png"]
    assert all(np.array_equal(image, gradients(0)) for image in load(tmp_path / "out", "clean"))
    rainy = load(tmp_path / "out", "rainy")
    assert not np.array_equal(rainy[0], rainy[1])
    note = json.loads((tmp_path / "out" / "rain.json").read_text())
    assert note["seed"] == 7 and note["pairs"] == 3 and note["config"]["strength"] == 0.8


def test_the_same_seed_writes_the_same_bytes_and_an_added_image_changes_no_other(
    stills: Path, tmp_path: Path, run
) -> None:
    run(stills, tmp_path / "a")
    cv2.imwrite(str(stills / "extra.png"), gradients(2))
    run(stills, tmp_path / "b")
    run(stills, tmp_path / "c", "--seed", 8)
    first = (tmp_path / "a/rainy/im1.png").read_bytes()
    assert first == (tmp_path / "b/rainy/im1.png").read_bytes()
    assert first != (tmp_path / "c/rainy/im1.png").read_bytes()


def test_a_clip_becomes_a_time_sequence_and_lossless_clips(clip: Path, tmp_path: Path, run) -> None:
    run(clip, tmp_path / "out", "--rain", "drops", "--style", "mixed")
    masks = [image.astype(float) for image in load(tmp_path / "out", "mask_drop")]
    assert len(masks) == 6
    video = cv2.VideoCapture(str(tmp_path / "out/rainy.mkv"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20.0)
    for image in load(tmp_path / "out", "rainy"):
        more, frame = video.read()
        assert more and np.array_equal(frame, image)
    assert not video.read()[0]
    assert (tmp_path / "out/clean.mkv").stat().st_size > 0


def test_a_sequence_keeps_its_drops_where_stills_get_new_ones(stills: Path, tmp_path: Path, run) -> None:
    run(stills, tmp_path / "stills_out", "--rain", "drops", "--style", "mixed")
    run(stills, tmp_path / "sequence_out", "--rain", "drops", "--style", "mixed", "--sequence")

    def change(out: Path) -> float:
        first, second, _ = (image.astype(float) for image in load(out, "rainy"))
        return float(np.abs(first - second).mean())

    assert change(tmp_path / "sequence_out") < 0.3 * change(tmp_path / "stills_out")


def test_real_raindrop_pairs_become_jrsrd_with_four_rising_intensities(tmp_path: Path, refused, derain) -> None:
    for folder, kind, first in (("data", "rain", 1), ("gt", "clean", 0)):
        (tmp_path / "qian" / folder).mkdir(parents=True)
        for number in range(8):
            cv2.imwrite(str(tmp_path / "qian" / folder / f"{number}_{kind}.png"), gradients(first + number))
    assert derain("synthesize", tmp_path / "qian", "--out", tmp_path / "out", "--seed", 7).status == 0
    drops, rainy = load(tmp_path / "out", "drops"), load(tmp_path / "out", "rainy")
    assert len(rainy) == 4 * 8
    assert all(np.array_equal(image, gradients(1 + index // 4)) for index, image in enumerate(drops))
    change = [float(np.abs(a.astype(float) - b).mean()) for a, b in zip(rainy, drops, strict=True)]
    for start in range(0, 32, 4):
        four = change[start : start + 4]
        assert four == sorted(four) and four[0] > 0.05

    note = json.loads((tmp_path / "out" / "rain.json").read_text())
    assert (note["config"]["kinds"], note["config"]["style"], note["config"]["strength"]) == ("streaks", "noise", None)
    groups = [pair.group for pair in read_pairs(tmp_path / "out" / "rainy", tmp_path / "out" / "clean")]
    assert groups[:4] == ["strength 0.0001", "strength 0.33", "strength 0.67", "strength 1"]
    for option in (("--strength", 0.7), ("--rain", "drops"), ("--sequence",), ("--defocus", 8)):
        fault = refused(tmp_path / "qian", tmp_path / "again", *option, ways=())
        assert "become JRSRD, the rain of the paper: expected --out and --seed alone" in fault


def test_bad_input_is_refused_in_one_line_and_leaves_nothing(stills: Path, clip: Path, tmp_path: Path, refused) -> None:
    out = tmp_path / "out"
    assert "does not exist" in refused(tmp_path / "nowhere", out)
    assert "expected 0..1" in refused(stills, out, "--strength", 1.5)
    assert "expected 0..1" in refused(stills, out, "--strength", "nan")
    assert "--wiper" in refused(stills, out, "--wiper", 0.1)
    for wrong in (-1.0, 101.0, "nan"):
        assert f"--defocus is {wrong}, expected 0" in refused(stills, out, "--defocus", wrong)
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused(tmp_path / "empty", out)
    (tmp_path / "notes.txt").write_text("rain")
    assert "no clip" in refused(tmp_path / "notes.txt", out)
    (stills / "im9.png").write_bytes(b"not a picture")
    assert "im9.png cannot be decoded as a whole image" in refused(stills, out)
    (stills / "im9.png").unlink()
    cv2.imwrite(str(stills / "im9.png"), gradients(0, 40, 40))
    assert "40x40" in refused(stills, out, "--sequence")


def test_a_clip_whose_header_counts_too_many_frames_or_none_is_rendered(clip, tmp_path, monkeypatch, run) -> None:
    """As OpenCV does with Matroska of a variable frame rate, and with one that was streamed."""

    opened = cv2.VideoCapture

    class Miscounted:
        def __init__(self, path: str) -> None:
            self.capture = opened(path)
            self.isOpened, self.read, self.release = self.capture.isOpened, self.capture.read, self.capture.release

        def get(self, key: int) -> float:
            return counted if key == cv2.CAP_PROP_FRAME_COUNT else self.capture.get(key)

    monkeypatch.setattr(cv2, "VideoCapture", Miscounted)
    for counted in (12.0, -2.8e17):
        run(clip, tmp_path / f"{counted}")
        assert len(load(tmp_path / f"{counted}", "rainy")) == 6


def test_frames_of_odd_size_become_pictures_and_no_video_that_would_crop_them(tmp_path, run) -> None:
    file = tmp_path / "odd.avi"
    video = cv2.VideoWriter(str(file), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (63, 47))
    for number in range(3):
        video.write(gradients(number, 47, 63))
    video.release()
    told = run(file, tmp_path / "out")
    assert [image.shape for image in load(tmp_path / "out", "rainy")] == [(47, 63, 3)] * 3
    assert not list((tmp_path / "out").glob("*.mkv"))
    assert "no rainy.mkv: videos have an even size" in told


def test_numbers_in_names_are_the_order_of_a_sequence(tmp_path, run) -> None:
    for folder, width in (("padded", 3), ("plain", 1)):
        (tmp_path / folder).mkdir()
        for number in range(1, 12):
            cv2.imwrite(str(tmp_path / folder / f"{number:0{width}}.png"), gradients(number))
        run(tmp_path / folder, tmp_path / f"{folder}_out", "--sequence")
    for number in (2, 10, 11):
        rainy = (tmp_path / f"padded_out/rainy/{number:03}.png").read_bytes()
        assert (tmp_path / f"plain_out/rainy/{number}.png").read_bytes() == rainy


def test_an_empty_folder_behind_a_link_is_filled_and_nothing_beside_it_touched(stills, tmp_path, run) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    (tmp_path / "out.part").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    inode = (tmp_path / "disk").stat().st_ino  # a disk's own folder cannot be replaced
    run(stills, tmp_path / "out")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk").stat().st_ino == inode
    assert {entry.name for entry in (tmp_path / "disk").iterdir()} == {*PARTS, "rain.json"}
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_truncated_clip_is_refused(clip: Path, fresh_derain, tmp_path: Path) -> None:
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 3])
    answer = fresh_derain("synthesize", clip, "--out", tmp_path / "out")
    assert answer.status == 1
    assert re.match(r"error: .*drive\.mkv ends after 1 frames .* 6; it is truncated", answer.err.splitlines()[-1])
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*.partial"))


def test_an_image_that_ends_early_is_refused(stills: Path, fresh_derain, tmp_path: Path) -> None:
    for suffix in (".png", ".jpg"):
        data = cv2.imencode(suffix, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
        (stills / f"im9{suffix}").write_bytes(data[: len(data) // 2])
        assert f"im9{suffix}" in fresh_derain("synthesize", stills, "--out", tmp_path / "out").fault
        (stills / f"im9{suffix}").unlink()


def test_a_folder_that_is_not_empty_is_never_written_into(stills: Path, tmp_path: Path, derain) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert "not an empty folder" in derain("synthesize", stills, "--out", out).fault
    assert [entry.name for entry in out.iterdir()] == ["mine.txt"]


def test_a_clip_damaged_in_its_middle_is_rendered_to_its_end_and_that_is_told(
    clip, tmp_path, unreadable, derain
) -> None:
    whole = int(cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FRAME_COUNT))
    unreadable(2)
    answer = derain("synthesize", clip, "--out", tmp_path / "out")
    assert len(load(tmp_path / "out", "rainy")) == whole - 1
    assert f"1 of {whole} frames cannot be read and are left out" in " ".join(answer.err.split())


def test_a_wiper_before_stills_is_refused(stills: Path, tmp_path: Path, refused) -> None:
    assert "--wiper is 3.0, but" in refused(stills, tmp_path / "o", "--wiper", 3)


def test_an_option_that_this_rain_would_ignore_is_refused(stills: Path, tmp_path: Path, refused) -> None:
    drops, streaks = ("--rain", "drops"), ("--rain", "streaks", "--sequence")
    assert "--style is physical, but --rain drops has no streaks" in refused(stills, tmp_path / "o", *drops)
    assert "--wiper is 3.0, but --rain streaks leaves no drop to wipe" in refused(
        stills, tmp_path / "o", *streaks, "--wiper", 3
    )
    assert "--defocus is 8.0, but --rain streaks leaves no drop to blur" in refused(
        stills, tmp_path / "o", "--rain", "streaks", "--defocus", 8
    )


def test_a_lens_out_of_focus_softens_the_drops_and_is_noted(stills: Path, tmp_path: Path, run) -> None:
    run(stills, tmp_path / "sharp", "--rain", "drops", "--style", "mixed")
    run(stills, tmp_path / "soft", "--rain", "drops", "--style", "mixed", "--defocus", 60)

    def finest(out: Path) -> float:
        masks = [mask.astype(float) for mask in load(out, "mask_drop")]
        return float(max(np.abs(np.diff(mask, axis=1)).max() for mask in masks))

    assert finest(tmp_path / "soft") < 0.6 * finest(tmp_path / "sharp")
    note = json.loads((tmp_path / "soft" / "rain.json").read_text())
    assert note["config"]["defocus"] == 60


@pytest.mark.parametrize(("seed", "bound"), [(-1, "than or equal to 0"), (2**32, "4294967295")])
def test_a_seed_beyond_32_bits_is_refused_and_not_cut(stills: Path, tmp_path: Path, derain, seed, bound) -> None:
    answer = derain("synthesize", stills, "--out", tmp_path / "o", "--seed", seed)
    assert answer.status == 2 and bound in answer.err


def test_a_still_whose_name_is_no_text_gets_its_rain(stills: Path, tmp_path: Path, run) -> None:
    named = (stills / "im0.png").rename(stills / "grö\udcdfe.png")
    assert "3 pairs" in run(stills, tmp_path / "o")
    assert (tmp_path / "o/rainy" / named.name).is_file()


def test_what_a_killed_process_left_in_a_folder_does_not_make_it_full(stills: Path, tmp_path: Path, run) -> None:
    (tmp_path / "o/.o.12ab34cd.partial/rainy").mkdir(parents=True)
    assert "3 pairs" in run(stills, tmp_path / "o")
