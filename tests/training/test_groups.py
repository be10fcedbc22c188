"""Pairs in groups: told apart by folders and by the rain that was rendered, and scored group by group."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain.training.evaluate import evaluate
from derain.training.rain import RainConfig
from derain.training.rain.pairs import synthesize
from derain.training.readers import read_groups, read_pairs
from derain.training.scores import METRICS


@pytest.fixture(scope="module")
def made(tmp_path_factory, picture) -> Path:
    """Photos, and pairs of two strengths that synthesize made."""
    root = tmp_path_factory.mktemp("made")
    (root / "photos").mkdir()
    for index in range(2):
        cv2.imwrite(str(root / "photos" / f"{index}.png"), picture(index, 66, 49))
    for name, strength in (("light", 0.25), ("heavy", 1.0)):
        (root / "pairs").mkdir(exist_ok=True)
        synthesize(root / "photos", root / "pairs" / name, 1, RainConfig(kinds="both", strength=strength))
    return root


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


@pytest.mark.parametrize(
    "note",
    [
        "{",
        "[]",
        '{"config": "mine"}',
        '{"derain": 1}',
        '{"derain": "1", "strengths": [0.5]}',
        '{"derain": "1", "config": {"strength": null}, "strengths": 3}',
        '{"derain": "1", "config": {"strength": null}, "strengths": ["much"]}',
    ],
)
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
