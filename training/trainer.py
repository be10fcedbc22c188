"""One training run, read from top to bottom: data, rain, network, losses, schedule, validation, weights."""

import json
import logging
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from derain.training.config import OptimiserConfig, TrainConfig
from derain.training.data import CleanPatches, held_out_files, read_rgb, to_tensor, training_files
from derain.training.losses import derain_loss, psnr
from derain.training.models import build, size_multiple
from derain.training.models.blocks import NEGATIVE_SLOPE, ConvLSTM, ResBlock
from derain.training.models.checkpoint import save_weights
from derain.training.models.compact import CompactEncoder
from derain.training.models.dam import Decoder, Encoder
from derain.training.rain import render

log = logging.getLogger(__name__)

RAIN_COVER = 0.1
"""The share of a frame that rain covers, about; where attention starts."""

VALIDATION_STRENGTHS = (0.25, 0.5, 0.75, 1.0)


def initialise(model: nn.Module, init: str) -> None:
    """Weights before training.

    "gaussian": the paper's N(0, 0.01²). "he": He et al. 2015 for the leaky slope, Glorot's for LSTM gates and 1×1
    gates; the second convolution of a residual block and the last one to an image start small, so that a block starts
    near its skip and a residual network near the rainy image. Attention heads start at the share of a frame that rain
    covers: starting at a half, the way down saturates the LSTM before them, and the map stays dead. LSTM gates start
    open, their biases at 1, and the candidate's weights doubled, so that one step from zeros lets the signal through.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            if init == "gaussian":
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, ConvLSTM):
            input_gate, forget_gate, candidate, output_gate = range(4)
            biases, weights = module.gates.bias.data.chunk(4), module.gates.weight.data.chunk(4)  # type: ignore[union-attr]
            if init == "he":
                nn.init.xavier_normal_(module.gates.weight)
                weights[candidate].mul_(2)
                biases[input_gate].fill_(1)
                biases[output_gate].fill_(1)
            biases[forget_gate].fill_(1)
        elif isinstance(module, ResBlock) and init == "he":
            module.conv2.weight.data.mul_(0.1)
        elif isinstance(module, Decoder) and init == "he":
            module.out.weight.data.mul_(0.1)
        elif isinstance(module, (Encoder, CompactEncoder)) and module.head is not None and init == "he":
            nn.init.constant_(module.head.bias, math.log(RAIN_COVER / (1 - RAIN_COVER)))  # type: ignore[arg-type]


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
    """Renders rain over each batch of clean patches on its own device and learns to take it off."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build(config.network.name, **config.network.options)
        initialise(self.network, config.network.init)
        if config.machine.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward_network: Callable[..., Any] = (
            torch.compile(self.network) if config.machine.compile else self.network
        )

    def training_step(self, clean: Tensor, iteration: int) -> Tensor:
        """One iteration; rain depends on (seed, global step) alone."""
        generator = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + self.global_step)
        rain = render(clean, generator, self.config.rain)
        prediction, _ = self.forward_network(rain.rainy)
        terms = derain_loss(prediction, clean, branch_masks(rain.mask_streak, rain.mask_drop), self.config.loss)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, on_step=True)
        self.log("train/psnr", psnr(prediction.image.detach().float(), clean).mean(), on_step=True, prog_bar=True)
        if not torch.isfinite(terms["loss"]):
            raise ValueError(
                f"the loss is {terms['loss'].item()} at iteration {self.global_step}: lower optimiser.learning_rate"
            )
        return terms["loss"]

    def validation_step(self, clean: Tensor, index: int) -> None:
        """PSNR before and after on one held-out frame; frame i has the i-th strength in turn, and rain seeded by i."""
        strength = VALIDATION_STRENGTHS[index % len(VALIDATION_STRENGTHS)]
        multiple = size_multiple(self.network)
        height, width = (size - size % multiple for size in clean.shape[-2:])
        clean = clean[..., :height, :width]
        generator = torch.Generator(self.device).manual_seed(index)
        rain = render(clean, generator, self.config.rain.model_copy(update={"kinds": "both", "strength": strength}))
        prediction, _ = self.forward_network(rain.rainy)
        before, after = psnr(rain.rainy, clean).mean(), psnr(prediction.image.float(), clean).mean()
        self.log_dict(
            {"val/psnr_input": before, "val/psnr": after, "val/gain": after - before}, batch_size=1, prog_bar=True
        )

    def configure_optimizers(self) -> Any:
        """Adam, its learning rate set every iteration."""
        config = self.config.optimiser
        optimiser = torch.optim.Adam(self.network.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(step, config))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SaveWeights(lightning.Callback):
    """Writes OUT/weights.safetensors (the moving average, fp16) after every validation."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path, self.config = path, config

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """The EMA callback has swapped its average in while validation runs, so this saves what was validated."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        measured = {
            name: f"{float(value):.3f}" for name, value in trainer.callback_metrics.items() if name[:4] == "val/"
        }
        network = self.config.network
        save_weights(
            self.path,
            module.network,  # type: ignore[arg-type]
            network.name,
            network.options,
            torch.float16,
            iterations=str(trainer.global_step),
            seed=str(self.config.seed),
            measured=json.dumps(measured),
        )
        log.info("iteration %d: %s", trainer.global_step, measured)


def train(config: TrainConfig) -> Path:
    """Train and return the weights file.

    OUT gets config.yaml (resolved), environment.json, split.json (every training and held-out file), metrics.csv and
    weights.safetensors.

    Raises:
        FileNotFoundError, ValueError: data that is missing or broken, or a loss that is no longer finite.
    """
    torch.set_num_threads(config.machine.threads or torch.get_num_threads())
    lightning.seed_everything(config.seed, verbose=False)
    train_files, test_files = training_files(config.data), held_out_files(config.data)
    config.out.mkdir(parents=True, exist_ok=True)
    _write(config.out / "config.yaml", yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False))
    versions = {"python": platform.python_version(), "torch": torch.__version__, "lightning": lightning.__version__}
    _write(config.out / "environment.json", json.dumps(versions, indent=2))
    root = config.data.root
    split = {
        name: [str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files]
        for name, files in (("train", train_files), ("test", test_files))
    }
    _write(config.out / "split.json", json.dumps(split, indent=1))

    images = [read_rgb(file) for file in train_files]
    validation = [to_tensor(read_rgb(file)) for file in test_files]
    optimiser = config.optimiser
    patches = CleanPatches(images, optimiser.batch, config.data.patch, config.seed, 0, optimiser.iterations)
    weights = config.out / "weights.safetensors"
    module = Deraining(config)
    trainer = lightning.Trainer(
        accelerator=config.machine.accelerator,
        precision=config.machine.precision,
        max_steps=optimiser.iterations,
        gradient_clip_val=optimiser.gradient_clip,
        val_check_interval=min(config.validate_every, optimiser.iterations),
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        logger=CSVLogger(config.out, name=None, version=""),
        callbacks=[EMAWeightAveraging(decay=optimiser.ema_decay), SaveWeights(weights, config)],
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    held_out: DataLoader[Tensor] = DataLoader(validation, batch_size=1)  # type: ignore[arg-type]
    trainer.fit(module, DataLoader(patches, batch_size=None), held_out)
    return weights


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
