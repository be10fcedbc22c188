"""What `export --downscale` does to detail as fine as a pixel: `… --weights NAME --frames FOLDER`.

Enlarged frames have no fine detail, which flatters a smaller view. Here each frame is a crop of a larger camera's: its
detail is the finest there can be, and its rain as large as that camera sees it. Prints PSNR in dB over RGB, the mean
over every `--every`th frame of a folder, joint rain of strength 0.5, a row for each camera.
"""

import argparse
from pathlib import Path

import torch

from derain.export.camera import CameraModel
from derain.runtime.manifest import FrameSpec
from derain.runtime.pixels import PixelFormat
from derain.training.data import list_images, read_rgb, to_tensor
from derain.training.losses import psnr
from derain.training.models.weights import load
from derain.training.rain import RainConfig, render

ROWS = (480, 960, 1440, 2160)
DOWNSCALES = (1, 2, 4)


def measure(weights: str, folder: Path, every: int) -> dict[int, list[float]]:
    """For each camera's rows the PSNR of the rainy frames, then of those derained at each downscale."""
    network = load(weights).network
    table = {}
    for rows in ROWS:
        config = RainConfig(kinds="both", strength=0.5, frame_height=rows)
        sums = torch.zeros(1 + len(DOWNSCALES))
        files = list_images(folder)[::every]
        for seed, file in enumerate(files):
            rain = render(to_tensor(read_rgb(file))[None], seed, config)
            rainy = (rain.rainy * 255).round().byte().permute(0, 2, 3, 1)
            frame = FrameSpec(tensor="frame", width=rainy.shape[2], height=rainy.shape[1], pixels=PixelFormat.RGB8)
            clean = frame.model_copy(update={"tensor": "clean"})
            with torch.inference_mode():
                seen = [rainy] + [CameraModel(network, frame, clean, n).eval()(rainy) for n in DOWNSCALES]
            sums += torch.cat([psnr(image.permute(0, 3, 1, 2) / 255, rain.clean) for image in seen])
        table[rows] = (sums / len(files)).tolist()
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--every", type=int, default=7, help="(7)")
    given = parser.parse_args()
    try:
        table = measure(given.weights, given.frames, given.every)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print("rows   rainy" + "".join(f"{f'at {n}':>8}" for n in DOWNSCALES))
    for rows, values in table.items():
        print(f"{rows:4}" + "".join(f"{value:8.2f}" for value in values))


if __name__ == "__main__":
    main()
