"""Each of the unroller's passes alone, on modules of a few channels and a frame of 3 channels and 6 by 8 pixels."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.export.trace import convolutions, macs, parameter, trace
from derain.export.unroll import UnrollReport, unroll
from derain.training.models.blocks import ConvLSTM

SHAPE = (1, 3, 6, 8)


def unrolled(module: nn.Module, lively, shape=SHAPE) -> tuple[torch.fx.GraphModule, UnrollReport]:
    """Unroll and prove equal on two frames."""
    lively(module)
    naive = trace(module, torch.empty(shape))
    graph, report = unroll(naive)
    for seed in (1, 2):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            torch.testing.assert_close(graph(x), module(x), rtol=1e-5, atol=1e-5)
    assert report.macs == macs(graph) and report.convolutions == len(convolutions(graph))
    return graph, report


def shapes(graph: torch.fx.GraphModule) -> list[tuple[int, ...]]:
    """The weights' shapes of the convolutions, in order."""
    return [tuple(parameter(graph, node.args[1]).shape) for node in convolutions(graph)]


def operators(graph: torch.fx.GraphModule) -> list[str]:
    return [str(node.target).removeprefix("aten.") for node in graph.graph.nodes if node.op == "call_function"]


class Recurrence(nn.Module):
    """A ConvLSTM over the same x, `steps` times."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.lstm = ConvLSTM(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for _ in range(self.steps):
            state = self.lstm(x, state)
        return state.hidden


def test_a_convlstm_over_a_constant_input_convolves_it_once(lively):
    graph, report = unrolled(Recurrence(4), lively)
    assert shapes(graph) == [(20, 3, 3, 3)] + [(20, 5, 3, 3)] * 3
    weights = {node.args[1] for node in convolutions(graph)}
    assert len(weights) == 2  # the hidden half is stored once, not once a step
    assert report == UnrollReport(4 * 20 * 8 * 9 * 48, (20 * 3 + 3 * 20 * 5) * 9 * 48, 4, 4)


class Cut(nn.Module):
    """One step of a ConvLSTM from zeros whose gates are cut by `cut`."""

    def __init__(self, cut) -> None:
        super().__init__()
        self.gates, self.cut = nn.Conv2d(3, 20, 3, padding=1), cut

    def forward(self, x: Tensor) -> Tensor:
        i, _, g, o = self.cut(self.gates(x))
        return torch.sigmoid(o) * torch.tanh(torch.sigmoid(i) * torch.tanh(g))


@pytest.mark.parametrize(
    "cut",
    [
        lambda gates: gates.chunk(4, dim=1),
        lambda gates: gates.chunk(4, dim=-3),
        lambda gates: torch.split(gates, 5, dim=1),
        lambda gates: gates.split([5, 5, 5, 5], dim=1),
    ],
)
def test_a_dead_gate_goes_however_the_gates_are_cut(cut, lively):
    graph, _ = unrolled(Cut(cut), lively)
    assert shapes(graph) == [(15, 3, 3, 3)]


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


def test_one_step_of_a_convlstm_has_no_hidden_half_and_no_forget_gate(lively):
    graph, report = unrolled(Recurrence(1), lively)
    assert shapes(graph) == [(15, 3, 3, 3)]
    assert report.macs == 15 * 3 * 9 * 48
    assert operators(graph).count("sigmoid.default") == 2 and operators(graph).count("tanh.default") == 2
    assert "new_zeros.default" not in operators(graph) and "cat.default" not in operators(graph)


def test_the_pruned_gates_are_the_ones_nobody_reads(lively):
    module = Recurrence(1)
    graph, _ = unrolled(module, lively)
    (conv,) = convolutions(graph)
    i, _, g, o = module.lstm.gates.weight.chunk(4)
    assert torch.equal(parameter(graph, conv.args[1]), torch.cat([i, g, o])[:, :3])
    i, _, g, o = module.lstm.gates.bias.chunk(4)
    assert torch.equal(parameter(graph, conv.args[2]), torch.cat([i, g, o]))


class ChangingInput(Recurrence):
    """As the encoder's: what the LSTM saw at one step changes what it sees at the next."""

    def forward(self, x: Tensor) -> Tensor:
        state, seen = None, x
        for _ in range(self.steps):
            state = self.lstm(seen, state)
            seen = seen * state.hidden[:, :1]
        return state.hidden


def test_a_convlstm_over_a_changing_input_is_pruned_at_the_first_step_only(lively):
    graph, _ = unrolled(ChangingInput(3), lively)
    assert shapes(graph) == [(15, 3, 3, 3), (20, 8, 3, 3), (20, 8, 3, 3)]


class ConvGRU(nn.Module):
    """h' = (1 - z)·h + z·tanh(W [x, r·h]); gates r, z = σ(W [x, h])."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.gates = nn.Conv2d(3 + 4, 8, 3, padding=1)
        self.candidate = nn.Conv2d(3 + 4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 4, *x.shape[2:])
        for _ in range(self.steps):
            r, z = torch.sigmoid(self.gates(torch.cat([x, h], 1))).chunk(2, 1)
            h = (1 - z) * h + z * torch.tanh(self.candidate(torch.cat([x, r * h], 1)))
        return h


def test_a_convgru_goes_through_the_same_passes(lively):
    graph, report = unrolled(ConvGRU(3), lively)
    assert sorted(shapes(graph)) == [(4, 3, 3, 3)] + [(4, 4, 3, 3)] * 2 + [(8, 3, 3, 3)] + [(8, 4, 3, 3)] * 2
    assert report.macs_naive == 3 * 12 * 7 * 9 * 48
    _, first = unrolled(ConvGRU(1), lively)
    assert first.macs <= 12 * 3 * 9 * 48


class Start(nn.Module):
    """A map that starts at a constant and is fed back."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.start = start
        self.conv = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        attention = {
            "sum": lambda: torch.zeros_like(x[:, :1]) + 0.5,
            "full": lambda: torch.full_like(x[:, :1], 0.5),
            "sigmoid": lambda: torch.sigmoid(torch.zeros_like(x[:, :1])),
        }[self.start]()
        for _ in range(2):
            attention = torch.sigmoid(self.conv(torch.cat([x, attention], 1)))
        return attention


@pytest.mark.parametrize("start", ["sum", "full", "sigmoid"])
def test_a_recurrence_that_starts_from_a_half_expands_it_and_stores_no_plane(start, lively):
    graph, _ = unrolled(Start(start), lively)
    stored = [tensor.numel() for tensor in (*graph.parameters(), *graph.buffers())]
    assert max(stored) < SHAPE[2] * SHAPE[3]
    assert {"expand.default", "full_like.default"} & set(operators(graph))
    assert sorted(shapes(graph)) == [(1, 1, 3, 3)] * 2 + [(1, 3, 3, 3)]


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


class WithoutBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3 + 2, 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[:, :2])
        for _ in range(3):
            a, _ = self.conv(torch.cat([x, h], 1)).chunk(2, 1)
            h = torch.tanh(a)
        return h


def test_convolutions_without_bias_are_hoisted_folded_and_pruned_alike(lively):
    graph, _ = unrolled(WithoutBias(), lively)
    assert all(conv.args[2:3] in ((), (None,)) for conv in convolutions(graph))
    assert sum(shape[1] == 3 for shape in shapes(graph)) == 1
    assert [shape[1] for shape in shapes(graph)] == [3, 2, 2]


class Straight(nn.Module):
    """Each step's result is the next one's operand as it is, without an activation between."""

    def __init__(self, size: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 3, size, padding=size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for _ in range(3):
            y = self.conv(torch.cat([x, y], 1))
        return y


@pytest.mark.parametrize(("size", "bias"), [(3, True), (3, False), (1, True), (1, False)])
def test_a_recurrence_without_an_activation_is_hoisted_too(size, bias, lively):
    graph, _ = unrolled(Straight(size, bias), lively)
    assert sum(shape[1] == 3 for shape in shapes(graph)) == len(shapes(graph)) > 3


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


def test_chunks_of_unequal_size_are_left_alone(lively):
    graph, _ = unrolled(UnevenGates(), lively)
    assert shapes(graph) == [(10, 3, 3, 3)]


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


def test_the_unroller_leaves_the_traced_graph_and_the_network_as_they_were(lively):
    module = lively(Recurrence(3))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    naive = trace(module, torch.empty(SHAPE))
    text = naive.code
    unroll(naive)
    assert naive.code == text
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
