"""`derain demo`: the main job on photos that come with installed packages; no data, no GPU, no network."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from derain.runtime.frames import Image

WIDTH, HEIGHT, FPS, FRAMES_A_SCENE = 480, 320, 24.0, 24
WEIGHTS, STRENGTH, SEED = "daiam-nano", 0.5, 7
SHOWN = FRAMES_A_SCENE // 2
"""The frame in the side-by-side picture."""

LABEL_ROWS = 28

CLOSER = 0.8
"""The share of the photo's first view that the last one shows: the camera drives forward."""


def demo(
    out: Annotated[Path, typer.Option(help="Where the clips, the bundle and the picture go.")] = Path("demo"),
) -> None:
    """Render rain over a clip made from photos, export the shipped network, derain the clip and measure it."""
    import cv2

    from derain.cli.console import Console
    from derain.export.exporter import export
    from derain.runtime import engines, pipeline
    from derain.runtime.frames import Frame
    from derain.runtime.manifest import FrameSpec
    from derain.runtime.memory import keep_freed_memory
    from derain.runtime.observers import Observer
    from derain.runtime.quality import TruthComparison
    from derain.runtime.sinks import open_sink
    from derain.runtime.sources import open_source
    from derain.training.models.weights import load

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {out}, which is a file: name a folder")
    keep_freed_memory()
    console = Console()
    network = load(WEIGHTS).network
    out.mkdir(parents=True, exist_ok=True)
    spec = FrameSpec(tensor="frame", width=WIDTH, height=HEIGHT)
    clips = {name: f"file://{out / name}.mkv" for name in ("clean", "rainy")}
    frames = list(_drive(_photos()))
    with (
        open_sink(clips["clean"], spec, FPS) as clean,
        open_sink(clips["rainy"], spec, FPS) as rainy,
        console.status("rendering rain over a clip of photos"),
    ):
        for frame, wet in zip(frames, _rain(frames), strict=True):
            clean.write(frame)
            rainy.write(wet)
    with console.status(f"exporting {WEIGHTS}"):
        bundle, report = export(WEIGHTS, out / "bundle", (WIDTH, HEIGHT))
    kept: dict[str, Any] = {}
    with (
        open_source(clips["rainy"], spec) as source,
        open_source(clips["clean"], spec) as truth,
        open_sink(f"file://{out / 'derained.mp4'}", spec, FPS) as sink,
        engines.create("onnxruntime", bundle) as engine,
        console.status("deraining"),
    ):
        comparison = TruthComparison(truth, spec, spec)
        engine.warm_up()

        class Keeper(Observer):
            def on_frame(self, record: pipeline.FrameRecord, frame: Frame, shown: "Image") -> None:
                if frame.id == SHOWN:
                    kept.update(rainy=frame.image, derained=shown)

        run = pipeline.run(engine, source, sink, [comparison, Keeper()])
        psnr = comparison.mean()

    panels = {
        "rainy": kept["rainy"],
        "derained": kept["derained"],
        "clean": frames[SHOWN],
        "attention: streaks red, drops blue": _attention(network, kept["rainy"]),
    }
    picture = out / "side_by_side.png"
    cv2.imwrite(str(picture), _side_by_side(panels))
    console.print(
        f"{WEIGHTS}: {bundle.manifest.model.parameters:,} parameters, {report.macs / 1e9:.2f} GMAC a "
        f"frame of {WIDTH}x{HEIGHT} ({report.macs_naive / 1e9:.2f} before the unroller)\n"
        f"PSNR against the clean frames: rainy {psnr['input']:.2f} dB, derained {psnr['output']:.2f} dB\n"
        f"{run.fps:.1f} frames/s on this CPU, {run.frames} frames, inference "
        f"p50 {run.latency_ms['inference'].p50:.1f} ms, p99 {run.latency_ms['inference'].p99:.1f} ms\n"
        f"{out / 'derained.mp4'}, {picture}; before: {out / 'rainy.mkv'}; the bundle: {out / 'bundle'}",
        highlight=False,
        soft_wrap=True,
    )


def _photos() -> list["Image"]:
    """Photos that scikit-image and scikit-learn install, BGR uint8."""
    import numpy as np
    from skimage import data
    from sklearn.datasets import load_sample_image

    rgb = [load_sample_image("china.jpg"), data.stereo_motorcycle()[0], data.rocket()]
    return [np.ascontiguousarray(photo[..., ::-1]) for photo in rgb]


def _drive(photos: list["Image"]) -> Iterator["Image"]:
    """Frames of HEIGHT×WIDTH: the camera closes in on each photo while it sways."""
    import cv2
    import numpy as np

    for photo in photos:
        height, width = photo.shape[:2]
        widest = min(width / WIDTH, height / HEIGHT) * 0.97
        for step in range(FRAMES_A_SCENE):
            share = step / (FRAMES_A_SCENE - 1)
            scale = widest * (1 - share * (1 - CLOSER))
            x = width / 2 + 0.01 * width * np.sin(2 * np.pi * share)
            y = height / 2 + 0.004 * height * np.sin(6 * np.pi * share)
            view = np.array([[scale, 0, x - scale * WIDTH / 2], [0, scale, y - scale * HEIGHT / 2]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            yield np.asarray(cv2.warpAffine(photo, view, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_REFLECT))


def _rain(frames: list["Image"]) -> Iterator["Image"]:
    """Each frame in the rain of one drive."""
    import numpy as np

    from derain.training.data import to_tensor
    from derain.training.rain import RainConfig, RainyClip

    clip = RainyClip(SEED, RainConfig(kinds="both", strength=STRENGTH, frame_height=HEIGHT), FPS)
    for index, frame in enumerate(frames):
        rainy = clip.render(to_tensor(np.ascontiguousarray(frame[..., ::-1]))[None], index).rainy[0]
        yield np.ascontiguousarray((rainy * 255).round().byte().permute(1, 2, 0).numpy()[..., ::-1])


def _attention(network: Any, frame: "Image") -> "Image":
    """The network's attention maps on a frame: streaks in red, drops in blue."""
    import numpy as np
    import torch

    from derain.training.data import to_tensor

    with torch.inference_mode():
        branches = network(to_tensor(np.ascontiguousarray(frame[..., ::-1]))[None])[0].branches
    streak, drop = ((branches[rain].attention[0, 0] * 255).byte().numpy() for rain in ("streak", "drop"))
    return np.stack([drop, np.zeros_like(drop), streak], axis=-1)


def _side_by_side(panels: dict[str, "Image"]) -> "Image":
    """Two rows of two pictures, each under its label."""
    import cv2
    import numpy as np

    labelled = []
    for label, image in panels.items():
        strip = np.full((LABEL_ROWS, WIDTH, 3), 32, np.uint8)
        cv2.putText(strip, label, (10, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
        labelled.append(np.vstack([strip, image]))
    return np.vstack([np.hstack(labelled[:2]), np.hstack(labelled[2:])])
