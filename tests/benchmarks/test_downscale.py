"""The figures of a network that sees crops of larger cameras' frames smaller."""

import importlib.util

import pytest
import torch

from derain_tests.pictures import write_frames


@pytest.fixture
def downscale(repository):
    found = importlib.util.spec_from_file_location("downscale_benchmark", repository / "benchmarks" / "downscale.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_each_camera_has_the_psnr_of_its_rain_and_of_each_downscale(downscale, picture, tmp_path):
    frames = write_frames(tmp_path / "frames", [picture(index, 66, 49) for index in range(3)])
    table = downscale.measure("daiam-nano", frames, 2)
    assert list(table) == [480, 960, 1440, 2160]
    for values in table.values():
        assert len(values) == 4 and len({round(value, 4) for value in values}) == 4
        assert torch.tensor(values).isfinite().all()
