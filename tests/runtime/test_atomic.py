"""Files that appear whole or not at all, and what is no file and keeps its place."""

import os
from pathlib import Path

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
