"""`derain train`: a training run from a YAML configuration, to be resumed after whatever ended it."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="The run's configuration, YAML.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set optimiser.batch=8 (repeatable).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder from its last checkpoint.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after so many minutes with a checkpoint, to be resumed.")
    ] = None,
) -> None:
    """Train a network on rendered rain or real pairs; OUT gets its weights, its configuration and its measurements.

    Ctrl-C and SIGTERM stop it with a checkpoint after the current iteration.

    Several GPUs: torchrun --nproc-per-node 4 --no-python derain train CONFIG --set machine.devices=4
    """
    from derain.cli.stream import quiet_decoders

    quiet_decoders()
    import logging
    import warnings
    from json import dumps
    from signal import SIGINT

    from derain.cli.console import Console
    from derain.cli.data import data_root
    from derain.training.callbacks import Interrupted
    from derain.training.checkpoints import iterations_done
    from derain.training.config import overridden, read_config, read_tree
    from derain.training.records import is_run
    from derain.training.trainer import train as run

    console = Console(markup=False)
    logging.getLogger("derain").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    known = "LeafSpec|many workers|worker processes|the logging interval|`__len__` defined"
    warnings.filterwarnings("ignore", message=f".*({known})")
    overrides = list(set_ or [])
    root, data = data_root(), overridden(read_tree(config), overrides).get("data")
    if root is not None and not (isinstance(data, dict) and "root" in data):
        overrides.append(f"data.root={dumps(str(root))}")  # a string, whatever YAML would make of it
    if resume is not None:
        overrides.append(f"out={dumps(str(resume))}")
    settings = read_config(config, overrides)
    own = settings.out / "config.yaml"
    if config.resolve() == own.resolve() and (resume is None or not is_run(settings.out)):
        raise ValueError(
            f"{config} is where the resolved configuration goes and would be overwritten: --resume "
            f"{settings.out} goes on with its run, --set out=FOLDER begins another"
        )
    interrupted, weights = None, settings.out / "weights.safetensors"
    try:
        run(settings, resume is not None, minutes, progress=console.is_terminal)
    except (KeyboardInterrupt, SystemExit) as ended:  # Ctrl-C before the first iteration, which Lightning makes an exit
        interrupted = ended if isinstance(ended, Interrupted) else Interrupted(SIGINT)
    done, wanted = iterations_done(settings.out / "checkpoint.safetensors"), settings.optimiser.iterations
    resolved = settings.out / "config.yaml"  # has what --set changed
    if not resolved.is_file():
        told = f"ended before the run in {settings.out} began: give the same command again"
    elif done < wanted:
        told = f"iteration {done} of {wanted}: go on with `derain train {resolved} --resume {settings.out}`"
    else:
        told = (
            f"complete after {done} iterations: export {weights} with `derain export {weights} --out BUNDLE --size WxH`"
        )
    console.print(told, highlight=False, soft_wrap=True)
    if interrupted is not None:
        raise interrupted
