"""`derain calibrate`: frames to an FP16, INT8 or FP8 graph that says what it costs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from derain.cli.files import files_of, json_path, local, refuse_overwriting, write_json


class CalibratedPrecision(StrEnum):
    """Precisions whose graphs are made on frames."""

    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"


class UnquantisedPrecision(StrEnum):
    """The precision of layers that are not quantised."""

    FP16 = "fp16"
    FP32 = "fp32"


class RangeMethod(StrEnum):
    """How calibration ranges are chosen."""

    BEST = "best"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="The bundle, made by `derain export`.")],
    frames: Annotated[str, typer.Option(help="The camera's frames: a folder, a clip or a URI.")],
    precision: Annotated[CalibratedPrecision, typer.Option(help="Precision of the graph to make.")],
    truth: Annotated[str | None, typer.Option(help="The clean frames, one for each of --frames.")] = None,
    method: Annotated[
        RangeMethod, typer.Option(help="How calibration ranges are chosen; best tries all.")
    ] = RangeMethod.BEST,
    count: Annotated[int, typer.Option(help="Frames to pick from the clip, the most different ones.")] = 16,
    max_loss: Annotated[
        float,
        typer.Option(help="Largest loss of PSNR in dB; the costliest layers stay in floating point until it is met."),
    ] = 0.15,
    rest: Annotated[
        UnquantisedPrecision, typer.Option(help="Precision of layers that are not quantised; fp32 suits CPUs.")
    ] = UnquantisedPrecision.FP16,
    json: Annotated[
        Path | None, typer.Option(callback=json_path, help="Write what each layer costs to this file; -: stdout.")
    ] = None,
) -> None:
    """Make a bundle's FP16, INT8 or FP8 graph on frames like those the camera sees."""
    from contextlib import ExitStack

    from derain.calibration.calibrate import MAX_LOSS
    from derain.calibration.calibrate import calibrate as run
    from derain.calibration.fp16 import calibrate_fp16
    from derain.calibration.frames import recorded
    from derain.calibration.ranges import Method
    from derain.cli.console import Console
    from derain.export.exporter import is_untrained
    from derain.runtime.bundle import Bundle
    from derain.runtime.engines.tensorrt_api import build_command
    from derain.runtime.manifest import FrameSpec, Precision
    from derain.runtime.names import check_name
    from derain.runtime.quality import warn_of_other_names
    from derain.runtime.sources import open_source

    given = {
        "--truth": truth,
        "--method": method is not RangeMethod.BEST,
        "--rest": rest is not UnquantisedPrecision.FP16,
        "--max-loss": max_loss != MAX_LOSS,
    }
    if precision is CalibratedPrecision.FP16 and (vain := [option for option, value in given.items() if value]):
        raise ValueError(f"{', '.join(vain)}: for int8 and fp8 alone; leave it out with --precision fp16")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    loaded = Bundle.load(bundle)
    pictures = [local(uri) for uri in (frames, truth) if uri is not None]
    refuse_overwriting({"--json": json}, [*files_of(loaded), *pictures])
    for place in pictures:
        if place is not None:
            check_name(place)  # it goes into the manifest, which is UTF-8
    if truth is not None:
        warn_of_other_names(*pictures)
    before = loaded.manifest.engines
    spec = loaded.manifest.input
    clean_spec = FrameSpec(tensor="truth", width=spec.width, height=spec.height)
    with console.status(f"calibrating {precision}") as status, ExitStack() as files:
        stream = recorded(files.enter_context(open_source(frames, spec)), frames)

        def progress(phase: str, share: float) -> None:
            status.update(f"calibrating {precision}: {phase} {share:.0%}")

        answer: dict[str, Any]
        if precision is CalibratedPrecision.FP16:
            loaded, report = calibrate_fp16(loaded, stream, frames, count)
            answer = report.to_json()
        else:
            loaded, result = run(
                loaded,
                Precision(precision),
                stream,
                frames,
                truth=None if truth is None else recorded(files.enter_context(open_source(truth, clean_spec)), truth),
                method=None if method is RangeMethod.BEST else Method(method),
                count=count,
                max_loss=max_loss,
                rest=Precision(rest),
                progress=progress,
            )
            answer = result.to_json()
    _tell(console, f"{bundle}/graph.{precision}.onnx", answer)
    for engine in before:
        if engine not in loaded.manifest.engines:
            console.print(f"dropped {engine.file}, the old graph's engine: run `{build_command(bundle, engine)}`")
    if is_untrained(loaded):
        console.print("the weights are random: its dB say nothing of a trained network, nor do the layers kept for it")
    write_json(json, answer)


def _tell(console: Any, graph: str, answer: dict[str, Any]) -> None:
    psnr = "equal" if answer["psnr_vs_fp32"] is None else f"{answer['psnr_vs_fp32']:.1f} dB"
    if "overflowing" in answer:
        kept = len(answer["overflowing"]) + len(answer["lossy"])
        console.print(f"{graph}: {psnr} against FP32; {kept} nodes kept in FP32, largest value {answer['largest']:.4g}")
        return
    worst = sorted(answer["layers"], key=lambda layer: -layer["loss_db"])[:5]
    console.print(
        f"{graph}: loses {answer['loss_db']:.3f} dB, {psnr} against FP32, ranges by {answer['method']}; "
        f"{len(answer['kept'])} layers kept in floating point"
    )
    for layer in worst:
        console.print(f"  {layer['name']} alone costs {layer['loss_db']:.3f} dB")
