"""Rewrites for speed: each alone gives the unrolled network's own numbers, and takes away what it says it takes."""

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from derain.export.exporter import export, traced
from derain.export.onnx_graph import summarise
from derain.export.rewrite import DEFAULT, REWRITES, Rewrite, rewrite
from derain.export.trace import convolutions, macs, trace
from derain.export.unroll import unroll
from derain.export.verify import verify
from derain.training.models import build
from derain_tests.graphs import operators, shapes

NETWORKS = {
    "daiam": {},
    "daiam-edge": {},
    "daiam-nano": {"encoder_steps": 2, "decoder_steps": 2},
    "d-daiam": {},
    "dam-odd": {"residual": True},
}
CHOICES = [*((name,) for name in REWRITES), DEFAULT, tuple(REWRITES)]


@pytest.fixture(scope="module")
def naive(lively, make_spec):
    """Each network between camera bytes, traced once, and what it makes of one frame before and after its last cast."""
    made: dict[str, fx.GraphModule] = {}

    def make(name: str) -> fx.GraphModule:
        if name not in made:
            made[name] = traced(lively(build(name, **NETWORKS[name])), make_spec(), make_spec("clean"))
        return made[name]

    return make


class Last(fx.Interpreter):
    """Runs a graph and keeps the image before it is clamped to bytes."""

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.target is torch.ops.aten.clamp.default:
            self.image = value if n.name.startswith("camera_decode") else self.fetch_args_kwargs_from_env(n)[0][0]
        return value


def outputs(graph: fx.GraphModule, frame: Tensor) -> tuple[Tensor, Tensor]:
    """The image, its channels in the order of their means, and the bytes."""
    run = Last(graph)
    with torch.inference_mode():
        clean = run.run(frame)
    order = run.image.mean((0, 2, 3)).argsort()
    return run.image[:, order], clean.int()


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_rewritten_network_gives_the_same_image_and_the_same_bytes(network, names, naive, make_spec, camera_bytes):
    """Images within 1e-4 of the values' size; bytes within a grey level, where a half is rounded the other way."""
    frame = camera_bytes(make_spec())
    graph, report = unroll(naive(network))
    image, clean = outputs(graph, frame)
    taken = rewrite(graph, names)
    seen_image, seen = outputs(graph, frame)
    assert (seen_image - image).abs().max() <= 1e-4 * max(1.0, float(image.abs().max()))
    assert (seen - clean).abs().max() <= 1
    assert clean.float().std() > 10
    assert macs(graph) == report.macs - sum(entry.macs for entry in taken)


@pytest.mark.parametrize(
    ("network", "names", "operators", "convolved"),
    [
        ("daiam-edge", ("pixels",), 2, 0),
        ("daiam-edge", ("complements",), 2, 0),
        ("daiam-edge", ("siblings",), 1, 1),
        ("daiam-edge", ("complements", "siblings"), 1, 3),
        ("daiam-edge", ("shared-inputs",), -4, -4),
        ("daiam-edge", ("shared-inputs", "siblings"), 3, 4),
        ("daiam-edge", ("branches",), 90, 29),
        ("daiam", ("pixels",), 2, 0),
        ("daiam", ("siblings",), 1, 1),
        ("daiam", ("branches",), 88, 27),
    ],
)
def test_each_rewrite_takes_away_what_it_says(network, names, operators, convolved, naive):
    graph, _ = unroll(naive(network))
    rewrite(graph, names[:-1])
    counted = len(convolutions(graph))
    (last,) = rewrite(graph, names[-1:])
    assert last == Rewrite(names[-1], operators, convolved, 0)
    assert counted - len(convolutions(graph)) == convolved


def test_a_rewrite_nobody_knows_is_refused_by_its_name(naive):
    with pytest.raises(ValueError, match="'winograd' is unknown, known are: pixels, complements, "):
        rewrite(naive("daiam-nano"), ("winograd",))


# Each pass alone, where it must act and where it must not.

SHAPE = (1, 4, 6, 8)


def rewritten(module: nn.Module, name: str, lively) -> fx.GraphModule:
    """One rewrite of a module that needs no unrolling, proved equal."""
    graph = trace(lively(module), torch.empty(SHAPE))
    rewrite(graph, (name,))
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(graph(x), module(x), rtol=1e-5, atol=1e-5)
    return graph


class Complement(nn.Module):
    def __init__(self, kernel: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 5, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(2 - x)


@pytest.mark.parametrize("bias", [True, False])
def test_a_complement_goes_into_weights_and_bias_unless_zeros_pad_it(bias, lively):
    assert operators(rewritten(Complement(1, bias), "complements", lively)) == ["conv2d.default"]
    assert "rsub.Scalar" in operators(rewritten(Complement(3, bias), "complements", lively))


class Siblings(nn.Module):
    """Convolutions of one input: two alike, one of another width, one of another geometry, one with an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1, bias=False)
        self.wide = nn.Conv2d(4, 5, 3, padding=1)
        self.point, self.active = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        plain = [self.a(x), self.b(x), self.wide(x), self.point(x)]
        return torch.cat([*plain, F.leaky_relu(self.active(x), 0.2)], dim=1)


def test_siblings_of_one_geometry_and_one_activation_become_one(lively):
    graph = rewritten(Siblings(), "siblings", lively)
    assert sorted(shapes(graph)) == [(3, 4, 1, 1), (3, 4, 3, 3), (11, 4, 3, 3)]
    assert "split_with_sizes.default" in operators(graph)


class Activated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.a(x), 0.2) * F.leaky_relu(self.b(x), 0.2)


def test_the_activation_all_siblings_have_comes_before_the_split(lively):
    names = operators(rewritten(Activated(), "siblings", lively))
    assert names[:3] == ["conv2d.default", "leaky_relu.default", "chunk.default"]
    assert names.count("leaky_relu.default") == 1


class Shared(nn.Module):
    """Two convolutions over [own, x] and one over [x, much of its own]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(5, 3, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)
        self.other = nn.Conv2d(9, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.a(torch.cat([x[:, :1] * 2, x], 1)), self.b(torch.cat([x[:, 1:2] * 3, x], 1))
        return first + second + self.other(torch.cat([x, x * x, x[:, :1]], 1))


def test_an_input_is_split_off_where_it_is_shared_and_most_of_what_is_read(lively):
    assert sorted(shapes(rewritten(Shared(), "shared-inputs", lively))) == [
        *[(3, 1, 3, 3)] * 2,
        *[(3, 4, 3, 3)] * 2,
        (3, 9, 3, 3),
    ]


class Flipped(nn.Module):
    """To another order of channels and back, around a residual; one that `picks` reads a channel by its place."""

    def __init__(self, picks: bool) -> None:
        super().__init__()
        self.conv, self.picks = nn.Conv2d(8, 4, 3, padding=1), picks

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(x.flip(1), (0, 1, 0, 1), mode="replicate") / 2
        if self.picks:
            y = y * y[:, :1]
        return ((y + self.conv(torch.cat([y, y * y], 1))).clamp(0, 1) * 255).flip(1)


def test_flips_of_channels_go_into_the_weights(lively):
    assert "flip.default" not in operators(rewritten(Flipped(picks=False), "pixels", lively))


def test_a_flip_stays_where_an_operator_reads_channels_by_their_place(lively):
    assert operators(rewritten(Flipped(picks=True), "pixels", lively)).count("flip.default") == 2


class Branches(nn.Module):
    """Two branches of one shape, and a third of another width."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(4, width, 3, padding=1) for width in (6, 6, 8))
        self.second = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1, bias=width > 6) for width in (6, 6, 8))

    def forward(self, x: Tensor) -> Tensor:
        total = x
        for first, second in zip(self.first, self.second, strict=True):
            a, b = first(x * total[:, :1]).chunk(2, 1)
            total = total + torch.relu(x + second(torch.cat([torch.sigmoid(a), torch.tanh(b)], 1)))
        return total


def test_branches_that_need_each_other_stay_apart(lively):
    assert len(convolutions(rewritten(Branches(), "branches", lively))) == 6


# From the network to the file.


def test_a_bundle_says_what_each_rewrite_removed_and_verify_passes(tmp_path):
    bundle, report = export("random:daiam-edge", tmp_path / "b", (48, 32), rewrites=tuple(REWRITES))
    plain, _ = export("random:daiam-edge", tmp_path / "plain", (48, 32), rewrites=())
    summary, without = summarise(bundle.graph()), summarise(plain.graph())
    assert [entry.name for entry in summary.rewrites] == list(REWRITES)
    assert without.rewrites == []
    assert without.operators["Conv"] - summary.operators["Conv"] == sum(e.convolutions for e in summary.rewrites)
    assert summary.macs == without.macs == report.macs
    assert [result.passed for result in verify(bundle)] == [True]
