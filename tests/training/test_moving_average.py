"""The moving average of a run's weights: how much it forgets, and where it lies."""

from types import SimpleNamespace

import lightning
import pytest
import torch

from derain.training.callbacks import MovingAverage, average_decay


def test_the_average_forgets_sooner_in_the_beginning():
    counts = torch.tensor([1, 8, 98, 10_000_000])
    assert average_decay(counts, 0.999).tolist() == pytest.approx([2 / 11, 0.5, 99 / 108, 0.999])
    assert average_decay(counts, 0.0).tolist() == [0, 0, 0, 0]


def test_the_average_lies_where_the_weights_will_be_and_its_counter_where_no_gpu_is_waited_for():
    module = lightning.LightningModule()
    module.network = torch.nn.Linear(2, 2)
    average = MovingAverage(0.9)
    average.setup(SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta"))), module, "fit")
    assert {weight.device.type for weight in average.network.parameters()} == {"meta"}
    assert average._average_model.n_averaged.device.type == "cpu"
