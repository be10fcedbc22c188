"""What an NVIDIA GPU makes of a network: `python benchmarks/gpu.py --out gpu.json`, on a machine that has one.

PyTorch eager, torch.compile, ONNX Runtime CUDA (I/O bound to the GPU) and TensorRT-RTX side by side, FP16, uint8 frame
in and out, batch 1; TensorRT-RTX in FP8 too where the bundle can be calibrated. Correctness comes first: what differs
from PyTorch's FP32 by more than `verify` allows is not timed. Times are medians between two events on the GPU's own
stream after a warm-up, the frame's way to the GPU and back left out (TensorRT-RTX: also with it, in its CUDA graph).
An engine whose package is missing is left out and named.

`--rewrites` instead times the TensorRT-RTX engine, FP16, with none, each and all of the exact rewrites of
`derain.export.rewrite`, one frame of each in turn, so that they share whatever else the machine does.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch

from derain.export.build import build
from derain.export.camera import CameraModel
from derain.export.exporter import bundle_network, export, parse_size
from derain.export.precision import ensure_graph, psnr, to_fp16
from derain.export.probe import MIN_PSNR, seeded_frame
from derain.export.rewrite import DEFAULT, REWRITES
from derain.runtime import engines
from derain.runtime.bundle import Bundle, GraphEntry, Precision

CASES = (("daiam", "1280x720"), ("daiam-edge", "1280x720"), ("daiam-edge", "1920x1080"))
Candidate = tuple[str, Callable[[], np.ndarray], Callable[[], float]]
"""Name, one frame's result as uint8, one frame's time in ms."""


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    """One run of `work` between two events of PyTorch's current stream, in ms."""

    def once() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return once


def pytorch(bundle: Bundle, frame: np.ndarray) -> Iterator[Candidate]:
    """Eager and compiled, FP16 and channels-last."""
    manifest = bundle.manifest
    model = CameraModel(bundle_network(bundle), manifest.input, manifest.output).eval().cuda()
    model = model.to(memory_format=torch.channels_last)
    data = torch.from_numpy(frame)[None].cuda()
    for name, module in (("PyTorch eager", model), ("torch.compile", torch.compile(model, mode="max-autotune"))):

        def run(module: Any = module) -> torch.Tensor:
            with torch.inference_mode(), torch.autocast("cuda", torch.float16):
                return module(data)

        yield f"{name} fp16", lambda run=run: run()[0].cpu().numpy(), timed(run)


def onnx_runtime(bundle: Bundle, frame: np.ndarray) -> Iterator[Candidate]:
    """The FP16 graph, its input and output bound to GPU memory; times itself on its own stream, so by the host."""
    import onnxruntime

    options = [("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": "1"})]
    session = onnxruntime.InferenceSession(bundle.graph(Precision.FP16), providers=options)
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("ONNX Runtime's CUDA provider did not start")
    binding = session.io_binding()
    held = onnxruntime.OrtValue.ortvalue_from_numpy(frame[None], "cuda", 0)
    binding.bind_ortvalue_input(bundle.manifest.input.tensor, held)
    binding.bind_output(bundle.manifest.output.tensor, "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def result() -> np.ndarray:
        run()
        return binding.copy_outputs_to_cpu()[0][0]

    yield "ONNX Runtime CUDA fp16", result, timed(run)


def tensorrt(bundle: Bundle, frame: np.ndarray, precision: Precision) -> Iterator[Candidate]:
    """The engine of derain's own runtime: one CUDA graph of upload, network and download."""
    bundle, entry = build(bundle, precision, "tensorrt-rtx")
    with engines.create(entry.api, bundle, precision) as engine:
        yield f"TensorRT-RTX {precision}, with copies", lambda: engine.infer(frame), engine.device_milliseconds


def candidates(bundle: Bundle, frame: np.ndarray) -> Iterator[Candidate]:
    """Everything that is installed."""
    yield from pytorch(bundle, frame)
    for package, kinds in (
        ("onnxruntime", [lambda: onnx_runtime(bundle, frame)]),
        ("tensorrt_rtx", [lambda p=p: tensorrt(bundle, frame, p) for p in precisions(bundle)]),
    ):
        if find_spec(package) is None:
            print(f"  {package} is not installed: left out")
            continue
        for kind in kinds:
            yield from kind()


def precisions(bundle: Bundle) -> list[Precision]:
    """FP16, and FP8 where the bundle has such a graph."""
    present = {graph.precision for graph in bundle.manifest.graphs}
    return [precision for precision in (Precision.FP16, Precision.FP8) if precision in present]


def calibrated(bundle: Bundle) -> Bundle:
    """With an FP8 graph whose ranges come from seeded frames; its quality says nothing of real rain."""
    from derain.calibration.calibrate import calibrate
    from derain.calibration.ranges import Method
    from derain.runtime.frames import Frame

    frames = [Frame(seed, 0, seeded_frame(bundle.manifest.input, seed), 0) for seed in range(4)]
    return calibrate(bundle, Precision.FP8, frames, "seeded", method=Method.MINMAX, count=4, max_loss=math.inf)[0]


def measure(weights: str, size: str, repeats: int, fp8: bool) -> list[dict[str, Any]]:
    """One network at one size."""
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        bundle, report = export(weights, Path(folder) / "bundle", parse_size(size))
        bundle = ensure_graph(bundle, Precision.FP16)
        if fp8:
            bundle = calibrated(bundle)
        frame = seeded_frame(bundle.manifest.input, 7)
        with engines.create("onnxruntime", bundle, Precision.FP32) as reference:
            expected = reference.infer(frame)
        print(f"{weights} {size}, {report.macs / 1e9:.1f} GMAC")
        for name, result, once in candidates(bundle, frame):
            near = psnr([result()], [expected])
            least = MIN_PSNR[Precision.FP8 if "fp8" in name else Precision.FP16]
            row: dict[str, Any] = {"weights": weights, "size": size, "engine": name, "psnr_vs_fp32": near}
            if near >= least:
                for _ in range(20):
                    once()
                times = sorted(once() for _ in range(repeats))
                row |= {"ms_p50": statistics.median(times), "ms_p99": times[int(0.99 * (len(times) - 1))]}
                print(f"  {name:32} {row['ms_p50']:8.3f} ms p50, {row['ms_p99']:8.3f} ms p99, {near:.1f} dB")
            else:
                print(f"  {name:32} WRONG: {near:.1f} dB against FP32, expected {least:.0f}; not timed")
            rows.append(row)
    return rows


def measure_rewrites(weights: str, size: str, repeats: int) -> list[dict[str, Any]]:
    """One network at one size, as every choice of rewrites makes it."""
    choices = {"none": (), **{name: (name,) for name in REWRITES}, "default": DEFAULT, "all": tuple(REWRITES)}
    entry = GraphEntry(precision=Precision.FP16, file="graph.fp16.onnx")
    rows: list[dict[str, Any]] = []
    timers: list[Callable[[], float]] = []
    print(f"{weights} {size}, TensorRT-RTX fp16, with copies")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        expected: np.ndarray | None = None
        for name, chosen in choices.items():
            bundle, _ = export(weights, Path(folder) / name, parse_size(size), rewrites=chosen)
            frame = seeded_frame(bundle.manifest.input, 7)
            if expected is None:
                with engines.create("onnxruntime", bundle, Precision.FP32) as reference:
                    expected = reference.infer(frame)
            graph = to_fp16(onnx.load(bundle.graph()))
            bundle, built = build(
                bundle.add({entry.file: graph.SerializeToString()}, graphs=[entry]), entry.precision, "tensorrt-rtx"
            )
            engine = stack.enter_context(engines.create(built.api, bundle, entry.precision))
            near = psnr([engine.infer(frame)], [expected])
            row = {"weights": weights, "size": size, "rewrites": name, "psnr_vs_fp32": near}
            row |= {"operators": len(graph.graph.node), "plan_bytes": bundle.file(built.file).stat().st_size}
            if near < MIN_PSNR[Precision.FP16]:
                print(f"  {name:16} WRONG: {near:.1f} dB against FP32; not timed")
                continue
            rows.append(row)
            timers.append(engine.device_milliseconds)
        for _ in range(20):
            for once in timers:
                once()
        times = np.array([[once() for once in timers] for _ in range(repeats)])
    for row, column in zip(rows, times.T, strict=True):
        row |= {"ms_p50": float(np.median(column)), "ratio": float(np.median(column / times[:, 0]))}
        print(
            f"  {row['rewrites']:16} {row['ms_p50']:8.3f} ms p50, {row['ratio']:.3f} of {rows[0]['rewrites']}, "
            f"{row['operators']} operators, {row['plan_bytes'] / 1e6:.1f} MB, {row['psnr_vs_fp32']:.1f} dB"
        )
    return rows


def main() -> None:
    """Run the cases of issue 4, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a file, a shipped name or random:MODEL; without it the three cases")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--fp8", action="store_true", help="TensorRT-RTX in FP8 too (minutes of CPU a case)")
    parser.add_argument("--rewrites", action="store_true", help="compare the exact rewrites instead of the engines")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU that PyTorch can use: run this where there is one")
    cases = [(arguments.weights, arguments.size)] if arguments.weights else [(f"random:{m}", s) for m, s in CASES]
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    rows: list[dict[str, Any]] = []
    for weights, size in cases:
        if arguments.rewrites:
            rows += measure_rewrites(weights, size, arguments.repeats)
        else:
            rows += measure(weights, size, arguments.repeats, arguments.fp8)
    if arguments.out:
        whole = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
        arguments.out.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main()
