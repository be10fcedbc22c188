"""Every system of the paper, and ours, trained and tested alike: `python benchmarks/comparison.py COMMAND`.

    run --minutes 9              train the system that is least far along; again, until all are complete
    train --system daiam         train one; --minutes 9 trains a slice, and the same command goes on with it
    evaluate                     score all that have weights, or --system NAME, on the test: FOLDER/NAME/evaluation.json
    cost                         parameters and MACs at 720×480 of all; with a GPU milliseconds too: FOLDER/cost.json
    table                        the tables in Markdown, "—" where nothing has been measured yet
    page                         the pictures: FOLDER/page.html

The protocol is training/configs/comparison.yaml, the folder runs/comparison. Images lie where DERAIN_DATA points.
`--set machine.accelerator=cpu` and the like change every training run, as in `derain train`.
"""

import argparse
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from derain.cli.data import data_root
from derain.export.exporter import traced
from derain.export.unroll import unroll
from derain.runtime.bundle import FrameSpec
from derain.training.atomic import write_text
from derain.training.comparison.page import page, scenes_to_show
from derain.training.comparison.protocol import PROTOCOL, Comparison, read_protocol
from derain.training.comparison.tables import tables
from derain.training.comparison.testing import evaluate_system, read_evaluations
from derain.training.config import NetworkConfig
from derain.training.models import build, parameter_count
from derain.training.models.checkpoint import save_weights

WIDTH, HEIGHT = 720, 480
"""The frame that the paper's costs are of."""


def train(comparison: Comparison, system: str, minutes: float | None) -> None:
    """One system, to its end or for so long."""
    seen, wanted = comparison.train(system, minutes, progress=sys.stderr.isatty())
    print(f"{system}: {seen:,} of {wanted:,} patches", flush=True)


def run(comparison: Comparison, minutes: float | None) -> None:
    """The systems in turn, each time the one least far along, until the time is over or all are complete."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    while (system := comparison.next_system()) is not None:
        left = None if deadline is None else (deadline - time.monotonic()) / 60
        if left is not None and left <= 0:
            return
        train(comparison, system, left)
    print("all systems are complete: evaluate them")


def evaluate(comparison: Comparison, system: str | None) -> None:
    """One system, or all that have weights."""
    chosen = [s for s in comparison.protocol.systems if comparison.weights(s).is_file()] if system is None else [system]
    for name in chosen:
        result = evaluate_system(comparison, name, _device(), workers=os.cpu_count() or 1)
        psnr, ssim = result["psnr_rgb"], result["ssim_rgb"]
        print(
            f"{name}: {psnr['input']:.2f} to {psnr['output']:.2f} dB, SSIM {ssim['input']:.3f} to {ssim['output']:.3f} "
            f"on {len(result['images'])} pairs; {result['patches']:,} of {result['patches_wanted']:,} patches seen",
            flush=True,
        )


def cost(comparison: Comparison) -> None:
    """Parameters and MACs of every system, which need no training, and milliseconds where there is a GPU."""
    costs: dict[str, dict[str, Any]] = {}
    frame = FrameSpec(tensor="frame", width=WIDTH, height=HEIGHT)
    for name, system in comparison.protocol.systems.items():
        same = next((other for other in costs if comparison.protocol.systems[other].network == system.network), None)
        if same is None:
            network = build(system.network.name, **system.network.options).eval()
            report = unroll(traced(network, frame, frame.model_copy(update={"tensor": "clean"})))[1]
            costs[name] = {
                "parameters": parameter_count(network),
                "macs": report.macs,
                "macs_naive": report.macs_naive,
                "ms": milliseconds(network, system.network) if torch.cuda.is_available() else None,
            }
        else:
            costs[name] = costs[same]
        print(f"{name}: {costs[name]['parameters']:,} parameters, {costs[name]['macs'] / 1e9:,.1f} GMAC", flush=True)
    write_text(_cost_file(comparison), json.dumps(costs, indent=1) + "\n")


def milliseconds(network: nn.Module, config: NetworkConfig) -> float | None:
    """A frame's time in FP16 under TensorRT-RTX, or, where that is missing, in compiled PyTorch, with any weights."""
    import gpu

    with TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        save_weights(weights, network, config.name, config.options, torch.float32)
        rows = gpu.measure(str(weights), f"{WIDTH}x{HEIGHT}", repeats=200, fp8=False)
    times = {row["engine"]: row.get("ms_p50") for row in rows}
    return times.get("TensorRT-RTX fp16, with copies") or times.get("torch.compile fp16")


def table(comparison: Comparison) -> None:
    """Everything measured so far."""
    file = _cost_file(comparison)
    costs = json.loads(file.read_text()) if file.is_file() else {}
    print(tables(read_evaluations(comparison), costs), end="")


def draw(comparison: Comparison) -> None:
    """The page."""
    file = comparison.folder / "page.html"
    write_text(file, page(comparison, list(scenes_to_show(comparison)), _device()))
    print(file)


def _cost_file(comparison: Comparison) -> Path:
    comparison.folder.mkdir(parents=True, exist_ok=True)
    return comparison.folder / "cost.json"


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "train", "evaluate", "cost", "table", "page"))
    parser.add_argument("--system", help="one of the protocol's systems")
    parser.add_argument("--minutes", type=float, help="stop training after so many with a checkpoint")
    parser.add_argument("--folder", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--protocol", type=Path, default=PROTOCOL)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    if options.command == "train" and options.system is None:
        parser.error("train: which --system?")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("derain").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*(LeafSpec|many workers|the logging interval|`__len__` defined)")
    root = data_root()
    overrides = [] if root is None else [f"data.root={root}"]
    comparison = Comparison(read_protocol(options.protocol), options.folder, (*overrides, *options.overrides))
    try:
        match options.command:
            case "run":
                run(comparison, options.minutes)
            case "train":
                train(comparison, options.system, options.minutes)
            case "evaluate":
                evaluate(comparison, options.system)
            case "cost":
                cost(comparison)
            case "table":
                table(comparison)
            case "page":
                draw(comparison)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
