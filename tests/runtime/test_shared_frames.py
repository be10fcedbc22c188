import secrets
import subprocess
import sys
import threading
import time
from contextlib import closing

import numpy as np
import pytest

from derain.runtime import shared_frames
from derain.runtime.shared_frames import COUNT, SLOTS, SLOTS_AT, WORD, SharedFrames
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source


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


def test_a_reader_gets_the_newest_frame_with_its_number_and_capture_time(ring, noise):
    writer, reader = ring
    assert reader.newest() is None
    for number, image in enumerate(noise):
        writer.publish(image, 1000 + number)
        seen, captured_ns, copy = reader.newest()
        assert (seen, captured_ns) == (number, 1000 + number)
        np.testing.assert_array_equal(copy, image)


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
from derain.runtime.bundle import FrameSpec
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
