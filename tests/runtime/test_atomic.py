"""Files that appear whole or not at all, and what is no file and keeps its place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from derain.runtime import atomic
from derain.runtime.atomic import check_place, write_bytes


def test_a_fifo_is_written_into_and_stays_one_also_behind_a_link(tmp_path):
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    for path in (fifo, link):
        check_place(path)
        write_bytes(path, b"figures")
        assert os.read(reader, 100) == b"figures"
    os.close(reader)
    assert fifo.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "link"]


def test_a_pipe_without_a_name_is_written_into_as_dev_stdout_may_be_one():
    reader, writer = os.pipe()
    write_bytes(Path(f"/dev/fd/{writer}"), b"figures")
    os.close(writer)
    assert os.read(reader, 100) == b"figures"
    os.close(reader)


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    link, file = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(file)
    for data in (b"new", b"newer"):
        write_bytes(link, data)
        assert link.is_symlink() and file.read_bytes() == data


REPLACE = """
import os, shutil, signal, sys
from pathlib import Path
from derain.runtime import atomic

calls, last = 0, int(sys.argv[2])

def ending(function):
    def wrapped(*arguments, **options):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return wrapped

Path.rename, atomic._exchange, shutil.rmtree = map(ending, (Path.rename, atomic._exchange, shutil.rmtree))
with atomic.new_directory(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("new")
"""


@pytest.mark.parametrize("step", range(1, 5))
def test_a_folder_is_there_whenever_the_process_that_replaces_it_is_killed(step, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("old")
    subprocess.run([sys.executable, "-c", REPLACE, str(folder), str(step)], timeout=60)
    assert (folder / "file").read_text() == ("old" if step == 1 else "new")


def test_a_folder_is_replaced_where_two_cannot_change_places(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    for text in ("old", "new"):
        with atomic.new_directory(tmp_path / "folder") as folder:
            (folder / "file").write_text(text)
    assert (tmp_path / "folder/file").read_text() == "new"
    assert [made.name for made in tmp_path.iterdir()] == ["folder"]
