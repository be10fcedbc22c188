"""`derain average`: the mean of several runs' weights."""

from pathlib import Path
from typing import Annotated

import typer


def average(
    weights: Annotated[list[str], typer.Argument(help="Weights of two or more runs that continue one another.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
) -> None:
    """Average the weights of runs that continue one another; the mean is often better than any of them."""
    from derain.training.average import average as mean

    mean(weights, out)
    typer.echo(f"{out}: the mean of {len(weights)} runs; score it with `derain evaluate {out} --pairs RAINY CLEAN`")
