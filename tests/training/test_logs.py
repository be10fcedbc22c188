"""The metrics of a run on disk."""

import resource

import pytest

from derain.training.logs import CsvLog


def test_a_row_of_metrics_that_does_not_fit_leaves_those_before_it_whole(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    for step in range(3):
        log.log_metrics({"loss": 0.5}, step)
    before = log.path.read_bytes()
    limits = _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 2, hard))
    try:
        with pytest.raises(OSError, match=r"7 bytes cannot be written: File too large; what it held is kept") as caught:
            log.log_metrics({"loss": 0.5}, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(log.path)
    assert log.path.read_bytes() == before == b"step,loss\r\n0,0.5\r\n1,0.5\r\n2,0.5\r\n"
