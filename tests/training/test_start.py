import pytest
import torch

from derain.training.config import TrainConfig
from derain.training.models import build
from derain.training.models.checkpoint import save_weights
from derain.training.trainer import Deraining


def config(start, name="daiam-nano"):
    return TrainConfig.model_validate(
        {"network": {"name": name, "start": start}, "optimiser": {"iterations": 1}, "out": "unused"}
    )


def test_a_second_stage_begins_with_the_first_ones_weights(tmp_path):
    first = build("daiam-nano")
    save_weights(tmp_path / "first.safetensors", first, "daiam-nano", {}, torch.float32)

    second = Deraining(config(str(tmp_path / "first.safetensors"))).network

    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_a_second_stage_refuses_the_weights_of_another_network_in_one_line(tmp_path):
    save_weights(tmp_path / "small.safetensors", build("daiam-small"), "daiam-small", {}, torch.float32)

    with pytest.raises(ValueError, match="daiam-nano") as error:
        Deraining(config(str(tmp_path / "small.safetensors")))
    assert "\n" not in str(error.value)
