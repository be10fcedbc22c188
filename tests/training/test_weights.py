"""Weights on disk: what comes back, and what is refused."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from derain.training.average import average
from derain.training.config import TrainConfig
from derain.training.models import build
from derain.training.models.weights import SHIPPED, load, resolve, save_weights
from derain.training.trainer import Deraining

OPTIONS = {"encoder_steps": 2, "decoder_steps": 1}


@pytest.fixture
def network(lively):
    return lively(build("daiam-nano", **OPTIONS))


@pytest.fixture
def weights(tmp_path: Path, network) -> Path:
    path = tmp_path / "nano.safetensors"
    save_weights(path, network, "daiam-nano", OPTIONS, torch.float32, seed="7")
    return path


def fault(path: Path | str, kind: type[Exception] = ValueError, **overrides) -> str:
    with pytest.raises(kind) as caught:
        load(str(path), **overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_fp32_weights_come_back_bit_by_bit_with_all_that_was_said_of_them(weights, network):
    trained = load(str(weights))
    assert (trained.name, trained.options, trained.notes, trained.file) == (
        "daiam-nano",
        OPTIONS,
        {"seed": "7"},
        weights,
    )
    assert not trained.network.training
    assert trained.network.branches["drop"].encoder.steps == 2
    for key, value in network.state_dict().items():
        assert torch.equal(trained.network.state_dict()[key], value), key
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


def test_equal_weights_are_equal_files_whatever_order_their_notes_are_written_in(network, tmp_path):
    notes = {f"note{number}": f'"{number}", é' for number in range(8)}
    files = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for file in files:
        save_weights(file, network, "daiam-nano", OPTIONS, torch.float16, **notes)
    assert len({file.read_bytes() for file in files}) == 1
    assert load(str(files[0])).notes == notes
    assert load_file(files[0]).keys() == network.state_dict().keys()


def test_fp16_weights_come_back_as_fp32_rounded_once_at_half_the_size(weights, network, tmp_path):
    half = tmp_path / "half.safetensors"
    save_weights(half, network, "daiam-nano", OPTIONS, torch.float16)
    assert half.stat().st_size < 0.55 * weights.stat().st_size
    state = load(str(half)).network.state_dict()
    for key, value in network.state_dict().items():
        assert state[key].dtype == torch.float32
        assert torch.equal(state[key], value.half().float()), key


@pytest.mark.parametrize("use", ["load", "average", "train from", "learn from"])
def test_weights_that_are_not_finite_are_refused_by_file_and_tensor_whatever_they_are_for(use, weights, tmp_path):
    spoilt = load_file(weights)
    spoilt["global_decoder.out.weight"][0, 0, 0, 0] = float("nan")
    path = tmp_path / "spoilt.safetensors"
    save_file(spoilt, path, metadata={"model": "daiam-nano", "options": json.dumps(OPTIONS)})
    network = {"name": "daiam-nano", "options": OPTIONS}
    rest = {"optimiser": {"iterations": 1}, "out": tmp_path / "run"}
    uses = {
        "load": lambda: load(str(path)),
        "average": lambda: average([str(weights), str(path)], tmp_path / "mean.safetensors"),
        "train from": lambda: Deraining(TrainConfig(network={**network, "start": str(path)}, **rest)),
        "learn from": lambda: Deraining(TrainConfig(network=network, **rest, distill={"teacher": str(path)})),
    }
    told = rf"^{path}: tensor 'global_decoder\.out\.weight' is not finite: expected weights of a run that converged$"
    with pytest.raises(ValueError, match=told):
        uses[use]()


@pytest.mark.parametrize("value", [float("nan"), 1e5])
def test_values_that_are_not_finite_as_saved_leave_the_weights_before_them(weights, network, value):
    before = weights.read_bytes()
    with torch.no_grad():
        next(network.parameters()).view(-1)[3] = value
    with pytest.raises(ValueError, match=r"nano\.safetensors is left as it was: .* is not finite any more: lower"):
        save_weights(weights, network, "daiam-nano", OPTIONS, torch.float16)
    assert weights.read_bytes() == before


def test_options_can_be_overridden_where_the_tensors_still_fit(weights):
    trained = load(str(weights), encoder_steps=3, decoder_steps=2)
    assert trained.options == {"encoder_steps": 3, "decoder_steps": 2}
    assert trained.network.global_decoder.steps == 2


def test_a_truncated_file_is_refused(weights):
    data = weights.read_bytes()
    for kept in (len(data) // 2, 5, 0):
        weights.write_bytes(data[:kept])
        assert "not a readable safetensors file" in (message := fault(weights))
        assert "get a whole copy" in message


def test_a_renamed_pickle_is_refused_and_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    assert "not a readable safetensors file" in fault(path)
    torch.save({"weight": torch.ones(3)}, path)
    assert "not a readable safetensors file" in fault(path)
    assert not (tmp_path / "sprung").exists()


def test_foreign_safetensors_are_refused_by_what_they_do_not_say(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(3)}, path)
    assert "expected metadata 'model', found none; write it with `derain train`" in fault(path)
    save_file({"weight": torch.ones(3)}, path, metadata={"format": "pt"})
    assert "found ['format']" in fault(path)
    save_file({"weight": torch.ones(3)}, path, metadata={"model": "resnet50"})
    assert "model 'resnet50' is unknown, known are: dam-zero" in fault(path)
    save_file({"weight": torch.ones(3)}, path, metadata={"model": "daiam", "options": "[1"})
    assert "does not describe a network" in fault(path)
    save_file({"weight": torch.ones(3)}, path, metadata={"model": "daiam", "options": "[1]"})
    assert "does not describe a network" in fault(path)


def test_weights_of_another_architecture_are_refused_by_the_first_tensor_that_does_not_fit(weights):
    tensors = load_file(weights)
    for name in ("daiam-edge", "dam-dual"):
        save_file(tensors, weights, metadata={"model": name})
        message = fault(weights)
        assert f"does not fit model {name!r}: tensor 'branches." in message
        assert f"use weights that were trained as {name!r}" in message
    save_file(tensors, weights, metadata={"model": "daiam-edge"})
    key = "branches.drop.encoder.blocks.0.conv1.bias"
    assert f"tensor {key!r} is {tuple(tensors[key].shape)}, expected (32,)" in fault(weights)
    width = len(tensors.pop(key))
    save_file(tensors, weights, metadata={"model": "daiam-nano"})
    assert f"tensor {key!r} is missing, expected ({width},)" in fault(weights)
    save_file(load_file(weights) | {key: torch.ones(width), "extra": torch.ones(2)}, weights, {"model": "daiam-nano"})
    assert "tensor 'extra' is (2,), expected no such tensor" in fault(weights)


def test_no_steps_at_all_are_refused(weights):
    assert "encoder_steps is 0, expected a whole number of at least 1" in fault(weights, encoder_steps=0)


def test_names_without_a_file_say_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights ship for model 'd-daiam' \(shipped: .*random:d-daiam"):
        resolve("d-daiam")
    with pytest.raises(
        FileNotFoundError, match=r"no weights file 'nothing\.safetensors': expected a \.safetensors file"
    ):
        resolve("nothing.safetensors")


def test_random_weights_are_the_same_every_time_and_come_from_no_file():
    first, again = (load("random:daiam-nano", encoder_steps=2) for _ in range(2))
    assert first.file is None and first.options == {"encoder_steps": 2}
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    with pytest.raises(ValueError, match="model 'nothing' is unknown"):
        load("random:nothing")


def test_every_file_that_ships_loads_under_its_own_name_and_says_how_it_was_trained():
    shipped = sorted(SHIPPED.glob("*.safetensors"))
    if not shipped:
        pytest.skip("no weights ship yet: derain train training/weights/daiam-nano.yaml")
    for path in shipped:
        trained = load(path.stem)
        assert trained.name == path.stem
        for run in trained.runs:
            assert run["seed"].isdigit()
            assert json.loads(run["measured"])["val/psnr"]
        assert path.stat().st_size <= 1_500_000 or path.stem != "daiam-nano"
