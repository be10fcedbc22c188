"""The TensorRT engine where there is no GPU: which engine it takes, which it refuses, and the frame's way on a fake."""

from types import SimpleNamespace

import numpy as np
import pytest

from derain.runtime import cuda, engines
from derain.runtime.bench import bench
from derain.runtime.bench_page import page
from derain.runtime.bundle import Bundle
from derain.runtime.engines import tensorrt_api
from derain.runtime.manifest import EngineEntry, Precision
from derain_tests.fake_tensorrt import VERSION, FakeGpu, FakeTensorRT


@pytest.fixture
def with_engine(bundle):
    def add(**changes) -> Bundle:
        entry = {"precision": Precision.FP16, "api": "tensorrt-rtx", "api_version": VERSION, "arch": "portable"}
        entry |= changes
        name = f"engine.{entry['precision']}.{entry['api']}.{entry['arch']}.plan"
        return bundle.add({name: b"a plan"}, engines=[EngineEntry(file=name, **entry)])

    return add


@pytest.fixture
def fake(monkeypatch):
    """TensorRT-RTX and a GPU of our own making."""
    gpu = FakeGpu()

    def use(shape: tuple[int, ...], **facts) -> FakeGpu:
        trt = FakeTensorRT(gpu, shape, **facts)
        monkeypatch.setattr(tensorrt_api.Api, "load", lambda api: trt)
        monkeypatch.setattr(tensorrt_api.Api, "installed", True)
        for module in (tensorrt_api, engines.tensorrt):
            monkeypatch.setattr(module, "logger", lambda api: SimpleNamespace(errors=["the reason"]))
        monkeypatch.setattr(engines.tensorrt.TensorRTRTXEngine, "missing", classmethod(lambda cls: None))
        monkeypatch.setattr(cuda, "open_cuda", lambda: gpu)
        return gpu

    return use


def create(bundle: Bundle, precision: Precision = Precision.FP16, **options):
    return engines.create("tensorrt-rtx", bundle, precision, **options)


def create_and_close(gpu: FakeGpu, bundle: Bundle) -> None:
    with create(bundle):
        assert gpu.did[-1] == "capture"


def test_a_frame_goes_up_through_the_network_and_down_and_the_result_is_the_callers(with_engine, fake, noise):
    bundle = with_engine()
    gpu = fake(bundle.manifest.input.shape)
    with create(bundle) as engine:
        gpu.did.clear()
        results = [engine.infer(image) for image in noise]
        assert gpu.did[:6] == ["event", "upload", "execute on 7", "download", "event", "synchronize"]
        assert engine.device_milliseconds() == 4
    for image, result in zip(noise, results, strict=True):
        np.testing.assert_array_equal(result, 255 - image)
    assert gpu.did[-1] == "close"
    with pytest.raises(RuntimeError, match="not open"):
        engine.device_milliseconds()


def test_a_frame_that_was_interrupted_is_waited_for_before_the_network_is_freed(with_engine, fake, noise):
    bundle = with_engine()
    gpu = fake(bundle.manifest.input.shape)
    with pytest.raises(KeyboardInterrupt), create(bundle) as engine:
        engine.infer(noise[0])
        gpu.did.clear()

        def interrupted() -> None:
            gpu.did.append("launch")
            raise KeyboardInterrupt

        engine._work = interrupted
        engine.infer(noise[0])
    assert gpu.did == ["event", "launch", "synchronize", "free the context", "close"]


def test_the_time_on_the_device_is_a_stage_of_its_own_in_a_run_and_in_a_bench(with_engine, fake, noise, validate):
    bundle = with_engine()
    fake(bundle.manifest.input.shape)
    with create(bundle) as engine:
        assert engine.device_ns is None
        engine.infer(noise[0])
        assert engine.device_ns == 4_000_000
        report = bench(engine, noise, fps=100, seconds=0.3, warm_up_s=0.1)
    assert report.latency_ms["device"].p50 == pytest.approx(4, rel=0.002)
    assert set(report.samples_ms["device"]) == {4.0}
    assert len(report.samples_ms["device"]) == len(report.samples_ms["inference"]) > 0
    assert "<h2>device</h2>" in page(report)
    validate(report)


def test_the_first_run_comes_before_the_capture_and_graph_false_captures_nothing(with_engine, fake):
    bundle = with_engine()
    gpu = fake(bundle.manifest.input.shape)
    create(bundle).open()
    assert gpu.did == ["upload", "execute on 7", "download", "synchronize", "capture"]
    gpu.did.clear()
    create(bundle, graph=False).open()
    assert "capture" not in gpu.did


def test_an_engine_that_cannot_be_captured_runs_as_three_calls(with_engine, fake, noise, monkeypatch, caplog):
    def refuse(self, work):
        raise cuda.GpuError("tensorrt-rtx failed: not stream capturable")

    bundle = with_engine()
    gpu = fake(bundle.manifest.input.shape)
    monkeypatch.setattr(FakeGpu, "captured", refuse)
    with create(bundle) as engine:
        np.testing.assert_array_equal(engine.infer(noise[0]), 255 - noise[0])
    assert gpu.did.count("execute on 7") == 2
    assert "runs as three calls: tensorrt-rtx failed: not stream capturable" in caplog.text


def test_the_engine_built_for_this_gpu_goes_before_the_portable_one(with_engine, fake, bundle, monkeypatch):
    with_engine()
    whole = Bundle.load(bundle.path)
    name = "engine.fp16.tensorrt-rtx.sm86+sm89.plan"
    entry = EngineEntry(file=name, precision=Precision.FP16, api="tensorrt-rtx", api_version=VERSION, arch="sm86+sm89")
    whole = whole.add({name: b"another plan"}, engines=[entry])
    fake(whole.manifest.input.shape)
    read: list[str] = []
    monkeypatch.setattr(Bundle, "file", lambda self, name: read.append(name) or self.path / name)
    create(whole).open()
    assert read == [name]


def test_too_little_memory_and_a_failing_network_are_told_and_the_gpu_is_given_back(with_engine, fake):
    bundle = with_engine()
    create_and_close(fake(bundle.manifest.input.shape, needs=3 << 30), bundle)  # what is free may be an understatement
    gpu = fake(bundle.manifest.input.shape, needs=3 << 30, fits=False)
    gpu.did.clear()
    with pytest.raises(OSError, match=r"needs 3072 MiB of GPU memory, 1024 MiB are free on a fake RTX 4090: close"):
        create(bundle).open()
    assert gpu.did == ["close"]
    fake(bundle.manifest.input.shape, fits=False)
    with pytest.raises(OSError, match=r"tensorrt-rtx cannot run it on a fake RTX 4090: "):
        create(bundle).open()
    fake(bundle.manifest.input.shape, works=False)
    with pytest.raises(OSError, match="tensorrt-rtx failed: the reason"):
        create(bundle).open()
    fake((1, 8, 8, 3))
    with pytest.raises(ValueError, match=r"frame is .*8, 8, 3.*, the manifest says uint8"):
        create(bundle).open()


def test_a_bundle_without_such_an_engine_names_the_command(bundle, fake):
    fake(bundle.manifest.input.shape)
    told = r"no fp16 engine for tensorrt-rtx: run `derain build .* --precision fp16 --api tensorrt-rtx`"
    with pytest.raises(ValueError, match=told):
        create(bundle).open()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"api_version": "1.4.0.76"},
            r"built with tensorrt-rtx 1\.4\.0\.76 for portable, this is tensorrt-rtx 1\.6\.1\.120: run `derain build",
        ),
        (
            {"arch": "sm120"},
            r"built with tensorrt-rtx 1\.6\.1\.120 for sm120, this is .* on sm89 \(a fake RTX 4090\): run",
        ),
    ],
)
def test_an_engine_from_elsewhere_is_refused_with_what_it_is_and_what_this_is(changes, told, with_engine, fake):
    bundle = with_engine(**changes)
    fake(bundle.manifest.input.shape)
    with pytest.raises(ValueError, match=told) as caught:
        create(bundle).open()
    assert "\n" not in str(caught.value)


def test_turing_is_not_served_by_a_portable_engine_and_the_command_names_it(with_engine, fake, monkeypatch):
    bundle = with_engine()
    fake(bundle.manifest.input.shape)
    monkeypatch.setattr(FakeGpu, "architecture", "sm75")
    with pytest.raises(ValueError, match=r"for portable, this is .* on sm75 .*: run `derain build .* --arch sm75`$"):
        create(bundle).open()
    create(with_engine(arch="sm75+sm89")).open()


def test_fp8_is_refused_where_the_gpu_has_none(with_engine, fake, monkeypatch):
    bundle = with_engine(precision=Precision.FP8)
    fake(bundle.manifest.input.shape)
    create(bundle, Precision.FP8).open()
    monkeypatch.setattr(FakeGpu, "architecture", "sm86")
    with pytest.raises(ValueError, match="a fake RTX 4090 is sm86, FP8 needs sm89 or newer: take fp16 or int8"):
        create(bundle, Precision.FP8).open()


def test_an_api_that_does_not_start_gives_its_reason(with_engine, fake):
    """As the bindings do with a driver that is too old."""

    def refuse(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    bundle = with_engine()
    fake(bundle.manifest.input.shape)
    trt = tensorrt_api.APIS["tensorrt-rtx"].load()
    trt.Runtime = trt.Builder = refuse
    for act, told in (
        (create(bundle).open, "factory function returned nullptr"),
        (lambda: tensorrt_api.start(tensorrt_api.APIS["tensorrt-rtx"], "Builder", ["CUDA error 35"]), "CUDA error 35"),
    ):
        with pytest.raises(OSError, match=rf"^tensorrt-rtx 1\.6\.1\.120 does not start: .*{told}: see `derain doctor`"):
            act()


def test_an_engine_has_the_precisions_that_were_built_for_its_api(with_engine):
    bundle = with_engine()
    assert engines.precisions("tensorrt-rtx", bundle) == [Precision.FP16]
    assert engines.precisions("tensorrt", bundle) == []
    assert engines.precisions("onnxruntime", bundle) == [Precision.FP32]


def test_where_no_gpu_is_an_installed_engine_says_what_it_can_still_do(monkeypatch):
    def refuse():
        raise cuda.GpuError("no GPU that CUDA can use (error 35): install or update NVIDIA's driver")

    monkeypatch.setattr(tensorrt_api.Api, "installed", True)
    for backend in (engines.tensorrt.TensorRTEngine, engines.tensorrt.TensorRTRTXEngine):
        monkeypatch.setattr(backend, "missing", classmethod(lambda cls: None))
    monkeypatch.setattr(cuda, "open_cuda", refuse)
    told = engines.limitations()
    assert told["tensorrt"][0] == "no GPU" and told["tensorrt-rtx"][0] == "builds engines; no GPU to run them"
    assert {reason for _, reason in told.values()} == {
        "no GPU that CUDA can use (error 35): install or update NVIDIA's driver"
    }
    assert "onnxruntime" not in told
    monkeypatch.setattr(cuda, "open_cuda", FakeGpu)
    assert engines.limitations() == {}


def test_without_an_nvidia_driver_the_reason_is_one_line(with_engine, monkeypatch):
    """The real cuda-python, and the real TensorRT-RTX refusing a plan."""
    trt = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install 'derain[rtx]'")
    pytest.importorskip("cuda.bindings", reason="needs cuda-python")
    bundle = with_engine(api_version=trt.__version__)
    try:
        cuda.architecture()
    except OSError as error:
        assert "\n" not in str(error)
        with pytest.raises(cuda.GpuError, match=r"^no GPU that CUDA can use \(CUDA error \d+, .*\): install or update"):
            create(bundle).open()
    monkeypatch.setattr(cuda, "open_cuda", FakeGpu)
    with pytest.raises(
        ValueError, match=r"portable\.plan: tensorrt-rtx cannot load it: .*: run `derain build"
    ) as caught:
        create(bundle).open()
    assert "\n" not in str(caught.value)


def test_a_gpu_that_cannot_be_closed_hides_neither_the_reason_nor_the_next_opening(with_engine, fake, monkeypatch):
    def refuse(self):
        raise cuda.GpuError("cudaStreamSynchronize: CUDA error 700")

    bundle = with_engine()
    fake(bundle.manifest.input.shape, works=False)
    engine = create(bundle)
    with monkeypatch.context() as sick:
        sick.setattr(FakeGpu, "close", refuse)
        with pytest.raises(OSError, match="tensorrt-rtx failed: the reason"):
            engine.open()
        fake(bundle.manifest.input.shape)
        engine.open()
        with pytest.raises(cuda.GpuError, match="CUDA error 700"):
            engine.close()
    gpu = fake(bundle.manifest.input.shape)
    with engine:
        gpu.did.clear()
    assert gpu.did == ["synchronize", "free the context", "close"]


def test_without_a_provider_of_cuda_the_engine_says_which_package_adds_one(monkeypatch):
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    assert cuda.missing() == "neither cuda-python nor pycuda is installed: pip install cuda-python"
    with pytest.raises(ModuleNotFoundError, match="neither cuda-python nor pycuda"):
        cuda.open_cuda()


def test_a_namespace_that_other_packages_share_is_no_provider(monkeypatch):
    """`cuda` is there with cupy as well, which brings no bindings."""

    def find(name):
        if name == "cuda.bindings":
            raise ModuleNotFoundError("No module named 'cuda'")

    monkeypatch.setattr(cuda, "find_spec", find)
    assert cuda.missing() is not None


def test_pycuda_is_taken_where_it_is_the_only_provider(monkeypatch):
    monkeypatch.setattr(cuda, "find_spec", lambda name: name == "pycuda" or None)
    monkeypatch.setitem(cuda.PROVIDERS, "pycuda", FakeGpu)
    assert (cuda.architecture(), cuda.gpu_name()) == ("sm89", "a fake RTX 4090")
