"""FP16 on the frames that differ most."""

import numpy as np
import pytest

from derain.calibration import fp16
from derain.calibration.fp16 import calibrate_fp16
from derain.calibration.frames import choose
from derain.export.exporter import export
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Frame

WIDTH, HEIGHT = 48, 32


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Bundle:
    return export("random:daiam-nano", tmp_path_factory.mktemp("nano") / "bundle", (WIDTH, HEIGHT))[0]


@pytest.fixture
def bundle(original, copied) -> Bundle:
    return copied(original)


@pytest.fixture(scope="module")
def clip(picture) -> list[Frame]:
    """Five frames that are nearly one, and five others."""
    first = np.minimum(picture(0, WIDTH, HEIGHT), 250)
    images = [first + np.uint8(level) for level in range(5)] + [picture(seed, WIDTH, HEIGHT) for seed in range(1, 6)]
    return [Frame(index, 0, image, 0) for index, image in enumerate(images)]


def test_the_graph_is_made_on_the_frames_that_differ_most(bundle, clip, monkeypatch):
    given = []
    monkeypatch.setattr(fp16, "add_fp16", lambda bundle, images, name: given.append((images, name)))
    calibrate_fp16(bundle, clip, "clip", 6)
    ((images, name),) = given
    chosen = choose(clip, bundle.manifest.input, 6, "clip")
    assert name == "clip" and {frame.id for frame in chosen} > set(range(5, 10))
    np.testing.assert_array_equal(images, [frame.image for frame in chosen])


def test_a_clip_that_says_nothing_is_refused_and_the_bundle_stays(bundle, clip):
    before = (bundle.path / "manifest.json").read_bytes()
    black = [Frame(frame.id, 0, np.zeros_like(frame.image), 0) for frame in clip]
    with pytest.raises(ValueError, match=r"^clip: all black"):
        calibrate_fp16(bundle, black, "clip")
    assert (bundle.path / "manifest.json").read_bytes() == before
