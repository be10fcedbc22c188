"""What `derain bench` compares: every engine of a bundle side by side, or two reports of it."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derain.cli.files import local, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from derain.runtime.bench import BenchReport
    from derain.runtime.bundle import Bundle
    from derain.runtime.frames import Image
    from derain.runtime.manifest import FrameSpec

PICTURES = 30
"""Kept in memory and shown in turn, so that reading them costs nothing: 180 MB at 1920x1080."""


def first_pictures(uri: str, spec: "FrameSpec", count: int) -> list["Image"]:
    """Up to `count` whole frames of a source, in the format of `spec`; a camera's may be broken or of another size."""
    from derain.runtime.sources import open_source

    with open_source(uri, spec) as frames:
        return [frame.image for frame in islice((frame for frame in frames if frame.fits and not frame.broken), count)]


def tell_if_busy(console: "Console", report: "BenchReport") -> None:
    """Say so where a report was measured on a machine with other work."""
    if report.before.load > report.before.cores / 2:
        console.print(
            f"the machine was busy before ({report.before.load:g} of {report.before.cores} cores): "
            "the figures are worse than its best",
            highlight=False,
            soft_wrap=True,
        )


def compare_engines(
    console: "Console",
    bundle: "Bundle",
    source: str,
    truth: str | None,
    seconds: float,
    json: Path | None,
    html: Path | None,
) -> None:
    """Measure every precision on every engine at hand, print the table and write it to the files that were named."""
    from rich.table import Table

    from derain.runtime import engine_comparison
    from derain.runtime.atomic import write_bytes
    from derain.runtime.engine_comparison_page import engine_comparison_page
    from derain.runtime.manifest import FrameSpec
    from derain.runtime.quality import warn_of_other_names

    spec = bundle.manifest.input
    pictures = first_pictures(source, spec, PICTURES)
    clean = FrameSpec(tensor="truth", width=spec.width, height=spec.height)
    truths = None if truth is None else first_pictures(truth, clean, len(pictures))
    if truth is not None:
        warn_of_other_names(local(source), local(truth))
    with console.status(f"measuring for {seconds:g} s or longer"):
        report = engine_comparison.compare_engines(bundle, pictures, truths, seconds)
    write_json(json, report)
    if html is not None:
        write_bytes(html, engine_comparison_page(report).encode())
    table = Table("", "dB to truth", "dB to FP32", "p50 ms", "p90 ms", "p99 ms", "MB", box=None)
    for row in report.rows:
        figures = (row.psnr_vs_truth, row.psnr_vs_fp32, *(getattr(row.inference_ms, p) for p in ("p50", "p90", "p99")))
        cells = ("-" if value is None else f"{value:.2f}" for value in (*figures, row.megabytes))
        table.add_row(f"{row.engine} {row.precision}", *cells)
    console.print(table)
    for row in report.rows:
        console.print(f"{row.engine} {row.precision}: {row.verdict}", highlight=False, soft_wrap=True)
    for name, why in report.left_out.items():
        console.print(f"left out, {name}: {why}", highlight=False, soft_wrap=True)


def compare_reports(console: "Console", a: Path, b: Path) -> dict[str, Any]:
    """Print and return what changed from report A to B, by stage.

    Raises ValueError where one is no report, or they were not measured alike.
    """
    from pydantic import ValidationError

    from derain.runtime.bench import BenchReport, compare_stage
    from derain.runtime.faults import first_fault

    reports = []
    for path in (a, b):
        try:
            reports.append(BenchReport.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise ValueError(
                f"{path}: not a bench report: {first_fault(error)}: make one with `derain bench … --json {path}`"
            ) from error
    one, other = reports
    for key in ("width", "height", "pixels", "camera_fps", "deadline_ms"):
        if (first := getattr(one, key)) != (second := getattr(other, key)):
            raise ValueError(f"{a}, {b}: {key} is {first} and {second}, expected the same: measure both alike")
    for name, report in (("A", one), ("B", other)):
        console.print(
            f"{name}: {report.model}, {report.engine} {report.precision}: {report.presented} of {report.frames} frames "
            f"presented, {report.passed_through} of them raw, {report.dropped} dropped",
            highlight=False,
            soft_wrap=True,
        )
        tell_if_busy(console, report)
    if one.before.hardware != other.before.hardware:
        console.print("measured on different machines, so the verdict is about both machine and engine")
    if one.passed_through or other.passed_through:
        raw = "raw frames count in capture to present, which judges what went out: inference judges the engine"
        console.print(raw, soft_wrap=True)
    changes = {stage: compare_stage(one, other, stage) for stage in ("inference", "capture_to_present")}
    for stage, result in changes.items():
        console.print(
            f"{stage.replace('_', ' ')}: median {result.a_ms:.3f} ms to {result.b_ms:.3f} ms ({result.change:+.1%}, "
            f"95 % interval {result.low:+.1%} to {result.high:+.1%}): {result.verdict}",
            highlight=False,
            soft_wrap=True,
        )
    return {stage: change.model_dump() for stage, change in changes.items()}
