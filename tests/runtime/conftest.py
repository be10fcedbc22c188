"""A bundle small enough to write in a test: its graph inverts every byte it is given."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from onnx import TensorProto, helper
from pydantic import BaseModel

from derain.runtime.bundle import Bundle
from derain.runtime.manifest import FrameSpec, GraphEntry, ManifestContent, ModelInfo, UnrollInfo
from derain.runtime.pixels import PixelFormat

WIDTH, HEIGHT = 32, 16


def make_spec(tensor: str = "frame", **changes) -> FrameSpec:
    return FrameSpec(**({"tensor": tensor, "width": WIDTH, "height": HEIGHT} | changes))


def make_graph(shape: tuple[int, ...], output: str = "clean") -> bytes:
    """ONNX: uint8 `frame` to `output` = 255 - frame, through float32 as a real graph would."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["value"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["white", "value"], ["inverse"]),
            helper.make_node("Cast", ["inverse"], [output], to=TensorProto.UINT8),
        ],
        "invert",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(output, TensorProto.UINT8, shape)],
        [helper.make_tensor("white", TensorProto.FLOAT, [], [255.0])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def make_description(**changes) -> ManifestContent:
    fields = {
        "derain_version": "0.1.0",
        "model": ModelInfo(name="invert", parameters=0),
        "unroll": UnrollInfo(encoder_steps=1, decoder_steps=1, macs=0, macs_naive=0),
        "input": make_spec("frame"),
        "output": make_spec("clean"),
        "graphs": (GraphEntry(precision="fp32", file="graph.fp32.onnx"),),
    }
    return ManifestContent(**(fields | changes))


@pytest.fixture(name="make_spec")
def make_spec_fixture() -> Callable[..., FrameSpec]:
    return make_spec


@pytest.fixture(name="make_graph")
def make_graph_fixture() -> Callable[..., bytes]:
    return make_graph


@pytest.fixture(name="make_description")
def make_description_fixture() -> Callable[..., ManifestContent]:
    return make_description


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    def make(pixels: str = "bgr8", graph: bytes | None = None) -> Bundle:
        frame, clean = (make_spec(tensor, pixels=PixelFormat(pixels)) for tensor in ("frame", "clean"))
        files = {"weights.safetensors": b"weights", "graph.fp32.onnx": graph or make_graph(frame.shape)}
        return Bundle.write(tmp_path / "bundle", make_description(input=frame, output=clean), files)

    return make


@pytest.fixture
def bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle()


@pytest.fixture(scope="session")
def validate(repository: Path) -> Callable[[BaseModel], None]:
    """Asserts that a report is, once written, as the published schema says."""
    schema = json.loads((repository / "runtime" / "report.schema.json").read_text())
    return lambda report: jsonschema.validate(
        json.loads(report.model_dump_json()), schema, jsonschema.Draft202012Validator
    )


@pytest.fixture
def smooth() -> np.ndarray:
    """BGR gradients that sharing chroma hardly changes, well inside the gamut."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    return np.stack([100 + 20 * x, 110 + 15 * y, 120 + 20 * (1 - x)], axis=-1).round().astype(np.uint8)


@pytest.fixture
def noise() -> list[np.ndarray]:
    """Ten BGR frames that only a lossless path returns unchanged."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(10)]


@pytest.fixture
def folder(tmp_path: Path, noise: list[np.ndarray]) -> Path:
    """The noise as PNGs."""
    path = tmp_path / "frames"
    path.mkdir()
    for index, image in enumerate(noise):
        cv2.imwrite(str(path / f"{index:03d}.png"), image)
    return path


@pytest.fixture
def clip(tmp_path: Path, noise: list[np.ndarray]) -> Path:
    """The noise as a lossless clip at 30 frames/s, written by OpenCV itself."""
    path = tmp_path / "clip.mkv"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 30, (WIDTH, HEIGHT))
    for image in noise:
        writer.write(image)
    writer.release()
    return path
