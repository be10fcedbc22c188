"""The curves of training runs: `python benchmarks/curves.py RUN… --out curves.svg` (`pip install matplotlib`).

A network trained in stages is one RUN: their folders with commas between them. Left the PSNR over the training patches,
which is a moving mean of what was logged, right the gain over the rainy frames at every validation (dB), both over the
patches seen; from `metrics.csv` and `config.yaml` of each folder.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray

from derain.training.config import read_config

matplotlib.use("svg")
from matplotlib import pyplot

WINDOW = 21


class Curve(NamedTuple):
    """Patches seen and decibels, each [N]."""

    patches: NDArray[np.float64]
    decibels: NDArray[np.float64]


def curve(stages: list[Path], column: str) -> Curve:
    """A column of a run's metrics where it was logged, or of its stages' one behind the other.

    Raises:
        FileNotFoundError: no run in a folder.
    """
    logged: list[tuple[int, float]] = []
    seen = 0
    for stage in stages:
        metrics = stage / "metrics.csv"
        if not metrics.is_file():
            raise FileNotFoundError(f"no {metrics}: expected the folder of a run of `derain train`")
        optimiser = read_config(stage / "config.yaml").optimiser
        with metrics.open(newline="") as file:
            rows = [(int(row["step"]) + 1, float(row[column])) for row in csv.DictReader(file) if row.get(column)]
        logged += [(seen + step * optimiser.batch, value) for step, value in rows]
        seen += optimiser.iterations * optimiser.batch
    patches, values = np.array(logged, float).reshape(-1, 2).T
    return Curve(patches, values)


def smoothed(values: NDArray[np.float64], window: int = WINDOW) -> NDArray[np.float64]:
    """The mean of up to `window` values around each."""
    window = min(window, values.size)
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def draw(runs: list[list[Path]], out: Path) -> None:
    """Both plots of all runs."""
    pyplot.rcParams |= {"svg.hashsalt": "derain", "svg.fonttype": "none"}
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for stages in runs:
        trained, validated = curve(stages, "train/psnr"), curve(stages, "val/gain")
        left.plot(trained.patches / 1000, smoothed(trained.decibels), label=stages[0].name)
        right.plot(validated.patches / 1000, validated.decibels, marker="o", label=stages[0].name)
    left.set(title="training patches", xlabel="thousands of patches seen", ylabel="PSNR, dB")
    right.set(
        title="held-out driving frames", xlabel="thousands of patches seen", ylabel="gain over the rainy frame, dB"
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
        axes.legend()
    right.set_ylim(bottom=0)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN[,RUN…]")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        draw([[Path(stage) for stage in run.split(",")] for run in given.runs], given.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
