"""ONNX Runtime: the CPU's engine, and CUDA's where onnxruntime-gpu is installed."""

import io
import logging
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, ClassVar

from derain.runtime import cuda
from derain.runtime.bundle import Bundle
from derain.runtime.engines.base import Engine, register
from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec, Precision
from derain.runtime.names import check_name

log = logging.getLogger(__name__)

FP8_SPOILERS = ("ReluQuantRewrite", "ClipQuantRewrite")
"""Optimisers of ONNX Runtime 1.32 that drop a Relu or Clip in front of QuantizeLinear, as if its least level were zero:
in FP8, which is signed, negative values would come through."""


BIAS_SPOILER = "WeightBiasQuantization"
"""The optimiser that gives biases 32 bits at the scale of input times weights, in the graph's own precision: in FP16
that scale has few digits or none, which cost graphs of ReLU networks up to 20 dB."""


def as_written(options: Any, fp8: bool) -> list[str]:
    """Have sessions of these options compute a graph with Q/DQ, of FP8 or not, as it is written.

    Returns:
        The optimisers to leave out: the session's `disabled_optimizers`.
    """
    if not fp8:
        return [BIAS_SPOILER]
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # it would quantise biases anew
    return [BIAS_SPOILER, *FP8_SPOILERS]


@register("onnxruntime")
class OnnxRuntimeEngine(Engine):
    """A graph on ONNX Runtime, on `threads` cores (all this process may use, by default).

    The output is the array `session.run` returns: an I/O binding to a preallocated one took as long (1.6 ms at 1280x720
    for a graph that only inverts) and would tie the result's life to the next frame.
    """

    package = "onnxruntime"
    extra = "cpu"
    provider: ClassVar[str] = "CPUExecutionProvider"
    provider_options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, bundle: Bundle, precision: Precision = Precision.FP32, threads: int | None = None) -> None:
        super().__init__(bundle, precision)
        self.threads = threads or len(os.sched_getaffinity(0))
        self._session: Any = None

    def _open(self) -> None:
        onnxruntime: Any = import_module(self.package)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3  # errors, which are raised as well; warnings are for a graph's author
        graph = self.bundle.graph(self.precision)
        check_name(graph)
        try:
            providers = [(self.provider, dict(self.provider_options))]
            left_out = as_written(options, fp8=self.precision is Precision.FP8)
            session = onnxruntime.InferenceSession(graph, options, providers=providers, disabled_optimizers=left_out)
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this
            raise ValueError(f"{graph}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
        if self.provider not in session.get_providers():  # it falls back to the CPU with no more than a warning
            raise ValueError(f"engine {self.name}: {self.provider} did not start: see `derain doctor`")
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


@register("onnxruntime-cuda")
class OnnxRuntimeCudaEngine(OnnxRuntimeEngine):
    """A graph on ONNX Runtime's CUDA provider, frame and result bound to memory of the GPU.

    Without a binding every run allocates on the GPU and copies through pageable memory of ONNX Runtime's choice.
    """

    extra = "gpu"
    provider = "CUDAExecutionProvider"
    provider_options: ClassVar[Mapping[str, str]] = {"use_tf32": "0"}  # FP32 is FP32, as in an engine of TensorRT
    device: ClassVar[str] = "cuda"

    @classmethod
    def missing(cls) -> str | None:
        """The package, or a build of it with the provider."""
        reason = super().missing()
        if reason is None and cls.provider not in import_module(cls.package).get_available_providers():
            reason = f"{cls.package} has no {cls.provider} here: {command_for_cuda(cls.extra)}"
        return reason

    @classmethod
    def limitation(cls) -> tuple[str, str] | None:
        """The package has the provider whether or not there is a GPU; CUDA is asked where it can be."""
        reason = None if cuda.missing() else cuda.refusal()
        return ("no GPU", reason) if reason else None

    def _open(self) -> None:
        load_cuda_libraries()
        super()._open()
        onnxruntime: Any = import_module(self.package)
        self._frame = onnxruntime.OrtValue.ortvalue_from_shape_and_type(self.input.shape, "uint8", self.device, 0)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self.input.tensor, self._frame)
        self._binding.bind_output(self.output.tensor, self.device)

    def _infer(self, tensor: Image) -> Image:
        self._frame.update_inplace(tensor)
        self._session.run_with_iobinding(self._binding)
        clean: Image = self._binding.copy_outputs_to_cpu()[0]
        return clean

    def _close(self) -> None:
        self._frame = self._binding = None
        super()._close()


def load_cuda_libraries() -> None:
    """Load CUDA's libraries from NVIDIA's Python packages, where ONNX Runtime does not look by itself.

    It prints what it does not find; where that was needed, the provider does not start, which is told then.
    """
    onnxruntime: Any = import_module("onnxruntime")
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with redirect_stdout(io.StringIO()) as told:
            onnxruntime.preload_dlls()
        if told.getvalue():
            log.debug("%s", " ".join(told.getvalue().split()))


def command_for_cuda(extra: str) -> str:
    """The command that adds the CUDA provider: both builds are one Python package, and the last one installed is it."""
    try:
        distribution("onnxruntime-gpu")
    except PackageNotFoundError:
        return f"pip install 'derain[{extra}]'"
    return "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"


def _signature(spec: FrameSpec) -> str:
    return f"{spec.tensor} tensor(uint8) {list(spec.shape)}"
