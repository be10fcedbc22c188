"""The test of the comparison: rain of every strength over held-out scenes, and a system's scores on it."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from derain.training.atomic import write_text
from derain.training.comparison.protocol import Comparison, patches_seen
from derain.training.data import DataConfig, held_out_files
from derain.training.evaluate import derain_with, summarise
from derain.training.models import parameter_count
from derain.training.models.weights import load
from derain.training.rain import RainConfig
from derain.training.rain.pairs import synthesize
from derain.training.readers import Pair, read_pairs
from derain.training.scores import score

EVALUATION = "evaluation.json"


def scenes(data: DataConfig, wanted: dict[str, int]) -> list[Path]:
    """So many files of each folder, spread over those of it that are held out.

    Raises:
        FileNotFoundError, ValueError: a folder is missing, too small, or trained on.
    """
    found: list[Path] = []
    for folder, count in wanted.items():
        files = held_out_files(data.model_copy(update={"validation": folder}))
        if len(files) < count:
            raise ValueError(f"test.scenes wants {count} of {folder!r}, which holds out {len(files)}: lower it")
        found += [files[index * len(files) // count] for index in range(count)]
    return found


def make_test(comparison: Comparison) -> Path:
    """Render the test pairs into FOLDER/test, unless they are there: a folder a strength, as `derain synthesize` makes.

    Those that are there serve without the images that they were made of.

    Raises:
        ValueError: they were made by another protocol or of other files, or FOLDER/test is of somebody else; or see
            `scenes`.
    """
    test, folder = comparison.protocol.test, comparison.folder / "test"
    data = comparison.config(next(iter(comparison.protocol.systems))).data
    wanted, note = json.loads(test.model_dump_json()), folder / "test.json"
    if note.is_file():
        made = read_json(note)
        for key in wanted:
            if made.get(key) != wanted[key]:
                raise ValueError(
                    f"{folder} was made with {key} {made.get(key)}, expected {wanted[key]}: remove it, or bring back "
                    "the protocol that it was made by"
                )
        if "files" in made and all((data.root / name).is_dir() for name in test.scenes):
            _refuse_others(folder, made["files"], _names(scenes(data, test.scenes), data.root))
        return folder
    files = scenes(data, test.scenes)
    _remove_unfinished(folder, {"scenes", *(f"{strength:g}" for strength in test.strengths)})
    clean = folder / "scenes"
    clean.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, clean / f"{file.parent.name}-{file.name}")
    for strength in test.strengths:
        rain = RainConfig(kinds="both", strength=strength, scale_jitter=1.2)
        synthesize(clean, folder / f"{strength:g}", test.seed, rain)
    write_text(note, json.dumps({**wanted, "files": _names(files, data.root)}, indent=2) + "\n")
    return folder


def _remove_unfinished(folder: Path, parts: set[str]) -> None:
    """Remove what rendering that was ended left behind; ValueError where there is anything else, which is not ours."""
    if not folder.exists():
        return
    for made in folder.iterdir() if folder.is_dir() else (folder,):
        if made.name not in parts and not (made.name.startswith(".") and made.name.endswith(".partial")):
            raise ValueError(
                f"{made} is no part of the comparison's test, whose place is {folder}: move it away, or name another "
                "--folder"
            )
    shutil.rmtree(folder)


def _names(files: list[Path], root: Path) -> list[str]:
    return [str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files]


def _refuse_others(folder: Path, made: list[str], now: list[str]) -> None:
    if others := sorted(set(made) ^ set(now)):
        raise ValueError(
            f"{folder} was made of other files than there are, {others[0]} the first of {len(others)}: remove it, or "
            "bring back those that it was made of"
        )


def held_out_pairs(comparison: Comparison) -> Iterator[Pair]:
    """Every pair of the test, grouped by its strength of rain."""
    folder = make_test(comparison)
    for strength in comparison.protocol.test.strengths:
        yield from read_pairs(folder / f"{strength:g}" / "rainy", folder / f"{strength:g}" / "clean")


def evaluate_system(comparison: Comparison, system: str, device: str = "cpu", workers: int = 1) -> dict[str, Any]:
    """Score a system's weights on the test and write its evaluation.json.

    Besides `derain evaluate`'s keys: system, parameters, seed, `patches` seen by these weights and `patches_wanted`.

    Args:
        comparison: the comparison.
        system: one that has weights.
        device: where the network runs.
        workers: processes that score, which takes longer than the network on a GPU.

    Raises:
        FileNotFoundError: it has no weights yet.
        ValueError: no such system, or see `make_test`.
    """
    optimiser = comparison.config(system).optimiser
    weights = comparison.weights(system)
    if not weights.is_file():
        raise FileNotFoundError(f"{system} has no weights in {str(weights.parent)!r}: train it first")
    trained = load(str(weights))
    derain = derain_with(trained.network, device)
    todo = ((pair, derain(pair.rainy)) for pair in held_out_pairs(comparison))
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            images = list(pool.map(_scored, todo, chunksize=8))
    else:
        images = [_scored(item) for item in todo]
    result = {
        "system": system,
        "parameters": parameter_count(trained.network),
        "seed": int(trained.notes["seed"]),
        "patches": patches_seen(weights),
        "patches_wanted": optimiser.iterations * optimiser.batch,
        **summarise(images),
    }
    write_text(weights.with_name(EVALUATION), json.dumps(result, indent=1) + "\n")
    return result


def read_evaluations(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The evaluations there are, by system; errors as `read_json`."""
    files = {system: comparison.folder / system / EVALUATION for system in comparison.protocol.systems}
    return {system: read_json(file) for system, file in files.items() if file.is_file()}


def read_json(file: Path) -> dict[str, Any]:
    """What one of the comparison's commands wrote; ValueError where it is that no more."""
    try:
        held = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}): remove it, and give the command that wrote it again") from error
    if not isinstance(held, dict):
        raise ValueError(
            f"{file} holds a {type(held).__name__}, expected a JSON object: remove it, and give the command that wrote "
            "it again"
        )
    return held


def _scored(item: tuple[Pair, Any]) -> dict[str, Any]:
    pair, derained = item
    scores = {"input": score(pair.rainy, pair.clean), "output": score(derained, pair.clean)}
    return {"name": pair.name, "group": pair.group, **scores}


def _one_thread() -> None:
    torch.set_num_threads(1)
