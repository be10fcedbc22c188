"""`derain evaluate`: PSNR and SSIM of weights or a bundle on pairs of images."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="Weights (a file or a shipped name) or a bundle.")],
    pairs: Annotated[tuple[Path, Path], typer.Option(help="The folder of rainy images and the folder of clean ones.")],
    engine: Annotated[str, typer.Option(help="What runs a bundle.")] = "onnxruntime",
    json: Annotated[Path | None, typer.Option(help="Write the scores of every image to this file.")] = None,
) -> None:
    """Score the rainy input and the derained output against the truth, in RGB and on the Y channel."""
    from contextlib import ExitStack
    from json import dumps

    import numpy as np
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from derain.cli.memory import keep_freed_memory
    from derain.runtime import engines
    from derain.runtime.atomic import write_bytes
    from derain.runtime.bundle import Bundle
    from derain.runtime.frames import from_bgr, to_bgr
    from derain.training import evaluate as scoring
    from derain.training.models.checkpoint import load

    keep_freed_memory()
    console = Console(markup=False)
    with ExitStack() as stack:
        derain: Callable[[scoring.Image], scoring.Image]
        if Path(model).is_dir():
            bundle = Bundle.load(Path(model))
            runner = stack.enter_context(engines.create(engine, bundle))
            spec_in, spec_out = bundle.manifest.input, bundle.manifest.output

            def derain(image: scoring.Image) -> scoring.Image:
                camera = from_bgr(np.ascontiguousarray(image[..., ::-1]), spec_in)
                return np.ascontiguousarray(to_bgr(runner.infer(camera), spec_out)[..., ::-1])

        else:
            derain = scoring.derain_with(load(model).network)
        found = list(scoring.read_pairs(*pairs))
        scores = scoring.evaluate(derain, track(found, "evaluating", console=console, transient=True))
    if json is not None:
        write_bytes(json, (dumps(_plain(scores), indent=2) + "\n").encode())
    table = Table(f"mean of {len(found)}", "input", "output", "gain", box=None)
    for metric in scoring.METRICS:
        before, after = scores[metric]["input"], scores[metric]["output"]
        digits = 2 if metric.startswith("psnr") else 4
        table.add_row(metric, f"{before:.{digits}f}", f"{after:.{digits}f}", f"{after - before:+.{digits}f}")
    console.print(table)


def _plain(value: Any) -> Any:
    """The scores as JSON knows them: an infinite PSNR, of equal images, is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
