"""The losses against values worked out by hand, and how far their gradients reach."""

import math

import pytest
import torch
from torch import Tensor

from derain.training.config import read_config
from derain.training.losses import LossConfig, attention_loss, derain_loss, image_loss, psnr
from derain.training.models import Branch, Prediction, build, names


def plane(*values: float) -> Tensor:
    """One row of pixels [1, 1, 1, W]."""
    return torch.tensor(values).reshape(1, 1, 1, -1)


def flat(value: float) -> Tensor:
    return torch.full((1, 3, 2, 2), value)


@pytest.mark.parametrize(
    ("kind", "expected"), [("mse", 0.05), ("charbonnier", 0.2), ("psnr", (math.log(0.01) + math.log(0.09)) / 2)]
)
def test_the_image_losses_are_what_their_papers_say(kind, expected):
    """Of two images, one off by 0.1 everywhere, the other by 0.3."""
    clean = torch.full((2, 3, 4, 4), 0.5)
    output = clean + torch.tensor([0.1, -0.3]).view(2, 1, 1, 1)
    assert image_loss(output, clean, kind).item() == pytest.approx(expected, abs=1e-4)


def test_a_better_image_lowers_the_psnr_loss_alike_in_light_and_in_heavy_rain():
    error = torch.tensor([0.01, 0.3]).view(2, 1, 1, 1).expand(2, 3, 4, 4).clone().requires_grad_()
    image_loss(error, torch.zeros(2, 3, 4, 4), "psnr").backward()
    gained = (error * error.grad).sum((1, 2, 3))  # by a like share of each error
    assert gained[0].item() == pytest.approx(gained[1].item(), rel=0.02)


def test_the_plain_attention_loss_is_the_mean_squared_error():
    assert attention_loss(plane(0.5, 1.0), plane(0.0, 1.0), "mse").item() == pytest.approx(0.125)


def test_the_balanced_attention_loss_weighs_rain_up_and_adds_half_a_soft_dice():
    # squares 0.25 and 0.25, weights 1 and 11: mean 1.5; overlap 2·0.5 + 1 = 2, sizes 0.25 + 0.25 + 1 + 1 = 2.5
    loss = attention_loss(plane(0.5, 0.5), plane(0.0, 1.0), "balanced")
    assert loss.item() == pytest.approx(1.5 + 0.5 * (1 - 2 / 2.5))
    assert attention_loss(plane(0.3, 1.0), plane(0.3, 1.0), "balanced").item() == pytest.approx(0)


def test_missing_the_rain_costs_more_than_inventing_it_only_when_balanced():
    missed, invented = (plane(0.0, 0.0), plane(0.0, 1.0)), (plane(0.0, 1.0), plane(0.0, 0.0))
    assert attention_loss(*missed, "mse") == attention_loss(*invented, "mse")
    assert attention_loss(*missed, "balanced") > 5 * attention_loss(*invented, "balanced")


def test_every_term_is_summed_over_branches_and_stages_and_weighted():
    masks = {"streak": torch.zeros(1, 1, 2, 2), "drop": torch.ones(1, 1, 2, 2)}
    half = torch.full((1, 1, 2, 2), 0.5)
    branches = {"streak": Branch(half, flat(0.1), flat(0.2)), "drop": Branch(half, flat(0.3), flat(0.4))}
    first = Prediction(flat(0.6), {"drop": Branch(half, flat(0.5), flat(0.0))})
    config = LossConfig(alpha=2.0, beta_heavy=3.0, beta_light=5.0, attention="mse")
    terms = derain_loss(Prediction(flat(0.7), branches, (first,)), flat(0.0), masks, config)
    expected = {
        "global": 0.49 + 0.36,
        "attention": 3 * 0.25,
        "heavy": 0.01 + 0.09 + 0.25,
        "light": 0.04 + 0.16,
    }
    assert {name: term.item() for name, term in terms.items() if name != "loss"} == pytest.approx(expected)
    assert terms["loss"].item() == pytest.approx(0.85 + 2 * 0.75 + 3 * 0.35 + 5 * 0.20)


def test_alpha_s_default_goes_with_the_balanced_loss_and_with_the_psnr_loss_it_is_some_twenty_times_that(repository):
    """The balanced loss of a map at the share of a frame that rain covers is some ten times the paper's."""
    config = LossConfig()
    assert (config.attention, config.alpha, config.beta_heavy, config.beta_light) == ("balanced", 0.1, 1.0, 0.3)
    for name in ("daiam", "daiam-edge"):
        shipped = read_config(repository / f"training/configs/{name}.yaml").loss
        assert (shipped.attention, shipped.image) == ("balanced", "psnr") and 10 <= shipped.alpha / config.alpha <= 40
    mask = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).pow(9)
    balanced, paper = (attention_loss(torch.full_like(mask, 0.1), mask, kind) for kind in ("balanced", "mse"))
    assert 5 < balanced / paper < 20


def test_a_network_without_maps_has_no_attention_loss():
    branches = {"rain": Branch(None, flat(0.0), flat(0.0))}
    terms = derain_loss(Prediction(flat(0.0), branches), flat(0.5), {"rain": torch.ones(1, 1, 2, 2)}, LossConfig())
    assert terms["attention"].item() == 0
    assert terms["loss"].item() == pytest.approx(0.25 * (1 + 1 + 0.3))


def test_psnr_is_of_the_clamped_image_one_value_an_image():
    output = torch.cat([flat(0.6), flat(1.5), flat(0.5)])
    truth = torch.cat([flat(0.5), flat(1.0), flat(0.5)])
    assert psnr(output, truth).tolist() == pytest.approx([20.0, 100.0, 100.0], abs=1e-4)
    assert psnr(flat(0.0), flat(0.1)).item() == pytest.approx(-10 * math.log10(0.01), abs=1e-4)


def gradients(name: str, lively, **options: int) -> dict[str, Tensor]:
    network = lively(build(name, **options), seed=1).train()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = {rain: torch.full((1, 1, 16, 16), 0.3) for rain in ("streak", "drop", "rain")}
    derain_loss(network(x)[0], 1 - x, masks, LossConfig())["loss"].backward()
    return {key: parameter.grad for key, parameter in network.named_parameters()}


@pytest.mark.parametrize("name", names())
def test_the_loss_reaches_every_parameter(name, lively):
    unreached = [key for key, grad in gradients(name, lively).items() if grad is None or not grad.any()]
    assert unreached == []


@pytest.mark.parametrize("steps", [1, 2])
def test_one_step_cannot_teach_what_meets_only_zeros(steps, lively):
    """From a zero state nothing flows through W_h and f; the encoder's map channel is zero at the first step too."""
    grads = gradients("dam-dual", lively, encoder_steps=steps, decoder_steps=steps)
    for lstm, width in {"encoder": 32, "heavy": 64, "light": 64}.items():
        weight, bias = (grads[f"branches.rain.{lstm}.lstm.gates.{kind}"] for kind in ("weight", "bias"))
        i, f, g, o = weight.chunk(4)
        assert weight[:, width:].any().item() == (steps > 1)  # the hidden half
        assert f.any().item() == bias.chunk(4)[1].any().item() == (steps > 1)
        assert all(gate[:, :width].flatten(1).any(1).all() for gate in (i, g, o))
    assert grads["branches.rain.encoder.conv.weight"][:, 3].any().item() == (steps > 1)
    assert grads["branches.rain.encoder.conv.weight"][:, :3].flatten(1).any(1).all()
