"""The memory module on cuda-python where there is no GPU: what it makes, it frees, whatever fails on the way."""

from types import SimpleNamespace

import numpy as np
import pytest

from derain.runtime import cuda


class FakeRuntime:
    """cuda-python's runtime: `held` by address is what was made and not freed; a stream being captured forbids most.

    The functions named in `failing` do nothing but fail.
    """

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self) -> None:
        self.held: dict[int, tuple[str, np.ndarray]] = {}
        self.failing: set[str] = set()
        self.capturing = False

    def __getattr__(self, name):
        def call(*arguments):
            if name in self.failing:
                return 700, None
            if name == "cudaStreamEndCapture":
                self.capturing = False
            if self.capturing and name not in ("cudaMemcpyAsync", "cudaEventRecord"):
                return 900, None
            if name == "cudaStreamBeginCapture":
                self.capturing = True
            assert name != "cudaStreamCreateWithFlags" or arguments == (self.cudaStreamNonBlocking,)
            if "Free" in name or "Destroy" in name:
                del self.held[arguments[0]]
            if not any(word in name for word in ("Malloc", "Create", "Instantiate", "EndCapture")):
                return (0,)
            memory = np.zeros(arguments[0] if "Malloc" in name else 1, np.uint8)
            self.held[memory.ctypes.data] = name, memory
            return 0, memory.ctypes.data

        return call

    def cudaGetDeviceCount(self):  # noqa: N802
        return 0, 1

    def cudaGetDeviceProperties(self, _):  # noqa: N802
        return 0, SimpleNamespace(major=8, minor=9, name=b"a fake RTX 4090\0")

    def cudaGetErrorString(self, status):  # noqa: N802
        return 0, {700: b"an illegal memory access", 900: b"not permitted when stream is capturing"}[status]


@pytest.fixture
def runtime(monkeypatch):
    made = FakeRuntime()
    monkeypatch.setattr(cuda, "import_module", lambda name: made)
    return made


def test_what_a_gpu_made_is_freed_with_it(runtime):
    gpu = cuda.CudaPython()
    address, array, event = gpu.allocate(16), gpu.pinned((4, 4)), gpu.event()
    launch = gpu.captured(lambda: gpu.upload(address, array))
    gpu.record(event)
    launch()
    kinds = sorted(name for name, _ in runtime.held.values())
    made = ["cudaEventCreate", "cudaGraphInstantiate", "cudaMalloc", "cudaMallocHost", "cudaStreamCreateWithFlags"]
    assert kinds == made
    gpu.close()
    assert not runtime.held


def test_a_capture_that_fails_is_ended_so_that_the_thread_can_allocate_again(runtime):
    def fail():
        raise OSError("the network failed")

    gpu = cuda.CudaPython()
    with pytest.raises(OSError, match="the network failed"):
        gpu.captured(fail)
    gpu.allocate(16)
    gpu.close()
    assert not runtime.held


def test_a_gpu_that_fails_while_it_is_closed_is_freed_as_far_as_it_can_be(runtime):
    gpu = cuda.CudaPython()
    gpu.allocate(16)
    gpu.pinned((4, 4))
    gpu.event()
    runtime.failing = {"cudaStreamSynchronize", "cudaFreeHost"}
    with pytest.raises(cuda.GpuError, match="cudaFreeHost: CUDA error 700, an illegal memory access: see `derain doc"):
        gpu.close()
    assert [name for name, _ in runtime.held.values()] == ["cudaMallocHost"]


def test_pycuda_where_the_driver_is_missing_is_a_machine_without_a_gpu(monkeypatch):
    def load(name):
        raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(cuda, "import_module", load)
    with pytest.raises(cuda.GpuError, match=r"^no GPU that CUDA can use \(libcuda.so.1: cannot open .*\): install or"):
        cuda.PyCuda()
