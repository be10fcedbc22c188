"""`derain average`: the mean of several runs' weights."""

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.files import refuse_overwriting, writable_path


def average(
    weights: Annotated[list[str], typer.Argument(help="Weights of two or more runs that continue one another.")],
    out: Annotated[Path, typer.Option(callback=writable_path, help="The .safetensors file to write.")],
) -> None:
    """Average the weights of runs that continue one another; the mean is often better than any of them."""
    from derain.training.average import average as mean
    from derain.training.models.weights import resolve

    refuse_overwriting({"--out": out}, [resolve(name) for name in weights if not name.startswith("random:")])
    mean(weights, out)
    typer.echo(f"{out}: the mean of {len(weights)} runs; score it with `derain evaluate {out} --pairs RAINY CLEAN`")
