"""Whether an engine's output can be a picture of its input.

A graph's uint8 output cannot hold NaN or infinity; what they leave behind is a flat picture, black in most cases, since
the cast makes them 0 or 255. An engine whose copies fail silently shows the frame before. Both are looked for in the
luma at about 48 by 64 points, 30 µs a 1920x1080 frame; a full comparison would read 12 MB.
"""

import numpy as np

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.pixels import PixelFormat

ROWS, COLUMNS = 48, 64
FLAT = 2  # grey levels between the darkest and the brightest point of a flat picture, which may be dithered
CONTRAST = 24  # an input with less than this may come out flat rightly: a dark tunnel, a fogged lens
MOTION = 2.0  # the mean change of the input in grey levels that must leave a trace in the output: above sensor noise


def luma_sample(image: Image, spec: FrameSpec) -> Image:
    """About 48x64 luma points of camera bytes (green for bgr8 and rgb8), uint8, strided views copied small."""
    rows, columns = max(spec.height // ROWS, 1), max(spec.width // COLUMNS, 1)
    if spec.pixels is PixelFormat.NV12:
        return image[: spec.height : rows, ::columns].copy()
    return image[::rows, ::columns, 1].copy()


class Plausibility:
    """Judges outputs one after the other."""

    def __init__(self, input_spec: FrameSpec, output_spec: FrameSpec) -> None:
        self._input, self._output = input_spec, output_spec
        self._last: tuple[Image, Image] | None = None

    def fault(self, image: Image, clean: Image) -> str | None:
        """Why `clean` cannot be the derained `image`; None where it may be."""
        raw, derained = luma_sample(image, self._input), luma_sample(clean, self._output)
        last, self._last = self._last, (raw, derained)
        if np.ptp(derained) <= FLAT and np.ptp(raw) >= CONTRAST:
            return f"the output is flat, {derained.flat[0]} everywhere, the input is not"
        if last is not None and np.array_equal(derained, last[1]):
            motion = float(np.mean(np.abs(raw.astype(np.int16) - last[0])))
            if motion >= MOTION:
                return f"the output is frozen while the input moves by {motion:.0f} grey levels"
        return None
