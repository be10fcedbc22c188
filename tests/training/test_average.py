"""The mean of weights: what it is, what it says of itself, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file

from derain.training.average import average
from derain.training.models import build
from derain.training.models.weights import load, save_weights


@pytest.fixture
def runs(tmp_path, lively) -> list[str]:
    """The second is the first, moved a little, as a run that began from it."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = lively(build("daiam-nano"))
        with torch.no_grad():
            for value in network.parameters():
                value.add_(torch.randn_like(value) * 0.01)
        save_weights(tmp_path / f"{seed}.safetensors", network, "daiam-nano", {}, torch.float32, seed=str(seed))
    return [str(tmp_path / f"{seed}.safetensors") for seed in (1, 2)]


def test_every_tensor_is_the_mean_rounded_once_and_the_runs_are_named(runs, tmp_path):
    out = tmp_path / "mean.safetensors"
    average(runs, out)
    first, second, mean = (load_file(path) for path in (*runs, out))
    for key, value in mean.items():
        assert value.dtype == torch.float16
        assert torch.equal(value, ((first[key] + second[key]) / 2).half())
        assert not torch.equal(first[key], second[key])
    trained = load(str(out))
    assert trained.name == "daiam-nano"
    assert [run["seed"] for run in trained.runs] == ["1", "2"]


def test_a_mean_of_means_names_every_run_behind_it(runs, tmp_path):
    mean, again = tmp_path / "mean.safetensors", tmp_path / "again.safetensors"
    average(runs, mean)
    average([str(mean), runs[0]], again)
    assert [run["seed"] for run in load(str(again)).runs] == ["1", "2", "1"]


def test_unlike_networks_and_single_files_are_refused_and_nothing_is_written(runs, tmp_path):
    other = tmp_path / "other.safetensors"
    save_weights(other, build("daiam-nano", encoder_steps=2), "daiam-nano", {"encoder_steps": 2}, torch.float32)
    out = tmp_path / "mean.safetensors"
    with pytest.raises(ValueError, match=r"other\.safetensors is a 'daiam-nano' with options .*: average runs of one"):
        average([*runs, str(other)], out)
    with pytest.raises(ValueError, match="1 weights to average: expected at least 2"):
        average(runs[:1], out)
    assert not out.exists()


def test_an_option_spelt_out_is_no_other_than_one_left_at_its_default(runs, tmp_path):
    spelt = load(runs[1])
    save_weights(tmp_path / "spelt.safetensors", spelt.network, spelt.name, {"head": "shuffled"}, torch.float32)
    average([runs[0], str(tmp_path / "spelt.safetensors")], tmp_path / "mean.safetensors")
    assert load(str(tmp_path / "mean.safetensors")).options == {}


def test_runs_that_did_not_begin_from_one_another_are_refused(runs, tmp_path, lively):
    stranger = tmp_path / "stranger.safetensors"
    save_weights(stranger, lively(build("daiam-nano"), seed=9), "daiam-nano", {}, torch.float32)
    out = tmp_path / "mean.safetensors"
    with pytest.raises(
        ValueError, match=r"1\.safetensors and .*stranger\.safetensors did not begin from one another .*0\.0"
    ):
        average([*runs, str(stranger)], out)
    assert not out.exists()


def test_runs_that_share_no_more_than_their_first_weights_are_refused(runs, tmp_path, lively):
    """One seed makes one set of first weights: two long runs from it are still half alike."""
    strangers = (lively(build("daiam-nano"), seed=seed).state_dict() for seed in (9, 11))
    network, half = build("daiam-nano"), load_file(runs[0])
    own, other = strangers
    network.load_state_dict({key: half[key] + 0.8 * (own[key] - other[key]) for key in half})
    run = tmp_path / "half.safetensors"
    save_weights(run, network, "daiam-nano", {}, torch.float32)
    with pytest.raises(ValueError, match=r"did not begin from one another .* is 0\.[4-7]"):
        average([runs[0], str(run)], tmp_path / "mean.safetensors")
