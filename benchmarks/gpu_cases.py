"""Cases for `gpu.py` to measure, made on any machine: a bundle with its graphs and engines, frames, and what is right.

A network at full size costs a CPU minutes a frame, so what FP16 and FP8 need is found on tiles of the frames: which
nodes stay in FP32 and which ranges hold, by the names of nodes, which a graph has at every size. Only the expected
output, that of the FP32 graph, is computed at full size.
"""

import argparse
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from derain.runtime.atomic import new_directory
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import FrameSpec, GraphEntry, Precision
from derain.runtime.psnr import MIN_PSNR, psnr
from derain.runtime.sources import open_source
from derain.training.models import build
from derain.training.models.weights import load, resolve, save_weights

API = "tensorrt-rtx"
CLEARLY = 3.0
"""dB by which a wrong picture must miss them."""

TILE = (128, 80)
"""Pixels of a tile; less or more by up to 64, so that it is padded as the whole frame is."""

TILES = 3
"""Columns and rows of tiles, from edge to edge of a frame: sky, road and rain are among them."""

CASES = (("daiam", "1280x720"), ("daiam-edge", "1280x720"), ("daiam-edge", "1920x1080"))
"""What is measured unless something else is asked for."""

Frames = NDArray[np.uint8]


class Case(NamedTuple):
    """One network at one size: `frames` and `expected`, the FP32 graph's output, uint8 [N, …] in the bundle's formats.

    `truth` is what the frames are without rain, where that is known.
    """

    name: str
    bundle: Bundle
    frames: Frames
    expected: Frames
    truth: Frames | None


def read_case(folder: Path) -> Case:
    """A case that `prepare` made.

    Raises:
        FileNotFoundError, ValueError: there is none, or its bundle is broken.
    """
    file = folder / "frames.npz"
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no case (it has no frames.npz): make one with `gpu.py prepare`")
    with np.load(file) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    return Case(folder.name, Bundle.load(folder / "bundle"), held["frames"], held["expected"], held.get("truth"))


def prepare(
    weights: str,
    size: tuple[int, int],
    folder: Path,
    frames: str | None = None,
    truth: str | None = None,
    count: int = 2,
    fp8: bool = False,
    rewrites: Iterable[str] | None = None,
) -> Case:
    """Make the case `folder`, whole or not at all: graphs, TensorRT-RTX engines in FP16 (and FP8), and what is right.

    Args:
        weights: a file, a shipped name, or `random:MODEL`, whose weights then keep every signal alive.
        size: of the frames, (width, height).
        folder: where the case goes.
        frames, truth: URIs; without them frames are drawn from seeds.
        count: of frames.
        fp8: make that graph and engine too.
        rewrites: of `derain.export.rewrite`; None: those of every export.

    Raises:
        ValueError: the expected output could not show a mistake; or see `export`, `make_fp16`, `build`.
    """
    from derain.export.build import build as build_engine
    from derain.export.exporter import export
    from derain.export.probe import seeded_frame
    from derain.export.rewrite import DEFAULT
    from derain.runtime import engines

    chosen = DEFAULT if rewrites is None else tuple(rewrites)
    precisions = (Precision.FP16, Precision.FP8) if fp8 else (Precision.FP16,)
    with TemporaryDirectory() as temporary, new_directory(folder) as made:
        stored = _lively(weights, Path(temporary)) if weights.startswith("random:") else weights
        bundle, _ = export(stored, made / "bundle", size, rewrites=chosen)
        spec = bundle.manifest.input
        images = _read(frames, spec, count) if frames else [seeded_frame(spec, seed) for seed in range(count)]
        arrays = {"frames": np.stack(images)}
        if truth is not None:
            arrays["truth"] = np.stack(_read(truth, bundle.manifest.output, count))
        with engines.create("onnxruntime", bundle, Precision.FP32) as reference:
            arrays["expected"] = np.stack([reference.infer(image) for image in images])
        _require_telling(arrays["frames"], arrays["expected"])
        tile = (_side(size[0], TILE[0]), _side(size[1], TILE[1]))
        scout, _ = export(stored, Path(temporary) / "tile", tile, rewrites=chosen)
        graphs = _reduced(bundle, scout, [part for image in images for part in tiles(image, tile)], fp8)
        entries = [GraphEntry(precision=precision, file=f"graph.{precision}.onnx") for precision in graphs]
        bundle = bundle.add({f"graph.{precision}.onnx": data for precision, data in graphs.items()}, graphs=entries)
        for precision in precisions:
            bundle, _ = build_engine(bundle, precision, API)
        np.savez_compressed(made / "frames.npz", **arrays)
    return read_case(folder)


def tiles(image: Frames, size: tuple[int, int]) -> list[Frames]:
    """`TILES` by `TILES` parts of an image [H, W, 3], (width, height) each, evenly from edge to edge."""
    (width, height), (rows, columns) = size, image.shape[:2]
    tops, lefts = (
        [round(step * (whole - part) / (TILES - 1)) for step in range(TILES)]
        for whole, part in ((rows, height), (columns, width))
    )
    return [image[top : top + height, left : left + width].copy() for top in tops for left in lefts]


def enliven(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights under which every layer's output is about as large as its input; in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(0, (1.5 / module.weight[0].numel()) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-0.3, 0.3, generator=generator)
    return network.eval()


def save_lively(file: Path, name: str, options: dict[str, Any]) -> None:
    """Weights of a network nobody has trained, which are good for its speed and for nothing else."""
    save_weights(file, enliven(build(name, **options)), name, options, torch.float32, weights="random")


def prepare_cases(arguments: argparse.Namespace) -> None:
    """The case of --weights and --size, or `CASES`; with --rewrites one of each choice of rewrites."""
    from derain.export.exporter import parse_size
    from derain.export.rewrite import REWRITES

    wanted = [(arguments.weights, arguments.size)] if arguments.weights else [(_best(m), s) for m, s in CASES]
    choices: dict[str, tuple[str, ...] | None] = {"": None}
    if arguments.rewrites:
        choices = {
            "-0-none": (),
            **{f"-1-{name}": (name,) for name in REWRITES},
            "-2-default": None,
            "-3-all": tuple(REWRITES),
        }
    for weights, size in wanted:
        for suffix, rewrites in choices.items():
            name = f"{_called(weights)}-{size}{suffix}"
            case = prepare(
                weights,
                parse_size(size),
                arguments.folder / name,
                frames=arguments.frames,
                truth=arguments.truth,
                count=arguments.count,
                fp8=arguments.fp8,
                rewrites=rewrites,
            )
            made = sum(file.stat().st_size for file in case.bundle.path.parent.rglob("*") if file.is_file())
            print(f"{arguments.folder / name}: {made / 1e6:.1f} MB", flush=True)


def _called(weights: str) -> str:
    """A case's name: its weights', or their run's, which are all called weights.safetensors."""
    path = Path(weights.removeprefix("random:"))
    return path.parent.name if path.stem == "weights" and path.parent.name else path.stem


def _best(model: str) -> str:
    """The weights that ship for a model, or random ones."""
    try:
        resolve(model)
    except FileNotFoundError:
        return f"random:{model}"
    return model


def _require_telling(frames: Frames, expected: Frames) -> None:
    """Refuse an expected output that a wrong engine would reach: one that gives one grey, or the frame as it came."""
    bound = MIN_PSNR[Precision.FP16]
    wrong = {"a picture of one grey": np.full_like(expected, round(float(expected.mean())))}
    if frames.shape == expected.shape:
        wrong["the frame as it came"] = frames
    for what, picture in wrong.items():
        if (near := psnr(picture, expected)) > bound - CLEARLY:
            raise ValueError(
                f"{what} is {near:.1f} dB from the FP32 output, so that the bound of {bound:.0f} dB proves nothing: "
                f"expected at most {bound - CLEARLY:.0f}; give --frames in rain"
            )


def _lively(weights: str, folder: Path) -> str:
    trained, file = load(weights), folder / "weights.safetensors"
    save_lively(file, trained.name, trained.options)
    return str(file)


def _read(uri: str, spec: FrameSpec, count: int) -> list[Frames]:
    with open_source(uri, spec) as stream:
        images = [frame.image.copy() for frame in islice(stream, count)]
    if len(images) < count:
        raise ValueError(f"{uri}: {len(images)} frames, expected {count}: lower --count")
    return images


def _side(side: int, wanted: int) -> int:
    """A length near `wanted` that leaves the same remainder as `side` by every power of two up to 64."""
    return min(side, wanted // 64 * 64 + side % 64)


def _reduced(bundle: Bundle, scout: Bundle, images: list[Frames], fp8: bool) -> Mapping[Precision, bytes]:
    """The FP16 and FP8 graphs of a bundle, from what the same network shows on tiles of its frames."""
    from derain.export.fp16 import make_fp16, to_fp16
    from derain.export.onnx_graph import read_onnx

    whole, small = (read_onnx(b.graph()) for b in (bundle, scout))
    if [node.name for node in whole.graph.node] != [node.name for node in small.graph.node]:
        raise ValueError(f"{bundle.path}: its graph has other nodes at {images[0].shape[1::-1]}: take another size")
    _, report = make_fp16(small, images)
    graphs = {Precision.FP16: to_fp16(whole, {*report.overflowing, *report.lossy}).SerializeToString()}
    if fp8:
        graphs[Precision.FP8] = _fp8(whole, small, images, report.overflowing)
    return graphs


def _fp8(whole: Any, small: Any, images: list[Frames], islands: Iterable[str]) -> bytes:
    """Every layer in FP8, its ranges as wide as the tiles need."""
    from derain.calibration.qdq import activations, layers, quantize
    from derain.calibration.ranges import Method, histograms
    from derain.export.fp16 import to_fp16
    from derain.export.lint import lint

    collected = histograms(small, activations(small), images)
    limits = {name: histogram.limit(Method.MINMAX, Precision.FP8) for name, histogram in collected.items()}
    graph = to_fp16(quantize(whole, limits, Precision.FP8, layers(whole)), islands)
    lint(graph)
    return bytes(graph.SerializeToString())
