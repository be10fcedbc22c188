"""`derain build`: a graph to a TensorRT engine."""

from pathlib import Path
from typing import Annotated

import typer

from derain.runtime.manifest import Precision


def build(
    bundle: Annotated[Path, typer.Argument(help="The bundle, made by `derain export`.")],
    precision: Annotated[
        Precision, typer.Option(help="Precision of the graph to build; int8 and fp8 come from `derain calibrate`.")
    ],
    api: Annotated[str | None, typer.Option(help="tensorrt or tensorrt-rtx; the installed one by default.")] = None,
    arch: Annotated[
        str | None, typer.Option(help="Target GPUs, as sm86,sm89 (TensorRT-RTX only; default: all it supports).")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(help="MiB of GPU memory a kernel may use for itself.", min=1, max=1 << 20)
    ] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help="Let FP32 convolutions round to TF32.")] = False,
) -> None:
    """Build a TensorRT engine and add it to the bundle; the FP16 graph is made first where the bundle has none."""
    from time import monotonic

    from derain.cli.console import Console
    from derain.export.build import BuildOptions, resolve_target
    from derain.export.build import build as build_engine
    from derain.runtime.bundle import Bundle

    console = Console(markup=False)
    start = monotonic()
    with console.status(f"building {precision}") as status:
        loaded = Bundle.load(bundle)
        named = tuple(name.strip() for name in (arch or "").split(",") if name.strip())
        if arch is not None and not named:
            raise ValueError(f"--arch {arch!r} names no GPU: expected names as in sm86,sm89; leave it out for any")
        _, architectures = resolve_target(api, named)
        if precision is Precision.FP16 and all(graph.precision is not precision for graph in loaded.manifest.graphs):
            from derain.export.fp16 import ensure_fp16_graph  # a finished graph is built without torch and onnx

            loaded = ensure_fp16_graph(loaded)
        loaded, entry = build_engine(
            loaded,
            precision,
            api,
            architectures,
            BuildOptions(workspace_mib=workspace, tf32=tf32),
            lambda phase, share: status.update(f"building {precision}: {phase} {share:.0%}"),
        )
    size = loaded.manifest.files[entry.file].bytes
    console.print(
        f"{bundle / entry.file}: {entry.api} {entry.api_version} for {entry.arch}, {size / 1e6:.1f} MB, "
        f"{monotonic() - start:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
