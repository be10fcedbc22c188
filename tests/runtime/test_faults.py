"""Every fault end to end, on real threads: no crash, no frozen picture, the raw frame in time, the counters right.

The machine may be busy, so times are asserted with SLACK_MS, which is still far below what the fault itself takes.
"""

import errno
import itertools
import threading
import time

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from derain.runtime import engines, pipeline, worker
from derain.runtime.frames import Frame
from derain.runtime.guard import State
from derain.runtime.queues import Policy
from derain.runtime.records import Outcome, Why
from derain.runtime.sinks import Sink
from derain.runtime.sources import open_source
from derain.runtime.testing import Calls, Fault, ScriptedEngine

DEADLINE_MS = 60
SLACK_MS = 150


class MemorySink(Sink):
    """Keeps what it is shown, and whether it is raw; `fails` says for which writes it raises ENOSPC."""

    def __init__(self, spec, fails=()):
        super().__init__("memory", spec, None)
        self.images, self.raw, self._fails, self._writes = [], [], set(fails), 0

    def _write(self, image, captured_ns, raw):
        self._writes += 1
        if self._writes - 1 in self._fails:
            raise OSError(errno.ENOSPC, "No space left on device", "memory")
        self.images.append(image)
        self.raw.append(raw)


class Run:
    """A finished run with everything it left."""

    def __init__(self, bundle, source, engine=None, fails=(), deadline_ms=DEADLINE_MS, observers=(), **options):
        manifest = bundle.manifest
        self.presented, self.raw, self.dropped = [], [], []
        self.sink = MemorySink(manifest.output, fails)
        self.engine = engine or ScriptedEngine(bundle)

        def on_frame(record, frame, image):
            self.presented.append(record)
            self.raw.append(image is frame.image)

        with open_source(source, manifest.input) as frames, self.engine:
            told = Calls(on_frame=on_frame, on_drop=self.dropped.append)
            self.report = pipeline.run(
                self.engine, frames, self.sink, [told, *observers], deadline_ms=deadline_ms, **options
            )
        self.ages_ms = [(record.presented_ns - record.captured_ns) / 1e6 for record in self.presented]

    def check(self):
        """What must hold whatever the fault."""
        report, ids = self.report, [record.id for record in self.presented]
        assert ids == sorted(set(ids))
        assert sorted(ids + [record.id for record in self.dropped]) == list(range(report.frames))
        assert self.raw == [record.outcome is Outcome.PASSED_THROUGH for record in self.presented] == self.sink.raw
        assert report.presented == len(self.presented) == len(self.sink.images)
        assert report.passed_through == sum(self.raw)
        assert report.dropped == len(self.dropped)
        assert report.deadline_misses == sum(record.why in (Why.DEADLINE, Why.LATE) for record in self.presented)
        assert sum(report.why.values()) == report.passed_through + report.dropped
        return self

    def reasons(self):
        return {record.id: record.why for record in self.presented if record.why}


def camera(frames=60, fps=60, **faults):
    return "&".join([f"test://rain?live=1&frames={frames}&fps={fps}", *(f"{k}={v}" for k, v in faults.items())])


def test_without_a_fault_every_frame_of_a_camera_is_derained_in_time(bundle):
    run = Run(bundle, camera(), deadline_ms=1000).check()
    assert run.report.policy == Policy.LATEST
    assert run.report.passed_through == 0
    assert run.report.engine_state == State.DERAINING


@pytest.mark.parametrize("fault", [Fault.RAISE, Fault.OUT_OF_MEMORY, Fault.BLACK, Fault.FROZEN, Fault.WRONG_SHAPE])
def test_a_fault_of_the_engine_shows_that_frame_raw_and_derained_ones_after_the_reopening(fault, bundle):
    run = Run(bundle, camera(), ScriptedEngine(bundle, {10: fault}), deadline_ms=None).check()
    assert [why for why in run.reasons().values() if why is Why.FAULT] == [Why.FAULT]
    assert set(run.reasons().values()) == {Why.FAULT, Why.AWAY}
    assert (run.report.engine_faults, run.report.engine_reopened, run.engine.openings) == (1, 1, 2)
    assert run.presented[-1].outcome is Outcome.DERAINED
    assert max(run.ages_ms) < SLACK_MS


def test_a_graph_that_turns_to_nan_shows_that_frame_raw(make_bundle, make_spec, folder, noise):
    """Frame 5 is the only one whose first byte is 0, by which the graph divides it."""
    shape = make_spec().shape
    first = dict(starts=[0, 0, 0, 0], ends=[1, 1, 1, 1])  # noqa: C408 (names of inputs)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["value"], to=TensorProto.FLOAT),
            helper.make_node("Slice", ["value", *first], ["first"]),
            helper.make_node("Div", ["first", "first"], ["one"]),
            helper.make_node("Mul", ["value", "one"], ["same"]),
            helper.make_node("Cast", ["same"], ["clean"], to=TensorProto.UINT8),
        ],
        "divide",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("clean", TensorProto.UINT8, shape)],
        [helper.make_tensor(name, TensorProto.INT64, [4], values) for name, values in first.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    bundle = make_bundle(graph=model.SerializeToString())
    for number, image in enumerate(noise):
        image[0, 0, 0] = number != 5
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    run = Run(bundle, str(folder), engines.create("onnxruntime", bundle, threads=1), deadline_ms=None).check()
    reasons = run.reasons()
    assert (min(reasons), reasons.pop(5)) == (5, Why.FAULT)
    assert set(reasons.values()) <= {Why.AWAY}
    assert "the output is flat" in run.report.engine_fault


def test_a_slow_engine_is_not_waited_for_and_its_late_results_are_thrown_away(bundle):
    slow_s = 0.4
    engine = ScriptedEngine(bundle, {20: Fault.SLOW}, slow_s=slow_s)
    run = Run(bundle, camera(frames=90), engine).check()
    assert {Why.DEADLINE, Why.LATE} <= set(run.reasons().values())
    assert run.report.engine_faults == 0
    assert max(run.ages_ms) < DEADLINE_MS + SLACK_MS < slow_s * 1e3
    assert run.presented[-1].outcome is Outcome.DERAINED
    assert run.report.latency_ms["inference"].max >= slow_s * 1e3
    gaps = [b.presented_ns - a.presented_ns for a, b in itertools.pairwise(run.presented)]
    assert max(gaps) / 1e6 < DEADLINE_MS + SLACK_MS  # the picture never froze


def test_an_engine_file_that_is_away_is_asked_for_again_until_it_is_back(bundle):
    engine = ScriptedEngine(bundle, {10: Fault.RAISE}, refusals=2)
    run = Run(bundle, camera(frames=90), engine, deadline_ms=None).check()
    assert (run.report.engine_faults, run.report.engine_reopened) == (3, 1)
    assert "FileNotFoundError" in run.report.engine_fault
    assert run.presented[-1].outcome is Outcome.DERAINED
    assert max(run.ages_ms) < SLACK_MS


def test_a_deleted_graph_leaves_raw_frames_not_a_crash(bundle, monkeypatch):
    engine = engines.create("onnxruntime", bundle, threads=1)
    infer, calls = engine._infer, []

    def fail_once(tensor):
        calls.append(None)
        if len(calls) == 5:
            (bundle.path / "graph.fp32.onnx").unlink()
            raise RuntimeError("device lost")
        return infer(tensor)

    monkeypatch.setattr(engine, "_infer", fail_once)
    run = Run(bundle, camera(frames=40), engine, deadline_ms=None).check()
    assert run.report.engine_state in (State.BACKING_OFF, State.REOPENING)
    assert run.report.engine_reopened == 0
    assert "graph.fp32.onnx" in run.report.engine_fault
    assert run.presented[-1].why is Why.AWAY


def test_an_engine_that_fails_for_ever_is_given_up_and_every_frame_still_comes_out(bundle):
    engine = ScriptedEngine(bundle, dict.fromkeys(range(1000), Fault.RAISE))
    run = Run(bundle, "test://rain?live=1&fps=40&frames=280", engine, deadline_ms=None).check()
    assert run.report.engine_state == State.RAW
    assert (run.report.engine_faults, run.report.engine_reopened) == (6, 5)
    assert run.report.passed_through == run.report.presented
    assert run.presented[-1].why is Why.GIVEN_UP


def test_an_unplugged_camera_is_opened_again_and_the_numbering_goes_on(bundle):
    run = Run(bundle, camera(unplug=20, outage=0.3), deadline_ms=None).check()
    assert run.report.source_faults == 1
    assert "unplugged" in run.report.source_fault
    assert "; not back: " in run.report.source_fault
    assert run.report.frames == 59  # the one at which it was unplugged never came
    assert run.presented[-1].outcome is Outcome.DERAINED


def test_a_stalled_camera_is_left_behind_and_opened_again(bundle):
    threads = threading.active_count()
    states = []
    source = camera(frames=90, stall=20, outage=0.8)
    watching = Calls(on_status=lambda status: states.append(status.source))
    run = Run(bundle, source, deadline_ms=None, stall_s=0.2, observers=[watching])
    run.check()
    assert run.report.source_faults >= 1
    assert "no frame for 0." in run.report.source_fault
    assert any("no frame for" in state for state in states)
    assert states[-1] == "open"
    assert run.report.frames >= 60
    assert run.presented[-1].outcome is Outcome.DERAINED
    assert threading.active_count() <= threads + 1  # the one that hangs, at most


def test_a_camera_that_changes_its_size_is_shown_raw_until_it_changes_back(bundle):
    run = Run(bundle, camera(resize=20, outage=0.3), deadline_ms=None).check()
    assert run.report.frames == 60
    assert set(run.reasons().values()) == {Why.UNFIT}
    assert 20 in run.reasons()
    assert run.presented[-1].outcome is Outcome.DERAINED
    assert run.report.source_faults == 0


def test_frames_cut_short_are_counted_and_not_shown_and_cost_no_whole_one(bundle):
    run = Run(bundle, camera(truncate=20, outage=0.3), deadline_ms=None).check()
    broken = [record.id for record in run.dropped if record.why is Why.BROKEN]
    assert broken == list(range(20, 20 + len(broken)))
    assert 10 <= len(broken) <= 25
    assert run.report.why[Why.BROKEN] == len(broken)
    assert run.report.passed_through == 0
    assert run.presented[-1].outcome is Outcome.DERAINED
    assert (run.report.frames, run.report.source_faults, run.report.engine_faults) == (60, 0, 0)


def test_a_camera_that_delivers_only_frames_cut_short_is_left_behind_and_opened_again(bundle):
    run = Run(bundle, camera(frames=90, truncate=20, outage=0.8), deadline_ms=None, stall_s=0.3).check()
    assert run.report.source_faults >= 1
    assert "no frame for 0." in run.report.source_fault
    assert run.report.why[Why.BROKEN] >= 10
    assert run.presented[-1].outcome is Outcome.DERAINED


def test_a_camera_whose_size_never_fitted_is_refused(make_bundle):
    with pytest.raises(ValueError, match="frames are 64x48, the bundle expects 32x16"):
        Run(make_bundle(), camera() + "&width=64&height=48")


def test_a_full_disk_loses_frames_under_latest_and_the_stream_goes_on_when_there_is_room(bundle):
    run = Run(bundle, camera(), fails=range(10, 15), deadline_ms=None).check()
    assert run.report.why[Why.SINK] == 5
    assert run.presented[-1].outcome is Outcome.DERAINED


def test_a_full_disk_ends_a_run_that_may_lose_nothing_and_the_report_of_what_was_shown_comes_first(bundle):
    reports = []
    with pytest.raises(OSError, match="No space left on device"):
        Run(bundle, "test://rain?frames=20", fails=[5], observers=[Calls(on_report=reports.append)])
    (report,) = reports
    assert "No space left on device" in report.error
    assert report.presented == 5


def test_an_engine_that_does_not_come_back_is_left_to_its_thread(bundle, monkeypatch):
    """Closed under the thread that is inside, it would free what the GPU writes to."""
    monkeypatch.setattr(worker, "PATIENCE_S", 0.01)
    begun, go_on, closed = threading.Event(), threading.Event(), []

    class Stuck(ScriptedEngine):
        def _infer(self, tensor):
            begun.set()
            assert go_on.wait(20)
            return super()._infer(tensor)

        def _close(self):
            closed.append(True)

    frame = Frame(0, 0, np.zeros(bundle.manifest.input.image_shape, np.uint8), 0)
    with Stuck(bundle) as engine, worker.Worker(engine, lambda: None) as stuck:
        stuck.infer(frame)
        assert begun.wait(20)
    assert not closed
    go_on.set()
    stuck._thread.join(20)


def test_a_run_is_stopped_though_the_engine_hangs_and_nothing_has_a_deadline(bundle, monkeypatch):
    monkeypatch.setattr(pipeline, "PATIENCE_S", 0.05)  # the worker's stays: it waits no second time
    stop, go_on = threading.Event(), threading.Event()

    class Stuck(ScriptedEngine):
        def _infer(self, tensor):
            stop.set()
            assert go_on.wait(20)
            return super()._infer(tensor)

    spec = bundle.manifest.input
    with open_source("test://rain?frames=5", spec) as source, Stuck(bundle) as engine:
        began, spent = time.monotonic(), time.process_time()
        report = pipeline.run(engine, source, MemorySink(spec), stop=stop)
        assert time.process_time() - spent < 1 and time.monotonic() - began < worker.PATIENCE_S
    assert report.presented == 0
    go_on.set()


def test_an_endless_deadline_is_none(bundle):
    run = Run(bundle, "test://rain?frames=3", deadline_ms=float("inf")).check()
    assert (run.report.passed_through, run.report.deadline_ms) == (0, None)


def test_a_step_of_the_wall_clock_changes_nothing(bundle, monkeypatch):
    steps = itertools.cycle([10**9, -(10**9)])
    monkeypatch.setattr(time, "time", lambda: next(steps))
    monkeypatch.setattr(time, "time_ns", lambda: next(steps) * 10**9)
    run = Run(bundle, camera(frames=30), deadline_ms=1000).check()
    assert (run.report.passed_through, run.report.source_faults, run.report.engine_faults) == (0, 0, 0)
    assert max(run.ages_ms) < 1000


def test_a_raw_frame_is_turned_into_the_pixels_of_the_output(make_bundle, make_spec, noise):
    bundle = make_bundle()
    output = make_spec("clean", pixels="rgb8")
    manifest = bundle.manifest.model_copy(update={"output": output})
    bundle.manifest = manifest
    engine = ScriptedEngine(bundle, dict.fromkeys(range(100), Fault.RAISE))
    with open_source("test://rain?frames=3", manifest.input) as source, engine:
        sink = MemorySink(output)
        report = pipeline.run(engine, source, sink)
    with open_source("test://rain?frames=3", manifest.input) as source:
        expected = [frame.image[..., ::-1] for frame in source]
    assert report.passed_through == 3
    np.testing.assert_array_equal(sink.images, expected)


def test_a_stop_ends_an_endless_camera_and_keeps_what_was_presented(bundle):
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    run = Run(bundle, camera(frames=10**6), stop=stop, deadline_ms=None).check()
    assert 1 <= run.report.presented < 1000


def test_a_stop_ends_a_file_too(bundle):
    stop = threading.Event()
    stop.set()
    assert Run(bundle, "test://rain?frames=100000", stop=stop, deadline_ms=None).check().report.frames < 100
