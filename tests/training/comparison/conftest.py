"""A comparison of small networks before its training and after."""

from pathlib import Path

import pytest

from derain.training.comparison.evaluation import evaluate_system
from derain.training.comparison.protocol import Comparison, Protocol
from derain_tests.comparison import SMALL
from derain_tests.pictures import write_frames


@pytest.fixture(scope="session")
def images(tmp_path_factory, picture) -> Path:
    root = tmp_path_factory.mktemp("images")
    for folder, count in (("train", 2), ("backgrounds/camvid", 3), ("rain100/clean", 3), ("real_rain/stills", 1)):
        write_frames(root / folder, [picture(len(folder) + index, 48, 36) for index in range(count)])
    return root


@pytest.fixture
def empty(images, tmp_path) -> Comparison:
    return Comparison(Protocol.model_validate(SMALL), tmp_path / "c", (f"data.root={images}",))


@pytest.fixture(scope="session")
def trained(images, tmp_path_factory) -> Comparison:
    """One network complete, its scores written."""
    folder = tmp_path_factory.mktemp("trained") / "c"
    comparison = Comparison(Protocol.model_validate(SMALL), folder, (f"data.root={images}",))
    assert comparison.train("daiam-nano") == (8, 8)
    evaluate_system(comparison, "daiam-nano")
    return comparison
