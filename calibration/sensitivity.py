"""What each layer costs in 8 bits, and the fewest to leave in floating point for a stated loss.

Loss is the fall of the output's PSNR against the clean frame, FP32 less quantised, in dB. Without clean frames FP32's
own error is taken for the one of `ASSUMED_PSNR` and the quantiser's for independent of it: errors then add, and the
loss is 10·log10(1 + quantiser's MSE / FP32's MSE).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from derain.export.probe import Runner
from derain.runtime.frames import Image, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.psnr import decibels, mse
from derain.training.scores import SSIM_WINDOW, ssim

log = logging.getLogger(__name__)

ASSUMED_PSNR = 32.0
"""dB of FP32's output against the clean frame where there is none to measure it."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class LayerCost:
    """One convolution in 8 bits, all else in FP32."""

    name: str
    mse: float
    """Of the output against FP32's, in squared grey levels over RGB."""
    loss_db: float


class Judge:
    """Frames that no range was taken from, FP32's output on them, and the clean frames where they are known.

    Outputs are compared as pictures, bgr8, whatever the camera's format: a byte of shared chroma shows in four pixels.
    """

    def __init__(
        self, reference: onnx.ModelProto, frames: list[Image], truths: list[Image] | None, output: FrameSpec
    ) -> None:
        self.frames, self.truths, self.output = frames, truths, output
        self.expected = self.outputs(reference)
        self._errors = [] if truths is None else self._against_truth(self.expected)

    def outputs(self, graph: onnx.ModelProto) -> list[Image]:
        """What a graph makes of the frames, bgr8."""
        runner = Runner(graph)
        return [to_bgr(runner.image(frame), self.output) for frame in self.frames]

    def loss(self, outputs: list[Image]) -> float:
        """The mean over frames in dB; negative where the quantised output happens to be the better one."""
        if self.truths is not None:
            errors = self._against_truth(outputs)
            return float(np.mean([10 * math.log10(a / b) for a, b in zip(errors, self._errors, strict=True)]))
        assumed = 255**2 / 10 ** (ASSUMED_PSNR / 10)
        return 10 * math.log10(1 + mse(outputs, self.expected) / assumed)

    def psnr_rgb(self, outputs: list[Image]) -> float | None:
        """The mean over frames in dB against the clean frames, None without any."""
        if self.truths is None:
            return None
        return float(np.mean([decibels(error) for error in self._against_truth(outputs)]))

    def ssim_rgb(self, outputs: list[Image]) -> float | None:
        """The mean over frames against the clean frames, None without any or where frames are too small for it."""
        if self.truths is None or min(self.truths[0].shape[:2]) < SSIM_WINDOW:
            return None
        return float(np.mean([ssim(image, truth) for image, truth in zip(outputs, self.truths, strict=True)]))

    def _against_truth(self, outputs: list[Image]) -> list[float]:
        assert self.truths is not None
        return [max(mse(image, truth), 1e-6) for image, truth in zip(outputs, self.truths, strict=True)]


def costs(
    judge: Judge, layers: list[str], quantised: Callable[[list[str]], onnx.ModelProto], progress: Progress
) -> list[LayerCost]:
    """Each layer alone in 8 bits, in the order of `layers`; `quantised` makes the graph."""
    found = []
    for index, layer in enumerate(layers):
        outputs = judge.outputs(quantised([layer]))
        found.append(LayerCost(layer, mse(outputs, judge.expected), judge.loss(outputs)))
        progress("sensitivity", (index + 1) / len(layers))
    return found


def smallest_kept(
    found: list[LayerCost],
    max_loss: float,
    loss: Callable[[list[str]], float],
) -> list[str]:
    """The shortest head of the layers, the costliest first, that floating point must keep for at most `max_loss` dB.

    Found by bisection, each step a measurement of the whole graph: `loss` is given the layers in floating point.

    Raises:
        ValueError: not even one layer fits.
    """
    order = [cost.name for cost in found]
    ranked = [cost.name for cost in sorted(found, key=lambda cost: -cost.mse)]
    fewest, most = 0, len(ranked)
    while fewest < most:
        tried = (fewest + most) // 2
        reached = loss(ranked[:tried])
        log.info("%d of %d layers in floating point: %.3f dB", tried, len(ranked), reached)
        fewest, most = (fewest, tried) if reached <= max_loss else (tried + 1, most)
    if most == len(ranked):
        raise ValueError(f"no layer can be in 8 bits at a loss of {max_loss:g} dB: allow more with --max-loss")
    return [name for name in order if name in set(ranked[:most])]
