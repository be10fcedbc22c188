"""A run's figures for Prometheus, at `http://HOST:PORT/metrics`."""

import os

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, MetricsHandler

from derain.runtime.address import host_and_port
from derain.runtime.frames import Frame, Image
from derain.runtime.guard import State
from derain.runtime.http_server import HttpServer
from derain.runtime.observers import Observer
from derain.runtime.records import FrameRecord, Outcome, Status, Why

HOST, PORT = "127.0.0.1", 9464

BUCKETS = (0.002, 0.005, 0.01, 0.0167, 0.025, 0.0333, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
"""Seconds: the periods of 60 and 30 frames/s are among them, since a latency is judged by those."""


class Metrics(Observer):
    """Serves its metrics until it is closed, on this machine alone unless the address names a host.

    `derain_frames_total{outcome=}`, `derain_not_derained_total{reason=}`, `derain_latency_seconds{stage=}` (a
    histogram, of inferences that came too late as well), `derain_guard_state`, `derain_engine_faults_total`,
    `derain_engine_reopened_total`, `derain_source_faults_total`, `derain_source_up` and `derain_frame_age_seconds`, of
    which the last is the newest presented frame's. None holds a URI. `address` is where they are; port 0 takes a free
    one. Raises ValueError for an address that is none, OSError where it cannot listen.
    """

    def __init__(self, address: str) -> None:
        registry = CollectorRegistry()
        frames = Counter("derain_frames", "Frames by what became of them", ["outcome"], registry=registry)
        reasons = Counter(
            "derain_not_derained", "Frames that were not derained, by reason", ["reason"], registry=registry
        )
        latency = Histogram("derain_latency_seconds", "Time in a stage", ["stage"], buckets=BUCKETS, registry=registry)
        self._outcomes = {outcome: frames.labels(outcome.replace(" ", "_")) for outcome in Outcome}
        self._why = {why: reasons.labels(why) for why in Why}
        self._stages = {
            stage: latency.labels(stage) for stage in ("wait", "inference", "present", "capture_to_present")
        }
        self._guard = Enum("derain_guard_state", "What the guard does", states=list(State), registry=registry)
        self._engine_faults = Counter("derain_engine_faults", "Faults of the engine", registry=registry)
        self._reopened = Counter("derain_engine_reopened", "Openings of the engine after a fault", registry=registry)
        self._source_faults = Counter("derain_source_faults", "Times the source was lost", registry=registry)
        self._source_up = Gauge("derain_source_up", "1 while the source is open", registry=registry)
        self._age = Gauge("derain_frame_age_seconds", "Age of the newest presented frame", registry=registry)
        self._told = (0, 0, 0)
        try:
            host, port = host_and_port(address, HOST, PORT)
        except ValueError as error:
            raise ValueError(f"--metrics {address}: {error}") from error
        try:
            self._server = HttpServer(host, port, MetricsHandler.factory(registry))
        except OSError as error:
            told = os.strerror(error.errno) if error.errno and error.errno > 0 else error
            raise OSError(f"--metrics {address}: cannot listen there: {told}: give another HOST:PORT") from error
        self.address = self._server.address + "/metrics"

    def on_frame(self, record: FrameRecord, frame: Frame, shown: Image) -> None:
        """Count a presented frame and its times."""
        self._count(record)
        captured, start, end, out = (
            record.captured_ns,
            record.inference_start_ns,
            record.inference_end_ns,
            record.presented_ns or record.captured_ns,
        )
        self._stages["capture_to_present"].observe((out - captured) / 1e9)
        if start is not None and end is not None:
            for stage, ns in (("wait", start - captured), ("inference", end - start), ("present", out - end)):
                self._stages[stage].observe(ns / 1e9)

    def on_drop(self, record: FrameRecord) -> None:
        """Count a frame that was not presented."""
        self._count(record)

    def on_unused(self, captured_ns: int, ns: int) -> None:
        """Count the time of an inference whose frame went out raw."""
        self._stages["inference"].observe(ns / 1e9)

    def on_status(self, status: Status) -> None:
        """Take the states and the faults."""
        self._guard.state(status.engine)
        self._source_up.set(status.source == "open")
        self._age.set(status.age_ms / 1e3)
        now = status.engine_faults, status.engine_reopened, status.source_faults
        counters = self._engine_faults, self._reopened, self._source_faults
        for counter, count, told in zip(counters, now, self._told, strict=True):
            counter.inc(count - told)
        self._told = now

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    def _count(self, record: FrameRecord) -> None:
        self._outcomes[record.outcome].inc()
        if record.why is not None:
            self._why[record.why].inc()
