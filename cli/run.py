"""`derain run`: a bundle on a stream of frames."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.files import local
from derain.cli.stream import (
    BundleArgument,
    DeadlineOption,
    EngineOption,
    JsonOption,
    MetricsOption,
    Opened,
    Options,
    PolicyOption,
    PrecisionOption,
    RecordOption,
    RecordToOption,
    SinkOption,
    SourceOption,
    TelemetryOption,
    conclude,
    quiet_decoders,
    stream,
)
from derain.runtime.manifest import Precision

if TYPE_CHECKING:
    from derain.runtime.observers import Observer
    from derain.runtime.quality import TruthComparison


def run(
    bundle: BundleArgument,
    source: SourceOption,
    sink: SinkOption,
    engine: EngineOption = "onnxruntime",
    precision: PrecisionOption = Precision.FP32,
    policy: PolicyOption = None,
    deadline: DeadlineOption = None,
    truth: Annotated[str | None, typer.Option(help="The source's clean frames, to report PSNR against.")] = None,
    json: JsonOption = None,
    telemetry: TelemetryOption = None,
    metrics: MetricsOption = None,
    record: RecordOption = None,
    record_to: RecordToOption = None,
) -> None:
    """Derain a stream with a bundle and report its latency; Ctrl-C stops it cleanly."""
    quiet_decoders()
    from derain.cli.console import Console
    from derain.runtime.observers import Observer

    comparison: TruthComparison | None = None

    def watch(opened: Opened) -> "Observer":
        nonlocal comparison
        comparison = _comparison(source, truth, opened, kept) if truth is not None else None
        return comparison or Observer()

    console = Console(markup=False)
    options = Options(
        bundle=bundle,
        source=source,
        sink=sink,
        engine=engine,
        precision=precision,
        policy=policy,
        deadline=deadline,
        json=json,
        telemetry=telemetry,
        metrics=metrics,
        record=record,
        record_to=record_to,
        truth=truth,
    )
    with ExitStack() as kept:
        report, stopped = stream(options, watch, console)
        try:
            psnr = comparison.mean() if comparison is not None and not stopped else None
        except ValueError:
            conclude(options, console, report, {})  # what was measured is not lost with what does not fit
            raise
    conclude(options, console, report, {"psnr_rgb": psnr} if psnr is not None else {})
    if psnr is not None:
        told = {name: "identical" if value is None else f"{value:.2f} dB" for name, value in psnr.items()}
        console.print(f"PSNR (RGB) against the truth: input {told['input']}, output {told['output']}", highlight=False)


def _comparison(source: str, truth: str, opened: Opened, kept: ExitStack) -> "TruthComparison":
    """Against the truth, which stays open until `kept` closes: whether it goes on is seen after the stream."""
    from derain.runtime.pixels import PixelFormat
    from derain.runtime.quality import TruthComparison, warn_of_other_names
    from derain.runtime.queues import Policy
    from derain.runtime.sources import open_source

    if opened.policy is Policy.LATEST:
        raise ValueError(f"--truth {truth}: compares frame by frame, and latest may drop some: add --policy every")
    warn_of_other_names(local(source), local(truth))
    camera, output = opened.bundle.manifest.input, opened.bundle.manifest.output
    bgr = output.model_copy(update={"pixels": PixelFormat.BGR8})
    return TruthComparison(kept.enter_context(open_source(truth, bgr)), camera, output)
