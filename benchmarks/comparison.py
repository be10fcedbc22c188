"""Every system of the paper, and ours, trained and tested alike: `python benchmarks/comparison.py COMMAND`.

    run --minutes 9              train all (or each --system NAME) one after the other; again, until all are complete
    train --system daiam         train one; --minutes 9 trains a slice, and the same command goes on with it
    budget --minutes 25          make the protocol short enough that all (or each --system NAME) complete in that time
    evaluate                     score all that have weights, or --system NAME, on the test: FOLDER/NAME/evaluation.json
    cost                         parameters and MACs at 720×480 of all; with a GPU milliseconds too: FOLDER/cost.json
    prepare                      make on the CPU, before `cost`, what it times: FOLDER/cases/NAME
    table                        the tables in Markdown, "—" where nothing has been measured yet
    page                         the pictures: FOLDER/page.html; --system NAME also shows weights that ship

The protocol is training/configs/comparison.yaml, the folder runs/comparison. Images lie where DERAIN_DATA points.
`--set machine.accelerator=cpu` and the like change every training run, as in `derain train`.

Where there is less time than the protocol wants, `budget` trains each system for some seconds, picks one number of
patches with which all complete their schedules (warm-up, cosine and moving average shortened alike), and writes
FOLDER/protocol.yaml, which every later command in that folder follows. So half an hour of a GPU is

    budget --minutes 20 --system daiam --system dam-dual --system d-daiam --system prenet --system daiam-edge
    run --minutes 9              as often as it takes
    evaluate

Without a GPU, `--protocol training/configs/comparison-nano.yaml --folder runs/comparison-nano` compares the paper's
family in the compact design, at a quarter of the resolution and 16 channels wide: some hours of one core.

Rows say how many patches were seen. A complete run needs its checkpoint no more: its weights.safetensors, config.yaml
and evaluation.json are all that has to be brought back.

Milliseconds are of TensorRT-RTX in FP16, the network alone as `gpu.py` times it, of trained weights where there are any
(speed does not depend on them). Each system is timed in processes of its own and written at once; one that fails keeps
its error and is passed over, and called again, `cost` times only what has no time yet on this GPU: times of another are
dropped. What was not prepared before is made then, while the GPU waits.
"""

import argparse
import json
import logging
import os
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from derain.cli.data import data_root
from derain.export.exporter import traced
from derain.export.unroll import unroll
from derain.runtime.manifest import FrameSpec, Manifest, Precision
from derain.training.atomic import write_text
from derain.training.comparison.budget import Pace, fitted
from derain.training.comparison.evaluation import evaluate_system, read_evaluations, read_json
from derain.training.comparison.page import page, scenes_to_show
from derain.training.comparison.protocol import PROTOCOL, Comparison, read_protocol
from derain.training.comparison.tables import tables
from derain.training.config import NetworkConfig
from derain.training.models import build, parameter_count

FP16 = Precision.FP16

WIDTH, HEIGHT = 720, 480
"""The frame that the paper's costs are of."""

OWN_PROTOCOL = "protocol.yaml"
"""In the folder, where `budget` made one."""

COSTS = "cost.json"
"""In the folder, what `cost` counted and timed."""


def train(comparison: Comparison, system: str, minutes: float | None) -> None:
    """One system, to its end or for so long."""
    seen, wanted = comparison.train(system, minutes, progress=sys.stderr.isatty())
    print(f"{system}: {seen:,} of {wanted:,} patches", flush=True)


def run(comparison: Comparison, minutes: float | None, systems: list[str] | None) -> None:
    """The systems named, or all, one after the other, until the time is over or all are complete."""
    for system in systems or ():
        comparison.progress(system)  # ValueError for an unknown one
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    while (system := comparison.next_system(systems)) is not None:
        left = None if deadline is None else (deadline - time.monotonic()) / 60
        if left is not None and left <= 0:
            return
        train(comparison, system, left)
    waiting = {name: comparison.waits_for(name) for name in systems or ()}
    if behind := {teacher for teacher in waiting.values() if teacher is not None}:
        raise ValueError(f"{', '.join(sorted(behind))} must be trained first: name it with --system too")
    print(f"{', '.join(systems or ['all systems'])}: complete, to be scored with `evaluate`")


def budget(comparison: Comparison, minutes: float, systems: list[str] | None) -> None:
    """The shorter protocol, into the folder."""

    def told(system: str, pace: Pace) -> None:
        print(f"{system}: {1 / pace.patch:,.0f} patches/s, {pace.start:.1f} s to begin", flush=True)

    shorter = fitted(comparison, minutes, systems, told=told)
    optimiser = shorter.train["optimiser"]
    patches = (
        optimiser["iterations"]
        * replace(comparison, protocol=shorter).config(next(iter(shorter.systems))).optimiser.batch
    )
    comparison.folder.mkdir(parents=True, exist_ok=True)
    header = f"# {patches:,} patches for each system: `comparison.py budget --minutes {minutes:g}`.\n"
    file = comparison.folder / OWN_PROTOCOL
    write_text(file, header + yaml.safe_dump(shorter.model_dump(mode="json"), sort_keys=False))
    print(f"{file}: {patches:,} patches for each of {len(shorter.systems)} systems")


def evaluate(comparison: Comparison, systems: list[str] | None) -> None:
    """The systems named, or all that have weights."""
    for name in systems or ():
        comparison.config(name)  # ValueError for an unknown one
    systems = systems or [name for name in comparison.protocol.systems if comparison.weights(name).is_file()]
    if not systems:
        raise FileNotFoundError(f"no system has weights in {str(comparison.folder)!r}: train one first")
    for name in systems:
        result = evaluate_system(comparison, name, _device(), workers=min(8, os.cpu_count() or 1))
        psnr, ssim = result["psnr_rgb"], result["ssim_rgb"]
        print(
            f"{name}: {psnr['input']:.2f} to {psnr['output']:.2f} dB, SSIM {ssim['input']:.3f} to {ssim['output']:.3f} "
            f"on {len(result['images'])} pairs; {result['patches']:,} of {result['patches_wanted']:,} patches seen",
            flush=True,
        )


def cost(comparison: Comparison) -> None:
    """Parameters and MACs of every system, which need no training, and milliseconds where there is a GPU."""
    comparison.folder.mkdir(parents=True, exist_ok=True)
    held = _costs(comparison)
    here = timed_on() if torch.cuda.is_available() else None
    if here is not None:
        held = {name: old if old.get("on") == here else {**old, "ms": None} for name, old in held.items()}
    costs: dict[str, dict[str, Any]] = {}
    for name, network in distinct(comparison).items():
        counts = counted(comparison, name)
        old = held.get(name, {})
        costs[name] = {**counts, "ms": None}
        if counts.items() <= old.items() and old.get("ms") is not None:
            costs[name] = old
        elif here is not None:
            costs[name] |= {"on": here, **milliseconds(comparison, name)}
        for other, system in comparison.protocol.systems.items():
            if system.network == network:
                costs[other] = costs[name]
        told = costs[name].get("error") or ("" if costs[name]["ms"] is None else f"{costs[name]['ms']:.3f} ms")
        print(
            f"{name}: {costs[name]['parameters']:,} parameters, {costs[name]['macs'] / 1e9:,.1f} GMAC"
            f"{told and ', ' + told}",
            flush=True,
        )
        write_text(comparison.folder / COSTS, json.dumps({**held, **costs}, indent=1) + "\n")


def distinct(comparison: Comparison) -> dict[str, NetworkConfig]:
    """The networks, each by the first system that is of it: a student is what it would be without its teacher."""
    found: dict[str, NetworkConfig] = {}
    for name, system in comparison.protocol.systems.items():
        if system.network not in found.values():
            found[name] = system.network
    return found


def timed_on() -> dict[str, str]:
    """The GPU and the versions that milliseconds are of."""
    import gpu

    return {"gpu": gpu.device_name("cuda"), **gpu.versions()}


def prepare(comparison: Comparison) -> None:
    """What `cost` times of every network, where it is not there yet."""
    for name in distinct(comparison):
        fault = prepared(comparison, name).get("error")
        print(f"{name}: {fault or case_folder(comparison, name)}", flush=True)


def case_folder(comparison: Comparison, system: str) -> Path:
    """Where what is timed of a system lies."""
    return comparison.folder / "cases" / system


def prepared(comparison: Comparison, system: str) -> dict[str, str]:
    """Make a system's case unless there is one of its network; {"error": …} where it cannot be made."""
    import gpu
    import gpu_cases

    network, weights, case = (
        comparison.protocol.systems[system].network,
        comparison.weights(system),
        case_folder(comparison, system),
    )
    if made_before(comparison, system) is not None:
        return {}
    with TemporaryDirectory() as folder:
        if not weights.is_file():
            weights = Path(folder) / "weights.safetensors"
            gpu_cases.save_lively(weights, network.name, network.options)
        made = gpu.guarded(600, gpu_cases.prepare, str(weights), (WIDTH, HEIGHT), case, None, None, 1)
    return made if isinstance(made, dict) else {}


def made_before(comparison: Comparison, system: str) -> Manifest | None:
    """What a system's case says of itself, where one of its network has been made."""
    import gpu_cases

    network = comparison.protocol.systems[system].network
    with suppress(OSError, ValueError):
        manifest = gpu_cases.read_case(case_folder(comparison, system)).bundle.manifest
        if (manifest.model.name, manifest.model.config.get("options", {})) == (network.name, network.options):
            return manifest
    return None


def counted(comparison: Comparison, system: str) -> dict[str, int]:
    """Parameters, and multiply-accumulates of a frame after and before the unroller: its case's, or counted now."""
    if (manifest := made_before(comparison, system)) is not None:
        unrolled = manifest.unroll
        return {"parameters": manifest.model.parameters, "macs": unrolled.macs, "macs_naive": unrolled.macs_naive}
    config = comparison.protocol.systems[system].network
    frame = FrameSpec(tensor="frame", width=WIDTH, height=HEIGHT)
    network = build(config.name, **config.options).eval()
    report = unroll(traced(network, frame, frame.model_copy(update={"tensor": "clean"})))[1]
    return {"parameters": parameter_count(network), "macs": report.macs, "macs_naive": report.macs_naive}


def milliseconds(
    comparison: Comparison, system: str, engine: str = "tensorrt-rtx", device: str = "cuda", repeats: int = 200
) -> dict[str, Any]:
    """`ms` of a frame, or None and the `error`; no failure goes further than the process in which it happens."""
    import gpu

    if fault := prepared(comparison, system):
        return {"ms": None, **fault}
    row = gpu.guarded(180, gpu.measure_one, case_folder(comparison, system), engine, FP16, device, repeats)
    if "error" not in row and not row["passed"]:
        row["error"] = f"{row['psnr_vs_fp32']:.1f} dB against FP32, expected {gpu.MIN_PSNR[FP16]:.0f}"
    return {"ms": None, "error": row["error"]} if "error" in row else {"ms": row["ms"]["network"]["p50"]}


def table(comparison: Comparison) -> None:
    """Everything measured so far."""
    print(tables(read_evaluations(comparison), _costs(comparison), comparison.protocol.networks), end="")


def draw(comparison: Comparison, systems: list[str] | None) -> None:
    """The page."""
    file = comparison.folder / "page.html"
    write_text(file, page(comparison, scenes_to_show(comparison), _device(), systems))
    print(file)


def _costs(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """What has been counted and timed so far, by system."""
    file = comparison.folder / COSTS
    return read_json(file) if file.is_file() else {}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "train", "budget", "evaluate", "prepare", "cost", "table", "page"))
    parser.add_argument("--system", dest="systems", action="append", help="one of the protocol's systems, or several")
    parser.add_argument("--minutes", type=float, help="stop training after so many with a checkpoint")
    parser.add_argument("--folder", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--protocol", type=Path, help="instead of the folder's own, or the shipped one")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    if options.command == "train" and len(options.systems or ()) != 1:
        parser.error("train: which --system?")
    if options.command in ("prepare", "cost", "table") and options.systems:
        parser.error(f"{options.command} is of all systems: leave --system out")
    if options.minutes is not None and options.command not in ("run", "train", "budget"):
        parser.error(f"{options.command} trains nothing: leave --minutes out")
    if options.minutes is not None and not options.minutes >= 0:
        parser.error(f"--minutes is {options.minutes:g}, expected 0 or more")
    if options.command == "budget" and options.minutes is None:
        parser.error("budget: how many --minutes?")
    logging.basicConfig(format="%(message)s")
    # The runs that `budget` measures are of no length: what they say of their iterations would mislead.
    logging.getLogger("derain").setLevel(logging.WARNING if options.command == "budget" else logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*(LeafSpec|many workers|the logging interval|`__len__` defined)")
    root, own = data_root(), options.folder / OWN_PROTOCOL
    protocol = options.protocol or (own if own.is_file() and options.command != "budget" else PROTOCOL)
    overrides = [] if root is None else [f"data.root={json.dumps(str(root))}"]
    try:
        comparison = Comparison(read_protocol(protocol), options.folder, (*overrides, *options.overrides))
        match options.command:
            case "run":
                run(comparison, options.minutes, options.systems)
            case "train":
                train(comparison, options.systems[0], options.minutes)
            case "budget":
                budget(comparison, options.minutes, options.systems)
            case "evaluate":
                evaluate(comparison, options.systems)
            case "prepare":
                prepare(comparison)
            case "cost":
                cost(comparison)
            case "table":
                table(comparison)
            case "page":
                draw(comparison, options.systems)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
