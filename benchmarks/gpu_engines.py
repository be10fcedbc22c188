"""The engines that `gpu.py` measures, each opened on one case: what it makes of a frame, and what can be timed."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from gpu_cases import API, Case, Frames
from torch import Tensor, nn

from derain.export.camera import CameraModel, downscale_of
from derain.runtime import engines
from derain.runtime.engines.onnxruntime import command_for_cuda, load_cuda_libraries
from derain.runtime.engines.tensorrt_api import APIS, errors, logger
from derain.runtime.manifest import Precision
from derain.training.models import Prediction
from derain.training.models.weights import load

Work = Callable[[], object]
"""One frame on the current stream, from the one buffer on the device to the other."""


class Candidate(NamedTuple):
    """An engine with a case open in it: a frame's result, and what can be timed, in ms, by name."""

    infer: Callable[[Frames], Frames]
    timers: dict[str, Callable[[], float]]


def tensorrt_rtx(case: Case, precision: Precision, frame: Tensor, clean: Tensor, graph: bool = True) -> Work:
    """The plan on PyTorch's stream and buffers, by default captured in a CUDA graph."""
    api = APIS[API]
    trt = api.load()
    bundle = case.bundle
    (entry,) = (e for e in bundle.manifest.engines if (e.api, e.precision) == (API, precision))
    if entry.api_version != trt.__version__:
        raise ValueError(f"{entry.file} is of {API} {entry.api_version}, here is {trt.__version__}: prepare it here")
    with errors(api) as heard:
        runtime = trt.Runtime(logger(api))
        engine = runtime.deserialize_cuda_engine(bundle.file(entry.file).read_bytes())
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise RuntimeError(f"{entry.file}: {API} cannot load it: {' '.join(heard[:1])}")
    for spec, tensor in ((bundle.manifest.input, frame), (bundle.manifest.output, clean)):
        context.set_tensor_address(spec.tensor, tensor.data_ptr())

    def work(held: Any = (context, engine, runtime, frame, clean)) -> None:
        if not held[0].execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError(f"{entry.file}: {API} failed: {' '.join(logger(api).errors[-1:])}")

    return captured(work) if graph else work


def captured(work: Work) -> Work:
    """`work` as a CUDA graph, after runs in which it makes its last preparations."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # On the stream of those runs: on another, TensorRT would make its preparations again, inside the capture.
    stream = torch.cuda.current_stream()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()

    def replay(held: Work = work) -> None:  # a graph knows addresses, and nobody else holds what lies there
        graph.replay()

    return replay


def onnx_runtime(case: Case, precision: Precision, frame: Tensor, clean: Tensor) -> Work:
    """The FP16 graph on PyTorch's stream and buffers; on a CPU its CPU provider."""
    import onnxruntime

    wanted: dict[str, dict[str, str]] = {"CPUExecutionProvider": {}}
    options = onnxruntime.RunOptions()
    if frame.is_cuda:
        load_cuda_libraries()
        stream = str(torch.cuda.current_stream().cuda_stream)
        tuned = {"user_compute_stream": stream, "cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": "1"}
        wanted = {"CUDAExecutionProvider": tuned}
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    (provider,) = wanted
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"onnxruntime has no {provider} here: {command_for_cuda('gpu')}")
    session = onnxruntime.InferenceSession(case.bundle.graph(precision), providers=list(wanted.items()))
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime's {provider} did not start: see `derain doctor`")
    binding = session.io_binding()
    for bind, spec, tensor in (
        (binding.bind_input, case.bundle.manifest.input, frame),
        (binding.bind_output, case.bundle.manifest.output, clean),
    ):
        bind(spec.tensor, tensor.device.type, 0, np.uint8, spec.shape, tensor.data_ptr())
    return lambda: session.run_with_iobinding(binding, options)


class Half(nn.Module):
    """A network in FP16 between images in FP32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, x: Tensor) -> tuple[Prediction, None]:
        """As the network, without its state."""
        prediction = self.network(x.half())[0]
        return Prediction(prediction.image.float(), {}), None


def pytorch(case: Case, precision: Precision, frame: Tensor, clean: Tensor, compiled: bool = False) -> Work:
    """The network in FP16 and channels-last between the camera's bytes, eager or compiled."""
    torch.backends.cudnn.benchmark = True  # as ONNX Runtime's exhaustive search
    manifest = case.bundle.manifest
    network = load(str(case.bundle.file(manifest.model.weights))).network
    model = CameraModel(Half(network), manifest.input, manifest.output, downscale_of(manifest.model))
    module: Any = model.eval().to(frame.device)
    module = module.to(memory_format=torch.channels_last)
    if compiled:
        module = torch.compile(module, mode="max-autotune")

    def work() -> None:
        with torch.inference_mode():
            clean.copy_(module(frame))

    return work


def on_buffers(case: Case, precision: Precision, device: torch.device, make: Callable[..., Work]) -> Candidate:
    """A candidate of `make`'s work between one buffer for the frame and one for the result on the device."""
    manifest = case.bundle.manifest
    frame, clean = (
        torch.zeros(spec.shape, dtype=torch.uint8, device=device) for spec in (manifest.input, manifest.output)
    )
    source, result = (
        torch.zeros(tensor.shape, dtype=torch.uint8, pin_memory=frame.is_cuda) for tensor in (frame, clean)
    )
    work = make(case, precision, frame, clean)

    def with_copies() -> None:
        frame.copy_(source, non_blocking=True)
        work()
        result.copy_(clean, non_blocking=True)

    def infer(image: Frames) -> Frames:
        source.copy_(torch.from_numpy(image)[None])
        with_copies()
        if frame.is_cuda:
            torch.cuda.synchronize()
        return result[0].numpy().copy()

    return Candidate(infer, {"network": timed(work, device), "with copies": timed(with_copies, device)})


def timed(work: Work, device: torch.device) -> Callable[[], float]:
    """One run of `work` in ms, between two events of the current stream; on a CPU by its clock."""

    def on_gpu() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def on_cpu() -> float:
        start = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start)

    return on_gpu if device.type == "cuda" else on_cpu


def own_runtime(case: Case, precision: Precision, device: torch.device) -> Candidate:
    """The engine that `derain run` uses; "infer" is its whole verb, by the host's clock."""
    engine: Any = engines.create(API, case.bundle, precision)
    engine.open()
    image = case.frames[0]
    host = timed(lambda: engine.infer(image), torch.device("cpu"))
    return Candidate(engine.infer, {"with copies": engine.device_milliseconds, "infer": host})


def _on_buffers(make: Callable[..., Work], **options: Any) -> Callable[..., Candidate]:
    def open_candidate(case: Case, precision: Precision, device: torch.device) -> Candidate:
        return on_buffers(case, precision, device, lambda *where: make(*where, **options))

    return open_candidate


ENGINES: dict[str, Callable[[Case, Precision, torch.device], Candidate]] = {
    API: _on_buffers(tensorrt_rtx),
    f"{API}-enqueue": _on_buffers(tensorrt_rtx, graph=False),
    f"{API}-derain": own_runtime,
    "onnxruntime": _on_buffers(onnx_runtime),
    "pytorch-eager": _on_buffers(pytorch),
    "torch-compile": _on_buffers(pytorch, compiled=True),
}
"""In the order in which they are measured."""
