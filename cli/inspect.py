"""`derain inspect`: what a bundle or an ONNX file is made of."""

from pathlib import Path
from typing import Annotated, Any

import typer

from derain.cli.files import files_of, json_path, refuse_overwriting, write_json


def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle or an .onnx file.")],
    json: Annotated[
        Path | None, typer.Option(callback=json_path, help="Write the answer to this file; -: stdout.")
    ] = None,
) -> None:
    """Show the manifest, operators, MACs and bytes, and what the unroller removed."""
    from dataclasses import asdict

    from derain.cli.console import Console
    from derain.export.onnx_graph import GraphSummary, summarise
    from derain.runtime.bundle import Bundle

    answer: dict[str, Any] = {"macs_naive": None}
    graphs: dict[str, GraphSummary] = {}
    if path.suffix == ".onnx" and not path.is_dir():
        refuse_overwriting({"--json": json}, [path])
        graphs["graph"] = summarise(path)
        answer["parameters"] = graphs["graph"].parameters
    else:
        bundle = Bundle.load(path)
        refuse_overwriting({"--json": json}, files_of(bundle))
        manifest = bundle.manifest
        bundle.graph()  # refuses a bundle without any
        graphs = {str(entry.precision): summarise(bundle.graph(entry.precision)) for entry in manifest.graphs}
        answer["parameters"] = manifest.model.parameters
        answer["macs_naive"] = manifest.unroll.macs_naive
        answer["manifest"] = manifest.model_dump(mode="json")
    first = next(iter(graphs.values()))
    answer |= {
        "macs": first.macs,
        "operators": first.operators,
        "weights_bytes": first.weights_bytes,
        "file_bytes": first.file_bytes,
        "graphs": {name: asdict(summary) for name, summary in graphs.items()},
    }
    write_json(json, answer)
    _show(Console(markup=False), path, answer)


def _show(console: Any, path: Path, answer: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, title=str(path), title_justify="left")
    if manifest := answer.get("manifest"):
        frame = manifest["input"]
        table.add_row("model", f"{manifest['model']['name']} {manifest['model']['config'].get('options') or ''}")
        smaller = manifest["model"]["config"].get("downscale", 1)
        seen = f", downscale {smaller}" if smaller > 1 else ""
        table.add_row("frames", f"{frame['width']}x{frame['height']} {frame['pixels']}{seen}")
    table.add_row("parameters" if manifest else "parameters left in it", f"{answer['parameters']:,}")
    table.add_row("MACs a frame", f"{answer['macs']:,}")
    if naive := answer["macs_naive"]:
        table.add_row("before the unroller", f"{naive:,} ({1 - answer['macs'] / naive:.1%} removed)")
    for name, graph in answer["graphs"].items():
        table.add_row(
            f"{name}, stored constants", f"{graph['weights_bytes']:,} bytes of a {graph['file_bytes']:,} byte file"
        )
        for entry in graph["rewrites"]:
            taken = f"{entry['operators']} operators, {entry['convolutions']} convolutions, {entry['macs']:,} MACs"
            table.add_row(f"{name}, removed by {entry['name']}", taken)
        table.add_row(f"{name}, operators", ", ".join(f"{count} {kind}" for kind, count in graph["operators"].items()))
    if manifest:
        for built in manifest["engines"]:
            table.add_row(f"{built['precision']}, engine", f"{built['api']} {built['api_version']} for {built['arch']}")
        for quality in manifest["quality"]:
            table.add_row(f"{quality['precision']}, on {quality['frames']}", _quality(quality))
    console.print(table)


def _quality(measured: dict[str, Any]) -> str:
    figures = {
        "dB to truth": measured["psnr_rgb"],
        "SSIM to truth": measured["ssim_rgb"],
        "dB to FP32": measured["psnr_vs_fp32"],
    }
    told = [f"{value:.4g} {what}" for what, value in figures.items() if value is not None]
    if (levels := measured["max_abs_diff"]) is not None:
        told.append(f"at most {levels} grey level{'s' * (levels != 1)} from FP32")
    return ", ".join(told) or "equal to FP32"
