"""The pipeline on real threads without a fault."""

import time

import numpy as np
import pytest

from derain.runtime import engines, pipeline
from derain.runtime.records import FrameRecord, Outcome, Tally, Why
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source
from derain.runtime.testing import Calls


def run(bundle, source, sink, **calls):
    manifest = bundle.manifest
    with (
        engines.create("onnxruntime", bundle, threads=1) as engine,
        open_source(str(source), manifest.input) as frames,
        open_sink(str(sink), manifest.output, frames.fps) as presented,
    ):
        return pipeline.run(engine, frames, presented, [Calls(**calls)])


def test_every_frame_comes_out_derained_once_and_in_order(bundle, folder, noise, tmp_path):
    report = run(bundle, folder, tmp_path / "out.mkv")
    with open_source(str(tmp_path / "out.mkv"), bundle.manifest.input) as source:
        np.testing.assert_array_equal([frame.image for frame in source], [255 - image for image in noise])
    assert (report.frames, report.presented) == (len(noise), len(noise))
    assert (report.dropped, report.passed_through, report.deadline_misses) == (0, 0, 0)


def test_records_are_in_order_on_one_clock_and_the_report_is_made_of_them(bundle):
    records = []
    before = time.monotonic_ns()
    report = run(bundle, "test://rain?frames=20", "null://", on_frame=lambda record, *_: records.append(record))
    assert [record.id for record in records] == list(range(20))
    stamps = [
        (record.asked_ns, record.captured_ns, record.inference_start_ns, record.inference_end_ns, record.presented_ns)
        for record in records
    ]
    for one in (*stamps, *zip(*stamps, strict=True)):  # each frame's, then each stage's
        one = [before, *one, time.monotonic_ns()]
        assert one == sorted(one)
    assert set(report.latency_ms) == {"capture", "wait", "inference", "present", "capture_to_present"}
    inference = [record.inference_end_ns - record.inference_start_ns for record in records]
    whole = [record.presented_ns - record.captured_ns for record in records]
    assert report.latency_ms["inference"].p99 == pytest.approx(np.percentile(inference, 99) / 1e6, rel=0.002)
    assert report.latency_ms["capture_to_present"].p50 == pytest.approx(np.percentile(whole, 50) / 1e6, rel=0.002)
    assert report.latency_ms["capture_to_present"].max == pytest.approx(max(whole) / 1e6)
    assert 0 < report.outside_engine_share < 1


def test_a_report_with_every_reason_and_every_stage_is_as_its_schema_says(bundle, validate):
    report = run(bundle, "test://rain?frames=2", "null://")
    validate(report)
    tally = Tally()
    tally.add(FrameRecord(0, 1, 2, 3, 5, 6, Outcome.DERAINED, device_ns=1))
    for why in Why:
        tally.add(FrameRecord(1, 1, 2, None, None, 3, Outcome.PASSED_THROUGH, why))
    latency_ms = tally.latency.summary()
    assert set(report.latency_ms) < set(latency_ms)
    validate(report.model_copy(update={"why": dict(tally.why), "latency_ms": latency_ms}))


def test_the_rate_is_that_of_the_presented_frames_from_start_to_end(bundle):
    start = time.monotonic()
    report = run(bundle, "test://rain?frames=5", "null://", on_frame=lambda *_: time.sleep(0.02))
    elapsed = time.monotonic() - start
    assert 0.08 < 5 / report.fps < elapsed


def test_the_callback_gets_the_frame_and_what_the_engine_made_of_it(bundle, folder, noise):
    pairs = []
    run(bundle, folder, "null://", on_frame=lambda _, frame, clean: pairs.append((frame.image, clean)))
    for (image, clean), original in zip(pairs, noise, strict=True):
        np.testing.assert_array_equal(image, original)
        np.testing.assert_array_equal(clean, 255 - original)


def test_a_truncated_clip_raises_and_leaves_a_readable_output_of_what_there_was(bundle, clip, noise, tmp_path):
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(
        ValueError, match=r"clip\.mkv: truncated, the decoder stopped after \d of 10 frames: copy it again"
    ):
        run(bundle, clip, tmp_path / "out.mkv")
    with open_source(str(tmp_path / "out.mkv"), bundle.manifest.input) as source:
        images = [frame.image for frame in source]
    assert 0 < len(images) < 10
    np.testing.assert_array_equal(images, [255 - image for image in noise[: len(images)]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "clip.mkv", "out.mkv"]


def test_a_source_of_the_wrong_size_leaves_no_output(make_bundle, tmp_path):
    bundle = make_bundle()
    with pytest.raises(ValueError, match="frames are 64x48"):
        run(bundle, "test://rain?width=64&height=48", tmp_path / "out.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
