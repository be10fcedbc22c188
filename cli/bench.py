"""`derain bench`: latency under a camera's clock; `bench_compare` beside it compares reports and engines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.bench_compare import PICTURES, compare_engines, compare_reports, first_pictures, tell_if_busy
from derain.cli.files import files_of, json_path, local, refuse_overwriting, writable_path, write_json
from derain.cli.stream import EngineOption, PrecisionOption
from derain.runtime.manifest import Precision

if TYPE_CHECKING:
    from derain.cli.console import Console
    from derain.runtime.bench import BenchReport

FOR_COMPARE = {"compare", "json"}
FOR_ALL = {"bundle", "everything", "source", "truth", "seconds", "json", "html"}

MANY = 1000
"""Frames from which p99.9 is one of them and not an end of what was seen."""


def bench(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Argument(help="The bundle, made by `derain export`.")] = None,
    engine: EngineOption = "onnxruntime",
    precision: PrecisionOption = Precision.FP32,
    fps: Annotated[
        float, typer.Option(help="The camera's frame rate; it never waits for the engine.", min=0.1, max=1000)
    ] = 30.0,
    seconds: Annotated[float, typer.Option(help="How long to measure, after the warm-up.", min=0.1, max=1e6)] = 40.0,
    warm_up: Annotated[float, typer.Option(help="Seconds to run before the measurement.", min=0, max=1e6)] = 2.0,
    deadline: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Send the raw frame on if the derained one is not ready so long after its capture; else never.",
            min=0.001,
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(help=f"Source of the {PICTURES} frames that are shown in turn.")
    ] = "test://rain",
    everything: Annotated[
        bool, typer.Option("--all", help="Every precision on every engine at hand, side by side, instead of a stream.")
    ] = False,
    truth: Annotated[str | None, typer.Option(help="With --all: the clean frames, one for each of --source.")] = None,
    json: Annotated[
        Path | None,
        typer.Option(callback=json_path, help="Write the report with every frame's times to this file; -: stdout."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(callback=writable_path, help="Write a page with plots to this file.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Compare two reports instead of measuring."),
    ] = None,
) -> None:
    """Measure a bundle's latency stage by stage at a camera's frame rate, or compare two measurements."""
    from derain.cli.stream import quiet_decoders

    quiet_decoders()
    from derain.cli.console import Console

    console = Console(markup=False)
    if (bundle is None) == (compare is None):
        raise typer.BadParameter("expected either a bundle to measure or --compare A.json B.json")
    if compare is not None:
        _refuse_others(context, FOR_COMPARE, "--compare")
        refuse_overwriting({"--json": json}, compare)
        write_json(json, compare_reports(console, *compare))
        return

    from derain.runtime import engines
    from derain.runtime.atomic import write_bytes
    from derain.runtime.bench import bench as measure
    from derain.runtime.bench_page import page
    from derain.runtime.bundle import Bundle

    if everything:
        _refuse_others(context, FOR_ALL, "--all")
    elif truth is not None:
        raise typer.BadParameter("--truth is for --all")
    assert bundle is not None
    loaded = Bundle.load(bundle)
    pictures_of = (local(source), local(truth) if truth is not None else None)
    refuse_overwriting({"--json": json, "--html": html}, [*files_of(loaded), *pictures_of])
    if everything:
        compare_engines(console, loaded, source, truth, seconds, json, html)
        return
    pictures = first_pictures(source, loaded.manifest.input, PICTURES)
    with engines.create(engine, loaded, precision) as backend:
        backend.warm_up()
        with console.status(f"measuring for {warm_up + seconds:g} s"):
            report = measure(backend, pictures, fps, seconds, warm_up, deadline)
    try:
        write_json(json, report)
        if html is not None:
            write_bytes(html, page(report).encode())
    finally:  # neither costs the other
        _tell(console, report)


def _tell(console: "Console", report: "BenchReport") -> None:
    from derain.cli.live import summarise

    summarise(console, report, "null://")
    if (jitter := report.jitter_ms) is not None:
        console.print(f"jitter p50 {jitter.p50:.2f} ms, p99 {jitter.p99:.2f} ms", highlight=False)
    if report.frames < MANY:
        console.print(f"p99.9 of {report.frames} frames is hardly more than their slowest: --seconds makes it longer")
    tell_if_busy(console, report)


def _refuse_others(context: typer.Context, known: set[str], option: str) -> None:
    """Raise BadParameter where an option was given that `option` does not look at."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in known:
            raise typer.BadParameter(f"{parameter.opts[0]} says nothing to {option}: leave it out")
