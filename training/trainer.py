"""One training run, read from top to bottom: data, rain, network, losses, schedule, validation, weights."""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from derain.training.allocator import keep_freed_memory
from derain.training.atomic import naming_the_run
from derain.training.callbacks import Checkpoints, Interrupted, MovingAverage, Panels, SaveWeights, Stopped
from derain.training.checkpoints import SafetensorsCheckpointIO
from derain.training.config import OptimiserConfig, TrainConfig
from derain.training.dataset import Dataset, find_dataset
from derain.training.distillation import Teacher
from derain.training.logs import CsvLog, require_tensorboard, tensorboard
from derain.training.losses import derain_loss, psnr
from derain.training.models import build, size_multiple
from derain.training.models.initialise import initialise
from derain.training.models.registry import default_options
from derain.training.models.weights import load
from derain.training.patches import ResumableLoader, paired, refuse_little_shared_memory
from derain.training.rain import RainyBatch, render
from derain.training.records import alone_in, begin_or_resume, make_folder

STEPS = ("steps", "encoder_steps", "decoder_steps")
"""Options that a second stage may have otherwise than the first; the others change what its weights mean."""

VALIDATION_STRENGTHS = (0.25, 0.5, 0.75, 1.0)


def begin_from(start: str, model: nn.Module, config: TrainConfig) -> None:
    """Fill a network with the weights of an earlier stage of its training."""
    first, network = load(start), config.network
    if first.name != network.name:
        raise ValueError(f"network.start {start} is a {first.name!r}, expected a {network.name!r}")
    theirs, ours = (
        {key: value for key, value in (default_options(network.name) | options).items() if key not in STEPS}
        for options in (first.options, network.options)
    )
    if theirs != ours:
        key = next(key for key in theirs if theirs[key] != ours[key])
        raise ValueError(
            f"network.options.{key} is {ours[key]!r}, but network.start {start} has {theirs[key]!r}: expected the same"
        )
    model.load_state_dict(first.network.state_dict())


def learning_rate(step: int, config: OptimiserConfig) -> float:
    """The learning rate at an iteration: linear warm-up, then a cosine from `learning_rate` to the final one."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    progress = min(1.0, (step - config.warm_up) / max(1, config.iterations - config.warm_up))
    share = 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_learning_rate + share * (config.learning_rate - config.final_learning_rate)


def branch_masks(streak: Tensor, drop: Tensor) -> dict[str, Tensor]:
    """The soft masks by branch name; a lone DAM's "rain" is whichever of the two is heavier."""
    return {"streak": streak, "drop": drop, "rain": torch.maximum(streak, drop)}


class Deraining(lightning.LightningModule):
    """A network that learns to take rain off patches."""

    def __init__(self, config: TrainConfig, begun: bool = False) -> None:
        """`begun`: a checkpoint will fill the network, so that what it started from is not needed again."""
        super().__init__()
        self.config = config
        self.network = build(config.network.name, **config.network.options)
        initialise(self.network, config.network.init)
        if config.network.start is not None and not begun:
            begin_from(config.network.start, self.network, config)
        if config.data.patch % (multiple := size_multiple(self.network)):
            raise ValueError(
                f"data.patch is {config.data.patch}, expected a multiple of {multiple} for {config.network.name!r}"
            )
        self.teacher = None if config.distill is None else Teacher(config.distill, self.network, config.data.patch)
        if config.machine.channels_last:
            for network in (self.network, *([] if self.teacher is None else [self.teacher.network])):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def training_step(self, rain: RainyBatch, iteration: int) -> Tensor:
        """One iteration on patches in rain."""
        clean, rainy = rain.clean, rain.rainy
        if self.config.machine.channels_last:
            rainy = rainy.contiguous(memory_format=torch.channels_last)
        prediction, _ = self.network(rainy)
        terms = derain_loss(prediction, clean, branch_masks(rain.mask_streak, rain.mask_drop), self.config.loss)
        if self.teacher is not None:
            terms |= self.teacher.terms(prediction, rainy, self.config.loss)
            terms["loss"] = terms["loss"] + terms["distill"]
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, on_step=True)
        self.log("train/psnr", psnr(prediction.image.detach().float(), clean).mean(), on_step=True, prog_bar=True)
        if not torch.isfinite(terms["loss"]):
            raise ValueError(
                f"the loss is {terms['loss'].item()} at iteration {self.global_step}: lower optimiser.learning_rate"
            )
        return terms["loss"]

    def validation_step(self, batch: tuple[int, Any], _: int) -> dict[str, Any]:
        """PSNR before and after on one held-out frame, in the run's kinds of rain, seeded by the frame's number.

        Frame i has the i-th of `VALIDATION_STRENGTHS` in turn where the run draws its own, and both kinds where it
        mixes them. Its rain and prediction go to the panels.
        """
        index, frame = batch
        if isinstance(frame, Tensor):
            strength = VALIDATION_STRENGTHS[index % len(VALIDATION_STRENGTHS)]
            rain_config = self.config.rain
            kinds = "both" if rain_config.kinds == "mixed" else rain_config.kinds
            strength = strength if rain_config.strength is None else rain_config.strength
            wanted = rain_config.model_copy(update={"kinds": kinds, "strength": strength})
            rain = render(self._fitting(frame), torch.Generator().manual_seed(index), wanted)
        else:
            rain = paired([self._fitting(image) for image in frame])
        clean = rain.clean
        prediction, _ = self.network(rain.rainy)
        before, after = psnr(rain.rainy, clean).mean(), psnr(prediction.image.float(), clean).mean()
        self.tally += torch.stack([before, after, torch.ones_like(after)])
        return {"rain": rain, "prediction": prediction}

    def _fitting(self, image: Tensor) -> Tensor:
        """An image [3, H, W] as a batch, cut to the multiple that the network takes."""
        multiple = size_multiple(self.network)
        if min(image.shape[-2:]) < multiple:
            size = f"{image.shape[-1]}x{image.shape[-2]}"
            raise ValueError(
                f"a held-out picture is {size}, smaller than the {multiple} pixels that {self.config.network.name} "
                "takes at least: leave it out"
            )
        height, width = (size - size % multiple for size in image.shape[-2:])
        return image[None, :, :height, :width]

    def on_validation_epoch_start(self) -> None:
        """Nothing measured yet: sums of both PSNRs and the number of frames."""
        self.tally = torch.zeros(3, device=self.device)

    def on_validation_epoch_end(self) -> None:
        """The means over all processes' frames."""
        before, after, frames = self.trainer.strategy.reduce(self.tally, reduce_op="sum")
        measured = {
            "val/psnr_input": before / frames,
            "val/psnr": after / frames,
            "val/gain": (after - before) / frames,
        }
        self.log_dict(measured, prog_bar=True, rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        """Adam, its learning rate set every iteration."""
        config = self.config.optimiser
        optimiser = torch.optim.Adam(self.network.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(step, config))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@contextlib.contextmanager
def without_worker_tracebacks() -> Iterator[None]:
    """A loader's worker hands its fault over with the traceback in the message: leave the fault's own line."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise OSError(
            f"{str(error).strip().partition(chr(10))[0]}: one of the processes that render rain was ended, as the "
            "system does where memory is short: lower machine.workers, or give it more memory"
        ) from error
    except (ValueError, OSError) as error:
        if "Original Traceback" not in str(error):
            raise
        line = str(error).strip().rpartition("\n")[2]
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(line.partition(": ")[2] or line) from error


def train(config: TrainConfig, resume: bool = False, minutes: float | None = None, progress: bool = False) -> Path:
    """Train and return the weights file, which is there from the first validation or the end of a time slice on.

    OUT gets config.yaml (resolved), environment.json, split.json (every training and held-out file), metrics.csv,
    weights.safetensors and checkpoint.safetensors.

    Args:
        config: the run.
        resume: go on with the run in OUT behind its last checkpoint; it ends in the weights it would have had.
        minutes: leave after so long with a checkpoint, to be resumed; None: train to the end.
        progress: show a bar.

    Raises:
        FileNotFoundError, ValueError: data that is missing or broken, another configuration than the run to resume
            has, an accelerator that is not there, or a loss that is no longer finite.
        OSError: a file that cannot be written; the last checkpoint is kept.
        Interrupted: SIGINT or SIGTERM; there is a checkpoint.
    """
    with naming_the_run(config.out):
        return _train(config, resume, minutes, progress)


def _train(config: TrainConfig, resume: bool, minutes: float | None, progress: bool) -> Path:
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    torch.set_num_threads(config.machine.threads or torch.get_num_threads())
    keep_freed_memory()
    lightning.seed_everything(config.seed, verbose=False)
    if config.machine.accelerator in ("gpu", "cuda") and not torch.accelerator.is_available():
        raise ValueError(
            f"machine.accelerator is {config.machine.accelerator!r}, but PyTorch sees none here: take the CPU (--set "
            "machine.accelerator=cpu), or install the driver and a build of PyTorch for it"
        )
    if config.machine.precision == "16-mixed" and not torch.accelerator.is_available():
        raise ValueError("machine.precision is '16-mixed', which wants a GPU: take 'bf16-mixed' or '32-true'")
    if config.tensorboard:
        require_tensorboard()
    dataset = find_dataset(config.data)
    if not resume:
        make_folder(config.out)
    with alone_in(config.out):
        return _fit(config, dataset, resume, deadline, progress)


def _fit(config: TrainConfig, dataset: Dataset, resume: bool, deadline: float | None, progress: bool) -> Path:
    checkpoint, weights = config.out / "checkpoint.safetensors", config.out / "weights.safetensors"
    optimiser = config.optimiser
    done = begin_or_resume(config, dataset.names(), checkpoint, resume)
    if done >= optimiser.iterations:
        if not weights.is_file():
            raise FileNotFoundError(f"the run is complete, but {weights} is gone: bring it back, or train it again")
        return weights

    loggers: list[Logger] = [CsvLog(config.out / "metrics.csv", keep=done)]
    if config.tensorboard:
        loggers.append(tensorboard(config.out, done))
    module, average = Deraining(config, begun=done > 0), MovingAverage(optimiser.ema_decay)
    checkpoints = Checkpoints(checkpoint, config.checkpoint_every, optimiser.iterations, deadline)
    trainer = lightning.Trainer(
        accelerator=config.machine.accelerator,
        devices=config.machine.devices,
        num_nodes=config.machine.nodes,
        strategy=config.machine.strategy,
        precision=config.machine.precision,
        max_steps=optimiser.iterations,
        gradient_clip_val=optimiser.gradient_clip,
        val_check_interval=min(config.validate_every, optimiser.iterations),
        num_sanity_val_steps=0,
        log_every_n_steps=config.log_every,
        logger=loggers,
        callbacks=[
            average,
            SaveWeights(weights, config, average),
            *([Panels()] if config.tensorboard else []),
            checkpoints,
        ],
        plugins=[SafetensorsCheckpointIO()],
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
    )
    rank, world = trainer.global_rank, trainer.world_size
    patches = dataset.patches(config, rank, world)
    loader = ResumableLoader(patches, config.machine.workers, lambda: trainer.global_step)
    refuse_little_shared_memory(config.machine.workers, optimiser.batch // world, config.data.patch)
    held_out: DataLoader[Any] = DataLoader(dataset.frames(rank, world), batch_size=None)  # type: ignore[arg-type]
    with contextlib.suppress(Stopped), without_worker_tracebacks():
        trainer.fit(module, loader, held_out, ckpt_path=checkpoint if done else None, weights_only=False)
    if checkpoints.interrupted is not None and checkpoints.saved < optimiser.iterations:
        raise Interrupted(checkpoints.interrupted)
    return weights
