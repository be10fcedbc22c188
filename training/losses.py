"""The paper's losses (eqs. 5 to 15), its signed sums read as mean squared errors; and two others for the images."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from derain.training.models import Prediction


class LossConfig(BaseModel):
    """Weights of the loss terms: α·L_att + β1·L_heavy + β2·L_light + L_global (eqs. 10 to 13).

    α goes with the attention loss: the balanced one is some ten times the paper's squared error, for which α is 0.8.
    The paper's loss is `{alpha: 0.8, attention: mse}`; β1 and β2 are its own. `image` is what L_heavy, L_light and
    L_global are made of (`image_loss`): its scale differs, and α's with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    alpha: float = Field(0.1, ge=0)
    beta_heavy: float = Field(1.0, ge=0)
    beta_light: float = Field(0.3, ge=0)
    attention: Literal["mse", "balanced"] = "balanced"
    image: Literal["mse", "charbonnier", "psnr"] = "mse"


def image_loss(output: Tensor, clean: Tensor, kind: Literal["mse", "charbonnier", "psnr"]) -> Tensor:
    """How far output is from clean, both [B, 3, H, W] in 0…1.

    "mse" is the mean squared error: frames in heavy rain outweigh those in light rain. "charbonnier" is
    mean √((output − clean)² + 10⁻⁶) (Lai et al. 2017), a smooth mean absolute error. "psnr" is the mean over the images
    of ln (mse + 10⁻⁶) (Chen et al. 2021), their PSNR but for its sign and scale: every frame counts alike.
    """
    if kind == "mse":
        return F.mse_loss(output, clean)
    squared = (output - clean).square()
    if kind == "charbonnier":
        return (squared + 1e-6).sqrt().mean()
    return (squared.flatten(1).mean(1) + 1e-6).log().mean()


def attention_loss(attention: Tensor, mask: Tensor, kind: Literal["mse", "balanced"]) -> Tensor:
    """L_att of S+ against the soft mask M of its rain type (eq. 5), both [B, 1, H, W] in 0…1.

    "mse" is mean (S − M)². Rain covers so little of a frame that S = 0 nearly minimises it and the raindrop map dies;
    "balanced" weighs heavy rain up, (S − M)²·(1 + 10 M), and adds half a soft Dice term 1 − 2ΣSM / (ΣS² + ΣM²).
    """
    squared = (attention - mask).square()
    if kind == "mse":
        return squared.mean()
    overlap = 2 * (attention * mask).sum() + 1
    total = attention.square().sum() + mask.square().sum() + 1
    return (squared * (1 + 10 * mask)).mean() + 0.5 * (1 - overlap / total)


def derain_loss(
    prediction: Prediction, clean: Tensor, masks: dict[str, Tensor], config: LossConfig
) -> dict[str, Tensor]:
    """Every term of the loss by name and their weighted sum as "loss".

    clean [B, 3, H, W]; masks by branch name ("streak", "drop", "rain"), each [B, 1, H, W]. All stages of a multi-stage
    network count alike, and so do a peer's other images: eq. 15 sums their final images alone, here each stage also has
    its attention, heavy and light terms, with the masks of the rain that the first stage sees. Terms: global,
    attention, heavy, light.
    """
    zero = clean.new_zeros(())
    terms = {"global": zero, "attention": zero, "heavy": zero, "light": zero}
    for stage in (*prediction.earlier, prediction):
        terms["global"] = terms["global"] + image_loss(stage.image, clean, config.image)
        for rain, branch in stage.branches.items():
            for name, image in (("heavy", branch.heavy), ("light", branch.light)):
                if image is not None:
                    terms[name] = terms[name] + image_loss(image, clean, config.image)
            if branch.attention is not None:
                terms["attention"] = terms["attention"] + attention_loss(
                    branch.attention, masks[rain], config.attention
                )
    terms["loss"] = (
        terms["global"]
        + config.alpha * terms["attention"]
        + config.beta_heavy * terms["heavy"]
        + config.beta_light * terms["light"]
    )
    return terms


def psnr(output: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image of a batch [B, 3, H, W], clamped to 0…1; peak 1."""
    mse = (output.clamp(0, 1) - truth).square().flatten(1).mean(1)
    return -10 * torch.log10(mse.clamp_min(1e-10))
