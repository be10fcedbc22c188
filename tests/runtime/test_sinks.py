"""Sinks: what they write comes back, and what they refuse."""

import errno
import fcntl
import os
import shutil
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from derain.runtime.frames import from_bgr, to_bgr
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source


def write(uri, spec, images, fps=None):
    with open_sink(str(uri), spec, fps) as sink:
        for image in images:
            sink.write(image)


@pytest.mark.parametrize("uri", ["frames://{}/new/out", "{}/out", "file://{}/new/out.mkv", "{}/out.mkv"])
def test_png_folders_and_mkv_return_every_byte(uri, tmp_path, noise, make_spec):
    uri = uri.format(tmp_path)
    write(uri, make_spec("clean"), noise)
    with open_source(uri, make_spec()) as source:
        images = [frame.image for frame in source]
    np.testing.assert_array_equal(images, noise)
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("pixels", ["rgb8", "nv12", "uyvy"])
def test_camera_bytes_are_shown_as_the_colours_they_mean(pixels, tmp_path, noise, make_spec):
    spec = make_spec("clean", pixels=pixels)
    image = from_bgr(noise[0], spec)
    write(tmp_path / "out", spec, [image])
    with open_source(str(tmp_path / "out"), make_spec()) as source:
        np.testing.assert_array_equal(next(iter(source)).image, to_bgr(image, spec))


@pytest.mark.parametrize(("suffix", "tolerance"), [("avi", 4), ("mp4", 6)])
def test_lossy_clips_keep_count_rate_and_colours(suffix, tolerance, tmp_path, smooth, make_spec):
    clip = tmp_path / f"out.{suffix}"
    write(clip, make_spec("clean"), [smooth] * 7, fps=12.5)
    with open_source(str(clip), make_spec()) as source:
        images = [frame.image for frame in source]
    assert len(images) == 7
    assert source.fps == pytest.approx(12.5)
    assert np.abs(images[-1].astype(int) - smooth).mean() < tolerance


def test_a_clip_has_its_name_only_once_it_is_whole(tmp_path, noise, make_spec):
    clip = tmp_path / "out.mkv"
    sink = open_sink(str(clip), make_spec("clean"))
    sink.write(noise[0])
    assert not clip.exists()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_a_clip_goes_where_a_link_points(tmp_path, noise, make_spec):
    link, clip = tmp_path / "latest.mkv", tmp_path / "there" / "clip.mkv"
    link.symlink_to(clip)
    for count in (1, 2):
        write(link, make_spec("clean"), noise[:count])
        with open_source(str(clip), make_spec()) as source:
            np.testing.assert_array_equal([frame.image for frame in source], noise[:count])
        assert link.is_symlink()


def test_a_run_without_frames_leaves_nothing_and_the_older_clip_as_it_was(tmp_path, make_spec):
    (tmp_path / "out.mkv").write_bytes(b"older")
    for uri in ("frames://{}/out", "file://{}/out.mkv", "file://{}/new/out.mkv"):
        write(uri.format(tmp_path), make_spec("clean"), [])
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]
    assert (tmp_path / "out.mkv").read_bytes() == b"older"


def test_a_wrong_image_is_refused_and_what_was_written_before_stays_readable(tmp_path, noise, make_spec):
    clip = tmp_path / "out.mkv"
    with pytest.raises(ValueError, match=r"out\.mkv: image is uint8 \(8, 32, 3\), expected uint8 \(16, 32, 3\)"):
        write(clip, make_spec("clean"), [*noise[:3], noise[3][:8]])
    with open_source(str(clip), make_spec()) as source:
        np.testing.assert_array_equal([frame.image for frame in source], noise[:3])


@pytest.mark.parametrize(
    ("uri", "kind", "part"),
    [
        (
            "printer://desk",
            ValueError,
            "scheme 'printer' is unknown, known are: display, file, frames, mjpeg, null, shm",
        ),
        ("file://{}/out.gif", ValueError, r"suffix '\.gif' is unknown, known are: \.avi, \.mkv, \.mp4"),
        ("file://{}/taken.mkv", FileExistsError, r"taken\.mkv: is a folder, expected a file"),
        ("frames://{}/taken", FileExistsError, "taken: is a file, expected a folder"),
        ("frames://{}/full", ValueError, "full: already holds 1 PNG files"),
        ("file://{}/fifo", FileExistsError, "fifo: is a device or a pipe, expected a file: give another"),
        ("file://{}/link.mkv", FileExistsError, r"link\.mkv: is a device or a pipe, expected a file: give another"),
        ("file://{}/grö\udcdfe/out.mkv", ValueError, r"/grö\\xdfe/out\.mkv: its name is not UTF-8: rename it"),
        ("display://grö\udcdfe", ValueError, r"^display://grö\\xdfe: is not UTF-8: write it in UTF-8"),
        ("file://{}/taken/out.mkv", NotADirectoryError, "taken is a file, so .*out.mkv cannot be made"),
        ("frames://{}/taken/out", NotADirectoryError, "taken is a file, so .*000000.png cannot be made"),
        ("", ValueError, "sink '': names no file or folder: give its path, or . for this folder"),
        ("frames://", ValueError, "sink 'frames://': names no file or folder"),
    ],
)
def test_a_place_that_cannot_take_frames_is_refused_before_the_first(uri, kind, part, tmp_path, make_spec, monkeypatch):
    (tmp_path / "taken.mkv").mkdir()
    (tmp_path / "taken").write_bytes(b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "000000.png").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link.mkv").symlink_to(tmp_path / "fifo")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(kind, match=part):
        open_sink(uri.format(tmp_path), make_spec("clean"))


def test_a_video_of_odd_size_is_refused_because_opencv_would_crop_it(tmp_path, make_spec):
    with pytest.raises(ValueError, match="videos need an even size, frames are 33x16: use frames://"):
        open_sink(str(tmp_path / "out.mkv"), make_spec("clean", width=33))


def test_a_full_disk_is_noticed_and_the_clip_of_what_was_written_is_whole(tmp_path, noise, make_spec, monkeypatch):
    clip = tmp_path / "out.mkv"
    with open_sink(str(clip), make_spec("clean")) as sink:
        for image in noise[:4]:
            sink.write(image)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))  # Matroska needs more
        with pytest.raises(OSError, match="No space left on device") as caught:
            sink.write(noise[4])
        assert caught.value.filename == str(clip)
    with open_source(str(clip), make_spec()) as source:
        np.testing.assert_array_equal([frame.image for frame in source], noise[:4])


def test_a_long_clip_keeps_room_for_its_index(tmp_path, noise, make_spec, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**24))
    with open_sink(str(tmp_path / "out.mp4"), make_spec("clean")) as sink:
        sink.write(noise[0])
        sink._coded = 10**6
        with pytest.raises(OSError, match="No space left on device"):
            sink.write(noise[1])


def test_a_name_with_a_colon_is_no_protocol(tmp_path, noise, make_spec, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("file://out-12:30:00.mkv", make_spec("clean"), noise)
    with open_source("file://out-12:30:00.mkv", make_spec()) as source:
        np.testing.assert_array_equal([frame.image for frame in source], noise)


@pytest.mark.parametrize("uri", ["frames:{}/out", "file:{}/out.mkv", "/{}/out.mkv"])
def test_a_scheme_may_stand_without_slashes_and_a_path_may_begin_with_two(uri, tmp_path, noise, make_spec, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(uri.format(tmp_path), make_spec("clean"), noise)
    (out,) = tmp_path.rglob("out*")
    with open_source(str(out), make_spec()) as source:
        np.testing.assert_array_equal([frame.image for frame in source], noise)


def test_what_is_no_scheme_before_a_colon_is_a_path(tmp_path, noise, make_spec, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("null:", make_spec("clean"), noise)
    write("null:it", make_spec("clean"), noise)
    assert list(tmp_path.iterdir()) == []
    write("12:30", make_spec("clean"), noise[:1])
    assert [path.name for path in tmp_path.rglob("*")] == ["12:30", "000000.png"]


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_takes_the_frames_of_one_run_at_a_time(there, tmp_path, noise, make_spec):
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
    with open_sink(str(folder), make_spec("clean")) as first:
        other = None if there else open_sink(str(folder), make_spec("clean"))
        first.write(noise[0])
        with pytest.raises(ValueError, match="out: another run writes to it: give another folder"):
            (other or open_sink(str(folder), make_spec("clean"))).write(noise[1])
    if other is not None:
        with pytest.raises(ValueError, match="out: already holds 1 PNG files"):
            other.write(noise[1])
    np.testing.assert_array_equal(cv2.imread(str(folder / "000000.png")), noise[0])


def test_a_folder_that_cannot_be_locked_is_told_and_written_to(tmp_path, noise, make_spec, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path / "out", make_spec("clean"), noise[:2])
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert caplog.text.count("out: cannot be locked: let no other run write there") == 1


def test_a_window_is_closed_once_and_one_that_the_user_closed_is_no_fault(make_spec, monkeypatch):
    closed = []

    def destroy(name):
        closed.append(name)
        raise cv2.error("NULL window")

    monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
    monkeypatch.setattr(cv2, "destroyWindow", destroy)
    with open_sink("display://", make_spec("clean")) as sink:
        sink.close()
    assert closed == ["derain"]


def test_a_clip_that_cannot_be_opened_counts_no_frame_and_is_tried_again(tmp_path, noise, make_spec):
    clip = tmp_path / "out.mkv"
    with open_sink(str(clip), make_spec("clean")) as sink:
        sink._temporary.mkdir()  # as good as a folder without the right to write
        for image in noise[:2]:
            with pytest.raises(OSError, match=r"out\.mkv: cannot be written in .*: check its space and rights"):
                sink.write(image)
        assert sink.written == 0
        sink._temporary.rmdir()
        sink.write(noise[2])
    with open_source(str(clip), make_spec()) as source:
        np.testing.assert_array_equal([frame.image for frame in source], noise[2:3])


def test_the_null_sink_counts(noise, make_spec):
    with open_sink("null://", make_spec("clean")) as sink:
        for image in noise:
            sink.write(image)
    assert sink.written == len(noise)


def test_a_clip_of_a_live_source_keeps_the_camera_s_time(tmp_path, noise, make_spec):
    """25 frames/s; the third frame comes 100 ms late, the fourth 5 s, of which a second is kept."""
    clip, times_ms = tmp_path / "out.mkv", (0, 40, 180, 5180, 5221)
    with open_sink(str(clip), make_spec("clean"), 25, live=True) as sink:
        for image, at_ms in zip(noise, times_ms, strict=False):
            sink.write(image, at_ms * 10**6)
    with open_source(str(clip), make_spec()) as source:
        seen = [next(i for i, one in enumerate(noise) if np.array_equal(one, frame.image)) for frame in source]
    assert seen[:5] == [0, 1, 1, 1, 2] or seen[:6] == [0, 1, 1, 1, 1, 2]
    assert seen.count(2) == 26
    assert seen[-2:] == [3, 4]


def test_a_camera_faster_than_it_says_loses_no_frame_in_its_clip(tmp_path, noise, make_spec):
    clip = tmp_path / "out.mkv"
    with open_sink(str(clip), make_spec("clean"), 25, live=True) as sink:
        for index, image in enumerate(noise):
            sink.write(image, index * 33 * 10**6)
    with open_source(str(clip), make_spec()) as source:
        np.testing.assert_array_equal([frame.image for frame in source], noise)


class SlowWriter:
    """Codes nothing, at 5 ms a frame."""

    def __init__(self, *_):
        self.frames = 0

    def isOpened(self):  # noqa: N802
        return True

    def write(self, _):
        time.sleep(5e-3)
        self.frames += 1

    def release(self):
        pass


@pytest.mark.parametrize(("awaited", "repeated"), [(True, range(10)), (False, range(76, 77))])
def test_a_coder_slower_than_the_camera_is_given_its_frames_and_not_their_repetitions(
    awaited, repeated, tmp_path, noise, make_spec, monkeypatch, caplog
):
    """A camera of 500 frames/s, of which every fifth comes; without anyone to wait each of the others is repeated."""
    monkeypatch.setattr(cv2, "VideoWriter", type("Slow", (SlowWriter,), {"fourcc": cv2.VideoWriter.fourcc}))
    sink = open_sink(str(tmp_path / "out.mkv"), make_spec("clean"), 500, live=True)
    sink.awaited = awaited
    for index in range(20):
        sink.write(noise[0], index * 10 * 10**6)
    assert sink._writer.frames - 20 in repeated
    assert caplog.text.count("the clip plays faster than the camera saw") == awaited


def test_the_repetitions_of_a_frame_do_not_fill_the_disk_unseen(tmp_path, noise, make_spec, monkeypatch):
    asked = []

    def disk_usage(path):
        asked.append(path)
        return SimpleNamespace(free=2**30 if len(asked) < 10 else 0)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    with open_sink(str(tmp_path / "out.mkv"), make_spec("clean"), 25, live=True) as sink:
        sink.write(noise[0], 0)
        with pytest.raises(OSError, match="No space left on device"):
            sink.write(noise[1], 10**9)


@pytest.mark.parametrize("fps", [66 + 2 / 3, 119.933, 239.7634, 90_000])
def test_a_rate_that_mpeg_4_has_no_number_for_is_rounded(fps, tmp_path, noise, make_spec):
    write(tmp_path / "out.mp4", make_spec("clean"), noise, fps)
    with open_source(str(tmp_path / "out.mp4"), make_spec()) as source:
        assert source.fps == pytest.approx(min(fps, 65535), rel=1e-4)
        assert len(list(source)) == len(noise)
