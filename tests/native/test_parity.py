"""The same bundle on Python's ONNX Runtime and on libderain's OpenVINO gives the same pixels."""

import numpy as np
import pytest

from derain.calibration.calibrate import calibrate
from derain.calibration.ranges import Method
from derain.export import exporter
from derain.export.fp16 import add_fp16
from derain.runtime import engines
from derain.runtime.frames import Frame, from_bgr
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat
from derain.runtime.psnr import psnr

SIZE = 320, 192
SMALL = 160, 96


@pytest.mark.parametrize("pixels", [PixelFormat.BGR8, PixelFormat.NV12])
@pytest.mark.parametrize("model", ["daiam-nano", "daiam-edge"])
def test_both_runtimes_give_the_same_pixels(model, pixels, tmp_path, picture, native, close_enough):
    bundle, _ = exporter.export(f"random:{model}", tmp_path / "bundle", SIZE, pixels)
    stream = native(bundle.path, "openvino")
    with engines.create("onnxruntime", bundle) as engine:
        for seed in range(3):
            frame = from_bgr(picture(seed, *SIZE), bundle.manifest.input)
            expected = engine.infer(frame)
            assert np.mean(expected != frame) > 0.5, "the network changes too little to compare it"
            close_enough(stream.clean(frame), expected)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, picture):
    """The shipped weights in every precision."""
    bundle, _ = exporter.export("daiam-nano", tmp_path_factory.mktemp("calibrated") / "bundle", SMALL)
    clip = [Frame(seed, 0, picture(seed, *SMALL), 0) for seed in range(8)]
    bundle, _ = add_fp16(bundle, [frame.image for frame in clip[:2]], "clip")
    return calibrate(bundle, Precision.INT8, clip, "clip", method=Method.MINMAX, count=8, max_loss=100.0)[0]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_each_precision_is_computed_as_its_graph_says(precision, calibrated, picture, native):
    stream = native(calibrated.path, "openvino", precision)
    noise = np.random.default_rng(0).integers(0, 256, (2, *SMALL[::-1], 3), np.uint8)  # where BF16 shows
    frames = [picture(20, *SMALL), picture(21, *SMALL), *noise]
    with engines.create("onnxruntime", calibrated, precision) as engine:
        expected = np.array([engine.infer(frame) for frame in frames])
    seen = np.array([stream.clean(frame) for frame in frames])
    assert np.mean(expected != np.array(frames)) > 0.5, "the network changes too little to compare it"
    if precision is Precision.INT8:
        assert psnr(seen, expected) >= 45
    else:
        assert np.abs(seen.astype(int) - expected).max() <= 1


def test_a_bundle_with_a_changed_graph_is_refused_in_one_line(tmp_path, native):
    bundle, _ = exporter.export("random:daiam-nano", tmp_path / "bundle", (32, 32))
    with (bundle.path / "graph.fp32.onnx").open("r+b") as graph:
        first = graph.read(1)
        graph.seek(0)
        graph.write(bytes([first[0] ^ 1]))
    with pytest.raises(RuntimeError, match=r"graph\.fp32\.onnx: SHA-256 is .*, the manifest says .*: export it again"):
        native(bundle.path, "openvino")
