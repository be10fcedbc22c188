"""ONNX graphs to TensorRT engines: one builder for TensorRT 10, TensorRT 11 and TensorRT-RTX.

Precision is the graph's own (networks are strongly typed), so the builder has no precision flags. TensorRT times
kernels on the GPU it builds for; TensorRT-RTX compiles without one, for the architectures that are named.
"""

import hashlib
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from derain.runtime import cuda
from derain.runtime.atomic import write_bytes
from derain.runtime.bundle import Bundle
from derain.runtime.engines.tensorrt_api import PORTABLE, Api, choose, errors, logger, start
from derain.runtime.manifest import EngineEntry, Precision

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""Told the builder's phase and the share of it that is done, 0…1."""


@dataclass(frozen=True)
class BuildOptions:
    """What a build may choose; recorded in the manifest. None leaves TensorRT its default."""

    workspace_mib: int | None = None
    """The most GPU memory a kernel may use for itself."""
    tf32: bool = False
    """Let FP32 convolutions round their operands to TF32 (10 bits); without it FP32 is FP32."""


def build(
    bundle: Bundle,
    precision: Precision,
    api: str | None = None,
    architectures: tuple[str, ...] = (),
    options: BuildOptions = BuildOptions(),
    progress: Progress | None = None,
) -> tuple[Bundle, EngineEntry]:
    """Build the engine of one graph and record it in the bundle, which appears again whole.

    Args:
        bundle: with a graph of `precision`.
        precision: whose graph is built.
        api: `tensorrt` or `tensorrt-rtx`; None takes the one that is installed.
        architectures: of GPUs, as `sm86`, for an API that builds ahead of time; none means any GPU the API serves.
        options: see `BuildOptions`.
        progress: called while the engine is built.

    Raises:
        ModuleNotFoundError: the API is not installed.
        ValueError: no such graph or architecture, INT8 for TensorRT-RTX, or TensorRT refuses the graph (by the node's
            name) or the build.
        OSError: no GPU, for an API that needs one to build, or the bundle cannot be written to.
        KeyboardInterrupt: Ctrl-C; the bundle is as it was.
    """
    chosen, architectures = resolve_target(api, architectures)
    if precision is Precision.INT8 and chosen.ahead_of_time:  # TensorRT-RTX
        raise ValueError(
            f"{bundle.path}: {chosen.name} has no INT8 convolutions: build fp8 or fp16, or use --api tensorrt"
        )
    Bundle.check_place(bundle.path)
    graph = bundle.graph(precision)
    trt = chosen.load()
    arch = "+".join(architectures) or (PORTABLE if chosen.ahead_of_time else cuda.architecture())
    with errors(chosen) as heard, _interruptible() as interrupted:
        builder = start(chosen, "Builder", heard)
        network = _parse(chosen, builder, graph)
        config = _configure(trt, builder, architectures, options)
        config.progress_monitor = _monitor(trt, progress or (lambda phase, share: None), interrupted)
        entry = EngineEntry(
            file=f"engine.{precision}.{chosen.name}.{arch}.plan",
            precision=precision,
            api=chosen.name,
            api_version=trt.__version__,
            arch=arch,
            options=asdict(options),
        )
        with _timing_cache(chosen, config, bundle, entry):
            plan = builder.build_serialized_network(network, config)
            if interrupted.is_set():
                raise KeyboardInterrupt
            if plan is None:
                told = f"{chosen.name} {trt.__version__} cannot build it for {arch}"
                raise ValueError(f"{graph}: {told}: {_first(heard)}")
    return bundle.add({entry.file: bytes(plan)}, engines=[entry]), entry


def resolve_target(api: str | None, architectures: tuple[str, ...]) -> tuple[Api, tuple[str, ...]]:
    """(API, GPU architectures) to build with and for: all that can be refused before there is a graph.

    Arguments and errors as of `build`.
    """
    chosen = choose(api)
    trt = chosen.load()
    architectures = tuple(dict.fromkeys(name.lower() for name in architectures))
    if architectures and not chosen.ahead_of_time:
        raise ValueError(
            f"{chosen.name} builds for the GPU it runs on, not for {', '.join(architectures)}: leave --arch out there, "
            f"or use --api tensorrt-rtx"
        )
    known = _capabilities(trt) if architectures else {}
    if unknown := [name for name in architectures if name not in known]:
        raise ValueError(
            f"architecture {unknown[0]!r}: TensorRT-RTX {trt.__version__} builds for {', '.join(sorted(known))}; "
            f"without --arch the engine is for any GPU it serves"
        )
    return chosen, architectures


def _capabilities(trt: Any) -> dict[str, Any]:
    """The architectures that TensorRT-RTX can name."""
    return {name.lower(): value for name, value in trt.ComputeCapability.__members__.items() if name[:2] == "SM"}


def _parse(api: Api, builder: Any, graph: Path) -> Any:
    """The network of an ONNX file; ValueError with the name of the first node that is refused."""
    trt = api.load()
    strongly = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind, one day
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, logger(api))
    if not parser.parse_from_file(str(graph)):
        error = parser.get_error(0)
        node = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_name() else "the graph"
        more = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
        reason = " ".join(error.desc().split())
        raise ValueError(f"{graph}: {api.name} {trt.__version__} refuses {node}: {reason}{more}")
    return network


def _configure(trt: Any, builder: Any, architectures: tuple[str, ...], options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    if architectures:
        known = _capabilities(trt)
        config.num_compute_capabilities = len(architectures)
        for index, name in enumerate(architectures):
            config.set_compute_capability(known[name], index)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if (own_memory := getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)) is not None:
        config.set_flag(own_memory)  # TensorRT-RTX's: nothing is allocated in a run, so that a CUDA graph can hold it
    return config


def _monitor(trt: Any, progress: Progress, interrupted: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, (step + 1) / max(1, self.steps[phase_name]))
            return not interrupted.is_set()

        def phase_finish(self, phase_name: str) -> None:
            del self.steps[phase_name]

    return Monitor()


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Set by Ctrl-C: raised inside one of TensorRT's callbacks, its bindings would swallow it and build on."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _timing_cache(api: Api, config: Any, bundle: Bundle, entry: EngineEntry) -> Iterator[None]:
    """Load the kernel times an earlier build of the same thing left beside the bundle, and keep those of this one."""
    if not api.timing_cache:
        yield
        return
    graph = next(graph.file for graph in bundle.manifest.graphs if graph.precision == entry.precision)
    gpu = None if api.ahead_of_time else cuda.gpu_name()  # two of one architecture, as A10 and RTX 3090, time apart
    key = [bundle.manifest.files[graph].sha256, entry.api, entry.api_version, entry.arch, gpu, entry.options]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    whole = bundle.path.resolve()
    path = whole.with_name(f"{whole.name}.timing") / f"{digest[:24]}.cache"
    loaded = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if loaded is None or not config.set_timing_cache(loaded, ignore_mismatch=False):
        raise ValueError(f"{path}: timings of another GPU or TensorRT, or a broken file: remove it")
    yield
    write_bytes(path, bytes(config.get_timing_cache().serialize()))


def _first(heard: list[str]) -> str:
    return heard[0] if heard else "it gives no reason (run again with --debug)"
