"""`derain verify`: PyTorch, graph and engine against each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.files import files_of, json_path, local, refuse_overwriting, writable_path, write_json

if TYPE_CHECKING:
    from derain.export.verify import Distance, Verification

FRAMES = 4


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle, made by `derain export`.")],
    engine: Annotated[str, typer.Option(help="The engine by name; `derain doctor` lists them.")] = "onnxruntime",
    seed: Annotated[int, typer.Option(help="Seed of the synthetic frame that is always compared.", min=0)] = 0,
    frames: Annotated[str | None, typer.Option(help="The camera's frames as well: a folder, a clip or a URI.")] = None,
    count: Annotated[
        int | None, typer.Option(help=f"Frames to choose from --frames, the most different ones; {FRAMES} by default.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(callback=json_path, help="Write the result to this file; -: stdout.")
    ] = None,
    drift: Annotated[
        Path | None,
        typer.Option(
            callback=writable_path,
            help="ONNX file for the node that failed; BUNDLE.drift.PRECISION.onnx beside the bundle by default.",
        ),
    ] = None,
) -> None:
    """Prove every graph of a bundle equal to its network in PyTorch; exit status 1 where one is not."""
    from shlex import quote

    from derain.calibration.frames import choose, recorded
    from derain.cli.console import Console
    from derain.export.minimal import write_minimal
    from derain.export.probe import seeded_frame
    from derain.export.verify import verify as compare
    from derain.runtime.bundle import Bundle
    from derain.runtime.memory import keep_freed_memory
    from derain.runtime.sources import open_source

    if drift is not None and drift.suffix != ".onnx":
        raise ValueError(f"--drift {drift}: expected a name that ends in .onnx; its values go beside it, into an .npz")
    if count is not None and frames is None:
        raise typer.BadParameter("chooses from --frames: give both, or neither", param_hint="--count")
    keep_freed_memory()
    console = Console(markup=False, highlight=False, soft_wrap=True)
    with console.status("comparing with PyTorch"):
        loaded = Bundle.load(bundle)
        values = None if drift is None else drift.with_suffix(".npz")
        written = {"--json": json, "--drift": drift, "--drift's values": values}
        refuse_overwriting(written, [*files_of(loaded), local(frames) if frames is not None else None])
        spec = loaded.manifest.input
        names, pictures = [f"seed {seed}"], [seeded_frame(spec, seed)]
        if frames is not None:
            with open_source(frames, spec) as stream:
                chosen = choose(
                    recorded(stream, frames), spec, FRAMES if count is None else count, frames, fewest=1, varied=False
                )
            names += [f"frame {frame.id} of {frames}" for frame in chosen]
            pictures += [frame.image for frame in chosen]
        results = compare(loaded, engine, seed, pictures[1:])
    write_json(json, {str(result.precision): result.to_json() for result in results})
    for result in results:
        worst = f" on the worst of {len(names)} frames, {names[result.frame]}" if len(names) > 1 else ""
        console.print(
            f"{result.precision}: {'passed' if result.passed else 'FAILED'}, {_distance(result.total)} against PyTorch"
            f"{worst}\n  PyTorch to graph {_distance(result.pytorch_to_graph)}, "
            f"graph to {engine} {_distance(result.graph_to_engine)}"
        )
    compared = {result.precision for result in results}
    for graph in loaded.manifest.graphs:
        if graph.precision not in compared:
            mend = f"derain build {quote(str(bundle))} --precision {graph.precision} --api {engine}"
            console.print(f"{graph.precision}: left out, there is no {engine} engine of it: run `{mend}`")
    for result in results:
        if not result.passed:
            if tensor := result.first_drift or result.overflow:
                path = drift or bundle.resolve().with_name(f"{bundle.resolve().name}.drift.{result.precision}.onnx")
                try:
                    values = write_minimal(loaded, result.precision, tensor, pictures[result.frame], path)
                    console.print(f"{path}: its node alone; {values.name}: the values")
                except OSError as error:
                    console.print(
                        f"its node cannot be left in {path.parent}: {error.strerror or error}; give --drift a place"
                    )
            raise ValueError(f"{bundle}: the {result.precision} graph {_fault(result, bundle)}")


def _distance(distance: "Distance") -> str:
    psnr, worst = distance.psnr, distance.max_abs_diff
    return f"{psnr:.1f} dB, at most {worst} grey level{'s' * (worst != 1)} apart"


def _fault(result: "Verification", bundle: Path) -> str:
    from shlex import quote

    from derain.runtime.manifest import Precision

    if result.overflow:
        return f"{result.graph_fault}: expected weights that fit its precision"
    if result.graph_fault is None:
        return f"is right, but its engine is not (it {result.engine_fault}): build it again with `derain build`"
    where = f", first in tensor {result.first_drift!r}" if result.first_drift else ""
    mend = "export it again with this version"
    if result.precision is not Precision.FP32:
        mend = f"run `derain calibrate {quote(str(bundle))} --precision {result.precision} --frames …`"
    return f"drifts from PyTorch{where} (it {result.graph_fault}): {mend}"
