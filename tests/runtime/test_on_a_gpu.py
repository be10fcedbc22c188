"""What only a GPU shows: the real TensorRT, with and without a CUDA graph, and ONNX Runtime's CUDA against its CPU.

`pytest tests/runtime/test_on_a_gpu.py` is the whole check of the engines on a machine with a GPU.
"""

from itertools import islice

import pytest

from derain.calibration.calibrate import calibrate
from derain.calibration.ranges import Method
from derain.export.build import build
from derain.export.exporter import export
from derain.export.fp16 import ensure_fp16_graph
from derain.export.verify import verify
from derain.runtime import cuda, engines
from derain.runtime.engines.tensorrt import FIRST_WITH_FP8
from derain.runtime.manifest import Precision
from derain.runtime.sources import open_source
from derain_tests.engines import faults

ENGINES = {
    "onnxruntime-cuda": ("onnxruntime-cuda", {}),
    "tensorrt-rtx": ("tensorrt-rtx", {"graph": True}),
    "tensorrt-rtx without a graph": ("tensorrt-rtx", {"graph": False}),
    "tensorrt": ("tensorrt", {"graph": True}),
    "tensorrt without a graph": ("tensorrt", {"graph": False}),
}
QUANTISED = (Precision.INT8, Precision.FP8)


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if reason := cuda.missing() or cuda.refusal():
        pytest.skip(f"needs a GPU: {reason}")


def has(api: str, precision: Precision) -> bool:
    """Whether this API and this GPU compute in it: TensorRT-RTX has no INT8 convolutions."""
    if api == "tensorrt-rtx" and precision is Precision.INT8:
        return False
    return precision is not Precision.FP8 or int(cuda.architecture().removeprefix("sm")) >= FIRST_WITH_FP8


@pytest.fixture(scope="module")
def refused():
    """Why TensorRT built no engine, by API and precision."""
    return {}


@pytest.fixture(scope="module")
def bundle(gpu, refused, tmp_path_factory):
    """The shipped network with a graph of every precision, and their engines for this GPU."""
    made, _ = export("daiam-nano", tmp_path_factory.mktemp("gpu") / "b", (320, 180))
    made = ensure_fp16_graph(made)
    for precision in QUANTISED:
        with open_source("test://rain?frames=8", made.manifest.input) as frames:
            made, _ = calibrate(made, precision, frames, "rain", None, Method.PERCENTILE, 8, 100.0)
    for api in ("tensorrt", "tensorrt-rtx"):
        for precision in engines.precisions("onnxruntime", made):
            if engines.available()[api] is None and has(api, precision):
                try:
                    made, _ = build(made, precision, api)
                except ValueError as error:
                    refused[api, precision] = str(error)
    return made


def test_tensorrt_builds_every_precision_that_this_gpu_has(bundle, refused):
    assert refused == {}


@pytest.fixture(scope="module")
def frames(bundle):
    """Three, and the first again, which must not be answered with another's result."""
    with open_source("test://rain?frames=9", bundle.manifest.input) as stream:
        pictures = [frame.image.copy() for frame in islice(stream, 0, None, 4)]
    return [*pictures, pictures[0]]


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_gives_what_the_cpu_gives_in_fp32_within_its_precisions_bounds(
    engine, precision, bundle, refused, frames, caplog
):
    name, options = ENGINES[engine]
    if reason := engines.available()[name] or refused.get((name, precision)):
        pytest.skip(reason)
    if not has(name, precision):
        pytest.skip(f"{name} has no {precision} on this GPU")
    if name == "onnxruntime-cuda" and precision is Precision.FP8:
        pytest.skip("ONNX Runtime has no FP8 convolutions for CUDA")
    assert faults(name, bundle, precision, frames, **options) == []
    assert "cannot be captured" not in caplog.text


@pytest.mark.parametrize("engine", ["onnxruntime-cuda", "tensorrt-rtx", "tensorrt"])
def test_verify_passes_every_precision_that_the_engine_has(engine, bundle, frames):
    if reason := engines.available()[engine]:
        pytest.skip(reason)
    if engine == "onnxruntime-cuda":
        bundle = ensure_fp16_graph(export("daiam-nano", bundle.path.with_name("no fp8"), (320, 180))[0])
    results = verify(bundle, engine, frames=frames)
    assert {result.precision for result in results} >= {Precision.FP32, Precision.FP16}
    assert all(result.passed for result in results), results


def test_the_gpus_own_clock_times_each_frame(bundle, frames):
    if reason := engines.available()["tensorrt-rtx"]:
        pytest.skip(reason)
    with engines.create("tensorrt-rtx", bundle, Precision.FP16) as runner:
        runner.warm_up()
        runner.infer(frames[0])
        assert runner.device_ns is not None
        assert 0.2 < runner.device_milliseconds() / (runner.device_ns / 1e6) < 5
