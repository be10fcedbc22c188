"""The pictures, on one HTML page that needs nothing else: rainy, every system, truth, and where the networks look."""

import base64
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from derain.training.comparison.evaluation import held_out_pairs
from derain.training.comparison.protocol import Comparison, patches_seen
from derain.training.comparison.tables import label
from derain.training.data import list_images, read_rgb
from derain.training.evaluate import derainer_with_maps
from derain.training.models.weights import load
from derain.training.panels import Tile
from derain.training.readers import Image
from derain.training.scores import score

REAL = ("real_rain/roadside", "real_rain/stills")
"""Folders of real rain, looked at and never scored."""

WIDEST = 640
"""Pixels; wider pictures are made smaller."""

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 96rem; padding: 0 1rem; }
section { display: grid; grid-template-columns: repeat(auto-fill, minmax(max(20rem, 33% - 1rem), 1fr)); gap: .8rem; }
figure { margin: 0; } img { width: 100%; display: block; } figcaption { font-size: .9em; padding: .2rem 0; }
"""


class Scene(NamedTuple):
    """A rainy picture, RGB uint8, and its truth where there is one."""

    title: str
    rainy: Image
    clean: Image | None


def scenes_to_show(comparison: Comparison, real: int = 2) -> Iterator[Scene]:
    """A scene of the test in each strength of rain, then so many pictures of each folder of real rain at hand."""
    strengths, scenes = len(comparison.protocol.test.strengths), sum(comparison.protocol.test.scenes.values())
    wanted = {index * scenes + index * scenes // strengths for index in range(strengths)}
    for index, pair in enumerate(held_out_pairs(comparison)):
        if index in wanted:
            yield Scene(f"{pair.name}, rendered rain, {pair.group}", pair.rainy, pair.clean)
    root = comparison.config(next(iter(comparison.protocol.systems))).data.root
    for folder in REAL:
        if (root / folder).is_dir():
            files = list_images(root / folder)
            for index in range(min(real, len(files))):
                file = files[(2 * index + 1) * len(files) // (2 * min(real, len(files)))]
                yield Scene(f"{folder}/{file.name}, real rain", _shrunk(read_rgb(file)), None)


def page(comparison: Comparison, scenes: Iterable[Scene], device: str = "cpu", systems: list[str] | None = None) -> str:
    """The page, with every system that has weights, or with those that are named: the comparison's, or shipped ones.

    No scene is asked for before all weights are there.

    Raises:
        FileNotFoundError: no system has any, or one that is named has neither.
    """
    if systems is None:
        systems = [system for system in comparison.protocol.systems if comparison.weights(system).is_file()]
    if not systems:
        raise FileNotFoundError(
            f"no system has weights in {str(comparison.folder)!r}: train one first, or name shipped ones with --system"
        )
    looks, notes = {}, []
    for system in systems:
        shown = label(system, comparison.protocol.networks).replace("`", "")
        looks[shown] = derainer_with_maps(_network(comparison, system), device)
        notes.append(f"{shown} {_history(comparison, system)}")
    body = "\n".join(f"<h2>{escape(scene.title)}</h2>\n{_section(scene, looks)}" for scene in scenes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Deraining compared</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>Deraining compared</h1>\n"
        f"<p>{escape('; '.join(notes))}. dB is PSNR against the truth. S+ is a network's attention map, bright where "
        f"it sees heavy rain. Real rain has no truth and no score.</p>\n{body}\n</body></html>\n"
    )


def _network(comparison: Comparison, system: str) -> nn.Module:
    own = comparison.weights(system)
    try:
        return load(str(own) if own.is_file() else system).network
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; this comparison's are {', '.join(comparison.protocol.systems)}") from error


def _history(comparison: Comparison, system: str) -> str:
    weights = comparison.weights(system)
    if not weights.is_file():
        return "with the weights that ship"
    return f"after {patches_seen(weights):,} of {comparison.progress(system)[1]:,} patches"


def _section(scene: Scene, looks: dict[str, Callable[[Image], tuple[Image, list[Tile]]]]) -> str:
    figures = [_figure(scene.rainy, "rainy" + _decibels(scene.rainy, scene.clean))]
    maps = []
    for shown, look in looks.items():
        derained, tiles = look(scene.rainy)
        figures.append(_figure(derained, shown + _decibels(derained, scene.clean)))
        maps += [_figure(_plane(tile), f"{shown}: {tile.caption}") for tile in tiles]
    truth = [] if scene.clean is None else [_figure(scene.clean, "truth")]
    return "\n".join(["<section>", *figures, *truth, "</section>", "<section>", *maps, "</section>"])


def _figure(image: NDArray[np.uint8], caption: str) -> str:
    bgr = np.ascontiguousarray(image[..., ::-1])
    data = base64.b64encode(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()).decode()
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _plane(tile: Tile) -> NDArray[np.uint8]:
    values = (tile.image.cpu().clamp(0, 1) * 255).round().byte()
    return values.expand(3, -1, -1).permute(1, 2, 0).numpy()


def _decibels(image: Image, clean: Image | None) -> str:
    return "" if clean is None else f", {score(image, clean)['psnr_rgb']:.2f} dB"


def _shrunk(image: Image) -> Image:
    height, width = image.shape[:2]
    if width <= WIDEST:
        return image
    return np.asarray(cv2.resize(image, (WIDEST, round(height * WIDEST / width)), interpolation=cv2.INTER_AREA))
