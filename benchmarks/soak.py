"""A long run at small size: does memory, do handles, do threads grow? What is p99.9?

    python benchmarks/soak.py --frames 200000 --json soak.json

A trivial engine behind the whole pipeline, frames from memory as fast as they go (`every`), or at a camera's rate
(`--fps`, `latest`). Memory is sampled every 1,000 frames; the slope is that of a straight line through the samples of
the second half, since caches and allocators fill in the first.
"""

import argparse
import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from derain.runtime import pipeline
from derain.runtime.bench import CameraClock
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec, Manifest, ManifestContent, ModelInfo, UnrollInfo
from derain.runtime.records import RunReport
from derain.runtime.sinks import open_sink
from derain.runtime.sources import Source
from derain.runtime.testing import Calls, ScriptedEngine

EVERY = 1000
PAGE = os.sysconf("SC_PAGE_SIZE")


class Memory(Source):
    """`count` frames from a few pictures, as fast as they are taken."""

    def __init__(self, pictures: list[Image], spec: FrameSpec, count: int) -> None:
        super().__init__("memory", spec)
        self._pictures, self._count = pictures, count

    def _images(self) -> Iterator[Image]:
        yield from itertools.islice(itertools.cycle(self._pictures), self._count)


def inverting_engine(width: int, height: int) -> ScriptedEngine:
    """An engine without a file: it returns 255 - frame."""
    spec = FrameSpec(tensor="frame", width=width, height=height)
    description = ManifestContent(
        derain_version="0",
        model=ModelInfo(name="invert", parameters=0, weights="none"),
        unroll=UnrollInfo(encoder_steps=1, decoder_steps=1, macs=0, macs_naive=0),
        input=spec,
        output=spec.model_copy(update={"tensor": "clean"}),
        graphs=(),
    )
    manifest = Manifest.model_construct(**dict(description), files={})
    return ScriptedEngine(Bundle(Path("memory"), manifest))


def soak(frames: int, width: int = 64, height: int = 48, fps: float | None = None) -> dict[str, float | int]:
    """Run, and say what grew."""
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (8, height, width, 3), np.uint8))
    engine = inverting_engine(width, height)
    samples: list[tuple[int, int, int, int]] = []

    def sample(record: pipeline.FrameRecord, *_: object) -> None:
        if record.id % EVERY == 0:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
            samples.append(
                (record.id, resident, sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count())
            )

    source = CameraClock(pictures, engine.input, fps, frames) if fps else Memory(pictures, engine.input, frames)
    with engine, open_sink("null://", engine.output) as sink:
        report: RunReport = pipeline.run(engine, source, sink, [Calls(on_frame=sample)])
    at, resident, handles, threads = np.array(samples).T
    half = len(samples) // 2
    slope = np.polyfit(at[half:], resident[half:], 1)[0] if len(samples) - half > 2 else 0.0
    whole = report.latency_ms["capture_to_present"]
    return {
        "frames": report.frames,
        "presented": report.presented,
        "dropped": report.dropped,
        "passed_through": report.passed_through,
        "fps": round(report.fps, 1),
        "rss_mb_per_100k_frames": round(float(slope) * 1e5 / 1e6, 4),
        "handles_grew": int(handles[-1] - handles[0]),
        "threads_grew": int(threads[-1] - threads[0]),
        "p50_ms": round(whole.p50, 4),
        "p99_ms": round(whole.p99, 4),
        "p999_ms": round(whole.p999, 4),
        "max_ms": round(whole.max, 4),
        **{f"{stage}_p50_ms": round(report.latency_ms[stage].p50, 4) for stage in ("wait", "inference", "present")},
    }


def main() -> None:
    """Print the figures, and exit 1 where something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--fps", type=float, help="a camera's rate; without it as fast as it goes")
    parser.add_argument("--size", default="64x48")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    figures = soak(options.frames, width, height, options.fps)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    grew = figures["rss_mb_per_100k_frames"] > 1 or figures["handles_grew"] > 0 or figures["threads_grew"] > 0
    raise SystemExit(int(grew))


if __name__ == "__main__":
    main()
