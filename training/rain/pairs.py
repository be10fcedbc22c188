"""Rainy and clean pairs on disk, from a folder of stills, a sequence, a clip, or real raindrop pairs."""

import json
import logging
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.training.atomic import DISK_FULL
from derain.training.data import IMAGES, read_rgb, to_tensor
from derain.training.rain import counter_rng as rng
from derain.training.rain.clip import RainyClip
from derain.training.rain.scene import MASK_FULL, RainConfig, RainyBatch, compose, draw_weather, item_seeds, render
from derain.training.readers import check_name, told_if_still

log = logging.getLogger(__name__)

MOST_DAMAGED = 300
"""Frames of a clip in succession, behind which nothing more is looked for."""

CLIPS = {".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm"}
PARTS = ("rainy", "drops", "clean", "mask_streak", "mask_drop")
JRSRD_STRENGTHS = (0.0001, 1 / 3, 2 / 3, 1.0)
"""Four intensities an image; with the `noise` style these are the paper's noise levels of 20 % to 60 %."""

JRSRD = {"kinds": "streaks", "style": "noise", "strength": None, "wiper": None, "defocus": 0.0}
"""The rain of JRSRD; its strengths are `JRSRD_STRENGTHS`, in turn. It has the haze of far rain, which the paper
does not speak of and which makes the stronger ones stronger."""

Report = Callable[[int, int], None]
Pair = tuple[str, RainyBatch]


def synthesize(
    source: Path,
    out: Path,
    seed: int,
    config: RainConfig,
    *,
    sequence: bool = False,
    report: Report | None = None,
    cut_short: Callable[[Path], bool] = lambda clip: True,
) -> int:
    """Render rain over `source` into the new folder `out`; nothing is left there unless all of it is.

    A folder of images gets a new scene an image, one moving scene with `sequence`; a clip is a sequence, and also
    becomes `rainy.mkv` and `clean.mkv` (FFV1, lossless) where its size is even, as video wants it. A folder with
    `data` and `gt` inside holds real raindrop pairs in Qian et al.'s layout and becomes JRSRD: four images with
    rising streaks for each pair.

    Args:
        source: the folder or clip.
        out: a folder that is absent or empty.
        seed: the same seed renders the same rain.
        config: the rain; its `frame_height` is replaced by the images' own. JRSRD's is as `JRSRD` says.
        sequence: the images of the folder are consecutive frames, 25 a second, in the order of the numbers in their
            names.
        report: called with (images done, images in all) after each image; 0 in all is not known.
        cut_short: whether a clip that gave fewer frames than its header promises is truncated.

    Returns:
        How many pairs were written.

    Raises:
        FileNotFoundError: `source` does not exist.
        ValueError: no images, a broken image, a truncated clip, frames of unlike size, a clip's name or `out`'s that is
            not UTF-8, or `out` is not empty.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; expected a folder of images or a video clip")
    if out.exists() and (not out.is_dir() or any(not _abandoned(made) for made in out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder; name a new folder with --out, or empty this one")
    clip = source.is_file()
    if clip and source.suffix.lower() not in CLIPS:
        raise ValueError(f"{source} is no clip ({', '.join(sorted(CLIPS))}); for still images name their folder")
    note: dict[str, Any] = {"seed": seed, "mask_full": MASK_FULL, "derain": version("derain"), "source": str(source)}
    if clip:
        check_name(out.resolve())
        fps, total, frames = _open_clip(source)
        pairs = _sequence(frames, seed, config, fps)
        note["fps"] = fps
    elif holds_drop_pairs(source):
        config = config.model_copy(update=JRSRD)
        total, pairs = _jrsrd(source, seed, config)
        note["strengths"] = JRSRD_STRENGTHS
    else:
        files = _image_files(source)
        if sequence:
            files.sort(key=_in_time)
        total, fps = len(files), 25.0
        images = ((file.stem, _read(file)) for file in files)
        pairs = _sequence(images, seed, config, fps) if sequence else _stills(images, seed, config)
    out = out.resolve()
    # Inside a folder that is there, which may be a disk of its own; beside one that is not.
    staging = (out if out.exists() else out.parent) / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        written = _write(staging, pairs, total, report, fps if clip else None)
        if not written:
            raise ValueError(f"{source} has no frame that can be decoded: copy it again, or re-encode it")
        if clip and written < 0.99 * total - 1 and cut_short(source):
            raise ValueError(
                f"{source} ends after {written} frames where its header promises {total}; "
                "it is truncated: copy it again, or re-encode what is there with ffmpeg"
            )
        note |= {"config": config.model_dump(exclude={"frame_height"}), "sequence": clip or sequence, "pairs": written}
        (staging / "rain.json").write_text(json.dumps(note, indent=2) + "\n")
        if staging.parent == out:
            for made in staging.iterdir():
                made.rename(out / made.name)
        else:
            staging.rename(out)
    except OSError as error:
        if error.errno in DISK_FULL:  # the file it names goes away with the folder
            raise OSError(error.errno, error.strerror, str(out)) from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return written


def _abandoned(made: Path) -> bool:
    """Whether it is what a process that was killed left behind."""
    return made.name.startswith(".") and made.name.endswith(".partial")


def holds_drop_pairs(source: Path) -> bool:
    """Whether a folder holds real raindrop pairs in Qian et al.'s layout."""
    return (source / "data").is_dir() and (source / "gt").is_dir()


def _stills(images: Iterator[tuple[str, Tensor]], seed: int, config: RainConfig) -> Iterator[Pair]:
    for stem, image in images:
        yield stem, render(image, _own_seed(seed, stem), _sized(config, image))


def _sequence(frames: Iterator[tuple[str, Tensor]], seed: int, config: RainConfig, fps: float) -> Iterator[Pair]:
    drive: RainyClip | None = None
    size: torch.Size | None = None
    for index, (stem, frame) in enumerate(frames):
        if drive is None:
            drive, size = RainyClip(seed, _sized(config, frame), fps), frame.shape
        if frame.shape != size:
            raise ValueError(
                f"frame {stem} is {_size(frame.shape)}, the first one {_size(size)}; a sequence has one size"
            )
        yield stem, drive.render(frame, index)


def _jrsrd(source: Path, seed: int, config: RainConfig) -> tuple[int, Iterator[Pair]]:
    drops, truths = _image_files(source / "data"), _image_files(source / "gt")
    if len(drops) != len(truths):
        raise ValueError(f"{source} has {len(drops)} images in data and {len(truths)} in gt; expected pairs")
    by_number = {file.stem.split("_")[0]: file for file in truths}
    for drop in drops:
        if drop.stem.split("_")[0] not in by_number:
            raise ValueError(f"{drop} has no partner in {source / 'gt'}; expected N_rain beside N_clean")

    def pairs() -> Iterator[Pair]:
        for drop in drops:
            partner = by_number[drop.stem.split("_")[0]]
            rainy, clean = _read(drop), _read(partner)
            if rainy.shape != clean.shape:
                raise ValueError(f"{drop} is {_size(rainy.shape)}, {partner} {_size(clean.shape)}; pairs match in size")
            own = item_seeds(_own_seed(seed, drop.stem), 1)  # one weather for the four, so that its rain only rises
            for number, strength in enumerate(JRSRD_STRENGTHS):
                weather = draw_weather(own, _sized(config, clean), strength)
                yield f"{drop.stem}_{number}", compose(clean, weather, rainy, rng.derive(own, 22))

    return len(JRSRD_STRENGTHS) * len(drops), pairs()


def _own_seed(seed: int, stem: str) -> int:
    """A seed for the name, so that adding an image to a folder does not change the others' rain."""
    return (zlib.crc32(stem.encode(errors="surrogateescape")) << 32) | (seed & 0xFFFFFFFF)


def _sized(config: RainConfig, image: Tensor) -> RainConfig:
    return config.model_copy(update={"frame_height": max(16, image.shape[-2])})


def _image_files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES)
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(IMAGES))}); name a folder of clean images")
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise ValueError(f"{file.name} and {seen[file.stem].name} would become the same pair; rename one")
        seen[file.stem] = file
    return files


def _in_time(file: Path) -> tuple[list[str | int], str]:
    """Sorts 2.png before 10.png."""
    parts = re.split("([0-9]+)", file.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], file.name


def _read(file: Path) -> Tensor:
    return to_tensor(read_rgb(file)).unsqueeze(0)


def _open_clip(source: Path) -> tuple[float, int, Iterator[tuple[str, Tensor]]]:
    check_name(source)
    capture = cv2.VideoCapture(str(source.absolute()))
    # A Matroska file that was streamed counts none, or less.
    total, fps = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), float(capture.get(cv2.CAP_PROP_FPS))
    if not capture.isOpened():
        raise ValueError(f"{source} cannot be opened as a video clip; it may be truncated: copy or re-encode it")

    def frames() -> Iterator[NDArray[np.uint8]]:
        read = unread = since = 0
        while True:
            more, image = capture.read()
            if more:
                yield np.ascontiguousarray(image[..., ::-1], np.uint8)
                read, since = read + 1, 0
            elif read + unread < total and since < MOST_DAMAGED:
                unread, since = unread + 1, since + 1  # the clip may go on behind what is damaged
            else:
                break
        capture.release()
        if unread:
            log.warning("%s: %d of %d frames cannot be read and are left out", source, unread, total)

    named = (
        (f"{index:06d}", to_tensor(image).unsqueeze(0)) for index, image in enumerate(told_if_still(frames(), source))
    )
    return (fps if fps > 0 else 25.0), total, named


def _write(folder: Path, pairs: Iterator[Pair], total: int, report: Report | None, fps: float | None) -> int:
    for name in PARTS:
        (folder / name).mkdir(parents=True)
    videos: dict[str, cv2.VideoWriter] = {}
    count = 0
    try:
        for stem, batch in pairs:
            parts = (batch.rainy, batch.drops_only, batch.clean, batch.mask_streak, batch.mask_drop)
            for name, tensor in zip(PARTS, parts, strict=True):
                image = _to_bytes(tensor)
                file = folder / name / f"{stem}.png"
                file.write_bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes())
                even = image.shape[0] % 2 == image.shape[1] % 2 == 0
                if fps is not None and even and name in ("rainy", "clean"):
                    if name not in videos:
                        videos[name] = _open_video(folder / f"{name}.mkv", fps, image)
                    videos[name].write(image)
            count += 1
            if report is not None:
                report(count, total)
    finally:
        for video in videos.values():
            video.release()
    return count


def _open_video(file: Path, fps: float, image: NDArray[np.uint8]) -> cv2.VideoWriter:
    fourcc = cv2.VideoWriter.fourcc(*"FFV1")
    video = cv2.VideoWriter(str(file), fourcc, fps, (image.shape[1], image.shape[0]))
    if not video.isOpened():
        raise OSError(
            f"{file} could not be opened for FFV1; this OpenCV lacks FFmpeg: pip install opencv-python-headless"
        )
    return video


def _to_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """[1, C, H, W] in 0..1 as OpenCV's bytes: [H, W, 3] BGR or [H, W]."""
    image = tensor[0].mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(image[:, :, ::-1]) if image.shape[2] == 3 else np.ascontiguousarray(image[:, :, 0])


def _size(shape: torch.Size | None) -> str:
    return "?" if shape is None else f"{shape[-1]}x{shape[-2]}"
