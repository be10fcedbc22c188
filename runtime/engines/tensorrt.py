"""TensorRT and TensorRT-RTX: a plan on the GPU, the frame's way there and back in one CUDA graph."""

import logging
from typing import Any, ClassVar

import numpy as np

from derain.runtime import cuda
from derain.runtime.bundle import Bundle
from derain.runtime.engines.base import Engine, register
from derain.runtime.engines.tensorrt_api import APIS, PORTABLE, Api, errors, logger, start
from derain.runtime.frames import Image
from derain.runtime.manifest import EngineEntry, Precision

log = logging.getLogger(__name__)

TURING = "sm75"
FIRST_WITH_FP8 = 89
"""The first compute capability whose tensor cores take FP8: Ada."""


class _TensorRTEngine(Engine):
    """The bundle's engine of one precision that fits this API's version and this GPU.

    A frame is copied to a pinned buffer, then upload, network and download run as one CUDA graph (`graph=False`, or
    where one of them cannot be captured: as three calls) between two device events, and the result is copied from the
    other pinned buffer.
    """

    api: ClassVar[Api]

    def __init__(self, bundle: Bundle, precision: Precision, graph: bool = True) -> None:
        super().__init__(bundle, precision)
        self.graph = graph
        self._gpu: cuda.Cuda | None = None
        self._held: list[Any] = []
        self._work: cuda.Work | None = None
        self._buffers: tuple[Image, Image] | None = None
        self._events: tuple[Any, Any] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """What is not installed: the API, or a provider of CUDA's calls."""
        return super().missing() or cuda.missing()

    @classmethod
    def limitation(cls) -> tuple[str, str] | None:
        """Without a GPU engines can be built at most."""
        still = "builds engines; no GPU to run them" if cls.api.ahead_of_time else "no GPU"
        return (still, reason) if (reason := cuda.refusal()) else None

    @classmethod
    def precisions(cls, bundle: Bundle) -> list[Precision]:
        """Those of its engines."""
        built = {entry.precision for entry in bundle.manifest.engines if entry.api == cls.name}
        return [precision for precision in Precision if precision in built]

    def _open(self) -> None:
        trt = self.api.load()
        built = self._of_this_version(trt.__version__)
        self._gpu = cuda.open_cuda()
        try:
            self._load(trt, self._of_this_gpu(built, trt.__version__))
        except BaseException as error:
            try:
                self._close()
            finally:  # what CUDA says to the closing after a fault is not the reason
                raise error

    def _load(self, trt: Any, entry: EngineEntry) -> None:
        gpu = self._gpu
        assert gpu is not None
        path = self.bundle.file(entry.file)
        with errors(self.api) as heard:
            runtime = start(self.api, "Runtime", heard)
            engine = runtime.deserialize_cuda_engine(path.read_bytes())
            if engine is None:
                raise ValueError(f"{path}: {self.name} cannot load it: {' '.join(heard[:1])}: {self._again()}")
            context = engine.create_execution_context()
            if context is None:  # only now: what a board with shared memory calls free leaves out what it could free
                needed, free = int(engine.device_memory_size_v2), gpu.free_bytes()
                if needed > free:
                    raise cuda.GpuError(
                        f"{path}: needs {needed >> 20} MiB of GPU memory, {free >> 20} MiB are free on {gpu.name}: "
                        f"close other programs, or export a smaller frame or model"
                    )
                raise cuda.GpuError(f"{path}: {self.name} cannot run it on {gpu.name}: {' '.join(heard[:1])}")
        self._held = [context, engine, runtime]  # the order in which they must go
        source, result = gpu.pinned(self.input.shape), gpu.pinned(self.output.shape)
        addresses = []
        for spec, array in ((self.input, source), (self.output, result)):
            seen = tuple(engine.get_tensor_shape(spec.tensor)), engine.get_tensor_dtype(spec.tensor)
            if seen != (spec.shape, trt.DataType.UINT8):
                raise ValueError(f"{path}: {spec.tensor} is {seen}, the manifest says uint8 {spec.shape}")
            addresses.append(gpu.allocate(array.nbytes))
            context.set_tensor_address(spec.tensor, addresses[-1])

        def work() -> None:
            gpu.upload(addresses[0], source)
            if not context.execute_async_v3(gpu.stream):
                raise cuda.GpuError(f"{path}: {self.name} failed: {' '.join(logger(self.api).errors[-1:])}")
            gpu.download(result, addresses[1])

        work()  # TensorRT makes its last preparations in the first run, which a capture must not see
        gpu.synchronize()
        self._work = work
        if self.graph:
            try:
                self._work = gpu.captured(work)
            except cuda.GpuError as error:  # three calls give the same pixels
                log.warning("%s: cannot be captured as one CUDA graph, runs as three calls: %s", path, error)
        self._buffers = source, result
        self._events = gpu.event(), gpu.event()

    def _infer(self, tensor: Image) -> Image:
        gpu = self._gpu
        assert gpu is not None and self._work is not None and self._buffers is not None and self._events is not None
        (source, result), (start, end) = self._buffers, self._events
        np.copyto(source, tensor)
        gpu.record(start)
        self._work()
        gpu.record(end)
        gpu.synchronize()
        self.device_ns = round(gpu.elapsed_ms(start, end) * 1e6)
        return result.copy()

    def device_milliseconds(self) -> float:
        """The last frame once more: upload, network and download as the GPU's own events time them."""
        if self._gpu is None or self._work is None:
            raise RuntimeError(f"engine {self.name} is not open: call open() or use it in a with statement")
        return self._gpu.milliseconds(self._work)

    def _close(self) -> None:
        self._work = self._buffers = self._events = None
        gpu, self._gpu = self._gpu, None
        try:
            if gpu is not None and self._held:  # an interrupted frame may still be on its way through them
                gpu.synchronize()
        finally:
            while self._held:
                self._held.pop(0)
            if gpu is not None:
                gpu.close()

    def _of_this_version(self, version: str) -> list[EngineEntry]:
        """The bundle's engines of this precision and API, if one is of the version that is installed."""
        built = [e for e in self.bundle.manifest.engines if (e.precision, e.api) == (self.precision, self.name)]
        if not built:
            others = self.precisions(self.bundle)
            choice = f"it has {', '.join(others)}: give --precision {others[0]}, or " if others else ""
            raise ValueError(f"{self.bundle.path}: no {self.precision} engine for {self.name}: {choice}{self._again()}")
        fitting = [entry for entry in built if entry.api_version == version]
        if not fitting:
            raise ValueError(self._unfit(built[0], f"{self.name} {version}"))
        return fitting

    def _of_this_gpu(self, built: list[EngineEntry], version: str) -> EngineEntry:
        assert self._gpu is not None
        here = self._gpu.architecture
        named = [entry for entry in built if here in entry.arch.split("+")]
        portable = [entry for entry in built if entry.arch == PORTABLE and here != TURING]
        if self.precision is Precision.FP8 and int(here.removeprefix("sm")) < FIRST_WITH_FP8:
            raise ValueError(f"{self._gpu.name} is {here}, FP8 needs sm{FIRST_WITH_FP8} or newer: take fp16 or int8")
        if not (named or portable):
            raise ValueError(self._unfit(built[0], f"{self.name} {version} on {here} ({self._gpu.name})"))
        return (named or portable)[0]

    def _unfit(self, entry: EngineEntry, here: str) -> str:
        path = self.bundle.path / entry.file
        return f"{path}: built with {entry.api} {entry.api_version} for {entry.arch}, this is {here}: {self._again()}"

    def _again(self) -> str:
        command = f"derain build {self.bundle.path} --precision {self.precision} --api {self.name}"
        if self.api.ahead_of_time and self._gpu is not None and self._gpu.architecture == TURING:
            command += f" --arch {TURING}"
        return f"run `{command}`"


@register("tensorrt")
class TensorRTEngine(_TensorRTEngine):
    """TensorRT 10 and 11."""

    api = APIS["tensorrt"]
    package, extra = api.package, api.extra


@register("tensorrt-rtx")
class TensorRTRTXEngine(_TensorRTEngine):
    """TensorRT-RTX."""

    api = APIS["tensorrt-rtx"]
    package, extra = api.package, api.extra
