"""The networks: their sizes, their outputs, their explicit state, and the equations they are made of."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from derain.training.models import COMPACT_PEERS, PEERS, build, names, parameter_count, size_multiple
from derain.training.models.blocks import ConvLSTM, LSTMState, ResBlock
from derain.training.models.dam import DAMBranch, EncoderState
from derain.training.models.differential import DifferentialModule, FilterNet

DAIAM = 3_601_105
DAM = 130_817 + 2 * 686_403 + 593_859 - 128 * 64 * 9  # its global decoder sees two branches' features fewer
FILTER_NET = (3 * 16 * 4 + 16) + (16 * 16 * 4 + 16) + (16 * 4 + 1)
NO_HEAD = 32 * 9 + 32 * 9 + 1  # the encoder's fourth channel and its attention head


def conv(channels_in: int, channels_out: int, size: int = 3) -> int:
    return channels_in * channels_out * size**2 + channels_out


def compact(e: int, d: int, rains: int = 2) -> int:
    """Encoders of width e and decoders of width d on blocks of 4 by 4 pixels, for so many types of rain."""

    def decoder(channels_in: int, blocks: int) -> int:
        return conv(channels_in, d) + conv(2 * d, 4 * d) + 2 * blocks * conv(d, d) + conv(d, 48)

    encoder = conv(48 + 16, e) + 6 * conv(e, e) + conv(2 * e, 4 * e) + conv(e, 16)
    branch = encoder + 2 * conv(16, e, size=1) + 2 * decoder(e + 48, 5)
    return rains * branch + decoder(2 * rains * d + 48, 2)


PARAMETERS = {
    "dam-zero": DAM - NO_HEAD,
    "dam-odd": DAM,
    "dam-dual": DAM,
    "d-dam": 2 * DAM + 2 * FILTER_NET,
    "daiam": DAIAM,
    "daiam-daiam": 2 * DAIAM,
    "d-daiam": 2 * DAIAM + 2 * FILTER_NET,
    "d-daiam-3": 3 * DAIAM + 2 * 2 * FILTER_NET,
    "daiam-nano": compact(16, 16),
    "daiam-small": compact(16, 32),
    "daiam-edge": compact(32, 64),
    "dam-nano": compact(16, 16, rains=1),
    "d-daiam-nano": 2 * compact(16, 16) + 2 * FILTER_NET,
}
FAMILY = [name for name in names() if name not in (*PEERS, *COMPACT_PEERS)]  # test_peers.py has the others
EARLIER = {"d-dam": 1, "daiam-daiam": 1, "d-daiam": 1, "d-daiam-nano": 1, "d-daiam-3": 2}
COMPACT = ("daiam-nano", "daiam-small", "daiam-edge", "dam-nano", "d-daiam-nano")
RAIN_TYPES = {name: {"rain"} if "dam" in name.split("-") else {"streak", "drop"} for name in PARAMETERS}


def frames(batch: int = 1, height: int = 16, width: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FAMILY)
def test_every_network_has_exactly_its_parameters(name):
    assert parameter_count(build(name)) == PARAMETERS[name]


def test_the_parts_of_the_daiam_have_the_papers_sizes():
    network = build("daiam")
    for branch in network.branches.values():
        assert parameter_count(branch.encoder) == 130_817
        assert parameter_count(branch.heavy) == parameter_count(branch.light) == 686_403
    assert parameter_count(network.global_decoder) == 593_859
    assert parameter_count(build("d-daiam").differential) == 2 * FILTER_NET


def test_recurrent_steps_add_no_parameters():
    assert parameter_count(build("daiam", encoder_steps=3, decoder_steps=2)) == DAIAM


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILY)
def test_every_network_keeps_the_frames_size_and_draws_a_map_for_each_rain(name, lively):
    network = lively(build(name))
    height, width = 4 * 5, 4 * 7
    prediction, _ = network(frames(2, height, width))
    for stage in (*prediction.earlier, prediction):
        assert stage.image.shape == (2, 3, height, width)
        assert set(stage.branches) == RAIN_TYPES[name]
        for branch in stage.branches.values():
            assert branch.heavy.shape == branch.light.shape == (2, 3, height, width)
            if name == "dam-zero":
                assert branch.attention is None
                continue
            assert branch.attention.shape == (2, 1, height, width)
            assert branch.attention.min() >= 0 and branch.attention.max() <= 1
            assert branch.attention.std() > 0.002
    assert len(prediction.earlier) == EARLIER.get(name, 0)
    assert size_multiple(network) == (4 if name in COMPACT else 1)


@torch.no_grad()
@pytest.mark.parametrize("name", ["daiam-nano", "dam-zero", "dam-dual", "d-dam"])
def test_two_steps_are_two_calls_of_one_step_that_carry_the_state(name, lively):
    """True of the encoder on any network, so compare its state; a whole network's decoders see its last features."""
    one, two = (lively(build(name, encoder_steps=steps)) for steps in (1, 2))
    x = frames()
    _, first = one(x)
    _, second = one(x, first)
    _, whole = two(x)
    if name == "d-dam":
        first, second, whole = first[0], second[0], whole[0]  # of the first stage
    for before, a, b in zip(first.branches, second.branches, whole.branches, strict=True):
        assert_same(a.encoder, b.encoder)
        assert not torch.allclose(before.encoder.lstm.hidden, a.encoder.lstm.hidden, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["dam-dual", "daiam-nano"])
def test_an_encoder_sees_the_last_map_and_the_last_lstm_state(name, lively):
    encoder = next(iter(lively(build(name)).branches.values())).encoder
    x = F.pixel_unshuffle(frames(), 4) if name in COMPACT else frames()
    attention, lstm = encoder(x)
    seen = encoder.blocks(encoder.act(encoder.conv(torch.cat([x, attention], 1))))
    expected = encoder.lstm(seen, lstm)
    state = encoder(x, EncoderState(attention, lstm))
    assert_same(state.lstm, expected)
    assert_same((state.attention,), (encoder.head(expected.hidden).sigmoid(),))
    assert not torch.allclose(expected.hidden, encoder.lstm(seen).hidden, atol=1e-2)


@torch.no_grad()
def test_two_decoder_steps_are_two_steps_that_carry_the_state(lively):
    one, two = (lively(build("dam-dual", decoder_steps=steps)).global_decoder for steps in (1, 2))
    x = torch.rand(1, 131, 12, 16, generator=torch.Generator().manual_seed(1))
    _, _, first = one(x)
    image, features, state = one(x, first)
    whole_image, whole_features, whole_state = two(x)
    assert_same((image, features, state), (whole_image, whole_features, whole_state))
    assert not torch.allclose(one(x)[0], image, atol=1e-3)


def tensors(tree: object) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [t for value in tree.values() for t in tensors(value)]
    return [t for value in tree for t in tensors(value)] if isinstance(tree, tuple) else []


def assert_same(a: object, b: object) -> None:
    left, right = tensors(a), tensors(b)
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", names())
def test_nothing_hides_between_calls_and_a_state_passed_in_changes_the_output(name, lively):
    network = lively(build(name))
    x, other = frames(height=32, width=48, seed=1), frames(height=32, width=48, seed=2)
    first, state = network(x)
    kept = [tensor.clone() for tensor in tensors(state)]
    continued, _ = network(x, state)
    network(other, state)
    again, state_again = network(x)
    assert_same(first, again)
    assert_same(state, state_again)
    assert_same(tuple(kept), state)
    assert (continued.image - first.image).abs().max() > 1e-4


@torch.no_grad()
def test_a_frame_does_not_see_its_neighbours_in_the_batch(lively):
    network = lively(build("daiam-nano"))
    x = frames(3)
    together, alone = network(x)[0].image, network(x[1:2])[0].image
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_convlstm_computes_its_equations(lively):
    lstm = lively(ConvLSTM(3, 5))
    x, hidden, cell = torch.randn(2, 3, 6, 7), torch.randn(2, 5, 6, 7), torch.randn(2, 5, 6, 7)
    gates = F.conv2d(x, lstm.gates.weight[:, :3], lstm.gates.bias, padding=1)
    gates = gates + F.conv2d(hidden, lstm.gates.weight[:, 3:], padding=1)
    i, f, g, o = gates[:, :5], gates[:, 5:10], gates[:, 10:15], gates[:, 15:]
    new_cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    state = lstm(x, LSTMState(hidden, cell))
    torch.testing.assert_close(state.cell, new_cell)
    torch.testing.assert_close(state.hidden, o.sigmoid() * new_cell.tanh())
    assert_same(lstm(x), lstm(x, LSTMState(torch.zeros_like(hidden), torch.zeros_like(cell))))


def test_the_convlstms_first_step_in_training_leaves_out_what_zeros_make_nothing_of(lively, monkeypatch):
    lstm = lively(ConvLSTM(3, 5)).train()
    x = torch.randn(2, 3, 6, 7)
    zeros = LSTMState(torch.zeros(2, 5, 6, 7), torch.zeros(2, 5, 6, 7))
    computed = []
    monkeypatch.setattr(F, "conv2d", lambda *a, conv2d=F.conv2d, **k: computed.append(a[1].shape) or conv2d(*a, **k))
    seen = []
    for state in (None, zeros):
        lstm.zero_grad()
        hidden, cell = lstm(x, state)
        (hidden.square().sum() + cell.sum()).backward()
        seen.append([hidden, cell, lstm.gates.weight.grad.clone(), lstm.gates.bias.grad.clone()])
    for first, general in zip(*seen, strict=True):
        torch.testing.assert_close(first, general)
    assert computed == [(15, 3, 3, 3), (20, 8, 3, 3)]
    computed.clear()
    lstm.eval()(x)
    assert computed == [(20, 8, 3, 3)], "what is exported is the loop as it is written"


@torch.no_grad()
def test_a_resblock_without_weights_is_its_activation():
    block = ResBlock(2)
    for parameter in block.parameters():
        parameter.zero_()
    x = torch.tensor([-2.0, 3.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(block(x), torch.tensor([-0.4, 3.0]).reshape(1, 2, 1, 1))


def filter_net(net: FilterNet, x: Tensor) -> Tensor:
    """By shifting, not by convolving: out[y, x] = Σ w[dy, dx] · in[y + dy - top, x + dx - left]."""
    for conv, before in ((net.conv1, 0), (net.conv2, 1), (net.conv3, 0)):
        padded = F.pad(x, (before, 1 - before, before, 1 - before))
        height, width = x.shape[-2:]
        total = conv.bias.reshape(1, -1, 1, 1)
        for dy in range(2):
            for dx in range(2):
                shifted = padded[..., dy : dy + height, dx : dx + width]
                total = total + torch.einsum("oi,bihw->bohw", conv.weight[:, :, dy, dx], shifted)
        x = total.sigmoid() if conv is net.conv3 else torch.where(total > 0, total, 0.2 * total)
    return x


@torch.no_grad()
def test_the_differential_module_is_equation_14_written_out(lively):
    module = lively(DifferentialModule())
    rainy, output, previous = (frames(2, seed=seed) for seed in (1, 2, 3))
    a, b = filter_net(module.filter_a, output - rainy), filter_net(module.filter_b, output - previous)
    assert a.shape == (2, 1, 16, 24) and a.std() > 0.01 and b.std() > 0.01
    torch.testing.assert_close(module(rainy, output, previous), output * a + 0.5 * rainy * b)


@torch.no_grad()
@pytest.mark.parametrize("name", ["d-daiam-3", "daiam-daiam"])
def test_a_stage_derains_what_the_differential_module_makes_of_the_one_before(name, lively):
    network = lively(build(name))
    rainy = frames()
    x = previous = rainy
    for index, stage in enumerate(network.stages):
        image = stage(x)[0].image
        if index + 1 < len(network.stages):
            x = image if network.differential is None else network.differential[index](rainy, image, previous)
            previous = image
    prediction, states = network(rainy)
    torch.testing.assert_close(prediction.image, image, rtol=0, atol=0)
    assert len(states) == len(network.stages)
    torch.testing.assert_close(prediction.earlier[0].image, network.stages[0](rainy)[0].image, rtol=0, atol=0)


@torch.no_grad()
def test_dam_zero_odd_and_dual_differ_in_nothing_but_their_maps(lively):
    """With the same weights: odd leaves the light decoder's features alone, zero both, and sees no map."""
    zero, odd, dual = (lively(DAMBranch(attention)) for attention in ("zero", "odd", "dual"))
    odd.load_state_dict(dual.state_dict())
    shared = {key: value for key, value in dual.state_dict().items() if "head" not in key}
    shared["encoder.conv.weight"] = shared["encoder.conv.weight"][:, :3]  # the map is zero at the first step
    zero.load_state_dict(shared)
    x = frames()
    results = {name: branch(x)[0] for name, branch in (("zero", zero), ("odd", odd), ("dual", dual))}
    features = dual.encoder(x).lstm.hidden
    attention = results["dual"].attention
    torch.testing.assert_close(results["odd"].attention, attention, rtol=0, atol=0)
    assert results["zero"].attention is None
    gated = {
        "zero": (features, features),
        "odd": (features * attention, features),
        "dual": (features * attention, features * (1 - attention)),
    }
    for name, (heavy, light) in gated.items():
        torch.testing.assert_close(results[name].heavy, dual.heavy(torch.cat([heavy, x], 1))[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(results[name].light, dual.light(torch.cat([light, x], 1))[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_residual_option_adds_the_rainy_frame_to_every_image(lively):
    plain, residual = (lively(build("dam-dual", residual=flag)) for flag in (False, True))
    x = frames()
    without, with_rainy = plain(x)[0], residual(x)[0]
    torch.testing.assert_close(with_rainy.image, without.image + x)
    torch.testing.assert_close(with_rainy.branches["rain"].light, without.branches["rain"].light + x)


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("daiam-tiny", {}, ["daiam-tiny", "is unknown, known are: ", "daiam-nano"]),
        ("daiam", {"depth": 3}, ["daiam", "depth"]),
        ("daiam-nano", {"residual": True}, ["daiam-nano", "residual"]),
        ("dam-odd", {"attention": "dual"}, ["dam-odd", "attention"]),
        ("daiam-nano", {"rain_types": ["fog"]}, ["daiam-nano", "rain_types"]),
        ("daiam", {"attention": "none"}, ["attention", "'none'", "zero, odd, dual"]),
        ("daiam-nano", {"head": "full"}, ["head", "'full'", "shuffled, plain"]),
        ("daiam-edge", {"context": True}, ["context", "True", "none, encoders, global"]),
        ("daiam", {"encoder_steps": 0}, ["daiam", "encoder_steps", "0", "at least 1"]),
        ("daiam-nano", {"decoder_steps": "2"}, ["daiam-nano", "decoder_steps", "'2'", "whole number"]),
        ("daiam-nano", {"decoder_steps": True}, ["decoder_steps is True, expected a whole number of at least 1"]),
        ("daiam-nano", {"scale": 0}, ["scale is 0, expected a whole number of at least 1"]),
        ("daiam", {"decoder_width": -64}, ["decoder_width is -64, expected a whole number"]),
        ("prenet", {"width": 32.0}, ["width is 32.0, expected a whole number"]),
        ("daiam-nano", {"whiten": "false"}, ["whiten is 'false', expected true or false"]),
        ("d-daiam", {"residual": 1}, ["residual is 1, expected true or false"]),
        ("d-daiam", {"stages": 3}, ["model 'd-daiam' has no option 'stages', it has attention, encoder_width, "]),
        ("prenet-qian", {"steps": 2}, ["model 'prenet-qian' has no option 'steps', it has residual: leave it out"]),
    ],
)
def test_an_unknown_name_or_option_is_refused_in_one_line(name, options, parts):
    with pytest.raises(ValueError) as caught:
        build(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []
