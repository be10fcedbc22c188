"""Which frames are chosen, and which clips are refused."""

import numpy as np
import pytest

from derain.calibration.frames import ALIKE, _thumbnail, choose, recorded
from derain.runtime.frames import Frame, from_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.pixels import PixelFormat
from derain.runtime.sources import open_source

SPEC = FrameSpec(tensor="frame", width=48, height=32)


def clip(images: list[np.ndarray]) -> list[Frame]:
    return [Frame(index, 0, image, 0) for index, image in enumerate(images)]


def plain(level: int) -> np.ndarray:
    return np.full((32, 48, 3), level, np.uint8)


def test_the_most_different_frames_are_chosen_and_not_the_first():
    random = np.random.default_rng(0)
    scenes = {0: 20, 60: 90, 90: 160, 95: 230}
    levels = np.repeat(list(scenes.values()), np.diff([*scenes, 100]))
    images = [np.clip(plain(level) + random.normal(0, 2, (32, 48, 3)), 0, 255).astype(np.uint8) for level in levels]
    chosen = choose(clip(images), SPEC, 4, "clip")
    assert [int(round(frame.image.mean(), -1)) for frame in chosen] == [20, 90, 160, 230]
    assert [frame.id for frame in chosen] == sorted(frame.id for frame in chosen)


def test_as_many_as_there_are_where_there_are_fewer(picture):
    images = [picture(seed, 48, 32) for seed in range(6)]
    chosen = choose(clip(images), SPEC, 16, "clip")
    assert [frame.id for frame in chosen] == list(range(6))


def test_a_chosen_frame_does_not_change_when_its_source_reuses_the_memory(picture):
    images = [picture(seed, 48, 32) for seed in range(5)]
    buffer = np.empty_like(images[0])

    def stream():
        for index, image in enumerate(images):
            buffer[:] = image
            yield Frame(index, 0, buffer, 0)

    for frame, image in zip(choose(stream(), SPEC, 8, "clip"), images, strict=True):
        np.testing.assert_array_equal(frame.image, image)


@pytest.mark.parametrize("pixels", list(PixelFormat))
@pytest.mark.parametrize(
    ("images", "told"),
    [
        (
            [plain(level) for level in (20, 90, 200)],
            r"^night\.mp4: 3 frames, expected at least 4: give --frames a longer",
        ),
        ([plain(0)] * 9, r"^night\.mp4: all black \(no grey level over \d+\): give --frames a clip with light$"),
        ([plain(120)] * 9, r"^night\.mp4: 8 frames that are all alike \(0\.00 grey levels apart, expected 1\): give"),
    ],
)
def test_a_clip_that_says_nothing_is_refused_in_one_line(images, told, pixels):
    spec = SPEC.model_copy(update={"pixels": pixels})
    frames = clip([from_bgr(image, spec) for image in images])
    with pytest.raises(ValueError, match=told):
        choose(frames, spec, 8, "night.mp4")


def test_a_night_drive_with_a_few_lights_is_not_all_black(picture):
    images = [picture(seed, 48, 32) // 6 for seed in range(6)]
    assert len(choose(clip(images), SPEC, 8, "clip")) == 6


def test_a_slow_pan_is_not_all_alike(picture):
    wide = picture(1, 96, 32)
    pan = [np.ascontiguousarray(wide[:, step : step + 48]) for step in range(0, 48, 4)]
    gentle = [np.clip(110 + (image.astype(np.float32) - 110) / 30, 0, 255).astype(np.uint8) for image in pan]
    small = np.array([_thumbnail(image) for image in gentle])
    assert np.sqrt(np.mean((small[1:] - small[:-1]) ** 2, axis=1)).max() < ALIKE, "each is like the one before it"
    assert len(choose(clip(gentle), SPEC, 16, "pan")) == len(gentle)


def test_one_black_frame_is_enough_where_nothing_is_calibrated():
    (frame,) = choose(clip([plain(0)]), SPEC, 1, "night", fewest=1, varied=False)
    assert frame.id == 0
    with pytest.raises(ValueError, match=r"^night: 0 frames, expected at least 1"):
        choose([], SPEC, 4, "night", fewest=1, varied=False)


def test_too_few_frames_asked_for_is_told():
    with pytest.raises(ValueError, match="2 frames to choose: expected at least 4; give --count 16"):
        choose(clip([plain(9)]), SPEC, 2, "clip")


def test_a_live_source_is_refused_because_it_would_never_end():
    with (
        open_source("test://rain?width=48&height=32&live=1", SPEC) as camera,
        open_source("test://rain?width=48&height=32&frames=4", SPEC) as clip,
    ):
        with pytest.raises(ValueError, match=r"^the camera: a live source, which never ends: expected a clip"):
            recorded(camera, "the camera")
        assert recorded(clip, "the clip") is clip


def test_of_the_two_most_alike_the_one_nearer_to_the_new_frame_goes():
    chosen = choose(clip([plain(level) for level in (0, 2, 100, 200, 1, 3)]), SPEC, 4, "clip")
    assert [int(frame.image[0, 0, 0]) for frame in chosen] == [0, 100, 200, 3]


def test_in_one_pass_the_chosen_come_to_lie_nearly_as_far_apart_as_can_be():
    levels = np.random.default_rng(1).integers(0, 256, 300)
    chosen = sorted(int(frame.image[0, 0, 0]) for frame in choose(clip(list(map(plain, levels))), SPEC, 4, "clip"))
    assert np.diff(chosen).min() >= 70  # 85 at best
