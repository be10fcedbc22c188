"""The same bundle on Python's ONNX Runtime and on libderain's OpenVINO gives the same pixels."""

import numpy as np
import pytest

from derain.export import exporter
from derain.runtime import engines
from derain.runtime.frames import from_bgr
from derain.runtime.pixels import PixelFormat

SIZE = 320, 192


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


def test_a_bundle_with_a_changed_graph_is_refused_in_one_line(tmp_path, native):
    bundle, _ = exporter.export("random:daiam-nano", tmp_path / "bundle", (32, 32))
    with (bundle.path / "graph.fp32.onnx").open("r+b") as graph:
        first = graph.read(1)
        graph.seek(0)
        graph.write(bytes([first[0] ^ 1]))
    with pytest.raises(RuntimeError, match=r"graph\.fp32\.onnx: SHA-256 is .*, the manifest says .*: export it again"):
        native(bundle.path, "openvino")
