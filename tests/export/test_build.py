"""Real engines, built by TensorRT-RTX on the CPU, and what happens where one cannot be built."""

import dataclasses
import signal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from derain.calibration.qdq import activations, layers, quantize
from derain.export import build as build_module
from derain.export.build import BuildOptions, build
from derain.export.exporter import export
from derain.export.fp16 import to_fp16
from derain.export.onnx_graph import OPSET
from derain.runtime.bundle import Bundle
from derain.runtime.cuda import GpuError
from derain.runtime.engines import tensorrt_api
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat
from derain_tests.bundles import with_graph

trt = pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX to build engines with: pip install 'derain[rtx]'")
RTX = tensorrt_api.APIS["tensorrt-rtx"]


@pytest.fixture(scope="module")
def nano(tmp_path_factory) -> Bundle:
    return export("random:daiam-nano", tmp_path_factory.mktemp("nano") / "bundle", (36, 28), steps=2)[0]


@pytest.fixture
def bundle(nano, copied) -> Bundle:
    """A copy that a test may spoil."""
    return copied(nano)


@pytest.mark.parametrize(
    ("model", "steps", "size", "pixels"),
    [
        ("daiam-nano", 2, (64, 48), PixelFormat.BGR8),
        ("daiam-nano", 1, (64, 48), PixelFormat.NV12),
        ("daiam-edge", 1, (64, 48), PixelFormat.NV12),
        ("daiam", 1, (64, 48), PixelFormat.BGR8),
        ("d-daiam", 1, (16, 16), PixelFormat.NV12),
    ],
)
def test_every_network_becomes_an_fp32_an_fp16_and_an_fp8_engine(model, steps, size, pixels, tmp_path):
    """The FP8 graph's ranges are made up: an engine's structure does not depend on them."""
    made, _ = export(f"random:{model}", tmp_path / "b", size, pixels, steps=steps)
    fp32 = onnx.load(made.graph())
    fp8 = quantize(fp32, dict.fromkeys(activations(fp32), 4.0), Precision.FP8, layers(fp32))
    graphs = {Precision.FP16: to_fp16(fp32), Precision.FP8: to_fp16(fp8)}
    for precision, graph in graphs.items():
        made = with_graph(made, graph, precision)
    for precision in (Precision.FP32, *graphs):
        made, entry = build(made, precision, "tensorrt-rtx")
        assert entry.file == f"engine.{precision}.tensorrt-rtx.portable.plan"
        assert (entry.api, entry.api_version, entry.arch) == ("tensorrt-rtx", trt.__version__, "portable")
    loaded = Bundle.load(tmp_path / "b")
    sizes = {engine.precision: loaded.file(engine.file).stat().st_size for engine in loaded.manifest.engines}
    weights = 4 * loaded.manifest.model.parameters
    assert 0.7 * weights < sizes[Precision.FP32] < 1.2 * weights + 4_000_000
    assert sizes[Precision.FP16] < sizes[Precision.FP32] - weights // 4
    assert set(sizes) == {Precision.FP32, Precision.FP16, Precision.FP8}


def test_a_daiam_at_1280x720_is_built_without_a_gpu(tmp_path):
    made, _ = export("random:daiam", tmp_path / "b", (1280, 720))
    made, entry = build(made, Precision.FP32, "tensorrt-rtx")
    assert made.file(entry.file).stat().st_size > 10_000_000


def test_an_engine_for_named_gpus_is_not_the_portable_one_and_stands_beside_it(bundle):
    bundle, portable = build(bundle, Precision.FP32)
    bundle, named = build(bundle, Precision.FP32, architectures=("SM86", "sm89", "sm86"))
    assert named.arch == "sm86+sm89" and named.file == "engine.fp32.tensorrt-rtx.sm86+sm89.plan"
    assert {engine.file for engine in Bundle.load(bundle.path).manifest.engines} == {portable.file, named.file}
    assert bundle.file(named.file).read_bytes() != bundle.file(portable.file).read_bytes()


def test_the_manifest_holds_the_builders_options_and_a_rebuild_takes_the_old_engines_place(bundle):
    bundle, entry = build(bundle, Precision.FP32)
    assert entry.options == {"workspace_mib": None, "tf32": False}
    bundle, again = build(bundle, Precision.FP32, options=BuildOptions(workspace_mib=64, tf32=True))
    (kept,) = Bundle.load(bundle.path).manifest.engines
    assert kept == again and kept.options == {"workspace_mib": 64, "tf32": True}


def test_progress_is_told_from_nought_to_one(bundle):
    told: list[tuple[str, float]] = []
    build(bundle, Precision.FP32, progress=lambda phase, share: told.append((phase, share)))
    assert told and all(phase and 0 < share <= 1 for phase, share in told)


def test_ctrl_c_ends_a_build_and_leaves_the_bundle_as_it_was(bundle):
    """Raised inside TensorRT's callback it would be swallowed, and the build go on."""
    before = signal.getsignal(signal.SIGINT)
    told: list[float] = []

    def interrupt(phase: str, share: float) -> None:
        told.append(share)
        if len(told) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(bundle, Precision.FP32, progress=interrupt)
    assert Bundle.load(bundle.path).manifest.engines == ()
    assert signal.getsignal(signal.SIGINT) is before
    everything: list[float] = []
    build(bundle, Precision.FP32, progress=lambda phase, share: everything.append(share))
    assert len(told) < len(everything)


def test_what_cannot_be_built_for_is_refused_by_name_and_leaves_the_bundle_as_it_was(bundle):
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    for arguments, message in (
        ({"architectures": ("sm42",)}, r"architecture 'sm42': TensorRT-RTX [\d.]+ builds for .*sm86"),
        ({"api": "tensorrt-xl"}, "API 'tensorrt-xl' is unknown, known are: tensorrt, tensorrt-rtx"),
        ({"precision": Precision.FP8}, r"no fp8 graph, the bundle has fp32: .*`derain calibrate"),
    ):
        with pytest.raises(ValueError, match=message):
            build(bundle, **({"precision": Precision.FP32} | arguments))
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before


def test_an_api_that_is_not_there_is_told_with_its_extra(bundle, monkeypatch):
    monkeypatch.setattr(tensorrt_api, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"^tensorrt is not installed: pip install 'derain\[tensorrt\]'$"):
        build(bundle, Precision.FP32, "tensorrt")
    with pytest.raises(ModuleNotFoundError, match=r"no TensorRT here: pip install 'derain\[rtx\]'"):
        build(bundle, Precision.FP32)


def byte_graph(nodes: list[onnx.NodeProto], **constants) -> onnx.ModelProto:
    """`frame` to `clean`, uint8 [1, 28, 36, 3] both."""
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, (1, 28, 36, 3)) for name in ("frame", "clean")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def test_an_operator_that_tensorrt_lacks_is_refused_by_the_nodes_name(bundle):
    """Det, of all operators, is in no release."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["x"], name="x", to=TensorProto.FLOAT),
        helper.make_node("Det", ["square"], ["d"], name="the_odd_one"),
        helper.make_node("Mul", ["x", "d"], ["y"], name="y"),
        helper.make_node("Cast", ["y"], ["clean"], name="clean", to=TensorProto.UINT8),
    ]
    spoilt = with_graph(bundle, byte_graph(nodes, square=np.eye(2, dtype=np.float32)))
    with pytest.raises(ValueError, match=r"graph\.fp32\.onnx: tensorrt-rtx [\d.]+ refuses .*Det") as caught:
        build(spoilt, Precision.FP32)
    assert "\n" not in str(caught.value)
    assert "the_odd_one" in str(caught.value)
    assert not list(bundle.path.glob("*.plan"))


def test_a_graph_that_parses_but_cannot_be_built_gives_tensorrts_reason(bundle):
    """INT8 convolutions are beyond TensorRT-RTX: the parser takes them, the builder does not."""
    one = np.float32(1)
    nodes = [
        helper.make_node("Cast", ["frame"], ["x"], name="x", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x"], ["t"], name="t", perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["t", "one", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["d"], name="d"),
        helper.make_node("DequantizeLinear", ["w", "one", "zero"], ["wd"], name="wd"),
        helper.make_node("Conv", ["d", "wd"], ["c"], name="c", pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["c"], ["u"], name="u", perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["u"], ["clean"], name="clean", to=TensorProto.UINT8),
    ]
    weight = np.random.default_rng(0).integers(-9, 9, (3, 3, 3, 3), np.int8)
    spoilt = with_graph(bundle, byte_graph(nodes, one=one, zero=np.int8(0), w=weight))
    with pytest.raises(ValueError, match=r"graph\.fp32\.onnx: tensorrt-rtx [\d.]+ cannot build it for portable: .{20}"):
        build(spoilt, Precision.FP32)
    assert not list(bundle.path.glob("*.plan"))


@pytest.fixture
def timing(monkeypatch):
    """TensorRT-RTX taken for an API with a timing cache: its calls are there, deprecated, and do nothing."""
    api = dataclasses.replace(RTX, timing_cache=True)
    monkeypatch.setitem(tensorrt_api.APIS, "tensorrt-rtx", api)
    return api


def test_kernel_times_are_kept_beside_the_bundle_one_file_for_each_way_to_build(bundle, timing):
    folder = bundle.path.with_name("bundle.timing")
    bundle, _ = build(bundle, Precision.FP32)
    (first,) = folder.iterdir()
    bundle, _ = build(bundle, Precision.FP32)
    assert list(folder.iterdir()) == [first]
    bundle, _ = build(bundle, Precision.FP32, options=BuildOptions(workspace_mib=64))
    bundle, _ = build(bundle, Precision.FP32, architectures=("sm86",))
    assert len(list(folder.iterdir())) == 3
    model = onnx.load(bundle.graph())
    model.graph.doc_string = "another graph"
    build(with_graph(bundle, model), Precision.FP32)
    assert len(list(folder.iterdir())) == 4


def test_gpus_of_one_architecture_do_not_share_kernel_times(bundle, monkeypatch):
    api = dataclasses.replace(RTX, timing_cache=True, ahead_of_time=False)
    monkeypatch.setitem(tensorrt_api.APIS, "tensorrt-rtx", api)
    monkeypatch.setattr(build_module.cuda, "architecture", lambda: "sm86")
    for name in ("NVIDIA A10", "NVIDIA GeForce RTX 3090"):
        monkeypatch.setattr(build_module.cuda, "gpu_name", lambda name=name: name)
        bundle, _ = build(bundle, Precision.FP32)
    assert len(list(bundle.path.with_name("bundle.timing").iterdir())) == 2


def test_an_api_without_a_timing_cache_leaves_none(bundle):
    build(bundle, Precision.FP32)
    assert not bundle.path.with_name("bundle.timing").exists()


def test_a_timing_cache_from_elsewhere_is_told_with_its_name(bundle, timing, monkeypatch):
    class Config:
        def create_timing_cache(self, blob):
            return object()

        def set_timing_cache(self, cache, ignore_mismatch):
            assert ignore_mismatch is False
            return False

    monkeypatch.setattr(build_module, "_configure", lambda *_: Config())
    with pytest.raises(ValueError, match=r"bundle\.timing/[0-9a-f]{24}\.cache: timings of another GPU .*: remove it"):
        build(bundle, Precision.FP32)


def test_an_api_that_builds_on_the_gpu_says_that_there_is_none(bundle, monkeypatch):
    from derain.runtime import cuda

    api = dataclasses.replace(RTX, ahead_of_time=False)
    monkeypatch.setitem(tensorrt_api.APIS, "tensorrt-rtx", api)
    with pytest.raises(ValueError, match="builds for the GPU it runs on, not for sm86: leave --arch out"):
        build(bundle, Precision.FP32, architectures=("sm86",))

    def refuse() -> str:
        raise GpuError("no GPU that CUDA can use")

    monkeypatch.setattr(cuda, "architecture", refuse)
    with pytest.raises(OSError, match="no GPU"):
        build(bundle, Precision.FP32)
