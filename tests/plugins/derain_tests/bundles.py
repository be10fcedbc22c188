"""Lively networks and their weights, bundles to spoil, and a bundle small enough for every test: it inverts."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from derain.runtime.bundle import Bundle
from derain.runtime.manifest import FrameSpec, GraphEntry, ManifestContent, ModelInfo, Precision, UnrollInfo
from derain.runtime.pixels import PixelFormat
from derain_tests.pictures import HEIGHT, WIDTH

if TYPE_CHECKING:
    from onnx import ModelProto


@pytest.fixture(scope="session")
def lively() -> Callable[..., object]:
    """Gives a network weights that keep every signal alive, so that no mistake drowns in default initialisation."""
    import torch
    from torch import nn

    def enliven(network: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    fan_in = module.weight[0].numel()
                    module.weight.normal_(0, (1.5 / fan_in) ** 0.5, generator=generator)
                    if module.bias is not None:
                        module.bias.uniform_(-0.3, 0.3, generator=generator)
        return network.eval()

    return enliven


@pytest.fixture(scope="session")
def lively_weights(tmp_path_factory: pytest.TempPathFactory, lively: Callable[..., object]) -> Callable[..., Path]:
    """Writes the weights of a lively network by its name and options: FP32, unless `half`."""

    def write(name: str, half: bool = False, **options: object) -> Path:
        import torch

        from derain.training.models import build
        from derain.training.models.weights import save_weights

        path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        save_weights(path, lively(build(name, **options)), name, options, torch.float16 if half else torch.float32)
        return path

    return write


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Bundle], Bundle]:
    """Copies a bundle that several tests share, for one that spoils it."""

    def copy(bundle: Bundle) -> Bundle:
        files = {name: bundle.file(name) for name in bundle.manifest.files}
        return Bundle.write(tmp_path / "bundle", bundle.manifest, files)

    return copy


def with_graph(bundle: Bundle, model: "ModelProto", precision: Precision = Precision.FP32) -> Bundle:
    """The bundle with a graph in the place of the one it had in that precision, and with the right hashes."""
    entry = GraphEntry(precision=precision, file=f"graph.{precision}.onnx")
    return bundle.add({entry.file: model.SerializeToString()}, graphs=[entry])


def scaled(model: "ModelProto", name: str, factor: float) -> None:
    """One weight of a graph times a factor, in its place."""
    from onnx import numpy_helper

    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((value * factor).astype(value.dtype), name))


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., bytes]:
    """ONNX: uint8 `frame` to `output` = 255 - frame, through float32 as a real graph would."""

    def make(shape: tuple[int, ...], output: str = "clean") -> bytes:
        from onnx import TensorProto, helper

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

    return make


@pytest.fixture(scope="session")
def make_description() -> Callable[..., ManifestContent]:
    """The manifest of a bundle whose graph inverts every byte of frames of WIDTH by HEIGHT."""

    def make(**changes: object) -> ManifestContent:
        fields = {
            "derain_version": "0.1.0",
            "model": ModelInfo(name="invert", parameters=0),
            "unroll": UnrollInfo(encoder_steps=1, decoder_steps=1, macs=0, macs_naive=0),
            "input": FrameSpec(tensor="frame", width=WIDTH, height=HEIGHT),
            "output": FrameSpec(tensor="clean", width=WIDTH, height=HEIGHT),
            "graphs": (GraphEntry(precision=Precision.FP32, file="graph.fp32.onnx"),),
        }
        return ManifestContent(**(fields | changes))

    return make


@pytest.fixture
def make_bundle(
    tmp_path: Path, make_graph: Callable[..., bytes], make_description: Callable[..., ManifestContent]
) -> Callable[..., Bundle]:
    """Writes a bundle small enough for every test: one graph, which inverts unless given, in each precision."""

    def make(pixels: str = "bgr8", graph: bytes | None = None, precisions: Iterable[str] = ("fp32",)) -> Bundle:
        plain = make_description()
        frame, clean = (spec.model_copy(update={"pixels": PixelFormat(pixels)}) for spec in (plain.input, plain.output))
        graphs = tuple(GraphEntry(precision=Precision(name), file=f"graph.{name}.onnx") for name in precisions)
        files = {entry.file: graph or make_graph(frame.shape) for entry in graphs}
        description = make_description(input=frame, output=clean, graphs=graphs)
        return Bundle.write(tmp_path / "bundle", description, {"weights.safetensors": b"weights"} | files)

    return make


@pytest.fixture
def inverting(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle whose graph inverts every byte of BGR frames."""
    return make_bundle()


@pytest.fixture(scope="session")
def validate(repository: Path) -> Callable[[object], None]:
    """Asserts that a report is as the published schema says: its plain values, or the model they are written from."""
    import jsonschema

    schema = json.loads((repository / "runtime" / "report.schema.json").read_text())

    def check(report: object) -> None:
        plain = json.loads(report.model_dump_json()) if hasattr(report, "model_dump_json") else report
        jsonschema.validate(plain, schema, jsonschema.Draft202012Validator)

    return check
