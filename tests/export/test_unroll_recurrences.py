"""The unroller on recurrences: what is convolved once, what never, and that the results stay the same."""

import pytest
import torch
from torch import Tensor, nn

from derain.export.onnx_graph import to_onnx
from derain.export.trace import convolutions, parameter, trace
from derain.export.unroll import UnrollReport, unroll
from derain.training.models.blocks import ConvLSTM, LSTMState
from derain_tests.graphs import SHAPE, operators, shapes, unrolled


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


class Namesakes(nn.Module):
    """Two ConvLSTMs whose paths differ only in what a tensor's name cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.a_b = nn.Module(), Recurrence(3)
        self.a.b = Recurrence(3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a.b(x), self.a_b(x)], 1)


def test_two_convlstms_whose_names_become_one_keep_their_own_weights(lively):
    unrolled(Namesakes(), lively)  # compares the outputs


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
        lambda gates: [gates[:, at : at + 5] for at in (0, 5, 10, 15)],
        lambda gates: [gates[:, at : at + 5 or None] for at in (-20, -15, -10, -5)],
        lambda gates: [gates.narrow(1, at, 5) for at in (0, 5, 10, 15)],
        lambda gates: [gates.narrow(1, at, 5) for at in (-20, -15, -10, -5)],
        lambda gates: [*torch.tanh(gates).chunk(4, 1)],
        lambda gates: [*torch.sigmoid(gates[:, :10]).chunk(2, 1), *gates[:, 10:].split(5, -3)],
        lambda gates: [*(three := gates.split([15, 5], 1))[0].chunk(3, 1), three[1]],
        lambda gates: (lambda i, rest, o: (i, None, torch.relu(rest)[:, 5:], o))(*gates.split([5, 10, 5], -3)),
    ],
)
def test_a_dead_gate_goes_however_the_gates_are_cut(cut, lively):
    graph, _ = unrolled(Cut(cut), lively)
    assert shapes(graph) == [(15, 3, 3, 3)]


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


class TwoViews(nn.Module):
    """One ConvLSTM over two inputs, one after the other, each from the same zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = ConvLSTM(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        zeros, total = torch.zeros(1, 5, *x.shape[2:]), torch.zeros(1)
        for view in (x, x.flip(3)):
            state = LSTMState(zeros, zeros)
            for _ in range(3):
                state = self.lstm(view, state)
            total = total + state.hidden
        return total


def test_each_input_of_a_convlstm_is_convolved_once_though_all_start_from_the_same_zeros(lively):
    graph, report = unrolled(TwoViews(), lively)
    assert sorted(shapes(graph)) == [(20, 3, 3, 3)] * 2 + [(20, 5, 3, 3)] * 4
    assert report.macs == (2 * 20 * 3 + 4 * 20 * 5) * 9 * 48


class Mixed(nn.Module):
    """Two operands that repeat, but no two steps that have both in common, and one that never does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(9, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b, total = x * 2, x * 3, torch.zeros(1)
        for own, first, second in ((x * 5, a, x), (x * 6, a, b), (x * 7, b, b)):
            total = total + torch.tanh(self.conv(torch.cat([own, first, second], 1)))
        return total


def test_operands_that_repeat_apart_from_each_other_are_not_convolved_together(lively):
    graph, report = unrolled(Mixed(), lively)
    assert sorted(shapes(graph)) == [(2, 3, 3, 3)] * 2 + [(2, 6, 3, 3)] * 3
    assert report.macs == (2 * 2 * 3 + 3 * 2 * 6) * 9 * 48


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
    first, _ = unrolled(ConvGRU(1), lively)  # nothing to reset: r is read by nobody
    assert shapes(first) == [(4, 3, 3, 3)] * 2


class Joined(nn.Module):
    """A recurrence over what `join` makes of input and hidden state."""

    def __init__(self, join) -> None:
        super().__init__()
        self.conv, self.join = nn.Conv2d(3 + 5, 5, 3, padding=1), join

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 5, *x.shape[2:])
        for _ in range(3):
            h = torch.tanh(self.conv(self.join(x, h)))
        return h


@pytest.mark.parametrize(
    "join",
    [
        lambda x, h: torch.cat([x, h], 1),
        lambda x, h: torch.cat([x, h], -3),
        lambda x, h: torch.cat([torch.cat([x[:, :1], x[:, 1:]], 1), h], 1),
        lambda x, h: torch.cat([x, torch.cat([h[:, :2], h[:, 2:]], -3)], -3),
    ],
)
def test_a_shared_input_is_convolved_once_however_it_is_joined_to_the_state(join, lively):
    graph, report = unrolled(Joined(join), lively)
    assert sorted(shapes(graph))[0] == (5, 3, 3, 3) and len(shapes(graph)) == 3
    assert report.macs == (5 * 3 + 2 * 5 * 5) * 9 * 48


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


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.gates(x).chunk(2, 1)


class Fading(nn.Module):
    """Both gates are read at the first step, one at the others."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Halves()

    def forward(self, x: Tensor) -> Tensor:
        a, total = self.cell(x)
        for _ in range(2):
            a, _ = self.cell(torch.tanh(a))
        return total * a


def test_a_step_with_one_gate_left_is_not_cut_and_becomes_onnx(lively):
    graph, _ = unrolled(Fading(), lively)
    assert shapes(graph) == [(6, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)]
    splits = [node.output for node in to_onnx(graph, "x", "y").graph.node if node.op_type == "Split"]
    assert [len(outputs) for outputs in splits] == [2]


def test_the_unroller_leaves_the_traced_graph_and_the_network_as_they_were(lively):
    module = lively(Recurrence(3))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    naive = trace(module, torch.empty(SHAPE))
    text = naive.code
    unroll(naive)
    assert naive.code == text
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
