"""What all verbs share: usage, help, tracebacks, and one line for a fault, told as it is."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from derain.cli.main import tell

MAIN = "from derain.cli.main import main\nmain()"


@pytest.mark.parametrize(
    "arguments",
    [("export",), ("run", "b", "--sauce", "x"), ("fly",), ("inspect", "b", "--json"), ("export", "w", "--pixels", "x")],
)
def test_wrong_usage_exits_2(derain, arguments):
    answer = derain(*arguments)
    assert answer.status == 2
    assert "Traceback" not in answer.err and answer.err


def test_debug_shows_the_traceback(fresh_derain, derain, tmp_path):
    answer = fresh_derain("--debug", "verify", tmp_path)
    assert answer.status == 1
    assert "Traceback (most recent call last)" in answer.err
    assert "FileNotFoundError" in answer.err
    assert "make one with" in derain("verify", tmp_path).fault


def test_a_path_that_looks_like_markup_is_told_as_it_is(derain, tmp_path):
    out = tmp_path / "[bold]b[/x]"
    answer = derain("export", "random:dam-zero", "--out", out, "--size", "32x24")
    assert answer.status == 0, answer.err
    assert f"{out}: dam-zero" in answer.out
    assert f"{out}-: no such bundle" in derain("verify", f"{out}-").fault


def test_help_has_its_short_name(derain):
    assert derain("inspect", "-h").out == derain("inspect", "--help").out != ""


def test_a_lack_of_memory_is_told_with_what_takes_less_of_it():
    told = tell(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"))
    assert told.startswith("CUDA out of memory: reduce the load (train: optimiser.batch or data.patch;")


@pytest.mark.parametrize("where", ["a reader that went away", "a full disk"])
def test_a_stream_goes_on_and_writes_its_report_where_its_words_cannot_be_written(where, inverting, tmp_path):
    report = tmp_path / "report.json"
    source = "test://rain?live=1&frames=70&fps=10&unplug=20&outage=0.5"
    command = [sys.executable, "-c", MAIN, "run", inverting.path, "--source", source, "--sink", "null://"]
    with Path("/dev/full").open("w") if where == "a full disk" else closed_pipe() as words:
        process = subprocess.run([*command, "--json", report], stdout=words, stderr=words, timeout=60, check=False)
    told = json.loads(report.read_text())
    assert told["frames"] > 40, process
    assert told["source_faults"] == 1


@contextmanager
def closed_pipe():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as words:
        yield words


def test_log_messages_in_a_file_are_one_line_each(fresh_derain, inverting):
    source = f"test://rain?live=1&frames=20&fps=20&unplug=5&outage=0.2&seed={'1' * 18}"
    answer = fresh_derain("run", inverting.path, "--source", source, "--sink", "null://")
    assert [line for line in answer.err.splitlines() if line.startswith("WARNING") and line.endswith("reopening it")]
