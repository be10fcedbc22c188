"""JSON lines and Prometheus beside a running pipeline."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from derain.runtime import pipeline, telemetry
from derain.runtime.background import Background
from derain.runtime.guard import State
from derain.runtime.metrics import Metrics
from derain.runtime.records import Status
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source
from derain.runtime.telemetry import JsonLines
from derain.runtime.testing import Fault, ScriptedEngine

STATUS = Status(12, 1, 2, 29.97, 10.04, 20.06, 33.4, "deraining", "open")


def run(bundle, observer, source="test://rain?live=1&frames=30&fps=60", script=None, **options):
    """A run that `observer` watches."""
    manifest = bundle.manifest
    with (
        open_source(source, manifest.input) as frames,
        ScriptedEngine(bundle, script) as engine,
        open_sink("null://", manifest.output) as sink,
    ):
        return pipeline.run(engine, frames, sink, [observer], **options)


def scrape(metrics):
    """Samples by name and label value."""
    with urllib.request.urlopen(metrics.address, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_the_last_line_tells_what_the_report_tells(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(telemetry, "EVERY_S", 0.1)
    with JsonLines(tmp_path / "run.jsonl") as lines:
        report = run(bundle, lines, script={10: Fault.RAISE})
    told = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert len(told) >= 4
    assert [line["time"] for line in told] == sorted(line["time"] for line in told)
    last = told[-1]
    assert last["time"].endswith("+00:00")
    for key in ("frames", "dropped", "passed_through", "engine_faults", "engine_reopened", "engine_fault", "why"):
        assert last[key] == getattr(report, key)
    assert last["engine_faults"] == 1


def test_a_pipe_that_nobody_reads_keeps_no_stream_from_its_start_and_one_that_is_read_gets_its_lines(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    alarm = threading.Timer(10, lambda: pipe.open("rb").close())  # what hangs goes on, and fails
    alarm.start()
    with pytest.raises(OSError, match="pipe: a pipe that nobody reads: start its reader first"):
        JsonLines(pipe)
    alarm.cancel()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with JsonLines(pipe) as lines:
        lines.on_status(STATUS)
    assert json.loads(os.read(reader, 10_000).splitlines()[0])["frames"] == 12
    os.close(reader)


def test_there_is_a_line_a_second_whatever_the_rate_and_one_at_the_end(tmp_path):
    now = itertools.count(step=10**8)  # as a run tells its status
    path = tmp_path / "run.jsonl"
    path.write_text("{}\n")
    with JsonLines(path, clock=lambda: next(now)) as lines:
        for _ in range(100):
            lines.on_status(STATUS)
    assert 6 <= len(path.read_text().splitlines()) <= 12  # what was there stays


def test_a_full_disk_loses_lines_and_not_the_run(bundle, caplog):
    with JsonLines(telemetry.Path("/dev/full")) as lines:
        assert run(bundle, lines).presented > 0
    assert lines.lost == 2
    assert caplog.text.count("/dev/full: telemetry lost: No space left on device") == 1


def test_a_line_that_a_full_disk_cuts_is_taken_back_and_counted(tmp_path):
    code = f"""
import resource
from pathlib import Path
from derain.runtime.records import Status
from derain.runtime.telemetry import JsonLines
path = Path({str(tmp_path / "run.jsonl")!r})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with JsonLines(path, clock=iter(range(0, 10**12, 10**10)).__next__) as lines:
    def write(at_most):
        resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, hard))
        lines._write(lines_time, {STATUS!r})
    from datetime import UTC, datetime
    lines_time = datetime.now(UTC)
    write(10**6), write(path.stat().st_size + 100), write(10**6)
assert lines.lost == 1, lines.lost
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frames"] for line in (tmp_path / "run.jsonl").read_text().splitlines()] == [12, 12]


def test_a_thread_that_is_behind_refuses_work_and_never_waits():
    go_on, done = threading.Event(), []
    background = Background("test", 2)
    background.submit(lambda: go_on.wait(20))
    accepted = [background.submit(lambda: done.append(None)) for _ in range(10)]
    assert sum(accepted) in (1, 2)
    assert not background.close(0.01)
    go_on.set()
    assert background.close(20)
    assert len(done) == sum(accepted)


def test_a_thread_of_a_process_that_is_nicer_yet_stays_as_it_is():
    code = """
import os
from derain.runtime.background import Background
niceness, seen = os.nice(15), []
background = Background("test", 2)
background.submit(lambda: seen.append(os.getpriority(os.PRIO_PROCESS, 0)))
assert background.close(20)
assert seen == [niceness], seen
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_prometheus_reads_what_the_report_tells(bundle):
    with Metrics("127.0.0.1:0") as metrics:
        report = run(bundle, metrics, script={10: Fault.RAISE})
        told = scrape(metrics)
    derained = report.presented - report.passed_through
    assert told["derain_frames_total", "derained"] == derained
    assert told["derain_frames_total", "passed_through"] == report.passed_through > 0
    assert told["derain_frames_total", "dropped"] == report.dropped
    assert told["derain_not_derained_total", "the engine failed on it"] == 1
    assert told["derain_latency_seconds_count", "capture_to_present"] == report.presented
    assert told["derain_latency_seconds_count", "inference"] == derained + 1  # the one that failed took its time too
    assert told["derain_engine_faults_total",] == told["derain_engine_reopened_total",] == 1
    assert told["derain_source_up",] == 1
    assert {state: told["derain_guard_state", state] for state in State} == {
        state: float(state is State.DERAINING) for state in State
    }
    assert told["derain_frame_age_seconds",] < 10


def test_an_inference_that_came_too_late_counts_in_the_histogram():
    with Metrics("127.0.0.1:0") as metrics:
        metrics.on_unused(0, 300_000_000)
        told = scrape(metrics)
    assert told["derain_latency_seconds_count", "inference"] == 1
    assert told["derain_latency_seconds_sum", "inference"] == 0.3


def test_the_guard_s_state_and_a_lost_camera_are_there_while_they_last():
    with Metrics(":0") as metrics:
        assert metrics.address.startswith("http://127.0.0.1:")
        metrics.on_status(Status(9, 0, 9, 1, 1, 1, 1, "backing off", "lost (unplugged)", 3, 1, "x", 2))
        told = scrape(metrics)
    assert told["derain_guard_state", "backing off"] == 1
    assert (told["derain_source_up",], told["derain_source_faults_total",]) == (0, 2)


@pytest.mark.parametrize(
    "asked",
    [b"GET http://[ HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nAccept: application/openmetrics-text;version=new\r\n\r\n"],
)
def test_a_client_that_asks_for_nonsense_is_told_of_in_one_line(asked, capfd, caplog):
    with Metrics("127.0.0.1:0") as metrics:
        host, port = metrics.address.removeprefix("http://").removesuffix("/metrics").split(":")
        with socket.create_connection((host, int(port)), 10) as client:
            client.sendall(asked)
            assert client.recv(100) == b""
    (message,) = caplog.messages
    assert message.startswith("client 127.0.0.1 gets no answer: ")
    assert "Traceback" not in capfd.readouterr().err


def test_an_address_that_is_none_or_taken_is_told():
    with Metrics("127.0.0.1:0") as metrics:
        taken = metrics.address.removeprefix("http://").removesuffix("/metrics")
        with pytest.raises(OSError, match=f"--metrics {taken}: cannot listen there: Address already in use: give"):
            Metrics(taken)
    with pytest.raises(ValueError, match=r"--metrics localhost:http: port 'http', expected 0 to 65535, as in 127"):
        Metrics("localhost:http")
    with pytest.raises(OSError, match=r"--metrics 192\.0\.2\.1:0: cannot listen there"):
        Metrics("192.0.2.1:0")
