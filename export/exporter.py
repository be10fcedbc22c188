"""From weights to a bundle, and from a bundle back to its network."""

import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import safe_open
from torch import nn

from derain.export.camera import CameraModel, downscale_of
from derain.export.onnx_graph import to_onnx
from derain.export.rewrite import DEFAULT, rewrite, with_rewrites
from derain.export.trace import trace
from derain.export.unroll import UnrollReport, unroll
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import FrameSpec, GraphEntry, ManifestContent, ModelInfo, Precision, UnrollInfo
from derain.runtime.pixels import ColorMatrix, ColorRange, PixelFormat
from derain.training.models import parameter_count, recurrent_steps
from derain.training.models.registry import step_options
from derain.training.models.weights import load, save_weights

MIN_SIDE, MAX_SIDE = 16, 16384
"""Frame widths and heights in pixels that a camera has and that ONNX and TensorRT take."""

MOST_DOWNSCALE = 8
"""By which a network may see frames smaller: at 4 it sees an 8-megapixel camera's frames as 960x540."""

MOST_STEPS = 64
"""Recurrent steps: the unrolled graph grows with them, and one has the cost that the paper gives."""

RANDOM = "random"
"""Noted in the weights of a bundle whose network was never trained."""

WEIGHTS, GRAPH = "weights.safetensors", "graph.fp32.onnx"


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) from "WxH".

    Raises:
        ValueError: another form, or a side outside MIN_SIDE…MAX_SIDE.
    """
    match = re.fullmatch(r"(\d{1,9})[xX](\d{1,9})", text)
    size = tuple(map(int, match.groups())) if match else ()
    if len(size) != 2 or not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise ValueError(f"size {text!r}: expected WxH with sides of {MIN_SIDE} to {MAX_SIDE} pixels, as in 1280x720")
    return size[0], size[1]


def export(
    weights: str,
    out: Path,
    size: tuple[int, int],
    pixels: PixelFormat = PixelFormat.BGR8,
    matrix: ColorMatrix = ColorMatrix.BT601,
    color_range: ColorRange = ColorRange.LIMITED,
    steps: int | None = None,
    rewrites: Iterable[str] = DEFAULT,
    downscale: int = 1,
) -> tuple[Bundle, UnrollReport]:
    """Unroll a network for frames of (width, height) and write the bundle `out` with its FP32 graph and its weights.

    Args:
        weights: a safetensors file, the name of shipped weights, or `random:MODEL`.
        out: the bundle's folder; it appears whole or not at all.
        size: of the camera's frames, in pixels; the graph pads them to the network's multiple and crops back.
        pixels, matrix, color_range: the camera's bytes, in and out.
        steps: recurrent steps of the encoders and decoders; None leaves them as the weights were trained.
        rewrites: names of `derain.export.rewrite.REWRITES`; what each removed is noted in the graph.
        downscale: the network sees frames 1/downscale as high and wide; see `CameraModel`.

    Raises:
        OSError, ValueError: one line each, with the mend; a place where no bundle can be is told before any work.
    """
    Bundle.check_place(out)
    width, height = size
    pixels.frame_shape(width, height)  # refuses odd sizes where chroma is shared, before any work
    if steps is not None and not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"{steps} recurrent steps: expected 1 to {MOST_STEPS}")
    most = max(1, min(MOST_DOWNSCALE, min(size) // MIN_SIDE))
    if not 1 <= downscale <= most:
        raise ValueError(f"downscale {downscale}: expected 1 to {most} for frames of {width}x{height}")
    colours = (matrix, color_range)
    if pixels in (PixelFormat.BGR8, PixelFormat.RGB8) and colours != (ColorMatrix.BT601, ColorRange.LIMITED):
        raise ValueError(f"matrix {matrix}, range {color_range}: of nv12 and uyvy, {pixels} has none: leave them out")
    trained = load(weights)
    if steps is not None:
        options = step_options(trained.name)
        if not options:
            raise ValueError(f"--steps {steps}: {trained.name} has none to choose: leave it out")
        trained = load(weights, **dict.fromkeys(options, steps))
    frame = FrameSpec(tensor="frame", width=width, height=height, pixels=pixels, matrix=matrix, range=color_range)
    clean = frame.model_copy(update={"tensor": "clean"})

    unrolled, report = unroll(traced(trained.network, frame, clean, downscale))
    rewritten = rewrite(unrolled, rewrites)
    graph = with_rewrites(to_onnx(unrolled, frame.tensor, clean.tensor), rewritten)
    encoder_steps, decoder_steps = recurrent_steps(trained.network)

    description = ManifestContent(
        derain_version=version("derain"),
        model=ModelInfo(
            name=trained.name,
            parameters=parameter_count(trained.network),
            weights=WEIGHTS,
            config={"options": trained.options} | ({"downscale": downscale} if downscale > 1 else {}),
        ),
        unroll=UnrollInfo(
            encoder_steps=encoder_steps,
            decoder_steps=decoder_steps,
            macs=report.macs,
            macs_naive=report.macs_naive,
        ),
        input=frame,
        output=clean,
        graphs=(GraphEntry(precision=Precision.FP32, file=GRAPH),),
    )
    with TemporaryDirectory() as folder:
        stored: bytes | Path | None = trained.content
        if stored is None:
            stored = Path(folder) / WEIGHTS
            save_weights(stored, trained.network, trained.name, trained.options, torch.float32, weights=RANDOM)
        bundle = Bundle.write(out, description, {GRAPH: graph.SerializeToString(), WEIGHTS: stored})
    return bundle, report


def traced(network: nn.Module, frame: FrameSpec, clean: FrameSpec, downscale: int = 1) -> torch.fx.GraphModule:
    """The naive unroll of a network between camera bytes."""
    return trace(CameraModel(network, frame, clean, downscale).eval(), torch.empty(frame.shape, dtype=torch.uint8))


def traced_bundle(bundle: Bundle) -> torch.fx.GraphModule:
    """The naive unroll of what a bundle was exported from, its weights channels-last, which a CPU likes better."""
    network = bundle_network(bundle).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return traced(network, bundle.manifest.input, bundle.manifest.output, downscale_of(bundle.manifest.model))


def bundle_network(bundle: Bundle) -> nn.Module:
    """The PyTorch network a bundle was exported from, rebuilt from the weights beside its graphs."""
    model = bundle.manifest.model
    return load(str(bundle.file(model.weights)), **model.config.get("options", {})).network


def is_untrained(bundle: Bundle) -> bool:
    """Whether a bundle was exported from `random:NAME`."""
    with safe_open(bundle.file(bundle.manifest.model.weights), "pt") as stored:
        return bool((stored.metadata() or {}).get("weights") == RANDOM)
