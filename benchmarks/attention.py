"""Attention maps before and after their mends: `python benchmarks/attention.py --data DIR --out DIR`.

Trains `daiam-nano` from scratch for every variant on the same patches, rain and schedule, and measures on held-out
driving frames. Each mend is added to those before it:

- paper: mean squared attention loss with the paper's α of 0.8, every weight from N(0, 0.01²), biases zero, so that
  maps start at 0.5;
- balanced: the attention loss balanced (`derain.training.losses.attention_loss`), weights as in the paper;
- started: weights scaled to their layers, maps starting at the share of a frame that rain covers;
- ours: pixels whitened (`ToBlocks`); what `derain train` does;
- plain-head: ours, its attention head with one channel at a quarter of the resolution in place of one a pixel;
- psnr-loss: ours, its images' loss the logarithm of the squared error, frame by frame;
- context-encoders, context-global: ours, the residual blocks of the encoders or of the global decoder dilated.

Printed of each: the correlation of either rain's map with its mask; how blocky the maps are, as the share of their
gradient's energy on the borders of 4×4 blocks (25 % where they know no blocks, 100 % where they are nothing else); the
gain in PSNR over the frame, and over the pixels under heavy drops (`mask_drop` above 0.5); and the time of its exported
graph on ONNX Runtime as a multiple of the first's, all run in turn. OUT/maps.png shows the rainy frame and its masks,
and every variant's derained frame and maps; runs in OUT that were ended go on.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from derain.export.exporter import traced
from derain.export.onnx_graph import to_onnx
from derain.export.probe import seeded_frame
from derain.export.unroll import unroll
from derain.runtime.manifest import FrameSpec
from derain.training.config import TrainConfig
from derain.training.data import held_out_files, read_rgb, to_tensor
from derain.training.losses import psnr
from derain.training.models.weights import load
from derain.training.panels import Tile, panel
from derain.training.rain import RainConfig, RainyBatch, render
from derain.training.records import is_run
from derain.training.trainer import train

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"options": {"whiten": False}, "init": "gaussian", "attention": "mse", "alpha": 0.8},
    "balanced": {"options": {"whiten": False}, "init": "gaussian"},
    "started": {"options": {"whiten": False}},
    "ours": {},
    "psnr-loss": {"image": "psnr", "alpha": 2.0},
    "plain-head": {"options": {"head": "plain"}},
    "context-encoders": {"options": {"context": "encoders"}},
    "context-global": {"options": {"context": "global"}},
}
STRENGTH = 0.5
BLOCK = 4
HEAVY_DROP = 0.5
ROUNDS = 40


def configuration(variant: str, data: Path, out: Path, iterations: int) -> TrainConfig:
    """A run of `iterations` on one CPU thread."""
    usual = {"options": {}, "init": "he", "attention": "balanced", "alpha": 0.1, "image": "mse"}
    chosen = usual | VARIANTS[variant]
    tree = {
        "network": {"name": "daiam-nano", "options": chosen["options"], "init": chosen["init"]},
        "loss": {key: chosen[key] for key in ("alpha", "attention", "image")},
        "data": {"root": data},
        "rain": {"kinds": "both", "frame_height": 400},
        "optimiser": {
            "iterations": iterations,
            "batch": 8,
            "learning_rate": 1e-3,
            "warm_up": min(100, iterations // 10),
        },
        "machine": {"accelerator": "cpu", "precision": "bf16-mixed", "threads": 1},
        "validate_every": iterations,
        "out": out / variant,
    }
    return TrainConfig.model_validate(tree)


def held_out(config: TrainConfig, count: int) -> Iterator[RainyBatch]:
    """Held-out frames [1, 3, H, W] in joint rain, the same every time."""
    for index, file in enumerate(held_out_files(config.data)[:count]):
        clean = to_tensor(read_rgb(file))[None]
        clean = clean[..., : clean.shape[-2] // 4 * 4, : clean.shape[-1] // 4 * 4]
        yield render(clean, index, RainConfig(kinds="both", strength=STRENGTH, frame_height=clean.shape[-2]))


def agreement(attention: Tensor, mask: Tensor) -> float:
    """Pearson's correlation of a map with its mask; 0 for a map that is the same everywhere."""
    pair = torch.stack([attention.flatten(), mask.flatten()])
    return float(torch.corrcoef(pair)[0, 1].nan_to_num(0))


def blockiness(attention: Tensor) -> float:
    """The share of a map's gradient energy that lies on the borders of its blocks; [1, 1, H, W]."""
    steps = [attention.diff(dim=axis).square().mean((0, 1, 5 - axis)) for axis in (2, 3)]
    borders = sum(float(step[BLOCK - 1 :: BLOCK].sum()) for step in steps)
    return borders / max(sum(float(step.sum()) for step in steps), 1e-12)


def gain_under_drops(image: Tensor, rain: RainyBatch) -> float:
    """The gain in dB over the pixels that heavy drops cover; NaN where there are none."""
    heavy = (rain.mask_drop > HEAVY_DROP).expand_as(rain.clean)
    before, after = ((x.clamp(0, 1) - rain.clean)[heavy].square().mean() for x in (rain.rainy, image))
    return float(10 * torch.log10(before / after))


@torch.inference_mode()
def measure(network: nn.Module, rains: list[RainyBatch]) -> tuple[dict[str, float], list[Tile]]:
    """Means over the frames, and the first frame derained with its maps."""
    rows: list[dict[str, float]] = []
    tiles: list[Tile] = []
    for rain in rains:
        prediction, _ = network(rain.rainy)
        maps = {name: branch.attention for name, branch in prediction.branches.items()}
        rows.append(
            {
                "streak": agreement(maps["streak"], rain.mask_streak),
                "drop": agreement(maps["drop"], rain.mask_drop),
                "blocks": float(np.mean([blockiness(attention) for attention in maps.values()])),
                "drops": gain_under_drops(prediction.image, rain),
                "gain": float((psnr(prediction.image, rain.clean) - psnr(rain.rainy, rain.clean)).mean()),
            }
        )
        image = Tile("derained", prediction.image[0])
        tiles = tiles or [image, *(Tile(f"S+ {name}", attention[0]) for name, attention in maps.items())]
    return {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}, tiles


def times(networks: list[nn.Module], folder: Path) -> list[float]:
    """Each exported graph's milliseconds over the first's: the median ratio of `ROUNDS` frames, the graphs in turn."""
    spec = FrameSpec(tensor="frame", width=480, height=360)
    frame = {"frame": seeded_frame(spec, 0)[None]}
    sessions = []
    for index, network in enumerate(networks):
        graph, _ = unroll(traced(network, spec, spec.model_copy(update={"tensor": "clean"})))
        path = folder / f"{index}.onnx"
        onnx.save(to_onnx(graph, "frame", "clean"), path)
        sessions.append(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]))
    seconds = np.zeros((ROUNDS, len(sessions)))
    for row in seconds:
        for index, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(None, frame)
            row[index] = time.perf_counter() - start
    return [float(ratio) for ratio in np.median(seconds / seconds[:, :1], axis=0)]


def main() -> None:
    """Train, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the images for training")
    parser.add_argument("--out", type=Path, required=True, help="where the runs and maps.png go; runs there go on")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS), help="some of the variants")
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--frames", type=int, default=20, help="held-out frames measured")
    options = parser.parse_args()
    rows: list[list[Tile]] = []
    networks: list[nn.Module] = []
    for variant in options.only:
        config = configuration(variant, options.data, options.out, options.iterations)
        weights = train(config, resume=is_run(config.out))
        rains = list(held_out(config, options.frames))
        networks.append(load(str(weights)).network.eval())
        figures, tiles = measure(networks[-1], rains)
        if not rows:
            first = rains[0]
            masks = [Tile("M streak", first.mask_streak[0]), Tile("M drop", first.mask_drop[0])]
            rows.append([Tile("rainy", first.rainy[0]), *masks])
        rows.append([Tile(f"{variant}: {tile.caption}", tile.image) for tile in tiles])
        print(
            f"{variant}: maps correlate with their masks by {figures['streak']:.2f} (streaks) and "
            f"{figures['drop']:.2f} (drops), {figures['blocks']:.0%} of their gradient on block borders; gain "
            f"{figures['gain']:+.2f} dB, under heavy drops {figures['drops']:+.2f} dB, after {options.iterations} "
            "iterations",
            flush=True,
        )
    with TemporaryDirectory() as folder:
        ratios = times(networks, Path(folder))
    print("time of the graph:", ", ".join(f"{n} {ratio:.2f}" for n, ratio in zip(options.only, ratios, strict=True)))
    cv2.imwrite(str(options.out / "maps.png"), np.ascontiguousarray(panel(rows)[..., ::-1]))


if __name__ == "__main__":
    main()
