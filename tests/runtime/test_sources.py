"""Sources: their bytes, their order, and what is told of damaged ones."""

import itertools
import struct
import time

import cv2
import numpy as np
import pytest

from derain.runtime.frames import from_bgr
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source
from derain.runtime.sources.coded import decode
from derain.runtime.sources.container import SEGMENT, is_cut_short
from derain_tests.pictures import write_clip

DURATION = bytes.fromhex("448988")  # Matroska's name of it, and that a float of 8 bytes follows


def images(uri, spec):
    with open_source(str(uri), spec) as source:
        return [frame.image for frame in source]


def test_a_folder_with_a_kind_s_name_is_a_folder(tmp_path, noise, make_spec, monkeypatch):
    cv2.imwrite(str(tmp_path / "other.png"), 255 - noise[0])
    monkeypatch.chdir(tmp_path)
    with open_sink("frames", make_spec("clean")) as sink:
        sink.write(noise[0])
    with open_source("frames", make_spec()) as source:
        np.testing.assert_array_equal([frame.image for frame in source], noise[:1])


@pytest.mark.parametrize("uri", ["frames://{folder}", "{folder}", "file://{clip}", "{clip}"])
def test_a_folder_and_a_lossless_clip_give_their_frames_in_order(uri, folder, clip, noise, make_spec):
    before = time.monotonic_ns()
    with open_source(uri.format(folder=folder, clip=clip), make_spec()) as source:
        frames = list(source)
    assert source.frames == len(noise)
    assert source.fps == (pytest.approx(30) if "clip" in uri else None)
    assert [frame.id for frame in frames] == list(range(len(noise)))
    stamps = [before, *(frame.captured_ns for frame in frames), time.monotonic_ns()]
    assert stamps == sorted(stamps)
    for frame, image in zip(frames, noise, strict=True):
        np.testing.assert_array_equal(frame.image, image)


def test_a_relative_file_uri_is_relative_to_the_working_folder(clip, noise, make_spec, monkeypatch):
    monkeypatch.chdir(clip.parent)
    assert len(images(f"file://{clip.name}", make_spec())) == len(noise)


@pytest.mark.parametrize("pixels", ["rgb8", "nv12", "uyvy"])
def test_files_are_turned_into_the_bytes_the_bundle_eats(pixels, folder, noise, make_spec):
    spec = make_spec(pixels=pixels)
    np.testing.assert_array_equal(images(folder, spec)[3], from_bgr(noise[3], spec))


def test_an_unknown_scheme_names_the_known_ones(make_spec):
    with pytest.raises(
        ValueError, match="'carrier-pigeon' is unknown, known are: file, frames, gst, rtsp, shm, test, v4l2"
    ):
        open_source("carrier-pigeon://home", make_spec())


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("file://nothing.mp4", "nothing.mp4: no such file"),
        ("nothing.mp4", "nothing.mp4: no such file"),
        ("frames://nothing", "nothing: no such folder"),
        ("v4l2:///dev/video99", "/dev/video99: no such camera: .*ls /dev/video"),
    ],
)
def test_a_source_that_is_not_there_is_told_by_name(uri, part, make_spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=part):
        open_source(uri, make_spec())


@pytest.mark.parametrize("uri", ["", "frames://", "file:"])
def test_a_source_without_a_place_is_not_the_current_folder(uri, folder, make_spec, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=f"source '{uri}': names no file or folder: give its path, or . for this"):
        open_source(uri, make_spec())
    assert len(images(".", make_spec())) == 10


def test_a_file_that_is_no_video_is_refused(tmp_path, make_spec):
    (tmp_path / "clip.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match=r"clip\.mp4: 800 bytes that are no video"):
        open_source(str(tmp_path / "clip.mp4"), make_spec())


def test_a_clip_whose_name_opencv_cannot_be_told_is_refused(tmp_path, make_spec):
    clip = tmp_path / "grö\udcdfe.mp4"
    clip.write_bytes(b"")
    with pytest.raises(ValueError, match=r"/grö\\xdfe\.mp4: its name is not UTF-8: rename it"):
        open_source(str(clip), make_spec())


def test_a_camera_whose_address_opencv_cannot_be_told_is_refused_without_its_credentials(make_spec):
    with pytest.raises(ValueError, match=r"^rtsp://\*\*\*@127\.0\.0\.1:1/grö\\xdfe: is not UTF-8: write it in UTF-8"):
        open_source("rtsp://me:secret@127.0.0.1:1/grö\udcdfe", make_spec())


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_truncated_clip_gives_what_there_is_then_says_how_much_is_missing(suffix, tmp_path, noise, make_spec):
    clip = tmp_path / f"clip{suffix}"
    with open_sink(str(clip), make_spec("clean")) as sink:
        for image in noise:
            sink.write(image)
    whole = images(clip, make_spec())
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    seen = []
    with open_source(str(clip), make_spec()) as source, pytest.raises(ValueError, match="truncated") as caught:
        for frame in source:
            seen.append(frame.image)  # noqa: PERF401 (extend would lose the frames before the error)
    assert 0 < len(seen) < 10
    np.testing.assert_array_equal(seen[:-1], whole[: len(seen) - 1])  # the last may be the one that was cut
    message = f"{clip}: truncated, the decoder stopped after {len(seen)} of 10 frames: copy it again"
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_whole_clip_whose_sound_is_longer_than_its_picture_is_not_called_truncated(clip, noise, make_spec, caplog):
    whole = clip.read_bytes()
    at = whole.index(DURATION) + len(DURATION)
    (milliseconds,) = struct.unpack_from(">d", whole, at)
    clip.write_bytes(whole[:at] + struct.pack(">d", milliseconds + 100) + whole[at + 8 :])
    with open_source(str(clip), make_spec()) as source:
        assert source.frames == len(noise) + 3
        np.testing.assert_array_equal([frame.image for frame in source], noise)
    assert f"{clip}: 10 frames came, its duration is that of 13: it is damaged, or" in caplog.text


@pytest.mark.parametrize(("share", "told"), [(1, ""), (0.5, "frames came, its duration is that of 10: it is damaged")])
def test_a_clip_whose_writer_did_not_know_its_size_gives_what_there_is(share, told, clip, make_spec, caplog):
    whole = clip.read_bytes()
    at = whole.index(SEGMENT) + len(SEGMENT)
    unknown = whole[:at] + b"\x01" + b"\xff" * 7 + whole[at + 8 :]
    clip.write_bytes(unknown[: int(len(unknown) * share)])
    assert 0 < len(images(clip, make_spec())) <= 10
    assert (told in caplog.text) if told else not caplog.text


def test_numbers_in_names_count_as_numbers(tmp_path, make_spec, noise):
    names = ["a1.png", "a2.png", "a10.png", "a10b.png", "ab.png", "b01.png", "b1.png"]
    for index, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), np.full_like(noise[0], index))
    assert [int(image[0, 0, 0]) for image in images(f"frames://{tmp_path}", make_spec())] == list(range(len(names)))


def test_a_folder_without_images_is_refused(tmp_path, make_spec):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"holds no images, expected at least one of \.png"):
        open_source(f"frames://{tmp_path}", make_spec())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_broken_image_is_named_in_every_format(suffix, share, tmp_path, smooth, make_spec):
    whole = cv2.imencode(suffix, smooth)[1].tobytes()
    (tmp_path / f"000{suffix}").write_bytes(whole)
    assert len(images(tmp_path, make_spec())) == 1
    (tmp_path / f"001{suffix}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"001\{suffix}: {int(len(whole) * share)} bytes that are no whole image"):
        images(tmp_path, make_spec())


def test_a_jpeg_is_whole_with_its_end_whatever_a_phone_appended_and_not_by_the_end_of_its_thumbnail(smooth):
    jpeg = cv2.imencode(".jpg", smooth)[1].tobytes()
    film = b"ftypmp42\xff\xda\0\1"
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg)) + jpeg  # with a thumbnail
    with_thumbnail = jpeg[:2] + exif + jpeg[2:]
    filled = jpeg[:2] + jpeg[2:].replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)
    for whole in (jpeg, jpeg + film, with_thumbnail, with_thumbnail + film, filled):
        np.testing.assert_allclose(decode(whole), smooth, atol=6)
    for cut in (1, len(jpeg) - jpeg.index(b"\xff\xda"), len(jpeg) - 2, len(jpeg) + 50):
        assert decode(with_thumbnail[:-cut]) is None


@pytest.mark.parametrize(
    ("dtype", "highest", "fits"), [(np.uint16, 65535, True), (np.uint16, 4095, False), (np.float32, 1, False)]
)
def test_a_picture_of_more_than_8_bits_is_read_by_its_upper_ones_and_a_dark_raw_one_refused(
    dtype, highest, fits, tmp_path, smooth, make_spec
):
    cv2.imwrite(str(tmp_path / "0.tiff"), (smooth / 255 * highest).astype(dtype))
    if fits:
        np.testing.assert_allclose(images(tmp_path, make_spec())[0], smooth, atol=1)
    else:
        with pytest.raises(
            ValueError, match=rf"0.tiff: holds {np.dtype(dtype)} values up to .*, expected 8 bits, or 16"
        ):
            images(tmp_path, make_spec())


@pytest.mark.parametrize("uri", ["frames://{folder}", "file://{clip}", "test://rain?width=32&height=16"])
def test_frames_of_another_size_name_the_source_both_sizes_and_the_mend(uri, folder, clip, make_spec):
    uri = uri.format(folder=folder, clip=clip)
    with pytest.raises(ValueError, match=r"frames are 32x16, the bundle expects 64x48: .*--size 32x16") as caught:
        images(uri, make_spec(width=64, height=48))
    assert str(caught.value).startswith((uri.partition("://")[2], uri))


def test_the_test_pattern_is_deterministic_moves_and_takes_the_bundles_size(make_spec):
    first, again = (
        images("test://rain?frames=5&seed=3", make_spec()),
        images("test://rain?frames=5&seed=3", make_spec()),
    )
    np.testing.assert_array_equal(first, again)
    assert len(first) == 5
    assert any((a != b).any() for a, b in itertools.pairwise(first))
    assert (np.array(first) != np.array(images("test://rain?frames=5&seed=4", make_spec()))).any()


def test_the_clean_pattern_is_the_rain_pattern_without_its_streaks(make_spec):
    spec = make_spec(width=128, height=96)
    rain, clean = (np.array(images(f"test://{kind}?frames=3", spec)).astype(int) for kind in ("rain", "clean"))
    assert (rain >= clean).all()
    assert 0.01 < (rain > clean).any(axis=-1).mean() < 0.5


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("test://snow", "pattern 'snow' is unknown, known are: clean, rain"),
        ("test://rain?speed=3", "speed: unknown key .*'3'.*known keys: width, height, frames, fps, seed"),
        ("test://rain?frames=none", "frames: should be a valid integer.*'none'"),
        ("test://rain?frames=0", "frames: should be greater than or equal to 1, got '0'"),
    ],
)
def test_a_pattern_with_a_wrong_option_is_refused_by_key_and_value(uri, part, make_spec):
    with pytest.raises(ValueError, match=part):
        open_source(uri, make_spec())


class FakeCapture:
    """What OpenCV would open: gives `images`, then nothing more."""

    def __init__(self, images):
        self.images, self.settings = list(images), {}

    def isOpened(self):  # noqa: N802
        return True

    def get(self, _):
        return 0.0

    def set(self, key, value):
        self.settings[key] = value

    def read(self):
        return (True, self.images.pop(0)) if self.images else (False, None)

    def release(self):
        pass


def test_a_container_without_frames_is_refused(clip, make_spec, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture([]))
    with pytest.raises(ValueError, match=r"clip\.mkv: holds no frames"):
        images(clip, make_spec())


def test_an_iso_file_is_cut_short_where_its_boxes_do_not_fit_it_and_not_where_frames_are_hidden(tmp_path):
    def box(kind, content, long=False):
        head = struct.pack(">I4sQ", 1, kind, 16 + len(content)) if long else struct.pack(">I4s", 8 + len(content), kind)
        return head + content

    film = box(b"ftyp", b"isom") + box(b"moov", bytes(50)) + box(b"mdat", bytes(1000), long=True)
    clip = tmp_path / "clip.MP4"
    for content, cut in (
        (film, False),
        (film + struct.pack(">I4s", 0, b"free") + bytes(99), False),  # of all that follows
        (film[:-1], True),
        (film + b"\0\0", True),
        (film.replace(b"moov", b"free"), True),
        (b"", True),
    ):
        clip.write_bytes(content)
        assert is_cut_short(clip) == cut


def test_an_avi_is_cut_short_where_its_chunks_go_on_behind_its_end_and_not_where_frames_are_left_empty(tmp_path):
    def chunk(content, size=None):
        return b"RIFF" + struct.pack("<I", len(content) if size is None else size) + content

    clip = tmp_path / "clip.avi"
    film = chunk(b"AVI " + bytes(100)) + chunk(b"AVIX" + bytes(100))  # a long one has several
    for content, cut in (
        (film, False),
        (film + b"more of another program", False),
        (film[:-1], True),
        (film[:60], True),
        (chunk(b"AVI " + bytes(100), 2**32 - 1), False),  # written into a pipe
        (b"", False),
    ):
        clip.write_bytes(content)
        assert is_cut_short(clip) == cut, (content[:12], len(content))


def test_a_whole_avi_that_counts_more_frames_than_it_holds_gives_those_it_holds(tmp_path, noise, make_spec, caplog):
    """As one of a varying rate, or with sound by FFmpeg: a frame that is not there is counted and empty."""
    clip = write_clip(tmp_path / "clip.avi", noise)
    whole = clip.read_bytes()
    head = whole.index(b"avih") + 24  # its number of frames
    stream = whole.index(b"strh") + 40
    assert {struct.unpack_from("<I", whole, at) for at in (head, stream)} == {(len(noise),)}
    for at in (head, stream):
        whole = whole[:at] + struct.pack("<I", 2 * len(noise)) + whole[at + 4 :]
    clip.write_bytes(whole)
    assert len(images(clip, make_spec())) == len(noise)
    assert "10 frames came, its duration is that of 20: it is damaged, or its rate varies" in caplog.text


@pytest.mark.parametrize(("alike", "told"), [(9, 0), (10, 1), (30, 1)])
def test_a_clip_that_stands_still_from_its_first_frame_on_may_be_interlaced(
    alike, told, tmp_path, noise, make_spec, caplog
):
    clip = write_clip(tmp_path / "clip.mkv", [noise[0]] * alike + noise[1:])
    seen = images(clip, make_spec())
    np.testing.assert_array_equal(seen, [noise[0]] * alike + noise[1:])
    assert caplog.text.count(f"{clip}: its first 10 frames are all the same: if it is interlaced, OpenCV") == told


def test_a_clip_damaged_in_its_middle_gives_what_lies_behind(clip, noise, make_spec, unreadable, caplog):
    unreadable(4, 5)
    with open_source(str(clip), make_spec()) as source:
        np.testing.assert_array_equal([frame.image for frame in source], [*noise[:3], *noise[5:]])
    assert caplog.messages == [f"{clip}: 2 of its frames are damaged and left out"]
