"""Each of the unroller's passes alone, on modules of a few channels and a frame of 3 channels and 6 by 8 pixels."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.export.trace import convolutions, trace
from derain.export.unroll import UnrollReport, unroll
from derain_tests.graphs import SHAPE, operators, shapes, unrolled


def test_uneven_parts_and_parts_of_the_plane_stay_as_they_are(lively):
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 20, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            a, b, c = self.conv(x).split(8, dim=1)
            top, bottom = torch.split(a + b, 3, dim=2)
            return top * bottom + c.mean()

    graph, _ = unrolled(Uneven(), lively)
    assert shapes(graph) == [(20, 3, 3, 3)] and "chunk.default" not in operators(graph)


def test_a_convolution_that_is_not_counted_is_refused(lively):
    with pytest.raises(ValueError, match=r"conv2d\.padding is not counted: expected conv2d \(its padding in numbers\)"):
        unrolled(nn.Conv2d(3, 4, 3, padding="same"), lively)


class ZeroConv(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 3, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.a(torch.zeros_like(x[:, :2]))


def test_a_convolution_of_zeros_is_its_bias_and_without_one_nothing(lively):
    graph, report = unrolled(ZeroConv(bias=True), lively)
    assert report.convolutions == report.macs == 0
    assert operators(graph) == ["expand.default", "add.Tensor"]
    graph, _ = unrolled(ZeroConv(bias=False), lively)
    assert operators(graph) == []


class Padded(nn.Module):
    """A plane of ones, convolved: zero padding makes the border differ, so it must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(torch.zeros_like(x) + 1)


def test_a_convolution_of_a_constant_other_than_zero_keeps_its_border(lively):
    graph, report = unrolled(Padded(), lively)
    assert report.convolutions == 1
    assert "expand.default" in operators(graph)


def test_a_weight_that_is_computed_is_refused_with_its_mend():
    weighted = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(
        ValueError, match=r"a weight that is computed, expected a stored one: .*remove_parametrizations"
    ):
        unroll(trace(weighted, torch.empty(SHAPE)))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x)
        for _ in range(2):
            a, _ = self.conv(torch.cat([x, h], 1)).chunk(2, 1)
            h = torch.tanh(a)
        return h


def test_grouped_convolutions_are_left_alone(lively):
    graph, report = unrolled(Grouped(), lively)
    assert shapes(graph) == [(6, 2, 3, 3)] * 2
    assert report.macs == report.macs_naive == 2 * 6 * 2 * 9 * 48


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4 + 3, 2, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.cat([F.leaky_relu(self.first(x), 0.1), x], 1)).sigmoid()


def test_a_network_without_recurrence_is_unchanged(lively):
    naive = trace(lively(Plain()), torch.empty(SHAPE))
    graph, report = unrolled(Plain(), lively)
    assert operators(graph) == operators(naive)
    assert report == UnrollReport((4 * 3 * 9) * 48 + (2 * 7) * 12, (4 * 3 * 9) * 48 + (2 * 7) * 12, 2, 2)


class Twice(nn.Module):
    """The same convolution of the same frame, and a branch that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        self.other(x)
        return torch.tanh(self.conv(x)) * torch.tanh(self.conv(x)) - self.other(self.conv(x))


def test_what_is_computed_twice_is_computed_once_and_what_nobody_reads_never(lively):
    graph, report = unrolled(Twice(), lively)
    assert (report.convolutions_naive, report.convolutions) == (5, 2)
    assert operators(graph).count("tanh.default") == 1


class UnevenGates(nn.Module):
    """chunk(4) of 10 channels gives 3, 3, 3 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, _, c, d = self.conv(x).chunk(4, 1)
        return a * c + d


def test_chunks_of_unequal_size_lose_the_dead_one_too(lively):
    graph, _ = unrolled(UnevenGates(), lively)
    assert shapes(graph) == [(7, 3, 3, 3)]


class ReadTwice(nn.Module):
    """Half of the channels by a cut, two by a slice that overlaps it, one by another cut; another convolution whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.whole = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y, z = torch.sigmoid(self.conv(x)), self.whole(x)
        first, _ = y.chunk(2, 1)
        *_, last = y.split([3, 2, 2, 1], 1)
        return first[:, :2] * y[:, 3:5] + last + z[:, :2] + z.mean(1, keepdim=True)


def test_a_channel_goes_only_if_none_of_its_readers_wants_it(lively):
    graph, _ = unrolled(ReadTwice(), lively)
    assert shapes(graph) == [(5, 3, 3, 3), (8, 3, 3, 3)]


class Sliced(nn.Module):
    """Constant planes of different values, of which a strided slice is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        constants = self.conv(torch.zeros_like(x))
        return x + constants[:, ::2] - constants[:, 1:4] * constants[:, -3:]


def test_slices_of_constants_follow_start_end_and_step(lively):
    graph, _ = unrolled(Sliced(), lively)
    assert convolutions(graph) == []


class ManyOperands(nn.Module):
    """One weight over seven operands, of which each step has other zeros: no two slices may be taken for one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(7, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = x[:, :1], x[:, 1:2], x[:, 2:]
        zero, other_zero = torch.zeros_like(a), torch.zeros_like(b)
        first = self.conv(torch.cat([a, b, zero, c, zero, zero, a * b], 1))  # channels 0 to 1, 3 and 6
        second = self.conv(torch.cat([c, zero, other_zero, a, b, other_zero, b * c], 1))  # 0, 3 to 4 and 6
        return first + 2 * second


def test_different_slices_of_one_weight_are_kept_apart(lively):
    graph, _ = unrolled(ManyOperands(), lively)
    assert shapes(graph) == [(2, 4, 3, 3)] * 2
    assert len({node.args[1] for node in convolutions(graph)}) == 2


class ZeroFirst(nn.Module):
    """Subtraction and broadcasting with zeros: the result keeps its sign and its shape."""

    def forward(self, x: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        narrow = x[:, :1]
        return torch.cat([zero - x, narrow - zero, zero + narrow, x * zero, narrow * zero], 1)


def test_zeros_that_give_a_result_its_sign_or_shape_stay(lively):
    graph, _ = unrolled(ZeroFirst(), lively)
    assert graph(torch.ones(SHAPE)).shape == (1, 15, 6, 8)


class Overwriting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x)
        h += x
        return h


def test_a_network_that_overwrites_tensors_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^the network overwrites a tensor \(aten\.add_\.Tensor\): expected no "):
        trace(Overwriting(), torch.empty(SHAPE))
