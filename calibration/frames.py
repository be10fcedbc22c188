"""Which frames to calibrate on: as different as a clip has them, not the first N.

Frames are compared by small pictures of themselves. Of a stream of any length only the chosen are held: a new frame
takes the place of one of the two most alike whenever it is farther from all the others than those two are apart
(a one-pass form of farthest-point selection).
"""

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.runtime.frames import Frame, Image, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.sources import Source

FEWEST = 4
"""Frames below which no range is worth its name."""

DARKEST = 16
"""Grey level that the brightest percent of the brightest frame must pass: video black is 16."""

ALIKE = 1.0
"""Grey levels, root mean square between thumbnails, that the frames must span."""

THUMBNAIL = (24, 16)
"""Width and height in pixels."""


def recorded(stream: Source, name: str) -> Source:
    """The stream; ValueError where it is live, for it would never end."""
    if stream.live:
        raise ValueError(f"{name}: a live source, which never ends: expected a clip or a folder; record one from it")
    return stream


def choose(
    stream: Iterable[Frame], spec: FrameSpec, count: int, name: str, fewest: int = FEWEST, varied: bool = True
) -> list[Frame]:
    """The `count` frames of `stream` (fewer, where it holds fewer) that differ most, in the order they came.

    Args:
        stream: frames in `spec`'s format.
        spec: the graph's input.
        count: of frames to choose, at least `fewest`.
        name: of the stream, for errors.
        fewest: frames that it must hold.
        varied: whether they must differ and hold light, as ranges want it.

    Raises:
        ValueError: fewer than `fewest` frames; where they should be `varied`, all of them black or all alike.
    """
    if count < fewest:
        raise ValueError(f"{count} frames to choose: expected at least {fewest}; give --count 16")
    chosen: list[Frame] = []
    features = np.empty((0, 3 * THUMBNAIL[0] * THUMBNAIL[1]), np.float32)
    brightest = 0.0
    for frame in stream:
        bgr = to_bgr(frame.image, spec)
        brightest = max(brightest, float(np.percentile(bgr[::4, ::4], 99)))
        feature = _thumbnail(bgr)
        if len(chosen) == count:
            apart = _distances(features)
            first, second = sorted(divmod(int(apart.argmin()), count))
            new = np.linalg.norm(features - feature, axis=1)
            others = np.delete(new, [first, second])
            if min(others.min(initial=np.inf), max(new[first], new[second])) <= apart.min():
                continue
            out = first if new[second] > new[first] else second
            del chosen[out]
            features = np.delete(features, out, axis=0)
        chosen.append(replace(frame, image=frame.image.copy()))
        features = np.vstack([features, feature])
    if len(chosen) < fewest:
        raise ValueError(f"{name}: {len(chosen)} frames, expected at least {fewest}: give --frames a longer clip")
    if not varied:
        return chosen
    if brightest <= DARKEST:
        raise ValueError(f"{name}: all black (no grey level over {brightest:.0f}): give --frames a clip with light")
    apart = _distances(features)
    span = float(apart[np.isfinite(apart)].max() / np.sqrt(features.shape[1]))
    if span < ALIKE:
        raise ValueError(
            f"{name}: {len(chosen)} frames that are all alike ({span:.2f} grey levels apart, expected {ALIKE:.0f}): "
            f"give --frames a clip of a moving camera"
        )
    return chosen


def _thumbnail(bgr: Image) -> NDArray[np.float32]:
    small: NDArray[np.float32] = cv2.resize(bgr, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return small


def _distances(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """All distances [n, n], a frame's from itself infinite."""
    squares = np.square(features).sum(1)
    square = squares[:, None] + squares - 2 * features @ features.T
    distances: NDArray[np.float32] = np.sqrt(np.maximum(square, 0))
    np.fill_diagonal(distances, np.inf)
    return distances
