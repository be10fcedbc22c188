"""A student that also listens to a teacher."""

from pathlib import Path

import pytest
import torch

from derain.training.config import TrainConfig
from derain.training.distillation import DistillConfig, Teacher
from derain.training.losses import LossConfig
from derain.training.models import Branch, Prediction, build
from derain.training.models.weights import load, save_weights
from derain.training.trainer import train
from derain_tests.pictures import write_frames


@pytest.fixture
def weights(tmp_path: Path, lively_weights) -> Path:
    return lively_weights("daiam-nano", encoder_steps=2).rename(tmp_path / "teacher.safetensors")


def settings(root: Path, picture, **changes) -> TrainConfig:
    for folder in ("train", "test"):
        write_frames(root / folder, [picture(len(folder), 48, 36)])
    return TrainConfig.model_validate(
        {
            "network": {"name": "daiam-nano"},
            "data": {"root": root, "folders": ["train"], "validation": "test", "patch": 32},
            "optimiser": {"iterations": 16, "batch": 1, "learning_rate": 3e-3, "warm_up": 0, "ema_decay": 0.0},
            "machine": {"accelerator": "cpu", "threads": 1},
            "log_every": 1,
            "out": root / "run",
            **changes,
        }
    )


@pytest.mark.parametrize("kind", ["mse", "psnr"])
def test_the_terms_measure_image_and_maps_against_the_teacher_s_in_the_loss_s_own_scale(weights, kind):
    teacher = Teacher(DistillConfig(teacher=str(weights), output=2.0, attention=3.0), build("daiam-nano"), 32)
    rainy = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = load(str(weights)).network(rainy)[0]
    maps = {rain: torch.rand(2, 1, 16, 16) for rain in ("streak", "drop")}
    student = Prediction(torch.rand_like(rainy), {rain: Branch(maps[rain], rainy, rainy) for rain in maps})
    terms = teacher.terms(student, rainy, LossConfig(image=kind, alpha=0.7))
    apart = (student.image - seen.image.clamp(0, 1)).square()
    output = apart.mean() if kind == "mse" else (apart[0].mean().log() + apart[1].mean().log()) / 2
    attention = sum((maps[rain] - seen.branches[rain].attention).square().mean() for rain in maps)
    torch.testing.assert_close(terms["distill_output"], output, rtol=1e-4, atol=0)
    torch.testing.assert_close(terms["distill_attention"], attention)
    torch.testing.assert_close(terms["distill"], 2 * output + 0.7 * 3 * attention, rtol=1e-4, atol=1e-6)


def test_a_student_comes_nearer_to_its_teacher_than_one_without(tmp_path, picture, weights):
    """With nothing else in the loss that matters, the student does as the teacher does, however odd that is."""
    quiet = {"alpha": 0.0, "beta_heavy": 0.0, "beta_light": 0.0}
    rainy = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    apart = {}
    for out, distill in (("with", {"teacher": str(weights), "output": 30.0}), ("without", None)):
        config = settings(tmp_path, picture, loss=quiet, distill=distill, out=tmp_path / out)
        student, teacher = load(str(train(config))).network, load(str(weights)).network
        with torch.no_grad():
            apart[out] = float((student(rainy)[0].image - teacher(rainy)[0].image.clamp(0, 1)).square().mean())
    assert apart["with"] < 0.8 * apart["without"]
    header = (tmp_path / "with/metrics.csv").read_text().splitlines()[0]
    assert "train/distill_output" in header and "train/distill_attention" in header
    assert "distill" not in (tmp_path / "without/metrics.csv").read_text()


def test_a_teacher_is_neither_saved_nor_taught_and_another_one_does_not_resume(tmp_path, picture, weights, lively):
    before = load(str(weights)).network.state_dict()
    config = settings(tmp_path, picture, distill={"teacher": str(weights)}, checkpoint_every=1)
    train(config, minutes=1e-9)
    assert (tmp_path / "run/checkpoint.safetensors").stat().st_size < 5 * 4 * 380_000 * 1.2  # weights twice, Adam twice
    after = load(str(weights)).network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    save_weights(weights, lively(build("daiam-nano"), seed=5), "daiam-nano", {}, torch.float32)
    with pytest.raises(ValueError, match=r"^the teacher's weights '.*' are others than the run in .* began with"):
        train(config, resume=True)


def test_a_teacher_that_cannot_teach_is_refused(tmp_path, weights):
    student = build("daiam-nano")
    with pytest.raises(ValueError, match=r"^data\.patch is 30, expected a multiple of 4 for '.*teacher\.safetensors'"):
        Teacher(DistillConfig(teacher=str(weights)), student, 30)
    with pytest.raises(
        ValueError, match=r"^distill\.attention is 10\.0, but the network has maps of \['drop', 'streak'\] "
    ):
        Teacher(DistillConfig(teacher="random:dam-dual"), student, 32)
    assert Teacher(DistillConfig(teacher="random:dam-dual", attention=0), student, 32)
    with pytest.raises(ValueError, match=r"^distill\.attention is 10\.0, but the network has maps of nothing and "):
        Teacher(DistillConfig(teacher=str(weights)), build("daiam-nano", attention="zero"), 32)
    with pytest.raises(FileNotFoundError, match="no weights file 'nobody'"):
        Teacher(DistillConfig(teacher="nobody"), student, 32)


def test_a_teacher_whose_map_is_of_no_branch_module_teaches_its_map():
    """Qian et al.'s network draws the map of all rain beside its autoencoder."""
    student = build("dam-nano")
    teacher = Teacher(DistillConfig(teacher="random:qian", output=0.0), student, 32)
    rainy = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert teacher.terms(student(rainy)[0], rainy, LossConfig())["distill_attention"] > 0
