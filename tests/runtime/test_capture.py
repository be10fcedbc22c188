"""The reader of a source on its thread: stalls, losses and reopenings."""

import threading

import numpy as np
import pytest

from derain.runtime import capture as capture_module
from derain.runtime.capture import Capture
from derain.runtime.queues import DEPTH, FrameQueue, Policy
from derain.runtime.sources import Source


class Camera(Source):
    """Gives `images`, and hangs at a None until `go_on` is set; `reopened` gives `successor`."""

    def __init__(self, spec, images, successor=None):
        super().__init__("camera", spec)
        self.live, self.images, self.successor = True, images, successor
        self.hangs, self.go_on, self.released = threading.Event(), threading.Event(), threading.Event()

    def _images(self):
        for image in self.images:
            if image is None:
                self.hangs.set()
                assert self.go_on.wait(20)
            else:
                yield image

    def reopened(self):
        return self.successor

    def _close(self):
        self.released.set()


class Ring(Camera):
    """Reads as those do that end only when they are closed: it waits for a frame that never comes."""

    def _images(self):
        yield from self.images
        self.hangs.set()
        while not self._closed:
            threading.Event().wait(0.001)


def grey(level, spec):
    return np.full(spec.image_shape, level, np.uint8)


def taken(queue, count):
    """The first pixels of the next `count` frames."""
    levels = []
    for _ in range(100_000):
        if (frame := queue.take()) is not None:
            levels.append((frame.id, int(frame.image.flat[0])))
            if len(levels) == count:
                return levels
        threading.Event().wait(0.001)
    raise AssertionError(f"only {levels} came")


def test_what_a_stalled_reader_delivers_after_all_is_ignored_and_its_source_released(make_spec):
    spec = make_spec()
    back = Camera(spec, [grey(2, spec), grey(3, spec), None])
    camera = Camera(spec, [grey(1, spec), None, grey(99, spec)], back)
    queue = FrameQueue(Policy.EVERY)
    with Capture(camera, queue) as capture:
        assert taken(queue, 1) == [(0, 1)]
        assert camera.hangs.wait(20)
        capture.watch(capture._heard_ns + 10**12)
        assert "no frame for 1000.0 s" in capture.state
        assert taken(queue, 2) == [(1, 2), (2, 3)]
        assert back.hangs.wait(20)
        assert capture.state == "open"
        camera.go_on.set()
        assert camera.released.wait(20)
        assert queue.take() is None
        assert (capture.faults, capture.error) == (1, None)
        back.go_on.set()


def test_a_stalled_source_is_closed_so_that_its_reader_and_its_device_are_free(make_spec):
    spec = make_spec()
    back = Camera(spec, [grey(2, spec), None])
    rings = [Ring(spec, [grey(1, spec)]), Ring(spec, [grey(1, spec)])]
    rings[0].reopened = iter([rings[1], back]).__next__  # the first of all is asked each time
    queue = FrameQueue(Policy.EVERY)
    with Capture(rings[0], queue) as capture:
        for ring in rings:
            assert taken(queue, 1)[0][1] == 1
            assert ring.hangs.wait(20)
            capture.watch(capture._heard_ns + 10**12)
            assert ring.released.wait(20)
        assert taken(queue, 1) == [(2, 2)]
        assert (capture.faults, capture.error) == (2, None)
        back.go_on.set()


@pytest.mark.parametrize("error", [OSError("no such camera"), RuntimeError("a driver's own"), MemoryError()])
def test_whatever_a_reopening_raises_the_next_one_is_tried(error, make_spec):
    spec = make_spec()
    back = Camera(spec, [grey(2, spec), None])
    camera = Ring(spec, [grey(1, spec)])
    attempts = iter([error, back])

    def reopened():
        answer = next(attempts)
        if isinstance(answer, Exception):
            raise answer
        return answer

    camera.reopened = reopened
    queue = FrameQueue(Policy.EVERY)
    with Capture(camera, queue) as capture:
        assert taken(queue, 1) == [(0, 1)]
        assert camera.hangs.wait(20)
        capture.watch(capture._heard_ns + 10**12)
        assert taken(queue, 1) == [(1, 2)]
        assert f"not back: {error or type(error).__name__}" in capture.fault
        back.go_on.set()


def test_a_run_that_ends_while_a_reopened_source_is_silent_closes_it(make_spec, monkeypatch):
    monkeypatch.setattr(capture_module, "PATIENCE_S", 0.01)
    spec = make_spec()
    back = Ring(spec, [])
    camera = Ring(spec, [grey(1, spec)], back)
    queue = FrameQueue(Policy.EVERY)
    with Capture(camera, queue) as capture:
        assert taken(queue, 1) == [(0, 1)]
        assert camera.hangs.wait(20)
        capture.watch(capture._heard_ns + 10**12)
        assert back.hangs.wait(20)
    assert back.released.wait(20)


def test_a_source_that_comes_back_after_the_end_is_closed_unread(make_spec, monkeypatch):
    monkeypatch.setattr(capture_module, "PATIENCE_S", 0.01)
    spec = make_spec()
    back, opening, go_on = Ring(spec, []), threading.Event(), threading.Event()
    camera = Ring(spec, [grey(1, spec)])

    def reopened():
        opening.set()
        assert go_on.wait(20)
        return back

    camera.reopened = reopened
    queue = FrameQueue(Policy.EVERY)
    with Capture(camera, queue) as capture:
        assert taken(queue, 1) == [(0, 1)]
        assert camera.hangs.wait(20)
        capture.watch(capture._heard_ns + 10**12)
        assert opening.wait(20)
    go_on.set()
    assert back.released.wait(20)
    assert not back.hangs.is_set()


def test_a_camera_that_ended_is_not_lost_while_the_engine_is_at_its_last_frames(make_spec):
    spec = make_spec()
    queue = FrameQueue(Policy.EVERY)
    with Capture(Camera(spec, [grey(1, spec)]), queue) as capture:
        while not capture._ended:
            threading.Event().wait(0.001)
        capture.watch(capture._heard_ns + 10**12)
        assert (capture.faults, capture.state) == (0, "open")


def test_frames_that_come_slowly_are_waited_for(make_spec):
    camera = Camera(make_spec(), [grey(1, make_spec()), None])
    for fps, lost_after_s in ((None, 2), (25, 2), (0.5, 8), (0.001, 60)):
        camera.fps = fps
        capture = Capture(camera, FrameQueue(Policy.EVERY))
        assert capture._stall_ns == lost_after_s * 10**9


def test_a_frame_that_waits_for_room_is_not_the_cameras_silence(make_spec):
    spec, now_s = make_spec(), 0
    camera = Camera(spec, [grey(level, spec) for level in range(DEPTH[Policy.EVERY] + 1)] + [None])
    queue = FrameQueue(Policy.EVERY)
    with Capture(camera, queue, clock=lambda: now_s * 10**9) as capture:
        while capture._count <= DEPTH[Policy.EVERY]:
            threading.Event().wait(0.001)
        now_s = 1000
        capture.watch(now_s * 10**9)  # the engine has been busy ever since
        assert capture.faults == 0
        taken(queue, DEPTH[Policy.EVERY] + 1)
        assert camera.hangs.wait(20)
        capture.watch((now_s + 1) * 10**9)
        assert capture.faults == 0
        capture.watch((now_s + 3) * 10**9)
        assert capture.faults == 1
        camera.go_on.set()


def test_a_source_closed_during_a_read_is_released_by_the_reader_when_the_read_returns(make_spec):
    spec = make_spec()
    camera = Camera(spec, [None])
    reader = threading.Thread(target=lambda: list(camera))
    reader.start()
    assert camera.hangs.wait(20)
    camera.close()
    assert not camera.released.is_set()
    camera.go_on.set()
    reader.join(20)
    assert camera.released.is_set()


def test_a_camera_that_is_opened_again_has_as_long_for_its_first_frame_as_at_the_start(make_spec):
    spec, now_s = make_spec(), 0
    back = Camera(spec, [None, grey(2, spec), None])
    camera = Camera(spec, [grey(1, spec), None], back)
    queue = FrameQueue(Policy.EVERY)
    with Capture(camera, queue, clock=lambda: now_s * 10**9) as capture:
        assert taken(queue, 1) == [(0, 1)] and camera.hangs.wait(20)
        capture.watch(3 * 10**9)
        assert capture.faults == 1
        assert back.hangs.wait(20)
        capture.watch(5 * 10**9 - 1)
        assert capture.faults == 1
        back.go_on.set()
        assert taken(queue, 1) == [(1, 2)]
        camera.go_on.set()


@pytest.mark.parametrize(("fps", "expected_s"), [(None, 5), (0.4, 10)])
def test_a_camera_that_never_delivered_is_told_of_once_and_waited_for(fps, expected_s, make_spec, caplog):
    spec = make_spec()
    camera = Camera(spec, [None, grey(1, spec), None])
    camera.fps = fps
    queue = FrameQueue(Policy.LATEST)
    with Capture(camera, queue, clock=lambda: 0) as capture:
        assert camera.hangs.wait(20)
        capture.watch(expected_s * 10**9 - 1)
        assert caplog.messages == []
        capture.watch(expected_s * 10**9)
        capture.watch(10**12)
        assert caplog.messages == [
            f"camera: open, but no frame for {expected_s}.0 s, expected one within {expected_s}.0 s: is the camera, or "
            "what writes its frames, at work?"
        ]
        assert capture.faults == 0
        camera.go_on.set()
        assert taken(queue, 1) == [(0, 1)]
