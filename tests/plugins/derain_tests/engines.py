"""An engine against ONNX Runtime's CPU, in the precision's bounds."""

from collections.abc import Sequence

from derain.export.verify import Distance
from derain.runtime import engines
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Image
from derain.runtime.manifest import Precision


def faults(name: str, bundle: Bundle, precision: Precision, frames: Sequence[Image], **options) -> list[str]:
    """How it is too far from the CPU's FP32, frame by frame, and once more after it was closed and opened again."""
    with engines.create("onnxruntime", bundle) as reference:
        expected = [reference.infer(frame) for frame in frames]
    with engines.create(name, bundle, precision, **options) as runner:
        seen = [runner.infer(frame) for frame in frames]
        runner.close()
        runner.open()
        seen.append(runner.infer(frames[1]))
    distances = [Distance.between(a, b) for a, b in zip(seen, [*expected, expected[1]], strict=True)]
    return [fault for distance in distances if (fault := distance.fault(precision))]
