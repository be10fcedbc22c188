"""The compact family: its blocks, maps, gates and options."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from derain.training.models import build, parameter_count
from derain.training.models.blocks import whitening


def frames(batch: int = 1, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_compact_network_with_silent_decoders_returns_its_input():
    network = build("daiam-nano").eval()
    for decoder in (network.global_decoder, *(b.heavy for b in network.branches.values())):
        nn.init.zeros_(decoder.out.weight)
        nn.init.zeros_(decoder.out.bias)
    x = frames()
    prediction, _ = network(x)
    assert torch.equal(prediction.image, x) and torch.equal(prediction.branches["drop"].heavy, x)


@torch.no_grad()
def test_the_compact_decoders_see_features_gated_by_the_map_and_by_what_it_leaves(lively):
    branch = lively(build("daiam-nano")).branches["drop"]
    blocks = F.pixel_unshuffle(frames(), 4)
    result, features, _ = branch(blocks)
    encoded = branch.encoder(blocks)
    seen, attention = encoded.lstm.hidden, encoded.attention
    for name, gate, value in (("heavy", branch.gate_heavy, attention), ("light", branch.gate_light, 1 - attention)):
        weights = torch.einsum("oi,bihw->bohw", gate.weight[:, :, 0, 0], value) + gate.bias.reshape(1, -1, 1, 1)
        image, before, _ = getattr(branch, name)(torch.cat([seen * weights, blocks], 1))
        torch.testing.assert_close(getattr(result, name), image, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(features[name == "light"], before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_compact_map_keeps_full_resolution(lively):
    attention = lively(build("daiam-nano"))(frames())[0].branches["streak"].attention
    blocks = F.pixel_unshuffle(attention, 4)  # the 16 pixels of a block side by side
    assert blocks.std(dim=1).mean() > 0.02


@torch.no_grad()
def test_the_plain_head_draws_one_value_a_block_and_costs_less(lively):
    plain, shuffled = (lively(build("daiam-nano", head=head, whiten=False)) for head in ("plain", "shuffled"))
    attention = plain(frames())[0].branches["drop"].attention
    assert attention.shape == (1, 1, 16, 24)
    coarse = plain.branches["drop"].encoder(F.pixel_unshuffle(frames(), 4)).attention
    assert torch.equal(attention, F.interpolate(coarse, scale_factor=4, mode="nearest"))
    assert coarse.std() > 0.005
    assert parameter_count(plain) < parameter_count(shuffled)


@torch.no_grad()
@pytest.mark.parametrize("context", ["encoders", "global"])
def test_context_lets_the_same_weights_see_further(context, lively):
    """How many blocks to the right of a changed pixel the image changes."""
    near, far = lively(build("daiam-nano")), lively(build("daiam-nano", context=context))
    assert all(torch.equal(value, far.state_dict()[key]) for key, value in near.state_dict().items())
    x = frames(1, height=16, width=512)
    touched = x.clone()
    touched[..., 8, 256] += 0.5
    reach = []
    for network in (near, far):
        changed = (network(touched)[0].image - network(x)[0].image).abs().amax((0, 1)) > 0
        reach.append(int(changed.any(0).nonzero().max()) // 4 - 64)
    assert reach[1] == reach[0] + {"encoders": 2 * (1 + 2 + 4 - 3), "global": 2 * (2 + 4 - 2)}[context]


def test_whitened_blocks_hold_their_mean_and_four_times_what_differs_from_it():
    frame = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    weight, bias = whitening(4)
    whitened = F.conv2d(F.pixel_unshuffle(frame, 4), weight, bias)
    mean = F.avg_pool2d(frame, 4)
    expected = 4 * frame + F.interpolate(-3 * mean - 0.45, scale_factor=4, mode="nearest")
    torch.testing.assert_close(F.pixel_shuffle(whitened, 4), expected)


@pytest.mark.parametrize("name", ["daiam-nano", "daiam-small", "daiam-edge"])
@torch.no_grad()
def test_the_compact_networks_see_whitened_blocks_unless_told_otherwise(lively, name):
    whitened, raw = lively(build(name)), lively(build(name, whiten=False))
    raw.load_state_dict(whitened.state_dict())
    weight, bias = whitening(4)
    blocks = F.conv2d(F.pixel_unshuffle(frames(), 4), weight, bias)
    seen = whitened.branches["streak"].encoder(blocks).attention
    assert torch.equal(whitened(frames())[0].branches["streak"].attention, F.pixel_shuffle(seen, 4))
    assert not torch.allclose(raw(frames())[0].image, whitened(frames())[0].image, atol=0.01)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["zero", "odd", "dual"])
def test_a_compact_dam_gates_the_features_that_its_attention_says(attention, lively):
    network = lively(build("dam-nano", attention=attention))
    branch = network.branches["rain"]
    blocks = network.to_blocks(frames())
    encoder = branch.encoder(blocks)
    assert (encoder.attention is None) == (attention == "zero")
    seen = {}
    for side in ("heavy", "light"):
        decoder = getattr(branch, side)
        decoder.register_forward_pre_hook(lambda _, given, side=side: seen.update({side: given[0][:, :16]}))
    map_shown = network(frames())[0].branches["rain"].attention
    features = encoder.lstm.hidden
    if attention == "zero":
        assert map_shown is None and torch.equal(seen["heavy"], features)
    else:
        assert torch.equal(map_shown, F.pixel_shuffle(encoder.attention, 4))
        torch.testing.assert_close(seen["heavy"], features * branch.gate_heavy(encoder.attention))
    if attention == "dual":
        torch.testing.assert_close(seen["light"], features * branch.gate_light(1 - encoder.attention))
    else:
        assert torch.equal(seen["light"], features)
    with pytest.raises(ValueError, match="attention is 'both', expected one of zero, odd, dual"):
        build("dam-nano", attention="both")


@torch.no_grad()
def test_compact_stages_are_as_many_as_asked_for_and_joined_as_asked(lively):
    three, chain = lively(build("d-daiam-nano", stages=3)), lively(build("d-daiam-nano", differential=False))
    assert (len(three.stages), len(three.differential)) == (3, 2)
    first, second = chain.stages
    middle = first(frames())[0].image
    assert chain.differential is None and torch.equal(chain(frames())[0].image, second(middle)[0].image)
    with pytest.raises(ValueError, match="stages is 0, expected a whole number of at least 1"):
        build("d-daiam-nano", stages=0)
