"""`derain evaluate`: PSNR and SSIM of weights or a bundle on pairs of images, and pictures to look at."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain.cli.files import files_of, json_path, refuse_overwriting, writable_path, write_json

if TYPE_CHECKING:
    from derain.training.panels import Tile
    from derain.training.readers import Image, Pair

log = logging.getLogger(__name__)

SHOWN = 6
"""Images in a panel, spread over all there are."""

DerainWithMaps = Callable[["Image"], tuple["Image", list["Tile"]]]


def evaluate(
    model: Annotated[str, typer.Argument(help="Weights (a file or a shipped name) or a bundle.")],
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="The folder (or clip) of rainy images and the one of clean ones."),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="Every sub-folder of the rainy folder is a group, scored apart.")
    ] = False,
    frames: Annotated[
        Path | None, typer.Option(help="A folder of rainy images without truth: nothing is scored, see --panel.")
    ] = None,
    panel: Annotated[
        Path | None,
        typer.Option(
            callback=writable_path, help="Draw rainy, output, truth and attention maps of a few images into this PNG."
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="What runs a bundle; without it onnxruntime.")] = None,
    json: Annotated[
        Path | None, typer.Option(callback=json_path, help="Write the scores of every image to this file; -: stdout.")
    ] = None,
) -> None:
    """Score the rainy input and the derained output against the truth, in RGB and on the Y channel.

    Pairs that `derain synthesize` made are told apart by their strength of rain.
    """
    from derain.cli.stream import quiet_decoders

    quiet_decoders()
    from rich.progress import track

    from derain.cli.console import Console
    from derain.runtime.memory import keep_freed_memory
    from derain.training import evaluate as scoring
    from derain.training import readers

    if (pairs is None) == (frames is None):
        raise typer.BadParameter("expected --pairs RAINY CLEAN, or --frames FOLDER for images without truth")
    if frames is not None and (panel is None or json is not None or group):
        raise typer.BadParameter(
            "--frames has no truth to score against: give it --panel FILE.png, and neither --json nor --group"
        )
    refuse_overwriting({"--json": json, "--panel": panel}, _read_by(model, pairs or (frames,)))
    keep_freed_memory()
    console = Console(markup=False)
    with ExitStack() as stack:
        look = _opened(model, engine, stack)
        if frames is not None:
            _draw(look, _unpaired(frames), panel)
            return
        assert pairs is not None
        for clip in pairs:
            _refuse_cut_short(clip)
        total = _count(pairs[0], group)
        shown: list[readers.Pair] = []
        found = _kept((readers.read_groups if group else readers.read_pairs)(*pairs), total, shown)
        todo = track(found, "evaluating", total or None, console=console, transient=True)
        scores = scoring.evaluate(lambda image: look(image)[0], todo)
        groups = scores.get("groups", {})
        if [means["count"] for means in groups.values()] != [len(scores["images"])]:  # else the one group is them all
            console.print(_table(f"mean of {len(scores['images'])}", scores))
        if pairs[0].is_file() and len(scores["images"]) < 0.99 * total - 1:
            log.warning(
                "%s: %d of some %d frames could be read: the mean is theirs", pairs[0], len(scores["images"]), total
            )
        for name, means in groups.items():
            console.print(_table(f"{name}: mean of {means['count']}", means))
        write_json(json, scores)
        if panel is not None:
            _draw(look, [(pair.name, pair.rainy, pair.clean) for pair in shown], panel)


def _is_bundle(model: str) -> bool:
    """Whether a folder is named that is not a run's, of which `load` says what to name in it."""
    return Path(model).is_dir() and not (Path(model) / "split.json").is_file()


def _read_by(model: str, pictures: Iterable[Path | None]) -> Iterator[Path]:
    """The weights or the bundle's files, and clips or the images in folders: another file in them is nobody's input."""
    from derain.runtime.bundle import Bundle
    from derain.training.data import IMAGES

    yield from files_of(Bundle.load(Path(model))) if _is_bundle(model) else [Path(model)]
    for place in pictures:
        if place is not None:
            yield place
            yield from (file for file in place.rglob("*") if file.suffix.lower() in IMAGES)


def _refuse_cut_short(clip: Path) -> None:
    from derain.runtime.sources.container import is_cut_short

    if clip.is_file() and clip.suffix.lower() != ".avi" and is_cut_short(clip):  # an .avi's frames tell
        raise ValueError(f"{clip}: truncated, its container goes on behind its end: copy it again, or re-encode it")


def _count(rainy: Path, group: bool) -> int:
    """About how many pairs there are, for the progress and the panel: what is wrong with them is told when read."""
    import cv2

    from derain.training.data import IMAGES
    from derain.training.readers import check_name

    if rainy.is_file():
        check_name(rainy)
        return max(0, int(cv2.VideoCapture(str(rainy.absolute())).get(cv2.CAP_PROP_FRAME_COUNT)))
    folders = sorted(rainy.glob("*")) if group else [rainy]
    folders = [folder / "rainy" if group and (folder / "rainy").is_dir() else folder for folder in folders]
    return sum(file.suffix.lower() in IMAGES for folder in folders for file in folder.glob("*"))


def _kept(pairs: Iterator["Pair"], total: int, shown: list["Pair"]) -> Iterator["Pair"]:
    """The pairs, decoded one by one; `shown` keeps a few of them, spread over all there are."""
    for index, pair in enumerate(pairs):
        if index % max(1, -(-total // SHOWN)) == 0 and len(shown) < SHOWN:
            shown.append(pair)
        yield pair


def _opened(model: str, engine: str | None, stack: ExitStack) -> DerainWithMaps:
    """What derains one image; a bundle has no attention maps to show."""
    import numpy as np

    from derain.training import evaluate as scoring

    if not _is_bundle(model):
        if engine is not None:
            fault = f"{engine!r} runs bundles, and {model} is weights: leave it out"
            raise typer.BadParameter(fault, param_hint="--engine")
        import torch

        from derain.training.models.weights import load

        return scoring.derainer_with_maps(load(model).network, "cuda" if torch.cuda.is_available() else "cpu")
    from derain.runtime import engines
    from derain.runtime.bundle import Bundle
    from derain.runtime.frames import from_bgr, to_bgr

    bundle = Bundle.load(Path(model))
    runner = stack.enter_context(engines.create(engine or "onnxruntime", bundle))
    spec_in, spec_out = bundle.manifest.input, bundle.manifest.output

    def look(image: "Image") -> tuple["Image", list["Tile"]]:
        camera = from_bgr(np.ascontiguousarray(image[..., ::-1]), spec_in)
        return np.ascontiguousarray(to_bgr(runner.infer(camera), spec_out)[..., ::-1]), []

    return look


def _unpaired(folder: Path) -> list[tuple[str, "Image", None]]:
    from derain.training.data import list_images, read_rgb

    files = list_images(folder)
    return [(file.stem, read_rgb(file), None) for file in files[:: max(1, -(-len(files) // SHOWN))]]


def _draw(look: DerainWithMaps, images: list[tuple[str, "Image", Any]], file: Path | None) -> None:
    """A row for each of the images."""
    import cv2

    from derain.runtime.atomic import write_bytes
    from derain.training.data import to_tensor
    from derain.training.panels import Tile, panel

    assert file is not None
    rows = []
    for name, rainy, clean in images:
        output, maps = look(rainy)
        truth = [] if clean is None else [Tile("truth", to_tensor(clean))]
        rows.append([Tile(f"{name}: rainy", to_tensor(rainy)), Tile("output", to_tensor(output)), *truth, *maps])
    drawn, data = cv2.imencode(".png", panel(rows)[..., ::-1])
    if not drawn:
        raise ValueError(f"{file}: a panel of {len(rows)} rows cannot be encoded as PNG: evaluate smaller images")
    write_bytes(file, data.tobytes())
    typer.echo(f"{file}: {len(rows)} images, a row each")


def _table(title: str, means: dict[str, Any]) -> Any:
    from rich.table import Table

    from derain.training.scores import METRICS

    table = Table(title, "input", "output", "gain", box=None)
    for metric in METRICS:
        before, after = means[metric]["input"], means[metric]["output"]
        digits = 2 if metric.startswith("psnr") else 4
        table.add_row(metric, f"{before:.{digits}f}", f"{after:.{digits}f}", f"{after - before:+.{digits}f}")
    return table
