"""The frames around a fault, kept while the pipeline runs on."""

import itertools
import json
import os
import time

import cv2
import numpy as np
import pytest

from derain.runtime import pipeline
from derain.runtime.frames import Frame
from derain.runtime.recorder import Recorder
from derain.runtime.records import FrameRecord, Outcome, Status, Why
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source
from derain.runtime.testing import Calls, Fault, ScriptedEngine

MS = 10**6
STATUS = Status(0, 0, 0, 0, 0, 0, 0, "deraining", "open")


def images(path):
    video, seen = cv2.VideoCapture(str(path)), []
    while True:
        decoded, image = video.read()
        if not decoded:
            return np.array(seen)
        seen.append(image)


def run(bundle, recorder, script, source="test://rain?live=1&frames=60&fps=60", **options):
    manifest, presented = bundle.manifest, []

    times = Calls(on_frame=lambda record, *_: presented.append(record.presented_ns))
    with (
        open_source(source, manifest.input) as frames,
        ScriptedEngine(bundle, script) as engine,
        open_sink("null://", manifest.output) as sink,
    ):
        pipeline.run(engine, frames, sink, [times, recorder], **options)
    return max(b - a for a, b in itertools.pairwise(presented)) / MS


def test_a_fault_leaves_a_clip_of_what_came_in_what_went_out_and_every_record(bundle, tmp_path, caplog):
    spec = bundle.manifest.input
    with Recorder(tmp_path / "faults", 0.6, spec, spec, 60) as recorder:
        gap_ms = run(bundle, recorder, {30: Fault.RAISE})
    (clip,) = (tmp_path / "faults").iterdir()
    assert sorted(path.name for path in clip.iterdir()) == ["in.mkv", "out.mkv", "records.json"]
    document = json.loads((clip / "records.json").read_text())
    records = document["frames"]
    assert document["why"] == "the engine failed on it"
    ids = [record["id"] for record in records]
    reasons = [record["why"] for record in records]
    failed = reasons.index(document["why"])  # frame 30, or a later one where the machine was too busy to take each
    assert 30 <= ids[failed] < 45
    assert ids[failed] - 25 <= min(ids) and ids[failed] + 10 <= max(ids) < 60
    assert set(reasons[:failed]) <= {None, "a newer frame came"}
    assert records[failed]["outcome"] == "passed through"
    span_ns = records[-1]["captured_ns"] - records[0]["captured_ns"]
    assert 0.4e9 < span_ns <= 0.6e9
    with open_source("test://rain?frames=60", spec) as source:
        pattern = [frame.image for frame in source]
    presented = [record for record in records if record["presented_ns"]]
    came, went = images(clip / "in.mkv"), images(clip / "out.mkv")
    assert len(came) == len(went)
    # Where a frame was captured late the one before it is repeated
    first = [0, *(np.flatnonzero((came[1:] != came[:-1]).any(axis=(1, 2, 3))) + 1)]
    came, went = came[first], went[first]
    np.testing.assert_array_equal(came, [pattern[record["id"]] for record in presented])
    derained = [record["outcome"] == "derained" for record in presented]
    assert 0 < sum(derained) < len(derained)
    for before, after, good in zip(came, went, derained, strict=True):
        np.testing.assert_array_equal(after, 255 - before if good else before)
    assert "kept" in caplog.text
    assert gap_ms < 150


class Fed:
    """A recorder that gets one frame every 10 ms of a time of its own."""

    def __init__(self, folder, spec, seconds=1.0, fps=30, **options):
        self.now, self.id, self.folder = 0, 0, folder
        self.image = np.zeros(spec.image_shape, np.uint8)
        self.recorder = Recorder(folder, seconds, spec, spec, fps, clock=lambda: self.now, **options)

    def feed(self, count, why=None):
        for _ in range(count):
            outcome = Outcome.DERAINED if why is None else Outcome.PASSED_THROUGH
            record = FrameRecord(self.id, self.now, self.now, None, None, self.now, outcome, why)
            image = np.full_like(self.image, self.id % 256)
            shown = image if why else 255 - image
            self.recorder.on_frame(record, Frame(self.id, self.now, image, self.now), shown)
            self.now, self.id = self.now + 10 * MS, self.id + 1
            while self.recorder._writing:  # as a camera's next fault, long after
                pass

    def drop(self, count):
        for _ in range(count):
            self.recorder.on_drop(
                FrameRecord(self.id, self.now, self.now, None, None, None, Outcome.DROPPED, Why.NEWER)
            )
            self.now, self.id = self.now + 10 * MS, self.id + 1

    def clips(self):
        self.recorder.close()
        files = sorted(self.folder.glob("*/records.json"))
        return [[frame["id"] for frame in json.loads(file.read_text())["frames"]] for file in files]


def test_half_of_a_clip_lies_before_its_fault_and_half_after(tmp_path, make_spec):
    fed = Fed(tmp_path, make_spec())
    fed.feed(200)
    fed.feed(1, Why.DEADLINE)
    fed.feed(200)
    assert fed.clips() == [list(range(150, 251))]


def test_both_videos_keep_the_camera_s_time_where_frames_were_dropped(tmp_path, make_spec):
    fed = Fed(tmp_path, make_spec(), fps=100)
    fed.feed(20)
    fed.drop(5)
    fed.feed(1, Why.FAULT)
    fed.feed(10)
    assert fed.clips() == [list(range(36))]
    (clip,) = tmp_path.iterdir()
    shown = np.array([*range(20), *[19] * 5, *range(25, 36)])
    np.testing.assert_array_equal(images(clip / "in.mkv")[:, 0, 0, 0], shown)
    np.testing.assert_array_equal(images(clip / "out.mkv")[:, 0, 0, 0], np.where(shown == 25, 25, 255 - shown))


def test_a_file_s_frames_are_each_recorded_once_however_slow_the_run(tmp_path, make_spec):
    fed = Fed(tmp_path, make_spec(), fps=200, live=False)
    fed.feed(5)
    fed.feed(1, Why.FAULT)
    fed.feed(5)
    assert fed.clips() == [list(range(11))]
    (clip,) = tmp_path.iterdir()
    np.testing.assert_array_equal(images(clip / "in.mkv")[:, 0, 0, 0], range(11))


def test_a_folder_whose_name_opencv_cannot_be_told_is_refused_before_the_run(tmp_path, make_spec):
    with pytest.raises(ValueError, match=r"/f\\xff: its name is not UTF-8: rename it"):
        Recorder(tmp_path / "f\udcff", 1.0, make_spec(), make_spec())
    assert list(tmp_path.iterdir()) == []


def test_a_fault_that_goes_on_is_one_clip_and_one_after_a_good_frame_is_another(tmp_path, make_spec):
    fed = Fed(tmp_path, make_spec(), seconds=0.2)
    for _ in range(2):
        fed.feed(50)
        fed.feed(70, Why.FAULT)
    assert [ids[10] for ids in fed.clips()] == [50, 170]


def test_a_fault_at_the_end_of_a_run_and_one_that_is_none_of_the_frames_are_kept_too(tmp_path, make_spec):
    fed = Fed(tmp_path, make_spec())
    fed.feed(20)
    fed.recorder.on_status(Status(20, 0, 0, 0, 0, 0, 0, "deraining", "lost", source_faults=1, source_fault="unplugged"))
    fed.now += 600 * MS
    fed.recorder.on_status(Status(20, 0, 0, 0, 0, 0, 0, "deraining", "lost", source_faults=1, source_fault="unplugged"))
    fed.feed(10)
    fed.feed(1, Why.FAULT)
    clips = fed.clips()
    assert [ids[-1] for ids in clips] == [19, 30]
    first = json.loads(sorted(tmp_path.glob("*/records.json"))[0].read_text())
    assert first["why"] == "source lost: unplugged"


def test_memory_is_bounded_and_a_clip_of_fewer_frames_still_holds_its_fault_in_the_middle(tmp_path, make_spec, caplog):
    spec = make_spec()
    size = int(np.prod(spec.image_shape))
    fed = Fed(tmp_path, spec, most_bytes=20 * 2 * size)
    fed.feed(100)
    assert len(fed.recorder._kept) == 20
    fed.feed(1, Why.FAULT)
    fed.feed(100)
    assert caplog.text.count("0.2 s of pictures fill the 0 MB that are kept, so clips are shorter than 1 s") == 1
    (ids,) = fed.clips()
    assert len(ids) in (20, 21)  # a raw frame is held once
    assert ids.index(100) in range(8, 12)


def test_there_are_no_more_clips_than_the_most_and_that_is_told_once(tmp_path, make_spec, caplog):
    fed = Fed(tmp_path, make_spec(), seconds=0.1, most_clips=2)
    for _ in range(5):
        fed.feed(20)
        fed.feed(1, Why.FAULT)
    assert len(fed.clips()) == 2
    assert caplog.text.count("2 clips are kept, the most of one run") == 1


def test_odd_sizes_are_kept_as_pictures(tmp_path, make_spec):
    fed = Fed(tmp_path, make_spec(width=31))
    fed.feed(3)
    fed.feed(1, Why.SINK)
    fed.clips()
    assert len(list(tmp_path.glob("*/in/*.png"))) == len(list(tmp_path.glob("*/out/*.png"))) == 4


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path, make_spec, caplog, monkeypatch):
    fed = Fed(tmp_path, make_spec())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
    fed.feed(3)
    fed.feed(1, Why.FAULT)
    assert fed.clips() == []
    assert "a clip is lost: No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("why", [Why.AWAY, Why.LATE, Why.NEWER, Why.GIVEN_UP])
def test_what_only_follows_a_fault_begins_no_clip(why, tmp_path, make_spec):
    fed = Fed(tmp_path, make_spec())
    fed.feed(3)
    fed.feed(3, why)
    assert fed.clips() == []


def test_two_processes_that_record_the_same_second_keep_both_clips(tmp_path, make_spec, monkeypatch):
    for process in (100, 101):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        fed = Fed(tmp_path, make_spec())
        fed.feed(3)
        fed.feed(1, Why.FAULT)
        fed.clips()
    assert len(list(tmp_path.glob("*/records.json"))) == 2


def test_a_frame_of_a_clip_stands_until_the_next_one_however_long_coding_takes(tmp_path, make_spec, monkeypatch):
    writer = cv2.VideoWriter

    class Slow:
        def __init__(self, *given):
            self.real = writer(*given)
            self.isOpened, self.release = self.real.isOpened, self.real.release

        def write(self, image):
            time.sleep(5e-3)
            self.real.write(image)

    Slow.fourcc = writer.fourcc
    monkeypatch.setattr(cv2, "VideoWriter", Slow)
    fed = Fed(tmp_path, make_spec(), fps=300)
    fed.feed(9)
    fed.feed(1, Why.FAULT)
    fed.clips()
    (clip,) = tmp_path.glob("*/in.mkv")
    assert len(images(clip)) == 28
