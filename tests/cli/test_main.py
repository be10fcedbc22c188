"""What all verbs share: usage, help, tracebacks, and one line for a fault, told as it is."""

import pytest

from derain.cli.main import tell


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
