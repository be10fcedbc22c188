"""The camera's own bytes as the graph's input and output: colour conversion, scaling, padding and the crop back.

TensorRT refuses a Transpose or Slice on uint8, so bytes become floats first and floats become bytes last.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.runtime.manifest import FrameSpec, ModelInfo
from derain.runtime.pixels import PixelFormat, rgb_to_yuv
from derain.training.models import size_multiple

CHROMA_BLOCK = {PixelFormat.NV12: (2, 2), PixelFormat.UYVY: (1, 2)}
"""Luma rows and columns that share one chroma sample."""


class FrameDecoder(nn.Module):
    """uint8 camera bytes in `spec`'s shape give RGB [1, 3, H, W] in 0…1.

    Chroma is repeated over its block, so that `FrameEncoder`, which averages the block, gives it back unchanged where
    no pixel of the block leaves RGB's range.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, spec: FrameSpec) -> None:
        super().__init__()
        self.spec = spec
        if spec.pixels in CHROMA_BLOCK:
            matrix, offset = (torch.from_numpy(a) for a in rgb_to_yuv(spec.matrix, spec.range))
            inverse = torch.linalg.inv(matrix)
            self.register_buffer("weight", (inverse / 255).float().reshape(3, 3, 1, 1))
            self.register_buffer("bias", (-inverse @ offset / 255).float())

    def forward(self, frame: Tensor) -> Tensor:
        """Decode one frame."""
        spec, x = self.spec, frame.float()
        if spec.pixels is PixelFormat.RGB8:
            return x.permute(0, 3, 1, 2) / 255
        if spec.pixels is PixelFormat.BGR8:
            return x.permute(0, 3, 1, 2).flip(1) / 255
        rows, columns = CHROMA_BLOCK[spec.pixels]
        if spec.pixels is PixelFormat.NV12:
            luma = x[:, : spec.height].unsqueeze(1)
            chroma = x[:, spec.height :].reshape(1, spec.height // 2, spec.width // 2, 2)
        else:
            luma = x[..., 1].unsqueeze(1)
            chroma = x[..., 0].reshape(1, spec.height, spec.width // 2, 2)
        chroma = F.interpolate(chroma.permute(0, 3, 1, 2), scale_factor=(rows, columns), mode="nearest")
        return F.conv2d(torch.cat([luma, chroma], dim=1), self.weight, self.bias).clamp(0, 1)


class FrameEncoder(nn.Module):
    """RGB [1, 3, H, W], clamped to 0…1, gives uint8 camera bytes in `spec`'s shape, rounded to nearest."""

    weight: Tensor
    bias: Tensor

    def __init__(self, spec: FrameSpec) -> None:
        super().__init__()
        self.spec = spec
        if spec.pixels in CHROMA_BLOCK:
            matrix, offset = (torch.from_numpy(a) for a in rgb_to_yuv(spec.matrix, spec.range))
            self.register_buffer("weight", (matrix * 255).float().reshape(3, 3, 1, 1))
            self.register_buffer("bias", offset.float())

    def forward(self, image: Tensor) -> Tensor:
        """Encode one image."""
        spec, x = self.spec, image.clamp(0, 1)
        if spec.pixels is PixelFormat.RGB8:
            return _to_bytes((x * 255).permute(0, 2, 3, 1))
        if spec.pixels is PixelFormat.BGR8:
            return _to_bytes((x * 255).flip(1).permute(0, 2, 3, 1))
        x = F.conv2d(x, self.weight, self.bias).clamp(0, 255)  # full-range chroma reaches 255.5
        luma, chroma = x[:, 0], F.avg_pool2d(x[:, 1:], CHROMA_BLOCK[spec.pixels]).permute(0, 2, 3, 1)
        if spec.pixels is PixelFormat.NV12:
            return _to_bytes(torch.cat([luma, chroma.reshape(1, spec.height // 2, spec.width)], dim=1))
        return _to_bytes(torch.stack([chroma.reshape(1, spec.height, spec.width), luma], dim=-1))


class CameraModel(nn.Module):
    """A network between two cameras' worth of bytes: decode, pad to the network's multiple, derain, crop, encode.

    A `downscale` n above 1 shows the network the means ↓x over blocks of n×n pixels, at 1/n² of its arithmetic. What it
    changes there is enlarged and added to the frame, x + ↑(f(↓x) − ↓x), which so keeps its own detail.
    """

    def __init__(self, network: nn.Module, frame: FrameSpec, clean: FrameSpec, downscale: int = 1) -> None:
        super().__init__()
        self.camera_decode = FrameDecoder(frame)  # names that begin with CAMERA are not the network's
        self.network = network
        self.camera_encode = FrameEncoder(clean)
        self.downscale = downscale
        multiple = size_multiple(network) * downscale
        self.height, self.width = frame.height, frame.width
        self.padding = (0, -frame.width % multiple, 0, -frame.height % multiple)

    def forward(self, frame: Tensor) -> Tensor:
        """uint8 `frame` in, uint8 `clean` out, shapes as in the two specs."""
        rainy = self.camera_decode(frame)
        if any(self.padding):
            rainy = F.pad(rainy, self.padding, mode="replicate")
        image = self._derain(rainy)
        if any(self.padding):
            image = image[:, :, : self.height, : self.width]
        return self.camera_encode(image)  # type: ignore[no-any-return]

    def _derain(self, rainy: Tensor) -> Tensor:
        if self.downscale == 1:
            return self.network(rainy)[0].image  # type: ignore[no-any-return]
        small = F.avg_pool2d(rainy, self.downscale)
        change = self.network(small)[0].image - small
        return rainy + F.interpolate(change, scale_factor=self.downscale, mode="bilinear")


def downscale_of(model: ModelInfo) -> int:
    """By how much a bundle's network sees the frames smaller."""
    return int(model.config.get("downscale", 1))


def _to_bytes(values: Tensor) -> Tensor:
    return values.round().to(torch.uint8)
