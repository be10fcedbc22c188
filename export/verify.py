"""Is the graph still the network? PyTorch against every graph of a bundle, at the bundle's own size.

The output is judged byte by byte. A layer that does nothing hardly shows in a frame, so how large each tensor is that
both sides have is judged as well, and in FP16 and 8 bits, where that says less, each stored constant. Only where they
differ does the comparison go inside: tensor by tensor, the traced network against the graph, to name the first that
drifts.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any, Self

import torch
from torch import Tensor, fx

from derain.export.drift import FAINT, changed_constant, first_drift
from derain.export.exporter import traced_bundle
from derain.export.onnx_graph import read_onnx
from derain.export.probe import Magnitude, MagnitudeRunner, seeded_frame
from derain.runtime import engines
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Image
from derain.runtime.manifest import Precision
from derain.runtime.memory import release_freed_memory
from derain.runtime.psnr import (
    MAX_ABS_DIFF,
    MAX_SHARE,
    MIN_PSNR,
    finite_or_none,
    max_abs_diff,
    most_8_bit_error,
    mse,
    psnr,
)

log = logging.getLogger(__name__)

EIGHT_BITS = (Precision.INT8, Precision.FP8)

MAGNITUDE_DRIFT = {Precision.FP32: 1e-4, Precision.FP16: 1e-2, Precision.INT8: 0.5, Precision.FP8: 0.5}
"""A tensor drifts, too, where its mean magnitude is off by more than this share of PyTorch's, or of FAINT.

In sound graphs of our networks and the peers it reaches 1.1e-6, 5.4e-4, 0.08 and 0.11.
"""


@dataclass(frozen=True)
class Distance:
    """How far apart two pictures of one frame are, over all their bytes."""

    psnr: float
    """dB; infinite where they are equal."""
    max_abs_diff: int
    """Grey levels."""

    @classmethod
    def between(cls, seen: Image, expected: Image) -> Self:
        """Of two uint8 pictures of one shape."""
        return cls(psnr(seen, expected), max_abs_diff(seen, expected))

    def fault(self, precision: Precision) -> str | None:
        """Why a graph of this precision may not be so far from PyTorch; None where it may."""
        if self.psnr < (least := MIN_PSNR[precision]):
            return f"is {self.psnr:.1f} dB from PyTorch, expected {least:.0f}"
        if self.max_abs_diff > (most := MAX_ABS_DIFF.get(precision, 255)):
            return f"is {self.max_abs_diff} grey levels from PyTorch, expected at most {most}"
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite PSNR is null."""
        return {"psnr": finite_or_none(self.psnr), "max_abs_diff": self.max_abs_diff}


@dataclass(frozen=True)
class Verification:
    """One precision against PyTorch, on the worst of the frames that were compared."""

    precision: Precision
    total: Distance
    """From PyTorch to the engine."""
    pytorch_to_graph: Distance
    """To the graph, with FP16 rounded as a GPU rounds it, which ONNX Runtime's CPU does not."""
    graph_to_engine: Distance
    """What the engine adds, or leaves out, to that."""
    graph_fault: str | None
    """What is wrong with the graph, as "is 28.1 dB from PyTorch, expected 30"."""
    engine_fault: str | None
    """Likewise of what the engine gives."""
    overflow: str | None
    """The first tensor with a value that is not finite: beyond its type's reach, or made of one that was not."""
    first_drift: str | None
    """The first tensor that differs, where it did not pass and one was found."""
    frame: int
    """The worst frame: 0 is the seeded one, those given follow."""

    @property
    def passed(self) -> bool:
        """Engine and graph are both near enough, every tensor is finite and none drifts."""
        return self.graph_fault is None and self.engine_fault is None

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite PSNR is null."""
        total = self.total.to_json()
        return {
            "psnr_vs_fp32": total["psnr"],
            "max_abs_diff": total["max_abs_diff"],
            "pytorch_to_graph": self.pytorch_to_graph.to_json(),
            "graph_to_engine": self.graph_to_engine.to_json(),
            "passed": self.passed,
            "fault": self.graph_fault or self.engine_fault,
            "overflow": self.overflow,
            "first_drift": self.first_drift,
            "frame": self.frame,
        }


def verify(
    bundle: Bundle, engine: str = "onnxruntime", seed: int = 0, frames: Sequence[Image] = ()
) -> list[Verification]:
    """Compare every precision of the bundle that `engine` has with the network in PyTorch; the worst frame counts.

    Args:
        bundle: with the weights it was exported from.
        engine: by name.
        seed: of a frame with structure at every scale, which is always compared.
        frames: to compare as well, in the format of the bundle's input.

    Raises:
        ValueError: `engine` has no precision of this bundle, or there is no such engine.
    """
    precisions = engines.precisions(engine, bundle)
    if not precisions:
        mend = f"derain build {quote(str(bundle.path))} --precision fp16 --api {engine}"
        raise ValueError(f"{bundle.path}: no engine for {engine} in it: run `{mend}`")
    pictures = [seeded_frame(bundle.manifest.input, seed), *frames]
    expected = _references(bundle, pictures)
    release_freed_memory()
    results = []
    for precision in precisions:
        with engines.create(engine, bundle, precision) as runner:
            # Copies: ONNX Runtime keeps all of its memory as long as one of its own results lives.
            seen = [runner.infer(picture).copy() for picture in pictures]
        release_freed_memory()
        model = read_onnx(bundle.graph(precision))
        changed = None if precision is Precision.FP32 else changed_constant(read_onnx(bundle.graph()), model)
        graph = MagnitudeRunner(model)
        judged = [
            _judged(precision, index, picture, _Answer(*graph(picture)), seen[index], expected[index], changed)
            for index, picture in enumerate(pictures)
        ]
        worst = min(judged, key=lambda each: (each.passed, min(each.total.psnr, each.pytorch_to_graph.psnr)))
        if not worst.passed:
            first = first_drift(bundle, precision, pictures[worst.frame])
            worst = replace(worst, first_drift=first or worst.first_drift)
        results.append(worst)
    return results


@dataclass(frozen=True)
class _Answer:
    """What a network or a graph makes of a frame, and how large its tensors are on the way."""

    image: Image
    magnitudes: dict[str, Magnitude]


def _judged(
    precision: Precision,
    index: int,
    frame: Image,
    graph: _Answer,
    seen: Image,
    expected: _Answer,
    changed: str | None,
) -> Verification:
    overflow = next((name for name, size in graph.magnitudes.items() if not math.isfinite(size.total)), None)
    # In a camera's frame a tensor may hold next to nothing, of which 8 bits may leave anything
    in_doubt = precision in EIGHT_BITS and index > 0
    drift = None if in_doubt else _drift_of_magnitudes(precision, graph.magnitudes, expected.magnitudes)

    def fault(image: Image) -> str | None:
        far = Distance.between(image, expected.image).fault(precision)
        if far or index or precision not in EIGHT_BITS:
            return far
        error, most = mse(image, expected.image), most_8_bit_error(expected.image, frame)
        if error <= most:
            return None
        return f"errs by {error:.1f} squared, expected at most {most:.1f}, {MAX_SHARE:.0%} of what the network changes"

    broken = f"is not finite, first in tensor {overflow!r}" if overflow else None
    spoilt = f"has constant {changed!r} other than the FP32 graph's" if changed else None
    drifted = f"has tensor {drift!r} of another magnitude than PyTorch" if drift else None
    return Verification(
        precision,
        total=Distance.between(seen, expected.image),
        pytorch_to_graph=Distance.between(graph.image, expected.image),
        graph_to_engine=Distance.between(seen, graph.image),
        graph_fault=broken or fault(graph.image) or spoilt or drifted,
        engine_fault=fault(seen),
        overflow=overflow,
        first_drift=drift,
        frame=index,
    )


def _drift_of_magnitudes(
    precision: Precision, seen: dict[str, Magnitude], expected: dict[str, Magnitude]
) -> str | None:
    """The first tensor whose mean magnitude is not PyTorch's, of those that both have in one shape."""
    for name, size in seen.items():
        wanted = expected.get(name)
        if wanted is None or wanted.shape != size.shape:
            continue
        if not abs(size.mean - wanted.mean) <= MAGNITUDE_DRIFT[precision] * max(FAINT, wanted.mean):
            log.info("%s has a mean magnitude of %.6g, in PyTorch %.6g", name, size.mean, wanted.mean)
            return name
    return None


def _references(bundle: Bundle, frames: Sequence[Image]) -> list[_Answer]:
    """What PyTorch makes of frames' bytes: the bundle's network, traced but not rewritten; and its tensors' magnitudes.

    The interpreter frees each tensor after its last reader. A call of the module would hold the states of every
    ConvLSTM until it returns: at 1280×720 that is gigabytes.
    """
    reference = traced_bundle(bundle)
    answers = []
    for frame in frames:
        measured = _Measurer(reference)
        with torch.inference_mode():
            image = measured.run(torch.from_numpy(frame)[None])[0].numpy()
        answers.append(_Answer(image, measured.magnitudes))
    return answers


class _Measurer(fx.Interpreter):
    """Runs a graph and keeps how large each float tensor is that its nodes make."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.magnitudes: dict[str, Magnitude] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point():
            self.magnitudes[n.name] = Magnitude(tuple(value.shape), float(value.abs().sum()))
        return value
