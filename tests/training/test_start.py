"""A run that begins from another's weights."""

import pytest
import torch

from derain.training.config import TrainConfig
from derain.training.models import build
from derain.training.models.weights import save_weights
from derain.training.trainer import Deraining


def config(start, name="daiam-nano", **options):
    network = {"name": name, "start": start, "options": options}
    return TrainConfig.model_validate({"network": network, "optimiser": {"iterations": 1}, "out": "unused"})


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


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"whiten": False}, {}, "whiten is True, but .* has False"),
        ({}, {"context": "global"}, "context is 'global', but .* has 'none'"),
    ],
)
def test_a_second_stage_has_the_options_of_the_first_which_its_tensors_do_not_tell(tmp_path, first, second, told):
    file = str(tmp_path / "first.safetensors")
    save_weights(tmp_path / "first.safetensors", build("daiam-nano", **first), "daiam-nano", first, torch.float32)

    with pytest.raises(ValueError, match=rf"^network\.options\.{told}: expected the same$"):
        Deraining(config(file, **second))
    again = Deraining(config(file, **first, encoder_steps=2, head="shuffled")).network  # as it is, spelt out or not
    assert (again.to_blocks.whiten, again.branches["drop"].encoder.steps) == (first.get("whiten", True), 2)


def test_a_run_that_goes_on_does_not_need_what_it_started_from(tmp_path):
    gone = config(str(tmp_path / "gone.safetensors"))
    with pytest.raises(FileNotFoundError, match="gone"):
        Deraining(gone)
    Deraining(gone, begun=True)
