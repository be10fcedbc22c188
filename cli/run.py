"""`derain run`: a bundle on a stream of frames."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from derain.runtime.pipeline import RunReport

LOG_EVERY_S = 5.0


def run(
    bundle: Annotated[Path, typer.Argument(help="The bundle, made by `derain export`.")],
    source: Annotated[
        str, typer.Option(help="file://CLIP, frames://FOLDER, v4l2:///dev/videoN or test://rain?frames=N")
    ],
    sink: Annotated[str, typer.Option(help="file://OUT.mkv|.avi|.mp4, frames://FOLDER or null://")],
    engine: Annotated[str, typer.Option(help="The engine by name; `derain doctor` lists them.")] = "onnxruntime",
    truth: Annotated[str | None, typer.Option(help="The clean frames of the source, to report PSNR against.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
) -> None:
    """Derain a stream with a bundle and report its latency."""
    # FFmpeg's and OpenCV's own lines on stderr would drown the one line an error is told in.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

    from json import dumps

    from rich.console import Console

    from derain.runtime import engines, pipeline
    from derain.runtime.atomic import write_bytes
    from derain.runtime.bundle import Bundle, PixelFormat
    from derain.runtime.frames import Frame, Image
    from derain.runtime.pipeline import FrameRecord
    from derain.runtime.quality import TruthComparison
    from derain.runtime.sinks import open_sink
    from derain.runtime.sources import open_source

    console = Console(markup=False)
    loaded = Bundle.load(bundle)
    input_spec, output_spec = loaded.manifest.input, loaded.manifest.output
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source, input_spec))
        presented = stack.enter_context(open_sink(sink, output_spec, frames.fps))
        comparison = None
        if truth is not None:
            bgr = output_spec.model_copy(update={"pixels": PixelFormat.BGR8})
            comparison = TruthComparison(stack.enter_context(open_source(truth, bgr)), input_spec, output_spec)
        backend = stack.enter_context(engines.create(engine, loaded))
        backend.warm_up()
        advance = stack.enter_context(_progress(console, frames.frames))

        def on_frame(_: FrameRecord, frame: Frame, clean: Image) -> None:
            if comparison is not None:
                comparison.add(frame.image, clean)
            advance()

        report = pipeline.run(backend, frames, presented, on_frame)

    psnr = comparison.mean() if comparison is not None else None
    if json is not None:
        document = report.model_dump() | ({"psnr_rgb": psnr} if psnr is not None else {})
        write_bytes(json, (dumps(document, indent=2) + "\n").encode())
    _summarise(console, report, psnr, sink)


@contextmanager
def _progress(console: "Console", total: int | None) -> Iterator[Callable[[], None]]:
    """Yield what to call after each frame: it moves a bar on a terminal and now and then adds a line to a log."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if console.is_terminal:
        columns = (TextColumn("derain"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("derain", total=total)
            yield lambda: progress.advance(task)
        return
    done, told = 0, time.monotonic()

    def advance() -> None:
        nonlocal done, told
        done += 1
        if time.monotonic() - told >= LOG_EVERY_S:
            told = time.monotonic()
            console.print(f"frame {done}" if total is None else f"frame {done} of {total}")

    yield advance


def _summarise(console: "Console", report: "RunReport", psnr: dict[str, float | None] | None, sink: str) -> None:
    from rich.table import Table

    console.print(
        f"{report.presented} of {report.frames} frames to {sink}, {report.fps:.1f} frames/s, "
        f"{report.outside_engine_share:.1%} of the time outside the engine",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("latency, ms", "p50", "p90", "p99", "p99.9", "max", box=None)
    for stage, percentiles in report.latency_ms.items():
        table.add_row(stage.replace("_", " "), *(f"{value:.2f}" for _, value in percentiles))
    console.print(table)
    if psnr is not None:
        told = {name: "identical" if value is None else f"{value:.2f} dB" for name, value in psnr.items()}
        console.print(f"PSNR (RGB) against the truth: input {told['input']}, output {told['output']}", highlight=False)
