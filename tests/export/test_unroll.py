"""The unroller on every network: exact, and left with the arithmetic that the papers count."""

import pytest
import torch
from torch import Tensor, nn

from derain.export.exporter import traced
from derain.export.trace import CONV, trace
from derain.export.unroll import unroll
from derain.training.models import COMPACT_PEERS, PEERS, build, names

PIXELS = 720 * 480

# Multiply-accumulates a pixel of the DAiAM's layers, 9 · channels in · channels out, from the tables of the paper.
E_CONV_RGB, E_CONV_MAP, E_BLOCKS = 9 * 3 * 32, 9 * 1 * 32, 6 * 9 * 32 * 32
E_GATES_X = E_GATES_H = 9 * 32 * 128
E_HEAD = 9 * 32 * 1
D_CONV, D_BLOCKS, D_OUT = 9 * 35 * 64, 10 * 9 * 64 * 64, 9 * 64 * 3
G_CONV, G_BLOCKS, G_OUT = 9 * 259 * 64, 4 * 9 * 64 * 64, 9 * 64 * 3
GATES_X = GATES_H = 9 * 64 * 256

NAIVE_STEP = (
    2 * (E_CONV_RGB + E_CONV_MAP + E_BLOCKS + E_GATES_X + E_GATES_H + E_HEAD)
    + 4 * (D_CONV + GATES_X + GATES_H + D_BLOCKS + D_OUT)
    + (G_CONV + GATES_X + GATES_H + G_BLOCKS + G_OUT)
)
"""Everything, images of D_heavy and D_light included, which nobody looks at after training."""


def daiam_macs(steps: int) -> int:
    """What can reach the output. The first step of all: no map, no hidden half, no forget gate."""
    later = steps - 1
    encoder = E_CONV_RGB + later * E_CONV_MAP + steps * (E_BLOCKS + E_HEAD)
    encoder += E_GATES_X * 3 // 4 + later * (E_GATES_X + E_GATES_H)  # x changes with the map, so no sharing
    # In a decoder x is the same at every step: one convolution over it serves all, with all four gates if any step
    # after the first needs the forget gate. The blocks run once, behind the last step.
    gates = GATES_X * 3 // 4 if steps == 1 else GATES_X + later * GATES_H
    return 2 * encoder + 4 * (D_CONV + gates + D_BLOCKS) + (G_CONV + gates + G_BLOCKS + G_OUT)


FILTER_NET = 4 * (3 * 16 + 16 * 16 + 16)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_daiam_is_left_with_exactly_the_arithmetic_that_can_reach_its_output(steps, make_spec):
    network = build("daiam", encoder_steps=steps, decoder_steps=steps).eval()
    _, report = unroll(traced(network, make_spec(width=720, height=480), make_spec("clean", width=720, height=480)))
    assert report.macs_naive == steps * NAIVE_STEP * PIXELS
    assert report.macs == daiam_macs(steps) * PIXELS


def test_the_hand_worked_figures_are_the_papers():
    assert daiam_macs(1) * PIXELS == pytest.approx(8.92e11, rel=0.005)
    assert 2 * daiam_macs(1) + 2 * FILTER_NET == 5_152_000
    assert (2 * daiam_macs(1) + 2 * FILTER_NET) * PIXELS == pytest.approx(1.79e12, rel=0.01)
    assert daiam_macs(3) / (3 * NAIVE_STEP) == pytest.approx(0.4405, abs=5e-5)  # three steps for the price of 1.32


def test_two_stages_cost_two_daiams_and_two_filter_nets(make_spec):
    network = build("d-daiam").eval()
    _, report = unroll(traced(network, make_spec(width=720, height=480), make_spec("clean", width=720, height=480)))
    assert report.macs == (2 * daiam_macs(1) + 2 * FILTER_NET) * PIXELS


CASES = [  # tracing takes seconds where many stages take many steps, and a stage is a DAiAM
    *((name, 1, 1) for name in names() if name not in (*PEERS, *COMPACT_PEERS)),
    *((name, 2, 2) for name in ("dam-odd", "d-daiam", "daiam-edge")),
    *((name, 3, 3) for name in ("dam-zero", "dam-dual", "daiam", "daiam-nano")),
    ("daiam-nano", 3, 1),
    ("daiam-nano", 1, 3),
]


@torch.inference_mode()
@pytest.mark.parametrize(("name", "encoder_steps", "decoder_steps"), CASES)
def test_every_unrolled_network_equals_its_eager_self(name, encoder_steps, decoder_steps, lively):
    network = lively(build(name, encoder_steps=encoder_steps, decoder_steps=decoder_steps, **residual(name)))
    x = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    naive = trace(Image(network), x)
    graph, report = unroll(naive)
    expected = network(x)[0].image
    for unrolled in (naive, graph):
        assert (unrolled(x) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert expected.std() > 0.1
    assert report.macs < report.macs_naive
    assert not any(node.target in STATEFUL for node in graph.graph.nodes)
    expected_share = {(1, 1): 0.8, (2, 2): 0.6, (3, 3): 0.5}.get((encoder_steps, decoder_steps), 0.75)
    assert report.macs < expected_share * report.macs_naive


STATEFUL = {torch.ops.aten.new_zeros.default, torch.ops.aten.zeros_like.default, torch.ops.aten.expand.default}


def residual(name: str) -> dict[str, bool]:
    return {"residual": True} if name == "dam-odd" else {}


class Image(nn.Module):
    """A network without its camera: the image alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0].image


def test_nodes_are_named_after_the_modules_that_made_them(lively, make_spec):
    network = lively(build("daiam-nano", decoder_steps=2))
    naive = traced(network, make_spec(), make_spec("clean"))
    found = {node.name for node in naive.graph.nodes if node.target is CONV}
    assert {"streak_encoder_conv_conv2d", "drop_heavy_lstm_gates_conv2d", "drop_heavy_lstm_gates_conv2d_1"} <= found
    assert "global_decoder_out_conv2d" in found
