"""Every precision on every engine, side by side: what is measured, what is said of it, and the page."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from derain.runtime.engine_comparison import EngineResult, compare_engines, verdict
from derain.runtime.engine_comparison_page import engine_comparison_page
from derain.runtime.engines import base
from derain.runtime.engines.onnxruntime import OnnxRuntimeEngine
from derain.runtime.latency import Percentiles


@pytest.fixture
def both(make_bundle):
    """A bundle with the same graph for FP32 and for INT8."""
    return make_bundle(precisions=("fp32", "int8"))


def test_each_precision_is_measured_against_the_truth_and_against_fp32(both, noise):
    truths = [255 - image for image in noise]
    truths[0] = truths[0] ^ 16  # so that the graph, which inverts, is not perfect
    report = compare_engines(both, noise, truths, seconds=0.1)
    assert [(row.engine, row.precision) for row in report.rows] == [("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    first, second = report.rows
    wrong = 10 * np.log10(255**2 / 16**2)
    assert first.psnr_vs_truth == second.psnr_vs_truth == pytest.approx((wrong + 100 * (len(noise) - 1)) / len(noise))
    assert (first.psnr_vs_fp32, second.psnr_vs_fp32) == (None, 100)
    assert first.megabytes == both.manifest.files["graph.fp32.onnx"].bytes / 1e6
    assert report.rounds >= len(noise) and report.psnr_input < 20
    assert 0 < first.inference_ms.p50 <= first.inference_ms.p90 <= first.inference_ms.p99
    assert {"onnxruntime-cuda", "tensorrt"} <= {name.split()[0] for name in report.left_out}


def test_without_a_truth_only_the_distance_to_fp32_is_told(both, noise):
    report = compare_engines(both, noise, None, seconds=0)
    assert [row.psnr_vs_truth for row in report.rows] == [None, None]
    assert report.rounds == len(noise)
    assert "its cost in quality needs --truth" in report.rows[1].verdict


def test_truths_must_be_as_many_as_frames(both, noise):
    with pytest.raises(ValueError, match="1 clean frames for 3 frames: align --truth and --source"):
        compare_engines(both, noise[:3], noise[:1], seconds=0)


class Faulty(OnnxRuntimeEngine):
    """Fails at a frame of its life, counted from the warm-up's first, and does not close either."""

    at = 0

    def _open(self):
        super()._open()
        self.left = self.at

    def _infer(self, tensor):
        if self.left == 0:
            raise RuntimeError("the device\nfell off the bus")
        self.left -= 1
        return super()._infer(tensor)

    def _close(self):
        raise OSError("the device is gone")


@pytest.mark.parametrize("at", [0, 3, 5])
def test_an_engine_that_fails_on_the_way_is_left_out_with_its_reason_and_the_others_go_on(at, both, noise, monkeypatch):
    """In the warm-up, at the first frame that counts, in the middle."""
    monkeypatch.setitem(base._backends, "faulty", Faulty)
    monkeypatch.setattr(Faulty, "name", "faulty")
    monkeypatch.setattr(Faulty, "at", at)
    report = compare_engines(both, noise, None, seconds=0)
    assert [(row.engine, row.precision) for row in report.rows] == [("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    assert report.left_out["faulty fp32"] == report.left_out["faulty int8"] == "the device fell off the bus"
    assert report.rounds == len(noise)


def test_where_every_engine_fails_the_reasons_are_told(both, noise, monkeypatch):
    monkeypatch.setattr(base, "_backends", {"faulty": Faulty})
    monkeypatch.setattr(Faulty, "name", "faulty", raising=False)
    with pytest.raises(ValueError, match="no engine runs it here: the device fell off the bus; the device fell"):
        compare_engines(both, noise, None, seconds=0)


def row(precision: str, ms: float, db: float | None, engine: str = "e", fp32_db: float | None = 40) -> EngineResult:
    spread = Percentiles(p50=ms, p90=ms, p99=2 * ms, p999=2 * ms, max=2 * ms)
    return EngineResult(
        engine=engine,
        precision=precision,
        megabytes=1,
        psnr_vs_truth=db,
        psnr_vs_fp32=fp32_db,
        inference_ms=spread,
        verdict="-",
    )


@pytest.mark.parametrize(
    ("ms", "db", "said"),
    [
        (9.7, 29.6, "INT8 is not worth it here: 3 % faster, 0.40 dB worse."),
        (13, 30.1, "INT8 is not worth it here: 30 % slower, 0.10 dB better."),
        (31, 30.0, "INT8 is not worth it here: 3.1 times as slow, as near the truth."),
        (7, 29.9, "INT8 is worth it here: 30 % faster, 0.10 dB worse."),
        (4, 29.9, "INT8 is worth it here: 2.5 times as fast, 0.10 dB worse."),
        (4, 29.0, "INT8 trades quality for speed: 2.5 times as fast, 1.00 dB worse."),
    ],
)
def test_the_verdict_is_a_plain_sentence(ms, db, said):
    base = row("fp32", 10, 30)
    assert verdict(row("int8", ms, db), [base, row("fp32", 1, 30, "other")]) == said


def test_the_verdict_of_fp32_and_of_what_has_none_to_compare_with():
    slow, fast, lone = row("fp32", 10, 30), row("fp32", 1, 30, "other"), row("int8", 1, 30)
    assert verdict(fast, [slow, fast]) == "The measure of the others."
    assert verdict(slow, [slow, fast]) == "Slower than FP32 on other."
    assert verdict(lone, [lone]) == "There is no FP32 here to compare INT8 with."


def test_the_page_is_whole_and_needs_nothing_else(both, noise):
    report = compare_engines(both, noise, [255 - image for image in noise], seconds=0)
    html = engine_comparison_page(report.model_copy(update={"model": "<nano>"}))
    tree = ElementTree.fromstring(html.partition("\n")[2].replace('<meta charset="utf-8">', ""))
    text = " ".join(tree.itertext())
    assert "<nano>" in text and all(entry.verdict in text for entry in report.rows)
    assert all(why in text for why in report.left_out.values())
    assert len(tree.findall(".//svg")) == 2
    assert not re.search(r"https?://|src=|@import", html)
