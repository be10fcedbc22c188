"""The one protocol, from training/configs/comparison.yaml: what is alike for every system, and which systems there are.

A comparison lies in a folder of its own: a run of `derain train` a system, the test pairs, and the JSON that the tables
are made of.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import safe_open

from derain.training.checkpoints import iterations_done
from derain.training.config import (
    NetworkConfig,
    OptimiserConfig,
    TrainConfig,
    checked,
    overridden,
    read_config,
    read_tree,
)
from derain.training.records import is_run
from derain.training.trainer import train

OWN = ("network", "distill", "out")
"""Keys of a training run that the comparison itself sets for every system."""

PROTOCOL = Path(__file__).resolve().parent.parent / "configs" / "comparison.yaml"


class SystemConfig(BaseModel):
    """A network, and the system it is distilled from, if any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: NetworkConfig
    teacher: str | None = None


class HeldOutConfig(BaseModel):
    """The test: how many scenes of which held-out folders, each in rain of every strength."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenes: dict[str, Annotated[int, Field(gt=0)]] = Field(min_length=1)
    strengths: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)
    seed: int = Field(ge=0, lt=2**32)


class Protocol(BaseModel):
    """`train` is a training configuration without its network, its distillation and its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: dict[str, Any]
    test: HeldOutConfig
    systems: dict[str, SystemConfig] = Field(min_length=1)

    @property
    def networks(self) -> dict[str, str]:
        """The network of each system, by its name in the registry."""
        return {name: system.network.name for name, system in self.systems.items()}

    @model_validator(mode="after")
    def _systems_have_their_own(self) -> Self:
        if own := [key for key in OWN if key in self.train]:
            raise ValueError(f"train has {', '.join(own)}, which systems sets for each of them: take it out")
        return self

    @model_validator(mode="after")
    def _teachers_are_systems(self) -> Self:
        unknown = {system.teacher for system in self.systems.values()} - {None, *self.systems}
        if unknown:
            raise ValueError(f"teacher {', '.join(map(str, unknown))} is no system: expected one of the systems")
        for name in self.systems:
            waiting: list[str] = []
            each: str | None = name
            while each is not None and each not in waiting:
                waiting.append(each)
                each = self.systems[each].teacher
            if each is not None:
                learning = " learns from ".join((*waiting, each))
                raise ValueError(f"{learning}, so that none can be trained first: leave one without a teacher")
        return self


@dataclass(frozen=True)
class Comparison:
    """A protocol and the folder of its runs."""

    protocol: Protocol
    folder: Path
    overrides: tuple[str, ...] = ()
    """`key=value` on top of every system's training configuration: the data's root, the machine, a trial's length."""

    def __post_init__(self) -> None:
        """Raise ValueError for an override of what is each system's own."""
        for override in self.overrides:
            if (key := override.partition("=")[0].partition(".")[0]) in OWN:
                raise ValueError(f"--set {override!r}: the comparison sets {key} for each system: leave it out")

    def config(self, system: str) -> TrainConfig:
        """The training run of a system.

        Raises:
            ValueError: no such system, or a key of the protocol that no training run has.
        """
        chosen = self._system(system)
        tree = copy.deepcopy(self.protocol.train)
        tree |= {"network": chosen.network.model_dump(), "out": str(self.folder / system)}
        if chosen.teacher is not None:
            tree["distill"] = {"teacher": str(self.weights(chosen.teacher))}
        return checked(TrainConfig, overridden(tree, list(self.overrides)), Path(f"the protocol's {system}"))

    def weights(self, system: str) -> Path:
        """Where a system's weights are once it has been validated."""
        return self.folder / system / "weights.safetensors"

    def progress(self, system: str) -> tuple[int, int]:
        """Patches that a system has seen, and those of the protocol.

        A run without its checkpoint, which is large and may have stayed where it was trained, counts if it is complete.
        """
        optimiser = self.config(system).optimiser
        wanted = optimiser.iterations * optimiser.batch
        checkpoint, weights = self.folder / system / "checkpoint.safetensors", self.weights(system)
        if weights.is_file() and not checkpoint.exists() and patches_seen(weights, optimiser) == wanted:
            return wanted, wanted
        return iterations_done(checkpoint) * optimiser.batch, wanted

    def waits_for(self, system: str) -> str | None:
        """The teacher without which a system cannot begin yet."""
        teacher = self._system(system).teacher
        if teacher is None:
            return None
        seen, wanted = self.progress(teacher)
        return teacher if seen < wanted else None

    def next_system(self, systems: Sequence[str] | None = None) -> str | None:
        """The first of the systems (None: all), in the protocol's order, that is not complete and can be trained.

        None: all are complete, or wait for a teacher that is not among them.

        One after the other: only a run whose schedule has come to its end can be compared.
        """
        for system in self.protocol.systems:
            if systems and system not in systems:
                continue
            seen, wanted = self.progress(system)
            if seen < wanted and self.waits_for(system) is None:
                return system
        return None

    def train(self, system: str, minutes: float | None = None, progress: bool = False) -> tuple[int, int]:
        """Begin or go on with a system's run for so many minutes; its progress.

        Raises:
            ValueError, FileNotFoundError, OSError: see `derain.training.trainer.train`, or the teacher is not complete.
        """
        teacher = self.waits_for(system)
        if teacher is not None:
            raise ValueError(f"{system} learns from {teacher}, which is not complete: train {teacher} to its end first")
        config = self.config(system)
        train(config, resume=is_run(config.out), minutes=minutes, progress=progress)
        return self.progress(system)

    def _system(self, name: str) -> SystemConfig:
        if name not in self.protocol.systems:
            raise ValueError(f"no system {name!r}: expected one of {', '.join(self.protocol.systems)}")
        return self.protocol.systems[name]


def patches_seen(weights: Path, optimiser: OptimiserConfig | None = None) -> int:
    """Patches behind a run's weights: their iterations, times the batch of the config.yaml beside them.

    With an `optimiser`, 0 where the run had another.

    Raises:
        FileNotFoundError, ValueError: the run's config.yaml is missing or broken, or the weights tell no iterations.
    """
    own = read_config(weights.with_name("config.yaml")).optimiser
    if optimiser is not None and own != optimiser:
        return 0
    with safe_open(weights, framework="pt") as file:
        notes = file.metadata() or {}
    if "iterations" not in notes:
        raise ValueError(
            f"{weights} does not say after how many iterations: expected weights that `derain train` wrote"
        )
    return int(notes["iterations"]) * own.batch


def read_protocol(path: Path = PROTOCOL) -> Protocol:
    """Read a protocol; errors as `derain.training.config.read_config`."""
    return checked(Protocol, read_tree(path), path)
