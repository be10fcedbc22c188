"""One GPU's memory, stream and graphs, on cuda-python or, where only that is installed, on pycuda.

An engine needs ten calls of CUDA; `Cuda` names them, and each provider is a class. Not one of them runs without a GPU,
so without one only their refusals are tested.
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], None]


class GpuError(OSError):
    """CUDA, its driver or the GPU refuses; the message is one line with CUDA's own words."""


STREAM_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, which pycuda has no name for."""

NO_GPU = "no GPU that CUDA can use ({}): install or update NVIDIA's driver, or take another --engine"


class Cuda(ABC):
    """The first GPU this process may use, with one stream on which everything is ordered.

    What is allocated lives until `close`. Every method raises GpuError where CUDA fails.
    """

    architecture: str
    """As `sm90`: the compute capability's digits."""
    name: str
    stream: int
    """The stream's handle, for TensorRT."""

    @abstractmethod
    def free_bytes(self) -> int:
        """GPU memory that nobody holds."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """The address of `size` bytes of GPU memory."""

    @abstractmethod
    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A host array that the GPU copies from and to without a detour."""

    @abstractmethod
    def upload(self, address: int, array: NDArray[np.uint8]) -> None:
        """Copy a pinned array to the GPU, on the stream."""

    @abstractmethod
    def download(self, array: NDArray[np.uint8], address: int) -> None:
        """Copy GPU memory to a pinned array, on the stream."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the stream is empty."""

    @abstractmethod
    def captured(self, work: Work) -> Work:
        """`work` as one CUDA graph; `work` itself where the provider has no graphs."""

    @abstractmethod
    def event(self) -> Any:
        """A device event, to be recorded again and again."""

    @abstractmethod
    def record(self, event: Any) -> None:
        """Have the stream note the time when it gets here."""

    @abstractmethod
    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Between two recorded events, the stream having passed both; to half a microsecond."""

    def milliseconds(self, work: Work) -> float:
        """The time `work` takes on the stream, between two device events."""
        start, end = self.event(), self.event()
        self.record(start)
        work()
        self.record(end)
        self.synchronize()
        return self.elapsed_ms(start, end)

    @abstractmethod
    def close(self) -> None:
        """Free everything, also what is left where CUDA fails at some of it."""


class CudaPython(Cuda):
    """On cuda-python's runtime API, whose primary context every thread shares with TensorRT."""

    def __init__(self) -> None:
        self._runtime: Any = import_module("cuda.bindings.runtime")
        self._frees = ExitStack()
        status, _ = self._runtime.cudaGetDeviceCount()
        if int(status) != 0:
            raise GpuError(NO_GPU.format(self._words(status)))
        properties = self._call("cudaGetDeviceProperties", 0)
        self.architecture = f"sm{properties.major}{properties.minor}"
        self.name = properties.name.split(b"\0")[0].decode()
        # A blocking stream would wait for whatever else this process does on CUDA's default stream, and while such a
        # stream is captured CUDA refuses that.
        self._stream = self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        self.stream = int(self._stream)
        self._frees.callback(self._call, "cudaStreamDestroy", self._stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        status, *values = getattr(self._runtime, function)(*arguments)
        if int(status) != 0:
            raise GpuError(f"{function}: {self._words(status)}: see `derain doctor`")
        return values[0] if len(values) == 1 else values

    def _words(self, status: Any) -> str:
        _, words = self._runtime.cudaGetErrorString(status)
        return f"CUDA error {int(status)}, {words.decode()}"

    def free_bytes(self) -> int:  # noqa: D102
        free, _ = self._call("cudaMemGetInfo")
        return int(free)

    def allocate(self, size: int) -> int:  # noqa: D102
        address = self._call("cudaMalloc", size)
        self._frees.callback(self._call, "cudaFree", address)
        return int(address)

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:  # noqa: D102
        size = int(np.prod(shape))
        address = self._call("cudaMallocHost", size)
        self._frees.callback(self._call, "cudaFreeHost", address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address))).reshape(shape)

    def upload(self, address: int, array: NDArray[np.uint8]) -> None:  # noqa: D102
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def download(self, array: NDArray[np.uint8], address: int) -> None:  # noqa: D102
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def synchronize(self) -> None:  # noqa: D102
        self._call("cudaStreamSynchronize", self._stream)

    def captured(self, work: Work) -> Work:  # noqa: D102
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:  # a capture must be ended, whatever became of it: until then this thread cannot allocate
            status, broken = self._runtime.cudaStreamEndCapture(self._stream)
            if int(status) == 0:
                self._runtime.cudaGraphDestroy(broken)
            self._runtime.cudaGetLastError()  # else TensorRT's next look for one finds it
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        self._frees.callback(self._call, "cudaGraphExecDestroy", executable)
        return lambda: self._call("cudaGraphLaunch", executable, self._stream)

    def event(self) -> Any:  # noqa: D102
        event = self._call("cudaEventCreate")
        self._frees.callback(self._call, "cudaEventDestroy", event)
        return event

    def record(self, event: Any) -> None:  # noqa: D102
        self._call("cudaEventRecord", event, self._stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:  # noqa: D102
        return float(self._call("cudaEventElapsedTime", start, end))

    def close(self) -> None:  # noqa: D102
        with self._frees:
            self.synchronize()


class PyCuda(Cuda):
    """On pycuda, for machines that have only that. It has no CUDA graphs, and a thread must take the context first."""

    def __init__(self) -> None:
        try:
            self._driver: Any = import_module("pycuda.driver")
        except ImportError as error:  # it is linked against the driver's library, which a machine without one lacks
            raise GpuError(NO_GPU.format(error)) from error
        try:
            self._driver.init()
        except self._driver.Error as error:
            raise GpuError(NO_GPU.format(error)) from error
        device = self._driver.Device(0)
        self.architecture = "sm{}{}".format(*device.compute_capability())
        self.name = device.name()
        self._context = _primary_context()
        self._frees = ExitStack()
        self._stream = self._here(self._driver.Stream, STREAM_NON_BLOCKING)
        self.stream = int(self._stream.handle)
        self._events: list[Any] = []
        self._frees.callback(self._here, self._forget)

    def _here(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._context.push()
        try:
            return function(*arguments)
        except self._driver.Error as error:
            raise GpuError(f"{error}: see `derain doctor`") from error
        finally:
            self._context.pop()

    def free_bytes(self) -> int:  # noqa: D102
        return int(self._here(self._driver.mem_get_info)[0])

    def allocate(self, size: int) -> int:  # noqa: D102
        memory = self._here(self._driver.mem_alloc, size)
        self._frees.callback(self._here, memory.free)
        return int(memory)

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:  # noqa: D102
        array: NDArray[np.uint8] = self._here(self._driver.pagelocked_empty, shape, np.uint8)
        memory: Any = array.base  # the allocation
        self._frees.callback(self._here, memory.free)
        return array

    def upload(self, address: int, array: NDArray[np.uint8]) -> None:  # noqa: D102
        self._here(self._driver.memcpy_htod_async, address, array, self._stream)

    def download(self, array: NDArray[np.uint8], address: int) -> None:  # noqa: D102
        self._here(self._driver.memcpy_dtoh_async, array, address, self._stream)

    def synchronize(self) -> None:  # noqa: D102
        self._here(self._stream.synchronize)

    def captured(self, work: Work) -> Work:  # noqa: D102
        return work

    def event(self) -> Any:  # noqa: D102
        self._events.append(self._here(self._driver.Event))
        return len(self._events) - 1

    def record(self, event: Any) -> None:  # noqa: D102
        self._here(self._events[event].record, self._stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:  # noqa: D102
        return float(self._here(self._events[start].time_till, self._events[end]))

    def _forget(self) -> None:
        """Pycuda destroys streams and events with their last reference, for which their context must be current."""
        self._events.clear()
        self._stream = None

    def close(self) -> None:  # noqa: D102
        with self._frees:
            self.synchronize()


@cache
def _primary_context() -> Any:
    """The one that TensorRT uses, kept for the process: at its last release CUDA resets it, and pycuda leaves it so."""
    return import_module("pycuda.driver").Device(0).retain_primary_context()


PROVIDERS: dict[str, type[Cuda]] = {"cuda.bindings": CudaPython, "pycuda": PyCuda}
"""By Python package, the better one first."""


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package it would be in
        return False


def missing() -> str | None:
    """None where a provider is installed, else the command that adds one."""
    if any(map(_installed, PROVIDERS)):
        return None
    return "neither cuda-python nor pycuda is installed: pip install cuda-python"


def open_cuda() -> Cuda:
    """The GPU, through the first provider that is installed.

    Raises ModuleNotFoundError where there is none, GpuError where there is no driver or no GPU.
    """
    if reason := missing():
        raise ModuleNotFoundError(reason)
    return next(provider for package, provider in PROVIDERS.items() if _installed(package))()


def architecture() -> str:
    """The GPU's, as `sm90`; raises as `open_cuda`."""
    gpu = open_cuda()
    try:
        return gpu.architecture
    finally:
        gpu.close()


def gpu_name() -> str:
    """The GPU's, as `NVIDIA A10`; raises as `open_cuda`."""
    gpu = open_cuda()
    try:
        return gpu.name
    finally:
        gpu.close()


def refusal() -> str | None:
    """None where there is a GPU that CUDA can use, else why not, in one line; a provider must be installed."""
    try:
        open_cuda().close()
    except GpuError as error:
        return str(error)
    return None
