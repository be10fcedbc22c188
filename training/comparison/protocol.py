"""The one protocol, from training/configs/comparison.yaml: what is alike for every system, and which systems there are.

A comparison lies in a folder of its own: a run of `derain train` a system, the test pairs, and the JSON that the tables
are made of.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from derain.training.checkpoints import iterations_done
from derain.training.config import NetworkConfig, TrainConfig, checked, overridden, read_tree
from derain.training.trainer import train

PROTOCOL = Path(__file__).resolve().parent.parent / "configs" / "comparison.yaml"


class SystemConfig(BaseModel):
    """A network, and the system it is distilled from, if any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: NetworkConfig
    teacher: str | None = None


class HeldOutConfig(BaseModel):
    """The test: how many scenes of which held-out folders, each in rain of every strength."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenes: dict[str, int]
    strengths: tuple[float, ...]
    seed: int = Field(ge=0)


class Protocol(BaseModel):
    """`train` is a training configuration without its network, its distillation and its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: dict[str, Any]
    test: HeldOutConfig
    systems: dict[str, SystemConfig]

    @model_validator(mode="after")
    def _teachers_are_systems(self) -> Self:
        unknown = {system.teacher for system in self.systems.values()} - {None, *self.systems}
        if unknown:
            raise ValueError(f"teacher {', '.join(map(str, unknown))} is no system: expected one of the systems")
        return self


@dataclass(frozen=True)
class Comparison:
    """A protocol and the folder of its runs."""

    protocol: Protocol
    folder: Path
    overrides: tuple[str, ...] = ()
    """`key=value` on top of every system's training configuration: the data's root, the machine, a trial's length."""

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
        """Patches that a system has seen, and those of the protocol."""
        optimiser = self.config(system).optimiser
        done = iterations_done(self.folder / system / "checkpoint.safetensors")
        return done * optimiser.batch, optimiser.iterations * optimiser.batch

    def waits_for(self, system: str) -> str | None:
        """The teacher without which a system cannot begin yet."""
        teacher = self._system(system).teacher
        if teacher is None:
            return None
        seen, wanted = self.progress(teacher)
        return teacher if seen < wanted else None

    def next_system(self) -> str | None:
        """Of the systems that can be trained, the one least far along, in the protocol's order; None: all complete."""
        shares: dict[str, float] = {}
        for system in self.protocol.systems:
            seen, wanted = self.progress(system)
            if seen < wanted and self.waits_for(system) is None:
                shares[system] = seen / wanted
        return min(shares, key=shares.__getitem__, default=None)

    def train(self, system: str, minutes: float | None = None, progress: bool = False) -> tuple[int, int]:
        """Begin or go on with a system's run for so many minutes; its progress.

        Raises:
            ValueError, FileNotFoundError, OSError: see `derain.training.trainer.train`, or the teacher is not complete.
        """
        teacher = self.waits_for(system)
        if teacher is not None:
            raise ValueError(f"{system} learns from {teacher}, which is not complete: train {teacher} to its end first")
        config = self.config(system)
        train(config, resume=config.out.is_dir(), minutes=minutes, progress=progress)
        return self.progress(system)

    def _system(self, name: str) -> SystemConfig:
        if name not in self.protocol.systems:
            raise ValueError(f"no system {name!r}: expected one of {', '.join(self.protocol.systems)}")
        return self.protocol.systems[name]


def read_protocol(path: Path = PROTOCOL) -> Protocol:
    """Read a protocol; errors as `derain.training.config.read_config`."""
    return checked(Protocol, read_tree(path), path)
