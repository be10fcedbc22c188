"""Network cameras and streams, and that no credential leaves by a message."""

import http.client
import socket
import struct
import threading
import time
import urllib.request

import cv2
import numpy as np
import pytest

from derain.runtime import http_server
from derain.runtime.metrics import Metrics
from derain.runtime.redact import redact
from derain.runtime.sinks import mjpeg, open_sink
from derain.runtime.sources import open_source

SECRET = "hunter2"
URI = f"rtsp://admin:{SECRET}@camera.local:554/stream?channel=1&password={SECRET}"


class FakeCapture:
    """What OpenCV would open: gives `images`, then nothing more."""

    def __init__(self, images, is_open=True):
        self.images, self.is_open = list(images), is_open

    def isOpened(self):  # noqa: N802
        return self.is_open

    def get(self, _):
        return 25.0

    def grab(self):
        return bool(self.images)

    def retrieve(self):
        return (True, self.images.pop(0)) if self.images else (False, None)

    def release(self):
        pass


@pytest.fixture
def captures(monkeypatch):
    """Makes OpenCV open fakes, and keeps what it was asked for."""
    asked = []

    def fake(images, is_open=True):
        monkeypatch.setattr(cv2, "VideoCapture", lambda *args: asked.append(args) or FakeCapture(images, is_open))
        return asked

    return fake


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (URI, "rtsp://***@camera.local:554/stream?channel=1&password=***"),
        ("rtsp://a:p@ss@host/x", "rtsp://***@host/x"),
        ("gst:rtspsrc location=rtsp://a:b@h/x user-id=me user-pw='my word' ! appsink",
         "gst:rtspsrc location=rtsp://***@h/x user-id=*** user-pw=*** ! appsink"),
        ("http://host/?access_token=abc", "http://host/?access_token=***"),
        ("file:///home/me/clip.mp4", "file:///home/me/clip.mp4"),
        ("test://rain?width=32", "test://rain?width=32"),
    ],
)  # fmt: skip
def test_a_uri_is_shown_without_its_credentials(uri, shown):
    assert redact(uri) == shown


def test_a_network_camera_delivers_frames_until_the_stream_breaks_off(captures, noise, make_spec):
    asked = captures(noise)
    seen = []
    with open_source(URI, make_spec()) as source, pytest.raises(OSError, match="the stream broke off") as caught:
        for frame in source:
            seen.append(frame.image)  # noqa: PERF401
    np.testing.assert_array_equal(seen, noise)
    assert source.live
    assert source.fps == 25
    assert asked[0][0] == URI  # OpenCV gets the credentials, nobody else does
    assert SECRET not in str(caught.value) + source.location


def test_a_network_camera_that_stands_still_from_its_first_frame_on_may_be_interlaced(
    captures, noise, make_spec, caplog
):
    captures([noise[0]] * 12)
    with open_source(URI, make_spec()) as source, pytest.raises(OSError, match="the stream broke off"):
        list(source)
    assert caplog.text.count("its first 10 frames are all the same: if it is interlaced, OpenCV") == 1
    assert SECRET not in caplog.text


def test_a_camera_that_does_not_answer_is_told_without_its_password(captures, make_spec):
    captures([], is_open=False)
    with pytest.raises(OSError, match=r"rtsp://\*\*\*@camera\.local:554/.*: no stream: check address, credentials"):
        open_source(URI, make_spec())


def test_a_real_connection_that_is_refused_is_an_error_and_not_a_wait(make_spec):
    start = time.monotonic()
    with pytest.raises(OSError, match="no stream"):
        open_source(f"rtsp://admin:{SECRET}@127.0.0.1:1/", make_spec())
    assert time.monotonic() - start < 20


def test_a_lost_stream_is_logged_without_its_password(captures, bundle, noise, caplog):
    from derain.runtime import pipeline
    from derain.runtime.testing import Calls, ScriptedEngine

    captures(noise)
    stop = threading.Event()

    def until_reopened(status):
        if status.frames > len(noise):
            stop.set()

    with open_source(URI, bundle.manifest.input) as source, ScriptedEngine(bundle) as engine:
        sink = open_sink("null://", bundle.manifest.output)
        report = pipeline.run(engine, source, sink, [Calls(on_status=until_reopened)], stop=stop)
    assert report.source_faults >= 1
    assert "the stream broke off" in caplog.text
    assert SECRET not in caplog.text + report.model_dump_json()


def test_a_pipeline_gets_an_appsink_that_holds_the_newest_frame(captures, noise, make_spec, monkeypatch):
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: backend == cv2.CAP_GSTREAMER)
    asked = captures(noise)
    with open_source("gst:videotestsrc ! queue", make_spec()) as source:
        np.testing.assert_array_equal(next(iter(source)).image, noise[0])
    open_source("gst:videotestsrc ! appsink name=mine", make_spec())
    assert asked[0][0].startswith("videotestsrc ! queue ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true")
    assert asked[1][0] == "videotestsrc ! appsink name=mine"


def test_without_gstreamer_a_pipeline_is_refused_in_one_line(make_spec, monkeypatch):
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    with pytest.raises(OSError, match=r"gst:videotestsrc: this OpenCV has no GStreamer") as caught:
        open_source("gst:videotestsrc", make_spec())
    assert "\n" not in str(caught.value)


def test_a_window_where_there_can_be_none_is_refused_in_one_line(make_spec, monkeypatch):
    def headless(*_):
        raise cv2.error("The function is not implemented. Rebuild the library")

    monkeypatch.setattr(cv2, "namedWindow", headless)
    with pytest.raises(OSError, match=r"no windows: pip install opencv-python .* --sink mjpeg://") as caught:
        open_sink("display://", make_spec("clean"))
    assert "\n" not in str(caught.value)


def read_jpeg(response):
    """The next part of a Motion JPEG stream."""
    assert response.readline().strip() == b"--derain-frame"
    headers = http.client.parse_headers(response)
    body = response.read(int(headers["Content-Length"]))
    response.readline()
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)


def test_a_browser_gets_the_frames_and_is_let_go_at_the_end(smooth, make_spec):
    with open_sink("mjpeg://:0", make_spec("clean")) as sink:
        assert sink.address.startswith("http://127.0.0.1:")
        connection = http.client.HTTPConnection(sink.address.removeprefix("http://").strip("/"), timeout=10)
        sink.write(smooth)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=derain-frame"
        first = read_jpeg(response)
        sink.write(255 - smooth)
        second = read_jpeg(response)
    assert response.read() == b""
    connection.close()
    assert np.abs(first.astype(int) - smooth).mean() < 4
    assert np.abs(second.astype(int) - (255 - smooth)).mean() < 4


def test_a_frame_is_coded_once_for_all_clients_and_not_at_all_for_none(smooth, make_spec, monkeypatch):
    coded = []
    encode = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *args: coded.append(None) or encode(*args))
    with open_sink("mjpeg://127.0.0.1:0", make_spec("clean")) as sink:
        for _ in range(5):
            sink.write(smooth)
        assert coded == []
        assert sink.next_jpeg(0) == sink.next_jpeg(0)
        assert len(coded) == 1


def test_another_path_is_not_found_and_a_taken_port_is_told(make_spec):
    with open_sink("mjpeg://127.0.0.1:0", make_spec("clean")) as sink:
        place = sink.address.removeprefix("http://").strip("/")
        connection = http.client.HTTPConnection(place, timeout=10)
        connection.request("GET", "/etc/passwd")
        assert connection.getresponse().status == 404
        connection.close()
        with pytest.raises(OSError, match=f"mjpeg://{place}: cannot listen there: Address already in use"):
            open_sink(f"mjpeg://{place}", make_spec("clean"))
    with pytest.raises(ValueError, match="port 'http', expected 0 to 65535"):
        open_sink("mjpeg://127.0.0.1:http", make_spec("clean"))


class Timed(FakeCapture):
    """A stream whose frames, 40 ms apart by its own clock, come when they come."""

    def __init__(self, images, positions_ms, rate=25.0):
        super().__init__(images)
        self.positions_ms, self.rate = [0.0, *positions_ms], rate

    def get(self, which):
        return self.positions_ms[0] if which == cv2.CAP_PROP_POS_MSEC else self.rate

    def grab(self):
        self.positions_ms = self.positions_ms[1:] or self.positions_ms
        return super().grab()


def ages_ms(monkeypatch, image, positions_ms, came_ms, make_spec):
    monkeypatch.setattr(cv2, "VideoCapture", lambda *args: Timed([image] * len(came_ms), positions_ms))
    source = open_source("rtsp://camera", make_spec())
    clock = iter(at for came in came_ms for at in (came, came))  # when it was asked for, when it came
    monkeypatch.setattr(time, "monotonic_ns", lambda: round(next(clock) * 1e6))
    return [came - next(frames).captured_ns / 1e6 for frames in [iter(source)] for came in came_ms]


def test_a_frame_that_waited_on_its_way_is_as_old_as_it_is(monkeypatch, noise, make_spec):
    positions = [40, 80, 120, 160, 200]
    seen = ages_ms(monkeypatch, noise[0], positions, [1000, 1040, 3080, 3085, 1160 + 40], make_spec)
    assert seen == pytest.approx([0, 0, 2000, 1965, 40], abs=0.2)


def test_a_stream_without_times_or_whose_times_begin_anew_gives_frames_of_now(monkeypatch, noise, make_spec):
    assert ages_ms(monkeypatch, noise[0], [25, 25, 25], [1000, 1040, 3080], make_spec) == [0, 0, 0]
    seen = ages_ms(monkeypatch, noise[0], [90000, 90040, 40, 80, 120], [1000, 1040, 1080, 1120, 1160], make_spec)
    assert seen == pytest.approx([0] * 5, abs=0.2)
    seen = ages_ms(monkeypatch, noise[0], [40, 20000, 20040], [1000, 1040, 90000], make_spec)
    assert seen == pytest.approx([0, 0, 0], abs=0.2)


@pytest.mark.parametrize("slower", [1e-4, 1e-3])  # a crystal; 30/1.001 frames a second, stamped as 30
def test_a_camera_s_slower_clock_makes_no_frame_old(slower, monkeypatch, noise, make_spec):
    count = 2000
    positions = [40 * (1 - slower) * index for index in range(1, count + 1)]
    seen = ages_ms(monkeypatch, noise[0], positions, [1000 + 40 * index for index in range(count)], make_spec)
    assert max(seen) < 0.1


@pytest.mark.parametrize(("declared", "believed"), [(25.0, 25.0), (0.5, 0.5), (0.0, None), (-1.0, None), (9e4, None)])
def test_a_rate_no_camera_has_is_not_believed(declared, believed, monkeypatch, noise, make_spec):
    monkeypatch.setattr(cv2, "VideoCapture", lambda *args: Timed(noise, [], declared))
    with open_source("rtsp://camera", make_spec()) as source:
        assert source.fps == believed


def test_a_stream_for_this_machine_answers_to_its_names_only(smooth, make_spec):
    with open_sink("mjpeg://127.0.0.1:0", make_spec("clean")) as sink:
        sink.write(smooth)
        place = sink.address.removeprefix("http://").strip("/")
        for host, status in (
            ("rebound.example", 400),
            ("rebound.example:80", 400),
            ("localhost:80", 200),
            (place, 200),
        ):
            connection = http.client.HTTPConnection(place, timeout=10)
            connection.request("GET", "/", headers={"Host": host})
            assert connection.getresponse().status == status
            connection.close()


@pytest.mark.parametrize("what", ["mjpeg", "metrics"])
def test_clients_beyond_the_most_are_let_go_and_those_that_ask_nothing_too(what, smooth, make_spec, monkeypatch):
    monkeypatch.setattr(http_server, "MOST_CLIENTS", 2)
    monkeypatch.setattr(http_server, "PATIENCE_S", 0.5)
    with open_sink("mjpeg://127.0.0.1:0", make_spec("clean")) if what == "mjpeg" else Metrics("127.0.0.1:0") as served:
        if what == "mjpeg":
            served.write(smooth)
        host, port = served.address.removeprefix("http://").partition("/")[0].split(":")
        idle = [socket.create_connection((host, int(port)), 10) for _ in range(3)]
        start = time.monotonic()
        assert idle[2].recv(1) == b""
        assert time.monotonic() - start < 0.4
        assert [one.recv(1) for one in idle[:2]] == [b"", b""]
        for one in idle:
            one.close()
        time.sleep(0.1)
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()


def test_a_client_that_goes_while_no_frame_comes_leaves_its_place(smooth, make_spec, monkeypatch):
    monkeypatch.setattr(http_server, "MOST_CLIENTS", 2)
    monkeypatch.setattr(mjpeg, "LOOK_S", 0.05)
    with open_sink("mjpeg://127.0.0.1:0", make_spec("clean")) as sink:
        sink.write(smooth)
        for _ in range(4):
            with urllib.request.urlopen(sink.address, timeout=10) as answer:
                read_jpeg(answer)
            time.sleep(0.3)


@pytest.mark.parametrize("what", ["mjpeg", "metrics"])
def test_a_client_that_breaks_off_while_it_asks_is_no_traceback(what, make_spec, capfd):
    with open_sink("mjpeg://127.0.0.1:0", make_spec("clean")) if what == "mjpeg" else Metrics("127.0.0.1:0") as served:
        host, port = served.address.removeprefix("http://").partition("/")[0].split(":")
        client = socket.create_connection((host, int(port)), 10)
        client.sendall(b"GET / HT")
        time.sleep(0.1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # with a reset
        time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_another_address_of_this_machine_answers_to_itself(smooth, make_spec):
    with open_sink("mjpeg://127.0.0.2:0", make_spec("clean")) as sink:
        sink.write(smooth)
        with urllib.request.urlopen(sink.address, timeout=10) as answer:
            assert answer.status == 200


def test_an_ipv6_address_is_listened_at(smooth, make_spec):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with open_sink("mjpeg://[::1]:0", make_spec("clean")) as sink, Metrics("[::1]:0") as metrics:
        sink.write(smooth)
        for served in (sink, metrics):
            assert served.address.startswith("http://[::1]:")
            with urllib.request.urlopen(served.address, timeout=10) as answer:
                assert answer.status == 200
