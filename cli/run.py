"""`derain run`: a bundle on a stream of frames."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

LIVE_DEADLINE_MS = 500.0
"""For live sources, unless given: a picture that old is a frozen one to a driver."""


def quiet_decoders() -> None:
    """Keep FFmpeg's and OpenCV's own lines off stderr: they would drown the one line an error is told in."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


def run(
    bundle: Annotated[Path, typer.Argument(help="The bundle, made by `derain export`.")],
    source: Annotated[
        str,
        typer.Option(
            help="file://CLIP, frames://FOLDER, v4l2:///dev/videoN, rtsp://HOST/PATH, gst:PIPELINE, shm://NAME "
            "or test://rain?frames=N"
        ),
    ],
    sink: Annotated[
        str,
        typer.Option(
            help="file://OUT.mkv|.avi|.mp4, frames://FOLDER, mjpeg://HOST:PORT, display://, shm://NAME or null://"
        ),
    ],
    engine: Annotated[str, typer.Option(help="The engine by name; `derain doctor` lists them.")] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or fp8: one the bundle has.")] = "fp32",
    policy: Annotated[
        str | None,
        typer.Option(help="latest: the newest frame wins (live sources' own); every: none is lost (files' own)."),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="The raw frame goes out where the derained one is not there this long after its capture. "
            f"Live sources: {LIVE_DEADLINE_MS:.0f} unless given; files: none.",
        ),
    ] = None,
    truth: Annotated[str | None, typer.Option(help="The clean frames of the source, to report PSNR against.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
) -> None:
    """Derain a stream with a bundle and report its latency; Ctrl-C ends it as the end of the source would."""
    quiet_decoders()
    from json import dumps

    from rich.console import Console

    from derain.cli.live import live_line, stopping, summarise
    from derain.runtime import engines, pipeline
    from derain.runtime.atomic import write_bytes
    from derain.runtime.bundle import Bundle, PixelFormat, Precision
    from derain.runtime.frames import Frame, Image
    from derain.runtime.quality import TruthComparison
    from derain.runtime.queues import Policy
    from derain.runtime.records import FrameRecord
    from derain.runtime.redact import redact
    from derain.runtime.sinks import open_sink
    from derain.runtime.sources import open_source

    if policy is not None and policy not in list(Policy):
        raise typer.BadParameter(f"{policy!r} is unknown, known are: {', '.join(Policy)}", param_hint="--policy")
    if precision not in list(Precision):
        raise typer.BadParameter(f"{precision!r} is unknown, known: {', '.join(Precision)}", param_hint="--precision")
    if deadline is not None and not deadline > 0:
        raise typer.BadParameter(f"{deadline:g} ms, expected more than 0", param_hint="--deadline")
    console = Console(markup=False)
    loaded = Bundle.load(bundle)
    input_spec, output_spec = loaded.manifest.input, loaded.manifest.output
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        frames = stack.enter_context(open_source(source, input_spec))
        chosen = Policy(policy) if policy else Policy.LATEST if frames.live else Policy.EVERY
        if truth is not None and chosen is Policy.LATEST:
            raise ValueError(f"--truth {truth}: compares frame by frame, and latest may drop some: add --policy every")
        presented = stack.enter_context(open_sink(sink, output_spec, frames.fps))
        comparison = None
        if truth is not None:
            bgr = output_spec.model_copy(update={"pixels": PixelFormat.BGR8})
            comparison = TruthComparison(stack.enter_context(open_source(truth, bgr)), input_spec, output_spec)
        backend = stack.enter_context(engines.create(engine, loaded, Precision(precision)))
        backend.warm_up()
        show = stack.enter_context(live_line(console, frames.frames))

        def on_frame(_: FrameRecord, frame: Frame, shown: Image) -> None:
            if comparison is not None:
                comparison.add(frame.image, shown)

        report = pipeline.run(
            backend,
            frames,
            presented,
            on_frame,
            policy=chosen,
            deadline_ms=deadline if deadline is not None or not frames.live else LIVE_DEADLINE_MS,
            on_status=show,
            stop=stop,
        )

    psnr = comparison.mean() if comparison is not None and not stop.is_set() else None
    if json is not None:
        document = report.model_dump() | ({"psnr_rgb": psnr} if psnr is not None else {})
        write_bytes(json, (dumps(document, indent=2) + "\n").encode())
    summarise(console, report, redact(sink))
    if psnr is not None:
        told = {name: "identical" if value is None else f"{value:.2f} dB" for name, value in psnr.items()}
        console.print(f"PSNR (RGB) against the truth: input {told['input']}, output {told['output']}", highlight=False)
