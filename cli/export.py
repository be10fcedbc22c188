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
) -> None:
    """Unroll a network for one frame size and write it as a bundle."""
    from rich.console import Console

    from derain.export import exporter

    console = Console(markup=False)
    with console.status("tracing, unrolling and converting"):
        bundle, report = exporter.export(weights, out, exporter.parse_size(size), pixels, matrix, color_range, steps)
    manifest = bundle.manifest
    console.print(
        f"{out}: {manifest.model.name}, {manifest.model.parameters:,} parameters, {manifest.input.width}x"
        f"{manifest.input.height} {manifest.input.pixels}\n"
        f"unrolled: {report.macs_naive / 1e9:.2f} to {report.macs / 1e9:.2f} GMAC a frame "
        f"({report.macs / report.macs_naive:.0%}), {report.convolutions_naive} to {report.convolutions} convolutions\n"
        f"check it with `derain verify {out}`",
        highlight=False,
        soft_wrap=True,
    )
