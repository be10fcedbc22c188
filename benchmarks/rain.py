"""Rendered rain, to look at and to time: `python benchmarks/rain.py sheet FRAMES --out sheet.png`, `… rate`.

`sheet` draws clean frames (rows) under rain of four strengths (columns): streaks, then drops, then both. `rate` counts
the patches of 112×112 with both rains rendered in a second, on the GPU where there is one. Its last line is what a
training run gets of its loader, which must not keep it waiting: patches cut from frames in memory and rendered, as the
run's file given with `--config` has them, by `--workers` processes beside this one (0: by this one).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from derain.training.allocator import keep_freed_memory
from derain.training.config import read_config
from derain.training.data import list_images, read_rgb, to_tensor
from derain.training.panels import Tile, panel
from derain.training.patches import RenderedPatches, ResumableLoader
from derain.training.rain import RainConfig, render

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
PATCH = 112
FRAME, FRAMES = (360, 480, 3), 32
WARM_UP = 3


def sheet(folder: Path, out: Path, frames: int, seed: int, defocus: float) -> None:
    """Draw the contact sheet of `frames` images spread over a folder, `defocus` as in `RainConfig`."""
    files = list_images(folder)
    rows = []
    for kind in ("streaks", "drops", "both"):
        for number, file in enumerate(files[:: max(1, len(files) // frames)][:frames]):
            clean = to_tensor(read_rgb(file))[None]
            tiles = []
            for strength in STRENGTHS:
                config = RainConfig(kinds=kind, strength=strength, frame_height=clean.shape[-2], defocus=defocus)
                tiles.append(Tile(f"{kind}, strength {strength:g}", render(clean, seed + number, config).rainy[0]))
            rows.append(tiles)
    if not cv2.imwrite(str(out), np.ascontiguousarray(panel(rows)[..., ::-1])):
        raise OSError(f"{out}: cannot be written: name a PNG in a folder that exists")
    print(f"{len(rows)} rows of {len(STRENGTHS)} strengths in {out}")


def rate(batch: int, rounds: int, workers: int, run: Path | None) -> None:
    """Print the patches rendered in a second, of `rounds` batches' median, and those a loader cuts and renders.

    Workers have batches ready, and several finish at once: the loader's rate is that of many, after those.
    """
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clean = torch.rand(batch, 3, PATCH, PATCH, device=device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    for style in ("mixed", "physical", "noise", "sharp"):
        config = RainConfig(kinds="both", style=style)
        told = f"{name}: {style} streaks and drops"
        report(told, batch, rounds, device, lambda seed, config=config: render(clean, seed, config))
    images = [np.random.default_rng(seed).integers(0, 256, FRAME, np.uint8) for seed in range(FRAMES)]
    rain = RainConfig(kinds="both") if run is None else read_config(run).rain
    ready, counted = max(WARM_UP, 2 * workers), max(rounds, 10 * workers)
    batches = iter(ResumableLoader(RenderedPatches(images, rain, batch, PATCH, 1, 0, ready + counted), workers, int))
    for _ in range(ready):
        next(batches)
    start = time.perf_counter()
    for _ in range(counted):
        next(batches)
    seconds = (time.perf_counter() - start) / counted
    told = "mixed streaks and drops" if run is None else f"the rain of {run}"
    print(f"loader with {workers} workers: {told}, batch {batch}: {batch / seconds:.0f} patches/s of {PATCH}x{PATCH}")


def report(told: str, batch: int, rounds: int, device: torch.device, work: Callable[[int], object]) -> None:
    """Time `work` on seeds and print the rate of its median."""
    seconds = []
    for seed in range(rounds + WARM_UP):
        start = time.perf_counter()
        work(seed)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[WARM_UP:])
    print(f"{told}, batch {batch}: {batch / median:.0f} patches/s of {PATCH}x{PATCH}", flush=True)


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    drawn = verbs.add_parser("sheet", help="the contact sheet")
    drawn.add_argument("folder", type=Path, help="clean frames")
    drawn.add_argument("--out", type=Path, required=True, help="the PNG to write")
    drawn.add_argument("--frames", type=int, default=2, help="rows of each kind of rain")
    drawn.add_argument("--seed", type=int, default=1)
    drawn.add_argument("--defocus", type=float, default=0.0, help="of the windscreen, as derain synthesize has it")
    timed = verbs.add_parser("rate", help="patches a second")
    timed.add_argument("--batch", type=int, default=32)
    timed.add_argument("--rounds", type=int, default=15)
    timed.add_argument("--workers", type=int, default=0, help="processes that cut patches and render")
    timed.add_argument("--config", type=Path, help="a training run's file, for the loader's rain")
    options = parser.parse_args()
    try:
        if options.verb == "sheet":
            sheet(options.folder, options.out, options.frames, options.seed, options.defocus)
        else:
            rate(options.batch, options.rounds, options.workers, options.config)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
