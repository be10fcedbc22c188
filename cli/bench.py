"""`derain bench`: latency under a camera's clock, two such measurements compared, or every engine side by side."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.files import to_write

if TYPE_CHECKING:
    from rich.console import Console

    from derain.runtime.bench import BenchReport
    from derain.runtime.bundle import Bundle

MANY = 1000
"""Frames from which p99.9 is one of them and not an end of what was seen."""

PICTURES = 30
"""Kept in memory and shown in turn, so that reading them costs nothing: 180 MB at 1920x1080."""


def bench(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle, made by `derain export`.")] = None,
    engine: Annotated[str, typer.Option(help="The engine by name; `derain doctor` lists them.")] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or fp8: one the bundle has.")] = "fp32",
    fps: Annotated[float, typer.Option(help="The camera's frames a second, which wait for nobody.", min=0.1)] = 30.0,
    seconds: Annotated[float, typer.Option(help="How long to measure, after the warm-up.", min=0.1)] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds to run before the measurement.", min=0)] = 2.0,
    deadline: Annotated[float | None, typer.Option(metavar="MS", help="As for `derain run`.", min=0.001)] = None,
    source: Annotated[str, typer.Option(help=f"Where the first {PICTURES} frames come from.")] = "test://rain",
    everything: Annotated[
        bool, typer.Option("--all", help="Every precision on every engine at hand, side by side, instead of a stream.")
    ] = False,
    truth: Annotated[str | None, typer.Option(help="With --all: the clean frames, one for each of --source.")] = None,
    json: Annotated[
        Path | None, typer.Option(callback=to_write, help="Write the report with every frame's times to this file.")
    ] = None,
    html: Annotated[Path | None, typer.Option(callback=to_write, help="Write a page with plots to this file.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Compare two reports instead of measuring."),
    ] = None,
) -> None:
    """Measure a bundle's latency stage by stage at a camera's frame rate, or compare two measurements."""
    from rich.console import Console

    from derain.cli.live import summarise

    console = Console(markup=False)
    if (bundle is None) == (compare is None):
        raise typer.BadParameter("expected either a bundle to measure or --compare A.json B.json")
    if compare is not None:
        _compare(console, *compare)
        return

    from derain.cli.stream import quiet_decoders

    quiet_decoders()
    from derain.runtime import engines
    from derain.runtime.atomic import write_bytes
    from derain.runtime.bench import bench as measure
    from derain.runtime.bundle import Bundle
    from derain.runtime.manifest import Precision
    from derain.runtime.page import page
    from derain.runtime.sources import open_source

    if everything:
        assert bundle is not None
        _compare_all(console, Bundle.load(bundle), source, truth, seconds, json, html)
        return
    if truth is not None:
        raise typer.BadParameter("--truth is for --all")
    if precision not in list(Precision):
        raise typer.BadParameter(f"{precision!r} is unknown, known are: {', '.join(Precision)}")
    assert bundle is not None
    loaded = Bundle.load(bundle)
    with open_source(source, loaded.manifest.input) as frames:
        pictures = [frame.image for frame in islice(frames, PICTURES)]
    with engines.create(engine, loaded, Precision(precision)) as backend:
        backend.warm_up()
        with console.status(f"measuring for {warm_up + seconds:g} s"):
            report = measure(backend, pictures, fps, seconds, warm_up, deadline)
    if json is not None:
        write_bytes(json, (report.model_dump_json(indent=1) + "\n").encode())
    if html is not None:
        write_bytes(html, page(report).encode())
    summarise(console, report, "null://")
    if (jitter := report.jitter_ms) is not None:
        console.print(f"jitter p50 {jitter.p50:.2f} ms, p99 {jitter.p99:.2f} ms", highlight=False)
    if report.frames < MANY:
        console.print(f"p99.9 of {report.frames} frames is hardly more than their slowest: --seconds makes it longer")
    _tell_if_busy(console, report)


def _tell_if_busy(console: "Console", report: "BenchReport") -> None:
    if report.before.load > report.before.cores / 2:
        console.print(
            f"the machine was busy before ({report.before.load:g} of {report.before.cores} cores): "
            "the figures are worse than its best",
            highlight=False,
            soft_wrap=True,
        )


def _compare_all(
    console: "Console",
    bundle: "Bundle",
    source: str,
    truth: str | None,
    seconds: float,
    json: Path | None,
    html: Path | None,
) -> None:
    from rich.table import Table

    from derain.runtime.atomic import write_bytes
    from derain.runtime.comparison import compare_all
    from derain.runtime.comparison_page import comparison_page
    from derain.runtime.manifest import FrameSpec
    from derain.runtime.sources import open_source

    spec = bundle.manifest.input
    with open_source(source, spec) as frames:
        pictures = [frame.image for frame in islice(frames, PICTURES)]
    truths = None
    if truth is not None:
        with open_source(truth, FrameSpec(tensor="truth", width=spec.width, height=spec.height)) as frames:
            truths = [frame.image for frame in islice(frames, len(pictures))]
    with console.status(f"measuring for {seconds:g} s or longer"):
        report = compare_all(bundle, pictures, truths, seconds)
    if json is not None:
        write_bytes(json, (report.model_dump_json(indent=1) + "\n").encode())
    if html is not None:
        write_bytes(html, comparison_page(report).encode())
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


def _compare(console: "Console", a: Path, b: Path) -> None:
    from pydantic import ValidationError

    from derain.runtime.bench import BenchReport
    from derain.runtime.bench import compare as judge
    from derain.runtime.faults import first_fault

    reports = []
    for path in (a, b):
        try:
            reports.append(BenchReport.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise ValueError(
                f"{path}: no report of a bench: {first_fault(error)}: make one with `derain bench … --json {path}`"
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
        _tell_if_busy(console, report)
    if one.before.hardware != other.before.hardware:
        console.print("measured on different machines, so the verdict is about both machine and engine")
    for stage in ("inference", "capture_to_present"):
        result = judge(one, other, stage)
        console.print(
            f"{stage.replace('_', ' ')}: median {result.a_ms:.3f} ms to {result.b_ms:.3f} ms ({result.change:+.1%}, "
            f"95 % interval {result.low:+.1%} to {result.high:+.1%}): {result.verdict}",
            highlight=False,
            soft_wrap=True,
        )
