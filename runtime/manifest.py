"""What a bundle's `manifest.json` says, as types that check it."""

import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from derain.runtime.pixels import ColorMatrix, ColorRange, PixelFormat

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=65535)]
"""Of a frame, in pixels: its size in bytes is far from any overflow, in C++ too."""


class Precision(StrEnum):
    """The arithmetic written into a graph."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrameSpec(_Checked):
    """A frame at the graph's edge: the tensor's name and the camera bytes in it. bgr8 and rgb8 ignore the colour keys.

    The default colour, BT.601 in limited range, is what USB cameras and OpenCV mean by YCbCr.
    """

    tensor: str
    width: Side
    height: Side
    pixels: PixelFormat = PixelFormat.BGR8
    matrix: ColorMatrix = ColorMatrix.BT601
    range: ColorRange = ColorRange.LIMITED

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape, with the leading 1."""
        return self.pixels.frame_shape(self.width, self.height)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one frame's bytes on the host: the tensor's without the leading 1."""
        return self.shape[1:]

    @model_validator(mode="after")
    def _has_a_shape(self) -> Self:
        self.pixels.frame_shape(self.width, self.height)
        return self


class ModelInfo(_Checked):
    """What was exported: `config` rebuilds the model from the registry, `weights` is the safetensors file beside it."""

    name: str
    parameters: Count
    weights: FileName = "weights.safetensors"
    config: dict[str, Any] = {}

    @field_validator("config")
    @classmethod
    def _finite(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False)  # Python reads NaN, which is no JSON and which C++ does not
        except ValueError as error:
            raise ValueError("a number in it is NaN or infinite, expected finite ones") from error
        return value


class UnrollInfo(_Checked):
    """The recurrent steps, and one frame's multiply-accumulates in the graph and before the unroller."""

    encoder_steps: Positive
    decoder_steps: Positive
    macs: Count
    macs_naive: Count


class GraphEntry(_Checked):
    """An ONNX graph and the arithmetic written into it."""

    precision: Precision
    file: FileName


class EngineEntry(_Checked):
    """A built engine: for which API and version, for which GPU architecture, with which builder options."""

    file: FileName
    precision: Precision
    api: str
    api_version: str
    arch: str
    options: dict[str, Any] = {}


class Quality(_Checked):
    """Quality of one precision's output on named frames; None: not measured, or infinite (equal frames).

    `psnr_rgb` (dB) and `ssim_rgb` are means over the frames against the clean ones, in 8-bit RGB. `psnr_vs_fp32` is the
    PSNR in dB of the squared error pooled over all frames against the FP32 graph, of RGB for INT8 and FP8 and of the
    camera's own bytes for FP16; `max_abs_diff` the largest such difference, in grey levels.
    """

    frames: str
    precision: Precision
    psnr_rgb: FiniteFloat | None = None
    ssim_rgb: FiniteFloat | None = None
    psnr_vs_fp32: FiniteFloat | None = None
    max_abs_diff: Count | None = None


class FileEntry(_Checked):
    """The identity of one file."""

    sha256: Sha256
    bytes: Count


class ManifestContent(_Checked):
    """The manifest but for its file list, which `Bundle.write` makes."""

    schema_version: Literal[1] = 1
    derain_version: str
    model: ModelInfo
    unroll: UnrollInfo
    input: FrameSpec
    output: FrameSpec
    graphs: tuple[GraphEntry, ...]
    engines: tuple[EngineEntry, ...] = ()
    quality: tuple[Quality, ...] = ()

    @property
    def named_files(self) -> set[str]:
        """Every file this names."""
        return {self.model.weights, *(graph.file for graph in self.graphs), *(engine.file for engine in self.engines)}

    @model_validator(mode="after")
    def _one_graph_a_precision(self) -> Self:
        precisions = [graph.precision for graph in self.graphs]
        if len(set(precisions)) != len(precisions):
            raise ValueError(f"graphs: one graph a precision expected, got {', '.join(precisions)}")
        return self


class Manifest(ManifestContent):
    """`manifest.json`, whole."""

    files: dict[FileName, FileEntry]

    @model_validator(mode="after")
    def _names_and_files_agree(self) -> Self:
        if missing := sorted(self.named_files - self.files.keys()):
            raise ValueError(f"files: no entry for {missing[0]}, which the manifest names")
        if unnamed := sorted(self.files.keys() - self.named_files):
            raise ValueError(f"files: {unnamed[0]} is listed, but no model, graph or engine names it")
        return self
