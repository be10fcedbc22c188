"""FP16 on the camera's own frames: the same choice of frames as for 8 bits, `derain.export.fp16` does the rest."""

from collections.abc import Iterable

from derain.calibration.frames import choose
from derain.export.fp16 import Fp16Report, add_fp16
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Frame


def calibrate_fp16(bundle: Bundle, stream: Iterable[Frame], name: str, count: int = 16) -> tuple[Bundle, Fp16Report]:
    """Make the bundle's FP16 graph on the most different frames of `stream`, which is called `name`."""
    Bundle.check_place(bundle.path)
    chosen = choose(stream, bundle.manifest.input, count, name)
    return add_fp16(bundle, [frame.image for frame in chosen], name)
