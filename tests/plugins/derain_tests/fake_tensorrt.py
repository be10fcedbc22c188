"""A GPU and a TensorRT of our own making, to see a frame's way through an engine where there is neither."""

from types import SimpleNamespace

import numpy as np

from derain.runtime import cuda

VERSION = "1.6.1.120"


class FakeGpu(cuda.Cuda):
    """Addresses are keys of a dictionary of arrays; what happens is written down."""

    architecture, name, stream = "sm89", "a fake RTX 4090", 7

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.did: list[str] = []

    def free_bytes(self):
        return 2**30

    def allocate(self, size):
        self.memory[len(self.memory) + 1] = np.zeros(size, np.uint8)
        return len(self.memory)

    def pinned(self, shape):
        return np.zeros(shape, np.uint8)

    def upload(self, address, array):
        self.did.append("upload")
        self.memory[address][:] = array.ravel()

    def download(self, array, address):
        self.did.append("download")
        array[...] = self.memory[address].reshape(array.shape)

    def synchronize(self):
        self.did.append("synchronize")

    def captured(self, work):
        self.did.append("capture")
        return work

    def event(self):
        return []

    def record(self, event):
        self.did.append("event")
        event[:] = [len(self.did)]  # a clock that counts what happened, in milliseconds

    def elapsed_ms(self, start, end):
        assert self.did[-1] == "synchronize"
        return float(end[0] - start[0])

    def close(self):
        self.did.append("close")


class FakeTensorRT:
    """Enough of `tensorrt` for an engine that inverts its bytes."""

    __version__ = VERSION

    def __init__(
        self, gpu: FakeGpu, shape: tuple[int, ...], needs: int = 0, works: bool = True, fits: bool = True
    ) -> None:
        self.addresses: dict[str, int] = {}
        self.DataType = SimpleNamespace(UINT8="uint8")

        def execute(stream: int) -> bool:
            gpu.did.append(f"execute on {stream}")
            gpu.memory[self.addresses["clean"]][:] = 255 - gpu.memory[self.addresses["frame"]]
            return works

        class Context(SimpleNamespace):
            def __del__(self) -> None:
                gpu.did.append("free the context")

        addresses = self.addresses
        engine = SimpleNamespace(
            device_memory_size_v2=needs,
            create_execution_context=lambda: (
                Context(set_tensor_address=addresses.__setitem__, execute_async_v3=execute) if fits else None
            ),
            get_tensor_shape=lambda name: shape,
            get_tensor_dtype=lambda name: "uint8",
        )
        self.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
