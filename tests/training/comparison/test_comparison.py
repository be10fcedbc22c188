"""The comparison: one protocol for every system, trained in slices, tested on held-out scenes."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from derain.training.comparison import budget
from derain.training.comparison.budget import Pace, fitted, pace
from derain.training.comparison.evaluation import evaluate_system, held_out_pairs, scenes
from derain.training.comparison.page import Scene, page, scenes_to_show
from derain.training.comparison.protocol import PROTOCOL, Comparison, Protocol, patches_seen, read_protocol
from derain.training.data import DataConfig
from derain.training.models import build
from derain_tests.comparison import SMALL

NANO = PROTOCOL.with_name("comparison-nano.yaml")


@pytest.mark.parametrize("protocol", [PROTOCOL, NANO], ids=lambda file: file.stem)
def test_a_shipped_protocol_trains_every_system_alike(protocol):
    comparison = Comparison(read_protocol(protocol), Path("runs/comparison"))
    configs = {system: comparison.config(system) for system in comparison.protocol.systems}
    own = {"network": None, "distill": None, "out": None}
    assert len({repr(config.model_copy(update=own)) for config in configs.values()}) == 1
    assert {config.out for config in configs.values()} == {Path("runs/comparison") / system for system in configs}
    for config in configs.values():
        assert build(config.network.name, **config.network.options)
        assert config.rain.kinds == "both"
    distilled = {system for system, config in configs.items() if config.distill}
    assert distilled == {system for system in configs if system.endswith("-distilled")}


@pytest.mark.parametrize("protocol", [PROTOCOL, NANO], ids=lambda file: file.stem)
def test_a_shipped_test_has_four_strengths_of_at_least_two_hundred_pairs(protocol):
    test = read_protocol(protocol).test
    assert len(test.strengths) == 4
    assert sum(test.scenes.values()) * len(test.strengths) >= 200


def test_the_shipped_test_is_of_held_out_driving_frames_and_photos(data_root):
    comparison = Comparison(read_protocol(), Path("runs/comparison"), (f"data.root={data_root}",))
    data = comparison.config("daiam").data
    found = {file.relative_to(data_root) for file in scenes(data, comparison.protocol.test.scenes)}
    assert len(found) == 80
    trained_on = {Path(folder) for folder in data.folders}
    assert {file.parent for file in found if file.parent in trained_on} == {Path("backgrounds/camvid")}
    assert {file.parent for file in found} == {Path("backgrounds/camvid"), Path("rain100/clean")}


def test_scenes_that_are_trained_on_or_too_few_are_refused(images):
    data = DataConfig(root=images, folders=("train",))
    with pytest.raises(ValueError, match="wants 4 of 'rain100/clean', which holds out 3"):
        scenes(data, {"rain100/clean": 4})
    with pytest.raises(ValueError, match="'train', which is trained on"):
        scenes(data, {"train": 1})


def test_each_system_is_trained_to_its_end_before_the_next_and_a_student_waits_for_its_teacher(empty):
    assert empty.next_system() == "rescan"
    assert empty.waits_for("student") == "daiam-nano"
    with pytest.raises(ValueError, match="student learns from daiam-nano, which is not complete"):
        empty.train("student")
    assert empty.train("rescan", minutes=0) == (2, 8)
    assert empty.next_system() == "rescan"
    assert empty.train("rescan") == (8, 8)
    assert empty.next_system() == "daiam-nano"
    assert empty.train("rescan") == (8, 8)


def test_a_complete_run_brought_back_without_its_checkpoint_counts_and_one_of_another_length_does_not(
    trained, tmp_path
):
    shutil.copytree(trained.folder / "daiam-nano", tmp_path / "daiam-nano")
    (tmp_path / "daiam-nano" / "checkpoint.safetensors").unlink()
    brought = replace(trained, folder=tmp_path)
    assert brought.progress("daiam-nano") == (8, 8) and brought.waits_for("student") is None
    longer = replace(brought, overrides=(*trained.overrides, "optimiser.iterations=6"))
    assert longer.progress("daiam-nano") == (0, 12)


def test_patches_are_counted_by_the_run_that_saw_them(trained, tmp_path):
    shutil.copytree(trained.folder / "daiam-nano", tmp_path / "daiam-nano")
    weights = tmp_path / "daiam-nano" / "weights.safetensors"
    note = weights.with_name("config.yaml")
    assert patches_seen(weights) == 8
    note.write_text(note.read_text().replace("batch: 2", "batch: 64"))
    assert patches_seen(weights) == 256
    note.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.yaml"):
        patches_seen(weights)


def test_a_pace_is_measured_by_training_that_leaves_nothing_behind(empty):
    measured = pace(empty, "daiam-nano", seconds=0.2)
    assert 0 < measured.start < 300 and 0 < measured.patch < 60
    assert not empty.folder.exists()


LONG = copy.deepcopy(SMALL)
LONG["train"]["optimiser"] |= {"iterations": 40, "warm_up": 10}


@pytest.fixture
def long(images, tmp_path, monkeypatch) -> Comparison:
    """Forty iterations of two patches, at paces that are known."""
    paces = {"rescan": Pace(2.0, 1.0), "daiam-nano": Pace(1.0, 0.6)}
    systems = {"student": "daiam-nano"}
    monkeypatch.setattr(budget, "pace", lambda _, system, seconds: paces[systems.get(system, system)])
    return Comparison(Protocol.model_validate(LONG), tmp_path / "c", (f"data.root={images}",))


def test_a_budget_shortens_the_whole_schedule_alike_for_all_and_every_run_of_it_completes(long):
    shorter = fitted(long, minutes=1)
    # 0.85 of 60 s less 4 s to begin three runs; a patch takes 0.6 + 0.6 / 3 for the student, 1.0 and 0.6
    assert shorter.train["optimiser"]["iterations"] == int((51 - 4) / 2.4 / 2) == 9
    optimiser = replace(long, protocol=shorter).config("rescan").optimiser
    assert optimiser.warm_up == 2 and optimiser.batch == 2
    assert optimiser.ema_decay == pytest.approx(1 - 0.001 * 40 / 9)
    chosen = replace(long, protocol=fitted(long, minutes=0.2, systems=["daiam-nano"]))
    assert list(chosen.protocol.systems) == ["daiam-nano"]
    assert chosen.train("daiam-nano") == (14, 14) and chosen.next_system() is None
    assert fitted(long, minutes=600).train["optimiser"]["iterations"] == 40


@pytest.mark.parametrize(
    ("minutes", "systems", "message"),
    [
        (0.05, None, "0.05 minutes give each of 3 systems 0 iterations, expected at least 1: choose fewer"),
        (1, ["student"], "teacher daiam-nano is no system"),
        (1, ["daiam"], "no system 'daiam'"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_in_one_line(long, minutes, systems, message):
    with pytest.raises(ValueError, match=message) as caught:
        fitted(long, minutes, systems)
    assert "\n" not in str(caught.value)


def test_with_its_teacher_complete_a_student_learns_from_the_teachers_weights(trained):
    assert trained.waits_for("student") is None and trained.next_system() == "student"
    distill = trained.config("student").distill
    assert distill.teacher == str(trained.folder / "daiam-nano/weights.safetensors")


def test_the_test_is_rendered_once_and_that_of_another_protocol_is_refused(trained):
    before = {file: file.stat().st_mtime_ns for file in (trained.folder / "test").rglob("*.png")}
    pairs = list(held_out_pairs(trained))
    assert [(pair.name, pair.group) for pair in pairs] == [
        (name, f"strength {strength}") for strength in ("0.25", "1") for name in ("camvid-000", "clean-000")
    ]
    assert before == {file: file.stat().st_mtime_ns for file in (trained.folder / "test").rglob("*.png")}
    test = trained.protocol.test.model_copy(update={"strengths": (0.5,)})
    other = Comparison(trained.protocol.model_copy(update={"test": test}), trained.folder, trained.overrides)
    with pytest.raises(ValueError, match=r"was made with strengths \[0\.25, 1\.0\], expected \[0\.5\]: remove it"):
        list(held_out_pairs(other))


def test_a_test_of_other_images_is_refused(images, trained, tmp_path):
    shutil.copytree(images, tmp_path / "others")
    for folder in ("backgrounds/camvid", "rain100/clean"):
        (tmp_path / "others" / folder / "000.png").rename(tmp_path / "others" / folder / "00.png")
    other = Comparison(trained.protocol, trained.folder, (f"data.root={tmp_path / 'others'}",))
    with pytest.raises(
        ValueError,
        match=r"was made of other files than there are, backgrounds/camvid/00\.png the first of 4: remove it",
    ):
        list(held_out_pairs(other))
    gone = Comparison(trained.protocol, trained.folder, (f"data.root={tmp_path / 'nowhere'}",))
    assert len(list(held_out_pairs(gone))) == len(list(held_out_pairs(trained)))


def test_the_scores_say_how_far_the_system_got_and_where_no_weights_are_training_is_asked_for(trained):
    result = json.loads((trained.folder / "daiam-nano/evaluation.json").read_text())
    assert (result["system"], result["patches"], result["patches_wanted"]) == ("daiam-nano", 8, 8)
    assert result["parameters"] == 371_456
    light, heavy = (result["groups"][f"strength {strength}"]["psnr_rgb"]["input"] for strength in ("0.25", "1"))
    assert light > heavy + 3
    assert result["psnr_rgb"]["input"] == pytest.approx((light + heavy) / 2)
    with pytest.raises(FileNotFoundError, match=r"rescan has no weights .*: train it first"):
        evaluate_system(trained, "rescan")


def test_the_page_needs_nothing_else_and_shows_pictures_and_maps(trained):
    light, heavy, photo = scenes_to_show(trained, real=1)
    assert light.title == "camvid-000, rendered rain, strength 0.25"
    assert heavy.title == "clean-000, rendered rain, strength 1"
    assert photo.title == "real_rain/stills/000.png, real rain" and photo.clean is None
    text = page(trained, [light, photo])
    captions = [part.split("</figcaption>")[0] for part in text.split("<figcaption>")[1:]]
    (rainy, output, truth, *maps), real = captions[:5], captions[5:]
    assert rainy.startswith("rainy, ") and rainy.endswith(" dB")
    assert output.startswith("daiam-nano, ") and truth == "truth"
    assert maps == ["daiam-nano: S+ streak", "daiam-nano: S+ drop"]
    assert real == ["rainy", "daiam-nano", *maps]
    assert text.count('src="data:image/jpeg;base64,') == len(captions)
    assert "http" not in text and "<script" not in text


def test_a_page_of_nothing_asks_for_training_and_can_show_weights_that_ship(empty, picture):
    with pytest.raises(FileNotFoundError, match="train one first, or name shipped ones with --system"):
        page(empty, [])
    text = page(empty, [Scene("a photo", picture(1), None)], systems=["daiam-nano"])
    assert "daiam-nano with the weights that ship" in text
    assert text.count("<figcaption>") == 4
    with pytest.raises(
        FileNotFoundError, match=r"no weights ship for model 'rescan'.* are student, rescan, daiam-nano$"
    ):
        page(empty, [], systems=["rescan"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"systems": {"a": {"network": {"name": "prenet"}, "teacher": "b"}}}, "teacher b is no system"),
        ({"steps": 3}, "steps is unknown, known are: "),
        (
            {"systems": {a: {"network": {"name": "prenet"}, "teacher": b} for a, b in ("ab", "bc", "cb")}},
            "a learns from b learns from c learns from b, so that none can be trained first",
        ),
        ({"systems": {}}, "systems is {}"),
        ({"train": SMALL["train"] | {"distill": {"teacher": "daiam-nano"}}}, "train has distill, which systems sets"),
        ({"train": SMALL["train"] | {"network": {"name": "prenet"}, "out": "x"}}, "train has network, out, which "),
        ({"test": SMALL["test"] | {"strengths": [0.5, 1.5]}}, r"test\.strengths\.1 is 1\.5"),
        ({"test": SMALL["test"] | {"strengths": []}}, r"test\.strengths is \[\]"),
        ({"test": SMALL["test"] | {"scenes": {}}}, r"test\.scenes is \{\}"),
        ({"test": SMALL["test"] | {"scenes": {"a": 0}}}, r"test\.scenes\.a is 0"),
    ],
)
def test_a_protocol_with_a_fault_is_refused_in_one_line(change, message, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **change}))
    with pytest.raises(ValueError, match=message) as caught:
        read_protocol(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["out=elsewhere", "network.init=gaussian", "distill.teacher=daiam-nano"])
def test_what_the_comparison_sets_for_each_system_is_not_overridden(empty, override):
    with pytest.raises(ValueError, match=r"^--set '.*': the comparison sets (out|network|distill) for each system: le"):
        replace(empty, overrides=(*empty.overrides, override))


@pytest.mark.parametrize("mine", ["test/notes.txt", "test"])
def test_a_folder_that_is_not_the_comparisons_test_is_never_removed(empty, mine):
    (empty.folder / mine).parent.mkdir(parents=True, exist_ok=True)
    (empty.folder / mine).write_text("mine")
    with pytest.raises(ValueError, match=rf"c/{mine} is no part of the comparison's test, .* or name another --folder"):
        list(held_out_pairs(empty))
    assert (empty.folder / mine).read_text() == "mine"


def test_a_test_whose_rendering_was_ended_is_rendered_anew(empty):
    for left in ("scenes", "0.25/rainy", ".1.12ab34cd.partial/rainy"):
        (empty.folder / "test" / left).mkdir(parents=True)
    assert len(list(held_out_pairs(empty))) == 4
    assert {made.name for made in (empty.folder / "test").iterdir()} == {"scenes", "0.25", "1", "test.json"}


def test_an_unknown_system_or_key_is_refused_in_one_line(empty):
    with pytest.raises(ValueError, match="no system 'daiam': expected one of student, rescan, daiam-nano"):
        empty.config("daiam")
    odd = Comparison(empty.protocol, empty.folder, ("optimiser.patches=3",))
    with pytest.raises(
        ValueError, match=r"the protocol's rescan: optimiser\.patches is unknown, known are: iterations, batch,"
    ):
        odd.config("rescan")
