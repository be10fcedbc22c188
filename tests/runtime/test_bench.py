"""The bench: an open-loop camera, what counts, its page, and when two reports differ."""

import itertools
import os
import re
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from derain.runtime.bench import BenchReport, CameraClock, bench, compare_stage
from derain.runtime.bench_page import page, ticks
from derain.runtime.machine import machine
from derain.runtime.testing import Fault, ScriptedEngine


@pytest.fixture
def report(bundle, noise):
    with ScriptedEngine(bundle) as engine:
        return bench(engine, noise, fps=100, seconds=0.5, warm_up_s=0.2)


def with_samples(report, samples):
    return report.model_copy(update={"samples_ms": {"inference": list(samples)}})


def test_the_clock_is_an_open_loop_and_a_frame_is_as_old_as_its_due_time(noise, make_spec):
    source = CameraClock(noise, make_spec(), fps=100, count=12)
    frames = iter(source)
    captured = [next(frames).captured_ns]
    time.sleep(0.2)  # a reader that comes too late
    captured += [frame.captured_ns for frame in frames]
    assert len(captured) == 12
    assert {later - earlier for earlier, later in itertools.pairwise(captured)} == {10**7}


def test_the_pictures_are_shown_in_turn_without_a_copy(noise, make_spec):
    images = [frame.image for frame in CameraClock(noise[:3], make_spec(), fps=1e4, count=7)]
    assert [next(i for i, one in enumerate(noise) if one is image) for image in images] == [0, 1, 2, 0, 1, 2, 0]


def test_only_what_comes_after_the_warm_up_counts(report):
    assert report.frames == 50
    assert report.presented + report.dropped == 50
    assert report.fps <= report.camera_fps
    assert min(report.at_s) >= 0
    assert max(report.at_s) < 0.5
    assert {len(samples) for samples in report.samples_ms.values()} == {len(report.at_s)}
    assert report.latency_ms["inference"].p50 == pytest.approx(np.median(report.samples_ms["inference"]), rel=0.01)


@pytest.mark.parametrize(
    ("fps", "warm_up_s", "seconds", "frames"), [(10, 0.04, 0.1, 1), (30, 0.05, 0.1, 3), (10, 0.7, 0.3, 3)]
)
def test_a_warm_up_of_no_whole_frames_takes_none_from_the_measurement(fps, warm_up_s, seconds, frames, bundle, noise):
    with ScriptedEngine(bundle) as engine:
        assert bench(engine, noise, fps, seconds, warm_up_s).frames == frames


def test_a_slow_engine_shows_as_drops_and_age_and_not_as_a_slower_camera(bundle, noise):
    slow = dict.fromkeys(range(1000), Fault.SLOW)
    with ScriptedEngine(bundle, slow, slow_s=0.05) as engine:
        report = bench(engine, noise, fps=100, seconds=1, warm_up_s=0.1)
    assert report.frames == 100
    assert report.dropped > 50
    assert report.latency_ms["capture_to_present"].p50 > 50
    assert report.jitter_ms.p50 > 20


@pytest.mark.parametrize(
    ("seconds", "size", "part"),
    [
        (0.05, 16, r"0\.05 s at 10 frames/s hold no frame: give it longer with --seconds"),
        (1.0, 15, r"image is uint8 \(15, 32, 3\), expected uint8 \(16, 32, 3\)"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_run(seconds, size, part, bundle, noise):
    with ScriptedEngine(bundle) as engine, pytest.raises(ValueError, match=part):
        bench(engine, [image[:size] for image in noise], fps=10, seconds=seconds)


def test_the_state_of_the_machine_is_recorded():
    here = machine()
    assert here.cpu
    assert here.cores >= 1
    assert here.load >= 0


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a script in nvidia-smi's place."""

    def is_(script):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return is_


@pytest.mark.parametrize(
    ("visible", "asked"),
    [(None, "--id=0"), ("2,0", "--id=2"), ("GPU-8f6b, GPU-11", "--id=GPU-8f6b"), ("", None), ("-1", None)],
)
def test_the_gpu_is_the_first_that_cuda_may_use(visible, asked, nvidia_smi, monkeypatch):
    nvidia_smi('[ "$1" = --id=-1 ] && echo No devices were found && exit 6\necho "$1, 580.65"')
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine().gpu == (asked and {"name": asked, "driver_version": "580.65"})


def test_a_driver_that_hangs_costs_the_gpus_state_and_not_the_measurement(nvidia_smi, monkeypatch):
    nvidia_smi("exec sleep 20")
    monkeypatch.setattr("derain.runtime.machine.GPU_ANSWERS_S", 0.1)
    assert machine().gpu is None


def test_the_page_stands_alone_and_has_a_plot_a_stage_and_one_over_time(report):
    table = {stage: told.model_copy(update={"p50": 1.25, "p99": 7.5}) for stage, told in report.latency_ms.items()}
    html = page(report.model_copy(update={"model": "<nano>", "latency_ms": table}))
    tree = ElementTree.fromstring(html.partition("\n")[2].replace('<meta charset="utf-8">', ""))
    assert tree.find("head/title").text.startswith("<nano>, 32x16 bgr8")
    assert len(tree.findall("body/svg")) == 5
    assert len(tree.findall("body/svg/circle")) == len(report.at_s)
    assert f"Capture to present is of all {len(report.at_s)} presented frames" in "".join(tree.itertext())
    marked = [label.text for label in tree.findall("body/svg/text[@class='label']")]
    assert marked == ["p50 1.25 ms", "p99 7.50 ms"] * 4
    assert not re.search(r"https?://|src=|@import", html)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 41.7, [0, 10, 20, 30, 40, 50]),
        (0, 0.0083, [0, 0.002, 0.004, 0.006, 0.008, 0.01]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (39.42, 39.68, [39.4, 39.45, 39.5, 39.55, 39.6, 39.65, 39.7]),
    ],
)
def test_axes_have_round_ticks_around_all_that_is_shown(low, high, expected):
    assert ticks(low, high) == expected


def test_an_axis_of_no_length_is_refused():
    with pytest.raises(ValueError, match="from 2 to 2"):
        ticks(2, 2)


def test_reports_survive_json(report):
    assert BenchReport.model_validate_json(report.model_dump_json()) == report


def test_the_same_distribution_is_no_difference_and_a_faster_one_is_faster(report):
    rng = np.random.default_rng(0)
    a, same, faster = (with_samples(report, rng.normal(mean, 1, 2000)) for mean in (20, 20, 18))
    assert compare_stage(a, same).verdict == "no difference found"
    verdict = compare_stage(a, faster)
    assert verdict.verdict == f"B was {abs(verdict.change):.1%} faster"
    assert verdict.change == pytest.approx(-0.1, abs=0.01)
    assert verdict.low < verdict.change < verdict.high < 0
    assert "slower" in compare_stage(faster, a).verdict


@pytest.mark.parametrize(("noise_s", "told", "half"), [(0.3, 0.03, 0.015), (1.0, 0.08, 0.025)])
def test_noise_that_neighbours_share_seldom_passes_for_a_difference(report, noise_s, told, half):
    """Runs of 10 s at 30 frames/s of one machine that drifts: what takes frames for independent is sure of most."""
    trials, frames, kept = 1000, 300, np.exp(-1 / (30 * noise_s))
    noise = np.random.default_rng(0).normal(size=(frames, 2 * trials))
    for one, following in itertools.pairwise(noise):
        following[:] = kept * one + np.sqrt(1 - kept**2) * following
    runs = [with_samples(report, one) for one in (20 + noise).T]
    verdicts = [compare_stage(a, b).verdict for a, b in zip(runs[::2], runs[1::2], strict=True)]
    wrong = [verdict != "no difference found" for verdict in verdicts]
    assert np.mean(wrong) == pytest.approx(told, abs=half)


def test_a_report_with_fewer_frames_than_parts_is_refused(report):
    with pytest.raises(ValueError, match=r"report B: 4 frames with inference times, expected 5 or more: .* --seconds"):
        compare_stage(with_samples(report, [1.0] * 5), with_samples(report, [1.0] * 4))


def test_an_inference_that_came_too_late_is_among_the_samples(bundle, noise):
    slow = dict.fromkeys(range(0, 1000, 2), Fault.SLOW)
    with ScriptedEngine(bundle, slow, slow_s=0.06) as engine:
        report = bench(engine, noise, fps=10, seconds=2, warm_up_s=0.1, deadline_ms=30)
    assert report.deadline_misses > 5
    assert max(report.samples_ms["inference"]) > 55
    derained = report.presented - report.passed_through
    assert derained < len(report.samples_ms["inference"]) <= report.presented  # too late for the engine: without one
    assert len(report.samples_ms["capture_to_present"]) == len(report.at_s) == report.presented
    assert len(report.samples_ms["wait"]) == derained
    assert report.latency_ms["inference"].p90 == pytest.approx(
        np.quantile(report.samples_ms["inference"], 0.9), rel=0.01
    )
