"""`derain`: the verbs, and how faults are told.

A fault ends in one line, "error: …", and exit status 1; `--debug` shows the traceback instead. Wrong usage exits 2.
"""

import logging
import sys
from importlib import metadata
from typing import Annotated

import typer

from derain.cli.average import average
from derain.cli.bench import bench
from derain.cli.build import build
from derain.cli.calibrate import calibrate
from derain.cli.console import Console, log_handler
from derain.cli.demo import demo
from derain.cli.doctor import doctor
from derain.cli.evaluate import evaluate
from derain.cli.export import export
from derain.cli.extras import extra_for
from derain.cli.inspect import inspect
from derain.cli.run import run
from derain.cli.serve import serve
from derain.cli.synthesize import synthesize
from derain.cli.train import train
from derain.cli.verify import verify
from derain.runtime.atomic import DISK_FULL

ABOUT = "Remove rain from camera frames: train, export, verify, calibrate, build and run a deraining network."

app = typer.Typer(
    name="derain",
    help=ABOUT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
VERBS = (
    demo,
    synthesize,
    train,
    average,
    evaluate,
    export,
    calibrate,
    build,
    verify,
    run,
    serve,
    bench,
    inspect,
    doctor,
)
for verb in VERBS:
    app.command()(verb)


def tell_version(asked: bool) -> None:
    """Callback of --version."""
    if asked:
        Console().print(f"derain {metadata.version('derain')}", highlight=False)
        raise typer.Exit


@app.callback(help=ABOUT)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show log messages, and a traceback on a fault.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Where log messages go, and how many."""
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(level=level, format="%(name)s: %(message)s", handlers=[log_handler()])
    if debug:
        logging.getLogger("derain").setLevel(logging.DEBUG)


def tell(error: Exception) -> str:
    """The one line that tells a fault: as written where it was raised, else with the kind of exception before it."""
    message = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        verb = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "derain")
        if extra := extra_for(package, verb):
            return f"{verb} needs the package {package!r}, which is not installed: pip install 'derain[{extra}]'"
    if isinstance(error, MemoryError) or "out of memory" in message or "can't allocate memory" in message:
        first = message.partition(". ")[0]
        return f"{first}: reduce the load (train: optimiser.batch or data.patch; elsewhere a smaller size)"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror}: free space on its disk, or name another place, and run the command again"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, OSError, ModuleNotFoundError)) and message:
        return message
    return f"{type(error).__name__}: {message} (unexpected; run again with --debug and report it)"


def main() -> None:
    """The console script."""
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv[1:]:
            raise
        Console(stderr=True).print(f"error: {tell(error)}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
