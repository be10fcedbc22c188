"""The live page: its figures and its refusals, and the page itself in a real browser."""

import logging
import shutil
import socket
import threading
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from derain.runtime import pipeline
from derain.runtime.frames import Frame
from derain.runtime.live import LiveServer, LiveView, server
from derain.runtime.records import FrameRecord, Outcome
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source
from derain.runtime.testing import Fault, ScriptedEngine

TOKEN = "correct-horse-battery"
CHROMIUM = shutil.which("chromium")
ABOUT = {"model": "invert", "engine": "scripted", "precision": "fp32", "policy": "latest", "deadline_ms": 500.0}


@dataclass
class Live:
    """A camera on a live page, and the way to end it."""

    view: LiveView
    server: LiveServer
    report: pipeline.RunReport | None = None

    def get(self, path, **headers):
        connection = HTTPConnection(urlsplit(self.server.address).netloc, timeout=10)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body


@contextmanager
def live(bundle, source="test://rain?live=1&fps=40&frames=1000000", script=None, refusals=0, **server):
    """A run on a thread of its own with its page, until the block ends."""
    manifest, stop = bundle.manifest, threading.Event()
    view = LiveView(ABOUT | {"source": source}, manifest.input, manifest.output)
    engine = ScriptedEngine(bundle, script, refusals=refusals)
    with (
        open_source(source, manifest.input) as frames,
        engine,
        open_sink("null://", manifest.output) as sink,
        LiveServer(view, server.get("host", "127.0.0.1"), 0, server.get("token")) as serving,
    ):
        shown = Live(view, serving)

        def run():
            shown.report = pipeline.run(engine, frames, sink, [view], stop=stop)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield shown
        finally:
            stop.set()
            thread.join(20)


def decoded(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def test_one_answer_holds_the_same_frame_before_and_after(bundle):
    with live(bundle) as page:
        numbers = []
        for _ in range(3):
            answer, body = page.get(f"/pair?after={numbers[-1] if numbers else 0}")
            numbers.append(int(answer.getheader("X-Number")))
            cut = int(answer.getheader("X-Before-Bytes"))
            before, after = decoded(body[:cut]), decoded(body[cut:])
            assert before.shape == (16, 32, 3)
            assert np.abs(255 - before.astype(int) - after).mean() < 6  # the engine inverts
    assert numbers == sorted(set(numbers))
    assert page.report.presented >= numbers[-1]


def test_a_frame_is_coded_once_for_all_browsers_and_not_at_all_for_none(bundle, wait_until, monkeypatch):
    coded, encode = [], cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *args: coded.append(None) or encode(*args))
    with live(bundle, source="test://rain?frames=5") as page:
        wait_until(lambda: page.report)
        assert coded == []
        pairs = [page.view.pair() for _ in range(3)]
    assert pairs[0] is pairs[2]
    assert (pairs[0].number, pairs[0].record.id, len(coded)) == (5, 4, 2)


def test_wide_frames_are_scaled_down_for_the_page(make_spec):
    spec = make_spec(width=1920, height=1080)
    view = LiveView(ABOUT, spec, spec)
    assert view.pair() is None
    image = np.zeros(spec.image_shape, np.uint8)
    record = pipeline.FrameRecord(0, 0, 0, 0, 1, 2, pipeline.Outcome.DERAINED)
    view.on_frame(record, pipeline.Frame(0, 0, image, 0), image)
    assert decoded(view.pair().before).shape == (720, 1280, 3)


def test_who_waits_for_a_frame_that_never_comes_is_let_go(bundle):
    with live(bundle, source="test://rain?frames=3") as page:
        page.view.close()
        answer, body = page.get("/pair?after=3")
        assert (answer.status, body) == (204, b"")


@pytest.mark.parametrize("path", ["/", "/state", "/pair"])
def test_without_the_token_everything_is_refused_and_with_it_nothing(path, bundle, caplog):
    caplog.set_level(logging.DEBUG)
    with live(bundle, token=TOKEN) as page:
        for wrong in (path, f"{path}?token=", f"{path}?token={TOKEN[:-1]}", f"{path}?token=%C3%A9"):
            answer, body = page.get(wrong)
            assert answer.status == 401
            assert TOKEN.encode() not in body
        assert page.get(path, Authorization="Bearer wrong")[0].status == 401
        assert page.get(path, Authorization=f"Bearer {TOKEN}")[0].status == 200
        assert page.get(f"{path}?token={TOKEN}")[0].status == 200
    assert TOKEN not in caplog.text


def test_the_page_is_part_of_an_installation(repository):
    packaged = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = [path.name for path in (repository / "runtime" / "live").iterdir() if path.is_file()]
    assert packaged["derain.runtime.live"] == [name for name in files if not name.endswith(".py")] == ["page.html"]


def test_there_is_no_other_address(bundle):
    with live(bundle) as page:
        assert {page.get(path)[0].status for path in ("/docs", "/openapi.json", "/etc/passwd", "/page.html")} == {404}


def test_without_a_token_only_the_names_of_this_machine_are_answered_to(bundle):
    with live(bundle) as page:
        assert page.get("/state", Host="rebound.example")[0].status == 400
        assert page.get("/state", Host="localhost:8080")[0].status == 200


def test_a_host_that_others_can_reach_gets_a_token_and_this_machine_needs_none(make_spec):
    view = LiveView(ABOUT, make_spec(), make_spec("clean"))
    with LiveServer(view, "0.0.0.0", 0) as server:
        assert len(server.token) >= 32
        assert server.token not in server.address
    for host in ("127.0.0.1", "localhost", "127.0.0.2"):
        with LiveServer(view, host, 0) as server:
            assert server.token is None


def test_connections_are_bounded_and_one_that_asks_nothing_is_closed(make_spec, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    monkeypatch.setattr(server, "PATIENCE_S", 1.0)
    view = LiveView(ABOUT, make_spec(), make_spec("clean"))
    with LiveServer(view, "127.0.0.1", 0) as serving:
        idle = [socket.create_connection(("127.0.0.1", serving.port), 10) for _ in range(4)]
        start = time.monotonic()
        assert idle[3].recv(1) == b""
        assert time.monotonic() - start < 0.9
        assert [one.recv(1) for one in idle[:3]] == [b""] * 3
        connection = HTTPConnection("127.0.0.1", serving.port, timeout=10)
        connection.request("GET", "/state")
        assert connection.getresponse().status == 200
        connection.close()
        for one in idle:
            one.close()
        half = socket.create_connection(("127.0.0.1", serving.port), 10)
        half.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"Not Found" not in answer.partition(b"\r\n\r\n")[2]:
            answer += half.recv(4096)
        assert answer.startswith(b"HTTP/1.1 404")
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        half.settimeout(3)
        assert half.recv(4096) == b""
        half.close()


def test_a_taken_port_and_a_short_token_are_told_in_one_line(make_spec):
    view = LiveView(ABOUT, make_spec(), make_spec("clean"))
    with LiveServer(view, "127.0.0.1", 0) as server:
        told = rf"127\.0\.0\.1, port {server.port}: cannot listen there: Address already in use: give another --host"
        with pytest.raises(OSError, match=told):
            LiveServer(view, "127.0.0.1", server.port)
    with pytest.raises(ValueError, match=r"--token or DERAIN_TOKEN.* has 3 characters, expected at least 8"):
        LiveServer(view, "127.0.0.1", 0, "abc")


def test_a_browser_that_reads_nothing_slows_no_frame(bundle, wait_until):
    with live(bundle, source="test://rain?live=1&fps=40&frames=40") as page:
        idle = HTTPConnection(urlsplit(page.server.address).netloc, timeout=10)
        for _ in range(3):
            idle.request("GET", "/pair")
            idle.sock.setblocking(False)
            idle = HTTPConnection(urlsplit(page.server.address).netloc, timeout=10)
        wait_until(lambda: page.report)
    assert page.report.frames == 40
    assert page.report.passed_through == 0


def test_a_browser_that_reads_no_more_is_let_go_at_the_end_without_a_traceback(make_spec, caplog):
    spec = make_spec(width=1280, height=960)
    view = LiveView(ABOUT, spec, spec)
    picture = np.random.default_rng(0).integers(0, 256, spec.image_shape, np.uint8)
    with LiveServer(view, "127.0.0.1", 0) as serving:
        view.on_frame(FrameRecord(0, 0, 0, 0, 0, 0, Outcome.DERAINED), Frame(0, 0, picture, 0), picture)
        idle = socket.create_connection(("127.0.0.1", serving.port), 10)
        idle.sendall(b"GET /pair HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        assert idle.recv(1) == b"H"
        time.sleep(0.5)
        start = time.monotonic()
    assert time.monotonic() - start < server.PATIENCE_S
    idle.close()
    assert caplog.text == ""


# In a real browser.


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'derain[dev]'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a page that fails the test for any error in its script, and for what its own security policy refuses."""
    contexts, errors = [], []

    def open_(url, **options):
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Security Policy" in line.text else None)
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []


def picture(page):
    """The viewer without what lies over it, as the browser paints it."""
    hide = "#handle, .tag { visibility: hidden }"
    shot = page.locator("#viewer").screenshot(style=hide)
    return decoded(shot).astype(int)


def count(page, name):
    return int(page.locator(f"dd[data-count='{name}']").inner_text().replace(",", ""))


def wait_for_count(page, name, least):
    page.wait_for_function(
        "([name, least]) => parseInt(document.querySelector(`dd[data-count='${name}']`)?.textContent) >= least",
        arg=[name, least],
    )


def test_moving_the_slider_turns_the_derained_picture_into_the_camera_s(bundle, open_page, folder):
    with live(bundle, source=f"frames://{folder}") as shown:  # it ends: its last frame stays on the page
        page = open_page(shown.server.address)
        page.wait_for_selector("#viewer[data-frame='9']")
        half = picture(page)
        slider = page.locator("#split")
        box = slider.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        clean = picture(page)
        slider.press("End")
        raw = picture(page)
    middle = half.shape[1] // 2
    assert np.abs(clean - raw).mean() > 40
    assert np.abs(half[:, : middle - 4] - raw[:, : middle - 4]).mean() < 1
    assert np.abs(half[:, middle + 4 :] - clean[:, middle + 4 :]).mean() < 1
    assert np.abs(255 - raw - clean).mean() < 25  # the engine inverts


def test_the_counters_move_and_the_plots_fill(bundle, open_page):
    with live(bundle) as shown:
        page = open_page(shown.server.address)
        page.wait_for_selector("#viewer[data-frame]")
        first, picture = count(page, "derained"), page.locator("#viewer").get_attribute("data-frame")
        wait_for_count(page, "derained", first + 20)
        page.wait_for_selector(f"#viewer:not([data-frame='{picture}'])")
        assert page.locator("#guard").get_attribute("data-state") == "deraining"
        assert len(page.locator("#histogram .bars").get_attribute("d")) > 10
        assert "median" in page.locator("#histogram-mark").inner_text()
        assert "invert · 32×16 bgr8 · scripted fp32 · policy latest" in page.locator("#about").inner_text()


class Armed(dict):
    """A script of one fault, at the next frame once it is armed."""

    armed = False

    def get(self, number, default=None):
        armed, self.armed = self.armed, False
        return Fault.RAISE if armed else default


def test_a_fault_of_the_engine_shows_as_the_guard_s_state_a_raw_frame_and_a_count_and_passes(bundle, open_page):
    script = Armed()
    with live(bundle, script=script, refusals=4) as shown:  # away for some seconds
        page = open_page(shown.server.address)
        page.wait_for_selector("#guard[data-state='deraining']")
        script.armed = True
        page.wait_for_selector("#guard.warn[data-state='backing off']")
        page.wait_for_selector("#tag-after.raw")
        assert "raw frames go out" in page.locator("#meaning").inner_text()
        assert (
            "FileNotFoundError" in page.locator("#fault").inner_text()
            or "illegal" in page.locator("#fault").inner_text()
        )
        page.wait_for_selector("#guard.good[data-state='deraining']")
        page.wait_for_selector("#tag-after:not(.raw)")
        wait_for_count(page, "engine faults", 5)
        assert count(page, "engine reopened") == 1
        assert count(page, "passed through raw") > 10
        assert count(page, "the engine failed on it") == 1


def test_a_camera_that_is_gone_and_a_stream_that_ended_are_told(bundle, open_page):
    source = "test://rain?live=1&fps=40&frames=1000000&unplug=20&outage=600"
    with live(bundle, source=source) as shown:
        page = open_page(shown.server.address)
        page.get_by_text("camera lost (test://").wait_for()
    page.get_by_text("not connected").wait_for()
    assert page.locator("#guard").get_attribute("data-state") == "no connection"


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 800, "light"), (1280, 800, "dark"), (390, 844, "dark")])
def test_the_page_fits_its_window_and_asks_nobody_else_for_anything(width, height, scheme, bundle, open_page):
    with live(bundle, token=TOKEN) as shown:
        viewport = {"width": width, "height": height}
        page = open_page("about:blank", viewport=viewport, color_scheme=scheme)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{shown.server.address}?token={TOKEN}")
        wait_for_count(page, "frames", 5)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(background.removeprefix("rgb(").partition(",")[0]) < 60) == (scheme == "dark")
    assert {url.partition("/")[2].partition("/")[2].partition("/")[0] for url in asked} == {
        urlsplit(shown.server.address).netloc
    }
    assert [url for url in asked if TOKEN in url] == [f"{shown.server.address}?token={TOKEN}"]
