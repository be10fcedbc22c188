"""A training run's configuration: pydantic models read from YAML, unknown keys refused."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from derain.training.data import DataConfig
from derain.training.distillation import DistillConfig
from derain.training.losses import LossConfig
from derain.training.rain import RainConfig

Checked = TypeVar("Checked", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkConfig(_Strict):
    """Which network, by its registered name, with its options, and how its weights start."""

    name: str
    options: dict[str, Any] = {}
    init: Literal["he", "gaussian"] = "he"
    """"gaussian" is the paper's N(0, 0.01²) for every weight; "he" keeps the signal's size through the depth."""
    start: str | None = None
    """Weights to begin from instead, a file or a shipped name: a second stage of training."""


class OptimiserConfig(_Strict):
    """Adam with a cosine schedule after a linear warm-up, and an exponential moving average of the weights."""

    iterations: int = Field(gt=0)
    batch: int = Field(16, gt=0)
    """Patches an iteration, all processes together."""
    learning_rate: float = Field(1e-4, gt=0)
    final_learning_rate: float = Field(1e-6, gt=0)
    warm_up: int = Field(200, ge=0)
    """Left out, it is a tenth of a run of fewer than 2,000 iterations."""
    gradient_clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _short_runs_warm_up_shortly(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or "warm_up" in tree:
            return tree
        try:
            iterations = TypeAdapter(int).validate_python(tree.get("iterations"))
        except ValidationError:  # which is told of `iterations` itself
            return tree
        return {**tree, "warm_up": min(200, iterations // 10)}

    @model_validator(mode="after")
    def _rises_then_falls(self) -> Self:
        if self.warm_up >= self.iterations:  # `learning_rate` would never be reached
            raise ValueError(
                f"warm_up is {self.warm_up}, expected less than iterations, which is {self.iterations}: lower it, or "
                "leave it out"
            )
        if self.final_learning_rate > self.learning_rate:
            first, last = self.learning_rate, self.final_learning_rate
            raise ValueError(f"final_learning_rate is {last:g}, expected at most learning_rate, which is {first:g}")
        return self


class MachineConfig(_Strict):
    """How the arithmetic is done; nothing here changes what is learnt, but for the balanced attention loss on several
    devices, whose Dice term is of each one's share of a batch."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = True
    threads: int = Field(0, ge=0)
    """CPU threads PyTorch may use; 0 leaves it to PyTorch."""
    workers: int = Field(0, ge=0)
    """Processes that cut patches and render their rain beside the one that trains. `python benchmarks/rain.py rate
    --workers N` counts the patches they make a second: a GPU that trains faster waits for them."""
    devices: Annotated[int, Field(gt=0)] | Literal["auto"] = 1
    """Devices on each machine. With torchrun: its --nproc-per-node."""
    nodes: int = Field(1, gt=0)
    """Machines. With torchrun: its --nnodes."""
    strategy: Literal["auto", "ddp"] = "auto"


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once: PyYAML itself takes the last of two and says nothing of the first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line} has the key {key.value!r} a second time: keep one of the two")
            seen.add(str(key.value))
        return node


class TrainConfig(_Strict):
    """Everything a training run is made of; saved beside its result."""

    network: NetworkConfig
    data: DataConfig = DataConfig()
    rain: RainConfig = RainConfig()
    loss: LossConfig = LossConfig()
    distill: DistillConfig | None = None
    optimiser: OptimiserConfig
    machine: MachineConfig = MachineConfig()
    seed: int = Field(1, ge=0, lt=2**32)
    validate_every: int = Field(1000, gt=0)
    checkpoint_every: int = Field(500, gt=0)
    """Iterations between checkpoints: what a killed run may lose."""
    log_every: int = Field(50, gt=0)
    """Iterations between rows of metrics.csv."""
    tensorboard: bool = False
    """Also write scalars and, at every validation, panels for TensorBoard into OUT/tensorboard."""
    out: Path

    @model_validator(mode="after")
    def _stills(self) -> Self:
        if self.rain.wiper is not None:
            raise ValueError(f"rain.wiper is {self.rain.wiper:g}, but patches are stills, which no wiper wipes")
        return self


def read_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a YAML file and apply `key.sub=value` overrides, values in YAML.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable YAML, a key that does not exist, or a value out of range; one line, naming the key.
    """
    return checked(TrainConfig, overridden(read_tree(path), overrides or []), path)


def read_tree(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; errors as `read_config`."""
    if not path.is_file():
        raise FileNotFoundError(f"no configuration {str(path)!r}: expected a YAML file")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds {type(tree).__name__}, expected a mapping with the keys of a training run")
    return tree


def overridden(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The tree with `key.sub=value` overrides set in it."""
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ValueError(f"--set {override!r}: expected key=value, as in --set optimiser.batch=8")
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            if node.get(parent) is None:  # absent, or a key without a value
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict):
                raise ValueError(f"--set {override!r}: {parent} is {node!r}, expected a group of keys")
        try:
            node[leaf] = yaml.load(value, _Loader)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {override!r}: the value is not YAML: {' '.join(str(error).split())}") from error
    return tree


def checked(model: type[Checked], tree: dict[str, Any], path: Path) -> Checked:
    """The tree as its model; a fault in one line, naming the file and the key."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first, where = error.errors()[0], _key(tree, error.errors()[0]["loc"])
        expected = [other["msg"].lower() for other in error.errors() if _key(tree, other["loc"]) == where]
        fault = "is missing" if first["type"] == "missing" else f"is {first['input']!r}: {', or '.join(expected)}"
        if first["type"] == "value_error":
            fault = f"does not fit together: {first['ctx']['error']}"
        if first["type"] == "extra_forbidden":
            fault = f"is unknown, known are: {', '.join(_keys(model, first['loc'][:-1]))}"
        raise ValueError(f"{path}: {where} {fault}") from error


def _key(tree: Any, where: tuple[str | int, ...]) -> str:
    """The key of a fault, without the alternative of its type that pydantic puts behind it."""
    parts: list[str] = []
    for part in where:
        if not isinstance(tree, dict if isinstance(part, str) else (dict, list, tuple)):
            break
        parts.append(str(part))
        tree = tree.get(part) if isinstance(tree, dict) else tree[int(part)]
    return ".".join(parts)


def _keys(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys of the group at `path`."""
    for part in path:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        kinds = (annotation, *get_args(annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        model = inner or model
    return list(model.model_fields)
