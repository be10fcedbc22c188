"""`derain export`: weights to a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from derain.runtime.pixels import ColorMatrix, ColorRange, PixelFormat


def export(
    weights: Annotated[str, typer.Argument(help="A .safetensors file, the name of shipped weights, or random:MODEL.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder.")],
    size: Annotated[str, typer.Option(help="The camera's frames, WxH.")],
    pixels: Annotated[PixelFormat, typer.Option(help="The camera's bytes, in and out.")] = PixelFormat.BGR8,
    matrix: Annotated[ColorMatrix, typer.Option(help="YCbCr matrix, for nv12 and uyvy.")] = ColorMatrix.BT601,
    color_range: Annotated[ColorRange, typer.Option("--range", help="YCbCr range.")] = ColorRange.LIMITED,
    steps: Annotated[int | None, typer.Option(help="Recurrent steps; the weights' own if not given.")] = None,
    downscale: Annotated[
        int, typer.Option(help="The network sees frames 1/N as large; what it changes is enlarged, onto the frame.")
    ] = 1,
) -> None:
    """Unroll a network for one frame size and write it as a bundle."""
    from derain.cli.console import Console
    from derain.export import exporter

    console = Console(markup=False)
    before = _made(out)
    with console.status("tracing, unrolling and converting"):
        bundle, report = exporter.export(
            weights, out, exporter.parse_size(size), pixels, matrix, color_range, steps, downscale=downscale
        )
    manifest = bundle.manifest
    frame = manifest.input
    colours = "" if pixels in (PixelFormat.BGR8, PixelFormat.RGB8) else f" ({frame.matrix}, {frame.range} range)"
    if before:
        lost = f"replaced the bundle that was there: its {', '.join(before)} went with it, to be made again"
        console.print(lost, highlight=False, soft_wrap=True)
    console.print(
        f"{out}: {manifest.model.name}, {manifest.model.parameters:,} parameters, {frame.width}x{frame.height} "
        f"{frame.pixels}{colours}{f', downscale {downscale}' if downscale > 1 else ''}\n"
        f"unrolled: {report.macs_naive / 1e9:.2f} to {report.macs / 1e9:.2f} GMAC a frame "
        f"({report.macs / report.macs_naive:.0%}), {report.convolutions_naive} to {report.convolutions} convolutions\n"
        f"check it with `derain verify {out}`",
        highlight=False,
        soft_wrap=True,
    )


def _made(out: Path) -> list[str]:
    """What a bundle at `out` holds that took more than an export to make."""
    from derain.runtime.bundle import Bundle
    from derain.runtime.manifest import Precision

    try:
        manifest = Bundle.load(out).manifest
    except (OSError, ValueError):
        return []
    graphs = [f"{graph.precision} graph" for graph in manifest.graphs if graph.precision is not Precision.FP32]
    return graphs + [f"engine {engine.file}" for engine in manifest.engines]
