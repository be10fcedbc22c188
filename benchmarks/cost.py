"""What the chain costs on this machine's CPU: `make bench`.

1. `derain run` of daiam-nano at 1280×720 on ONNX Runtime: frames a second, the share of a frame's time spent outside
   the engine, and peak memory.
2. `derain export` and `derain verify` of a D-DAiAM at 1280×720: time and peak memory.
3. A DAiAM of three recurrent steps, naive against unrolled: multiply-accumulates and milliseconds, in turn in one
   process.

Times on a CPU are for comparison within one run only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch

from derain.export.exporter import traced
from derain.export.onnx_graph import summarise, to_onnx
from derain.export.probe import seeded_frame
from derain.export.trace import macs
from derain.export.unroll import unroll
from derain.runtime.manifest import FrameSpec
from derain.training.models import build

GIB = 2**30


def measure(*arguments: str) -> tuple[float, float]:
    """Run `derain` in a process of its own; (seconds, peak memory in GiB)."""
    program = (
        f"import sys, resource; from derain.cli.main import app; app({list(arguments)!r}, standalone_mode=False); "
    )
    program += "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    peak = int(done.stdout.split("peak ")[-1])
    return time.monotonic() - start, peak * 1024 / GIB


def streaming(folder: Path, frames: int) -> None:
    """Figure 1."""
    bundle, report = folder / "nano", folder / "run.json"
    measure("export", "daiam-nano", "--out", str(bundle), "--size", "1280x720")
    source = f"test://rain?width=1280&height=720&frames={frames}"
    _, peak = measure("run", str(bundle), "--source", source, "--sink", "null://", "--json", str(report))
    run = json.loads(report.read_text())
    print(
        f"derain run, daiam-nano, 1280x720: {run['fps']:.2f} frames/s, {run['outside_engine_share']:.2%} of a frame's "
        f"time outside the engine, peak memory {peak:.2f} GiB"
    )


def exporting(folder: Path) -> None:
    """Figure 2."""
    bundle = folder / "d-daiam"
    for verb in (("export", "random:d-daiam", "--out", str(bundle), "--size", "1280x720"), ("verify", str(bundle))):
        seconds, peak = measure(*verb)
        print(f"derain {verb[0]}, D-DAiAM, 1280x720: {seconds:.0f} s, peak memory {peak:.2f} GiB")


def unrolling(folder: Path, steps: int, rounds: int) -> None:
    """Figure 3."""
    torch.manual_seed(0)
    spec = FrameSpec(tensor="frame", width=240, height=160)
    clean = spec.model_copy(update={"tensor": "clean"})
    network = build("daiam", encoder_steps=steps, decoder_steps=steps).eval()
    naive = traced(network, spec, clean)
    graphs = {"naive": naive, "unrolled": unroll(naive)[0]}
    frame = {"frame": seeded_frame(spec, 0)[None]}
    sessions, outputs, counted = {}, {}, {}
    for name, graph in graphs.items():
        path = folder / f"{name}.onnx"
        onnx.save(to_onnx(graph, "frame", "clean"), path)
        sessions[name] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs[name] = sessions[name].run(None, frame)[0].astype(int)
        counted[name] = summarise(path).macs
    milliseconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            start = time.monotonic()
            session.run(None, frame)
            milliseconds[name].append((time.monotonic() - start) * 1e3)
    ratio = statistics.median(n / u for n, u in zip(milliseconds["naive"], milliseconds["unrolled"], strict=True))
    print(
        f"DAiAM, {steps} steps: {macs(naive) / macs(graphs['unrolled']):.2f} times fewer MACs than the loop as PyTorch "
        f"runs it, {counted['naive'] / counted['unrolled']:.2f} times fewer than its plain export to ONNX; "
        f"{ratio:.2f} times faster than that on ONNX Runtime (median of {rounds} pairs); outputs at most "
        f"{np.abs(outputs['naive'] - outputs['unrolled']).max()} grey level apart"
    )


def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="frames of figure 1")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of figure 3")
    parser.add_argument("--only", type=int, choices=(1, 2, 3), help="one figure alone")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, 1):
            streaming(folder, options.frames)
        if options.only in (None, 2):
            exporting(folder)
        if options.only in (None, 3):
            unrolling(folder, 3, options.rounds)


if __name__ == "__main__":
    main()
