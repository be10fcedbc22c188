"""A frame on its way through the pipeline, and the desk's stand-in for a camera's bytes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from derain.runtime.manifest import FrameSpec
from derain.runtime.pixels import PixelFormat, rgb_to_yuv

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as the camera delivers it.

    `id` counts from 0 in the source's order; `captured_ns` is `time.monotonic_ns()` when the bytes were complete on the
    host, `asked_ns` when the source was asked for them; `image` is uint8 in `FrameSpec.image_shape`. `fits` is False
    where a live camera changed its size and this is a scaled picture to show raw, not one to derain. A frame that came
    cut short is `broken`: its image is empty, since half a picture is none to show.
    """

    id: int
    captured_ns: int
    image: Image
    asked_ns: int
    fits: bool = True

    @property
    def broken(self) -> bool:
        """Whether there is nothing to show."""
        return self.image.size == 0

    def without_image(self) -> "Frame":
        """What is left of a frame that nobody will see."""
        return replace(self, image=np.empty(0, np.uint8))


def from_bgr(image: npt.NDArray[Any], spec: FrameSpec) -> Image:
    """BGR [H, W, 3] as the camera bytes `spec` asks for: for files decoded on the desk, a camera delivers its own.

    Chroma is the mean over the pixels that share it (2 by 2 for nv12, 2 by 1 for uyvy), rounded once. Raises
    ValueError where the size is not `spec`'s.
    """
    height, width = image.shape[:2]
    if (width, height) != (spec.width, spec.height):
        raise ValueError(
            f"frames are {width}x{height}, the bundle expects {spec.width}x{spec.height}: "
            f"give it those, or export one for this size with `derain export … --size {width}x{height}`"
        )
    if spec.pixels is PixelFormat.BGR8:
        return image
    if spec.pixels is PixelFormat.RGB8:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    matrix, offset = rgb_to_yuv(spec.matrix, spec.range)
    yuv = cv2.transform(image.astype(np.float32), np.column_stack([matrix[:, ::-1], offset]))
    rows = height // 2 if spec.pixels is PixelFormat.NV12 else height
    chroma = _to_bytes(cv2.resize(yuv[..., 1:], (width // 2, rows), interpolation=cv2.INTER_AREA))
    luma = _to_bytes(yuv[..., 0])
    if spec.pixels is PixelFormat.NV12:
        return np.concatenate([luma, chroma.reshape(rows, width)])
    return np.stack([chroma.reshape(height, width), luma], axis=-1)


def to_bgr(image: Image, spec: FrameSpec) -> Image:
    """Camera bytes in `spec`'s format as BGR [H, W, 3], to write or compare on the desk; shared chroma is repeated."""
    if spec.pixels is PixelFormat.BGR8:
        return image
    if spec.pixels is PixelFormat.RGB8:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
    if spec.pixels is PixelFormat.NV12:
        luma, chroma = image[: spec.height], image[spec.height :].reshape(spec.height // 2, spec.width // 2, 2)
        chroma = chroma.repeat(2, axis=0)
    else:
        luma, chroma = image[..., 1], image[..., 0].reshape(spec.height, spec.width // 2, 2)
    yuv = np.dstack([luma, chroma.repeat(2, axis=1)]).astype(np.float32)
    matrix, offset = rgb_to_yuv(spec.matrix, spec.range)
    inverse = np.linalg.inv(matrix)[::-1]
    return _to_bytes(cv2.transform(yuv, np.column_stack([inverse, -inverse @ offset])))


def scaled(image: npt.NDArray[Any], size: tuple[int, int]) -> Image:
    """BGR [H, W, 3] at another (width, height), by area."""
    resized: Image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return resized


def converter(source: FrameSpec, target: FrameSpec) -> Callable[[Image], Image]:
    """What turns a frame of `source` into one of `target`: itself, without a copy, where only the names differ."""
    if source.model_copy(update={"tensor": target.tensor}) == target:
        return lambda image: image
    size = (target.width, target.height)

    def convert(image: Image) -> Image:
        bgr = to_bgr(image, source)
        if size != (source.width, source.height):
            bgr = scaled(bgr, size)
        return from_bgr(bgr, target)

    return convert


def _to_bytes(values: npt.NDArray[Any]) -> Image:
    bytes_: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return bytes_
