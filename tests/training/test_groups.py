"""`derain evaluate` by groups and with panels, and its figures against scikit-image as others call it."""

import json
import shutil
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from typer.testing import CliRunner

from derain.cli.evaluate import SHOWN, _kept
from derain.cli.main import app
from derain.training.evaluate import evaluate, look_with
from derain.training.models import build
from derain.training.models.checkpoint import load, save_weights
from derain.training.panels import BAR
from derain.training.rain import RainConfig
from derain.training.rain.pairs import synthesize
from derain.training.readers import Pair, read_groups, read_pairs
from derain.training.scores import METRICS, score


@pytest.fixture(scope="module")
def made(tmp_path_factory, picture, lively) -> Path:
    """Weights, and pairs of two strengths that synthesize made."""
    root = tmp_path_factory.mktemp("made")
    (root / "photos").mkdir()
    for index in range(2):
        cv2.imwrite(str(root / "photos" / f"{index}.png"), picture(index, 66, 49))
    for name, strength in (("light", 0.25), ("heavy", 1.0)):
        (root / "pairs").mkdir(exist_ok=True)
        synthesize(root / "photos", root / "pairs" / name, 1, RainConfig(kinds="both", strength=strength))
    save_weights(root / "w.safetensors", lively(build("daiam-nano")), "daiam-nano", {}, torch.float32)
    return root


def run(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_pairs_that_synthesize_made_are_told_apart_by_their_strength(made):
    (pair, _) = read_pairs(made / "pairs/light/rainy", made / "pairs/light/clean")
    assert pair.group == "strength 0.25"
    groups = {pair.name: pair.group for pair in read_groups(made / "pairs", made / "pairs")}
    assert groups == {
        "heavy/0": "heavy, strength 1",
        "heavy/1": "heavy, strength 1",
        "light/0": "light, strength 0.25",
        "light/1": "light, strength 0.25",
    }


@pytest.mark.parametrize("note", ["{", "[]", '{"config": "mine"}', '{"derain": "1", "strengths": [0.5]}'])
def test_a_rain_json_that_says_nothing_of_an_image_leaves_it_without_a_group(made, tmp_path, note):
    shutil.copytree(made / "pairs/light", tmp_path / "light")
    (tmp_path / "light/rain.json").write_text(note)
    (tmp_path / "light/rainy/1.png").unlink()
    (tmp_path / "light/clean/1.png").unlink()
    for folder in ("rainy", "clean"):
        (tmp_path / "light" / folder / "0.png").rename(tmp_path / "light" / folder / "street.png")
    assert [pair.group for pair in read_pairs(tmp_path / "light/rainy", tmp_path / "light/clean")] == [""]


def test_groups_share_one_folder_of_truths_or_have_their_own(made, tmp_path):
    for group in ("a", "b"):
        (tmp_path / "rainy" / group).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "rainy" / group / "0.png"), cv2.imread(str(made / "pairs/heavy/rainy/0.png")))
    (tmp_path / "clean").mkdir()
    cv2.imwrite(str(tmp_path / "clean/0.png"), cv2.imread(str(made / "photos/0.png")))
    shared = list(read_groups(tmp_path / "rainy", tmp_path / "clean"))
    assert [(pair.name, pair.group) for pair in shared] == [("a/0", "a"), ("b/0", "b")]
    np.testing.assert_array_equal(shared[0].clean, shared[1].clean)
    (tmp_path / "clean/b").mkdir()
    cv2.imwrite(str(tmp_path / "clean/b/0.png"), cv2.imread(str(made / "photos/1.png")))
    own = list(read_groups(tmp_path / "rainy", tmp_path / "clean"))
    np.testing.assert_array_equal(own[0].clean, shared[0].clean)
    assert not np.array_equal(own[1].clean, shared[1].clean)
    with pytest.raises(FileNotFoundError, match=r"no sub-folders in '.*clean/b': expected one for each group"):
        list(read_groups(tmp_path / "clean/b", tmp_path))


def test_the_means_of_a_group_are_over_its_images_and_heavier_rain_scores_lower(made):
    scores = evaluate(lambda image: image, read_groups(made / "pairs", made / "pairs"))
    assert {name: group["count"] for name, group in scores["groups"].items()} == {
        "heavy, strength 1": 2,
        "light, strength 0.25": 2,
    }
    for name, group in scores["groups"].items():
        members = [image for image in scores["images"] if image["group"] == name]
        for metric in METRICS:
            assert group[metric]["input"] == pytest.approx(np.mean([image["input"][metric] for image in members]))
    heavy, light = scores["groups"].values()
    assert heavy["psnr_rgb"]["input"] < light["psnr_rgb"]["input"] - 3
    assert "groups" not in evaluate(lambda image: image, read_pairs(made / "photos", made / "photos"))


def test_the_verb_writes_groups_a_table_each_and_a_panel(made, tmp_path):
    panel, told = tmp_path / "panel.png", tmp_path / "e.json"
    given = ("--pairs", made / "pairs", made / "pairs", "--group", "--panel", panel, "--json", told)
    answer = run(made / "w.safetensors", *given)
    assert answer.exit_code == 0, answer.output
    scores = json.loads(told.read_text())
    assert set(scores) == {*METRICS, "images", "groups"}
    for part in ("mean of 4", "heavy, strength 1: mean of 2", "light, strength 0.25: mean of 2"):
        assert part in answer.output
    drawn = cv2.imread(str(panel))[..., ::-1]
    assert drawn.shape == (4 * (49 + BAR), 5 * 66, 3)  # rainy, output, truth and two maps of each
    (first, *_) = read_groups(made / "pairs", made / "pairs")
    np.testing.assert_array_equal(drawn[BAR : BAR + 49, :66], first.rainy)
    np.testing.assert_array_equal(drawn[BAR : BAR + 49, 2 * 66 : 3 * 66], first.clean)
    output, maps = look_with(load(str(made / "w.safetensors")).network)(first.rainy)
    np.testing.assert_array_equal(drawn[BAR : BAR + 49, 66 : 2 * 66], output)
    assert [tile.image.shape for tile in maps] == [(1, 49, 66)] * 2


def test_images_without_truth_get_a_panel_only(made, tmp_path):
    answer = run(made / "w.safetensors", "--frames", made / "pairs/heavy/rainy", "--panel", tmp_path / "p.png")
    assert answer.exit_code == 0 and answer.output.strip() == ""
    assert cv2.imread(str(tmp_path / "p.png")).shape == (2 * (49 + BAR), 4 * 66, 3)
    for wrong in ((), ("--frames", made / "photos"), ("--frames", made / "photos", "--pairs", made, made)):
        assert run(made / "w.safetensors", *wrong).exit_code == 2


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


def test_scores_are_scikit_image_s(picture):
    """Called anew, on floats of 0 to 1, as a paper's script would."""
    truth = picture(3)
    image = np.clip(truth.astype(int) + np.random.default_rng(0).integers(-40, 40, truth.shape), 0, 255).astype(
        np.uint8
    )
    ours = score(image, truth)
    a, b = image / 255.0, truth / 255.0
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    assert ours["psnr_rgb"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-3)
    assert ours["ssim_rgb"] == pytest.approx(structural_similarity(b, a, channel_axis=2, **wang), abs=1e-4)
    y_a, y_b = ((16 + picture @ np.array([65.481, 128.553, 24.966])) / 255 for picture in (a, b))
    assert ours["psnr_y"] == pytest.approx(peak_signal_noise_ratio(y_b, y_a, data_range=1.0), abs=1e-3)
    assert ours["ssim_y"] == pytest.approx(structural_similarity(y_b, y_a, **wang), abs=1e-4)
