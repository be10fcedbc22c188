"""PSNR against the truth while a stream runs."""

import math
import shutil

import numpy as np
import pytest

from derain.runtime.psnr import psnr
from derain.runtime.quality import TruthComparison, warn_of_other_names
from derain.runtime.sources import open_source


def test_psnr_of_a_known_error_is_its_textbook_value():
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 255) == pytest.approx(0)
    assert psnr(black + 200, black + 190) == pytest.approx(20 * math.log10(25.5))


def test_only_a_truth_of_other_numbers_is_warned_of(folder, tmp_path, caplog):
    clean = shutil.copytree(folder, tmp_path / "clean")
    for path in clean.iterdir():
        path.rename(clean / f"norain-{path.name}")
    warn_of_other_names(folder, clean)
    warn_of_other_names(folder / "a clip.mkv", clean)
    assert caplog.text == ""
    (clean / "norain-003.png").unlink()
    warn_of_other_names(folder, clean)
    assert "003.png is compared with" in caplog.text and "norain-004.png" in caplog.text


def test_the_comparison_is_the_mean_over_frames_of_input_and_output(folder, noise, make_spec):
    spec = make_spec()
    with open_source(str(folder), spec) as truth:
        comparison = TruthComparison(truth, spec, spec)
        for image in noise:
            comparison.add(255 - image, image // 2)
    expected = [
        np.mean([psnr(change(image), image) for image in noise]) for change in (lambda i: 255 - i, lambda i: i // 2)
    ]
    seen = comparison.mean()
    assert [seen["input"], seen["output"]] == pytest.approx(expected)


def test_frames_equal_to_their_truth_have_no_finite_psnr(folder, noise, make_spec):
    spec = make_spec()
    with open_source(str(folder), spec) as truth:
        comparison = TruthComparison(truth, spec, spec)
        for image in noise:
            comparison.add(image, image // 2)
    assert comparison.mean()["input"] is None
    assert comparison.mean()["output"] > 0


def test_one_frame_equal_to_its_truth_among_others_counts_as_100_db(folder, noise, make_spec):
    spec = make_spec()
    with open_source(str(folder), spec) as truth:
        comparison = TruthComparison(truth, spec, spec)
        for index, image in enumerate(noise):
            comparison.add(image, image if index == 0 else 255 - image)
    others = [psnr(255 - image, image) for image in noise[1:]]
    assert comparison.mean()["output"] == pytest.approx(np.mean([100, *others]))


def test_a_truth_of_another_length_is_refused(folder, noise, make_spec):
    spec = make_spec()
    with open_source(str(folder), spec) as truth:
        comparison = TruthComparison(truth, spec, spec)
        comparison.add(noise[0], noise[0])
        with pytest.raises(ValueError, match="the truth has more than the source's 1 frames"):
            comparison.mean()
    with open_source(str(folder), spec) as truth:
        comparison = TruthComparison(truth, spec, spec)
        for image in (*noise, noise[0]):
            comparison.add(image, image)
        with pytest.raises(ValueError, match="the truth has 10 frames, the source 11: align them"):
            comparison.mean()


def test_a_truth_of_another_size_is_refused_before_any_frame_is_compared(folder, make_spec):
    spec = make_spec().model_copy(update={"width": make_spec().width + 8})
    with open_source(str(folder), spec) as truth, pytest.raises(ValueError, match="expects"):
        TruthComparison(truth, spec, spec)
