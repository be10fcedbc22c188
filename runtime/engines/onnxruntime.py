"""ONNX Runtime: the CPU's engine, and CUDA's where onnxruntime-gpu is installed."""

import os
from importlib import import_module
from typing import Any, Literal

from derain.runtime.bundle import Bundle, FrameSpec, Precision
from derain.runtime.engines.base import Engine, register
from derain.runtime.frames import Image


@register("onnxruntime")
class OnnxRuntimeEngine(Engine):
    """A graph on ONNX Runtime, on `threads` cores (all this process may use, by default) or on a CUDA `device`.

    The output is the array `session.run` returns: an I/O binding to a preallocated one took as long (1.6 ms at 1280x720
    for a graph that only inverts) and would tie the result's life to the next frame.
    """

    package = "onnxruntime"
    extra = "cpu"

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = Precision.FP32,
        threads: int | None = None,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        super().__init__(bundle, precision)
        self.threads = threads or len(os.sched_getaffinity(0))
        self.device = device
        self._session: Any = None

    def _open(self) -> None:
        onnxruntime: Any = import_module(self.package)
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[self.device]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = (
            3  # errors: they are raised as well, and warnings are for those who wrote the graph
        )
        graph = self.bundle.graph(self.precision)
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(f"engine {self.name}: no {provider} here: pip install 'derain[gpu]'")
        try:
            session = onnxruntime.InferenceSession(graph, options, providers=[provider])
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this
            raise ValueError(f"{graph}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
        if provider not in session.get_providers():  # it falls back to the CPU with no more than a warning
            raise ValueError(f"engine {self.name}: {provider} did not start: see `derain doctor`")
        for which, nodes, spec in (
            ("input", session.get_inputs(), self.input),
            ("output", session.get_outputs(), self.output),
        ):
            seen = ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes)
            if seen != (expected := _signature(spec)):
                raise ValueError(f"{graph}: {which} is {seen}, the manifest says {expected}: export the bundle again")
        self._session = session

    def _infer(self, tensor: Image) -> Image:
        clean: Image = self._session.run([self.output.tensor], {self.input.tensor: tensor})[0]
        return clean

    def _close(self) -> None:
        self._session = None


def _signature(spec: FrameSpec) -> str:
    return f"{spec.tensor} tensor(uint8) {list(spec.shape)}"
