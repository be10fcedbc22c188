"""`derain verify`: PyTorch, graph and engine against each other."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle, made by `derain export`.")],
    engine: Annotated[str, typer.Option(help="The engine by name; `derain doctor` lists them.")] = "onnxruntime",
    seed: Annotated[int, typer.Option(help="Of the frame that is compared.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
    drift: Annotated[
        Path | None,
        typer.Option(help="Where a failure leaves the node that drifts; drift.PRECISION.onnx beside the bundle."),
    ] = None,
) -> None:
    """Prove every graph of a bundle equal to its network in PyTorch; exit status 1 where one is not."""
    from json import dumps

    from rich.console import Console

    from derain.export.minimal import write_minimal
    from derain.export.probe import seeded_frame
    from derain.export.verify import verify as compare
    from derain.runtime.atomic import write_bytes
    from derain.runtime.bundle import Bundle
    from derain.runtime.memory import keep_freed_memory

    keep_freed_memory()
    console = Console(markup=False)
    with console.status("comparing with PyTorch"):
        loaded = Bundle.load(bundle)
        results = compare(loaded, engine, seed)
    if json is not None:
        write_bytes(json, (dumps({str(r.precision): r.to_json() for r in results}, indent=2) + "\n").encode())
    for result in results:
        console.print(
            f"{result.precision}: {'passed' if result.passed else 'FAILED'}, {result.psnr_vs_fp32:.1f} dB against "
            f"PyTorch, at most {result.max_abs_diff} grey level{'s' * (result.max_abs_diff != 1)} apart",
            highlight=False,
            soft_wrap=True,
        )
    failed = [result for result in results if not result.passed]
    if failed:
        where = f", first in tensor {failed[0].first_drift!r}" if failed[0].first_drift else ""
        where += f"; {failed[0].overflow!r} overflows" if failed[0].overflow else ""
        if tensor := failed[0].first_drift or failed[0].overflow:
            path = drift or bundle.resolve().with_name(f"drift.{failed[0].precision}.onnx")
            frame = seeded_frame(loaded.manifest.input, seed)
            values = write_minimal(loaded, failed[0].precision, tensor, frame, path)
            console.print(f"{path}: its node alone; {values.name}: the values", highlight=False, soft_wrap=True)
        raise ValueError(
            f"{bundle}: the {failed[0].precision} graph drifts from PyTorch{where}: export it again with this version"
        )
