"""Rendered rain, to look at and to time: `python benchmarks/rain.py sheet FRAMES --out sheet.png`, `… rate`.

`sheet` draws clean frames (rows) under rain of four strengths (columns): streaks, then drops, then both. `rate` counts
the patches of 112×112 with both rains rendered in a second, on the GPU where there is one; a training run on it must
not wait for rain (an H100 trains a DAiAM on about 450 patches/s).
"""

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from derain.training.data import list_images, read_rgb, to_tensor
from derain.training.panels import Tile, panel
from derain.training.rain import RainConfig, render

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
PATCH = 112


def sheet(folder: Path, out: Path, frames: int, seed: int) -> None:
    """Draw the contact sheet of `frames` images spread over a folder."""
    files = list_images(folder)
    rows = []
    for kind in ("streaks", "drops", "both"):
        for number, file in enumerate(files[:: max(1, len(files) // frames)][:frames]):
            clean = to_tensor(read_rgb(file))[None]
            tiles = []
            for strength in STRENGTHS:
                config = RainConfig(kinds=kind, strength=strength, frame_height=clean.shape[-2])
                tiles.append(Tile(f"{kind}, strength {strength:g}", render(clean, seed + number, config).rainy[0]))
            rows.append(tiles)
    if not cv2.imwrite(str(out), np.ascontiguousarray(panel(rows)[..., ::-1])):
        raise OSError(f"{out}: cannot be written: name a PNG in a folder that exists")
    print(f"{len(rows)} rows of {len(STRENGTHS)} strengths in {out}")


def rate(batch: int, rounds: int) -> None:
    """Print the patches rendered in a second, the median of `rounds` batches after a warm-up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clean = torch.rand(batch, 3, PATCH, PATCH, device=device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    for style in ("mixed", "physical", "noise", "sharp"):
        config = RainConfig(kinds="both", style=style)
        seconds = []
        for seed in range(rounds + 3):
            start = time.perf_counter()
            render(clean, seed, config)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds[3:])
        print(f"{name}: {style} streaks and drops, batch {batch}: {batch / median:.0f} patches/s of {PATCH}x{PATCH}")


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    drawn = verbs.add_parser("sheet", help="the contact sheet")
    drawn.add_argument("folder", type=Path, help="clean frames")
    drawn.add_argument("--out", type=Path, required=True, help="the PNG to write")
    drawn.add_argument("--frames", type=int, default=2, help="rows of each kind of rain")
    drawn.add_argument("--seed", type=int, default=1)
    timed = verbs.add_parser("rate", help="patches a second")
    timed.add_argument("--batch", type=int, default=32)
    timed.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if options.verb == "sheet":
        sheet(options.folder, options.out, options.frames, options.seed)
    else:
        rate(options.batch, options.rounds)


if __name__ == "__main__":
    main()
