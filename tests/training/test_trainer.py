"""A whole training run, a few iterations long."""

import csv
import json
import logging
import math
import re
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from derain.training.config import OptimiserConfig, TrainConfig, read_config
from derain.training.data import to_tensor
from derain.training.models import build
from derain.training.models.blocks import ConvLSTM
from derain.training.models.initialise import initialise
from derain.training.models.weights import load
from derain.training.rain import RainConfig
from derain.training.trainer import Deraining, branch_masks, learning_rate, train
from derain_tests.pictures import write_frames


@pytest.fixture
def images(tmp_path: Path, picture) -> Path:
    for folder, count in (("train", 3), ("test", 2)):
        write_frames(tmp_path / folder, [picture(10 * count + index, 70, 50) for index in range(count)])
    return tmp_path


def config(images: Path, out: str = "run", **changes) -> TrainConfig:
    tree = {
        "network": {"name": "daiam-nano"},
        "data": {"root": images, "folders": ["train"], "validation": "test", "patch": 32},
        "optimiser": {"iterations": 6, "batch": 2, "learning_rate": 1e-3, "warm_up": 2, "ema_decay": 0.5},
        "machine": {"accelerator": "cpu", "threads": 1},
        "seed": 3,
        "validate_every": 3,
        "out": images / out,
    }
    for key, value in changes.items():
        tree[key] = (tree[key] | value) if isinstance(value, dict) else value
    return TrainConfig.model_validate(tree)


def test_two_runs_of_one_seed_learn_the_same_weights_and_another_seed_others(images):
    torch.manual_seed(99)
    first = load_file(train(config(images, "a")))
    torch.rand(3)
    again = load_file(train(config(images, "b")))
    other = load_file(train(config(images, "c", seed=4)))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if key.endswith("weight"))


def test_a_run_leaves_its_weights_and_everything_needed_to_repeat_it(images):
    asked = config(images)
    weights = train(asked)
    out = images / "run"
    assert weights == out / "weights.safetensors"
    assert read_config(out / "config.yaml") == asked
    assert yaml.safe_load((out / "config.yaml").read_text())["loss"]["alpha"] == 0.1  # resolved, defaults and all
    assert json.loads((out / "environment.json").read_text())["torch"] == torch.__version__
    split = json.loads((out / "split.json").read_text())
    assert split == {"train": [f"train/00{i}.png" for i in range(3)], "test": [f"test/00{i}.png" for i in range(2)]}
    with (out / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("val/psnr")]
    assert len(rows) == 2  # after 3 and after 6 iterations
    for row in rows:
        assert float(row["val/gain"]) == pytest.approx(float(row["val/psnr"]) - float(row["val/psnr_input"]), abs=1e-3)
    assert list(out.glob(".*")) == []

    trained = load(str(weights))
    assert (trained.name, trained.notes["iterations"], trained.notes["seed"]) == ("daiam-nano", "6", "3")
    assert json.loads(trained.notes["measured"])["val/psnr"] == f"{float(rows[-1]['val/psnr']):.3f}"
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    torch.manual_seed(0)
    fresh = build("daiam-nano").state_dict()
    assert any((trained.network.state_dict()[key] - value).abs().max() > 1e-3 for key, value in fresh.items())


def test_a_validation_is_told_in_decibels_and_a_time_slice_without_one_only_by_its_checkpoint(images, caplog):
    caplog.set_level(logging.INFO, "derain")
    train(config(images), minutes=0)
    assert [told for told in caplog.messages if told.startswith("iteration")] == ["iteration 1 of 6: checkpoint"]
    train(config(images), resume=True)
    told = next(message for message in caplog.messages if message.startswith("iteration 3:"))
    assert re.fullmatch(r"iteration 3: val/psnr_input [\d.]+, val/psnr [\d.]+, val/gain -?[\d.]+ dB", told)


def test_a_run_lowers_its_loss(images):
    """Sixty iterations are enough to take some of the rain off."""
    run = config(
        images,
        optimiser={"iterations": 60, "learning_rate": 3e-3, "warm_up": 5, "ema_decay": 0.8},
        validate_every=60,
    )
    train(run)
    with (images / "run/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    last = next(row for row in reversed(rows) if row.get("val/gain"))
    assert float(last["val/gain"]) > 0.3


def test_a_loss_that_is_no_longer_finite_stops_the_run_in_one_line(images):
    with pytest.raises(ValueError) as caught:
        train(config(images, optimiser={"learning_rate": 1e30, "warm_up": 0}))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(("the loss is nan at iteration", "the loss is inf at iteration"))
    assert message.endswith("lower optimiser.learning_rate")
    assert not (images / "run/weights.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"data": {"patch": 64}}, "smaller than the patch of 64"),
        ({"data": {"patch": 30}}, "data.patch is 30, expected a multiple of 4 for 'daiam-nano'"),
        ({"data": {"folders": ["nowhere"]}}, "no images in"),
        ({"data": {"validation": "train"}}, "which is trained on"),
        ({"network": {"name": "daiam-huge"}}, "model 'daiam-huge' is unknown"),
    ],
)
def test_a_run_that_cannot_start_says_so_in_one_line_and_leaves_no_weights(images, changes, part):
    with pytest.raises((ValueError, FileNotFoundError), match=part) as caught:
        train(config(images, **changes))
    assert "\n" not in str(caught.value)
    assert not (images / "run/weights.safetensors").exists()


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    schedule = OptimiserConfig(iterations=110, learning_rate=1e-3, final_learning_rate=1e-5, warm_up=10)
    assert learning_rate(0, schedule) == pytest.approx(1e-4)
    assert learning_rate(9, schedule) == learning_rate(10, schedule) == pytest.approx(1e-3)
    assert learning_rate(60, schedule) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(35, schedule) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(110, schedule) == learning_rate(500, schedule) == pytest.approx(1e-5)


@pytest.mark.parametrize("init", ["gaussian", "he"])
def test_weights_start_as_their_scheme_says_with_gates_open(init):
    network = build("dam-dual")
    torch.manual_seed(0)
    initialise(network, init)
    decoder = network.global_decoder
    lstms = [module for module in network.modules() if isinstance(module, ConvLSTM)]
    open_gates = {"gaussian": (0, 1, 0, 0), "he": (1, 1, 0, 1)}[init]  # i, f, g, o
    for lstm in lstms:
        assert [gate.unique().tolist() for gate in lstm.gates.bias.chunk(4)] == [[value] for value in open_gates]
    head = network.branches["rain"].encoder.head
    assert head.bias.sigmoid().item() == pytest.approx(0.5 if init == "gaussian" else 0.1)
    others = {head, *(lstm.gates for lstm in lstms)}
    assert not any(m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d) and m not in others)
    expected = {
        decoder.conv: math.sqrt(2 / 1.04 / (131 * 9)),
        decoder.lstm.gates: math.sqrt(2 / (128 * 9 + 256 * 9)) * math.sqrt((3 + 4) / 4),  # the candidate's is doubled
        decoder.blocks[0].conv1: math.sqrt(2 / 1.04 / (64 * 9)),
        decoder.blocks[0].conv2: 0.1 * math.sqrt(2 / 1.04 / (64 * 9)),
        decoder.out: 0.1 * math.sqrt(2 / 1.04 / (64 * 9)),
    }
    for conv, he in expected.items():
        std = conv.weight.std().item()
        assert std == pytest.approx(0.01 if init == "gaussian" else he, rel=0.05)
        assert abs(conv.weight.mean().item()) < 0.1 * std


@torch.no_grad()
def test_a_differential_module_starts_near_the_image_of_the_stage_before_it():
    network = build("d-daiam-nano")
    torch.manual_seed(0)
    initialise(network, "he")
    (module,) = network.differential
    rainy, output = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    fused = module(rainy, output, rainy)
    assert (fused - output).abs().mean() < 0.05 < (module(rainy, output, rainy) - rainy).abs().mean()
    initialise(network, "gaussian")
    assert (module(rainy, output, rainy) - output / 2 - rainy / 4).abs().max() < 0.01


def test_a_lone_dam_learns_the_heavier_of_the_two_masks():
    masks = branch_masks(torch.tensor([0.2, 0.9]), torch.tensor([0.5, 0.1]))
    assert masks["rain"].tolist() == pytest.approx([0.5, 0.9])
    assert masks["streak"].tolist() == pytest.approx([0.2, 0.9])


@pytest.mark.parametrize("changes", [{"kinds": "streaks"}, {"kinds": "drops"}, {"strength": 0.05}])
def test_a_run_is_validated_in_its_own_rain(images, changes):
    def rain(**rain):
        module = Deraining(config(images).model_copy(update={"rain": RainConfig(**rain)}))
        module.tally = torch.zeros(3)
        return module.validation_step((3, to_tensor(cv2.imread(str(images / "test/000.png")))), 0)["rain"]

    own, joint = rain(**changes), rain()
    assert joint.mask_streak.max() > 0 and joint.mask_drop.max() > 0
    if changes.get("kinds") == "streaks":
        assert own.mask_drop.max() == 0 and torch.equal(own.rainy, joint.rainy) is False
    elif changes.get("kinds") == "drops":
        assert own.mask_streak.max() == 0
    else:
        assert (own.rainy - own.clean).square().mean() < (joint.rainy - joint.clean).square().mean() / 4


def test_held_out_frames_have_each_strength_in_turn_and_rain_of_their_own(images):
    module = Deraining(config(images))
    module.tally = torch.zeros(3)
    picture = to_tensor(cv2.imread(str(images / "test/000.png")))
    rains = [module.validation_step((index, picture), 0)["rain"] for index in range(5)]
    changes = [(rain.rainy - rain.clean).square().mean() for rain in rains]
    assert changes[0] < changes[1] < changes[2] < changes[3]
    assert changes[4] < changes[1] and not torch.equal(rains[4].rainy, rains[0].rainy)
    assert torch.equal(module.validation_step((0, picture), 0)["rain"].rainy, rains[0].rainy)


def test_adam_learns_without_weight_decay(images):
    optimiser = Deraining(config(images)).configure_optimizers()["optimizer"]
    assert type(optimiser) is torch.optim.Adam
    assert all(group["weight_decay"] == 0 for group in optimiser.param_groups)


def test_gradients_are_clipped_to_the_norm_that_is_asked_for(images, monkeypatch):
    """Adam moves as far whatever the gradients' size, so what counts is what it is given."""
    norms = []
    step = torch.optim.Adam.step

    def spy(self, closure=None):
        def seen():
            loss = closure()
            gradients = [value.grad for group in self.param_groups for value in group["params"]]
            norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
            return loss

        return step(self, seen)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    train(config(images, optimiser={"gradient_clip": 0.01}))
    assert len(norms) == 6 and max(norms) == pytest.approx(0.01, rel=1e-3)
