"""`derain serve`: a stream on a live page, before and after side by side."""

from typing import TYPE_CHECKING, Annotated

import typer

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


def serve(
    bundle: BundleArgument,
    source: SourceOption,
    sink: SinkOption = "null://",
    host: Annotated[str, typer.Option(help="Where the page listens: on this machine alone unless told.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port; 0 takes a free one.", min=0, max=65535)] = 8080,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DERAIN_TOKEN",
            help="What a browser must send. A host that others can reach needs one: it is made and shown if not given.",
        ),
    ] = None,
    engine: EngineOption = "onnxruntime",
    precision: PrecisionOption = Precision.FP32,
    policy: PolicyOption = None,
    deadline: DeadlineOption = None,
    json: JsonOption = None,
    telemetry: TelemetryOption = None,
    metrics: MetricsOption = None,
    record: RecordOption = None,
    record_to: RecordToOption = None,
) -> None:
    """Derain a stream and show it on a live page: before and after, latency, drops, faults, the state of the guard."""
    quiet_decoders()
    from derain.cli.console import Console
    from derain.runtime.live import LiveServer, LiveView
    from derain.runtime.redact import redact

    console = Console(markup=False)

    def watch(opened: Opened) -> "Observer":
        manifest = opened.bundle.manifest
        about = {
            "model": manifest.model.name,
            "engine": engine,
            "precision": precision,
            "policy": opened.policy,
            "deadline_ms": opened.deadline_ms,
            "source": redact(source),
        }
        view = LiveView(about, manifest.input, manifest.output)
        server = opened.stack.enter_context(LiveServer(view, host, port, token))
        made = server.token if token is None else None  # one that was given is known, and stays unseen
        console.print(f"live at {server.address}{f'?token={made}' if made else ''}", highlight=False, soft_wrap=True)
        return view

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
    )
    report, _ = stream(options, watch, console)
    conclude(options, console, report, {})
