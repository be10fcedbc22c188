"""What a run writes beside its weights: the resolved configuration, versions, data split; and what resuming checks."""

import fcntl
import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError, safe_open

from derain.training.atomic import write_text
from derain.training.checkpoints import iterations_done
from derain.training.config import TrainConfig, read_config
from derain.training.distillation import teacher_digest

log = logging.getLogger(__name__)

FREE_TO_CHANGE = ("machine", "out", "data.root", "data.memory_gib", "checkpoint_every", "log_every", "tensorboard")
"""Keys that a resumed run may have otherwise than the run it goes on with: they do not change what is learnt."""

RECORDS = ("split.json", "environment.json", "config.yaml", "metrics.csv")
"""What a run writes beside its weights and its checkpoint."""

PACKAGES = ("derain", "torch", "lightning", "numpy", "opencv-python-headless", "safetensors")


def environment() -> dict[str, str]:
    """Versions of Python, of the packages that do the arithmetic, and a digest of this package's own sources."""
    sources = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for file in sorted(sources.rglob("*.py")):
        digest.update(file.relative_to(sources).as_posix().encode() + b"\0" + file.read_bytes())
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        **versions,
        "code": digest.hexdigest(),
        "platform": platform.platform(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # as derain, run from a path
        return "not installed"


def is_run(out: Path) -> bool:
    """Whether a run was begun in the folder: its first record is there, or nothing yet."""
    return (out / "split.json").is_file() or (out.is_dir() and not any(out.iterdir()))


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold a run's folder while it is trained; the system lets go of it when the process ends, however it ends.

    Raises:
        ValueError: another process trains there; the two would overwrite each other's files.
    """
    if getattr(rank_zero_only, "rank", 0) or not out.is_dir():
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise ValueError(
            f"another process trains in {out}: wait until it has ended, or name another folder (--set out=FOLDER)"
        ) from error
    except OSError:  # a file system that cannot lock folders, such as some network's
        log.warning("%s cannot be locked: let no other process train there", out)
    try:
        yield
    finally:
        os.close(folder)


def make_folder(out: Path) -> None:
    """Make a run's folder; ValueError where its place is taken by a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out is {str(out)!r}, which is a file: name a folder (--set out=FOLDER)")
    out.mkdir(parents=True, exist_ok=True)


def begin_or_resume(config: TrainConfig, split: dict[str, list[str]], checkpoint: Path, resume: bool) -> int:
    """Write the records of a new run, or check those of the one to resume; the iterations that are done.

    A run that was killed before its first checkpoint resumes at its beginning.

    Raises:
        FileNotFoundError: no run to resume.
        ValueError: a run or files of its names lie where a new one would go, or a complete one without its checkpoint;
            or see `check_resumable`.
    """
    done = iterations_done(checkpoint)
    if resume and not is_run(config.out):
        raise FileNotFoundError(f"no run in {str(config.out)!r}: --resume expects the folder of a run that was begun")
    if not resume and done:
        raise ValueError(
            f"{config.out} holds a run of {done} iterations: go on with it (--resume {config.out}), "
            "or name another folder (--set out=FOLDER)"
        )
    if not done and _holds_other_weights(config):
        raise ValueError(
            f"{config.out} holds the weights of a complete or another run, but not its checkpoint.safetensors: bring "
            "it back, or name another folder (--set out=FOLDER)"
        )
    if not resume:
        _refuse_to_overwrite(config.out)
    if done:
        check_resumable(config, split)
        if done < config.optimiser.iterations:
            _note_changes(config, done)
    else:
        if resume and (config.out / "config.yaml").is_file():
            _refuse_another(config)
        write_records(config, split)
    return done


def _holds_other_weights(config: TrainConfig) -> bool:
    """Whether OUT has weights that beginning anew would lose.

    A run that was killed before its first checkpoint leaves those of an earlier iteration, which the same run, begun
    anew, makes again.
    """
    weights, written = config.out / "weights.safetensors", config.out / "config.yaml"
    if not weights.is_file():
        return False
    if not written.is_file() or _first_difference(read_config(written), config) is not None:
        return True
    try:
        with safe_open(weights, framework="pt") as file:
            return (file.metadata() or {}).get("iterations") == str(config.optimiser.iterations)
    except SafetensorError:
        return True


@rank_zero_only  # the others would find what the first is writing
def _refuse_to_overwrite(out: Path) -> None:
    """Raise ValueError where a folder that is no run's holds files of the names that a run writes."""
    for name in RECORDS:
        if not is_run(out) and (out / name).exists():
            raise ValueError(
                f"{out / name} would be overwritten, and {out} is no run's folder: name another (--set out=FOLDER)"
            )


def _first_difference(one: TrainConfig, other: TrainConfig) -> tuple[str, Any, Any] | None:
    """The first key, but for `FREE_TO_CHANGE`, in which two runs differ, and its two values."""
    old, new = (_leaves(config.model_dump(mode="json")) for config in (one, other))
    for key in sorted(old.keys() | new.keys()):
        free = any(key == name or key.startswith(f"{name}.") for name in FREE_TO_CHANGE)
        if not free and old.get(key) != new.get(key):
            return key, old.get(key), new.get(key)
    return None


@rank_zero_only
def write_records(config: TrainConfig, split: dict[str, list[str]]) -> None:
    """Write config.yaml (resolved), environment.json and split.json into OUT."""
    write_text(config.out / "split.json", json.dumps(split, indent=1))
    made_by = {**environment(), "seed": config.seed, "teacher": teacher_digest(config.distill)}
    write_text(config.out / "environment.json", json.dumps(made_by, indent=2))
    _write_config(config)


def _write_config(config: TrainConfig) -> None:
    write_text(config.out / "config.yaml", yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False))


def _record(path: Path) -> dict[str, Any]:
    """One of a run's records; ValueError where it is broken."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): bring it back, or start a new run") from error
    return record


def _refuse_another(config: TrainConfig) -> None:
    """Raise ValueError where the run in OUT has another configuration, but for `FREE_TO_CHANGE`."""
    if difference := _first_difference(read_config(config.out / "config.yaml"), config):
        key, old, new = difference
        raise ValueError(
            f"{key} is {new!r}, but the run in {config.out} has {old!r}: resume it with its own "
            f"{config.out / 'config.yaml'}, or start a new run with another `out`"
        )


def check_resumable(config: TrainConfig, split: dict[str, list[str]]) -> None:
    """Compare a run with what OUT says of it.

    Raises:
        ValueError: another configuration (but for `FREE_TO_CHANGE`) or other files, naming the first that differs.
    """
    _refuse_another(config)
    teacher = _record(config.out / "environment.json").get("teacher")
    if config.distill is not None and teacher != teacher_digest(config.distill):
        raise ValueError(
            f"the teacher's weights {config.distill.teacher!r} are others than the run in {config.out} began with: "
            "bring those back, or start a new run"
        )
    saved = _record(config.out / "split.json")
    for part in split:
        changed = sorted(set(saved[part]) ^ set(split[part]))
        if changed:
            raise ValueError(
                f"{changed[0]} is {'gone' if changed[0] in saved[part] else 'new'} among the {part} files since the "
                f"run in {config.out} began: bring the files of its split.json back, or start a new run"
            )


@rank_zero_only
def _note_changes(config: TrainConfig, iteration: int) -> None:
    """Write down what the run goes on with: its configuration, and in environment.json what rounds otherwise now."""
    noted = json.loads((config.out / "environment.json").read_text())
    now = {**environment(), "precision": config.machine.precision}
    last = {"precision": read_config(config.out / "config.yaml").machine.precision, **noted}
    for again in noted.get("resumed") or []:
        last |= again
    changed = [name for name in now if last.get(name) != now[name]]
    if changed:
        log.warning("resuming with another %s than before: expect other rounding", ", ".join(changed))
        again = {"iteration": iteration, **{name: now[name] for name in changed}}
        noted["resumed"] = [*(noted.get("resumed") or []), again]
        write_text(config.out / "environment.json", json.dumps(noted, indent=2))
    _write_config(config)


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        key: leaf
        for name, branch in tree.items()
        for key, leaf in _leaves(branch, f"{prefix}.{name}" if prefix else name).items()
    }
