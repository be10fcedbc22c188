"""`derain evaluate`: the figures that others rely on, groups and panels."""

import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain.cli.evaluate import SHOWN, _count, _kept
from derain.training.evaluate import derainer_with_maps
from derain.training.models.weights import load
from derain.training.panels import BAR
from derain.training.rain import RainConfig
from derain.training.rain.pairs import synthesize
from derain.training.readers import Pair, read_groups
from derain.training.scores import METRICS
from derain_tests.pictures import write_frames
from derain_tests.verbs import strict_json


@pytest.mark.parametrize("model", ["weights", "bundle"])
def test_evaluate_reports_every_metric_by_the_keys_that_stay(derain, model, bundle, nano_weights, pairs, tmp_path):
    given = bundle.path if model == "bundle" else nano_weights
    answer = derain("evaluate", given, "--pairs", *pairs, "--json", tmp_path / "e.json")
    assert answer.status == 0, answer.err
    told = strict_json(tmp_path / "e.json")
    assert set(told) == {*METRICS, "images"}
    for metric in METRICS:
        assert set(told[metric]) == {"input", "output"}
        for side, mean in told[metric].items():
            assert mean == pytest.approx(np.mean([image[side][metric] for image in told["images"]]))
    assert [image["name"] for image in told["images"]] == ["0", "1"]
    assert "psnr_rgb" in answer.out and f"{told['psnr_rgb']['input']:.2f}" in answer.out


def test_weights_and_the_bundle_made_of_them_score_alike(derain, bundle, nano_weights, pairs, tmp_path):
    scores = []
    for given in (bundle.path, nano_weights):
        derain("evaluate", given, "--pairs", *pairs, "--json", tmp_path / "e.json")
        scores.append(strict_json(tmp_path / "e.json"))
    assert scores[0]["psnr_rgb"]["input"] == scores[1]["psnr_rgb"]["input"]
    assert scores[0]["psnr_rgb"]["output"] == pytest.approx(scores[1]["psnr_rgb"]["output"], abs=0.05)


def test_the_psnr_of_equal_images_is_null_and_no_warning(derain, nano_weights, pairs, tmp_path):
    answer = derain("evaluate", nano_weights, "--pairs", pairs[1], pairs[1], "--json", tmp_path / "e.json")
    assert answer.status == 0 and answer.err == ""
    told = strict_json(tmp_path / "e.json")
    assert told["psnr_rgb"]["input"] is None and told["ssim_rgb"]["input"] == pytest.approx(1)
    assert told["psnr_rgb"]["output"] > 0


def test_a_broken_image_is_told_in_one_line_of_ours_alone(fresh_derain, nano_weights, pairs):
    broken = pairs[0] / "1.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    assert f"{broken} cannot be decoded" in fresh_derain("evaluate", nano_weights, "--pairs", *pairs).fault


@pytest.fixture
def groups(picture, tmp_path) -> Path:
    """Pairs of two strengths that synthesize made."""
    photos = write_frames(tmp_path / "photos", [picture(index, 66, 49) for index in range(2)])
    for name, strength in (("light", 0.25), ("heavy", 1.0)):
        (tmp_path / "groups").mkdir(exist_ok=True)
        synthesize(photos, tmp_path / "groups" / name, 1, RainConfig(kinds="both", strength=strength))
    return tmp_path / "groups"


def test_groups_are_written_with_a_table_each_and_a_panel(nano_weights, groups, derain, tmp_path):
    panel, told = tmp_path / "panel.png", tmp_path / "e.json"
    answer = derain("evaluate", nano_weights, "--pairs", groups, groups, "--group", "--panel", panel, "--json", told)
    assert answer.status == 0, answer.err
    assert set(strict_json(told)) == {*METRICS, "images", "groups"}
    for part in ("mean of 4", "heavy, strength 1: mean of 2", "light, strength 0.25: mean of 2"):
        assert part in answer.out
    assert f"{panel}: 4 images, a row each" in answer.out
    drawn = cv2.imread(str(panel))[..., ::-1]
    assert drawn.shape == (4 * (49 + BAR), 5 * 66, 3)  # rainy, output, truth and two maps of each
    (first, *_) = read_groups(groups, groups)
    np.testing.assert_array_equal(drawn[BAR : BAR + 49, :66], first.rainy)
    np.testing.assert_array_equal(drawn[BAR : BAR + 49, 2 * 66 : 3 * 66], first.clean)
    output, maps = derainer_with_maps(load(str(nano_weights)).network)(first.rainy)
    np.testing.assert_array_equal(drawn[BAR : BAR + 49, 66 : 2 * 66], output)
    assert [tile.image.shape for tile in maps] == [(1, 49, 66)] * 2


def test_pairs_of_one_strength_have_one_table_that_names_it(nano_weights, groups, derain):
    told = derain("evaluate", nano_weights, "--pairs", groups / "light" / "rainy", groups / "light" / "clean").out
    assert told.count("psnr_rgb") == told.count("strength 0.25: mean of 2") == 1


def test_for_a_runs_folder_the_weights_in_it_are_named(derain, nano_weights, pairs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "split.json").write_text("{}")
    (run / "weights.safetensors").write_bytes(nano_weights.read_bytes())
    fault = derain("evaluate", run, "--pairs", *pairs).fault
    assert fault == f"{run} is a run's folder: name its weights, {run / 'weights.safetensors'}"


def test_images_without_truth_get_a_panel_only_and_are_not_mixed_with_pairs(nano_weights, picture, derain, tmp_path):
    photos = write_frames(tmp_path / "photos", [picture(index, 66, 49) for index in range(2)])
    told = derain("evaluate", nano_weights, "--frames", photos, "--panel", tmp_path / "p.png").told
    assert told.strip() == f"{tmp_path / 'p.png'}: 2 images, a row each"
    assert cv2.imread(str(tmp_path / "p.png")).shape == (2 * (49 + BAR), 4 * 66, 3)
    for wrong in ((), ("--frames", photos), ("--frames", photos, "--pairs", photos, photos)):
        assert derain("evaluate", nano_weights, *wrong).status == 2


@pytest.mark.parametrize(("count", "names"), [(4, [0, 1, 2, 3]), (20, [0, 4, 8, 12, 16]), (12, [0, 2, 4, 6, 8, 10])])
def test_evaluating_holds_no_more_pairs_than_its_panel_shows(count, names):
    image = np.zeros((2, 2, 3), np.uint8)
    seen: list[weakref.ref[Pair]] = []

    def pairs():
        for index in range(count):
            pair = Pair(str(index), image, image)
            seen.append(weakref.ref(pair))
            yield pair
            del pair

    shown: list[Pair] = []
    for _ in _kept(pairs(), count, shown):
        assert sum(pair() is not None for pair in seen) <= SHOWN + 1
    assert [int(pair.name) for pair in shown] == names
    list(_kept(pairs(), 0, shown := []))  # a clip whose header does not say how many frames it has
    assert len(shown) == min(count, SHOWN)


def test_a_clip_whose_name_opencv_cannot_be_told_is_refused_before_it_is_counted(tmp_path):
    clip = tmp_path / "grö\udcdfe.mkv"
    clip.write_bytes(b"")
    with pytest.raises(ValueError, match=r"/grö\\xdfe\.mkv: its name is not UTF-8: rename it"):
        _count(clip, group=False)


def test_an_engine_for_weights_is_refused(derain, nano_weights, pairs):
    answer = derain("evaluate", nano_weights, "--pairs", *pairs, "--engine", "openvino")
    assert answer.status == 2 and "runs bundles" in answer.err


@pytest.mark.parametrize("option", ["--json", "--panel"])
def test_what_is_read_is_not_written_over(derain, bundle, nano_weights, pairs, tmp_path, option):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(nano_weights.read_bytes())
    for model, file in (
        (weights, weights),
        (bundle.path, bundle.path / "manifest.json"),
        (weights, pairs[0] / "0.png"),
        (weights, pairs[1] / "1.png"),
    ):
        before = file.read_bytes()
        fault = derain("evaluate", model, "--pairs", *pairs, option, file).fault
        assert fault == f"{file}: is read by this run, which would replace it: give another {option}"
        assert file.read_bytes() == before
    if option == "--json":  # one of before, beside the images, is no input
        for _ in range(2):
            assert derain("evaluate", weights, "--pairs", *pairs, option, pairs[0] / "scores.json").status == 0
    shown = pairs[0] / "1.png"
    assert "is read by this run" in derain("evaluate", weights, "--frames", pairs[0], "--panel", shown).fault
    both = tmp_path / "both"
    fault = derain("evaluate", weights, "--pairs", *pairs, "--json", both, "--panel", both).fault
    assert "is named by --json and by --panel" in fault
