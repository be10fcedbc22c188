"""What `derain run` and `derain serve` share: their options, and a bundle on a stream until one of both ends."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.files import files_of, json_path, local, refuse_overwriting, write_json
from derain.runtime.manifest import Precision

if TYPE_CHECKING:
    from rich.console import Console

    from derain.runtime.bundle import Bundle
    from derain.runtime.observers import Observer
    from derain.runtime.queues import Policy
    from derain.runtime.records import RunReport
    from derain.runtime.sources import Source

log = logging.getLogger(__name__)

LIVE_DEADLINE_MS = 500.0
"""For live sources, unless given: a picture that old is a frozen one to a driver."""

BundleArgument = Annotated[Path, typer.Argument(help="The bundle, made by `derain export`.")]
SourceOption = Annotated[
    str,
    typer.Option(
        help="file://CLIP, frames://FOLDER, v4l2:///dev/videoN, rtsp://HOST/PATH, gst:PIPELINE, shm://NAME "
        "or test://rain?frames=N"
    ),
]
SinkOption = Annotated[
    str,
    typer.Option(
        help="file://OUT.mkv|.avi|.mp4, frames://FOLDER, mjpeg://HOST:PORT, display://, shm://NAME or null://"
    ),
]
EngineOption = Annotated[str, typer.Option(help="The engine by name; `derain doctor` lists them.")]
PrecisionOption = Annotated[Precision, typer.Option(help="One the bundle has.")]
PolicyOption = Annotated[
    str | None,
    typer.Option(help="latest: drop older frames (cameras' default); every: keep all (files' default)."),
]
DeadlineOption = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        help="Send the raw frame on if the derained one is not ready this long after its capture. "
        f"Default: {LIVE_DEADLINE_MS:.0f} for cameras, none for files; inf: none.",
    ),
]
TelemetryOption = Annotated[
    Path | None, typer.Option(metavar="FILE.jsonl", help="Append a line of JSON with the run's figures each second.")
]
MetricsOption = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Serve metrics to Prometheus; without HOST, to this machine only."),
]
RecordOption = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Save so much around each fault, half before, half after.", min=0.1, max=3600),
]
RecordToOption = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where --record saves them.")]
JsonOption = Annotated[Path | None, typer.Option(callback=json_path, help="Write the report to this file; -: stdout.")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that `run` and `serve` share."""

    bundle: Path
    source: str
    sink: str
    engine: str
    precision: Precision
    policy: str | None
    deadline: float | None
    json: Path | None
    telemetry: Path | None
    metrics: str | None
    record: float | None
    record_to: Path | None
    truth: str | None = None


@dataclass(frozen=True)
class Opened:
    """A stream that is about to run, for whoever wants to watch it; `stack` closes what they open."""

    stack: ExitStack
    bundle: "Bundle"
    source: "Source"
    policy: "Policy"
    deadline_ms: float | None


Watch = Callable[[Opened], "Observer"]


def quiet_decoders() -> None:
    """Keep FFmpeg's and OpenCV's own lines off stderr: they would drown the one line an error is told in.

    And let OpenCV wait 5 s for a V4L2 camera's frame, not 10: one that stalls is reopened after 2 s, which fails until
    the read that hangs returns and frees it. 5 s is what a first frame may take (`FIRST_FRAME_S`).

    Before OpenCV is imported, which reads these once.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "5")


def stream(options: Options, watch: Watch, console: "Console") -> tuple["RunReport", bool]:
    """Run until the source ends or a signal comes; the report, and whether it was a signal. `watch` gives a watcher.

    Where an error ends the run, what it measured until then is written and printed before the error goes up.
    """
    reports: list[RunReport] = []
    try:
        return _stream(options, watch, console, reports.append)
    except Exception:
        if reports and reports[0].frames:
            try:
                conclude(options, console, reports[0], {})
            except OSError as fault:  # such as the full disk that ended the run
                log.warning("the report is lost: %s", fault)
        raise


def _stream(
    options: Options, watch: Watch, console: "Console", keep: Callable[["RunReport"], None]
) -> tuple["RunReport", bool]:
    from derain.cli.live import LiveLine, stopping
    from derain.runtime import engines, pipeline
    from derain.runtime.bundle import Bundle
    from derain.runtime.observers import ReportTo
    from derain.runtime.queues import Policy
    from derain.runtime.sinks import open_sink
    from derain.runtime.sources import open_source

    policy, deadline = options.policy, options.deadline
    if policy is not None and policy not in list(Policy):
        raise typer.BadParameter(f"{policy!r} is unknown, known are: {', '.join(Policy)}", param_hint="--policy")
    if deadline is not None and not deadline > 0:
        raise typer.BadParameter(f"{deadline:g} ms, expected more than 0", param_hint="--deadline")
    if (options.record is None) != (options.record_to is None):
        raise typer.BadParameter("expected both --record SECONDS and --record-to FOLDER, or neither")
    bundle = Bundle.load(options.bundle)
    _refuse_overwriting(options, bundle)
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        # Before the source: a network camera sends while the engine starts, and what waits is old when it is taken
        engine = stack.enter_context(engines.create(options.engine, bundle, options.precision))
        engine.warm_up()
        source = stack.enter_context(open_source(options.source, bundle.manifest.input))
        if deadline is None and source.live:
            deadline = LIVE_DEADLINE_MS
        opened = Opened(
            stack=stack,
            bundle=bundle,
            source=source,
            policy=Policy(policy) if policy else Policy.LATEST if source.live else Policy.EVERY,
            deadline_ms=deadline if deadline is not None and isfinite(deadline) else None,
        )
        if opened.policy is Policy.LATEST and not source.live and local(options.sink) is not None:
            raise ValueError(
                f"--policy latest: {options.source} is read as fast as it can be, so that most of its frames would be "
                f"missing in {options.sink}: leave --policy out"
            )
        sink = stack.enter_context(open_sink(options.sink, bundle.manifest.output, source.fps, source.live))
        observers = [
            ReportTo(keep),
            watch(opened),
            *_observers(options, opened),
            stack.enter_context(LiveLine(console, source.frames)),
        ]
        report = pipeline.run(
            engine,
            source,
            sink,
            observers,
            policy=opened.policy,
            deadline_ms=opened.deadline_ms,
            stop=stop,
        )
        sink.close()  # before those who watched, who may have a clip to write yet
    return report, stop.is_set()


def _refuse_overwriting(options: Options, bundle: "Bundle") -> None:
    """Before anything is opened: a run that ends early would cut what it reads."""
    written = {"--sink": local(options.sink), "--json": options.json, "--telemetry": options.telemetry}
    pictures = (local(options.source), local(options.truth) if options.truth is not None else None)
    refuse_overwriting(written, [*pictures, *files_of(bundle)])


def _observers(options: Options, opened: Opened) -> Iterator["Observer"]:
    """What the options ask for, opened."""
    if options.telemetry is not None:
        from derain.runtime.telemetry import JsonLines

        yield opened.stack.enter_context(JsonLines(options.telemetry))
    if options.metrics is not None:
        from derain.runtime.metrics import Metrics

        yield opened.stack.enter_context(Metrics(options.metrics))
    if options.record is not None and options.record_to is not None:
        from derain.runtime.recorder import Recorder

        manifest, source = opened.bundle.manifest, opened.source
        specs = manifest.input, manifest.output
        recorder = Recorder(options.record_to, options.record, *specs, source.fps, source.live)
        yield opened.stack.enter_context(recorder)


def conclude(options: Options, console: "Console", report: "RunReport", more: Mapping[str, object]) -> None:
    """Write the report, with `more` keys in its JSON, and print the summary."""
    from derain.cli.live import summarise
    from derain.runtime.redact import redact

    try:
        summarise(console, report, redact(options.sink))
    finally:  # neither costs the other
        write_json(options.json, report.model_dump() | dict(more))
