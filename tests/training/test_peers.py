"""The networks that the paper compares with: their sizes, their state, and the equations of their papers."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from derain.training.losses import LossConfig, derain_loss
from derain.training.models import (
    COMPACT_PEERS,
    PEERS,
    build,
    names,
    parameter_count,
    recurrent_steps,
    size_multiple,
)
from derain.training.models.blocks import LSTMState, ReluBlock, whitening
from derain.training.models.initialise import initialise
from derain.training.models.prenet import PReNetState
from derain.training.models.qian import ContextualAutoencoder
from derain.training.models.rescan import ContextGRU, SqueezeExcitation
from derain.training.panels import attention_tiles


def conv(channels_in: int, channels_out: int, size: int = 3) -> int:
    return channels_in * channels_out * size**2 + channels_out


LSTM, BLOCKS = conv(64, 128), 10 * conv(32, 32)
PRENET = conv(6, 32) + LSTM + BLOCKS + conv(32, 3)
GATES, EXCITATION = conv(24, 72) + 24 * 72 * 9, conv(24, 6, 1) + conv(6, 24, 1)
RESCAN = (conv(3, 72) + 24 * 72 * 9) + 4 * GATES + 6 * EXCITATION + conv(24, 24) + conv(24, 3, 1)
ATTENTIVE = conv(4, 32) + BLOCKS + LSTM + conv(32, 1)
CODER = conv(4, 64, 5) + conv(64, 128) + conv(128, 128) + conv(128, 256) + 8 * conv(256, 256)
CODER += conv(256, 128) + conv(128, 128) + conv(128, 64) + conv(64, 32) + conv(256, 3) + conv(128, 3) + conv(32, 3)

# Exactly, and what the paper's Table 6 says in millions.
PARAMETERS = {
    "rescan": (RESCAN, 0.15),
    "prenet": (PRENET, 0.17),
    "qian": (ATTENTIVE + CODER, 6.00),
    "qian-prenet": (ATTENTIVE + CODER + PRENET, 6.17),
    "prenet-qian": (ATTENTIVE + CODER + PRENET, 6.17),
}


def frames(batch: int = 1, height: int = 16, width: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_exactly_its_parameters_and_nearly_the_papers(name):
    exact, published = PARAMETERS[name]
    assert parameter_count(build(name)) == exact
    assert exact / 1e6 == pytest.approx(published, rel=0.01)
    assert name in names()


def test_the_counts_are_those_that_are_reported_elsewhere():
    assert PRENET == 168_963  # Ren et al. 2019
    second_biases = 5 * 3 * 24
    assert RESCAN + second_biases == 149_823  # as Ren et al. 2019 count RESCAN


@torch.no_grad()
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_keeps_the_frames_size_and_says_how_it_recurs(name, lively):
    network = lively(build(name))
    prediction, _ = network(frames(2, 20, 28))
    images = [stage.image for stage in (*prediction.earlier, prediction)]
    assert all(image.shape == (2, 3, 20, 28) and image.std() > 0.01 for image in images)
    assert len(images) == {"rescan": 4, "prenet": 1, "qian": 3, "qian-prenet": 4, "prenet-qian": 4}[name]
    assert size_multiple(network) == (4 if "qian" in name else 1)
    expected = {"rescan": (1, 4), "prenet": (1, 6), "qian": (4, 1), "qian-prenet": (4, 6), "prenet-qian": (4, 6)}
    assert recurrent_steps(network) == expected[name]


@torch.no_grad()
@pytest.mark.parametrize("name", ["prenet", "rescan"])
def test_steps_are_calls_of_one_step_that_carry_the_state(name, lively):
    one, three = lively(build(name, steps=1)), lively(build(name, steps=3))
    x, state = frames(), None
    if name == "rescan":
        whole = three(x)[0]
        assert len(whole.earlier) == 2
        torch.testing.assert_close(whole.earlier[0].image, one(x)[0].image, rtol=0, atol=0)
        assert not torch.allclose(whole.image, whole.earlier[1].image, atol=1e-3)
        return
    for _ in range(3):
        prediction, state = one(x, state)
    torch.testing.assert_close(prediction.image, three(x)[0].image, rtol=0, atol=0)


@torch.no_grad()
def test_a_step_of_prenet_is_its_papers_equations(lively):
    network = lively(build("prenet", steps=1))
    rainy, before = frames(seed=1), frames(seed=2)
    hidden, cell = torch.randn(1, 32, 16, 24), torch.randn(1, 32, 16, 24)
    seen = F.conv2d(torch.cat([rainy, before], 1), network.conv.weight, network.conv.bias, padding=1).relu()
    lstm = network.lstm(seen, LSTMState(hidden, cell))
    expected = rainy + network.out(network.blocks(lstm.hidden))
    prediction, state = network(rainy, PReNetState(before, LSTMState(hidden, cell)))
    torch.testing.assert_close(prediction.image, expected)
    torch.testing.assert_close(state.lstm.cell, lstm.cell)
    fresh = network(rainy)[0].image
    zeros = torch.zeros_like(hidden)
    torch.testing.assert_close(fresh, network(rainy, PReNetState(rainy, LSTMState(zeros, zeros)))[0].image)


@torch.no_grad()
def test_prenet_nano_recurs_on_whitened_blocks_and_adds_its_rain_to_the_frame(lively):
    network = lively(build("prenet-nano", steps=2))
    assert (size_multiple(network), recurrent_steps(build("prenet-nano"))) == (4, (1, 6))
    assert parameter_count(network) == conv(96, 16) + conv(32, 64) + 10 * conv(16, 16) + conv(16, 48)
    rainy, lstm = frames(), None
    image, (weight, bias) = rainy, whitening(4)
    for _ in range(2):
        blocks = [F.conv2d(F.pixel_unshuffle(x, 4), weight, bias) for x in (rainy, image)]
        lstm = network.lstm(network.conv(torch.cat(blocks, 1)).relu(), lstm)
        image = rainy + F.pixel_shuffle(network.out(network.blocks(lstm.hidden)), 4)
    torch.testing.assert_close(network(rainy)[0].image, image)


@torch.no_grad()
def test_rescan_nano_takes_the_rain_of_whitened_blocks_off_the_frame(lively):
    network = lively(build("rescan-nano", steps=2))
    assert (size_multiple(network), recurrent_steps(build("rescan-nano"))) == (4, (1, 4))
    rainy, states, (weight, bias) = frames(), [None] * 5, whitening(4)
    image = rainy
    for _ in range(2):
        seen = F.conv2d(F.pixel_unshuffle(image, 4), weight, bias)
        for index, layer in enumerate(network.layers):
            seen = states[index] = layer(seen, states[index])
        rain = network.out(network.act(network.weigh(network.conv(seen))))
        image = rainy - F.pixel_shuffle(rain, 4)
    torch.testing.assert_close(network(rainy)[0].image, image)


@torch.no_grad()
def test_qian_nano_draws_its_map_and_its_images_in_blocks(lively):
    network = lively(build("qian-nano", steps=2, residual=True))
    assert (size_multiple(network), recurrent_steps(build("qian-nano"))) == (16, (4, 1))
    rainy, (weight, bias) = frames(height=32, width=48), whitening(4)
    blocks = F.conv2d(F.pixel_unshuffle(rainy, 4), weight, bias)
    attention, lstm = torch.full((1, 16, 8, 12), 0.5), None
    for _ in range(2):
        seen = network.attentive.blocks(network.attentive.conv(torch.cat([blocks, attention], 1)).relu())
        lstm = network.attentive.lstm(seen, lstm)
        attention = network.attentive.head(lstm.hidden).sigmoid()
    prediction, _ = network(rainy)
    torch.testing.assert_close(prediction.branches["rain"].attention, F.pixel_shuffle(attention, 4))
    quarter, _, full = (F.pixel_shuffle(image, 4) for image in network.autoencoder(torch.cat([blocks, attention], 1)))
    torch.testing.assert_close(prediction.image, rainy + full)
    assert quarter.shape == (1, 3, 8, 12)
    torch.testing.assert_close(prediction.earlier[0].image, rainy + F.interpolate(quarter, scale_factor=4))


@torch.no_grad()
def test_a_relu_block_is_its_equation(lively):
    block, x = lively(ReluBlock(3)), torch.randn(1, 3, 8, 8)
    inner = F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1).relu()
    inner = F.conv2d(inner, block.conv2.weight, block.conv2.bias, padding=1).relu()
    torch.testing.assert_close(block(x), (x + inner).relu())


@torch.no_grad()
def test_a_layer_of_rescan_is_equation_7_dilated_over_the_frame_and_not_over_the_state(lively):
    layer = lively(ContextGRU(3, 5, dilation=4))
    layer.weigh = torch.nn.Identity()
    x, h = torch.randn(1, 3, 12, 14), torch.randn(1, 5, 12, 14)
    wz, wr, wn = F.conv2d(x, layer.inputs.weight, layer.inputs.bias, padding=4, dilation=4).split(5, 1)
    uz, ur = F.conv2d(h, layer.gates.weight, padding=1).split(5, 1)
    z, r = (wz + uz).sigmoid(), (wr + ur).sigmoid()
    n = (wn + F.conv2d(r * h, layer.candidate.weight, padding=1)).tanh()
    expected = F.leaky_relu((1 - z) * h + z * n, 0.2)
    torch.testing.assert_close(layer(x, h), expected)
    torch.testing.assert_close(layer(x), layer(x, torch.zeros_like(h)))


@torch.no_grad()
def test_squeeze_and_excitation_weighs_channels_by_their_means(lively):
    module, x = lively(SqueezeExcitation(4, 2)), torch.rand(2, 4, 6, 7)
    means = x.mean((2, 3))
    inner = (means @ module.squeeze.weight[:, :, 0, 0].T + module.squeeze.bias).relu()
    weights = (inner @ module.excite.weight[:, :, 0, 0].T + module.excite.bias).sigmoid()
    torch.testing.assert_close(module(x), x * weights[:, :, None, None])


@torch.no_grad()
def test_rescan_takes_its_own_rain_off_the_frame_it_was_given(lively):
    """R^2 = f(O - R^1) comes off O, not off O - R^1."""
    network = lively(build("rescan", steps=2))
    x = frames()
    first, state = lively(build("rescan", steps=1))(x)
    seen = first.image
    for index, layer in enumerate(network.layers):
        seen = layer(seen, state[index])
    rain = network.out(network.act(network.weigh(network.conv(seen))))
    torch.testing.assert_close(network(x)[0].image, x - rain)


@torch.no_grad()
def test_qians_map_starts_at_a_half_recurs_and_leads_the_autoencoder(lively):
    network = lively(build("qian", steps=2))
    x, attention, lstm = frames(), torch.full((1, 1, 16, 24), 0.5), None
    for _ in range(2):
        seen = network.attentive.blocks(network.attentive.conv(torch.cat([x, attention], 1)).relu())
        lstm = network.attentive.lstm(seen, lstm)
        attention = network.attentive.head(lstm.hidden).sigmoid()
    prediction, state = network(x)
    torch.testing.assert_close(prediction.branches["rain"].attention, attention)
    torch.testing.assert_close(state.attention, attention)
    quarter, half, full = network.autoencoder(torch.cat([x, attention], 1))
    torch.testing.assert_close(prediction.image, full)
    assert (quarter.shape[-2:], half.shape[-2:]) == ((4, 6), (8, 12))
    coarse = prediction.earlier[0].image
    torch.testing.assert_close(F.avg_pool2d(coarse, 4), quarter)
    assert coarse[0, 0, :4, :4].std() == 0
    residual = lively(build("qian", steps=2, residual=True))(x)[0]
    torch.testing.assert_close(residual.image, x + full)
    torch.testing.assert_close(residual.earlier[0].image, x + coarse)


def test_a_repeated_coarse_image_learns_what_the_averaged_truth_would_teach_it():
    quarter = torch.rand(1, 3, 4, 6, requires_grad=True)
    truth = frames()
    (repeated,) = torch.autograd.grad(F.mse_loss(F.interpolate(quarter, size=(16, 24)), truth), quarter)
    (averaged,) = torch.autograd.grad(F.mse_loss(quarter, F.avg_pool2d(truth, 4)), quarter)
    torch.testing.assert_close(repeated, averaged)


def test_the_autoencoder_has_sixteen_convolutions_of_which_four_are_dilated():
    convolutions = [m for name, m in ContextualAutoencoder().named_modules() if isinstance(m, torch.nn.Conv2d)]
    hidden = [convolution for convolution in convolutions if convolution.out_channels > 3]
    assert len(hidden) == 16
    assert [m.dilation[0] for m in hidden if m.dilation[0] > 1] == [2, 4, 8, 16]
    assert sum(m.stride[0] == 2 for m in hidden) == 2


@torch.no_grad()
@pytest.mark.parametrize("name", ["qian-prenet", "prenet-qian", "qian-prenet-nano", "prenet-qian-nano"])
def test_a_chain_derains_what_its_first_network_leaves(name, lively):
    network, x = lively(build(name)), frames(height=32, width=48)
    first, second = network.stages
    middle = first(x)[0]
    prediction, states = network(x)
    last = second(middle.image)[0]
    torch.testing.assert_close(prediction.image, last.image, rtol=0, atol=0)
    assert len(states) == 2
    trained = [stage.image for stage in prediction.earlier]
    for image in (middle.image, *(stage.image for stage in (*middle.earlier, *last.earlier))):
        assert any(torch.equal(image, other) for other in trained)


@torch.no_grad()
def test_panels_show_qians_map_and_the_loss_takes_it(lively):
    prediction, _ = lively(build("qian"))(frames())
    (tile,) = attention_tiles(prediction)
    assert tile.caption == "S+ rain"
    clean, mask = frames(seed=3), {"rain": torch.zeros(1, 1, 16, 24)}
    terms = derain_loss(prediction, clean, mask, LossConfig(attention="mse"))
    torch.testing.assert_close(terms["attention"], prediction.branches["rain"].attention.square().mean())
    images = [stage.image for stage in (*prediction.earlier, prediction)]
    torch.testing.assert_close(terms["global"], sum(F.mse_loss(image, clean) for image in images))
    assert terms["heavy"] == terms["light"] == 0


@torch.no_grad()
@pytest.mark.parametrize("name", (*PEERS, *COMPACT_PEERS))
@pytest.mark.parametrize("init", ["he", "gaussian"])
def test_a_peer_starts_in_the_range_of_images(name, init):
    torch.manual_seed(0)
    network = build(name)
    initialise(network, init)
    prediction, _ = network(frames(height=32, width=32))
    for stage in (*prediction.earlier, prediction):
        assert stage.image.abs().max() < 20
    for branch in prediction.branches.values():
        assert 0.02 < branch.attention.mean() < 0.6


@torch.no_grad()
@pytest.mark.parametrize("name", ["rescan", "prenet", "qian", "rescan-nano", "prenet-nano", "qian-nano"])
def test_a_peer_that_adds_to_the_frame_starts_near_it_and_not_at_it(name):
    """RESCAN's layers let their input through, and Qian's last convolutions start small."""
    torch.manual_seed(0)
    network = build(name, **({"residual": True} if "qian" in name else {}))
    initialise(network, "he")
    x = 0.4 + 0.2 * frames(height=64, width=64)
    assert 0.002 < (network(x)[0].image - x).std() < 0.1
