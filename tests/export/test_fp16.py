"""FP16 graphs: do they round, do they overflow, and do the islands mend both?"""

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from derain.export.exporter import export
from derain.export.fp16 import ensure_fp16_graph, make_fp16, to_fp16
from derain.export.onnx_graph import OPSET
from derain.export.probe import Runner, seeded_frame
from derain.export.verify import verify
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import FrameSpec, Precision
from derain.runtime.pixels import PixelFormat
from derain.runtime.psnr import psnr

SPEC = FrameSpec(tensor="frame", width=16, height=16)


def chain(*steps: tuple[str, float]) -> onnx.ModelProto:
    """Bytes through a chain of operators with a constant each, and back to bytes."""
    nodes = [helper.make_node("Cast", ["frame"], ["x0"], name="x0", to=TensorProto.FLOAT)]
    constants = []
    for index, (kind, number) in enumerate(steps):
        constants.append(numpy_helper.from_array(np.float32(number), f"c{index}"))
        nodes.append(helper.make_node(kind, [f"x{index}", f"c{index}"], [f"x{index + 1}"], name=f"x{index + 1}"))
    nodes.append(helper.make_node("Cast", [f"x{len(steps)}"], ["clean"], name="clean", to=TensorProto.UINT8))
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, SPEC.shape) for name in ("frame", "clean")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


@pytest.fixture(scope="module")
def lively_bundle(tmp_path_factory, lively_weights):
    def make(name: str, size: tuple[int, int], pixels: PixelFormat = PixelFormat.BGR8, **options) -> Bundle:
        weights = lively_weights(name, **options)
        return export(str(weights), tmp_path_factory.mktemp(name) / "bundle", size, pixels)[0]

    return make


@pytest.fixture(scope="module")
def nano(lively_bundle) -> Bundle:
    return lively_bundle("daiam-nano", (36, 28), encoder_steps=2, decoder_steps=2)


def test_an_fp16_graph_is_rounded_where_it_runs_here():
    """2048 + 1 is no half float, so one grey level is lost: ONNX Runtime's own FP16 would keep it."""
    ones = np.ones(SPEC.image_shape, np.uint8)
    model = chain(("Add", 2048.0), ("Sub", 2048.0))
    assert Runner(model).image(ones).max() == 1
    assert Runner(to_fp16(model)).image(ones).max() == 0


def test_what_overflows_stays_in_fp32_and_the_rest_does_not():
    model = chain(("Mul", 0.5), ("Mul", 1e6), ("Mul", 2e-6), ("Add", 1.0))
    frame = np.full(SPEC.image_shape, 100, np.uint8)
    assert Runner(to_fp16(model)).image(frame)[0, 0, 0] != 101
    graph, report = make_fp16(model, [frame])
    assert report.overflowing == ("x2", "x3")
    assert report.lossy == () and report.largest == pytest.approx(5e7)
    assert Runner(graph).image(frame)[0, 0, 0] == 101
    crossings = [(node.name, node.attribute[0].i) for node in graph.graph.node if node.op_type == "Cast"]
    assert crossings == [
        ("x0", TensorProto.FLOAT16),
        ("x1_fp32", TensorProto.FLOAT),
        ("x3_fp16", TensorProto.FLOAT16),
        ("clean", TensorProto.UINT8),
    ]


def test_a_weight_beyond_fp16_keeps_its_node_in_fp32():
    _, report = make_fp16(chain(("Div", 1e5), ("Mul", 1e5), ("Add", 3.0)), [np.full(SPEC.image_shape, 9, np.uint8)])
    assert report.overflowing == ("x1", "x2")


def test_what_costs_too_much_by_rounding_is_found_by_measuring_it():
    frame = seeded_frame(SPEC, 0)
    model = chain(("Mul", 0.25), ("Add", 4096.0), ("Sub", 4096.0), ("Mul", 4.0))
    graph, report = make_fp16(model, [frame], target=50)
    assert report.overflowing == () and {"x2", "x3"} <= set(report.lossy) and "clean" not in report.lossy
    assert report.psnr_vs_fp32 >= 50
    assert psnr([Runner(graph).image(frame)], [Runner(model).image(frame)]) == report.psnr_vs_fp32
    assert Runner(to_fp16(model)).image(frame).tolist() != Runner(model).image(frame).tolist()


def test_the_worst_frame_is_the_one_that_must_be_near():
    """One of sixteen frames is 48 dB from FP32's, all bytes together are 60."""
    model = chain(("Mul", 0.25), ("Add", 1024.0), ("Sub", 1024.0), ("Mul", 4.0))
    even = np.full(SPEC.image_shape, 8, np.uint8)
    odd = even.copy()
    odd[:] = 9
    plain = Runner(to_fp16(model))
    frames = [even] * 15 + [odd]
    assert psnr(plain.image(odd), odd) < 50
    assert psnr([plain.image(frame) for frame in frames], frames) > 58
    _, report = make_fp16(model, frames)
    assert report.lossy and report.psnr_worst >= 53


def test_a_byte_far_from_fp32s_is_mended_however_high_the_psnr():
    model = chain(("Mul", 0.25), ("Add", 8192.0), ("Sub", 8192.0), ("Mul", 4.0))
    frame = np.zeros(SPEC.image_shape, np.uint8)
    frame[0, 0, 0] = 12
    assert psnr(Runner(to_fp16(model)).image(frame), frame) > 53
    _, report = make_fp16(model, [frame])
    assert report.lossy and report.max_abs_diff <= 4


def test_a_network_that_is_not_finite_in_fp32_is_refused():
    with pytest.raises(ValueError, match="'x1' is not finite in FP32"):
        make_fp16(chain(("Mul", np.inf)), [np.ones(SPEC.image_shape, np.uint8)])


@pytest.mark.parametrize("pixels", [PixelFormat.NV12])
def test_a_recurrent_network_in_fp16_stays_near_itself(pixels, lively_bundle):
    bundle = lively_bundle("daiam-nano", (36, 28), pixels, encoder_steps=2, decoder_steps=2)
    bundle = ensure_fp16_graph(bundle)
    results = {result.precision: result for result in verify(bundle, seed=5)}
    assert results[Precision.FP16].passed and results[Precision.FP16].pytorch_to_graph.psnr >= 50


def test_an_fp16_graph_keeps_bytes_at_its_edge_and_half_floats_inside(nano):
    fp32 = onnx.load(nano.graph())
    graph = onnx.load(ensure_fp16_graph(nano).graph(Precision.FP16))
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.UINT8
    inside = {value.type.tensor_type.elem_type for value in graph.graph.value_info}
    assert TensorProto.FLOAT16 in inside and TensorProto.FLOAT not in inside
    assert len(graph.graph.node) == len(fp32.graph.node)
    assert len(graph.SerializeToString()) < 0.7 * len(fp32.SerializeToString())


def test_the_fp16_graph_is_made_once_and_its_quality_recorded(nano):
    first = ensure_fp16_graph(nano)
    assert ensure_fp16_graph(first) is first
    (quality,) = Bundle.load(first.path).manifest.quality
    assert (quality.frames, quality.precision) == ("seeded", Precision.FP16) and quality.psnr_vs_fp32 > 50


def test_fp16_holds_50_db_on_real_rain(lively_bundle, data_root):
    images = [cv2.imread(str(file)) for file in sorted((data_root / "rain100" / "light").iterdir())[:40:10]]
    frames = [image[:96, :128].copy() for image in images]
    bundle = lively_bundle("daiam-edge", (128, 96))
    _, report = make_fp16(onnx.load(bundle.graph()), frames)
    assert report.psnr_vs_fp32 >= 50
