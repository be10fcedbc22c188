"""What an NVIDIA GPU makes of a network, in two steps, so that the GPU's time goes to nothing but measuring:

    python benchmarks/gpu.py prepare cases                       anywhere, on the CPU: DAiAM and daiam-edge
    python benchmarks/gpu.py measure cases/* --out gpu.json      where the GPU is

TensorRT-RTX (its network in a CUDA graph, without one, and in derain's own runtime), ONNX Runtime CUDA, PyTorch eager
and torch.compile (max-autotune), side by side: FP16, TensorRT-RTX in FP8 too (`prepare --fp8`), uint8 frame in and out,
batch 1. All but derain's runtime read one buffer on the GPU and write another, on one stream, so that "network" is the
same for all: the network alone between two events; "with copies" adds the frame's way from pinned memory and back.
Correctness comes first: a result is compared with the FP32 graph's, and its row says whether it passed. Engine by
engine over all cases, the dearest (torch.compile) last; `--only` and `--skip` choose.

Every measurement has a process of its own, ended after --limit seconds: one that fails, crashes or hangs becomes a row
with its error, and the next begins with a sound GPU. OUT is written after each row; called again, `measure` leaves out
what OUT has and tries again what failed. `--device cpu` tries all of it without a GPU, for what a CPU can do.

`prepare cases --rewrites` makes one case of each choice of the exact rewrites of `derain.export.rewrite`, and
`interleave cases/*` times the FP16 engines of all cases one frame of each in turn, so that they share whatever else the
machine does; ratios are to the first case of the same network and size.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_cases import API, Case, Frames, prepare_cases, read_case
from gpu_engines import ENGINES

from derain.runtime.atomic import write_bytes
from derain.runtime.machine import machine
from derain.runtime.manifest import Precision
from derain.runtime.psnr import MIN_PSNR, finite_or_none, most_8_bit_error, mse, psnr

WARM_UP_S = 1.0
"""Seconds of runs that are not timed: a GPU that idled raises its clocks meanwhile."""

PACKAGES = ("torch", "tensorrt-rtx-cu13", "onnxruntime-gpu", "onnxruntime")


def measured(case: Case, engine: str, precision: Precision, device: torch.device, repeats: int) -> dict[str, Any]:
    """What a row says of one engine: `psnr_vs_fp32` in dB, `passed`, and `ms`, p50 and p99 of all it can be timed by.

    Equal pictures have None for dB. Where the truth is known, `psnr_truth` of the result, `psnr_truth_fp32` of FP32's.
    """
    with torch.cuda.stream(torch.cuda.Stream() if device.type == "cuda" else None):
        candidate = ENGINES[engine](case, precision, device)
        seen = np.stack([candidate.infer(image) for image in case.frames])
        row: dict[str, Any] = {**judged(case, seen, precision), "ms": {}}
        if case.truth is not None:
            truth = case.truth
            row |= {
                "psnr_truth": finite_or_none(psnr(seen, truth)),
                "psnr_truth_fp32": finite_or_none(psnr(case.expected, truth)),
            }
        for name, once in candidate.timers.items():
            warm_up(once)
            times = sorted(once() for _ in range(repeats))
            row["ms"][name] = {"p50": statistics.median(times), "p99": times[int(0.99 * (len(times) - 1))]}
    return row


def judged(case: Case, seen: Frames, precision: Precision) -> dict[str, Any]:
    """`psnr_vs_fp32` of an engine's results in dB, None where they are equal, and whether they `passed`.

    8 bits are judged as `derain verify` judges them: by what the network changes, besides their PSNR.
    """
    near = psnr(seen, case.expected)
    passed = near >= MIN_PSNR[precision]
    if precision is Precision.FP8:
        passed = passed and mse(seen, case.expected) <= most_8_bit_error(case.expected, case.frames)
    return {"psnr_vs_fp32": finite_or_none(near), "passed": passed}


def warm_up(*runs: Callable[[], object]) -> None:
    """All in turn, once at least and for `WARM_UP_S`."""
    end = time.monotonic() + WARM_UP_S
    while True:
        for once in runs:
            once()
        if time.monotonic() >= end:
            return


def interleaved(cases: list[Case], repeats: int) -> list[dict[str, Any]]:
    """TensorRT-RTX in FP16, one frame of each case in turn: its median, and the median of its ratios to the first."""
    with torch.cuda.stream(torch.cuda.Stream()):
        rows: list[dict[str, Any]] = []
        timers = []
        for case in cases:
            candidate = ENGINES[API](case, Precision.FP16, torch.device("cuda"))
            seen = np.stack([candidate.infer(image) for image in case.frames])
            rows.append({"case": case.name, **judged(case, seen, Precision.FP16)})
            timers.append(candidate.timers["network"])
        warm_up(*timers)
        times = np.array([[once() for once in timers] for _ in range(repeats)])
    for row, column in zip(rows, times.T, strict=True):
        row |= {"ms_p50": float(np.median(column)), "ratio": float(np.median(column / times[:, 0]))}
    return rows


def guarded(limit: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` in a process of its own; {"error": one line} where it raises, crashes or hangs."""
    context = get_context("forkserver")  # a process that has imported PyTorch and never touched the GPU is forked
    context.set_forkserver_preload(["torch", "derain.export.camera", "derain.runtime.engines"])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(send, function, arguments))
    process.start()
    send.close()
    try:
        if not receive.poll(limit):
            return {"error": f"not done after {limit:.0f} s: give it more with --limit"}
        return receive.recv()
    except EOFError:
        process.join()
        return {"error": f"its process ended with exit status {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _child(send: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = function(*arguments)
    except Exception as error:
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    send.send(answer)


def measure_one(folder: Path, engine: str, precision: Precision, device: str, repeats: int) -> dict[str, Any]:
    """`measured` of a case's folder, for a process of its own."""
    return measured(read_case(folder), engine, precision, torch.device(device), repeats)


def interleave_folders(folders: list[Path], repeats: int) -> list[dict[str, Any]]:
    """`interleaved` of cases' folders, for a process of its own."""
    return interleaved([read_case(folder) for folder in folders], repeats)


def measure(
    folders: list[Path],
    chosen: Iterable[str],
    out: Path | None,
    device: str = "cuda",
    repeats: int = 200,
    limit: float = 180,
) -> list[dict[str, Any]]:
    """A row of each engine, precision and case, told and written to `out` as soon as it is there."""
    rows = _held(out, device).get("rows", [])
    done = {(row["case"], row["engine"], row["precision"], row["graph"]) for row in rows if "error" not in row}
    cases = {folder: read_case(folder) for folder in folders}
    for engine in chosen:
        for folder, case in cases.items():
            manifest = case.bundle.manifest
            graphs = {graph.precision: manifest.files[graph.file].sha256 for graph in manifest.graphs}
            for precision in (Precision.FP16, Precision.FP8) if engine.startswith(API) else (Precision.FP16,):
                key = (case.name, engine, str(precision))
                if precision not in graphs or (*key, graphs[precision]) in done:
                    continue
                row = dict(zip(("case", "engine", "precision", "graph"), (*key, graphs[precision]), strict=True))
                row |= guarded(limit, measure_one, folder, engine, precision, device, repeats)
                print(_told(row), flush=True)
                rows = [*(r for r in rows if (r["case"], r["engine"], r["precision"]) != key), row]
                _write(out, device, rows=rows)
    return rows


def interleave(folders: list[Path], out: Path | None, repeats: int, limit: float) -> None:
    """`interleaved` of each network and size by itself, told and written at once; OSError where one failed, at last."""
    groups: dict[tuple[str, int, int], list[Path]] = {}
    for folder in folders:
        manifest = read_case(folder).bundle.manifest
        groups.setdefault((manifest.model.name, manifest.input.width, manifest.input.height), []).append(folder)
    rows: list[dict[str, Any]] = []
    faults = []
    for (name, width, height), group in groups.items():
        answer = guarded(limit, interleave_folders, group, repeats)
        if "error" in answer:
            faults.append(f"{name} {width}x{height}: {answer['error']}")
            continue
        for row in answer:
            state = "" if row["passed"] else "WRONG, "
            ratio = f"{row['ratio']:.3f} of {group[0].name}"
            print(f"{row['case']:28} {row['ms_p50']:.3f} ms, {ratio}; {state}{_decibels(row)}", flush=True)
        rows += answer
        _write(out, "cuda", interleaved=rows)
    if faults:
        raise OSError("; ".join(faults))


def _decibels(row: dict[str, Any]) -> str:
    return "equal" if row["psnr_vs_fp32"] is None else f"{row['psnr_vs_fp32']:.1f} dB"


def _told(row: dict[str, Any]) -> str:
    head = f"{row['case']:28} {row['engine']:20} {row['precision']}"
    if "error" in row:
        return f"{head}  FAILED: {row['error']}"
    times = ", ".join(f"{name} {ms['p50']:.3f} (p99 {ms['p99']:.3f})" for name, ms in row["ms"].items())
    return f"{head}  {'' if row['passed'] else 'WRONG, '}{_decibels(row)}; ms: {times}"


def _held(out: Path | None, device: str) -> dict[str, Any]:
    """What is in the file already; ValueError where it is another device's."""
    if out is None or not out.is_file():
        return {}
    whole = json.loads(out.read_text())
    if whole["device"] != device_name(device):
        raise ValueError(f"{out} was measured on {whole['device']}, here is {device_name(device)}: name another --out")
    return dict(whole)


def _write(out: Path | None, device: str, **rows: list[dict[str, Any]]) -> None:
    """Put `rows` or `interleaved` into the file, beside the other, with the machine as it is now."""
    if out is not None:
        here = {"device": device_name(device), "packages": versions(), "machine": machine().model_dump(mode="json")}
        write_bytes(out, (json.dumps({**_held(out, device), **here, **rows}, indent=1) + "\n").encode())


def versions() -> dict[str, str]:
    """Of the packages whose speed is measured, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def device_name(device: str) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def main(words: list[str] | None = None) -> None:
    """Prepare or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("prepare", help="make cases, on the CPU")
    verb.add_argument("folder", type=Path)
    verb.add_argument("--weights", help="a file, a shipped name or random:MODEL; without it the three cases")
    verb.add_argument("--size", default="1280x720")
    verb.add_argument("--frames", help="URI of rainy frames; without it frames drawn from seeds")
    verb.add_argument("--truth", help="URI of the same frames without rain")
    verb.add_argument("--count", type=int, default=2, help="of frames")
    verb.add_argument("--fp8", action="store_true", help="an FP8 graph and engine too")
    verb.add_argument("--rewrites", action="store_true", help="a case of each choice of rewrites")
    for name, told in (("measure", "time every engine"), ("interleave", "time one engine, the cases in turn")):
        verb = verbs.add_parser(name, help=told)
        verb.add_argument("cases", type=Path, nargs="+")
        verb.add_argument("--repeats", type=int, default=200)
        verb.add_argument("--limit", type=float, default=180, help="seconds for one measurement")
        verb.add_argument("--out", type=Path, help="write the rows to this JSON file")
        if name == "measure":
            verb.add_argument("--only", type=_engines, default=list(ENGINES), metavar="ENGINE,...")
            verb.add_argument("--skip", type=_engines, default=[], metavar="ENGINE,...")
            verb.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    chosen = parser.parse_args(words)
    try:
        if chosen.verb == "prepare":
            prepare_cases(chosen)
            return
        device = getattr(chosen, "device", "cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise OSError("no GPU that PyTorch can use: run this where there is one, or `measure` with --device cpu")
        if chosen.verb == "measure":
            wanted = [engine for engine in chosen.only if engine not in chosen.skip]
            rows = measure(chosen.cases, wanted, chosen.out, device, chosen.repeats, chosen.limit)
            failed = sum("error" in row for row in rows)
            print(f"{len(rows) - failed} measured, {failed} failed")
        else:
            interleave(chosen.cases, chosen.out, chosen.repeats, chosen.limit)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def _engines(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ENGINES]:
        raise argparse.ArgumentTypeError(f"engine {unknown[0]!r}: expected some of {', '.join(ENGINES)}")
    return [engine for engine in ENGINES if engine in names]


if __name__ == "__main__":
    main()
