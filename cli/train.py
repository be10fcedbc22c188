"""`derain train`: a training run from a YAML configuration."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="The run's configuration, YAML.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set optimiser.batch=8 (repeatable).")
    ] = None,
) -> None:
    """Train a network on rendered rain; OUT gets its weights, its configuration and its measurements."""
    import logging

    from rich.console import Console

    from derain.cli.data import data_root
    from derain.training.config import read_config
    from derain.training.trainer import train as run

    logging.getLogger("derain").setLevel(logging.INFO)
    overrides = list(set_ or [])
    root = data_root()
    if root is not None and not any(override.startswith("data.root=") for override in overrides):
        overrides.append(f"data.root={root}")
    weights = run(read_config(config, overrides))
    Console(markup=False).print(
        f"{weights}: export it with `derain export {weights} --out BUNDLE --size WxH`", highlight=False, soft_wrap=True
    )
