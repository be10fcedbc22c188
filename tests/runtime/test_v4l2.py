"""A camera's formats without a camera: a device that is asked, and a capture in OpenCV's place."""

import ctypes
import errno
import fcntl
import os
import time

import cv2
import numpy as np
import pytest

from derain.cli.stream import quiet_decoders
from derain.runtime.capture import FIRST_FRAME_S
from derain.runtime.frames import from_bgr
from derain.runtime.sources import open_source
from derain.runtime.sources.v4l2_formats import from_raw, negotiate
from derain.runtime.sources.v4l2_node import frame_rate, rows

SIZE = (32, 16)


class FakeDevice:
    """A driver that has `offers`, by format its sizes, and settles on its first where it has not what is asked."""

    def __init__(self, **offers):
        self.offers, self.asked = offers, []

    def settle(self, fourcc, width, height):
        self.asked.append(fourcc)
        format_ = fourcc if fourcc in self.offers else next(iter(self.offers))
        sizes = self.offers[format_]
        return (format_, *((width, height) if (width, height) in sizes else sizes[0]))


@pytest.mark.parametrize(
    ("pixels", "offers", "format_"),
    [
        ("nv12", {"YUYV": [SIZE], "NV12": [SIZE], "MJPG": [SIZE]}, "NV12"),
        ("nv12", {"YUYV": [SIZE], "MJPG": [SIZE]}, "MJPG"),
        ("nv12", {"YUYV": [SIZE]}, "YUYV"),
        ("nv12", {"NV12": [(64, 48)], "MJPG": [(64, 48), SIZE]}, "MJPG"),
        ("uyvy", {"MJPG": [SIZE], "YUYV": [SIZE], "UYVY": [SIZE]}, "UYVY"),
        ("uyvy", {"MJPG": [SIZE], "YUYV": [SIZE]}, "YUYV"),
        ("uyvy", {"NV12": [SIZE], "MJPG": [SIZE]}, "MJPG"),
        ("bgr8", {"YUYV": [SIZE], "NV12": [SIZE], "MJPG": [SIZE]}, "MJPG"),
        ("rgb8", {"YUYV": [SIZE], "MJPG": [SIZE]}, "MJPG"),
        ("bgr8", {"YUYV": [SIZE]}, None),
        ("nv12", {"GREY": [SIZE]}, None),
        ("uyvy", {"MJPG": [(64, 48)]}, None),
    ],
)
def test_a_bundle_gets_its_own_bytes_where_the_camera_has_them_at_its_size_else_jpeg(
    pixels, offers, format_, make_spec
):
    assert negotiate(FakeDevice(**offers), make_spec(pixels=pixels)) == format_


def test_nothing_is_asked_after_what_was_agreed_on(make_spec):
    device = FakeDevice(MJPG=[SIZE], UYVY=[SIZE])
    negotiate(device, make_spec(pixels="uyvy"))
    assert device.asked == ["UYVY"]


def test_yuyv_becomes_uyvy_by_swapping_each_pair_of_bytes(make_spec):
    spec = make_spec(pixels="uyvy", width=4, height=2)
    yuyv = np.array([[10, 1, 20, 2, 30, 3, 40, 4]] * 2, np.uint8)
    np.testing.assert_array_equal(from_raw(yuyv, "YUYV", spec).reshape(2, -1), [[1, 10, 2, 20, 3, 30, 4, 40]] * 2)


def test_for_nv12_yuyv_stays_as_the_camera_sent_it_with_the_chroma_of_two_rows_averaged(make_spec):
    spec = make_spec(pixels="nv12", width=4, height=2, matrix="bt709")
    yuyv = np.array([[146, 70, 147, 60, 40, 0, 255, 255], [1, 72, 2, 62, 0, 255, 3, 255]], np.uint8)
    expected = [[146, 147, 40, 255], [1, 2, 0, 3], [71, 61, 128, 255]]
    np.testing.assert_array_equal(from_raw(yuyv, "YUYV", spec), expected)


class FakeCapture:
    """OpenCV's capture on a device with `formats` at every size: gives `images`, then nothing more."""

    def __init__(self, images, formats, settings):
        self.images, self.formats, self.settings = list(images), formats, dict(settings)

    def isOpened(self):  # noqa: N802
        return True

    def get(self, key):
        return self.settings.get(key, 0.0)

    def set(self, key, value):
        if key != cv2.CAP_PROP_FOURCC or value in [cv2.VideoWriter.fourcc(*name) for name in self.formats]:
            self.settings[key] = float(value)

    def grab(self):
        return bool(self.images)

    def retrieve(self):
        return (True, self.images.pop(0)) if self.images else (False, None)

    def release(self):
        pass


@pytest.fixture
def frames(tmp_path, monkeypatch):
    """What a camera that gives `images` delivers until it dies."""

    def read(images, formats, spec, settings=()):
        capture = FakeCapture(images, formats, settings)
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
        (tmp_path / "video0").touch()
        seen = []
        with (
            open_source(f"v4l2://{tmp_path}/video0", spec) as camera,
            pytest.raises(OSError, match="video0: the camera stopped"),
        ):
            for frame in camera:
                seen.append(frame)  # noqa: PERF402 (extend would lose the frames before the error)
        return seen, capture

    return read


@pytest.mark.parametrize("pixels", ["nv12", "uyvy"])
def test_a_camera_delivers_its_own_bytes_until_it_dies(pixels, frames, noise, make_spec):
    spec = make_spec(pixels=pixels)
    raw = [from_bgr(image, spec) for image in noise]
    seen, capture = frames(raw, [pixels.upper(), "MJPG"], spec)
    np.testing.assert_array_equal([frame.image for frame in seen], raw)
    assert capture.settings[cv2.CAP_PROP_CONVERT_RGB] == 0


def test_jpegs_are_decoded_and_one_cut_short_is_broken_and_the_next_is_not(frames, smooth, make_spec):
    jpeg = cv2.imencode(".jpg", smooth, (cv2.IMWRITE_JPEG_QUALITY, 95))[1].reshape(1, -1)
    padded = np.pad(jpeg, ((0, 0), (0, 500)))  # as drivers hand over their whole buffer
    seen, capture = frames([jpeg, jpeg[:, :-40], padded, jpeg[:, :1]], ["YUYV", "MJPG"], make_spec())
    assert [frame.broken for frame in seen] == [False, True, False, True]
    assert [frame.id for frame in seen] == [0, 1, 2, 3]
    assert np.abs(seen[0].image.astype(int) - smooth).mean() < 3
    np.testing.assert_array_equal(seen[0].image, seen[2].image)
    assert capture.settings[cv2.CAP_PROP_CONVERT_RGB] == 0


def test_a_raw_frame_that_opencv_tells_was_cut_short_is_broken_and_the_next_is_not(frames, noise, make_spec):
    spec = make_spec(pixels="nv12")
    raw = [from_bgr(image, spec).reshape(1, -1) for image in noise[:3]]
    seen, _ = frames([raw[0], raw[1][:, :-100], raw[2]], ["NV12"], spec)
    assert [frame.broken for frame in seen] == [False, True, False]


def test_a_camera_that_has_yuyv_only_delivers_its_own_values_for_nv12_and_one_cut_short_is_broken(frames, make_spec):
    yuyv = np.tile(np.array([146, 70, 146, 60], np.uint8), (16, 16)).reshape(16, 32, 2)  # the green of a BT.709 camera
    seen, capture = frames([yuyv, yuyv[:12], yuyv], ["YUYV"], make_spec(pixels="nv12", matrix="bt709"))
    assert [frame.broken for frame in seen] == [False, True, False]
    np.testing.assert_array_equal(seen[0].image, [[146] * 32] * 16 + [[70, 60] * 16] * 8)
    assert capture.settings[cv2.CAP_PROP_CONVERT_RGB] == 0


def test_from_a_camera_with_neither_opencv_makes_bgr(frames, noise, make_spec):
    seen, capture = frames(noise, ["YUYV"], make_spec())
    np.testing.assert_array_equal([frame.image for frame in seen], noise)
    assert capture.settings[cv2.CAP_PROP_CONVERT_RGB] == 1


def test_a_camera_that_delivers_other_bytes_than_it_agreed_to_is_refused(frames, noise, make_spec):
    with pytest.raises(
        ValueError, match=r"frames are \(16, 32, 3\) \(NV12\), expected \(24, 32\) for a bundle of nv12"
    ):
        frames(noise, ["NV12"], make_spec(pixels="nv12"))


def test_a_frame_was_captured_when_the_driver_says_unless_that_is_another_clocks_time(frames, noise, make_spec):
    def captured(age_s):
        before = time.monotonic_ns()
        stamp = {cv2.CAP_PROP_POS_MSEC: (before / 1e9 - age_s) * 1e3}
        seen, capture = frames(noise[:1], ["YUYV"], make_spec(), stamp)
        assert capture.settings[cv2.CAP_PROP_BUFFERSIZE] == 2
        return (seen[0].captured_ns - before) / 1e9

    assert captured(0.25) == pytest.approx(-0.25, abs=0.01)
    for foreign in (-1e6, 1e6):
        assert 0 <= captured(foreign) < 5


class Pixels(ctypes.Structure):
    """As in Linux's videodev2.h."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("width", "height", "fourcc", "field", "stride", "size")]


class Capability(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_char * size) for name, size in (("driver", 16), ("card", 32), ("bus", 32))],
        *[(name, ctypes.c_uint32) for name in ("version", "of_all", "of_this")],
        ("more", ctypes.c_uint32 * 3),
    ]


class Format(ctypes.Structure):
    class Union(ctypes.Union):
        _fields_ = [("pixels", Pixels), ("raw", ctypes.c_uint8 * 200), ("window", ctypes.c_void_p)]

    _fields_ = [("type", ctypes.c_uint32), ("fmt", Union)]


class Parameters(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_uint32) for name in ("type", "capability", "mode", "numerator", "denominator")],
        ("more", ctypes.c_uint8 * 184),
    ]


@pytest.fixture
def driver(monkeypatch):
    """Makes every file a V4L2 device that answers as a driver does."""

    def is_(fourcc="YUYV", width=32, stride=64, field=1, interval=(1, 60), of_all=0x85200001, of_this=0x04200001):
        def ioctl(_, request, question):
            # VIDIOC_QUERYCAP, VIDIOC_G_FMT, VIDIOC_G_PARM
            kind = {0x80685600: Capability, 0xC0D05604: Format, 0xC0CC5615: Parameters}[request]
            answer = kind.from_buffer_copy(question)
            if kind is Capability:
                return bytes(Capability(b"driver", b"card", b"bus", 0x60600, of_all, of_this))
            if answer.type != 1:
                raise OSError(errno.EINVAL, "Invalid argument")
            if kind is Format:
                code = int.from_bytes(fourcc.encode(), "little")
                answer.fmt.pixels = Pixels(width, 16, code, field, stride, stride * 16)
            else:
                answer.numerator, answer.denominator = interval
            return bytes(answer)

        monkeypatch.setattr(fcntl, "ioctl", ioctl)

    return is_


@pytest.mark.parametrize(
    ("pixels", "formats", "fourcc", "stride", "row"),
    [("nv12", ["NV12"], "NV12", 64, 32), ("uyvy", ["YUYV"], "YUYV", 96, 64), ("bgr8", ["BGR3"], "BGR3", 128, 96)],
)
def test_rows_with_gaps_between_them_are_refused_and_without_are_not(
    pixels, formats, fourcc, stride, row, driver, frames, noise, make_spec
):
    spec = make_spec(pixels=pixels)
    raw = [from_bgr(image, spec) for image in noise]
    driver(fourcc=fourcc, stride=row)
    assert len(frames(raw, formats, spec)[0]) == len(raw)
    driver(fourcc=fourcc, stride=stride)
    with pytest.raises(
        ValueError, match=rf"video0: rows are {stride} bytes apart \({fourcc}\), expected {row}: .*derain-st"
    ):
        frames(raw, formats, spec)


@pytest.mark.parametrize(
    ("field", "name"), [(4, "interlaced"), (5, "seq-tb"), (7, "alternate"), (9, "interlaced-bt"), (12, "12")]
)
def test_frames_of_fields_are_refused_and_progressive_ones_are_not(field, name, driver, frames, noise, make_spec):
    for progressive in (0, 1):
        driver(fourcc="BGR3", stride=96, field=progressive)
        assert len(frames(noise, ["BGR3"], make_spec())[0]) == len(noise)
    driver(fourcc="BGR3", stride=96, field=field)
    with pytest.raises(
        ValueError,
        match=rf"video0: frames are interlaced \(field {name}\), expected progressive .*=/.*video0 ! deinterlace !",
    ):
        frames(noise, ["BGR3"], make_spec())


@pytest.mark.parametrize(
    ("of_all", "of_this"),
    [(0x84201000, 0x04201000), (0x85201001, 0x04201000), (0x04201000, 0)],  # one of several nodes; an old driver
)
def test_a_camera_with_the_multi_planar_interface_only_is_refused(of_all, of_this, driver, frames, noise, make_spec):
    driver(of_all=of_all, of_this=of_this)
    with pytest.raises(ValueError, match=r"video0: has only V4L2's multi-planar .*`gst:v4l2src device=/.*video0 ! …`"):
        frames(noise, ["BGR3"], make_spec())


def test_compressed_frames_have_no_rows(driver, frames, smooth, make_spec):
    driver(fourcc="MJPG", stride=640)
    jpeg = cv2.imencode(".jpg", smooth)[1].reshape(1, -1)
    assert len(frames([jpeg], ["MJPG"], make_spec())[0]) == 1


def test_what_is_no_v4l2_device_cannot_be_asked(tmp_path):
    (tmp_path / "video0").touch()
    for node in (tmp_path / "video0", tmp_path / "video1"):
        assert rows(str(node)) is None
        assert frame_rate(str(node)) is None


@pytest.mark.parametrize(
    ("interval", "asked"), [((1, 60), 60), ((1001, 30000), 30000 / 1001), ((0, 0), None), ((5, 1), None)]
)
def test_opencv_is_told_the_rate_that_the_driver_had_before_it(interval, asked, driver, frames, noise, make_spec):
    driver(fourcc="BGR3", stride=96, interval=interval)
    capture = frames(noise, ["BGR3"], make_spec())[1]
    assert capture.settings.get(cv2.CAP_PROP_FPS) == asked
    assert asked is None or list(capture.settings)[-1] == cv2.CAP_PROP_FPS


def test_a_camera_that_does_not_open_may_be_in_use_or_of_a_format_opencv_does_not_know(
    tmp_path, monkeypatch, make_spec
):
    monkeypatch.setattr(FakeCapture, "isOpened", lambda _: False)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture([], [], {}))
    (tmp_path / "video0").touch()
    with pytest.raises(
        OSError, match=r"video0: cannot be opened .* another program .* \(a CSI camera: gst: with derain-stream"
    ):
        open_source(f"v4l2://{tmp_path}/video0", make_spec())


def test_opencv_waits_for_a_frame_no_longer_than_a_first_one_may_take_unless_told(monkeypatch):
    for told in ({}, {"OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "20"}):
        monkeypatch.setattr(os, "environ", environment := dict(told))
        quiet_decoders()
        assert float(environment["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"]) == (20 if told else FIRST_FRAME_S)
