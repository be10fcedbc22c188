"""`derain synthesize`: rain, pairs and exact masks from clean frames or a clip."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Rain(StrEnum):
    """Kinds of rain."""

    STREAKS = "streaks"
    DROPS = "drops"
    BOTH = "both"


class Style(StrEnum):
    """Styles of streaks."""

    MIXED = "mixed"
    PHYSICAL = "physical"
    NOISE = "noise"
    SHARP = "sharp"


def synthesize(
    clean: Annotated[Path, typer.Argument(help="A folder of clean images, or a video clip.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for rainy, drops, clean and both masks.")],
    rain: Annotated[Rain, typer.Option("--rain", help="What rain.")] = Rain.BOTH,
    strength: Annotated[float, typer.Option("--strength", help="0 none, 0.25 drizzle, 0.5 moderate, 1 heavy.")] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="The same seed renders the same rain.", min=0, max=2**32 - 1)] = 0,
    sequence: Annotated[
        bool, typer.Option("--sequence", help="The folder holds consecutive frames, 25 a second.")
    ] = False,
    style: Annotated[Style, typer.Option("--style", help="How streaks look.")] = Style.MIXED,
    wiper: Annotated[float, typer.Option("--wiper", help="Seconds between two sweeps; 0: no wiper.")] = 0.0,
    defocus: Annotated[
        float,
        typer.Option("--defocus", help="Blur of the windscreen: a disc's diameter, in pixels of a frame of 480 rows."),
    ] = 0.0,
) -> None:
    """Render rain over clean frames: pairs and exact masks, seeded.

    A clip also becomes rainy.mkv and clean.mkv (lossless).

    A folder of real raindrop pairs, with data and gt inside as Qian et al.'s, gets streaks of four strengths a pair.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"--strength is {strength}, expected 0..1: 0 is no rain, 0.5 moderate, 1 heavy")
    if wiper != 0.0 and not wiper >= 0.8:
        raise ValueError(f"--wiper is {wiper}, expected 0 (no wiper) or at least 0.8 seconds")
    if wiper and clean.is_dir() and not sequence:
        raise ValueError(f"--wiper is {wiper}, but {clean} holds stills: add --sequence, or leave the wiper out")
    if wiper and rain is Rain.STREAKS:
        raise ValueError(f"--wiper is {wiper}, but --rain streaks leaves no drop to wipe: leave the wiper out")
    if not 0.0 <= defocus <= 100.0:
        raise ValueError(f"--defocus is {defocus}, expected 0 (drops are sharp) to 100 pixels of a frame 480 rows high")
    if defocus and rain is Rain.STREAKS:
        raise ValueError(f"--defocus is {defocus}, but --rain streaks leaves no drop to blur: leave it out")
    if style is not Style.MIXED and rain is Rain.DROPS:
        raise ValueError(f"--style is {style.value}, but --rain drops has no streaks: leave the style out")
    from derain.cli.stream import quiet_decoders

    quiet_decoders()
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from derain.cli.console import Console
    from derain.runtime.sources.container import is_cut_short
    from derain.training.rain import RainConfig
    from derain.training.rain.pairs import JRSRD_STRENGTHS, holds_drop_pairs
    from derain.training.rain.pairs import synthesize as render_pairs

    jrsrd = holds_drop_pairs(clean)
    given = (rain, strength, style, wiper, defocus, sequence)
    if jrsrd and given != (Rain.BOTH, 0.5, Style.MIXED, 0.0, 0.0, False):
        raise ValueError(
            f"{clean} holds raindrop pairs, which become JRSRD, the rain of the paper: expected --out and --seed alone"
        )
    config = RainConfig.model_validate(
        {
            "kinds": rain.value,
            "strength": strength,
            "style": style.value,
            "wiper": wiper or None,
            "defocus": defocus,
            "scale_jitter": 1.2,
        }
    )
    console = Console(stderr=True)
    columns = (TextColumn("rain"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("rain", total=None)
        told = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal told
            progress.update(task, completed=done, total=total or None)
            if not console.is_terminal and time.monotonic() - told > 10:
                told = time.monotonic()
                typer.echo(f"rain: {done} of {total or 'an unknown number'}", err=True)

        count = render_pairs(clean, out, seed, config, sequence=sequence, report=report, cut_short=is_cut_short)
    which = f"JRSRD, {len(JRSRD_STRENGTHS)} strengths" if jrsrd else f"rain {rain.value}, strength {strength:g}"
    typer.echo(f"{count} pairs in {out} ({which}, seed {seed})")
    if clean.is_file() and not (out / "rainy.mkv").exists():
        typer.echo(f"no rainy.mkv: videos have an even size, these frames have not; use frames://{out / 'rainy'}")
