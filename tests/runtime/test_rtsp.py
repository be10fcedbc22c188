"""`rtsp://` against a real server: GStreamer's, from Debian."""

import threading
import time

import pytest

from derain.runtime import pipeline
from derain.runtime.bundle import Bundle
from derain.runtime.records import Outcome
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source
from derain.runtime.testing import Calls, ScriptedEngine

WIDTH, HEIGHT = 160, 96


@pytest.fixture
def sized(bundle, make_spec):
    """A bundle of the server's size, for an engine that needs no file."""
    frame, clean = (make_spec(name, width=WIDTH, height=HEIGHT) for name in ("frame", "clean"))
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"input": frame, "output": clean}))


def test_a_stream_that_is_killed_and_restarted_comes_back_and_is_derained_again(serve, port, sized):
    process = serve(WIDTH, HEIGHT)
    stop, restarted, states, records = threading.Event(), [], [], []
    end = time.monotonic() + 60

    def on_frame(record, frame, shown):
        records.append(record)
        if len(records) == 30:
            process.kill()
        if restarted and record.captured_ns > restarted[0] and len(records) > 60:
            stop.set()

    def on_status(status):
        states.append(status.source)
        if process.poll() is not None and not restarted and status.source != "open":
            serve(WIDTH, HEIGHT)
            restarted.append(time.monotonic_ns())
        if time.monotonic() > end:
            stop.set()

    uri = f"rtsp://me:hunter2@127.0.0.1:{port}/test"
    with open_source(uri, sized.manifest.input) as source, ScriptedEngine(sized) as engine:
        sink = open_sink("null://", sized.manifest.output)
        report = pipeline.run(engine, source, sink, [Calls(on_frame=on_frame, on_status=on_status)], stop=stop)
    assert restarted, "the loss of the stream was not noticed within a minute"
    assert report.source_faults >= 1
    assert records[-1].captured_ns > restarted[0], "the stream did not come back within a minute"
    assert records[-1].outcome is Outcome.DERAINED
    assert [record.id for record in records] == sorted({record.id for record in records})
    assert any(state.startswith("lost") for state in states)
    assert states[-1] == "open"
    assert "hunter2" not in "".join(states) + report.model_dump_json()
