"""Rings of frames in shared memory, between threads and processes."""

import os
import secrets
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from derain.runtime import shared_frames
from derain.runtime.capture import Capture
from derain.runtime.pipeline import run
from derain.runtime.queues import FrameQueue, Policy
from derain.runtime.shared_frames import COUNT, LOCKED, RATE, SLOTS, SLOTS_AT, WORD, SharedFrames
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source
from derain.runtime.testing import Calls, ScriptedEngine


@pytest.fixture
def name():
    name = f"derain-test-{secrets.token_hex(4)}"
    yield name
    (shared_frames.FOLDER / name).unlink(missing_ok=True)


@pytest.fixture
def ring(name, make_spec):
    writer, reader = SharedFrames.create(name, make_spec()), SharedFrames.attach(name, make_spec())
    yield writer, reader
    writer.close()
    reader.close()


def test_a_reader_gets_the_newest_frame_with_its_number_and_capture_time_and_whether_it_is_raw(ring, noise):
    writer, reader = ring
    assert reader.newest() is None
    for number, image in enumerate(noise):
        writer.publish(image, 1000 + number, raw=number % 3 == 1)
        newest = reader.newest()
        assert (newest.number, newest.captured_ns, newest.raw) == (number, 1000 + number, number % 3 == 1)
        np.testing.assert_array_equal(newest.image, image)


def test_a_reader_cannot_write_and_follows_no_link(ring, name, make_spec):
    with pytest.raises(TypeError, match="read"):
        ring[1].publish(np.zeros(make_spec().image_shape, np.uint8), 0)
    link = shared_frames.FOLDER / f"{name}-link"
    link.symlink_to(shared_frames.FOLDER / name)
    try:
        with pytest.raises(OSError, match="symbolic link"):
            SharedFrames.attach(link.name, make_spec())
    finally:
        link.unlink()


def test_a_source_has_the_rate_that_its_writer_told(ring, name, make_spec):
    def rate() -> float | None:
        with closing(open_source(f"shm://{name}", make_spec())) as source:
            return source.fps

    assert rate() is None
    for told, seen in ((29_970, 29.97), (240_001, None)):
        WORD.pack_into(ring[0]._memory, RATE, told)
        assert rate() == seen


def test_a_camera_s_rate_goes_with_its_frames_through_a_ring(name, make_spec):
    with (
        open_sink(f"shm://{name}", make_spec(), fps=50, live=True),
        closing(open_source(f"shm://{name}", make_spec())) as source,
    ):
        assert source.fps == 50


def test_a_frame_that_is_being_overwritten_is_not_given_out(ring, noise):
    writer, reader = ring
    for image in noise[:SLOTS]:
        writer.publish(image, 0)
    slot = SLOTS_AT + (SLOTS - 1) * writer._slot
    for sequence in (2 * SLOTS - 1, 2 * SLOTS + 1, 4 * SLOTS):  # being written, being written over, written over
        WORD.pack_into(writer._memory, slot, sequence)
        assert reader.newest() is None
    WORD.pack_into(writer._memory, slot, 2 * SLOTS)
    assert reader.newest()[0] == SLOTS - 1


def test_no_reader_ever_sees_a_torn_frame_while_the_writer_races(ring, make_spec):
    writer, reader = ring
    stop = threading.Event()

    def write():
        level = 0
        while not stop.is_set():
            level += 1
            writer.publish(np.full(make_spec().image_shape, level % 256, np.uint8), level)

    thread = threading.Thread(target=write)
    thread.start()
    seen, end = 0, time.monotonic() + 1
    while time.monotonic() < end:
        newest = reader.newest()
        if newest is not None:
            assert np.ptp(newest[2]) == 0
            assert newest[2].flat[0] == newest[1] % 256
            seen += 1
    stop.set()
    thread.join()
    assert seen > 0


def test_another_process_writes_and_the_source_reads_until_it_closes(name, make_spec):
    code = f"""
import time, numpy as np
from derain.runtime.manifest import FrameSpec
from derain.runtime.sinks import open_sink
spec = FrameSpec(tensor="clean", width=32, height=16)
with open_sink("shm://{name}", spec) as sink:
    for number in range(1000):
        sink.write(np.full(spec.image_shape, number % 256, np.uint8))
        time.sleep(0.01)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            source = opened(f"shm://{name}", make_spec())
            levels, ages = [], []
            for frame in source:
                levels.append(int(frame.image.flat[0]))
                ages.append(time.monotonic_ns() - frame.captured_ns)
                if len(levels) == 10:
                    break
            process.terminate()
            source.close()
        finally:
            process.kill()
    assert len(set(levels)) == 10
    assert min(ages) >= 0
    assert np.median(ages) < 0.5e9


def opened(uri, spec):
    """The source, once its writer is there."""
    end = time.monotonic() + 20
    while True:
        try:
            return open_source(uri, spec)
        except OSError:
            assert time.monotonic() < end, "the writer never came"
            time.sleep(0.02)


def test_a_sink_removes_its_ring_and_its_readers_are_told(name, make_spec, noise):
    with open_sink(f"shm://{name}", make_spec("clean")) as sink:
        source = open_source(f"shm://{name}", make_spec())
        assert source.live
        sink.write(noise[0])
        frames = iter(source)
        np.testing.assert_array_equal(next(frames).image, noise[0])
    assert not (shared_frames.FOLDER / name).exists()
    with pytest.raises(OSError, match=f"shm://{name}: its writer has closed it"):
        next(frames)
    source.close()


def test_a_frame_keeps_its_capture_time_on_its_way_through_a_pipeline_into_a_ring(name, bundle):
    captured_ns, read_ns = [], []
    manifest = bundle.manifest
    with (
        open_source("test://rain?frames=3", manifest.input) as source,
        ScriptedEngine(bundle) as engine,
        open_sink(f"shm://{name}", manifest.output) as sink,
        closing(SharedFrames.attach(name, manifest.output)) as reader,
    ):

        def on_frame(record, frame, image):
            captured_ns.append(record.captured_ns)
            read_ns.append(reader.newest()[1])

        run(engine, source, sink, [Calls(on_frame=on_frame)])
        before_ns = time.monotonic_ns()
        sink.write(np.zeros(manifest.output.image_shape, np.uint8))  # by somebody who knows of no camera
        assert before_ns <= reader.newest()[1] <= time.monotonic_ns()
    assert len(captured_ns) == 3
    assert read_ns == captured_ns


def test_a_source_leaves_what_was_written_before_it_came(ring, name, make_spec, noise):
    writer, _ = ring
    writer.publish(noise[0], 7)
    with closing(open_source(f"shm://{name}", make_spec())) as source:
        frames = iter(source)
        threading.Timer(0.2, writer.publish, (noise[1], 8)).start()
        np.testing.assert_array_equal(next(frames).image, noise[1])


def test_a_source_that_is_closed_stops_waiting(ring, name, make_spec):
    source = open_source(f"shm://{name}", make_spec())
    threading.Timer(0.2, source.close).start()
    start = time.monotonic()
    assert list(source) == []
    assert time.monotonic() - start < 5


def test_a_ring_is_reopened_once_a_new_frame_is_in_it(ring, name, make_spec, noise, monkeypatch):
    writer, _ = ring
    writer.publish(noise[0], 7)
    with closing(open_source(f"shm://{name}", make_spec())) as source:
        handles = len(list(Path("/proc/self/fd").iterdir()))
        start = time.monotonic()
        with pytest.raises(OSError, match=f"shm://{name}: no frame for 1 s: is its writer still running"):
            source.reopened()
        assert 1 <= time.monotonic() - start < 5
        assert len(list(Path("/proc/self/fd").iterdir())) == handles
        threading.Timer(0.2, writer.publish, (noise[1], 8)).start()
        with closing(source.reopened()) as again:
            assert again.uri == source.uri
            np.testing.assert_array_equal(next(iter(again)).image, noise[1])


def test_a_writer_that_pauses_is_one_loss_and_leaves_no_reader_behind(ring, name, make_spec, noise):
    writer, _ = ring
    queue = FrameQueue(Policy.EVERY)
    with closing(open_source(f"shm://{name}", make_spec())) as source, Capture(source, queue, 0.5) as capture:

        def frame_after(image):
            end = time.monotonic() + 20
            while time.monotonic() < end:
                writer.publish(image, 7)
                capture.watch(time.monotonic_ns())
                if (frame := queue.take()) is not None:
                    return frame
                time.sleep(0.01)
            raise AssertionError("no frame came")

        frame_after(noise[0])
        end = time.monotonic() + 3
        while time.monotonic() < end:
            capture.watch(time.monotonic_ns())
            assert capture.faults == 0 or capture.state.startswith("lost (no frame for ")
            time.sleep(0.01)
        assert capture.faults == 1
        assert sum(thread.name == "derain-capture" for thread in threading.enumerate()) == 1
        while not np.array_equal(frame_after(noise[1]).image, noise[1]):
            pass
        assert capture.faults == 1


def test_what_cannot_be_a_ring_is_refused(name, make_spec):
    with pytest.raises(FileNotFoundError, match="no such shared memory: start the program that writes it first"):
        open_source(f"shm://{name}", make_spec())
    with pytest.raises(ValueError, match="expected a name without slashes"):
        open_source("shm://a/b", make_spec())
    (shared_frames.FOLDER / name).write_bytes(b"x")
    with pytest.raises(OSError, match="1 bytes, no frames yet"):
        open_source(f"shm://{name}", make_spec())
    (shared_frames.FOLDER / name).write_bytes(bytes(5000))  # sized, its header still to come
    with pytest.raises(OSError, match="5000 bytes, no frames yet: is its writer still starting"):
        open_source(f"shm://{name}", make_spec())
    (shared_frames.FOLDER / name).write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="holds something else"):
        open_source(f"shm://{name}", make_spec())
    with pytest.raises(FileExistsError, match="exists: another program writes to it, or died: `rm "):
        open_sink(f"shm://{name}", make_spec())


def test_a_ring_that_shared_memory_has_no_room_for_is_refused_before_its_first_frame(name, make_spec):
    room = os.statvfs(shared_frames.FOLDER)
    height = room.f_blocks * room.f_frsize // (3 * SLOTS * 65535) + 1
    if not 1 < height <= 65535:
        pytest.skip(f"{shared_frames.FOLDER} has no bound that a ring could go beyond")
    large = make_spec("clean", width=65535, height=height)
    size = SLOTS_AT + SLOTS * shared_frames._padded(3 * large.width * large.height)
    told = rf"{name}: {size} bytes of shared memory: No space left on device: give /dev/shm more \(docker: --shm-size\)"
    with pytest.raises(OSError, match=told):
        open_sink(f"shm://{name}", large)
    assert not (shared_frames.FOLDER / name).exists()


def test_a_ring_of_other_frames_names_both(ring, name, make_spec):
    with pytest.raises(ValueError, match=r"holds .* of 32x16 bgr8, expected .* of 64x16 nv12"):
        open_source(f"shm://{name}", make_spec(width=64, pixels="nv12"))


def test_the_count_of_frames_is_where_the_table_says(ring, noise):
    writer, _ = ring
    writer.publish(noise[0], 7)
    raw = writer.path.read_bytes()
    assert raw[:8] == b"DERAINSH"
    assert raw[24:32] == b"bgr8\0\0\0\0"
    assert WORD.unpack_from(raw, COUNT) == (1,)
    assert WORD.unpack_from(raw, SLOTS_AT) == (2,)
    assert WORD.unpack_from(raw, SLOTS_AT + 8) == (7,)
    assert raw[SLOTS_AT + 64 : SLOTS_AT + 64 + noise[0].nbytes] == noise[0].tobytes()


@pytest.mark.parametrize("ahead_ns", [300_000_000, 10**18, -11 * 10**9])
def test_a_time_of_another_clock_is_not_taken_for_a_frame_s(ring, name, make_spec, noise, ahead_ns):
    writer, _ = ring
    with open_source(f"shm://{name}", make_spec()) as source:
        before_ns = time.monotonic_ns()
        writer.publish(noise[0], max(before_ns + ahead_ns, 0))
        assert before_ns <= next(iter(source)).captured_ns <= time.monotonic_ns()


def test_a_writer_that_was_killed_can_be_started_again_and_one_that_lives_is_not_pushed_out(name, make_spec):
    code = f"""
import sys, time
from derain.runtime.manifest import FrameSpec
from derain.runtime.shared_frames import SharedFrames
ring = SharedFrames.create({name!r}, FrameSpec(tensor="frame", width=32, height=16))
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(FileExistsError, match="another program writes to it: stop it"):
            SharedFrames.create(name, make_spec())
        reader = SharedFrames.attach(name, make_spec())
        first.kill()
        first.wait()
    with pytest.raises(OSError, match="its writer died: start it again"):
        SharedFrames.attach(name, make_spec())
    with closing(SharedFrames.create(name, make_spec())), closing(reader):
        assert reader.closed
        with pytest.raises(FileExistsError, match="another program writes to it"):
            SharedFrames.create(name, make_spec())


@pytest.mark.parametrize("locked", [0, 1])
def test_a_ring_that_nobody_locks_gives_way_only_where_its_writer_would(locked, name, make_spec):
    with closing(SharedFrames.create(name, make_spec())) as writer:
        left = bytearray(writer.path.read_bytes())
    WORD.pack_into(left, LOCKED, locked)
    (shared_frames.FOLDER / name).write_bytes(left)
    if locked:
        SharedFrames.create(name, make_spec()).close()
    else:
        with pytest.raises(FileExistsError, match="another program writes to it, or died"):
            SharedFrames.create(name, make_spec())


def test_a_writer_that_ends_leaves_a_newer_ring_of_its_name(name, make_spec):
    older = SharedFrames.create(name, make_spec())
    older.path.unlink()
    with closing(SharedFrames.create(name, make_spec())) as newer:
        older.close()
        assert newer.path.exists()
    assert not newer.path.exists()
