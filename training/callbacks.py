"""What happens around a run's iterations: weights after a validation, checkpoints, the end of a time slice."""

import json
import logging
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from derain.training.config import TrainConfig
from derain.training.models.weights import save_weights
from derain.training.panels import Tile, attention_tiles, panel

log = logging.getLogger(__name__)


def average_decay(count: Tensor, highest: float) -> Tensor:
    """The decay after n iterations, min(`highest`, (1 + n) / (10 + n)): a short run forgets its beginning too."""
    return torch.clamp((1 + count) / (10 + count), max=highest)


class MovingAverage(WeightAveraging):
    """The exponential moving average of the weights, which is what is validated and saved; see `average_decay`."""

    def __init__(self, decay: float) -> None:
        def average(averaged: list[Tensor], current: list[Tensor], _: Tensor) -> None:
            assert self._average_model is not None
            count = self._average_model.n_averaged
            torch._foreach_lerp_(averaged, current, float(1 - average_decay(count, decay)))

        super().__init__(multi_avg_fn=average)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Put the average where the weights will be, which are still on the CPU: else each iteration copies them there.

        Its counter stays on the CPU, where reading it does not wait for a GPU.
        """
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged = torch.zeros_like(self._average_model.n_averaged, device="cpu")

    @property
    def network(self) -> nn.Module:
        """The network with the average for its weights."""
        assert self._average_model is not None, "there is one from the beginning of a run on"
        return self._average_model.module.network  # type: ignore[return-value]


class SaveWeights(lightning.Callback):
    """Writes OUT/weights.safetensors (the moving average, fp16) after every validation and at a time slice's end."""

    def __init__(self, path: Path, config: TrainConfig, average: MovingAverage) -> None:
        self.path, self.config, self.average = path, config, average

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save what was validated; by now the module has the last iteration's weights again."""
        if not trainer.sanity_checking:
            measured = trainer.callback_metrics.items()
            self._write(trainer, {name: f"{float(value):.3f}" for name, value in measured if name[:4] == "val/"})

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Save what a time slice ends with: the machine may be gone before the next."""
        if isinstance(exception, Stopped):
            self._write(trainer, {})

    def _write(self, trainer: lightning.Trainer, measured: dict[str, str]) -> None:
        if not trainer.is_global_zero:
            return
        network = self.config.network
        save_weights(
            self.path,
            self.average.network,
            network.name,
            network.options,
            torch.float16,
            iterations=str(trainer.global_step),
            seed=str(self.config.seed),
            measured=json.dumps(measured),
        )
        if measured:
            told = ", ".join(f"{name} {value}" for name, value in measured.items())
            log.info("iteration %d: %s dB", trainer.global_step, told)


class Panels(lightning.Callback):
    """Shows TensorBoard the first held-out frames of every validation: images, attention maps and exact masks."""

    FRAMES = 4
    """One of each strength of rain that validation renders."""

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Rainy, output, truth, the attention maps, the masks."""
        if batch[0] >= self.FRAMES or not trainer.is_global_zero:
            return
        rain, prediction = outputs["rain"], outputs["prediction"]
        tiles = [
            Tile("rainy", rain.rainy[0]),
            Tile("output", prediction.image[0].float()),
            Tile("truth", rain.clean[0]),
            *attention_tiles(prediction),
            Tile("M streak", rain.mask_streak[0]),
            Tile("M drop", rain.mask_drop[0]),
        ]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                picture = panel([tiles])
                logger.experiment.add_image(f"val/{batch[0]}", picture, trainer.global_step, dataformats="HWC")


class Stopped(Exception):  # noqa: N818 (not an error: the time slice is over and a checkpoint written)
    """Raised through Lightning's loop, which offers no other way out between two iterations without a validation."""


class Interrupted(SystemExit):
    """SIGINT or SIGTERM ended the run between two iterations, with a checkpoint; its status is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


EVERY_ASKED = 10
"""Iterations after which several processes ask each other for a signal: each time they wait for one another."""


class Checkpoints(lightning.Callback):
    """Writes OUT/checkpoint.safetensors every so many iterations, at the end, and when the time slice is over.

    SIGINT (Ctrl-C) and SIGTERM end a time slice too; a second one ends the process at once.

    A checkpoint is written between two iterations, at the start of the next: everything of the one before, its
    validation included, is behind it then, and resuming begins with the next.
    """

    def __init__(self, path: Path, every: int, iterations: int, deadline: float | None) -> None:
        self.path, self.every, self.iterations, self.deadline = path, every, iterations, deadline
        self.began = self.saved = 0
        self.interrupted: int | None = None

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Where this process begins: it does at least one iteration, however short its slice.

        Takes the signals from Lightning, which would end the run without a checkpoint, and puts back all handlers that
        were there before it.
        """
        self.began = self.saved = trainer.global_step
        if threading.current_thread() is threading.main_thread():  # no other gets signals
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._interrupt)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save, where due; leave, where the time is over."""
        done = trainer.global_step
        over = done > self.began and self._time_is_over(trainer)
        if done > self.saved and (over or done % self.every == 0):
            self._save(trainer)
        if over:
            raise Stopped

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Have the last iteration validated, whatever `validate_every` is."""
        if trainer.global_step == self.iterations:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """The run is complete; whoever resumes it learns so from this checkpoint."""
        self._save(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning counts one batch more in its logs when it resumes from a save at the start of a batch."""
        checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self.saved = trainer.global_step
        log.info("iteration %d of %d: checkpoint", self.saved, self.iterations)

    def _time_is_over(self, trainer: lightning.Trainer) -> bool:
        """Asked by all processes together: they stop at one iteration."""
        if self.deadline is None and trainer.world_size > 1 and trainer.global_step % EVERY_ASKED:
            return False
        over = self.interrupted is not None or (self.deadline is not None and time.monotonic() > self.deadline)
        return bool(trainer.strategy.reduce_boolean_decision(over, all=False))

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self.interrupted = number
        log.warning("stopping with a checkpoint after this iteration or validation; once more stops at once, without")
        signal.signal(number, signal.SIG_DFL)
