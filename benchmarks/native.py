"""What the pipelines cost beyond the engine, C++ against Python: `python benchmarks/native.py`.

Both `bench` verbs measure the same bundle, a graph that only inverts its bytes, at 1280x720, in turn and several times,
with the test source and the null sink. A frame's overhead is its time from capture to presentation less the engine's
inference. What is compared is the ratio of the two medians in each round: the machine's own state cancels out of it,
but for the time that an idle core takes to wake, which both pipelines spend alike and which can be most of the C++
one's. `--awake` leaves it out: processes that run only where nothing else wants the core (SCHED_IDLE) keep all busy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import TensorProto, helper

from derain.runtime.bundle import Bundle
from derain.runtime.manifest import FrameSpec, GraphEntry, ManifestContent, ModelInfo, UnrollInfo

BUILT = Path(__file__).resolve().parent.parent / "build/native/default/runtime/native/stream/derain-stream"
WIDTH, HEIGHT = 1280, 720


def inverting_bundle(folder: Path) -> Bundle:
    """A bundle whose graph returns 255 - frame."""
    frame, clean = (FrameSpec(tensor=name, width=WIDTH, height=HEIGHT) for name in ("frame", "clean"))
    graph = helper.make_graph(
        [helper.make_node("BitwiseNot", ["frame"], ["clean"])],
        "invert",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, frame.shape)],
        [helper.make_tensor_value_info("clean", TensorProto.UINT8, clean.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    description = ManifestContent(
        derain_version="0",
        model=ModelInfo(name="invert", parameters=0),
        unroll=UnrollInfo(encoder_steps=1, decoder_steps=1, macs=0, macs_naive=0),
        input=frame,
        output=clean,
        graphs=(GraphEntry(precision="fp32", file="graph.fp32.onnx"),),
    )
    files = {"weights.safetensors": b"", "graph.fp32.onnx": model.SerializeToString()}
    return Bundle.write(folder, description, files)


def overhead_ms(command: list[str], report: Path) -> np.ndarray:
    """Each frame's, of one run of a bench."""
    subprocess.run([*command, "--json", str(report)], check=True, stdout=subprocess.DEVNULL)
    samples = json.loads(report.read_text())["samples_ms"]
    return np.array(samples["capture_to_present"]) - np.array(samples["inference"])


@contextmanager
def cores_awake() -> Iterator[None]:
    """Every core that this process may use is kept from idling, by one process each."""
    spin = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True:\n    pass"
    spinners = [subprocess.Popen([sys.executable, "-c", spin]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def main() -> None:
    """Print each round's figures, the median ratio, and exit 1 where it is above the half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=BUILT, help="derain-stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--awake", action="store_true", help="keep the cores from idling")
    options = parser.parse_args()
    python = "import sys; sys.argv[0] = 'derain'; from derain.cli.main import main; main()"
    commands = {"Python": [sys.executable, "-c", python], "C++": [str(options.program)]}
    ratios = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        if options.awake:
            stack.enter_context(cores_awake())
        bundle = inverting_bundle(folder / "bundle")
        arguments = ["bench", str(bundle.path), "--fps", str(options.fps), "--seconds", str(options.seconds)]
        for number in range(options.rounds):
            figures = {who: overhead_ms([*command, *arguments], folder / "r.json") for who, command in commands.items()}
            medians = {who: float(np.median(ms)) for who, ms in figures.items()}
            ratios.append(medians["C++"] / medians["Python"])
            told = ", ".join(
                f"{who} p50 {medians[who] * 1e3:.0f} µs, p99 {np.quantile(ms, 0.99) * 1e3:.0f} µs"
                for who, ms in figures.items()
            )
            print(f"round {number + 1}: {told}, ratio {ratios[-1]:.2f}")
    ratio = statistics.median(ratios)
    print(
        f"overhead beyond the engine at {WIDTH}x{HEIGHT}: C++ needs {ratio:.2f} of Python's (median of {len(ratios)})"
    )
    raise SystemExit(int(ratio > 0.5))


if __name__ == "__main__":
    main()
